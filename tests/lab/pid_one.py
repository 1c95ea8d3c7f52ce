# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Process 1 of a lab host: goes into its root, starts its daemons, reaps orphans, and ends when its owner ends.

Run as a file by unshare(1), with one JSON argument; needs the standard library alone, because it leaves the machine's
root. Standard input is the lifeline: when the last writer is gone, for whatever reason, this process exits and the
kernel ends every process of its pid namespace. When all is ready, standard output gets one line: the process id as the
machine sees it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import sys
from typing import Any

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MNT_DETACH = 2
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_UP = 1
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}

libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """mount(2); raises OSError."""
    result = libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode())
    checked(result, target)


def unmount(target: str, flags: int = 0) -> None:
    """umount2(2); raises OSError."""
    checked(libc.umount2(target.encode(), flags), target)


def _enter(root: str) -> None:
    """Make root the only file system of this mount namespace, so that nothing in it can reach the machine's own."""
    harmless = MS_NOSUID | MS_NODEV | MS_NOEXEC
    mount("proc", root + "/proc", "proc", harmless)
    mount("sysfs", root + "/sys", "sysfs", harmless | MS_RDONLY)
    mount("devpts", root + "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5")
    os.chdir(root)
    checked(libc.pivot_root(b".", b"."), "pivot_root")
    unmount(".", MNT_DETACH)
    os.chdir("/")


def _loopback() -> None:
    """Bring lo up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(link, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(link, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def _reap(_number: int, _frame: object) -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _spawn(argv: list[str]) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    files = [(os.POSIX_SPAWN_DUP2, null, number) for number in (0, 1, 2)]
    os.posix_spawn(argv[0], argv, _ENVIRONMENT, file_actions=files, setsid=True)
    os.close(null)


def main(wanted: dict[str, Any]) -> None:
    """Set the host up as wanted says, report, and stay until the lifeline ends."""
    outer_pid = os.readlink("/proc/self")  # still the machine's /proc: the id that the owner can use
    os.umask(0o022)
    socket.sethostname(wanted["hostname"])
    _loopback()
    if wanted["root"]:
        _enter(wanted["root"])
    signal.signal(signal.SIGCHLD, _reap)
    for argv in wanted["daemons"]:
        _spawn(argv)
    os.write(1, f"{outer_pid}\n".encode())
    null = os.open("/dev/null", os.O_WRONLY)
    os.dup2(null, 1)
    while os.read(0, 1):
        pass


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
