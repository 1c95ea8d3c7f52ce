# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plain data without repetitions: what a fleet's hosts have in common is in the page once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

WORTH = 14  # characters from which a reference is shorter than what it stands for
EMPTY: tuple[Any, ...] = (None, "", [], {})


def pooled(value: Any) -> tuple[Any, list[Any]]:
    """The value in which every text, list or dict that occurs more than once is ``{"$": i}``, and the entries.

    An entry refers to earlier ones only. What is empty (None, no text, no parts) is left out of dicts: readers know.
    """
    pool = _Pool()
    root = pool.enter(value)
    return pool.spelled(root), pool.entries


class _Pool:
    """Every different value has one number (hash consing); those that are met again get an entry."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}
        self._nodes: list[tuple[Any, int]] = []  # kind with its parts, and how long it is when written out
        self._met: list[int] = []
        self._places: dict[int, int] = {}
        self.entries: list[Any] = []

    def enter(self, value: Any) -> int:
        if isinstance(value, dict):
            parts = tuple((key, self.enter(one)) for key, one in value.items() if not _is_empty(one))
            return self._number(("dict", parts), sum(len(key) + 4 + self._nodes[one][1] for key, one in parts) + 2)
        if isinstance(value, list):
            items = tuple(self.enter(one) for one in value)
            return self._number(("list", items), sum(1 + self._nodes[one][1] for one in items) + 2)
        kind = type(value).__name__  # True is 1 for a dict, and is not
        return self._number((kind, value), len(value) + 2 if isinstance(value, str) else 4)

    def _number(self, node: Any, length: int) -> int:
        number = self._numbers.setdefault(node, len(self._nodes))
        if number == len(self._nodes):
            self._nodes.append((node, length))
            self._met.append(0)
        self._met[number] += 1
        return number

    def spelled(self, number: int) -> Any:
        """The value of a number, or the reference to its entry."""
        if number in self._places:
            return {"$": self._places[number]}
        (kind, content), length = self._nodes[number]
        value = content
        if kind == "dict":
            value = {key: self.spelled(one) for key, one in content}
        elif kind == "list":
            value = [self.spelled(one) for one in content]
        if self._met[number] < 2 or length < WORTH:
            return value
        self.entries.append(value)
        self._places[number] = len(self.entries) - 1
        return {"$": self._places[number]}


def _is_empty(value: Any) -> bool:
    return any(value is one or (type(value) is type(one) and value == one) for one in EMPTY)


def restored(value: Any, entries: Iterable[Any]) -> Any:
    """What was pooled, without its empty values: the same as the page does."""
    known: list[Any] = []
    for entry in entries:
        known.append(_restored(entry, known))
    return _restored(value, known)


def _restored(value: Any, known: list[Any]) -> Any:
    if isinstance(value, dict):
        return known[value["$"]] if "$" in value else {key: _restored(one, known) for key, one in value.items()}
    return [_restored(one, known) for one in value] if isinstance(value, list) else value
