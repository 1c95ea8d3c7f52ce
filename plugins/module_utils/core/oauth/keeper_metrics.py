# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Metrics in Prometheus' text format 0.0.4, for node_exporter's textfile collector."""

from __future__ import annotations

import calendar
import time
from collections.abc import Iterator, Sequence
from typing import Any

from .keeper_report import Row
from .status import STATUSES

TIMES = {
    "access_expires": ("expires_at", "When the access token expires."),
    "refresh_expires": ("refresh_expires_at", "When the refresh token dies if it is not used."),
    "refreshed": ("refreshed_at", "When the refresh token was used last."),
    "authorized": ("authorized_at", "When the grant was given."),
}


def metrics(rows: Sequence[Row], now: int) -> Iterator[str]:
    """The lines. Times are seconds since the epoch."""
    known = [row for row in rows if row.view is not None]
    yield from _family(
        "fleetmail_token_status",
        "1 for the status that the token has.",
        [({"name": row.name, "status": one}, int(_of(row, "status") == one)) for row in known for one in STATUSES],
    )
    yield from _family(
        "fleetmail_token_valid",
        "1 while there is a valid access token.",
        [(_name(row), int(row.valid)) for row in known],
    )
    yield from _family(
        "fleetmail_token_failed_requests",
        "Requests in a row that the authorization server did not grant.",
        [(_name(row), row.attempts) for row in known],
    )
    yield from _family(
        "fleetmail_token_missing_scopes",
        "Scopes that are wanted and were not granted.",
        [(_name(row), len(_of(row, "missing_scope"))) for row in known],
    )
    for short, (field, meaning) in TIMES.items():
        samples = [(_name(row), _epoch(_of(row, field))) for row in known if _of(row, field)]
        yield from _family(f"fleetmail_token_{short}_timestamp_seconds", meaning, samples)
    yield from _family(
        "fleetmail_token_unreadable",
        "1 for a token whose files in the store cannot be used.",
        [(_name(row), int(row.view is None)) for row in rows],
    )
    yield from _family("fleetmail_keeper_run_timestamp_seconds", "When the keeper ran last.", [({}, now)])


def _name(row: Row) -> dict[str, str]:
    return {"name": row.name}


def _of(row: Row, field: str) -> Any:
    return row.view[field] if row.view is not None else None


def _epoch(text: str) -> int:
    return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))


def _family(name: str, meaning: str, samples: Sequence[tuple[dict[str, str], int]]) -> Iterator[str]:
    yield f"# HELP {name} {meaning}"
    yield f"# TYPE {name} gauge"
    for labels, value in samples:
        inside = ",".join(f'{label}="{text}"' for label, text in labels.items())  # names need no escapes
        yield f"{name}{{{inside}}} {value}" if inside else f"{name} {value}"
