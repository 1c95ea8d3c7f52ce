# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The simulation of the token endpoint's load: clock and schedules, and that its requests are the real keeper's."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from bench import endpoint_load as load
from bench import endpoint_report as report
from bench import schedule
from bench.endpoint_load import HOUR, NAME, NO_ANSWER, START, Clock, Endpoint, Host, Limit, Seen
from lab.error_server import ErrorServer
from lab.plain_oauth import Answer as Sent
from lab.plain_oauth import Request

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth import keeper
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.store import Store
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.posix_host import PosixHost

COUNT = 2  # one with a grant, one with a client's credentials


# -- the simulated requests are the real ones ------------------------------------------------------------------------


class Windows(Endpoint):
    """Away for a while, and later it sends everybody away for a while: by the time alone, not by who came before."""

    busy = (START + 2.5 * HOUR, START + 3.2 * HOUR)
    retry_after = 10

    def _room(self, limit: Limit, at: float) -> bool:
        return not self.busy[0] <= at < self.busy[1]


def windows(retry_after: int) -> Windows:
    return Windows("microsoft", (START + HOUR, START + 2 * HOUR), Limit(0, 1, retry_after), seed=7)


class RealHosts:
    """The keeper's own main() on stores on the disk, and its own HTTP to a server that listens when the model does."""

    def __init__(self, folder: Path, endpoint: Endpoint) -> None:
        self.clock, self.endpoint = Clock(), endpoint
        self.server = ErrorServer().start()
        self.arrived: list[Request] = []
        self._hear(self.server)
        self.hosts = [self._host(folder / str(number), number) for number in range(COUNT)]
        self.clock.sleep = self._sleep  # type: ignore[method-assign]

    def _host(self, folder: Path, number: int) -> Host:
        store = Store(PosixHost(), str(folder))
        registered = load.registration(number)._replace(token_url=self.server.token_url)
        with store.locked(NAME):
            store.write_registration(NAME, registered)
        return Host(number, self.endpoint, self.clock, store)

    def _hear(self, server: ErrorServer) -> None:
        def step(request: Request, _proper: Callable[[], Sent]) -> Sent:
            self.arrived.append(request)
            number = int(request.form["client_id"].removeprefix("host-"))
            answer = self.endpoint.answer(number, request.form, self.clock.now)
            return Sent(answer.status, answer.body, tuple(answer.headers.items()))

        server.always(step)

    def at(self, now: float) -> None:
        """It is now so late; the server listens or does not."""
        self.clock.now = now
        listens = not self.endpoint.down[0] <= now < self.endpoint.down[1]
        if self.server.stopped.is_set() == listens:
            port = self.server.port
            if listens:
                self.server = ErrorServer().start(port=port)
                self._hear(self.server)
            else:
                self.server.stop()

    def _sleep(self, seconds: float) -> None:
        self.at(self.clock.now + seconds)

    def run(self, ticks: list[tuple[float, int]]) -> None:
        """Run the keeper of a host at each of these times."""
        for now, number in ticks:
            self.at(now)
            host = self.hosts[number]
            with mock.patch.object(keeper._Keeper, "_client", lambda _self, known, host=host: host.client(known)):
                keeper.main(["tick", "--quiet", "--store", host.store.directory], now=self.clock)


@pytest.mark.parametrize("retry_after", [10, 200])
def test_the_simulated_requests_are_the_real_keepers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], retry_after: int
) -> None:
    """Two hosts for four hours, with an outage, a server that sends away, and tokens of different lives."""
    model = windows(retry_after)
    hosts = load.simulate(COUNT, schedule.timer(), load.ROLLOUT, model, 4 * HOUR)
    real = RealHosts(tmp_path, windows(retry_after))
    try:
        with load.moved(real.clock):
            for host, simulated in zip(real.hosts, hosts, strict=True):
                real.clock.now, left = simulated.authorized
                host.authorize(left)
            real.run(sorted((at, host.number) for host in hosts for at in host.ticks))
    finally:
        real.server.stop()
    arrived = [one for one in model.journal if one.status != NO_ANSWER]
    assert rounded(real.endpoint.journal) == rounded(arrived)
    assert len(real.arrived) == len(arrived)
    assert {one.status for one in arrived} == {200, 429}
    assert any(one.status == NO_ANSWER for one in model.journal)
    for host, simulated in zip(real.hosts, hosts, strict=True):
        assert kept(host) == kept(simulated)
    assert "connection_refused" in capsys.readouterr().out


def rounded(journal: list[Seen]) -> list[tuple[float, int, int]]:
    return sorted((round(one.at, 3), one.host, one.status) for one in journal)


def kept(host: Host) -> Any:
    """What the store has of it, but for the texts that name a port and the file's own number."""
    state = host.store.read(NAME)
    assert state.access
    assert state.grant
    history = [(event.at, event.what, event.detail) for event in state.history]
    refresh = state.grant.refresh_token.reveal() if state.grant.refresh_token else ""
    return state.access.expires_at, refresh, history, state.trouble


# -- the clock -------------------------------------------------------------------------------------------------------


def test_who_sleeps_lets_the_others_go_on() -> None:
    clock, seen = Clock(), []

    def living(name: str, *pauses: float) -> Callable[[], None]:
        def live() -> None:
            for pause in pauses:
                clock.sleep(pause)
                seen.append((name, clock.now - START))

        return live

    clock.start(living("a", 10, 10))
    clock.start(living("b", 5, 10, 100))
    clock.run(START + 100)
    assert seen == [("b", 5), ("a", 10), ("b", 15), ("a", 20)]


# -- the schedules ---------------------------------------------------------------------------------------------------


def runs(plan: schedule.Schedule, booted: float, started: float, count: int, host: str = "a") -> list[float]:
    """The first ones, in seconds after START."""
    found = plan.runs(host, random.Random(host), START + booted, START + started)
    return [at - START for at in islice(found, count)]


def test_the_timer_is_the_roles() -> None:
    assert schedule.timer() == schedule.Timer(30, 300, 60, 10)
    assert schedule.timer(token_keeper_interval=2, token_keeper_random_delay=7)[1:3] == (120, 7)


def test_a_timer_that_boots_with_its_host_waits_and_one_that_is_brought_later_does_not() -> None:
    for host in "abcdefgh":
        first, *later = runs(schedule.timer(), 0, 0, 50, host)
        assert 30 <= first <= 30 + 60 + 10
        gaps = [second - first for first, second in pairwise([first, *later])]
        assert all(300 <= gap <= 370 for gap in gaps)
        assert max(gaps) - min(gaps) > 30
        assert runs(schedule.timer(), -86400, 20, 1, host) == [20]


def test_systemd_wakes_at_the_hosts_own_place_within_the_accuracy() -> None:
    assert schedule.woken(100, 60, 42) == 102
    assert schedule.woken(100, 10, 42) == 102  # the place in the minute
    assert schedule.woken(110, 10, 42) == 112  # there is none: the place in ten seconds
    assert schedule.woken(103, 0.5, 42) == 103
    assert schedule.woken(100, 0, 42) == 100


def test_cron_spreads_a_fleet_over_the_whole_interval() -> None:
    """In each of ten parts of five minutes there are hosts, and in none of them more than twice its share."""
    offsets = [runs(schedule.Cron(), 0, 0, 1, f"host{number}.example.test")[0] % 300 for number in range(400)]
    shares = [sum(part <= offset // 30 < part + 1 for offset in offsets) for part in range(10)]
    assert sum(shares) == 400
    assert max(shares) < 80
    assert min(shares) > 12


def test_cron_runs_a_host_at_the_same_place_each_time() -> None:
    found = runs(schedule.Cron(), 0, 1000, 30)
    assert {second - first for first, second in pairwise(found)} == {300}
    assert 1000 <= found[0] <= 1000 + 360


# -- the server and the figures --------------------------------------------------------------------------------------


def test_a_limit_lets_so_many_through_in_each_window() -> None:
    server = Endpoint(limit=Limit(2, 10, 7))
    form = {"grant_type": "client_credentials"}
    said = [server.answer(number, form, START + at) for number, at in enumerate((0, 1, 9, 10))]
    assert [answer.status for answer in said] == [200, 200, 429, 200]
    assert said[2].headers == {"retry-after": "7"}


def test_a_refresh_token_is_good_once() -> None:
    server = Endpoint()
    server.life(1)
    form = {"grant_type": "refresh_token", "refresh_token": server.refresh_token(1)}
    assert [server.answer(1, form, START).status for _use in range(2)] == [200, 400]


def test_the_delay_spreads_a_power_cut_and_nothing_is_asked_for_twice() -> None:
    journals = {}
    for name, delay in (("with", 60), ("without", 0)):
        server = Endpoint()
        load.simulate(60, schedule.timer(token_keeper_random_delay=delay), load.POWER_CUT, server, 45 * 60)
        assert sorted(one.host for one in server.journal) == list(range(60))
        journals[name] = [one.at - START for one in server.journal]
    assert 30 <= min(journals["without"]) <= max(journals["without"]) <= 40
    assert max(journals["with"]) - min(journals["with"]) > 45
    assert max(journals["with"]) <= 100


def test_the_peak_and_the_bars_are_those_of_the_journal() -> None:
    seen = [Seen(START + at, 0, 200) for at in (0, 0.9, 1, 59, 61)]
    assert (report.peak(seen, 1), report.peak(seen, 60)) == (2, 4)
    assert list(report.histogram(seen, START, 60, 2)) == [
        f"      0 s      4 {'#' * 50}",
        f"     60 s      1 {'#' * 12}",
    ]
    situation = report.SITUATIONS[3]._replace(since=0.95, until=60)
    refused = [*seen, Seen(START + 2, 1, 429), Seen(START + 30, 1, 200)]
    assert report.figures(refused, situation) == report.Figures(4, 1, 4, 1, 30 - 0.95)
