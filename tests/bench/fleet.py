# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Many hosts: real trees of the laboratory with Postfix running, and the inventory that names them."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab import layers
from lab.authority import Authority
from lab.relay import Relay, listeners
from lab.tree import RELAY_NAME, Tree

ROLE = "bench"
USER, PASSWORD = "fleet", "correct horse: 7"
TRUSTED = "/etc/ssl/certs/ca-certificates.crt"
HANDS = 4  # hosts that are started at the same time

# One layer for all, with what the role of DebOps installs, so that no contender needs the network.
# `postfix check` makes the queue's directories, as the first start of a real host does.
layers.RECIPES[ROLE] = layers.Recipe(
    ("postfix", "libsasl2-modules", "postfix-pcre", "bsd-mailx", "make", "ssl-cert"),
    layers.RECIPES["postfix"].preseed,
    "postfix check",
)


class Disagreement(Exception):
    """A contender did not do the job that its figures would stand for."""


class Fleet:
    """Hosts that are started together, with an inventory file."""

    def __init__(self, name: str, size: int) -> None:
        self.name, self.size = name, size
        self.hosts: list[Tree] = []
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")
        self.inventory = Path(self._folder.name, "inventory")

    def __enter__(self) -> Fleet:
        layers.build_layer(ROLE)
        try:
            with ThreadPoolExecutor(HANDS) as hands:
                self.hosts = list(hands.map(self._start, range(1, self.size + 1)))
        except BaseException:
            self.__exit__()
            raise
        self.inventory.write_text("".join(host.inventory_line() + "\n" for host in self.hosts))
        return self

    def _start(self, number: int) -> Tree:
        host = Tree(role=ROLE, name=f"{self.name}-{number:03}", size="64m")
        host.begin_host()
        # what `postfix start` ends with; the check before it costs a second and was made in the layer
        host.run(["/usr/lib/postfix/sbin/master", "-w"])
        return host

    def __exit__(self, *_exception: object) -> None:
        with ThreadPoolExecutor(HANDS) as hands:
            list(hands.map(Tree.kill, self.hosts))
        self.hosts = []
        self._folder.cleanup()

    @contextlib.contextmanager
    def relays(self) -> Iterator[list[Relay]]:
        """A relay in each host's network, with a certificate that the hosts' own bundle of CAs trusts."""
        with tempfile.TemporaryDirectory(prefix="bench-ca-") as folder, contextlib.ExitStack() as running:
            authority = Authority(Path(folder))
            certificate = authority.good(RELAY_NAME)
            trusted = Path(authority.ca_file).read_bytes()
            relays = []
            for host in self.hosts:
                host.write(TRUSTED, host.read(TRUSTED) + b"\n" + trusted)
                relay = Relay(listeners(certificate), users={USER: PASSWORD}, auth_required=True)
                relays.append(running.enter_context(relay.start(in_net_of=host)))
            yield relays


def judge_null_client(host: Tree) -> None:
    """Let Postfix itself say that it does the job: everything to the relay, by verified TLS, with the password.

    Raises Disagreement.
    """
    names = ("relayhost", "smtp_tls_security_level", "smtp_sasl_auth_enable", "inet_interfaces", "mydestination")
    found = dict(line.split(" =", 1) for line in host.output(["postconf", *names]).splitlines())
    values = {name: value.strip() for name, value in found.items()}
    relay = f"[{RELAY_NAME}]:587"
    if tuple(values[name] for name in names) != (relay, "secure", "yes", "loopback-only", ""):
        raise Disagreement(f"{host.name} is no null client of the relay: {values}")
    table = host.output(["postconf", "-xh", "smtp_sasl_password_maps"])
    if host.output(["postmap", "-q", relay, table]) != f"{USER}:{PASSWORD}":
        raise Disagreement(f"{host.name}: {table} does not hold the password")
    if not host.output(["service", "postfix", "status"]).endswith("is running."):
        raise Disagreement(f"{host.name}: Postfix does not run")
