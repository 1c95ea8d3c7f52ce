# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A network of its own: a bridge that hosts are plugged into, and the addresses at which relays beside them listen."""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .layers import DOMAIN
from .space import Space

if TYPE_CHECKING:
    from .tree import Tree

RELAY_NAME, RELAY_ADDRESS = f"relay.{DOMAIN}", "10.77.0.25"
RELAY6_NAME, RELAY6_ADDRESS = f"relay6.{DOMAIN}", "fd77::25"
AUTH_NAME, AUTH_ADDRESS = f"auth.{DOMAIN}", "10.77.0.26"  # for an authorization server
CONTROL_ADDRESS = "10.77.0.1"  # whence a control node comes; the first, so that any other can be taken away alone
_HOSTS = ipaddress.ip_address("10.77.1.0")


class Network(Space):
    """Nothing but its own addresses and its hosts can be reached in it.

    addresses: IPv4 and IPv6 addresses for servers, in 10.77.0.0/16 and fd77::/64; a relay gets them by
    Relay.start(in_net_of=network), or (in_net_of=host) with any host of the network.
    """

    def __init__(self, addresses: tuple[str, ...] = (RELAY_ADDRESS, RELAY6_ADDRESS, AUTH_ADDRESS)) -> None:
        super().__init__("network")
        self.addresses = (CONTROL_ADDRESS, *addresses)
        self.names = {RELAY_NAME: RELAY_ADDRESS, RELAY6_NAME: RELAY6_ADDRESS, AUTH_NAME: AUTH_ADDRESS}
        self._hosts: list[Tree] = []
        self._numbers = itertools.count(1)

    def __enter__(self) -> Network:
        self.begin_network()
        return self

    def begin_network(self) -> None:
        """Make the bridge, with the relays' addresses."""
        self.begin()
        lines = ["link add bridge type bridge", *_addresses("bridge", self.addresses), "link set bridge up"]
        self._ip(self, lines)

    def new_address(self) -> str:
        """An address for one more host."""
        return str(_HOSTS + next(self._numbers))

    def plug(self, host: Tree) -> None:
        """Give a host its eth0, and tell all hosts of the network each other's names."""
        port = "port" + host.address.replace(".", "")
        self._ip(
            self,
            [
                f"link add {port} type veth peer name eth0 netns {host.pid}",
                f"link set {port} master bridge",
                f"link set {port} up",
            ],
        )
        own6 = "fd77::1:" + format(int(ipaddress.ip_address(host.address)) & 0xFFFF, "x")
        self._ip(host, [*_addresses("eth0", (host.address, own6)), "link set eth0 up"])
        for other in self._hosts:
            other.add_name(host.full_name, host.address)
            host.add_name(other.full_name, other.address)
        self._hosts.append(host)

    def unplug(self, host: Tree) -> None:
        """Forget a host; its eth0 goes with its namespaces."""
        if host in self._hosts:
            self._hosts.remove(host)

    @contextlib.contextmanager
    def cut(self, address: str) -> Iterator[None]:
        """Nobody reaches one of the network's own addresses, as if its cable were pulled; then it is back."""
        self._ip(self, [f"addr del {address}/16 dev bridge"])
        for host in self._hosts:  # "no route" after 3 s; who still knew the way would wait for an answer
            self._ip(host, ["neigh flush dev eth0"])
        try:
            yield
        finally:
            self._ip(self, [f"addr add {address}/16 dev bridge"])

    @staticmethod
    def _ip(space: Space, lines: list[str]) -> None:
        batch = "\n".join(lines).encode()
        done = subprocess.run(space.net_command(["ip", "-batch", "-"]), input=batch, capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(f"ip(8) in the network of {space.name}: {done.stderr.decode(errors='replace')}")


def _addresses(link: str, addresses: tuple[str, ...]) -> list[str]:
    lines = []
    for address in addresses:
        if ":" not in address:
            lines.append(f"addr add {address}/16 dev {link}")
        elif Path("/proc/net/if_inet6").exists():
            lines.append(f"addr add {address}/64 dev {link} nodad")
    return lines
