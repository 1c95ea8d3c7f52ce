# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the demo plays: three folders as hosts, and a relay. All of it in one folder, made anew for each run."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.authority import Authority
from lab.relay import Relay, listeners

HOSTS = ("web1", "web2", "db1")
USER = "fleet"
DAYS = 90.1  # that many days the relay's certificate is good
TEMPORARY = ("tmp", "ansible")
MSMTPRC = "etc/msmtprc"
CA_FILE = "etc/ssl/certs/relay-ca.pem"

Trees = dict[str, tuple[object, ...]]


class Busy(Exception):
    """Another demo plays in this folder."""


class Stage:
    """The folder. Of what it held only environments and links stay."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.hosts = work / "hosts"
        self.tmp = work / "tmp"

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Keep every other demo out, make the hosts, and clean up afterwards. Raises Busy."""
        self.work.mkdir(exist_ok=True)
        with (self.work / "demo.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy from None
            self._clear("hosts", "relay", "report", *TEMPORARY)
            self.tmp.mkdir(mode=0o700)
            tempfile.tempdir = str(self.tmp)
            try:
                for host in HOSTS:
                    self._make_host(host)
                yield
            finally:
                self._clear(*TEMPORARY)

    def _clear(self, *folders: str) -> None:
        for folder in folders:
            if (self.work / folder).exists():
                shutil.rmtree(self.work / folder)

    def _make_host(self, host: str) -> None:
        """Make a tree with just what the module looks up in it: names. Its root is whoever runs the demo."""
        etc = self.hosts / host / "etc"
        (etc / "ssl/certs").mkdir(parents=True)
        (etc / "passwd").write_text(f"root:x:{os.getuid()}:{os.getgid()}:root:/root:/bin/sh\n")
        (etc / "group").write_text(f"root:x:{os.getgid()}:\n")

    @contextmanager
    def relay(self, password: str) -> Iterator[Relay]:
        """Run a relay on free loopback ports, and tell Ansible where it is."""
        authority = Authority(self.work / "relay", "Demo CA")
        secured = listeners(authority.ending(DAYS, "localhost"), "127.0.0.1", 0, 0, 0)[1:]
        with Relay(secured, users={USER: password}, auth_required=True).start() as relay:
            ports = {security: relay.port(security) for security in ("starttls", "tls")}
            found = {"all": {"vars": {"relay_ports": ports}}}
            (self.work / "relay.yml").write_text(json.dumps(found, indent=2) + "\n")
            for host in HOSTS:
                shutil.copy(authority.ca_file, self.file(host, CA_FILE))
            yield relay

    def file(self, host: str, path: str = MSMTPRC) -> Path:
        return self.hosts / host / path

    def report(self, name: str) -> Path:
        """The folder of a report."""
        return self.work / "report" / name

    def page(self, name: str) -> Path:
        """The page of a report, for a browser."""
        return self.report(name) / "report.html"

    def trees(self) -> Trees:
        """Everything in the hosts: mode and owner, and of files also their content, time and inode."""
        return {str(path.relative_to(self.hosts)): _state(path) for path in sorted(self.hosts.rglob("*"))}

    def files(self) -> int:
        """How many files the hosts have."""
        return sum(path.is_file() for path in self.hosts.rglob("*"))


def _state(path: Path) -> tuple[object, ...]:
    found = path.lstat()
    general = (found.st_mode, found.st_uid, found.st_gid)
    if not stat.S_ISREG(found.st_mode):
        return general
    return (*general, found.st_mtime_ns, found.st_ino, digest(path))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
