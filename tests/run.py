# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The commands behind `make`: tests, linters, demo, bench. Needs Python 3.11 and its standard library.

Usage: run.py test | lint | unit | sanity | integration | crash | bench | demo | clean
       run.py ansible-venv VERSION   print the path of an environment with that ansible-core ("2.18")
       run.py collections            print a collections path that holds this checkout
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from driver import checkout, debian, environments, parts, sanity
from driver.parts import Part

ROOT = checkout.ROOT
TESTS = ROOT / "tests"
LEFT_BY_TOOLS = (".ansible", ".demo", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache")


def main(arguments: list[str]) -> int:
    match arguments:
        case ["test" | "lint" | "unit" | "sanity" | "integration" | "crash" as target]:
            return run_parts(target)
        case ["bench"]:
            return run_script(TESTS / "bench/run.py", TESTS / "requirements.txt")
        case ["demo"]:
            return run_script(ROOT / "demo/run.py", TESTS / "requirements-demo.txt", ROOT / ".demo")
        case ["clean"]:
            clean()
        case ["ansible-venv", version]:
            print(environments.ansible_environment(version))
        case ["collections"]:
            print(checkout.linked())
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


def run_parts(target: str) -> int:
    """Prepare, then run the parts that belong to a target."""
    began = time.monotonic()
    print("== preparing", flush=True)
    for notice in filter(None, (debian.install_missing(), debian.why_not())):
        print(f"-- {notice}")
    environment = environments.virtual_environment((TESTS / "requirements.txt").read_text())
    with checkout.copied() as collection:
        pythons = collection.parents[2] / "pythons"
        sanity.link_pythons(pythons)
        chosen = [part for part in all_parts(environment, collection) if target in part.targets]
        print(f"-- prepared in {time.monotonic() - began:.1f} s", flush=True)
        return parts.run(chosen, variables(environment, pythons))


def all_parts(environment: Path, collection: Path) -> list[Part]:
    """Return every part, in the order in which they are run and shown."""
    pytest = ["pytest", "--color=no"]
    docs = ["antsibull-docs", "lint-collection-docs", "--plugin-docs", "--validate-collection-refs", "self", "."]
    galaxy = ["python", "-m", "galaxy_importer.main", "--git-clone-path", str(collection), "--output-path", "."]
    return [
        Part("ruff check", ["ruff", "check", "."], ROOT, "lint"),
        Part("ruff format", ["ruff", "format", "--check", "."], ROOT, "lint"),
        Part("mypy --strict", ["mypy", "--strict", "plugins/module_utils/core"], ROOT, "lint"),
        Part("unit tests", [*pytest, "tests/unit"], ROOT, "unit"),
        Part("ansible-lint", ["ansible-lint", "--nocolor", "--profile", "production"], collection, "lint"),
        Part("antsibull-docs", docs, collection, "lint"),
        Part("antsibull-changelog", ["antsibull-changelog", "lint"], collection, "lint"),
        Part("reuse", ["reuse", "lint", "--lines"], collection, "lint"),
        Part("galaxy-importer", galaxy, collection.parents[2], "lint"),
        Part("ansible-test sanity", sanity.command(environment), collection, "sanity", background=True),
        Part("integration tests", [*pytest, "-rs", "tests/integration"], ROOT, "integration"),
        Part("crash matrix", [*pytest, "-m", "crash_full", "tests"], ROOT, "crash"),
    ]


def variables(environment: Path, *folders: Path) -> dict[str, str]:
    """Return the environment variables that parts run with; the machine's own pass through."""
    search = [environment / "bin", *folders, os.environ.get("PATH", os.defpath)]
    return os.environ | {
        "PATH": os.pathsep.join(map(str, search)),
        "ANSIBLE_COLLECTIONS_PATH": str(checkout.linked()),
        "FLEETMAIL_CACHE": str(environments.cache_root()),
        "GALAXY_IMPORTER_CONFIG": str(TESTS / "galaxy-importer.cfg"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def run_script(script: Path, requirements: Path, folder: Path | None = None) -> int:
    """Run one of our programs with its requirements."""
    debian.install_missing()
    environment = environments.virtual_environment(requirements.read_text(), folder=folder)
    return subprocess.run(["python", script], env=variables(environment), cwd=ROOT, check=False).returncode


def clean() -> None:
    """Remove what tools left in the checkout; the cache stays, for other checkouts use it too."""
    for name in LEFT_BY_TOOLS:
        shutil.rmtree(ROOT / name, ignore_errors=True)
    for folder in ROOT.rglob("__pycache__"):
        shutil.rmtree(folder, ignore_errors=True)
    print(f"The cache stays: {environments.cache_root()}")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except environments.Unavailable as problem:
        sys.exit(f"run.py: {problem}")
