# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What Ansible sends to every host with a module: all files of ours that its imports lead to, run or not."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
from driver import checkout

PLUGINS = checkout.ROOT / "plugins"
FULL_NAME = "ansible_collections.fleetmail.smtp.plugins."
MODULES = sorted(path.stem for path in (PLUGINS / "modules").glob("*.py"))
TYPES_ONLY = {"core/port.py"}  # a protocol, and small
ASKING = (
    "answered",
    "answers",
    "authentication",
    "authorization",
    "causes.",
    "client",
    "discovery",
    "grants",
    "http",
    "listener",
    "signing",
)


def sent_with(module: str, type_checking: bool = True) -> set[str]:
    """The files in module_utils that ansible-core's ModuleDepFinder finds; without those that only mypy imports."""
    found: set[Path] = set()
    waiting = [PLUGINS / "modules" / f"{module}.py"]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += imported(path, type_checking)
            waiting += [folder / "__init__.py" for folder in path.parents if (folder / "__init__.py").is_file()]
    return {str(path.relative_to(PLUGINS / "module_utils")) for path in found if "module_utils" in path.parts}


@functools.cache
def imported(path: Path, type_checking: bool) -> tuple[Path, ...]:
    """The files of ours that a file imports, anywhere in it."""
    return tuple(_imported(path, type_checking))


def _imported(path: Path, type_checking: bool) -> Iterator[Path]:
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not type_checking:
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.ImportFrom):
            place = folder_of(node, path)
            for one in (place, *(place / alias.name for alias in node.names)) if place else ():
                yield from (file for file in (one.with_suffix(".py"), one / "__init__.py") if file.is_file())


def folder_of(node: ast.ImportFrom, path: Path) -> Path | None:
    """Where the names of an import are, None when it is not ours."""
    words = (node.module or "").split(".") if node.module else []
    if node.level:
        return path.parents[node.level - 1].joinpath(*words)
    inside = (node.module or "").removeprefix(FULL_NAME)
    return None if inside == node.module else PLUGINS.joinpath(*inside.split("."))


@pytest.mark.parametrize("module", MODULES)
def test_nothing_is_sent_for_the_type_checker_alone(module: str) -> None:
    assert sent_with(module) - sent_with(module, type_checking=False) <= TYPES_ONLY


def test_a_service_carries_nothing_that_asks_an_authorization_server() -> None:
    sent = sent_with("smtp_service")
    assert {"core/enforce.py", "core/backends/postfix.py", "core/probe.py", "core/compile_once.py"} < sent
    assert not [name for name in sent if name.startswith(tuple(f"core/oauth/{one}" for one in ASKING))]


def test_a_probe_carries_no_backend() -> None:
    sent = sent_with("smtp_probe")
    assert "core/dialogue.py" in sent
    assert not [name for name in sent if name.startswith("core/backends/")]
