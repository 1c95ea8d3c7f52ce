# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from unit.scripted_http import CLIENT, GRANTED, ISSUER, USER, Script, error, id_token, said

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.client import Refused
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.grants.base import Reply
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.http import Answer, NoAnswer
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.person import named

SILENT = Script(NoAnswer("connection_refused", "", False))


def judged(answer: dict[str, Any], script: Script = SILENT, **changes: Any) -> tuple[str, bool]:
    registration = CLIENT._replace(**changes)
    told = {**GRANTED, **answer}
    reply = named(Reply.of(told), told, registration, script.client(registration))
    return reply.user, reply.user_verified


@pytest.mark.parametrize(
    "claims",
    [
        {"email": USER},
        {"preferred_username": USER.upper()},
        {"upn": USER},
        {"unique_name": USER},
        {"sub": USER},
        {"preferred_username": "fleet@contoso.onmicrosoft.example", "email": USER},
        {"email": "alias@example.test", "upn": USER},
        {"aud": ["other", "fleet"], "email": USER},
    ],
)
def test_the_right_person(claims: dict[str, Any]) -> None:
    user, verified = judged({"id_token": id_token(**claims)})
    assert user.lower() == USER
    assert verified


@pytest.mark.parametrize("claim", ["email", "preferred_username", "upn", "unique_name"])
def test_another_person(claim: str) -> None:
    with pytest.raises(Refused) as refused:
        judged({"id_token": id_token(**{claim: "boss@example.test"})})
    assert refused.value.cause.name == "other_person"
    assert "boss@example.test instead of fleet@example.test" in str(refused.value)
    assert refused.value.problems[0].option == "username"


def test_the_person_of_a_shared_mailbox() -> None:
    """Nobody signs in as the mailbox itself."""
    person = "person@example.test"
    assert judged({"id_token": id_token(email=person)}, authorized_user=person) == (person, True)
    assert judged({}, authorized_user=person) == (person, False)
    with pytest.raises(Refused) as refused:
        judged({"id_token": id_token(email=USER)}, authorized_user=person)
    assert "fleet@example.test instead of person@example.test" in str(refused.value)
    assert refused.value.problems[0].option == "authorized_user"


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"id_token": None},
        {"id_token": "nonsense"},
        {"id_token": "a.b.c"},
        {"id_token": "a.!!!.c"},
        {"id_token": "a.WzFd.c"},
        {"id_token": id_token(sub="248289761001")},
        {"id_token": id_token(sub="b0ss@example.test")},
        {"id_token": id_token(preferred_username="fleet")},
        {"id_token": id_token(email=["x@example.test"])},
        {"id_token": id_token(email="boss@example.test", email_verified=False)},
        {"id_token": id_token(aud="another client", email="boss@example.test")},
    ],
)
def test_nobody_is_named(answer: dict[str, Any]) -> None:
    assert judged(answer) == (USER, False)


def test_an_id_token_of_another_authorization_names_nobody() -> None:
    token = id_token(email="boss@example.test", nonce="theirs")
    assert judged({"id_token": token, "nonce": "ours"}) == (USER, False)
    assert judged({"id_token": id_token(email=USER, nonce="ours"), "nonce": "ours"}) == (USER, True)


def test_a_name_that_is_no_mailbox_can_be_the_right_one() -> None:
    assert judged({"id_token": id_token(preferred_username="Fleet")}, username="fleet") == ("Fleet", True)
    assert judged({"id_token": id_token(email="x@example.test")}, username="fleet") == ("fleet", False)


def test_who_it_is_where_nobody_was_asked_for() -> None:
    assert judged({"id_token": id_token(email="x@example.test")}, username="") == ("x@example.test", True)
    assert judged({}, username="") == ("", False)


def test_userinfo_where_there_is_no_id_token() -> None:
    assert judged({}, Script(said(email=USER)), provider="google", authorization_url="", token_url="") == (USER, True)
    with pytest.raises(Refused, match=r"boss@example\.test"):
        judged({}, Script(said(email="boss@example.test")), provider="google", authorization_url="", token_url="")
    assert judged({}, Script(Answer(401, {}, b"")), provider="google", authorization_url="", token_url="") == (
        USER,
        False,
    )


@pytest.mark.parametrize(
    ("answer", "verified"),
    [
        (said(active=True, username=USER), True),
        (said(active=True, sub=USER), True),
        (said(active=False, username="boss@example.test"), False),
        (said(active="true", username=USER), False),
        (error("invalid_client", 401), False),
    ],
)
def test_introspection_where_nothing_else_tells(answer: Answer, verified: bool) -> None:
    assert judged({}, Script(answer), introspection_url=ISSUER + "/introspect") == (USER, verified)


def test_introspection_that_names_another() -> None:
    script = Script(said(active=True, username="boss@example.test"))
    with pytest.raises(Refused, match=r"boss@example\.test"):
        judged({}, script, introspection_url=ISSUER + "/introspect")
