# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab.authority import Authority
from lab.relay import Behaviour, Relay, listeners
from unit.fake_host import FakeHost

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.relay_check import check_relay, offline_problems

RELAY = {"host": "relay.example.test", "security": "starttls"}
PASSWORD, TOKEN = "Käfig \"7\\up' vogel", "ya29.zaunkoenig"


def offline(**options: Any) -> list[str]:
    return [problem.option for problem in offline_problems({**RELAY, **options})]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"verify": "recipient", "verify_recipient": "a@example.test"},
        {"auth_type": "password", "username": "u", "password": "p"},
        {"auth_type": "oauth", "username": "u", "access_token": "t"},
        {"test_send": {"to": ["a@example.test"]}},
    ],
    ids=repr,
)
def test_a_probe_without_a_problem(options: dict[str, Any]) -> None:
    assert offline(**options) == []


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"host": ""}, ["host"]),
        ({"host": "a b"}, ["host"]),
        ({"port": 65536}, ["port"]),
        ({"port": False}, ["port"]),
        ({"security": "ssl"}, ["security"]),
        ({"timeout": 0}, ["timeout"]),
        ({"verify": "all"}, ["verify"]),
        ({"verify": "recipient"}, ["verify_recipient"]),
        ({"verify_recipient": "x"}, ["verify_recipient"]),
        ({"from_address": "x"}, ["from_address"]),
        ({"auth_type": "password", "username": "u"}, ["password"]),
        ({"auth_type": "password", "password": "p"}, ["username"]),
        ({"auth_type": "oauth"}, ["username", "access_token"]),
        ({"access_token": "t"}, ["access_token"]),
        ({"auth_type": "oauth", "username": "u", "access_token": "t\n"}, ["access_token"]),
        ({"auth_type": "oauth", "username": "u", "access_token": "t", "password": "p"}, ["password"]),
        ({"auth_type": "password", "username": "u", "password": "p", "security": "none"}, ["security"]),
        ({"test_send": {"to": ["x"], "subject": "a\nb"}}, ["test_send.to", "test_send.subject"]),
    ],
    ids=repr,
)
def test_what_is_wrong_with_a_probe(options: dict[str, Any], named: list[str]) -> None:
    assert offline(**options) == named


def test_all_problems_come_at_once_and_nothing_is_connected() -> None:
    result = check_relay({"host": "a b", "port": 0, "ca_file": "/none.pem", "timeout": -1}, FakeHost(), check=False)
    assert result["failed"] is True
    assert {problem["option"] for problem in result["problems"]} == {"host", "port", "ca_file", "timeout"}
    assert "verification" not in result


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    certificate = Authority(tmp_path_factory.mktemp("authority")).good("localhost")
    listening = listeners(certificate, "127.0.0.1", 0, 0, 0)
    users, tokens = {"fleet": PASSWORD}, {"fleet": TOKEN}
    with Relay(listening, users=users, tokens=tokens).start() as started:
        yield started


def asked(relay: Relay, **options: Any) -> dict[str, Any]:
    relay.forget()
    given = {"host": "127.0.0.1", "port": relay.port("none"), "security": "none", "timeout": 5, **options}
    result = check_relay(given, FakeHost(), options.get("check", False))
    told = json.dumps(result, ensure_ascii=False)
    assert PASSWORD not in told
    assert TOKEN not in told
    return result


def test_a_probe_with_a_password(relay: Relay) -> None:
    relay.behaviour = Behaviour(users={"fleet": PASSWORD})
    result = asked(relay, auth_type="password", username="fleet", password=PASSWORD)
    assert "failed" not in result
    assert result["changed"] is False
    assert result["verification"]["reached"] == "auth"
    assert [attempt.accepted for session in relay.sessions() for attempt in session.auths] == [True]


def test_a_probe_with_a_token(relay: Relay) -> None:
    relay.behaviour = Behaviour(tokens={"fleet": TOKEN}, mechanisms=["XOAUTH2"])
    login = {"auth_type": "oauth", "username": "fleet"}
    assert asked(relay, **login, access_token=TOKEN)["verification"]["ok"] is True
    refused = asked(relay, **login, access_token=TOKEN + "x")
    assert refused["failed"] is True
    assert refused["verification"]["reached"] == "tls"


def test_a_mail_is_sent_but_never_in_check_mode(relay: Relay) -> None:
    relay.behaviour = Behaviour()
    mail = {"to": ["you@example.test"], "sender": "me@example.test"}
    skipped = asked(relay, test_send=mail, check=True)["test_send"]
    assert skipped == {"sent": False, "via": "relay", "skipped": "check mode"}
    assert relay.messages() == []
    sent = asked(relay, test_send=mail)["test_send"]
    assert sent["sent"] is True
    assert relay.wait_for_message().recipients == ["you@example.test"]


def test_a_mail_that_is_refused_fails(relay: Relay) -> None:
    relay.behaviour = Behaviour(rcpt_replies={"*": "550 5.1.1 nobody"})
    result = asked(relay, test_send={"to": ["you@example.test"], "sender": "me@example.test"})
    assert result["failed"] is True
    assert result["test_send"]["sent"] is False
    assert [problem["option"] for problem in result["problems"]] == ["test_send"]


ANYTHING = st.none() | st.text(st.characters(exclude_categories=()), max_size=20)


@given(
    st.fixed_dictionaries(
        {"host": st.just("a b") | ANYTHING.map(lambda text: f"{text} ")},
        optional={
            "port": st.integers(),
            "timeout": st.integers(),
            "security": st.sampled_from(["none", "starttls", "tls"]),
            "auth_type": st.sampled_from(["none", "password", "oauth"]),
            "verify": st.sampled_from(["none", "connect", "tls", "auth", "recipient"]),
            **dict.fromkeys(["username", "password", "access_token", "ca_file", "from_address"], ANYTHING),
            "test_send": st.fixed_dictionaries({}, optional={"to": st.lists(st.text()), "subject": ANYTHING}),
        },
    )
)
def test_no_options_lead_to_anything_but_a_result(options: dict[str, Any]) -> None:
    result = check_relay(options, FakeHost(), check=False)
    assert result["failed"] is True
    assert result["problems"]
    json.dumps(result).encode()
