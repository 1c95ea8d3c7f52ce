# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine against a server that answers over HTTP: when it asks, what it keeps, and what it does to consumers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from lab.error_replies import (
    NONSENSE,
    ODD,
    TRANSIENT,
    aadsts,
    amended,
    changed,
    deed,
    html,
    oauth_error,
    retry_after,
    truncated,
)
from lab.error_server import ErrorServer, Step
from lab.granting import accept
from lab.microsoft_errors import AADSTS
from unit.token_store import DAY, NAME, NOW, SCOPE, USER, Held

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth import tokens
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.causes import CAUSES
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.client import Refused
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.redaction import Secret


@pytest.fixture
def server() -> Iterator[ErrorServer]:
    with ErrorServer(limit=1) as server:
        yield server


@pytest.fixture
def one(tmp_path: Path, server: ErrorServer) -> Held:
    """A token that a person has just authorized, with one reader."""
    one = Held(tmp_path, server)
    one.consumer()
    one.authorize()
    return one


def token_file(one: Held, name: str = f"{NAME}.plain") -> Path:
    return one.directory / "tokens" / name


def refresh_token(one: Held) -> str:
    grant = one.state.grant
    assert grant
    assert grant.refresh_token
    return grant.refresh_token.reveal()


def access_token(one: Held) -> str:
    access = one.state.access
    assert access
    return access.token.reveal()


# -- when the server is asked


def test_a_fresh_token_costs_nothing(one: Held) -> None:
    before = one.file.stat().st_mtime_ns, one.file.stat().st_ino
    for _turn in range(3):
        outcome = one.ensure()
        assert (outcome.changed, outcome.refreshed) == (False, False)
    assert (one.file.stat().st_mtime_ns, one.file.stat().st_ino) == before
    assert one.refreshes() == 0


@pytest.mark.parametrize(
    ("age", "min_validity", "asks"),
    [(2999, None, 0), (3001, None, 1), (3500, 60, 0), (3541, 60, 1), (10, 3599, 1), (3601, 0, 1), (3599, 0, 0)],
)
def test_min_validity(one: Held, age: int, min_validity: int | None, asks: int) -> None:
    one.wait(seconds=age)
    assert one.ensure(min_validity=min_validity).refreshed == bool(asks)
    assert one.refreshes() == asks


def test_a_token_that_never_lives_long_enough_is_renewed_at_half_its_life(tmp_path: Path) -> None:
    with ErrorServer(access_token_seconds=300) as server:
        one = Held(tmp_path, server)
        one.authorize(expires_in=300)
        one.wait(seconds=140)
        assert not one.ensure().refreshed
        one.wait(seconds=20)
        assert one.ensure().refreshed


def test_a_new_refresh_token_takes_the_place_of_the_old_one(one: Held) -> None:
    old = refresh_token(one)
    assert one.ensure(force=True).refreshed
    assert one.server
    assert one.server.requests("token")[-1].form["refresh_token"] == old
    new = refresh_token(one)
    assert new != old
    assert old not in one.file.read_text()
    one.server.script(amended("refresh_token"))
    assert one.ensure(force=True).refreshed
    assert refresh_token(one) == new
    assert one.server.requests("token")[-1].form["refresh_token"] == new


def test_min_validity_of_the_registration(one: Held) -> None:
    one.declare(min_validity=3600 * 2)
    one.wait(seconds=1)
    assert not one.ensure().refreshed  # 2 h are never had from tokens of an hour
    one.declare(min_validity=3590)
    one.wait(seconds=10)
    assert one.ensure().refreshed


def test_an_idle_hosts_refresh_token_is_used_at_half_its_life(one: Held) -> None:
    one.authorize(expires_in=400 * DAY)
    one.wait(days=44)
    assert not one.ensure().refreshed
    one.wait(days=2)
    assert one.ensure().refreshed
    one.declare(keepalive=DAY)
    one.authorize(expires_in=400 * DAY)
    one.wait(days=1.01)
    assert one.ensure().refreshed


def test_the_servers_own_figure_wins(one: Held) -> None:
    one.authorize(expires_in=400 * DAY, refresh_expires_in=10 * DAY)
    assert one.view["days_left"] == 10
    one.wait(days=4)
    assert not one.ensure().refreshed
    one.wait(days=1.1)
    assert one.server
    one.server.script(amended(refresh_expires_in=20 * DAY))
    assert one.ensure().refreshed
    assert one.view["days_left"] == 20
    one.server.script(amended(refresh_expires_in=0))  # Keycloak's "not known"
    one.ensure(force=True)
    assert one.view["days_left"] == 90


def test_without_a_refresh_token_nobody_is_asked(one: Held) -> None:
    one.authorize(refresh_token=None)
    state = one.state
    assert state.grant is not None
    accept(one.store, NAME, _reply_without(one), one.clock)
    assert one.view["status"] == "expiring"
    one.wait(seconds=4000)
    assert not one.ensure().refreshed
    assert one.view["status"] == "expired"
    assert one.view["cause"] == "no_refresh_token"
    assert one.refreshes() == 0


def _reply_without(one: Held) -> Any:
    from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.grants.base import Reply

    return Reply(Secret("only-an-access-token"), 3600, None, None, SCOPE, USER, True)


def test_a_client_of_its_own_right_needs_no_person(tmp_path: Path, server: ErrorServer) -> None:
    one = Held(tmp_path, server, grant="client_credentials", client_secret=Secret("s+cr&t"), scope=("smtp",))
    assert one.view["status"] == "unauthorized"
    assert one.ensure().refreshed
    assert one.view["status"] == "authorized"
    assert one.view["days_left"] is None
    one.wait(days=300)
    assert one.ensure(patient=True).refreshed
    assert [request.form["grant_type"] for request in server.requests("token")] == ["client_credentials"] * 2
    server.always(oauth_error("invalid_client", 401))
    one.wait(days=1)
    one.ensure()
    assert one.view["status"] == "misconfigured"
    server.always(None)
    assert one.ensure().refreshed
    assert one.view["authorized_at"] == "2026-11-24T06:00:00Z"


# -- refusals


@pytest.mark.parametrize("name", [*TRANSIENT, *NONSENSE])
def test_what_passes_does_not_touch_the_grant(one: Held, server: ErrorServer, name: str) -> None:
    server.always({**TRANSIENT, **NONSENSE}[name])
    old = refresh_token(one)
    one.wait(seconds=3300)
    outcome = one.ensure()
    assert not outcome.refreshed
    assert refresh_token(one) == old
    assert not outcome.state.aside
    assert one.view["status"] in ("unreachable", "misconfigured")
    assert one.view["next_step"]
    assert token_file(one).read_text() == "first-access-token\n"
    server.always(None)
    assert one.ensure().refreshed
    assert one.view["status"] == "authorized"
    assert one.state.trouble is None


@pytest.mark.parametrize("name", ODD)
def test_odd_answers_that_can_be_used(one: Held, server: ErrorServer, name: str) -> None:
    server.script(ODD[name])
    outcome = one.ensure(force=True)
    if outcome.refreshed:
        assert one.view["status"] == "authorized"
        assert one.view["expires_at"] > "2026"
        assert not one.ensure().refreshed
    else:
        assert name == "2 MB"
        assert one.view["status"] == "unreachable"


@pytest.mark.parametrize("number", AADSTS)
def test_microsofts_refusals(one: Held, server: ErrorServer, number: int) -> None:
    server.always(aadsts(number))
    old = refresh_token(one)
    one.wait(seconds=3300)
    outcome = one.ensure()
    view = one.view
    assert view["status"] not in ("authorized", "expiring")
    assert str(number) in view["error_description"]
    assert view["next_step"]
    definite = CAUSES[view["cause"]].definite
    assert definite == (view["status"] in ("expired", "revoked"))
    if definite:
        assert outcome.state.grant is None
        kept = outcome.state.aside[-1].held.refresh_token
        assert kept is not None
        assert kept.reveal() == old
    else:
        assert refresh_token(one) == old
    server.always(None)
    one.ensure(force=True)
    assert one.view["status"] == "authorized", "a forced attempt takes back what was set aside"
    assert not one.state.aside


def test_a_grant_that_is_dead_is_not_asked_for_again(one: Held, server: ErrorServer) -> None:
    server.always(oauth_error("invalid_grant"))
    one.wait(seconds=3300)
    one.ensure()
    asked = one.refreshes()
    for _turn in range(5):
        one.wait(seconds=7200)
        assert not one.ensure().changed
    assert one.refreshes() == asked
    assert one.view["status"] == "revoked"
    assert one.view["authorized_user"] == USER
    one.authorize()
    assert one.view["status"] == "authorized"
    assert len(one.state.aside) == 1


def test_what_is_kept_aside_is_bounded(one: Held, server: ErrorServer) -> None:
    server.always(oauth_error("invalid_grant"))
    for turn in range(12):
        one.authorize(refresh_token=f"refresh-token-{turn}")
        one.wait(seconds=3300)
        one.ensure()
    held = [one.held.refresh_token for one in one.state.aside]
    assert [token.reveal() for token in held if token] == [f"refresh-token-{turn}" for turn in range(7, 12)]
    assert len(one.state.history) == 20


def test_another_clients_grant_is_kept_whatever_dies_meanwhile(one: Held, server: ErrorServer) -> None:
    """It is good still, and its client may come back."""
    old = refresh_token(one)
    one.declare(client_id="another")
    server.always(oauth_error("invalid_grant"))
    for turn in range(8):
        one.authorize(refresh_token=f"refresh-token-{turn}")
        one.wait(seconds=3300)
        one.ensure()
    assert len(one.state.aside) == 5 + 1
    server.always(None)
    one.declare(client_id="fleet")
    assert one.ensure().refreshed
    assert server.requests("token")[-1].form["refresh_token"] == old


def test_a_keeper_does_not_hammer_a_server_that_says_no(one: Held, server: ErrorServer) -> None:
    """A tick every five minutes for a day: fewer and fewer requests, and the disk is left alone in between."""
    server.always(oauth_error("invalid_client", 401))
    one.wait(seconds=3300)
    writes = 0
    for _tick in range(24 * 12):
        writes += one.ensure(patient=True).changed
        one.wait(seconds=300)
    assert one.refreshes() == writes
    assert 24 <= writes <= 32
    assert one.state.trouble is not None
    assert one.state.trouble.attempts == writes
    assert one.state.trouble.since == NOW + 3300
    assert len([event for event in one.state.history if event.what == "failed"]) == 1


@pytest.mark.parametrize(("step", "longest"), [(html(502), 900), (oauth_error("invalid_client", 401), 3600)])
def test_a_server_that_is_back_is_found_soon(one: Held, server: ErrorServer, step: Step, longest: int) -> None:
    """Mail waits where the trouble passes by itself; where somebody has to act, an hour more does not matter."""
    server.always(step)
    one.wait(seconds=3300)
    pauses = []
    for _try in range(9):
        one.ensure(patient=True)
        assert one.state.trouble is not None
        pauses.append(one.state.trouble.retry_at - one.state.trouble.at)
        one.wait(seconds=pauses[-1])
    assert pauses == [min(60 << attempt, longest) for attempt in range(9)]
    server.always(None)
    assert one.ensure(patient=True).refreshed


def test_retry_after_is_obeyed(one: Held, server: ErrorServer) -> None:
    server.always(retry_after(429, 3 * 3600))
    one.wait(seconds=3300)
    one.ensure(patient=True)
    asked = one.refreshes()
    server.always(None)
    one.wait(seconds=3 * 3600 - 10)
    assert not one.ensure(patient=True).refreshed
    assert one.refreshes() == asked
    one.wait(seconds=20)
    assert one.ensure(patient=True).refreshed


def test_who_asks_by_hand_does_not_wait(one: Held, server: ErrorServer) -> None:
    server.script(html(500))
    one.wait(seconds=3300)
    one.ensure()
    assert not one.ensure(patient=True).refreshed
    assert one.ensure().refreshed


def test_a_corrected_registration_is_tried_at_once(one: Held, server: ErrorServer) -> None:
    one.declare(client_secret=Secret("old"))
    server.oauth.clients["fleet"] = "new"
    one.wait(seconds=3300)
    for _turn in range(3):
        one.ensure(patient=True)
    assert one.refreshes() == 1
    assert one.view["status"] == "misconfigured"
    one.declare(client_secret=Secret("new"))
    assert one.ensure(patient=True).refreshed
    assert one.view["status"] == "authorized"


@pytest.mark.parametrize(
    "fate", [deed("close", carried_out=True), truncated(), amended("access_token", "refresh_token")]
)
def test_an_answer_that_got_lost_on_its_way_is_told(one: Held, server: ErrorServer, fate: Any) -> None:
    server.script(fate, oauth_error("invalid_grant"))
    one.wait(seconds=3300)
    one.ensure()
    assert one.view["status"] in ("unreachable", "misconfigured")
    one.ensure()
    assert one.view["status"] == "revoked"
    assert "interrupted on 2026-11-24T06:55:00Z before it had the server's answer" in one.view["next_step"]


@pytest.mark.parametrize("answer", [amended(token_type="DPoP"), amended("access_token")])
def test_an_answer_that_cannot_be_used_has_a_refresh_token_that_can(
    one: Held, server: ErrorServer, answer: Any
) -> None:
    """The old one is spent: who asked with it again would end the grant."""
    old = refresh_token(one)
    server.script(answer)
    one.wait(seconds=3300)
    assert not one.ensure().refreshed
    assert one.view["status"] in ("unreachable", "misconfigured")
    new = refresh_token(one)
    assert new != old
    assert one.state.lost_answer_at == 0
    assert access_token(one) == "first-access-token"
    assert one.ensure().refreshed
    assert server.requests("token")[-1].form["refresh_token"] == new
    assert one.view["status"] == "authorized"


def test_without_a_registration_nothing_is_asked(one: Held) -> None:
    os.unlink(one.store.registration_path(NAME))
    one.wait(days=1)
    assert not one.ensure(force=True).refreshed
    assert one.view["status"] == "misconfigured"
    assert one.view["cause"] == "not_declared"
    assert one.refreshes() == 0


# -- another client


def test_another_client_neither_uses_nor_loses_the_grant(one: Held) -> None:
    old = refresh_token(one)
    one.declare(client_id="another")
    one.wait(seconds=3300)
    assert not one.ensure().refreshed
    assert one.refreshes() == 0
    assert one.view["status"] == "unauthorized"
    assert one.state.access is None
    assert not token_file(one).exists()
    one.declare(client_id="fleet")
    assert one.view["status"] == "authorized"
    assert one.ensure().refreshed
    assert one.server
    assert one.server.requests("token")[-1].form["refresh_token"] == old
    assert not one.state.aside


# -- clocks


@pytest.mark.parametrize("leap", [600, -600, 2 * DAY, -2 * DAY, 200 * DAY, -200 * DAY])
def test_a_clock_that_leaps_costs_one_request_at_most(one: Held, leap: int) -> None:
    one.wait(seconds=leap)
    asked = 0
    for _turn in range(5):
        asked += one.ensure(patient=True).refreshed
        one.wait(seconds=1)
    assert asked <= 1
    assert one.view["status"] == "authorized"
    assert not one.ensure().changed
    one.wait(seconds=-leap)
    for _turn in range(5):
        asked += one.ensure(patient=True).refreshed
    assert asked <= 2
    assert one.view["status"] == "authorized"


def test_ten_minutes_back_is_worth_no_more_than_the_slack(one: Held) -> None:
    one.wait(seconds=-299)
    assert not one.ensure().refreshed
    one.wait(seconds=-10)
    assert one.ensure().refreshed


@pytest.mark.parametrize("offset", [-600, 600, -2 * DAY, 2 * DAY])
def test_a_clock_that_is_always_wrong_changes_nothing(tmp_path: Path, server: ErrorServer, offset: int) -> None:
    one = Held(tmp_path, server)
    one.clock.time = time.time() + offset - 3001
    one.authorize()
    assert not one.ensure().refreshed
    one.wait(seconds=3001)
    server.script(changed(lambda answer: answer._replace(headers=(*answer.headers, ("Date", formatdate(usegmt=True))))))
    assert one.ensure().refreshed
    assert not one.ensure().refreshed
    assert one.view["status"] == "authorized"
    assert one.view["cause"] == "clock"
    assert ("behind" if offset < 0 else "ahead of") in one.view["next_step"]


def test_a_clock_that_leaps_while_the_server_is_asked(one: Held, server: ErrorServer) -> None:
    class Leaping:
        """Two days on, once somebody else has read it."""

        def __init__(self) -> None:
            self.readings = 0

        def __call__(self) -> float:
            self.readings += 1
            return NOW + 3300 + (2 * DAY if self.readings > 2 else 0)

    leaping = Leaping()
    assert tokens.ensure(one.store, NAME, one.client, leaping).refreshed
    assert not tokens.ensure(one.store, NAME, one.client, leaping).refreshed
    assert one.refreshes() == 1


def test_with_a_clock_that_went_back_nothing_is_called_authorized(one: Held) -> None:
    one.wait(days=-30)
    assert one.view["status"] == "expiring"
    assert one.view["cause"] == "clock"


# -- consumers


def test_every_reader_gets_its_file(one: Held) -> None:
    one.consumer("exim", mode=0o644)
    one.consumer("sasl_xoauth2", path=str(one.directory / "chroot/etc/tokens/user"), username=USER)
    outcome = one.ensure()
    assert outcome.changed
    assert not outcome.refreshed
    assert token_file(one, "default.exim").read_text() == "access_token=first-access-token\n"
    assert token_file(one, "default.exim").stat().st_mode & 0o7777 == 0o644
    assert '"refresh_token": ""' in (one.directory / "chroot/etc/tokens/user").read_text()
    assert one.ensure(force=True).refreshed
    for path in (token_file(one), token_file(one, "default.exim"), one.directory / "chroot/etc/tokens/user"):
        assert access_token(one) in path.read_text()
        assert "first-access-token" not in path.read_text()
        assert refresh_token(one) not in path.read_text()
    assert not one.ensure().changed


@pytest.mark.parametrize("number", [0, 54321])
def test_an_owner_may_be_a_number(one: Held, number: int) -> None:
    if os.geteuid():
        pytest.skip("only root can give a file away")
    one.consumer(owner=str(number), group=str(number), mode=0o600)
    assert one.ensure().changed
    found = token_file(one).stat()
    assert (found.st_uid, found.st_gid) == (number, number)
    assert not one.ensure().changed


@pytest.mark.parametrize("harm", ["missing", "changed", "mode", "owner", "link", "dangling link", "pipe"])
def test_what_happened_to_a_file_is_repaired(one: Held, harm: str) -> None:
    path = token_file(one)
    elsewhere = one.directory / "precious"
    elsewhere.write_text("precious")
    if harm == "changed":
        path.write_text("something else\n")
    elif harm == "mode":
        path.chmod(0o666)
    elif harm == "owner":
        if os.geteuid():
            pytest.skip("only root can give a file away")
        os.chown(path, 65534, 65534)
    else:
        path.unlink()
    if harm == "link":
        path.symlink_to(elsewhere)
    if harm == "dangling link":
        path.symlink_to(one.directory / "not-there")
    if harm == "pipe":
        os.mkfifo(path)
    outcome = one.ensure()
    assert outcome.changed
    assert not outcome.refreshed
    assert not outcome.warnings
    found = os.lstat(path)
    assert path.read_text() == "first-access-token\n"
    assert (found.st_mode, found.st_uid, found.st_gid) == (0o100640, os.geteuid(), os.getegid())
    assert elsewhere.read_text() == "precious"
    assert not (one.directory / "not-there").exists()
    assert not one.ensure().changed
    assert one.refreshes() == 0


def test_one_readers_trouble_is_not_the_others(one: Held) -> None:
    one.consumer("exim", owner="no-such-user")
    one.consumer("sasl_xoauth2", group="no-such-group")
    directory = one.directory / "tokens" / "is-a-directory"
    directory.mkdir()
    one.consumer("plain", service="other", path=str(directory))
    outcome = one.ensure(force=True)
    assert outcome.refreshed
    told = "\n".join(outcome.warnings)
    assert len(outcome.warnings) == 3
    for words in ("user no-such-user: is not known", "group no-such-group: is not known", "is-a-directory"):
        assert words in told
    assert access_token(one) in token_file(one).read_text()
    assert sorted(os.listdir(one.directory / "tokens")) == ["default.plain", "is-a-directory"]
    assert one.ensure().warnings == outcome.warnings


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_file_is_not_written_where_others_lead_the_way(one: Held) -> None:
    theirs = one.directory / "theirs"
    theirs.mkdir()
    (theirs / "tokens").symlink_to("/etc")
    os.chown(theirs, 65534, 65534)
    one.directory.chmod(0o755)
    one.consumer(path=str(theirs / "tokens" / "fleetmail-test"))
    outcome = one.ensure()
    assert "can be led elsewhere by who may write to" in outcome.warnings[0]
    assert not Path("/etc/fleetmail-test").exists()


def test_who_waited_is_woken_and_who_did_not_is_not(one: Held, server: ErrorServer) -> None:
    bell = one.directory / "bell"
    one.consumer(wake=("sh", "-c", f"echo >> {bell}"))
    one.consumer("exim", wake=("sh", "-c", f"echo >> {bell}"))

    def rings() -> int:
        return bell.read_text().count("\n") if bell.exists() else 0

    one.wait(seconds=3300)
    assert one.ensure().refreshed
    assert rings() == 0, "its token was valid all the time"
    one.wait(days=1)
    assert one.ensure().refreshed
    assert rings() == 1, "once, though two readers want it"
    server.script(html(500))
    one.wait(seconds=3300)
    one.ensure()
    assert one.ensure().refreshed
    assert rings() == 2
    one.authorize()
    assert rings() == 3, "nobody authorizes again for nothing"
    one.ensure(force=True)
    assert rings() == 4
    one.consumer(wake=("false",))
    one.wait(days=1)
    assert one.ensure().warnings == ("false ended with 1: ",)


def test_who_was_just_trying_is_woken_again_and_then_left_alone(one: Held, server: ErrorServer) -> None:
    bell = one.directory / "bell"
    one.consumer(wake=("sh", "-c", f"echo >> {bell}"))
    one.authorize()
    rings = []
    for seconds in (0, 300, 330, 330):
        one.wait(seconds=seconds)
        outcome = tokens.wake_again(one.store, one.ensure(patient=True), int(one.clock()))
        assert (outcome.changed, outcome.warnings) == (False, ())
        rings.append(bell.read_text().count("\n"))
    assert rings == [1, 2, 3, 3]
    one.wait(seconds=2340)
    refreshed = one.ensure(patient=True)
    assert refreshed.refreshed
    one.wait(seconds=300)
    tokens.wake_again(one.store, one.ensure(patient=True), int(one.clock()))
    assert bell.read_text().count("\n") == 3, "its token was valid all the time"
    one.consumer(wake=("false",))
    one.wait(days=1)
    one.ensure()
    one.wait(seconds=300)
    again = tokens.wake_again(one.store, one.ensure(), int(one.clock()))
    assert again.warnings == ("false ended with 1: ",)
    server.script(oauth_error("invalid_grant"))
    one.ensure(force=True)
    one.wait(seconds=3400)
    assert tokens.wake_again(one.store, one.ensure(), int(one.clock())).warnings == (), "there is nothing to go with"


def test_who_is_woken_can_ask_for_its_token(one: Held) -> None:
    """The lock is free by then."""
    place = one.store.path(NAME)
    one.consumer(wake=("flock", "--nonblock", place, "true"))
    one.wait(days=1)
    outcome = one.ensure()
    assert outcome.refreshed
    assert not outcome.warnings


# -- an end


def test_where_nothing_can_be_revoked_it_is_told(one: Held) -> None:
    outcome = one.remove()
    assert outcome.changed
    assert "offers no revocation" in outcome.warnings[0]
    assert not one.file.exists()


def test_removing_with_a_revocation_endpoint(one: Held, server: ErrorServer) -> None:
    one.declare(revocation_url=server.url("revoke"))
    token = refresh_token(one)
    one.store.reserve(NAME, NOW)  # and then it was killed
    assert one.remove().changed
    assert [(one.form["token"], one.form["token_type_hint"]) for one in server.requests("revoke")] == [
        (token, "refresh_token")
    ]
    assert token not in server.oauth.grants
    assert not token_file(one).exists()
    assert not one.file.exists()
    assert sorted(os.listdir(one.store.path(NAME))) == ["consumers", "registration.json"]
    assert one.state.registration is not None, "a consumer's service still declares it"
    assert one.view["status"] == "unauthorized"
    assert not one.remove().changed


def test_without_consumers_nothing_stays(tmp_path: Path, server: ErrorServer) -> None:
    one = Held(tmp_path, server, revocation_url=server.url("revoke"))
    one.authorize()
    assert one.remove().changed
    assert one.store.names() == []
    assert os.listdir(one.store.directory) == []
    assert not one.remove().changed
    assert os.listdir(one.store.directory) == []


def test_nothing_is_removed_that_could_not_be_revoked(one: Held, server: ErrorServer) -> None:
    one.declare(revocation_url=server.url("revoke"))
    before = one.file.read_bytes()
    server.always(html(503), on="revoke")
    with pytest.raises(Refused):
        one.remove()
    assert one.file.read_bytes() == before
    assert token_file(one).read_text() == "first-access-token\n"
    server.always(oauth_error("invalid_client", 401), on="revoke")
    outcome = one.remove()
    assert outcome.changed
    assert "not revoked" in outcome.warnings[0]


def test_a_grant_of_another_client_that_goes_too_is_told(one: Held, server: ErrorServer) -> None:
    one.declare(client_id="another", revocation_url=server.url("revoke"))
    one.authorize(refresh_token="of-another-client")
    assert [kept.held.identity for kept in one.state.aside] == [f"fleet at {server.token_url}"]
    warnings = one.remove().warnings
    assert [request.form["token"] for request in server.requests("revoke")] == ["of-another-client"]
    assert len(warnings) == 1
    assert f"fleet at {server.token_url}" in warnings[0]
    assert "not revoked" in warnings[0]
