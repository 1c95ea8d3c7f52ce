# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The environment and the collections that the contenders run with, made once and kept in the cache."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from driver import environments

HERE = Path(__file__).parent
WANTED = ("community/general", "ansible/posix", "ansible/utils", "debops/debops")
_COLLECTIONS = "ansible_collections/"


@dataclass(frozen=True)
class Ground:
    """What every contender stands on: programs, collections, and their versions."""

    environment: Path
    collections: tuple[Path, ...]
    versions: dict[str, str]

    @property
    def playbook(self) -> str:
        """The ansible-playbook of the bench."""
        return str(self.environment / "bin/ansible-playbook")


def ground(ours: Path) -> Ground:
    """Make what is missing; ours is the collections path with this collection.

    Raises driver.environments.Unavailable with pip's words.
    """
    environment = environments.virtual_environment((HERE / "requirements.txt").read_text())
    peers = _peers(environment)
    versions = {"ansible-core": _core_version(environment), **json.loads((peers / "versions.json").read_text())}
    return Ground(environment, (ours, peers), versions)


def present(ours: Path) -> Ground:
    """The environment that this program runs in, without the peers: nothing is fetched."""
    environment = Path(sys.prefix)
    return Ground(environment, (ours,), {"ansible-core": _core_version(environment)})


def _core_version(environment: Path) -> str:
    show = [str(environment / "bin/python"), "-c", "import ansible.release as r; print(r.__version__)"]
    said = subprocess.run(show, capture_output=True, text=True, check=True).stdout
    return said.strip()


def _peers(environment: Path) -> Path:
    """The collections path with what WANTED names, cut out of the packages that ship it."""
    key = environment.name.removeprefix("venv-")
    folder = environments.cache_root() / f"bench-peers-{key}"
    with environments.locked(folder):
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix="peers-") as scratch:
                made = Path(scratch, "made")
                made.mkdir()
                _unpack(_download(environment, Path(scratch, "wheels")), made)
                made.rename(folder)
    return folder


def _download(environment: Path, target: Path) -> list[Path]:
    print("-- fetching the peers' collections", file=sys.stderr, flush=True)
    pip = [str(environment / "bin/python"), "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command = [*pip, "--dest", str(target), "--requirement", str(HERE / "peers.txt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise environments.Unavailable(f"the peers' collections cannot be fetched: {done.stderr.strip()}")
    return sorted(target.iterdir())


def _unpack(wheels: list[Path], target: Path) -> None:
    versions = {}
    for wheel in wheels:
        name, version = wheel.name.split("-")[:2]
        versions[name] = version
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                inner = member.partition(_COLLECTIONS)[2]
                if inner.startswith(tuple(f"{wanted}/" for wanted in WANTED)) and not member.endswith("/"):
                    place = target / _COLLECTIONS / inner
                    place.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(member) as source, open(place, "wb") as copy:
                        shutil.copyfileobj(source, copy)
    (target / "versions.json").write_text(json.dumps(versions))
