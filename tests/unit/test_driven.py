# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""pytest-ansible stays behind one file, and out of the process of the tests."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator

import pytest
from driver.checkout import ROOT

ITS_FIXTURES = {"ansible_adhoc", "ansible_facts", "ansible_group", "ansible_host", "ansible_module", "localhost"}
BEHIND = "tests/lab/driven.py"


def used(source: str) -> Iterator[str]:
    """What a file has of pytest-ansible: its modules, imported in any way, and its fixtures, asked for or named."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name.startswith("pytest_ansible"))
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("pytest_ansible"):
            yield str(node.module)
        elif isinstance(node, ast.Call):
            first = [one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            named = ast.unparse(node.func).rpartition(".")[2]
            if named in ("getfixturevalue", "usefixtures"):
                yield from ITS_FIXTURES & set(first)
            elif named in ("import_module", "importorskip", "__import__"):
                yield from (one for one in first if one.startswith("pytest_ansible"))
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from ITS_FIXTURES & {one.arg for one in node.args.args + node.args.kwonlyargs}


@pytest.mark.parametrize(
    "source",
    [
        "import pytest_ansible.plugin as plugin",
        "def test(a):\n    from pytest_ansible.errors import AnsibleModuleError",
        "def test(ansible_adhoc): ...",
        "def test(tmp_path, *, localhost): ...",
        "@pytest.mark.usefixtures('ansible_module')\ndef test(): ...",
        "def test(request):\n    request.getfixturevalue('ansible_adhoc')",
        "importlib.import_module('pytest_ansible')",
    ],
)
def test_what_uses_it_is_found(source: str) -> None:
    assert list(used(source))


def test_one_file_uses_it() -> None:
    files = [*ROOT.glob("tests/**/*.py"), *ROOT.glob("plugins/**/*.py"), *ROOT.glob("demo/**/*.py")]
    users = {str(path.relative_to(ROOT)) for path in files if list(used(path.read_text()))}
    assert users == {BEHIND}


def test_its_plugin_is_off(request: pytest.FixtureRequest) -> None:
    assert not request.config.pluginmanager.has_plugin("pytest-ansible")
    assert not [one for one in sys.meta_path if "AnsibleCollectionFinder" in str(type(one))]
    assert not (ROOT / "collections").exists()
