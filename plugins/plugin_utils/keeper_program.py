# Copyright: fleetmail.smtp contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The token keeper as one executable file (zipapp), always the same bytes for the same sources."""

from __future__ import annotations

import ast
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

CORE = Path(__file__).parents[1] / "module_utils" / "core"
PROGRAM = "oauth/keeper.py"
PYTHON = "/usr/bin/python3"
PACKAGE = "fleetmail_smtp"  # what core is called in the file
MAIN = f"""# SPDX-License-Identifier: BSD-2-Clause
import sys

from {PACKAGE}.oauth.keeper import main

raise SystemExit(main(sys.argv[1:]))
"""
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip file can hold


def program(python: str) -> bytes:
    """The executable file, always the same bytes for the same sources."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:  # compressed, it would differ with zlib's version
        _add(file, "__main__.py", MAIN.encode())
        for name in sorted(needed(CORE, PROGRAM)):
            _add(file, f"{PACKAGE}/{name}", (CORE / name).read_bytes())
    return f"#!{python}\n".encode() + buffer.getvalue()


def needed(core: Path, first: str) -> set[str]:
    """The files below ``core`` that ``first`` imports, directly or not, inside functions or not, and itself."""
    found: set[str] = set()
    waiting = [first]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _packages(name)
            waiting += _imports(core, name)
    return found


def _packages(name: str) -> Iterator[str]:
    for parent in Path(name).parents:
        yield str(parent / "__init__.py")


def _imports(core: Path, name: str) -> Iterator[str]:
    """The files that one file imports relatively; of a package and a name in it, both are tried."""
    for node in ast.walk(ast.parse((core / name).read_text("utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        start = Path(name).parents[node.level - 1]
        module = start.joinpath(*(node.module or "").split("."))
        for path in (module, *(module / one.name for one in node.names)):
            if (core / path).with_suffix(".py").is_file():
                yield str(path.with_suffix(".py"))


def _add(file: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, EPOCH)
    entry.create_system = 3  # Unix, on any controller
    entry.external_attr = 0o644 << 16
    file.writestr(entry, content)
