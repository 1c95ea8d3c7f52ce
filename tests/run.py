# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The commands behind `make`: tests, linters, demo, bench. Needs Python 3.11 and its standard library.

Usage: run.py test | lint | unit | sanity | integration | fleet | crash | bench | demo | clean
       run.py ansible-venv VERSION   print the path of an environment with that ansible-core ("2.18")
       run.py collections            print a collections path that holds this checkout
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

from driver import checkout, debian, environments, parts, sanity
from driver.parts import Part
from lab.layers import why_unavailable

ROOT = checkout.ROOT
TESTS = ROOT / "tests"
ON_TWO = "--numprocesses=2"
# Hosts of different files know nothing of each other. One more process than cores, for much of it is waiting; the order
# is that of tests/conftest.py.
SPREAD = ("--numprocesses=3", "--dist=loadfile", "--no-loadscope-reorder")
LEFT_BY_TOOLS = (".ansible", ".demo", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache")


def main(arguments: list[str]) -> int:
    match arguments:
        case ["test" | "lint" | "unit" | "sanity" | "integration" | "fleet" | "crash" as target]:
            return run_parts(target)
        case ["bench"]:
            debian.install_missing()
            run_script(TESTS / "bench/run.py", TESTS / "requirements.txt")
        case ["demo"]:
            os.environ["PIP_NO_CACHE_DIR"] = "1"  # nothing outside its folder
            run_script(ROOT / "demo/run.py", TESTS / "requirements-demo.txt", ROOT / ".demo")
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
    if notice := debian.install_missing():
        print(f"-- {notice}")
    if reason := why_unavailable():
        print(f"-- left out: integration tests with real mail software: {reason}")
    environment = environments.virtual_environment((TESTS / "requirements.txt").read_text())
    with checkout.copied() as collection:
        pythons = collection.parents[2] / "pythons"
        sanity.link_pythons(pythons)
        chosen = [part for part in all_parts(environment, collection) if target in part.targets]
        print(f"-- prepared in {time.monotonic() - began:.1f} s", flush=True)
        collections = {"ANSIBLE_COLLECTIONS_PATH": str(collection.parents[2])}  # linted playbooks use our modules
        return parts.run(chosen, variables(environment, pythons) | collections)


def all_parts(environment: Path, collection: Path) -> list[Part]:
    """Return every part, in the order in which they are run and shown."""
    pytest = ["pytest", "--color=no"]
    mypy = ["mypy", "--strict", "plugins/module_utils/core", "plugins/plugin_utils", "tests/driver", "tests/run.py"]
    docs = ["antsibull-docs", "lint-collection-docs", "--plugin-docs", "--validate-collection-refs", "self", "."]
    galaxy = ["python", "-m", "galaxy_importer.main", "--git-clone-path", str(collection), "--output-path", "."]
    return [
        Part("ruff check", ["ruff", "check", "--output-format", "concise", "."], ROOT, "lint"),
        Part("ruff format", ["ruff", "format", "--check", "."], ROOT, "lint"),
        Part("mypy --strict", mypy, ROOT, "lint"),
        Part("unit tests", [*pytest, ON_TWO, "tests/unit"], ROOT, "unit"),
        Part("ansible-lint", ["ansible-lint", "--nocolor", "--profile", "production"], collection, "lint"),
        Part("antsibull-docs", docs, collection, "lint"),
        Part("antsibull-changelog", ["antsibull-changelog", "lint"], collection, "lint"),
        Part("reuse", ["reuse", "lint", "--lines"], collection, "lint"),
        Part("galaxy-importer", galaxy, collection.parents[2], "lint"),
        Part("ansible-test sanity", sanity.command(environment), collection, "sanity", background=True),
        Part("integration tests", [*pytest, "-rs", *SPREAD, "tests/integration", "tests/fleet"], ROOT, "integration"),
        Part("fleet tests", [*pytest, "-rs", "--durations=0", "tests/fleet"], ROOT, "fleet"),
        Part("crash matrix", [*pytest, "-m", "crash_full", "tests"], ROOT, "crash"),
    ]


def run_script(script: Path, requirements: Path, folder: Path | None = None) -> NoReturn:
    """Become one of our programs, with its requirements, all kept in a folder (the cache unless told).

    It takes our place, so that signals reach it and it has the time that it needs to clean up.
    """
    environment = environments.virtual_environment(requirements.read_text(), folder=folder)
    collections = {"ANSIBLE_COLLECTIONS_PATH": str(checkout.linked(folder))}
    python = environment / "bin/python"
    os.chdir(ROOT)
    os.execve(python, [str(python), str(script)], variables(environment) | collections)


def variables(environment: Path, *folders: Path) -> dict[str, str]:
    """Return the environment variables that our programs run with; the machine's own pass through."""
    search = [environment / "bin", *folders, os.environ.get("PATH", os.defpath)]
    return os.environ | {
        "PATH": os.pathsep.join(map(str, search)),
        "FLEETMAIL_CACHE": str(environments.cache_root()),
        "GALAXY_IMPORTER_CONFIG": str(TESTS / "galaxy-importer.cfg"),
    }


def clean() -> None:
    """Remove what tools left in the checkout; the cache stays, for other checkouts use it too."""
    for name in LEFT_BY_TOOLS:
        shutil.rmtree(ROOT / name, ignore_errors=True)
    for folder in ROOT.rglob("__pycache__"):
        shutil.rmtree(folder, ignore_errors=True)
    print(f"The cache stays: {environments.cache_root()}")


if __name__ == "__main__":
    # However we are ended, what runs is stopped and copies are removed. A shell's background job would ignore SIGINT.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.exit(main(sys.argv[1:]))
    except (environments.Unavailable, PermissionError) as problem:
        sys.exit(f"run.py: {problem}")
