# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""What a host answers."""

from __future__ import annotations

from typing import NamedTuple


class Snapshot(NamedTuple):
    """A file as it stands: what a drift is judged by."""

    content: bytes
    mode: int
    owner: str
    group: str


class Completed(NamedTuple):
    """What a program said. ``code`` is negative when a signal ended it, 127 when it is not there."""

    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """What it said, on one line: standard error, or else standard output.

        Whole, for a secret cut in two would not be found and masked; what leaves is cut after that.
        """
        return " ".join((self.err.strip() or self.out.strip()).split())


LogMark = dict[str, tuple[int, int]]  # file -> inode and size; "journal" -> seconds since the epoch, 0
