# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""From samples to figures: the best of the rounds, the cost of one more host, ratios, and the limits to reach."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from bench.contenders import DRIFT, OUR_SEND, OURS, PING, ROLE, SECOND, TEXTBOOK, THEIR_SEND, Contender, Run
from bench.measure import Sample
from bench.payload import Payload

PAYLOAD_LIMIT = 240 * 1024
LINEAR = 1.15  # the last slope over the first one: above, a host in a large fleet costs more than one in a small fleet


class Limit(NamedTuple):
    """A figure to reach: what it was, by the clock and by the processors; reached None when it was not measured."""

    text: str
    wall: float | None
    cpu: float | None
    reached: bool | None


class Span(NamedTuple):
    """The two fleet sizes that a slope is taken between."""

    small: int
    large: int


@dataclass
class Figures:
    """All samples of one bench: (contender, run) -> size -> samples."""

    samples: dict[tuple[str, str], dict[int, list[Sample]]] = field(default_factory=dict)

    def add(self, contender: Contender, run: Run, size: int, sample: Sample) -> None:
        """Keep a sample."""
        self.samples.setdefault((contender.name, run.label), {}).setdefault(size, []).append(sample)

    def has(self, contender: Contender, size: int) -> bool:
        """Whether it was run on such a fleet."""
        return any(size in self.samples.get((contender.name, run.label), {}) for run in contender.runs)

    def best(self, key: tuple[str, str], size: int) -> Sample | None:
        """The least of the rounds, of each measure by itself: what disturbs a run only ever adds to it."""
        found = self.samples.get(key, {}).get(size)
        return Sample(min(one.wall for one in found), min(one.cpu for one in found)) if found else None

    def span(self, key: tuple[str, str]) -> Span | None:
        """The two largest fleets that it was run on."""
        sizes = sorted(self.samples.get(key, {}))
        return Span(sizes[-2], sizes[-1]) if len(sizes) > 1 else None

    def slope(self, key: tuple[str, str], span: Span | None) -> Sample | None:
        """The seconds that one more host costs between two sizes of a fleet."""
        if span is None:
            return None
        small, large = self.best(key, span.small), self.best(key, span.large)
        if small is None or large is None:
            return None
        hosts = span.large - span.small
        return Sample((large.wall - small.wall) / hosts, (large.cpu - small.cpu) / hosts)

    def ratio(self, upper: tuple[str, str], lower: tuple[str, str]) -> Sample | None:
        """How many times one more host of the one costs one more host of the other, between the same two sizes.

        A contender that was not run on both of them (the role's fleets are smaller) is taken between its nearest two.
        """
        spans = [span for span in (self.span(upper), self.span(lower)) if span]
        if len(spans) < 2:
            return None
        span = min(spans, key=lambda one: one.large)
        return _over(self.slope(upper, self._nearest(upper, span)), self.slope(lower, self._nearest(lower, span)))

    def _nearest(self, key: tuple[str, str], span: Span) -> Span | None:
        """The span itself where it was measured, else the first one of neighbours that reaches as far."""
        sizes = sorted(self.samples.get(key, {}))
        if set(span) <= set(sizes):
            return span
        return next((Span(*pair) for pair in itertools.pairwise(sizes) if pair[1] >= span.large), None)

    def linearity(self, key: tuple[str, str]) -> Sample | None:
        """The slope between the two largest fleets over that between the two smallest."""
        sizes = sorted(self.samples.get(key, {}))
        if len(sizes) < 3:
            return None
        return _over(self.slope(key, Span(*sizes[-2:])), self.slope(key, Span(*sizes[:2])))


def _over(first: Sample | None, second: Sample | None) -> Sample | None:
    if first is None or second is None or min(second) <= 0:
        return None
    return Sample(first.wall / second.wall, first.cpu / second.cpu)


def limits(figures: Figures, sizes: Mapping[str, Payload]) -> list[Limit]:
    """The limits of the design, and whether they are reached."""
    second, drift = (OURS.name, SECOND.label), (OURS.name, DRIFT.label)
    ping = (PING.name, SECOND.label)
    sending = (THEIR_SEND.name, "test send"), (OUR_SEND.name, "test send")
    found = [
        _at_most("smtp_service, second run, at most 1.3 x ping", figures.ratio(second, ping), 1.3),
        _at_most("smtp_service, drift check, at most 1.3 x ping", figures.ratio(drift, ping), 1.3),
        _at_least("textbook (lean) at least 4 x smtp_service", figures.ratio((TEXTBOOK.name, SECOND.label), second), 4),
        _at_least("role of debops at least 8 x smtp_service", figures.ratio((ROLE.name, SECOND.label), second), 8),
        _at_most(f"linear: last slope at most {LINEAR} x the first", figures.linearity(second), LINEAR),
        _at_least("community.general.mail at least 1 x smtp_probe", figures.ratio(*sending), 1),
    ]
    if OURS.name in sizes:
        sent = sizes[OURS.name].sent
        found.append(Limit(f"payload at most {PAYLOAD_LIMIT} bytes", sent, None, sent <= PAYLOAD_LIMIT))
    return found


def _at_most(text: str, ratio: Sample | None, limit: float) -> Limit:
    if ratio is None:
        return Limit(text, None, None, None)
    return Limit(text, ratio.wall, ratio.cpu, max(ratio) <= limit)


def _at_least(text: str, ratio: Sample | None, limit: float) -> Limit:
    if ratio is None:
        return Limit(text, None, None, None)
    return Limit(text, ratio.wall, ratio.cpu, min(ratio) >= limit)
