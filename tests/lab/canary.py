# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets that can be recognized wherever they turn up, in whole or in part, in whatever spelling."""

from __future__ import annotations

import base64
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

SHORTEST = 8  # of the marks of a canary: long enough to be nowhere by chance


class Canary(NamedTuple):
    """A secret with marks: runs of ASCII letters and digits that are nowhere else.

    A mark looks the same raw, in JSON, in a URL, in repr() and between any quotes, and one shows a leaked part as well.
    """

    name: str
    text: str

    @property
    def marks(self) -> list[str]:
        return re.findall(rf"[A-Za-z0-9]{{{SHORTEST},}}", self.text)


class Sighting(NamedTuple):
    """Which canary was seen where, with a little of what is around it."""

    canary: str
    place: str
    around: bytes


class Cage:
    """Looks for canaries."""

    def __init__(self, canaries: Iterable[Canary]) -> None:
        self.canaries = list(canaries)
        for canary in self.canaries:
            assert canary.marks, f"{canary.name} cannot be recognized"
        self._patterns = [(canary.name, _pattern(canary)) for canary in self.canaries]

    def search(self, place: str, data: bytes) -> list[Sighting]:
        """Where a canary is in the data."""
        return [
            Sighting(name, place, data[max(0, found.start() - 40) : found.end() + 40])
            for name, pattern in self._patterns
            for found in [pattern.search(data)]
            if found
        ]

    def search_folder(self, folder: Path) -> list[Sighting]:
        """The same for every file below a folder, and for their names."""
        sightings = []
        for path in files_in(folder):
            place = "/" + str(path.relative_to(folder))
            sightings += self.search(place, path.read_bytes()) + self.search(place, os.fsencode(place))
        return sightings


def files_in(folder: Path) -> Iterator[Path]:
    """Every ordinary file below a folder. In the upper layer of an overlay, removed files are character devices."""
    for parent, _folders, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if stat.S_ISREG(path.lstat().st_mode):
                yield path


def _pattern(canary: Canary) -> re.Pattern[bytes]:
    """Each mark raw or in hexadecimal, in any case, or inside a base64 text, where it starts at one of three phases."""
    spellings = []
    for mark in canary.marks:
        raw = mark.encode()
        spellings += [rb"(?i:" + re.escape(raw) + rb")", rb"(?i:" + raw.hex().encode() + rb")"]
        spellings += [re.escape(text) for text in _in_base64(raw)]
    return re.compile(rb"|".join(spellings))


def _in_base64(raw: bytes) -> set[bytes]:
    found = set()
    for lead in range(3):
        first, last = (lead * 8 + 5) // 6, (lead + len(raw)) * 8 // 6
        for code in (base64.b64encode, base64.urlsafe_b64encode):
            found.add(code(b"\0" * lead + raw)[first:last])
    return found
