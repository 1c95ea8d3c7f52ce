# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from unit.scripted_http import CLIENT, GRANTED, NOW, USER, Script, error, id_token, said

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.client import Refused
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.grants.base import Reply
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.grants.device_code import DeviceCode
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.http import Answer, NoAnswer
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.state import Pending

DEVICE = CLIENT._replace(grant="device_code")
CODE = {"device_code": "d3vice-code", "user_code": "WDJB-MJHT", "verification_uri": "https://login.example.test/device"}
PENDING = error("authorization_pending")
LATER = NOW + 100


def begun(**changes: Any) -> Pending:
    script = Script(said(**{**CODE, "expires_in": 900, **changes}))
    return DeviceCode().begin(DEVICE, script.client(DEVICE), lambda: NOW)


def poll(pending: Pending, *answers: Any, now: float = LATER) -> Reply | Pending:
    return DeviceCode().finish(DEVICE, pending, "", Script(*answers).client(DEVICE), lambda: now)


def test_begin() -> None:
    script = Script(said(**CODE, expires_in=900, interval=7, verification_uri_complete="https://x.test/?user_code=W"))
    pending = DeviceCode().begin(DEVICE, script.client(DEVICE), lambda: NOW)
    assert script.calls[0].url == DEVICE.device_authorization_url
    assert script.forms == [{"scope": "smtp offline_access", "client_id": "fleet", "client_secret": "cl1ent+s3cret"}]
    assert (pending.flow, pending.begun_at, pending.expires_at) == ("device_code", NOW, NOW + 900)
    assert pending.identity == DEVICE.identity
    assert pending.data == {
        "url": "https://login.example.test/device",
        "user_code": "WDJB-MJHT",
        "url_complete": "https://x.test/?user_code=W",
        "device_code": "d3vice-code",
        "interval": 7,
        "next_poll": NOW + 7,
    }


@pytest.mark.parametrize(
    ("told", "interval"), [(None, 5), (0, 5), (-3, 5), ("10", 10), ("often", 5), (10**9, 300), (True, 5)]
)
def test_the_interval_is_five_seconds_unless_it_is_told(told: Any, interval: int) -> None:
    assert begun(interval=told).data["interval"] == interval


@pytest.mark.parametrize(("told", "life"), [(None, 900), ("600", 600), (0, 900), (10**9, 86400)])
def test_how_long_a_code_lives(told: Any, life: int) -> None:
    assert begun(expires_in=told).expires_at == NOW + life


def test_googles_older_name() -> None:
    assert (
        begun(verification_uri=None, verification_url="https://google.test/device").data["url"]
        == "https://google.test/device"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"device_code": None},
        {"user_code": 7},
        {"verification_uri": None},
        {"verification_uri": "javascript:alert(1)"},
        {"verification_uri": "https://x.test/\n"},
        {"user_code": "WDJB\x1b[2J"},
        {"user_code": "W" * 65},
        {"device_code": "a b"},
    ],
)
def test_an_answer_that_lacks_what_a_person_needs(changes: dict[str, Any]) -> None:
    with pytest.raises(Refused) as refused:
        begun(**changes)
    assert refused.value.cause.name == "not_oauth"


def test_nobody_is_asked_before_it_is_time() -> None:
    pending = begun()
    script = Script(PENDING)
    assert DeviceCode().finish(DEVICE, pending, "", script.client(DEVICE), lambda: NOW + 4) is pending
    assert script.calls == []


def test_a_pending_authorization_keeps_the_pace() -> None:
    after = poll(begun(), PENDING)
    assert isinstance(after, Pending)
    assert after.data["interval"] == 5
    assert after.data["next_poll"] == LATER + 5


def test_slow_down_is_for_all_later_polls() -> None:
    """RFC 8628 3.5: five seconds more for this and all later requests, also of another process."""
    pending, at = begun(), NOW
    for answer, interval in ((error("slow_down"), 10), (PENDING, 10), (error("slow_down"), 15), (PENDING, 15)):
        at = pending.data["next_poll"]
        after = poll(pending, answer, now=at)
        assert isinstance(after, Pending)
        assert (after.data["interval"], after.data["next_poll"]) == (interval, at + interval)
        pending = after


@pytest.mark.parametrize(
    "answer",
    [
        NoAnswer("timeout", "no answer", True),
        NoAnswer("connection_refused", "", False),
        Answer(502, {}, b"<html>"),
        Answer(429, {"retry-after": "40"}, b""),
    ],
)
def test_a_server_in_trouble_is_asked_more_slowly(answer: Any) -> None:
    after = poll(begun(), answer)
    assert isinstance(after, Pending)
    assert after.data["interval"] == (45 if isinstance(answer, Answer) and answer.status == 429 else 10)


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (error("access_denied"), "access_denied"),
        (error("authorization_declined"), "access_denied"),
        (error("expired_token"), "expired_token"),
        (error("bad_verification_code"), "code_refused"),
        (error("invalid_grant"), "expired_token"),
        (error("invalid_client", 401), "client_refused"),
        (error("consent_required"), "consent_required"),
    ],
)
def test_an_end(answer: Answer, cause: str) -> None:
    with pytest.raises(Refused) as refused:
        poll(begun(), answer)
    assert refused.value.cause.name == cause


def test_an_expired_code_is_not_asked_for() -> None:
    script = Script(PENDING)
    with pytest.raises(Refused) as refused:
        DeviceCode().finish(DEVICE, begun(), "", script.client(DEVICE), lambda: NOW + 900)
    assert refused.value.cause.name == "expired_token"
    assert script.calls == []


def test_done() -> None:
    script = Script(said(**GRANTED, id_token=id_token(email=USER)))
    reply = DeviceCode().finish(DEVICE, begun(), "", script.client(DEVICE), lambda: LATER)
    assert isinstance(reply, Reply)
    assert script.forms[0]["device_code"] == "d3vice-code"
    assert script.forms[0]["grant_type"] == "urn:ietf:params:oauth:grant-type:device_code"
    assert (reply.user, reply.user_verified) == (USER, True)
    assert reply.refresh_token
    assert reply.refresh_token.reveal() == "the-refresh-token"


def test_another_person_is_an_error() -> None:
    with pytest.raises(Refused) as refused:
        poll(begun(), said(**GRANTED, id_token=id_token(email="boss@example.test")))
    assert refused.value.cause.name == "other_person"
