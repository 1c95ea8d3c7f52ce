# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The keeper as one file: always the same bytes, complete, and it runs."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ansible_collections.fleetmail.smtp.plugins.plugin_utils import keeper_program as module

PYTHON = "/usr/bin/python3"


def test_the_same_bytes_whenever_and_wherever_it_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = module.program(PYTHON)
    copy = tmp_path / "core"
    for name in module.needed(module.CORE, module.PROGRAM):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((module.CORE / name).read_bytes())
        (copy / name).chmod(0o600)
    monkeypatch.setattr(module, "CORE", copy)
    assert module.program(PYTHON) == first
    assert first.startswith(b"#!/usr/bin/python3\n")


def test_it_has_what_is_needed_and_no_more() -> None:
    names = module.needed(module.CORE, module.PROGRAM)
    assert {"oauth/keeper.py", "oauth/grants/device_code.py", "oauth/__init__.py", "__init__.py", "errors.py"} <= names
    assert not [name for name in names if name.startswith("backends/") or name in ("enforce.py", "transaction.py")]
    with zipfile.ZipFile(io.BytesIO(module.program(PYTHON))) as file:
        assert file.testzip() is None
        assert sorted(file.namelist()) == file.namelist()
        assert {info.date_time for info in file.infolist()} == {module.EPOCH}


def test_it_runs_without_anything_else(tmp_path: Path) -> None:
    program = tmp_path / "keeper"
    program.write_bytes(module.program(sys.executable))
    program.chmod(0o755)
    done = subprocess.run(
        [program, "--store", tmp_path / "store", "tick"],
        capture_output=True,
        text=True,
        env={},
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    helped = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=60, check=True)
    assert "tick" in helped.stdout
