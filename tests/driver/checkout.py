# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The checkout as Ansible wants it: below ansible_collections/fleetmail/smtp, as a link or as a copy."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from driver.environments import cache_root, locked

ROOT = Path(__file__).parents[2]
PLACE = Path("ansible_collections/fleetmail/smtp")


def linked(folder: Path | None = None) -> Path:
    """Return a collections path (for ANSIBLE_COLLECTIONS_PATH) in which the collection is a link to this checkout.

    folder: where such paths are kept, the cache unless told.
    """
    links = (folder or cache_root()) / "collections"
    collections = links / hashlib.sha256(os.fsencode(ROOT)).hexdigest()[:12]
    with locked(links):
        _drop_dead(links)
        link = collections / PLACE
        if not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(ROOT)
    return collections


def _drop_dead(links: Path) -> None:
    for link in links.glob(f"*/{PLACE}"):
        if not link.exists():
            shutil.rmtree(link.parents[2])


@contextmanager
def copied() -> Iterator[Path]:
    """Copy the tracked files to a real collection folder that is its own git repository, and remove it afterwards.

    ansible-test takes no link, and asks git which files there are.
    """
    cache_root().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_root(), prefix="copy-") as folder:
        collection = Path(folder) / PLACE
        for name in _tracked():
            target = collection / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target, follow_symlinks=False)
        subprocess.run(["git", "init", "--quiet", "."], cwd=collection, check=True)
        subprocess.run(["git", "add", "--all"], cwd=collection, check=True)
        yield collection


def _tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split("\0") if name and os.path.lexists(ROOT / name)]
