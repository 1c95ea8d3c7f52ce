# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole machine: the tree of a "fleet" role with systemd as process 1 (systemd-nspawn(1)), reached by ssh.

It can be rebooted, lose its power and be switched off, and keeps its disk and its place in the network meanwhile.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from . import groups
from .booted import pid_of_init
from .layers import why_unavailable as why_no_trees
from .space import Space
from .tree import Tree

BOOT_TIMEOUT = 90
USER = "ops"  # an ordinary one, who may become root
_WANTS_REBOOT = 133  # what nspawn ends with, for a service manager that would start it again
# In the host's own process namespace, so that all of it ends with the host.
_BOOT = """set -e
[ "$(readlink /proc/self)" = $$ ] || mount -t proc proc /proc
exec systemd-nspawn --quiet --directory="$1" --machine="$2" --register=no --keep-unit --settings=no \\
    --network-namespace-path=/proc/self/ns/net --link-journal=no --resolv-conf=off --timezone=off \\
    --console=pipe --boot
"""


def why_unavailable() -> str:
    """Why machines cannot run here, in one sentence; empty when they can."""
    if reason := why_no_trees():
        return reason
    missing = [tool for tool in ("systemd-nspawn", "ssh") if not shutil.which(tool)]
    if missing:
        return "the fleet needs " + " and ".join(missing)
    return groups.why_unavailable()


class Machine(Tree):
    """A Tree whose process 1 is systemd. role: one of the "fleet" ones. Entering it boots it (about two seconds).

    Several boot at once by begin_host() of each and then wait_until_booted(). Its pid is systemd's, 0 while it is off.
    """

    _socket = 0  # process 1 of the namespaces that stay when the machine is off
    _boots: Iterator[int]
    _power: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Machine:
        self.begin_host()
        try:
            self.wait_until_booted()
        except BaseException:
            self.kill()
            raise
        return self

    def _come_up(self) -> None:
        """Plug it in and press the button."""
        self.write("/etc/machine-id", os.urandom(16).hex() + "\n")
        self.begin()
        self._socket, self._boots = self.pid, itertools.count(1)
        self.network.plug(self)
        self._press()

    @property
    def console(self) -> Path:
        """What systemd and nspawn say."""
        assert self._place
        return self._place / "console.log"

    def switch_on(self) -> None:
        """Boot, and wait until all that starts has started."""
        self._press()
        self.wait_until_booted()

    def _press(self) -> None:
        assert self._place
        enter = ["nsenter", f"--target={self._socket}", "--mount", "--net", "--pid", "--", "sh", "-c", _BOOT, "sh"]
        command = [*enter, str(self.path), self._place.name]
        with open(self.console, "ab") as console:
            self._power = subprocess.Popen(
                groups.inside(self._place.name, str(next(self._boots)), command),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        self.pid = 0

    def wait_until_booted(self) -> None:
        """Wait until all that starts has started. Raises RuntimeError with the console's words when something fails."""
        assert self._power
        end = time.monotonic() + BOOT_TIMEOUT
        while (state := self._state()) != "running":
            self.pid = pid_of_init(self.path)
            if time.monotonic() > end or self._power.poll() is not None or state == "degraded":
                raise RuntimeError(f"{self.name} did not boot:\n{self._why_not()}")
            time.sleep(0.1)
        self._read_names()

    def _why_not(self) -> str:
        said = self.console.read_text(errors="replace")[-3000:]
        if not self.pid:
            return said
        failed = self.output(["systemctl", "list-units", "--failed", "--plain", "--no-legend"], check=False)
        warned = self.output(["journalctl", "--boot", "--no-pager", "--priority=warning", "--lines=30"], check=False)
        return "\n".join([said, failed, warned])

    def reboot(self) -> None:
        """As an administrator does, from a shell on it."""
        self.run(["systemctl", "reboot"], check=False)
        assert self._wait_until_off() == _WANTS_REBOOT
        self.switch_on()

    def cut_power(self) -> None:
        """Every process ends at once; nothing is written any more."""
        os.kill(self.pid, signal.SIGKILL)
        self._wait_until_off()

    def switch_off(self) -> None:
        """Shut down in order."""
        self.run(["systemctl", "poweroff"], check=False)
        self._wait_until_off()

    def _wait_until_off(self) -> int:
        assert self._power
        ended = self._power.wait(timeout=BOOT_TIMEOUT)
        self.pid = 0
        return ended

    def _state(self) -> str:
        if not self.pid:
            return "off"
        try:
            return self.output(["systemctl", "is-system-running"], check=False, timeout=10)
        except (RuntimeError, OSError):
            return "between two boots"

    def _read_names(self) -> None:
        if self.pid not in (0, self._socket):
            super()._read_names()

    def net_command(self, command: list[str]) -> list[str]:
        return ["nsenter", f"--net=/proc/{self._socket}/ns/net", "--", *command]

    def kill(self) -> None:
        Space.kill(self)  # ends everything in it
        if self._power:
            self._power.wait(timeout=BOOT_TIMEOUT)
        super().kill()

    def inventory_line(self) -> str:
        """As an administrator has it: by ssh, as an ordinary user who becomes root."""
        return f"{self.name} ansible_host={self.address} ansible_user={USER} ansible_become=true"
