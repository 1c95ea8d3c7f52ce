# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real systemd as process 1 inside a tree, for tests of units and timers: role "keeper" has it installed."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from . import groups
from .tree import CommandFailed, Tree

START_TIMEOUT = 60
_BOOT = "/opt/boot"
# It wants a hierarchy of control groups for itself, and must not turn the machine's kernel's knobs. What belongs to
# hardware and to a person's login is of no use here.
_SCRIPT = """#!/bin/sh
set -e
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
mkdir /sys/fs/cgroup/systemd
mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=basic.target
"""
_MASKED = (
    *("systemd-udevd", "systemd-udev-trigger", "systemd-tmpfiles-setup", "systemd-sysctl", "systemd-update-utmp"),
    *(
        "systemd-binfmt",
        "systemd-pstore",
        "systemd-modules-load",
        "systemd-remount-fs",
        "e2scrub_reap",
        "systemd-sysusers",
    ),
)


def pid_of_init(root: Path) -> int:
    """The systemd that is process 1 of namespaces within a host's, with this root; 0 when there is none."""
    for entry in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(line.split(":\t", 1) for line in entry.read_text().splitlines() if ":\t" in line)
            numbers = lines.get("NSpid", "").split()
            program = os.readlink(entry.parent / "exe")
            same = os.path.samestat(os.stat(entry.parent / "root/"), os.stat(root))
        except OSError:
            continue
        if same and numbers[-1:] == ["1"] and len(numbers) >= 3 and program.endswith("/systemd"):
            return int(entry.parent.name)
    return 0


class Booted:
    """The tree with systemd, from __enter__ to __exit__. The tree's own process 1 and its daemons go on beside it."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.pid = 0
        self._launcher: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Booted:
        self.tree.write(_BOOT, _SCRIPT, 0o755)
        for unit in _MASKED:
            target = self.tree.path / f"etc/systemd/system/{unit}.service"
            if not target.is_symlink():
                target.symlink_to("/dev/null")
        namespaces = ["--pid", "--fork", "--mount", "--mount-proc", "--cgroup", "--kill-child=KILL"]
        self._launcher = subprocess.Popen(
            groups.inside(self.tree.place, "booted", self.tree.command(["unshare", *namespaces, _BOOT])),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _wait(self) -> None:
        end = time.monotonic() + START_TIMEOUT
        while True:
            self.pid = self.pid or pid_of_init(self.tree.path)
            if self.pid and self.run(["systemctl", "is-active", "basic.target"], check=False).strip() == "active":
                return
            assert self._launcher
            if time.monotonic() > end or self._launcher.poll() is not None:
                raise RuntimeError(f"systemd did not start in {self.tree.name}")
            time.sleep(0.1)

    def __exit__(self, *_exception: object) -> None:
        if self._launcher:
            self._launcher.kill()
            self._launcher.wait()

    def run(self, argv: Sequence[str], check: bool = True) -> str:
        """What a command prints that is run under this systemd. Raises CommandFailed (with check)."""
        enter = ["nsenter", f"--target={self.pid}", "--all", "--"]
        done = subprocess.run([*enter, *argv], capture_output=True, timeout=120, check=False, env={"PATH": _PATH})
        if check and done.returncode:
            raise CommandFailed(done.returncode, done.args, done.stdout, done.stderr)
        return done.stdout.decode(errors="replace")

    def inventory_line(self) -> str:
        """As Tree.inventory_line, for plays that shall meet systemd."""
        return self.tree.inventory_line().replace(f"lab_pid={self.tree.pid}", f"lab_pid={self.pid}")


_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
