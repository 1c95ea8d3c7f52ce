# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Debian root file system as a host: throw-away, with its own network and processes, real software and real logs."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from . import sweep as running
from .layers import DOMAIN, build_layer
from .network import RELAY6_ADDRESS, RELAY6_NAME, RELAY_ADDRESS, RELAY_NAME, Network
from .pid_one import mount
from .space import Space

__all__ = ["RELAY6_ADDRESS", "RELAY6_NAME", "RELAY_ADDRESS", "RELAY_NAME", "CommandFailed", "Tree"]
LOG_FILES = ("/var/log/mail.log", "/var/log/exim4/mainlog", "/var/log/exim4/paniclog", "/var/log/msmtp.log")
HOME = "/root"  # of a host's root
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SYSLOG = ("/usr/sbin/rsyslogd", "-n", "-iNONE")
_DNS = (
    *(
        "/usr/sbin/dnsmasq",
        "--keep-in-foreground",
        "--user=root",
        "--conf-file=/dev/null",
        "--pid-file=/run/dnsmasq.pid",
    ),
    *("--listen-address=127.0.0.1", "--bind-interfaces", "--no-resolv", "--no-poll", "--address=/#/"),
)
_SERVICES = {"exim": "exim4"}


@functools.cache
def _sweep_once() -> None:
    running.sweep()


class CommandFailed(subprocess.CalledProcessError):
    """A command in a tree ended with an error; its text holds what the command said."""

    def __str__(self) -> str:
        said = (self.stdout or b"") + (self.stderr or b"")
        return f"{super().__str__()}\n{said.decode(errors='replace')}"


class Tree(Space):
    """A host made of a role's layers and a writable one in memory.

    role: a key of layers.RECIPES. size: the writable layer's limit, as tmpfs(5) takes it; a small one is soon full.
    names: more host names and their addresses, besides relay.example.test and relay6.example.test.
    network: shared with other hosts; without it the host gets one of its own. address: in it, by itself the next free.
    Use it as a context manager; entering builds missing layers (minutes, once) and starts the host (well under 0.5 s).
    """

    def __init__(
        self,
        role: str = "bare",
        suite: str = "bookworm",
        name: str = "client",
        size: str = "512m",
        names: Mapping[str, str] | None = None,
        network: Network | None = None,
        address: str = "",
    ) -> None:
        super().__init__(name)
        self.role, self.suite, self.size = role, suite, size
        self.network = network or Network()
        self._own_network = network is None
        self.address = address or self.network.new_address()
        self.names = {**self.network.names, **(names or {})}
        self._place: Path | None = None
        self._lock: IO[str] | None = None

    @property
    def full_name(self) -> str:
        """Its host name with the domain."""
        return f"{self.name}.{DOMAIN}"

    def network_of(self, addresses: Sequence[str]) -> Space:
        """The host itself for loopback addresses, its network for others. Raises ValueError for a mixture."""
        local = {address == "::1" or address.startswith("127.") for address in addresses}
        if len(local) > 1:
            raise ValueError(f"some are loopback addresses and some are not: {addresses}")
        return self if local == {True} else self.network

    @property
    def path(self) -> Path:
        """The host's root as seen from outside. Mind absolute links in it: see inside()."""
        assert self._place, "the tree is not started"
        return self._place / "root"

    @property
    def place(self) -> str:
        """The name of what it has on this machine."""
        assert self._place, "the tree is not started"
        return self._place.name

    def __enter__(self) -> Tree:
        self.begin_host()
        return self

    def begin_host(self) -> None:
        """Mount the layers and start process 1, syslogd and a name server."""
        _sweep_once()
        layers = build_layer(self.role, self.suite)
        self._place, self._lock = running.claim(self.name)
        try:
            self._mount(layers)
            self._write_names()
            self.write("/etc/hostname", f"{self.name}\n")
            self.write("/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
            if self._own_network:
                self.network.begin_network()
            self._come_up()
        except BaseException:
            self.kill()
            raise

    def _come_up(self) -> None:
        self.begin(str(self.path), (_SYSLOG, _DNS))
        self._wait_for_daemons()
        self.network.plug(self)

    def _mount(self, layers: list[Path]) -> None:
        assert self._place
        mount("tmpfs", str(self._place), "tmpfs", 0, f"size={self.size},mode=0755")
        for name in ("upper", "work", "root"):
            (self._place / name).mkdir()
        lower = ":".join(str(layer) for layer in layers)
        options = f"lowerdir={lower},upperdir={self._place}/upper,workdir={self._place}/work,xino=auto"
        mount("overlay", str(self.path), "overlay", 0, options)

    def _write_names(self) -> None:
        own = f"127.0.0.1 localhost\n::1 localhost ip6-localhost\n127.0.1.1 {self.full_name} {self.name}\n"
        text = own + "".join(f"{address} {name}\n" for name, address in self.names.items())
        self.write("/etc/hosts", text)
        if (self.path / "var/spool/postfix/etc").is_dir():
            self.write("/var/spool/postfix/etc/hosts", text)

    def _wait_for_daemons(self) -> None:
        ready = ("/dev/log", "/run/dnsmasq.pid")
        deadline = time.monotonic() + 3
        while not all((self.path / name[1:]).exists() for name in ready):
            if time.monotonic() > deadline:
                raise RuntimeError(f"rsyslogd or dnsmasq of {self.name} did not start")
            time.sleep(0.005)

    def kill(self) -> None:
        """End its processes and remove everything of it. Harmless when it was stopped before."""
        super().kill()
        self.network.unplug(self)
        if self._own_network:
            self.network.kill()
        if self._place and self._lock:
            running.release(self._place, self._lock)
        self._place = self._lock = None

    # -- what a test does with a host

    def add_name(self, name: str, address: str) -> None:
        """Make a host name resolve, in files and in DNS, also for a chrooted smtp client that runs already."""
        self.names[name] = address
        self._write_names()
        self._read_names()

    def _read_names(self) -> None:
        self.run(["sh", "-c", "kill -HUP $(cat /run/dnsmasq.pid)"])

    def command(self, argv: Sequence[str], user: str | None = None) -> list[str]:
        """The command line that runs argv inside the host."""
        if not self.alive() or not os.path.samestat(os.stat(f"/proc/{self.pid}/root/"), os.stat(self.path)):
            raise RuntimeError(f"{self.name} does not run")
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--uts", "--ipc", "--net", "--pid", "--"]
        if user:
            account = self._account(user)
            enter += ["setpriv", f"--reuid={account[2]}", f"--regid={account[3]}", "--init-groups", "--"]
        return [*enter, *argv]

    def run(
        self,
        argv: Sequence[str],
        input: bytes = b"",  # noqa: A002 - as subprocess.run names it
        check: bool = True,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command in the host, as root or as one of its users, in a clean environment plus env.

        Raises CommandFailed (with check) and subprocess.TimeoutExpired.
        """
        home = self._account(user)[5] if user else HOME
        clean = {"PATH": _PATH, "LC_ALL": "C.UTF-8", "HOME": home, "USER": user or "root", "LOGNAME": user or "root"}
        command = self.command(argv, user)
        # files, not pipes: a daemon that keeps its starter's output open would keep a pipe's reader waiting for ever
        with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            stdin.write(input)
            stdin.seek(0)
            done = subprocess.run(
                command, stdin=stdin, stdout=out, stderr=err, env={**clean, **(env or {})}, timeout=timeout, check=False
            )
            out.seek(0)
            err.seek(0)
            done = subprocess.CompletedProcess(list(argv), done.returncode, out.read(), err.read())
        if check and done.returncode:
            raise CommandFailed(done.returncode, done.args, done.stdout, done.stderr)
        return done

    def output(self, argv: Sequence[str], **how: object) -> str:
        """What a command prints, as text without the last line end."""
        return self.run(argv, **how).stdout.decode(errors="surrogateescape").rstrip("\n")  # type: ignore[arg-type]

    def _account(self, user: str) -> list[str]:
        lines = self.read("/etc/passwd").decode().splitlines()
        return next(line.split(":") for line in lines if line.startswith(f"{user}:"))

    def inside(self, path: str | Path) -> Path:
        """Where a path of the host is, seen from outside; links in it are followed as the host would."""
        done, rest, links = self.path, list(Path("/", path).parts[1:]), 0
        while rest:
            part = rest.pop(0)
            step = done.parent if part == ".." and done != self.path else done / part if part != ".." else done
            if step.is_symlink() and links < 40:
                target, links = Path(os.readlink(step)), links + 1
                rest = list(target.parts[1:] if target.is_absolute() else target.parts) + rest
                done = self.path if target.is_absolute() else done
            else:
                done = step
        return done

    def read(self, path: str | Path) -> bytes:
        """A file's bytes."""
        return self.inside(path).read_bytes()

    def exists(self, path: str | Path) -> bool:
        """Whether a file is there."""
        return self.inside(path).exists()

    def write(self, path: str | Path, data: bytes | str, mode: int = 0o644) -> None:
        """Write a file, root's, with the mode; folders on the way are made."""
        target = self.inside(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data.encode() if isinstance(data, str) else data)

    def start(self, service: str) -> None:
        """Start a service by the host's own init script."""
        self.run(["service", _SERVICES.get(service, service), "start"])

    def stop(self, service: str) -> None:
        """Stop a service by the host's own init script."""
        self.run(["service", _SERVICES.get(service, service), "stop"])

    def let_cool(self, path: str = "/etc/postfix/main.cf") -> None:
        """Make a file look ten seconds old: every Postfix command waits up to 3 s for a main.cf younger than 2 s."""
        past = time.time() - 10
        os.utime(self.inside(path), (past, past))

    def log(self) -> str:
        """The mail log: syslog's, Exim's and msmtp's files, those that are there."""
        return "".join(self.read(name).decode(errors="replace") for name in LOG_FILES if self.exists(name))

    def wait_for_log(self, pattern: str, timeout: float = 15) -> re.Match[str]:
        """Wait until a regular expression is found in the mail log. Raises TimeoutError with the log."""
        deadline = time.monotonic() + timeout
        while not (found := re.search(pattern, self.log())):
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {pattern!r} in the log of {self.name}:\n{self.log()}")
            time.sleep(0.02)
        return found

    def inventory_line(self) -> str:
        """The host as a line of an Ansible inventory for the connection plugin lab."""
        return (
            f"{self.name} ansible_connection=lab lab_pid={self.pid} lab_root={self.path}"
            " ansible_python_interpreter=/usr/bin/python3 ansible_pipelining=true"
        )
