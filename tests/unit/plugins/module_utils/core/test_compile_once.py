# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from driver import pythons

from ansible_collections.fleetmail.smtp.plugins.module_utils import core
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.compile_once import OURS, CompileOnce, install

PACKAGE = "ansible_collections.fleetmail.smtp.plugins.module_utils"
VERSIONS = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")

# Runs in a Python of its own: which files were compiled how often, and what importlib knows of the modules.
IMPORTS = f"""
import builtins, collections, json, sys, traceback
compiled, compile_ = collections.Counter(), builtins.compile
def counted(source, filename, *rest, **more):
    compiled[filename] += 1
    return compile_(source, filename, *rest, **more)
builtins.compile = counted
sys.path.insert(0, sys.argv[1])
import {PACKAGE}.core
{PACKAGE}.core.install()
assert [getattr(one, "__name__", "") for one in sys.meta_path].count("CompileOnce") == 1
if sys.argv[2] == "without":
    sys.meta_path = [one for one in sys.meta_path if getattr(one, "__name__", "") != "CompileOnce"]
import {PACKAGE}.core.errors, {PACKAGE}.core.inner.deep, {PACKAGE}.beside, other
facts = {{}}
for name in ("core.errors", "core.inner", "core.inner.deep", "beside"):
    module = sys.modules["{PACKAGE}." + name]
    spec, loader = module.__spec__, module.__loader__
    kind, source = type(loader).__name__, loader.get_source(spec.name)
    facts[name] = [module.__file__, spec.origin, getattr(module, "__path__", None), module.__package__, kind, source]
try:
    sys.modules["{PACKAGE}.beside"].fail()
except Exception as error:
    place = sys.modules["{PACKAGE}.core.errors"].unforeseen(error).message
    trace = traceback.format_exc()
try:
    import {PACKAGE}.core.absent
except ModuleNotFoundError as error:
    missing = [str(error), error.name]
print(json.dumps([compiled, facts, place, trace, missing]))
"""


@pytest.fixture(scope="module")
def payload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zip file with our package in it as Ansible sends it."""
    place = tmp_path_factory.mktemp("payload") / "payload.zip"
    folder, own = PACKAGE.replace(".", "/"), Path(core.__file__).parent
    parts = PACKAGE.split(".")
    files = {"/".join(parts[:depth]) + "/__init__.py": "" for depth in range(1, len(parts) + 1)}
    files |= {f"{folder}/core/{name}.py": (own / f"{name}.py").read_text() for name in ("__init__", "compile_once")}
    files |= {
        f"{folder}/core/errors.py": (own / "errors.py").read_text(),
        f"{folder}/core/inner/__init__.py": "INNER = 1\n",
        f"{folder}/core/inner/deep.py": "from . import INNER\n",
        f"{folder}/beside.py": "def fail():\n    raise ValueError('a secret')  # the line\n",
        "other.py": "OTHER = 1\n",
    }
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return place


def imported(python: str, payload: Path, how: str) -> Any:
    done = subprocess.run([python, "-I", "-c", IMPORTS, str(payload), how], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_module_is_compiled_once_and_looks_as_python_imports_it(version: str, payload: Path) -> None:
    python = pythons.find(version)
    if python is None:
        pytest.skip(f"there is no Python {version} here")
    compiled, *looks = imported(str(python), payload, "with")
    compiled_without, *looks_without = imported(str(python), payload, "without")
    assert looks == looks_without
    folder = f"{payload}/{PACKAGE.replace('.', '/')}"
    for name in ("core/errors", "core/inner/__init__", "core/inner/deep", "beside"):
        assert (compiled[f"{folder}/{name}.py"], compiled_without[f"{folder}/{name}.py"]) == (1, 2), name
    assert compiled[f"{payload}/other.py"] == compiled_without[f"{payload}/other.py"] == 2
    _facts, place, trace, missing = looks
    assert f"ValueError at {folder}/beside.py:2" in place
    assert "raise ValueError('a secret')  # the line" in trace
    assert missing == [f"No module named '{PACKAGE}.core.absent'", f"{PACKAGE}.core.absent"]


def test_outside_of_a_zip_nothing_is_installed() -> None:
    install()
    assert CompileOnce not in sys.meta_path
    assert OURS == PACKAGE + "."


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("json", None),
        ("json.decoder", ["PAYLOAD"]),
        ("ansible.module_utils.basic", ["PAYLOAD/ansible/module_utils"]),
        (PACKAGE + "_of_another.errors", ["PAYLOAD/core"]),
        (OURS + "core.errors", None),
        (OURS + "core.errors", []),
        (OURS + "core.errors", [str(Path(core.__file__).parent)]),
        (OURS + "core.errors", ["/there/is/no/such/place"]),
        (OURS + "core.absent", ["PAYLOAD/ansible_collections/fleetmail/smtp/plugins/module_utils/core"]),
        (OURS + "core.errors", ["PAYLOAD/not/in/it"]),
    ],
)
def test_everything_else_is_left_to_python(name: str, path: list[str] | None, payload: Path) -> None:
    where = None if path is None else [one.replace("PAYLOAD", str(payload)) for one in path]
    assert CompileOnce.find_spec(name, where) is None
