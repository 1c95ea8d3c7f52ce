# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""What the keeper says: a line for the journal, a table, JSON, and an exit status for monitoring. Never a secret."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .status import iso

if TYPE_CHECKING:
    from ..errors import Problem

# the Monitoring Plugins Development Guidelines, "Plugin Return Codes"
OK, WARNING, CRITICAL, UNKNOWN = range(4)
_BY_STATUS = {"authorized": OK, "expiring": WARNING, "pending": WARNING}
# sd-daemon(3): journald takes a line's priority from its beginning
_PRIORITY = {OK: "<6>", WARNING: "<4>", CRITICAL: "<3>", UNKNOWN: "<3>"}


class Row(NamedTuple):
    """One token: its view, or the problems that keep it from being known."""

    name: str
    view: Mapping[str, Any] | None = None
    valid: bool = False  # has it a valid access token?
    problems: tuple[Problem, ...] = ()
    refreshed: bool = False
    changed: bool = False
    warnings: tuple[str, ...] = ()
    attempts: int = 0  # requests in a row that failed
    reported: str = ""  # the status that the hooks were told last

    @property
    def code(self) -> int:
        """The exit status that it makes."""
        if self.view is None:
            return UNKNOWN
        status = self.view["status"]
        if status == "unreachable":
            return WARNING if self.valid else CRITICAL
        if self.view["cause"] == "not_declared":
            return WARNING  # nobody sends mail with it
        code = _BY_STATUS.get(status, CRITICAL)
        return max(code, WARNING) if self.warnings else code

    @property
    def news(self) -> bool:
        """Is there more to say of it than that all is as it was?"""
        return self.code != OK or self.changed


def worst(rows: Iterable[Row]) -> int:
    """The exit status of all: what is critical outweighs what is not known, as that outweighs a warning."""
    codes = {row.code for row in rows}
    return next((code for code in (CRITICAL, UNKNOWN, WARNING) if code in codes), OK)


def line(text: str) -> str:
    """On one line, whatever a server's words had in them."""
    return "".join(c if c.isprintable() else "?" for c in text)


def said(row: Row) -> str:
    """A token in a few words."""
    if row.view is None:
        return "; ".join(map(str, row.problems))
    view = row.view
    facts = [view["status"] + (f" ({view['cause']})" if view["cause"] else "")]
    if view["days_left"] is not None:
        facts.append(f"{view['days_left']} days left")
    if view["expires_at"]:
        facts.append(f"access token {'until' if row.valid else 'expired'} {view['expires_at']}")
    done = ["refreshed"] if row.refreshed else ["repaired"] if row.changed and not view["error_description"] else []
    told = [view[field] for field in ("error", "error_description", "next_step") if view[field]]
    return "; ".join([", ".join(facts), *done, *told, *row.warnings])


def journal(row: Row) -> str:
    """A line for the journal; with its priority where systemd reads it (JOURNAL_STREAM is set)."""
    mark = _PRIORITY[row.code] if "JOURNAL_STREAM" in os.environ else ""
    return mark + line(f"{row.name}: {said(row)}")


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Columns for a person, then what there is to do."""
    if not rows:
        yield "no token is declared on this host"
        return
    head = ("NAME", "STATUS", "CAUSE", "DAYS LEFT", "ACCESS TOKEN UNTIL", "REFRESHED", "USER")
    cells = [head, *map(_cells, rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
    for one in rows:
        words = [one.view[field] for field in ("error_description", "next_step") if one.view[field]] if one.view else []
        for text in [*words, *map(str, one.problems), *one.warnings]:
            yield line(f"{one.name}: {text}")


def _cells(row: Row) -> tuple[str, ...]:
    if row.view is None:
        return (row.name, "unknown", *[""] * 5)
    fields = ("status", "cause", "days_left", "expires_at", "refreshed_at", "authorized_user")
    return (row.name, *(line("-" if row.view[field] is None else str(row.view[field])) for field in fields))


def as_json(store: str, rows: Sequence[Row], now: int) -> str:
    """One object: the views as smtp_oauth_token_info gives them, and what could not be read."""
    import json

    told = {
        "version": 1,
        "checked_at": iso(now),
        "store": store,
        "code": worst(rows),
        "tokens": [{**row.view, "access_token_valid": row.valid} for row in rows if row.view is not None],
        "problems": [{"name": row.name, **one.as_dict()} for row in rows for one in row.problems],
    }
    return json.dumps(told, indent=2)
