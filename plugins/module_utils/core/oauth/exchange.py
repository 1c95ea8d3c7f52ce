# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Exchanges with one server, tried again only where it certainly did nothing with the request, and never for long."""

from __future__ import annotations

import time
from collections.abc import Callable

from . import answers
from .http import Answer, Call, NoAnswer

TIMEOUT = 20  # seconds for one exchange; all tries together have twice that, for others wait for the lock meanwhile
PAUSES = (1, 3)  # seconds before the second and the third try
LONGEST_WAIT = 15  # seconds of a Retry-After that are waited for; the keeper comes back for more
PASSING = ("connection_refused", "no_route", "timeout", "name_unknown")  # kinds of NoAnswer that may be over soon

Transport = Callable[[Call, float], Answer]


class Exchanges:
    """``timeout``: seconds for each. ``sleep``, ``now`` (epoch seconds) and ``chance`` (0 to 1) are for tests.

    ``clock_off``: seconds that this host's clock is ahead of the server's, by the last answer; None before there was
    one.
    """

    def __init__(
        self,
        transport: Transport,
        timeout: int = TIMEOUT,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.time,
        chance: Callable[[], float] | None = None,
    ) -> None:
        self.clock_off: int | None = None
        self._transport, self._timeout = transport, timeout
        self._sleep, self._now, self._chance = sleep, now, chance or _chance
        self._end = 0.0  # of our patience, by the monotonic clock

    def begin(self) -> None:
        """Something new is asked: patience begins anew."""
        self._end = time.monotonic() + 2 * self._timeout

    def send(self, call: Call) -> Answer:
        """The answer, of the last try. Raises NoAnswer."""
        if time.monotonic() >= self._end:
            self.begin()
        for pause in (*PAUSES, None):
            try:
                answer = self._transport(call, min(self._timeout, max(1.0, self._end - time.monotonic())))
            except NoAnswer as missed:
                if missed.sent or missed.kind not in PASSING or pause is None or not self._waited(pause):
                    raise
                continue
            self._note_clock(answer)
            wait = answers.retry_after(answer.headers, self._now()) if answer.status in (429, 503) else None
            if wait is None or wait > LONGEST_WAIT or pause is None or not self._waited(max(wait, 1)):
                return answer
        raise AssertionError("the last try gives an answer or raises")

    def _waited(self, seconds: float) -> bool:
        """Wait so long, and by chance up to half as long again; False: patience would end before.

        Hosts that a server sent away in the same second, with the same Retry-After, would all come back in one.
        """
        seconds *= 1 + self._chance() / 2
        if time.monotonic() + seconds + 1 > self._end:
            return False
        self._sleep(seconds)
        return True

    def _note_clock(self, answer: Answer) -> None:
        date = answers.http_date(answer.headers.get("date", ""))
        if date is not None:
            self.clock_off = round(self._now() - date)


def _chance() -> float:
    from random import random

    return random()  # noqa: S311 - no secret comes of it
