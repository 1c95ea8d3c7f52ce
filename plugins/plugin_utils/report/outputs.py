# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files of a report: what is in each, and writing those that are not as they should be."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable, NamedTuple

from . import document, junit, page, prometheus, table

Record = dict[str, Any]
NAMES = {
    "json": "report.json",
    "html": "report.html",
    "csv": "report.csv",
    "junit": "junit.xml",
    "prometheus": "fleetmail_report.prom",
}
RENDERERS: Mapping[str, Callable[[Record], str]] = {
    "json": document.dump,
    "html": page.render,
    "csv": table.render,
    "junit": junit.render,
    "prometheus": prometheus.render,
}


class Output(NamedTuple):
    """One file: its format, its path, and what is to be in it."""

    format: str
    path: Path
    content: bytes

    def differs(self, mode: int) -> bool:
        """Whether the file is missing, says something else, or has another mode. Raises OSError."""
        try:
            return self.path.read_bytes() != self.content or self.path.stat().st_mode & 0o7777 != mode
        except FileNotFoundError:
            return True

    def write(self, mode: int) -> None:
        """Replace the file as a whole: a reader sees the old one or the new one. Raises OSError."""
        place = Path(os.path.realpath(self.path))
        place.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}.")
        try:
            with open(descriptor, "wb") as file:
                file.write(self.content)
                os.fchmod(file.fileno(), mode)
            os.replace(temporary, place)
        except BaseException:
            os.unlink(temporary)
            raise


def outputs(report: Record, folder: Path, names: Mapping[str, str], template: Path | None = None) -> list[Output]:
    """The files of a report. names: format -> file name, in folder."""
    renderers = {**RENDERERS, "html": lambda one: page.render(one, template)} if template else RENDERERS
    return [Output(kind, folder / name, renderers[kind](report).encode()) for kind, name in names.items()]
