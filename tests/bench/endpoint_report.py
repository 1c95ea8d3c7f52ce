# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The situations that the token endpoint is looked at in, and the figures as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bench.endpoint_load import HOUR, POWER_CUT, ROLLOUT, RUNNING, START, Endpoint, Fleet, Limit, Seen, simulate
from bench.schedule import Cron, Schedule, timer

SIZES = (100, 1000, 10_000)
BAR = 50  # characters of the longest one
BACK = 90 * 60  # s after START: the server, that went away an hour before


def schedules() -> dict[str, Schedule]:
    """What runs the keeper, by what the tables call it."""
    return {
        "timer, delay 60 s": timer(),
        "timer, delay 240 s": timer(token_keeper_random_delay=240),
        "timer, no delay": timer(token_keeper_random_delay=0),
        "cron": Cron(),
        "cron, no delay": Cron((("token_keeper_random_delay", 0),)),
    }


class Situation(NamedTuple):
    """How a fleet begins and what server it has; looked at from ``since`` to ``until``, seconds after START."""

    name: str
    fleet: Fleet
    until: float
    since: float = 0
    lifetime: str = "hour"
    outage: bool = False
    per_second: float = 0  # what the server takes at most, by host
    retry_after: int | None = None
    most: int = 10_000  # hosts; what takes long is looked at in smaller fleets

    def endpoint(self, count: int) -> Endpoint:
        """The server, for a fleet of so many hosts."""
        down = (START + BACK - HOUR, START + BACK) if self.outage else (0, 0)
        limit = Limit(max(1, round(self.per_second * count)), 1, self.retry_after) if self.per_second else None
        return Endpoint(self.lifetime, down, limit)


SITUATIONS = (
    Situation("six ordinary hours, tokens of 60 to 90 minutes", RUNNING, 8 * HOUR, 2 * HOUR, "microsoft"),
    Situation("all rolled out in one minute, tokens of an hour", ROLLOUT, 3 * HOUR),
    Situation("all rolled out in one minute, 24 h later", ROLLOUT, 25 * HOUR, 24 * HOUR, most=1000),
    Situation("power back everywhere in one second", POWER_CUT, HOUR / 2),
    Situation("server back after an hour", RUNNING, BACK + HOUR, BACK, outage=True),
    Situation("power back, server takes 1 % of hosts a second, says Retry-After: 10", POWER_CUT, HOUR, 0,
              per_second=0.01, retry_after=10),
    Situation("power back, server takes 1 % of hosts a second, says Retry-After: 120", POWER_CUT, HOUR, 0,
              per_second=0.01, retry_after=120),
)  # fmt: skip


class Figures(NamedTuple):
    """What the server saw."""

    requests: int
    a_second: int  # in the second with the most
    a_minute: int
    refused: int
    served: float  # s from ``since`` until the last host had its token; 0 where nobody waited for one


def figures(journal: Sequence[Seen], situation: Situation) -> Figures:
    """Of a journal, in the time that the situation looks at."""
    seen = [one for one in journal if situation.since <= one.at - START < situation.until]
    first: dict[int, float] = {}
    for one in seen:
        if one.status == 200:
            first.setdefault(one.host, one.at - START - situation.since)
    waited = situation.fleet is POWER_CUT or situation.outage
    return Figures(
        len(seen),
        peak(seen, 1),
        peak(seen, 60),
        sum(one.status != 200 for one in seen),
        max(first.values(), default=0) if waited else 0,
    )


def peak(seen: Sequence[Seen], seconds: int) -> int:
    """The most requests in one second, or so many of them."""
    return max(Counter(int(one.at // seconds) for one in seen).values(), default=0)


def histogram(seen: Sequence[Seen], begin: float, step: float, count: int) -> Iterator[str]:
    """Requests in each step from ``begin`` on, as bars; so many steps."""
    bins = Counter(int((one.at - begin) // step) for one in seen if one.at >= begin)
    most = max((bins[number] for number in range(count)), default=0) or 1
    for number in range(count):
        mark = "#" * round(BAR * bins[number] / most)
        yield f"  {int(number * step):5} s {bins[number]:6} {mark}".rstrip()


def told(sizes: Sequence[int] = SIZES) -> str:
    """Everything that a person reads. It takes some minutes for 10,000 hosts."""
    lines = ["what the token endpoint sees: requests, the most in a second and in a minute, refused,"]
    lines.append("and the seconds until the last host had a token")
    for situation in SITUATIONS:
        lines += ["", f"{situation.name}:"]
        for name, schedule in schedules().items():
            for size in (size for size in sizes if size <= situation.most):
                endpoint = situation.endpoint(size)
                simulate(size, schedule, situation.fleet, endpoint, situation.until)
                found = figures(endpoint.journal, situation)
                lines.append(
                    f"  {name:20} {size:6} hosts {found.requests:8} {found.a_second:6} {found.a_minute:6}"
                    f" {found.refused:7} {found.served:7.0f}"
                )
    return "\n".join([*lines, "", *_boot(max(sizes))])


def _boot(size: int) -> Iterator[str]:
    """The two minutes after a power cut, with the random delay and without."""
    schedule = schedules()
    for name in ("timer, delay 60 s", "timer, no delay"):
        endpoint = Endpoint()
        simulate(size, schedule[name], POWER_CUT, endpoint, 120)
        yield f"{size} hosts after a power cut, {name}: requests in each 10 s"
        yield from histogram(endpoint.journal, START, 10, 12)
