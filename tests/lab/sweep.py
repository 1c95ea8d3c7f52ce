# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder of running trees, and how what killed test runs left in it is removed.

Each tree has a folder and beside it a lock file that its owner holds locked as long as it lives. Whoever can take the
lock knows that the owner is gone. The processes of such a tree are gone too: their lifeline ended with the owner.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from . import groups
from .pid_one import MNT_DETACH, unmount


def run_folder() -> Path:
    """Where trees are mounted: FLEETMAIL_LAB_RUN, or a folder in /run."""
    return Path(os.environ.get("FLEETMAIL_LAB_RUN", "/run/fleetmail-lab"))


@contextlib.contextmanager
def _folder_locked() -> Iterator[Path]:
    """Held while a lock file exists that its owner may not have locked yet."""
    folder = run_folder()
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    with open(folder / "folder.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def claim(name: str) -> tuple[Path, IO[str]]:
    """A new folder for a tree, and its lock, which is held until the file is closed."""
    with _folder_locked() as folder:
        place = folder / f"{name}-{os.getpid()}-{os.urandom(3).hex()}"
        lock = open(place.with_suffix(".lock"), "w", encoding="ascii")  # noqa: SIM115 - held by the tree
        fcntl.flock(lock, fcntl.LOCK_EX)
        place.mkdir()
    return place, lock


def release(place: Path, lock: IO[str]) -> None:
    """Unmount what is in the folder, remove it, and give up its lock."""
    _remove(place)
    place.with_suffix(".lock").unlink(missing_ok=True)
    lock.close()


def sweep() -> list[str]:
    """Remove the mounts and folders of dead owners; returns their names."""
    swept = []
    with _folder_locked() as folder:
        for path in folder.glob("*-*.lock"):
            with open(path, "w", encoding="ascii") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                _remove(path.with_suffix(""))
                path.unlink()
                swept.append(path.stem)
    return swept


def _remove(place: Path) -> None:
    for mounted in (place / "root", place):
        if mounted.is_mount():
            try:
                unmount(str(mounted))
            except OSError:
                unmount(str(mounted), MNT_DETACH)
    if place.is_dir():
        place.rmdir()
    groups.remove(place.name)


if __name__ == "__main__":
    for stale in sweep():
        print("removed", stale)
