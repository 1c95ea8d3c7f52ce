# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""One report, from results and earlier reports to its files."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...module_utils.core.errors import Problem
from .document import complete, essence, load, moment, seconds_of
from .merging import merged
from .net import Net
from .problem import NoReport
from .shape import take

Record = dict[str, Any]
THIS_RUN = "this run"
TOLD = 10  # hosts in two sources that are warned of one by one


class Order(NamedTuple):
    """What a report is asked for.

    merge: paths or patterns of JSON files. max_age: seconds that the times in a report may be old when nothing else
    differs. certificate_days: from when the end of a certificate is a finding.
    """

    title: str
    version: str
    merge: Sequence[str] = ()
    max_age: int = 3600
    certificate_days: int = 30


class Made(NamedTuple):
    """The document, and what the person should be told of."""

    document: Record
    warnings: list[str]


def make(hosts: Iterable[Record], order: Order, previous: Path, now: float, net: Net) -> Made:
    """The report of these hosts and of those in the files to merge.

    previous: the JSON file of the run before. When that says the same, beside times that are not too old, it is the
    report: a second run gives the same bytes.
    Raises NoReport with everything that is wrong with the files.
    """
    live = list(hosts)
    parts = [{"hosts": live, "name": THIS_RUN, "generated_at": moment(now)}] if live else []
    parts += _merging(order.merge, previous, net)
    found, replaced = merged(parts)
    if not found:
        raise NoReport([Problem("hosts", "there is no host to report on", "see variables, hosts and merge")])
    made = {
        "title": take(order.title, str, net.text),
        "generator": {"name": "fleetmail.smtp", "version": order.version},
        "generated_at": moment(now),
        "sources": [_source(part) for part in parts],
        "replaced": replaced,
    }
    report = complete(found, made, order.certificate_days)
    return Made(_unchanged(report, previous, order.max_age, now, net) or report, list(_told(replaced)))


def _source(part: Record) -> Record:
    return {"name": part["name"], "generated_at": part["generated_at"], "hosts": len(part["hosts"])}


def _told(replaced: Sequence[Record]) -> Iterator[str]:
    """A sentence for each host that was in two sources; of many the first ones."""
    for one in replaced[:TOLD]:
        kept, dropped = (one[key] or THIS_RUN for key in ("kept", "dropped"))
        times = one["kept_observed_at"], one["dropped_observed_at"]
        yield f"{one['host']} is in {kept} ({times[0]}) and in {dropped} ({times[1]}): the first is reported"
    if len(replaced) > TOLD:
        yield f"{len(replaced) - TOLD} more hosts are in two sources, the report names them: the newest is reported"


def _merging(patterns: Sequence[str], previous: Path, net: Net) -> list[Record]:
    """The documents to merge, each once, in the order that was asked for."""
    problems: list[Problem] = []
    documents: dict[str, Record] = {}
    for pattern in patterns:
        paths = sorted(glob.glob(os.path.expanduser(pattern), recursive=True))
        if not paths and not glob.has_magic(pattern):
            problems.append(Problem("merge", f"{pattern} is not there", "give the JSON file of an earlier report"))
        for path in paths:
            try:
                own = os.path.realpath(path) == os.path.realpath(previous)
                documents.setdefault(os.path.realpath(path), _read(Path(path), "" if own else path, net))
            except NoReport as error:
                problems += error.problems
    if problems:
        raise NoReport(problems)
    return list(documents.values())


def _read(path: Path, source: str, net: Net) -> Record:
    """A document; source: what it is called for hosts whose run had no name."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise NoReport([Problem(str(path), f"cannot be read: {why}")]) from None
    found = load(str(path), text, net)
    for host in found["hosts"]:
        host["source"] = host["source"] or source
    return {**found, "name": str(path)}


def _unchanged(report: Record, previous: Path, max_age: int, now: float, net: Net) -> Record | None:
    """The report of the run before, if this one would only repeat it soon after."""
    try:
        before = load(str(previous), previous.read_text("utf-8"), net)
    except (OSError, UnicodeDecodeError, NoReport):
        return None  # there is none, or none of ours: it is replaced
    made = seconds_of(before["generated_at"])
    if made is None or not 0 <= now - made < max_age:
        return None
    same = {**report, **before}
    return same if essence(same) == essence(report) else None
