# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Host port on dictionaries: what a backend does to a machine, seen without one."""

from __future__ import annotations

import contextlib
import itertools
import os.path
from collections.abc import Callable, Iterator, Mapping, Sequence

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends.base import FileState
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.errors import HostError
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.host import Completed, LogMark, Snapshot
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.plan import Change
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.transaction import permissions as permissions_of

ABSENT = Completed(127, "", "it is not there")


class Call:
    """One program that was run: its words, what it was given, and the environment."""

    def __init__(self, argv: Sequence[str], data: bytes, environment: Mapping[str, str]) -> None:
        self.argv = list(argv)
        self.data = data
        self.environment = dict(environment)


class FakeHost:
    """Files, accounts and programs in memory.

    ``programs`` maps a program's name (the first word, without its directory) to what it answers: a Completed, or a
    function of the Call. A program that is not there answers 127, and ``which`` does not find it.
    """

    def __init__(self, files: Mapping[str, bytes | str | Snapshot] | None = None, live: bool = True) -> None:
        self.root = "/" if live else "/srv/image"
        self.files: dict[str, Snapshot] = {}
        self.inodes: dict[str, int] = {}
        self.directories: set[str] = {"/", "/etc", "/var/lib"}
        self.users = {"root"}
        self.groups = {"root"}
        self.programs: dict[str, Completed | Callable[[Call], Completed]] = {}
        self.calls: list[Call] = []
        self.served: list[tuple[str, str]] = []
        self.log_text = ""
        self._numbers = itertools.count(1)
        for path, file in (files or {}).items():
            self.put(path, file)

    def put(
        self, path: str, file: bytes | str | Snapshot, mode: int = 0o644, owner: str = "root", group: str = "root"
    ) -> None:
        """Lay a file down, as a person would."""
        if isinstance(file, str):
            file = file.encode("utf-8", "surrogateescape")
        self.files[path] = file if isinstance(file, Snapshot) else Snapshot(file, mode, owner, group)
        self.inodes[path] = next(self._numbers)
        self._enter(os.path.dirname(path))

    def text(self, path: str) -> str:
        """A file's content as text."""
        return self.files[path].content.decode("utf-8", "surrogateescape")

    def _enter(self, directory: str) -> None:
        while directory not in self.directories:
            self.directories.add(directory)
            directory = os.path.dirname(directory)

    # -- the port --------------------------------------------------------------------------------------------------

    @property
    def live(self) -> bool:
        return self.root == "/"

    def read(self, path: str) -> Snapshot | None:
        return self.files.get(path)

    def exists(self, path: str) -> bool:
        return path in self.files or path in self.directories

    def names_in(self, directory: str) -> list[str]:
        inside = directory.rstrip("/") + "/"
        entries = {*self.files, *self.directories}
        return sorted({entry[len(inside) :].split("/")[0] for entry in entries if entry.startswith(inside)} - {""})

    @contextlib.contextmanager
    def locked(self, directory: str, patience: float = 60) -> Iterator[None]:
        self.make_directory(directory, 0o700, "root", "root")
        yield

    def make_directory(self, path: str, mode: int, owner: str, group: str) -> bool:
        new = path not in self.directories
        self._enter(path)
        return new

    def own_directory(self, path: str, repair: bool = True) -> bool:
        return repair and self.make_directory(path, 0o700, "root", "root")

    def stage(self, path: str, content: bytes, mode: int, owner: str, group: str) -> str:
        for kind, name, known in (("user", owner, self.users), ("group", group, self.groups)):
            if name not in known and not name.isdigit():
                raise HostError(f"{kind} {name}", "is not known on the host")
        staged = self.staged_name(path)
        self.put(staged, Snapshot(content, mode, owner, group))
        return staged

    def staged_name(self, path: str) -> str:
        return self._beside(path, "new")

    def kept_name(self, path: str) -> str:
        return self._beside(path, "old")

    @staticmethod
    def _beside(path: str, kind: str) -> str:
        directory, base = os.path.split(path)
        return f"{directory.rstrip('/')}/.{base}.fleetmail-{kind}"

    def refill(self, staged: str, content: bytes) -> None:
        self.put(staged, self.files[staged]._replace(content=content))

    def replace(self, path: str, content: bytes | None, mode: int, owner: str, group: str) -> None:
        if content is None:
            self.remove(path)
        else:
            self.rename(self.stage(path, content, mode, owner, group), path)

    def is_link(self, path: str) -> bool:
        return False

    def sync(self, path: str) -> None:
        pass

    def keep(self, path: str, kept: str) -> bool:
        if path not in self.files:
            return False
        self.files[kept], self.inodes[kept] = self.files[path], self.inodes[path]
        return True

    def rename(self, source: str, target: str) -> None:
        self.files[target], self.inodes[target] = self.files.pop(source), self.inodes.pop(source)

    def remove(self, path: str) -> None:
        self.files.pop(path, None)
        self.inodes.pop(path, None)

    def remove_tree(self, path: str) -> None:
        for inside in [one for one in self.files if one.startswith(path + "/")]:
            self.remove(inside)
        self.directories = {one for one in self.directories if one != path and not one.startswith(path + "/")}

    def remove_directory(self, path: str) -> None:
        if not self.names_in(path):
            self.directories.discard(path)

    def inode(self, path: str) -> int | None:
        return self.inodes.get(path)

    def modified(self, path: str) -> float:
        return float(self.inodes.get(path, 0))

    def has_account(self, owner: str = "", group: str = "") -> bool:
        return (not owner or owner in self.users) and (not group or group in self.groups)

    def which(self, program: str) -> str | None:
        return "/usr/bin/" + program if program in self.programs else None

    def run(
        self,
        argv: Sequence[str],
        data: bytes = b"",
        timeout: float = 60,
        environment: Mapping[str, str] | None = None,
    ) -> Completed:
        call = Call(argv, data, environment or {})
        self.calls.append(call)
        answer = self.programs.get(os.path.basename(argv[0]), ABSENT)
        return answer(call) if callable(answer) else answer

    def service(self, action: str, name: str) -> Completed:
        self.served.append((action, name))
        return Completed(0, "", "")

    def log_mark(self, files: Sequence[str] = ()) -> LogMark:
        return {"/var/log/mail.log": (1, len(self.log_text))}

    def log(self, since: LogMark) -> str:
        return self.log_text[since["/var/log/mail.log"][1] :]


def apply(host: FakeHost, states: Sequence[FileState]) -> None:
    """Do to the host what a backend's list of files says, without the transaction around it."""
    for state in states:
        if state.content is not None:
            now = host.files.get(state.path)
            permissions = permissions_of(Change(state, now, ()))
            host.rename(host.stage(state.path, state.content, *permissions), state.path)
    for state in reversed(states):
        if state.content is None:
            host.remove(state.path)
