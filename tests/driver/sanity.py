# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ready `ansible-test sanity` for a machine that reaches package indexes and nothing else."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from driver import pythons

# ansible-test fetches a pip bootstrap for its environments from a place of its own unless it finds the file.
BOOTSTRAP = "import ensurepip\n\nensurepip.bootstrap(upgrade=True, default_pip=True)\n"
PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")


def command(environment: Path) -> list[str]:
    """Return the command, after preparing its pip bootstrap. No PowerShell is shipped, so its test is left out."""
    _place_bootstrap(environment)
    return [str(environment / "bin/ansible-test"), "sanity", "--color", "no", "--skip-test", "pslint"]


def link_pythons(folder: Path) -> None:
    """Fill a folder with links to the Pythons of this machine, for ansible-test to find on its PATH."""
    folder.mkdir()
    for version in PYTHONS:
        if python := pythons.find(version):
            (folder / f"python{version}").symlink_to(python)


def _place_bootstrap(environment: Path) -> None:
    library = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    source = environment / library / "ansible_test/_internal/python_requirements.py"
    for version in re.findall(r"\bpip='([0-9.]+)'", source.read_text()):
        place = Path.home() / f".ansible/test/cache/get_pip_{version.replace('.', '_')}.py"
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            place.write_text(BOOTSTRAP)
