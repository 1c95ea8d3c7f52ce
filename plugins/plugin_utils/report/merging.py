# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reports of several slices of one inventory, or of several days, as one: of each host what was seen last."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Record = dict[str, Any]


def merged(documents: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """The hosts of all, and what was replaced: ``{host, kept, kept_observed_at, dropped, dropped_observed_at}``.

    Of two views of a host the newer one is kept; of equally old ones the one of the earlier document. Having no
    result is not having looked: it never replaces one. Only what came from different sources is told of.
    """
    kept: dict[str, Record] = {}
    told: list[Record] = []
    for host in _hosts(documents):
        other = kept.get(host["name"])
        if other is None:
            kept[host["name"]] = host
            continue
        winner, loser = (host, other) if _rank(host) > _rank(other) else (other, host)
        kept[host["name"]] = winner
        if loser["status"] != "unknown" and winner["source"] != loser["source"]:
            told.append(_replaced(winner, loser))
    return list(kept.values()), sorted(told, key=lambda one: (one["host"], one["dropped_observed_at"]))


def _hosts(documents: Sequence[Record]) -> Iterable[Record]:
    for document in documents:
        yield from document["hosts"]


def _rank(host: Record) -> tuple[bool, str]:
    return host["status"] != "unknown", host["observed_at"]


def _replaced(winner: Record, loser: Record) -> Record:
    return {
        "host": winner["name"],
        "kept": winner["source"],
        "kept_observed_at": winner["observed_at"],
        "dropped": loser["source"],
        "dropped_observed_at": loser["observed_at"],
    }
