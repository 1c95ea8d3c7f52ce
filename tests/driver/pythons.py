# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Find the Pythons of this machine by version, on PATH and below pyenv's root."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

# Answers with its own path only where environments can be made (Debian keeps ensurepip in python3-venv).
QUESTION = "import ensurepip, ssl, sys, venv; print(sys.executable)"


@functools.cache
def find(version: str) -> Path | None:
    """Return an interpreter of this version ("3.12") that runs and can make environments, or None."""
    for candidate in _candidates(version):
        answer = subprocess.run([candidate, "-c", QUESTION], capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            return Path(answer.stdout.strip())
    return None


def _candidates(version: str) -> Iterator[str]:
    if on_path := shutil.which(f"python{version}"):
        yield on_path
    for installed in sorted(_pyenv_root().glob(f"versions/{version}.*/bin/python{version}")):
        yield str(installed)


@functools.cache
def _pyenv_root() -> Path:
    if not shutil.which("pyenv"):
        return Path("/nonexistent")
    answer = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=False)
    return Path(answer.stdout.strip() or "/nonexistent")
