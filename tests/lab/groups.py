# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Control groups: each systemd of the lab has some of its own, for two in the same would end each other's services."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

_HIERARCHIES = (Path("/sys/fs/cgroup/systemd"), Path("/sys/fs/cgroup/unified"))  # the second is not everywhere
_ENTER = 'while [ "$1" != -- ]; do mkdir -p "$1"; echo 0 > "$1/cgroup.procs"; shift; done; shift; exec "$@"'


def why_unavailable() -> str:
    """Why no systemd can have groups here, in one sentence; empty when it can."""
    there = _HIERARCHIES[0].is_dir()
    return "" if there else "systemd in a tree needs a cgroup hierarchy of version 1 (name=systemd)"


def inside(place: str, part: str, command: Sequence[str]) -> list[str]:
    """The command as it runs in new groups. place: whose they are, for remove(); part: a name among its groups."""
    return ["sh", "-c", _ENTER, "sh", *(str(group / part) for group in _of(place)), "--", *command]


def remove(place: str) -> None:
    """Remove the groups of a place whose processes have ended. Raises OSError when some have not."""
    for group in (one for one in _of(place) if one.is_dir()):
        for folder in sorted([group, *group.rglob("*/")], reverse=True):
            _remove(folder)


def _remove(group: Path) -> None:
    """What has ended may still be counted for a moment."""
    end = time.monotonic() + 3
    while True:
        try:
            group.rmdir()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)
        else:
            return


def _of(place: str) -> list[Path]:
    return [one / "fleetmail-lab" / place for one in _HIERARCHIES if one.is_dir()]
