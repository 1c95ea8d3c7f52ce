# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the token endpoint sees of a fleet. The hosts are simulated; what each of them decides is the engine's own code.

Every run of every host's timer calls the engine's `ensure` as the keeper does, with the client that it asks with. Only
the clock, the wire and the disk are others: time passes in no time, requests go to a model of a server, and all is kept
in memory. A host that waits within a run waits beside all others, each in a greenlet of its own.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import json
import random
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple
from unittest import mock

from driver import checkout
from greenlet import getcurrent, greenlet

from bench.schedule import Schedule

sys.path.insert(0, str(checkout.linked()))
from lab.granting import accept  # it imports the collection

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth import client as client_module
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth import exchange, tokens
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.client import TokenClient, Transport
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.grants.base import Reply
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.http import Answer, Call, NoAnswer
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.registration import Registration
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.state import TokenState
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.store import Store
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.posix_host import PosixHost
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.redaction import Secret

START = 1_795_500_000  # a full hour; cron goes by it
HOUR, DAY = 3600, 86400
NAME, URL = "default", "https://login.example.test/token"
NO_ANSWER = 0  # instead of a status: nobody listened


class Seen(NamedTuple):
    """A request, as the server's journal has it."""

    at: float
    host: int
    status: int


class Limit(NamedTuple):
    """No more requests than that in each window of so many seconds. retry_after: what the others are told, or None."""

    requests: int
    window: int = 1
    retry_after: int | None = None


class Endpoint:
    """A server: how long its access tokens live, when it does not listen, and how much it takes.

    lifetime: "hour", or "microsoft", which is 60 to 90 minutes at random.
    """

    def __init__(
        self, lifetime: str = "hour", down: tuple[float, float] = (0, 0), limit: Limit | None = None, seed: int = 1
    ) -> None:
        self.down, self.limit, self.seed, self._random = down, limit, seed, lifetime == "microsoft"
        self.journal: list[Seen] = []
        self._window, self._taken = 0, 0
        self._given: dict[int, int] = {}  # host -> how many tokens

    def life(self, host: int) -> int:
        """Seconds that the next access token of a host lives."""
        count = self._given[host] = self._given.get(host, 0) + 1
        return random.Random(f"{self.seed} {host} {count}").randrange(3600, 5401) if self._random else 3600

    def refresh_token(self, host: int) -> str:
        """The one that is good: with each access token there is a new one."""
        return f"refresh-{host}-{self._given.get(host, 0)}"

    def answer(self, host: int, form: dict[str, str], at: float) -> Answer:
        """To a request of a host at a time. Raises NoAnswer while it does not listen."""
        answer = self._answer(host, form, at)
        self.journal.append(Seen(at, host, answer.status if answer else NO_ANSWER))
        if answer is None:
            raise NoAnswer("connection_refused", "Connection refused", sent=False)
        return answer

    def _answer(self, host: int, form: dict[str, str], at: float) -> Answer | None:
        if self.down[0] <= at < self.down[1]:
            return None
        if self.limit and not self._room(self.limit, at):
            after = self.limit.retry_after
            return Answer(429, {} if after is None else {"retry-after": str(after)}, b"{}")
        if form["grant_type"] == "refresh_token" and form["refresh_token"] != self.refresh_token(host):
            return Answer(400, {}, b'{"error": "invalid_grant"}')
        said = {"access_token": f"access-{host}", "token_type": "Bearer", "expires_in": self.life(host)}
        if form["grant_type"] == "refresh_token":
            said["refresh_token"] = self.refresh_token(host)
        return Answer(200, {}, json.dumps(said).encode())

    def _room(self, limit: Limit, at: float) -> bool:
        window = int(at // limit.window)
        if window != self._window:
            self._window, self._taken = window, 0
        self._taken += 1
        return self._taken <= limit.requests


class Clock:
    """The time of all hosts, in place of the module `time`. Who sleeps lets the others go on."""

    def __init__(self, now: float = START) -> None:
        self.now = now
        self._waiting: list[tuple[float, int, greenlet]] = []
        self._order = itertools.count()
        self._hub = getcurrent()

    def __call__(self) -> float:
        return self.now

    time = monotonic = __call__

    def sleep(self, seconds: float) -> None:
        """Come back when so many seconds are over."""
        heapq.heappush(self._waiting, (self.now + max(0, seconds), next(self._order), getcurrent()))
        self._hub.switch()

    def start(self, work: Callable[[], None]) -> None:
        """Let something live from now on."""
        heapq.heappush(self._waiting, (self.now, next(self._order), greenlet(work, parent=self._hub)))

    def run(self, until: float) -> None:
        """Let all of them live until then."""
        while self._waiting and self._waiting[0][0] < until:
            self.now, _order, who = heapq.heappop(self._waiting)
            who.switch()


class InMemory(Store):
    """A store of one token without a disk."""

    def __init__(self, registration: Registration) -> None:
        super().__init__(PosixHost(), "/nonexistent")
        self.state = TokenState(NAME, registration)

    def read(self, name: str) -> TokenState:
        """What was written."""
        return self.state

    @contextlib.contextmanager
    def locked(self, name: str, patience: float = 60) -> Iterator[None]:
        """Nobody else is there."""
        yield

    def recovered(self, name: str, now: int) -> TokenState:
        """Nobody was killed."""
        return self.state

    def reserve(self, name: str, now: int, room: int = 0) -> None:
        """There is room."""
        self._reserved.add(name)

    def write(self, name: str, state: TokenState) -> TokenState:
        """Keep it."""
        self._reserved.discard(name)
        self.state = state._replace(serial=state.serial + 1)
        return self.state


def registration(number: int) -> Registration:
    """Every second host has a grant of its own, the others the credentials of a client of their own."""
    common = Registration(name=NAME, client_id=f"host-{number}", token_url=URL, username="fleet@example.test")
    if number % 2:
        return common._replace(scope=("smtp", "offline_access"))
    return common._replace(grant="client_credentials", client_secret=Secret("a secret"), scope=("smtp",))


class Host:
    """One host with its keeper."""

    def __init__(self, number: int, endpoint: Endpoint, clock: Clock, store: Store | None = None) -> None:
        self.number, self.endpoint, self.clock = number, endpoint, clock
        self.store = store or InMemory(registration(number))
        self.authorized: tuple[float, int] = (0, 0)
        self.ticks: list[float] = []
        self._chance = random.Random(f"{endpoint.seed} {number} pauses")

    def authorize(self, expires_in: int | None = None) -> None:
        """It has a token that is valid for so long from now on, None: a whole life."""
        life = self.endpoint.life(self.number)
        expires_in = life if expires_in is None else expires_in
        self.authorized = (self.clock.now, expires_in)
        refresh = Secret(self.endpoint.refresh_token(self.number)) if self.number % 2 else None
        accept(self.store, NAME, Reply(Secret("first-access-token"), expires_in, refresh), self.clock)

    def live(self, runs: Iterator[float]) -> None:
        """Run the keeper at these times."""
        for at in runs:
            self.clock.sleep(at - self.clock.now)
            self.ticks.append(self.clock.now)
            tokens.ensure(self.store, NAME, self._asking, self.clock, patient=True)  # as the keeper's tick does

    def client(self, registration: Registration, transport: Transport | None = None) -> TokenClient:
        """The engine's, by our clock. transport None: its own, by HTTP."""
        sleep, chance = self.clock.sleep, self._chance.random
        return TokenClient(
            registration, self.store.host, transport=transport, sleep=sleep, now=self.clock, chance=chance
        )

    def _asking(self, registration: Registration) -> TokenClient:
        return self.client(registration, self._exchange)

    def _exchange(self, call: Call, _seconds: float) -> Answer:
        return self.endpoint.answer(self.number, dict(call.form or {}), self.clock.now)


@contextlib.contextmanager
def moved(clock: Clock) -> Iterator[None]:
    """The engine and its client go by this clock."""
    with contextlib.ExitStack() as stack:
        for module in (tokens, client_module, exchange):
            stack.enter_context(mock.patch.object(module, "time", clock))
        yield


class Fleet(NamedTuple):
    """How hosts begin, by a number at random between 0 and 1 for each: seconds from START.

    booted: when it was booted. started: when it got its timer, or booted with it. expires_in: what its access token has
    left when the timer is started, 0 and less for one that is over; None: a whole life, for it was authorized then.
    """

    booted: Callable[[float], float]
    started: Callable[[float], float]
    expires_in: Callable[[float], int | None]


def _place(minutes: float) -> Callable[[float], float]:
    return lambda chance: minutes * 60 * chance


# all hosts get keeper and token within one minute; they have been running for long
ROLLOUT = Fleet(lambda chance: -DAY * (1 + 30 * chance), _place(1), lambda _chance: None)
# the power comes back in the same second everywhere, after more than the life of a token
POWER_CUT = Fleet(lambda _chance: 0, lambda _chance: 0, lambda _chance: 0)
# a fleet that has been running for long: hosts and tokens of every age
RUNNING = Fleet(lambda chance: -DAY * (1 + 30 * chance), _place(6), lambda chance: int(600 + 3000 * (1e6 * chance % 1)))


def simulate(
    count: int, schedule: Schedule, fleet: Fleet, endpoint: Endpoint, until: float, seed: int = 1
) -> list[Host]:
    """Let so many hosts live until START + ``until``; the endpoint's journal has what it saw."""
    clock = Clock(START - DAY * 32)
    hosts = [Host(number, endpoint, clock) for number in range(count)]
    with moved(clock):
        for host in hosts:
            clock.start(_life(host, schedule, fleet, random.Random(f"{seed} {host.number}")))
        clock.run(START + until)
    return hosts


def _life(host: Host, schedule: Schedule, fleet: Fleet, chance: random.Random) -> Callable[[], None]:
    place = chance.random()
    booted, started, left = START + fleet.booted(place), START + fleet.started(place), fleet.expires_in(place)

    def live() -> None:
        host.clock.sleep(started - host.clock.now)
        if left is None or left > 0:
            host.authorize(left)
        else:
            _outlive(host)
        host.live(schedule.runs(f"host{host.number:05}.example.test", chance, booted, started))

    return live


def _outlive(host: Host) -> None:
    """It has a token that ended while the host was off."""
    now = host.clock.now
    host.clock.now = now - 2 * HOUR
    host.authorize(HOUR)
    host.clock.now = now
