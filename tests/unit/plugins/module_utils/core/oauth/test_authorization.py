# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The two phases on a real store, with a scripted server."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from unit.scripted_http import CLIENT, GRANTED, NOW, USER, Script, error, id_token, said

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.errors import HostError, InvalidService
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth import authorization
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.client import Refused, TokenClient
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.http import Answer, NoAnswer
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.registration import Registration
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.status import view
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.store import Store
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.tokens import Outcome
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.posix_host import PosixHost
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.redaction import Secret

DEVICE = CLIENT._replace(grant="device_code")
CODE = {"device_code": "d3vice", "user_code": "WDJB-MJHT", "verification_uri": "https://login.example.test/device"}
DOWN = NoAnswer("connection_refused", "Connection refused", False)


class Bench:
    """A store, a server on a script and a clock that is moved by hand."""

    def __init__(self, folder: Path, registration: Registration | None = CLIENT) -> None:
        self.store = Store(PosixHost(), str(folder / "store"))
        self.at = float(NOW)
        self.script = Script(said(**GRANTED))
        self.slept: list[float] = []
        if registration:
            self.declare(registration)

    def declare(self, registration: Registration) -> None:
        with self.store.locked("default"):
            self.store.write_registration("default", registration)

    def now(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += seconds

    def client_of(self, registration: Registration) -> TokenClient:
        return self.script.client(registration, self.at)

    def begin(self, *answers: Any, redirect_uri: str = "") -> Outcome:
        self.script = Script(*answers) if answers else self.script
        return authorization.begin(self.store, "default", self.client_of, self.now, redirect_uri)

    def finish(self, answer: str, *answers: Any) -> Outcome:
        self.script = Script(*answers) if answers else self.script
        return authorization.finish(self.store, "default", answer, self.client_of, self.now)

    def wait(self, seconds: float, *answers: Any) -> Outcome:
        self.script = Script(*answers) if answers else self.script
        return authorization.wait(self.store, "default", self.client_of, seconds, self.now, self.sleep)

    def address(self, **changes: str) -> str:
        pending = self.state.pending
        assert pending
        values = {"code": "the-c0de", "state": pending.data["state"], **changes}
        return pending.data["redirect_uri"] + "/?" + "&".join(f"{name}={value}" for name, value in values.items())

    def refused(self, call: Callable[[], Any]) -> Refused:
        with pytest.raises(Refused) as found:
            call()
        return found.value

    @property
    def state(self) -> Any:
        return self.store.read("default")

    @property
    def status(self) -> str:
        return str(view(self.state, self.at)["status"])


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def device(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path, DEVICE)
    bench.begin(said(**CODE, expires_in=900))
    bench.at += 10
    return bench


# -- beginning


def test_begin_keeps_what_is_pending(bench: Bench) -> None:
    outcome = bench.begin()
    assert outcome.changed
    assert outcome.state.pending == bench.state.pending
    assert bench.status == "pending"
    assert bench.script.calls == []
    token = Path(bench.store.token_path("default"))
    assert token.stat().st_mode & 0o777 == 0o600


def test_a_second_begin_loses_nothing(bench: Bench) -> None:
    first = bench.begin().state.pending
    assert bench.begin().state.pending == first
    assert bench.finish(bench.address()).refreshed


def test_a_second_begin_of_a_device_asks_for_no_second_code(device: Bench) -> None:
    first = device.state.pending
    assert device.begin(error("slow_down")).state.pending == first
    assert device.script.calls == []


@pytest.mark.parametrize(
    "changes",
    [
        {"scope": ("smtp", "more")},
        {"username": "other@example.test"},
        {"client_id": "another"},
        {"grant": "device_code"},
    ],
)
def test_what_was_begun_for_something_else_is_begun_anew(bench: Bench, changes: dict[str, Any]) -> None:
    first = bench.begin().state.pending
    bench.declare(CLIENT._replace(**changes))
    second = bench.begin(said(**CODE)).state.pending
    assert second != first
    assert authorization.resumable(bench.state, bench.at)


def test_an_expired_one_is_begun_anew(bench: Bench) -> None:
    first = bench.begin().state.pending
    bench.at += 86401
    assert bench.begin().state.pending != first


def test_a_new_secret_does_not_end_what_was_begun(bench: Bench) -> None:
    first = bench.begin().state.pending
    bench.declare(CLIENT._replace(client_secret=Secret("new")))
    assert bench.begin().state.pending == first


@pytest.mark.parametrize("answer", [error("invalid_client", 401), Answer(502, {}, b""), DOWN])
def test_a_begin_that_is_refused(tmp_path: Path, answer: Any) -> None:
    bench = Bench(tmp_path, DEVICE)
    found = bench.refused(lambda: bench.begin(answer))
    assert bench.state.pending is None
    assert bench.state.trouble.cause == found.cause.name
    assert bench.status == found.cause.status


def test_nothing_is_declared(tmp_path: Path) -> None:
    bench = Bench(tmp_path, None)
    with pytest.raises(HostError, match=r"registration\.json"):
        bench.begin()


def test_a_grant_without_a_person_is_not_begun(tmp_path: Path) -> None:
    bench = Bench(tmp_path, CLIENT._replace(grant="client_credentials"))
    with pytest.raises(InvalidService, match="needs no person"):
        bench.begin()


# -- finishing by the browser's address


def test_finish(bench: Bench) -> None:
    bench.begin()
    outcome = bench.finish(bench.address(), said(**GRANTED, id_token=id_token(email=USER)))
    assert outcome.refreshed
    state = bench.state
    assert state.pending is None
    assert (state.grant.user, state.grant.user_verified) == (USER, True)
    assert state.grant.refresh_token == Secret("the-refresh-token")
    assert state.access.token == Secret("the-access-token")
    assert bench.status == "authorized"
    kept = Path(bench.store.token_path("default")).read_text()
    assert "the-c0de" not in kept
    assert "verifier" not in kept


def test_another_address_leaves_it_pending(bench: Bench) -> None:
    bench.begin()
    found = bench.refused(lambda: bench.finish(bench.address(state="another")))
    assert found.cause.name == "other_authorization"
    assert bench.status == "pending"
    assert bench.script.calls == []
    assert bench.finish(bench.address()).refreshed


@pytest.mark.parametrize("answer", [DOWN, Answer(503, {}, b""), error("invalid_client", 401)])
def test_what_may_still_come_right_leaves_it_pending(bench: Bench, answer: Any) -> None:
    bench.begin()
    bench.refused(lambda: bench.finish(bench.address(), answer))
    assert bench.status == "pending"
    assert bench.finish(bench.address(), said(**GRANTED)).refreshed
    assert bench.state.trouble is None


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (error("invalid_grant"), "code_refused"),
        (said(**{**GRANTED, "id_token": id_token(email="boss@example.test")}), "other_person"),
        (said(**{**GRANTED, "scope": "openid email"}), "scope_missing"),
        (said(**{**GRANTED, "refresh_token": None}), "no_refresh_token"),
    ],
)
def test_an_authorization_that_is_not_taken(bench: Bench, answer: Answer, cause: str) -> None:
    bench.begin()
    found = bench.refused(lambda: bench.finish(bench.address(), answer))
    assert found.cause.name == cause
    state = bench.state
    assert (state.grant, state.access, state.pending) == (None, None, None)
    assert (bench.status, state.trouble.cause) == ("unauthorized", cause)
    assert view(state, bench.at)["next_step"] == found.cause.next_step
    assert "the-" not in Path(bench.store.token_path("default")).read_text()


def test_scope_that_is_missing_is_named(bench: Bench) -> None:
    bench.begin()
    found = bench.refused(lambda: bench.finish(bench.address(), said(**{**GRANTED, "scope": "openid"})))
    assert "not granted: smtp; granted: openid" in str(found)


def test_a_no_by_the_browser_ends_it(bench: Bench) -> None:
    bench.begin()
    bench.refused(lambda: bench.finish(bench.address(error="access_denied", code="")))
    assert bench.state.pending is None
    assert bench.state.trouble.cause == "access_denied"


def test_a_no_leaves_the_grant_that_there_is(bench: Bench) -> None:
    bench.begin()
    bench.finish(bench.address())
    held = bench.state
    bench.begin()
    bench.refused(lambda: bench.finish(bench.address(error="access_denied", code="")))
    assert bench.state.grant == held.grant
    assert bench.state.access == held.access
    assert bench.status == "authorized"


def test_nothing_is_pending(bench: Bench) -> None:
    found = bench.refused(lambda: bench.finish("http://127.0.0.1:1/?code=x&state=y"))
    assert found.cause.name == "nothing_pending"
    assert bench.state.trouble is None
    assert bench.script.calls == []


def test_what_was_begun_by_another_client_is_not_finished(bench: Bench) -> None:
    bench.begin()
    address = bench.address()
    bench.declare(CLIENT._replace(client_id="another"))
    assert bench.refused(lambda: bench.finish(address)).cause.name == "nothing_pending"
    bench.declare(CLIENT)
    assert bench.finish(address).refreshed


def test_two_at_once_use_the_code_once(bench: Bench) -> None:
    bench.begin()
    address = bench.address()
    ends: list[str] = []

    def go() -> None:
        try:
            ends.append("done" if bench.finish(address).refreshed else "pending")
        except Refused as error:
            ends.append(error.cause.name)

    threads = [threading.Thread(target=go) for _each in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ends) == ["done", *["nothing_pending"] * 4]
    assert len(bench.script.calls) == 1


def test_no_room_for_the_answer_no_question(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.begin()

    def full(*_arguments: object) -> None:
        raise HostError("token.json", "cannot be written: No space left on device")

    monkeypatch.setattr(bench.store, "reserve", full)
    with pytest.raises(HostError, match="No space"):
        bench.finish(bench.address())
    assert bench.script.calls == []
    assert bench.status == "pending"


# -- finishing by polls


def test_a_device_that_another_task_continues(device: Bench) -> None:
    assert device.finish("", error("authorization_pending")).state.pending
    another = Bench.__new__(Bench)
    another.__dict__.update(device.__dict__, store=Store(PosixHost(), device.store.directory))
    assert another.finish("", said(**GRANTED)).state.pending, "too early: nobody asks"
    another.at += 5
    assert another.finish("").refreshed
    assert another.status == "authorized"
    assert another.state.grant.grant == "device_code"


def test_waiting_keeps_the_servers_pace(device: Bench) -> None:
    pending, slow = error("authorization_pending"), error("slow_down")
    assert device.wait(600, pending, pending, slow, pending, slow, pending, said(**GRANTED)).refreshed
    assert [round(pause) for pause in device.slept if pause] == [5, 5, 10, 10, 15, 15]


@pytest.mark.parametrize(
    ("answer", "status"), [(said(**GRANTED), "authorized"), (error("access_denied"), "unauthorized")]
)
def test_somebody_else_gets_the_answer_while_we_wait(device: Bench, answer: Any, status: str) -> None:
    """The keeper, or another task."""
    waits = device.sleep

    def sleep(seconds: float) -> None:
        waits(seconds)
        with contextlib.suppress(Refused):
            device.finish("", answer)

    device.sleep = sleep  # type: ignore[method-assign]
    outcome = device.wait(60, error("authorization_pending"))
    assert (outcome.state.pending, outcome.refreshed) == (None, False)
    assert device.status == status
    assert len(device.script.calls) == 1


def test_polls_at_once_are_one(device: Bench) -> None:
    device.script = Script(said(**GRANTED))
    ends: list[bool] = []
    threads = [threading.Thread(target=lambda: ends.append(device.finish("").refreshed)) for _each in range(4)]
    with device.store.locked("default"):
        for thread in threads:
            thread.start()
        time.sleep(0.5)
    for thread in threads:
        thread.join()
    assert sorted(ends) == [False, False, False, True]
    assert len(device.script.calls) == 1


def test_slow_down_is_kept_for_the_next_task(device: Bench) -> None:
    device.wait(0, error("slow_down"))
    assert device.state.pending.data["interval"] == 10
    device.at += 9
    assert device.wait(0, said(**GRANTED)).state.pending
    device.at += 1
    assert device.wait(0).refreshed


def test_waiting_has_an_end(device: Bench) -> None:
    assert device.wait(0, error("authorization_pending")).state.pending
    assert len(device.script.calls) == 1
    assert device.wait(3).state.pending
    assert len(device.script.calls) == 1
    assert device.slept[-1] == pytest.approx(3, abs=1.5)


def test_a_code_that_expires_while_we_wait(device: Bench) -> None:
    device.at = NOW + 899
    found = device.refused(lambda: device.wait(10, error("authorization_pending")))
    assert found.cause.name == "expired_token"
    assert device.state.pending is None
    assert device.status == "unauthorized"


@pytest.mark.parametrize("word", ["access_denied", "authorization_declined", "expired_token"])
def test_waiting_ends_with_a_no(device: Bench, word: str) -> None:
    device.refused(lambda: device.wait(600, error("authorization_pending"), error(word)))
    assert device.state.pending is None
    assert len(device.script.calls) == 2


def test_a_network_that_is_away_for_a_while(device: Bench) -> None:
    assert device.wait(600, DOWN, DOWN, DOWN, Answer(502, {}, b""), said(**GRANTED)).refreshed


def test_waiting_where_nothing_is_polled(bench: Bench) -> None:
    bench.begin()
    assert bench.wait(2).state.pending
    assert bench.script.calls == []
    assert bench.slept == [pytest.approx(2, abs=1.5)]


# -- listening


def test_listen(bench: Bench) -> None:
    bench.begin()
    pages: list[str] = []

    def browse() -> None:
        for address in (bench.address(state="wrong"), bench.address()):
            with urlopen(address, timeout=10) as response:
                pages.append(response.geturl() + response.read().decode())

    browser = threading.Timer(0.1, browse)
    browser.start()
    outcome = authorization.listen(bench.store, "default", bench.client_of, 20, bench.now)
    browser.join()
    assert outcome.refreshed
    assert "still waiting" in pages[0]
    assert "Mail can be sent now" in pages[1]
    assert all("/done" in page and "the-c0de" not in page for page in pages)


@pytest.mark.parametrize(("trouble", "raised"), [(True, HostError), (False, Refused)])
def test_listen_ends_with_what_ends_the_authorization(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, trouble: bool, raised: type[Exception]
) -> None:
    bench.begin()
    address = bench.address(error="access_denied", code="")
    if trouble:

        def full(*_arguments: object) -> None:
            raise HostError("token.json", "cannot be written: No space left on device")

        monkeypatch.setattr(bench.store, "reserve", full)
    browser = threading.Timer(0.1, lambda: urlopen(address, timeout=10).read())
    browser.start()
    with pytest.raises(raised):
        authorization.listen(bench.store, "default", bench.client_of, 20, bench.now)
    browser.join()


def test_listen_without_a_browser(bench: Bench) -> None:
    bench.begin()
    assert authorization.listen(bench.store, "default", bench.client_of, 0.2, bench.now).state.pending


def test_listen_where_nothing_is_pending(bench: Bench) -> None:
    found = bench.refused(lambda: authorization.listen(bench.store, "default", bench.client_of, 1, bench.now))
    assert found.cause.name == "nothing_pending"


# -- what a person is told


def test_what_a_person_is_told(bench: Bench) -> None:
    told = authorization.shown(bench.begin().state.pending, CLIENT)  # type: ignore[arg-type]
    assert set(told) == {"flow", "url", "user_code", "expires_at", "instructions"}
    assert told["flow"] == "authorization_code"
    assert bench.state.pending.data["verifier"] not in json.dumps(told)


def test_what_a_person_with_a_code_is_told(device: Bench) -> None:
    told = authorization.shown(device.state.pending, DEVICE)
    assert told["user_code"] == "WDJB-MJHT"
    assert "type in WDJB-MJHT, before 2026-11-24T" in told["instructions"]
    assert "d3vice" not in json.dumps(told)


def test_a_server_that_could_not_be_asked_is_told(device: Bench) -> None:
    device.wait(0, DOWN)
    told = authorization.shown(device.state.pending, DEVICE)
    assert "could not be reached: token_url: nothing listens" in told["instructions"]
    device.at += 20
    device.wait(0, error("authorization_pending"))
    assert "could not be reached" not in authorization.shown(device.state.pending, DEVICE)["instructions"]


@pytest.mark.parametrize(
    ("changes", "listen", "uri"),
    [
        ({}, "127.0.0.1:8400", "http://127.0.0.1:8400"),
        ({}, "[::1]:8400", "http://[::1]:8400"),
        ({"provider": "microsoft365"}, "127.0.0.1:8400", "http://localhost:8400"),
        ({"redirect_uri": "http://127.0.0.1/back"}, "127.0.0.1:8400", "http://127.0.0.1:8400/back"),
        ({"redirect_uri": "http://[::1]/back?x=y"}, "[::1]:8400", "http://[::1]:8400/back?x=y"),
        ({"redirect_uri": "http://127.0.0.1:8500/back"}, "", "http://127.0.0.1:8500/back"),
        ({"redirect_uri": "https://mail.example.test/back"}, "", "https://mail.example.test/back"),
        ({"redirect_uri": "urn:ietf:wg:oauth:2.0:oob"}, "", "urn:ietf:wg:oauth:2.0:oob"),
    ],
)
def test_where_the_browser_is_sent_back_to(changes: dict[str, Any], listen: str, uri: str) -> None:
    assert authorization.redirect_for(CLIENT._replace(**changes), listen) == uri


@pytest.mark.parametrize("listen", ["", "127.0.0.1", "[::1]"])
def test_a_free_port_where_none_is_told(listen: str) -> None:
    first, second = (authorization.redirect_for(CLIENT, listen) for _each in range(2))
    assert first.rpartition(":")[0] == second.rpartition(":")[0]
    assert 1024 < int(first.rpartition(":")[2]) < 65536


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:8400", "192.0.2.1:80", "localhost:8400", "mail.test", "127.0.0.1:x", "::1", "/"]
)
def test_nothing_but_a_loopback_literal_is_listened_at(listen: str) -> None:
    with pytest.raises(InvalidService, match="listen"):
        authorization.redirect_for(CLIENT, listen)
