# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The figures as tables and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bench.contenders import OUR_SEND, OURS, PING, SECOND, SENDING
from bench.figures import Figures, limits
from bench.measure import Sample
from bench.payload import Payload

_SAYS = {True: "reached", False: "NOT REACHED", None: "not measured"}

_LEGEND = """\
Seconds by the clock, the best of the rounds. One more host: the slope between the two largest fleets, in ms by the
clock / of processors (controller and hosts together). Ratios: of that, between the same sizes or the nearest; x ours
compares with the same run of smtp_service, a test send with that of smtp_probe."""


def tables(figures: Figures, sizes: Mapping[str, Payload], context: Mapping[str, Any]) -> str:
    """Everything that a person reads."""
    payloads = [(name, f"{one.sent:,}", f"{one.zipped:,}") for name, one in sizes.items()]
    parts = [
        "\n".join(f"{name}: {value}" for name, value in context.items()),
        _aligned(_runs(figures)),
        _LEGEND,
        _aligned([("payload", "bytes sent", "of them zip"), *payloads]),
        *(_aligned(_parts(sizes[name])) for name in (OURS.name,) if name in sizes),
        _aligned([("limit", "clock", "processors", ""), *map(_limit_row, limits(figures, sizes))]),
    ]
    return "\n\n".join(parts)


def _limit_row(limit: Any) -> tuple[str, ...]:
    return (limit.text, _number(limit.wall), _number(limit.cpu), _SAYS[limit.reached])


def _parts(payload: Payload) -> list[tuple[str, ...]]:
    rows = [(name, str(one.files), f"{one.source:,}" if one.source else "", f"{one.sent:,}")
            for name, one in payload.parts.items()]  # fmt: skip
    return [(f"payload of {OURS.name}", "files", "bytes of source", "bytes sent"), *rows]


def _runs(figures: Figures) -> list[tuple[str, ...]]:
    sizes = sorted({size for by_size in figures.samples.values() for size in by_size})
    rows = [("contender", "run", *(f"{size} host{'s'[: size > 1]}" for size in sizes), "one more", "x ping", "x ours")]
    for key in figures.samples:
        name, label = key
        ours = (OUR_SEND.name, SENDING.label) if label == SENDING.label else (OURS.name, label)
        seconds = (figures.best(key, size) for size in sizes)
        rows.append((
            name,
            label,
            *("" if best is None else f"{best.wall:.2f}" for best in seconds),
            _pair(figures.slope(key, figures.span(key)), 1000, 0),
            _pair(figures.ratio(key, (PING.name, SECOND.label))),
            _pair(figures.ratio(key, ours)),
        ))  # fmt: skip
    return rows


def _pair(sample: Sample | None, unit: float = 1, digits: int = 2) -> str:
    return "" if sample is None else f"{sample.wall * unit:.{digits}f} / {sample.cpu * unit:.{digits}f}"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    """Columns, words to the left and figures to the right."""
    columns = []
    for column in zip(*rows, strict=True):
        width = max(map(len, column))
        figures = any(cell[:1].isdigit() for cell in column[1:])
        columns.append([cell.rjust(width) if figures else cell.ljust(width) for cell in column])
    lines = ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def as_json(figures: Figures, sizes: Mapping[str, Payload], context: Mapping[str, Any]) -> str:
    """The samples themselves, and what was made of them."""
    runs = [
        {
            "contender": name,
            "run": label,
            "samples": {str(size): [one._asdict() for one in found] for size, found in by_size.items()},
            "one_more_host": _plain(figures.slope((name, label), figures.span((name, label)))),
            "to_ping": _plain(figures.ratio((name, label), (PING.name, SECOND.label))),
            "linearity": _plain(figures.linearity((name, label))),
        }
        for (name, label), by_size in figures.samples.items()
    ]
    told = {
        "context": dict(context),
        "runs": runs,
        "payload": {name: _plain_payload(one) for name, one in sizes.items()},
        "limits": [limit._asdict() for limit in limits(figures, sizes)],
    }
    return json.dumps(told, indent=2) + "\n"


def _plain(sample: Sample | None) -> dict[str, float] | None:
    return None if sample is None else sample._asdict()


def _plain_payload(payload: Payload) -> dict[str, Any]:
    return {**payload._asdict(), "parts": {name: one._asdict() for name, one in payload.parts.items()}}
