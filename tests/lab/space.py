# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A set of namespaces with a process 1 in it. A Tree is one with a root; alone it is a network for a relay."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .pid_one import checked, libc

START_TIMEOUT = 20
_PID_ONE = Path(__file__).with_name("pid_one.py")
_NAMESPACES = ["--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child=KILL", "--propagation=private"]


class Space:
    """Own network, mount, process, host-name and IPC namespaces, until kill() or the end of the owner."""

    def __init__(self, name: str = "space") -> None:
        self.name = name
        self.pid = 0
        self._launcher: subprocess.Popen[bytes] | None = None
        self._lifeline = -1

    def __enter__(self) -> Space:
        self.begin()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.kill()

    def begin(self, root: str = "", daemons: tuple[tuple[str, ...], ...] = ()) -> None:
        """Start process 1 and wait until it has set all up. Raises RuntimeError with its words when it cannot."""
        wanted = {"hostname": self.name, "root": root, "daemons": daemons}
        readable, self._lifeline = os.pipe()
        command = ["unshare", *_NAMESPACES, sys.executable, "-I", "-S", str(_PID_ONE), json.dumps(wanted)]
        self._launcher = subprocess.Popen(
            command, stdin=readable, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        os.close(readable)
        assert self._launcher.stdout
        assert self._launcher.stderr
        answered = select.poll()  # not select(2): with hundreds of hosts file descriptors are above its limit
        answered.register(self._launcher.stdout, select.POLLIN)
        answered.poll(START_TIMEOUT * 1000)
        os.set_blocking(self._launcher.stdout.fileno(), False)
        answer = (self._launcher.stdout.readline() or b"").strip()
        if not answer:
            self._launcher.kill()
            said = self._launcher.stderr.read().decode(errors="replace")
            self.kill()
            raise RuntimeError(f"process 1 of {self.name} did not start: {said}")
        self.pid = int(answer)

    def alive(self) -> bool:
        """Whether process 1 still runs."""
        return self._launcher is not None and self._launcher.poll() is None

    def kill(self) -> None:
        """End every process of the space. The kernel frees its mounts and its network with the last of them."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        if self._launcher is None:
            return
        try:
            self._launcher.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._launcher.kill()
            self._launcher.wait()
        for stream in (self._launcher.stdout, self._launcher.stderr):
            if stream:
                stream.close()
        self._launcher, self.pid = None, 0

    def network_of(self, _addresses: Sequence[str]) -> Space:
        """The space whose network has these addresses."""
        return self

    def net_command(self, command: list[str]) -> list[str]:
        """The command as it runs with the machine's files but inside this space's network."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--", *command]


def listen(host: str, port: int, space: Space | None = None) -> socket.socket:
    """A listening TCP socket of this process, in the network of a space. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if space is None:
        return socket.create_server((host, port), family=family)
    with ThreadPoolExecutor(1) as one_thread:  # setns(2) changes the calling thread alone, and this one ends
        one_thread.submit(enter_network, space.pid).result()
        return one_thread.submit(socket.create_server, (host, port), family=family).result()


def enter_network(pid: int) -> None:
    """Move the calling thread, and nothing else, into the network of a process."""
    with open(f"/proc/{pid}/ns/net", "rb") as namespace:
        checked(libc.setns(namespace.fileno(), 0), "setns")
