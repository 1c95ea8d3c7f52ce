# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""What the core may ask of a host, and nothing else. Imported for its types only."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from .host import Completed, LogMark, Snapshot


class Host(Protocol):
    """A machine or, with ``root`` other than ``/``, an image or chroot tree that nothing runs in.

    Paths are those that the host's own programs use. All methods raise HostError with the path or program in it.
    """

    root: str

    def read(self, path: str) -> Snapshot | None:
        """The file behind ``path`` (links followed inside the root), or None when there is none."""

    def exists(self, path: str) -> bool:
        """Is there a file or directory?"""

    def names_in(self, directory: str) -> list[str]:
        """The names in a directory, sorted; empty when there is none."""

    def locked(self, directory: str, patience: float = 60) -> AbstractContextManager[None]:
        """Hold the one lock on ``directory``, which is made (0700) where there is none, also while it is waited for.

        It waits ``patience`` seconds for another run, then HostError.
        """

    def make_directory(self, path: str, mode: int, owner: str, group: str) -> bool:
        """Create it and what is missing above it (0755 root:root); True when ``path`` itself was created."""

    def own_directory(self, path: str, repair: bool = True) -> bool:
        """See that it is a directory of who runs this, 0700; True when it was made or its mode had to be repaired."""

    def stage(self, path: str, content: bytes, mode: int, owner: str, group: str) -> str:
        """Write a new file beside ``path``, never wider than ``mode``, synced to disk; gives its path."""

    def staged_name(self, path: str) -> str:
        """Where ``stage`` puts the candidate for ``path``: a hidden name in the same directory."""

    def kept_name(self, path: str) -> str:
        """The second name that is used for the file that ``path`` is now."""

    def refill(self, staged: str, content: bytes) -> None:
        """Write into the staged file itself, which has its room on the disk already; synced."""

    def sync(self, path: str) -> None:
        """See that a file, and that it is called so, are on the disk."""

    def replace(self, path: str, content: bytes | None, mode: int, owner: str, group: str) -> None:
        """``stage`` and ``rename`` in a directory that others may write to; None removes. It follows no link there."""

    def is_link(self, path: str) -> bool:
        """Is the file itself, not what is above it, a symbolic link?"""

    def keep(self, path: str, kept: str) -> bool:
        """Give the file that ``path`` is now the second name ``kept`` (same inode); False when there is none."""

    def rename(self, source: str, target: str) -> None:
        """Atomically; ``target``'s directory is synced."""

    def remove(self, path: str) -> None:
        """Remove the file; nothing happens when there is none."""

    def remove_tree(self, path: str) -> None:
        """Remove a directory of ours with all that is in it."""

    def remove_directory(self, path: str) -> None:
        """Remove a directory when it is empty."""

    def inode(self, path: str) -> int | None:
        """The number of the file that ``path`` now is, None when there is none."""

    def modified(self, path: str) -> float:
        """When the file's content was changed last, in seconds since the epoch; 0 when there is none."""

    def has_account(self, owner: str = "", group: str = "") -> bool:
        """Does the host know that user and that group?"""

    def which(self, program: str) -> str | None:
        """The path of a program, looked for in the system directories too."""

    def run(
        self, argv: Sequence[str], data: bytes = b"", timeout: float = 60, environment: dict[str, str] | None = None
    ) -> Completed:
        """Run a program of the host under LC_ALL=C. Secrets go in by ``data`` only. Inside a tree: chrooted."""

    def service(self, action: str, name: str) -> Completed:
        """start, stop, restart or reload a service by systemd or, where that does not run, by its init script."""

    def log_mark(self, files: Sequence[str] = ()) -> LogMark:
        """Where the mail log (the system's, and ``files`` of the software's own) ends now."""

    def log(self, since: LogMark) -> str:
        """What was written to the mail log since a mark, at most the last megabyte."""

    @property
    def live(self) -> bool:
        """False in a tree: nothing runs there, so nothing is started, reloaded or asked whether it runs."""
