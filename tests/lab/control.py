# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A control node: Ansible that reaches machines by ssh, as an ordinary user, through the network that they are in."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .driven import Driven
from .machine import USER, Machine
from .network import Network
from .playbook import Host, Played

_KEY, _KNOWN = "id_ed25519", "known_hosts"
_HOST_KEY = "/etc/ssh/ssh_host_ed25519_key.pub"


class Silent:
    """A name in the inventory whose address nobody answers at."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address

    def inventory_line(self) -> str:
        return f"{self.name} ansible_host={self.address} ansible_user={USER}"


class ControlNode:
    """A folder with a key, the machines that know it, and where plays are run. ``close()`` ends its ssh connections."""

    def __init__(
        self, folder: Path, network: Network, machines: Sequence[Machine], others: Sequence[Host] = ()
    ) -> None:
        self.folder, self.network, self.hosts = folder, network, [*machines, *others]
        folder.mkdir(parents=True, exist_ok=True)
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / _KEY)]
        subprocess.run(make, stdin=subprocess.DEVNULL, check=True)
        self._meet(machines)
        self._sockets = Path(tempfile.mkdtemp(prefix="ssh-"))  # short: the name of a Unix socket has 108 bytes at most
        self.driven = Driven(folder, network=network, environment=self._settings())

    def _meet(self, machines: Sequence[Machine]) -> None:
        """Each machine knows the key, and the key's owner each machine."""
        key = (self.folder / f"{_KEY}.pub").read_bytes()
        for machine in machines:
            place = f"/home/{USER}/.ssh/authorized_keys"
            machine.write(place, key, 0o600)
            machine.run(["chown", f"{USER}:{USER}", place])
        known = [f"{machine.address} {machine.read(_HOST_KEY).decode()}" for machine in machines]
        (self.folder / _KNOWN).write_text("".join(known))

    def play(
        self, tasks: Sequence[Mapping[str, Any]] = (), *arguments: str, book: str = "", **variables: Any
    ) -> Played:
        """Run tasks, or a playbook by its name, on all of them."""
        return self.driven.play(tasks, self.hosts, variables, arguments, book=book)

    def module(self, name: str, **arguments: Any) -> Played:
        """Run one module, by its full name, on all of them."""
        return self.driven.module(name, self.hosts, arguments)

    def _settings(self) -> dict[str, str]:
        options = {
            "ControlMaster": "auto",
            "ControlPersist": "30",
            "IdentityFile": self.folder / _KEY,
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": self.folder / _KNOWN,
            "StrictHostKeyChecking": "yes",
            "ConnectTimeout": "40",
        }
        return {
            "ANSIBLE_SSH_ARGS": " ".join(f"-o {name}={value}" for name, value in options.items()),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self._sockets),
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_TIMEOUT": "40",
            "ANSIBLE_FORKS": "10",
        }

    def close(self) -> None:
        """End the connections that ssh keeps open."""
        for socket in self._sockets.glob("*"):
            subprocess.run(["ssh", "-S", str(socket), "-O", "exit", "any"], capture_output=True, check=False)
        shutil.rmtree(self._sockets, ignore_errors=True)
