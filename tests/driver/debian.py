# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Debian packages that the tests need."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

PACKAGES = Path(__file__).parents[1] / "requirements-apt.txt"


def install_missing() -> str:
    """Install the packages that are missing; return what is still missing and why, "" when nothing is."""
    wanted = [line for line in PACKAGES.read_text().splitlines() if line and not line.startswith("#")]
    if not shutil.which("dpkg-query"):
        return "not a Debian system: these were not looked for: " + ", ".join(wanted)
    missing = [package for package in wanted if not _installed(package)]
    if not missing:
        return ""
    if os.geteuid() != 0:
        return "without root these were not installed: " + ", ".join(missing)
    return _apt_get("update") or _apt_get("install", "--yes", "--no-install-recommends", *missing)


def _installed(package: str) -> bool:
    query = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout == "installed"


def _apt_get(*arguments: str) -> str:
    command = ["apt-get", "--quiet=2", *arguments]
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return f"{' '.join(command)} failed:\n{done.stdout}" if done.returncode else ""
