# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Virtual environments, made once and kept in the cache under a hash of what they hold."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from driver import pythons

# For the tests against the oldest, the newest and the coming ansible-core: what to install, and the
# controller Pythons it supports. The first that is here is taken: the oldest goes with the oldest.
ANSIBLE_CORES = {
    "2.18": ("ansible-core>=2.18,<2.19", ("3.11", "3.12", "3.13")),
    "2.19": ("ansible-core>=2.19,<2.20", ("3.11", "3.12", "3.13")),
    "2.20": ("ansible-core>=2.20,<2.21", ("3.14", "3.13", "3.12")),
    "2.21": ("ansible-core>=2.21,<2.22", ("3.14", "3.13", "3.12")),
    "2.22": ("ansible-core>=2.22.0rc1,<2.23", ("3.14", "3.13")),
}


class Unavailable(Exception):
    """This machine cannot have that environment; the text says why."""


def cache_root() -> Path:
    """Return the folder outside the checkout that keeps what is expensive to make."""
    if chosen := os.environ.get("FLEETMAIL_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fleetmail-smtp"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time work on this path of the cache."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def virtual_environment(requirements: str, python: Path = Path(sys.executable), folder: Path | None = None) -> Path:
    """Return a ready environment with these requirements (a requirement file's text).

    folder: where it is kept, the cache unless told.
    Raises Unavailable with pip's words when it cannot be made.
    """
    key = hashlib.sha256(f"{python.resolve()}\n{requirements}".encode()).hexdigest()[:12]
    environment = (folder or cache_root()) / f"venv-{key}"
    with locked(environment):
        # Without its marker an environment is what an interrupted run left.
        if not (environment / ".ready").exists():
            shutil.rmtree(environment, ignore_errors=True)
            _make(environment, requirements, python.resolve())  # a link may be gone before the environment is
            (environment / ".ready").touch()
    return environment


def _make(environment: Path, requirements: str, python: Path) -> None:
    print(f"-- preparing {environment} (once)", file=sys.stderr, flush=True)
    _run([python, "-m", "venv", environment])
    listed = environment / "requirements.txt"
    listed.write_text(requirements)
    _run([environment / "bin/python", "-m", "pip", "install", "--quiet", "--requirement", listed])


def _run(command: list[str | Path]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"{' '.join(map(str, command))}\n{done.stdout}")


def ansible_environment(version: str) -> Path:
    """Return a ready environment that holds this ansible-core ("2.18") and nothing else.

    Raises Unavailable when no Python here suits it or it cannot be installed.
    """
    if version not in ANSIBLE_CORES:
        raise Unavailable(f"ansible-core {version} is none of {', '.join(ANSIBLE_CORES)}")
    requirement, suited = ANSIBLE_CORES[version]
    for candidate in suited:
        if python := pythons.find(candidate):
            return virtual_environment(requirement, python)
    raise Unavailable(f"ansible-core {version} needs one of Python {', '.join(suited)}, and none is here")
