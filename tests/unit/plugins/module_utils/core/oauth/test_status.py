# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The contract's ``token``: status by cause, days left, and what to do, from a state alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from unit.token_store import DAY, NAME, NOW, SCOPE, USER

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.causes import CAUSES
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.registration import Registration
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.state import (
    Access,
    HeldGrant,
    Pending,
    SetAside,
    TokenState,
    Trouble,
)
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.status import STATUSES, view
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.redaction import Secret

REGISTRATION = Registration(
    name=NAME, client_id="fleet", token_url="https://a.test/token", scope=SCOPE, username=USER, provider="custom"
)
IDENTITY = REGISTRATION.identity
GRANT = HeldGrant(IDENTITY, "authorization_code", Secret("R" * 40), NOW, USER, True, NOW, scope=SCOPE)
ACCESS = Access(Secret("A" * 40), NOW + 3600, NOW, identity=IDENTITY)
STATE = TokenState(NAME, REGISTRATION, GRANT, ACCESS)
KEYS = {
    *(
        "name",
        "status",
        "cause",
        "authorized_user",
        "authorized_at",
        "refreshed_at",
        "expires_at",
        "refresh_expires_at",
    ),
    *("days_left", "authorized_user_verified", "scope", "missing_scope", "grant", "provider", "error"),
    *("error_description", "next_step"),
}


def seen(state: TokenState, days: float = 0) -> dict[str, Any]:
    """The view, of which everything that is always so was checked."""
    told = view(state, NOW + days * DAY)
    assert set(told) == KEYS
    assert told["status"] in STATUSES
    text = json.dumps(told)
    assert "R" * 40 not in text
    assert "A" * 40 not in text
    if told["status"] != "authorized":
        assert told["cause"]
        assert told["next_step"]
    return told


def test_a_good_token() -> None:
    assert seen(STATE) == {
        "name": NAME,
        "status": "authorized",
        "cause": None,
        "authorized_user": USER,
        "authorized_user_verified": True,
        "authorized_at": "2026-11-24T06:00:00Z",
        "refreshed_at": "2026-11-24T06:00:00Z",
        "expires_at": "2026-11-24T07:00:00Z",
        "refresh_expires_at": "2027-02-22T06:00:00Z",
        "days_left": 90,
        "scope": list(SCOPE),
        "missing_scope": [],
        "grant": "authorization_code",
        "provider": "custom",
        "error": None,
        "error_description": None,
        "next_step": None,
    }


@pytest.mark.parametrize(
    ("days", "status", "left"),
    [(0, "authorized", 90), (75.9, "authorized", 14), (76, "expiring", 14), (89.9, "expiring", 0), (90, "expired", 0)],
)
def test_day_90(days: float, status: str, left: int) -> None:
    told = seen(STATE, days)
    assert (told["status"], told["days_left"]) == (status, left)
    if status != "authorized":
        assert told["cause"] == "unused"
        assert "see that the keeper runs" in told["next_step"]


def test_warn_before_of_the_registration() -> None:
    warned = STATE._replace(registration=REGISTRATION._replace(warn_before=30 * DAY))
    assert seen(warned, 59)["status"] == "authorized"
    assert seen(warned, 61)["status"] == "expiring"


def test_a_short_life_is_not_always_about_to_end() -> None:
    short = STATE._replace(grant=GRANT._replace(refresh_expires_at=NOW + 7 * DAY, refresh_life=7 * DAY))
    assert seen(short)["status"] == "authorized"
    assert seen(short, 3)["status"] == "authorized"
    assert seen(short, 4)["status"] == "expiring"
    assert seen(short, 8)["status"] == "expired"


def test_an_end_that_using_it_does_not_put_off() -> None:
    """The server's figure stays although the token is used every hour: only a person helps."""
    used = GRANT._replace(refreshed_at=NOW + 80 * DAY, refresh_expires_at=NOW + 90 * DAY, refresh_life=90 * DAY)
    told = seen(STATE._replace(grant=used), 80)
    assert (told["status"], told["cause"], told["days_left"]) == ("expiring", "ends", 10)
    assert "this grant ends 2027-02-22T06:00:00Z: authorize again" in told["next_step"]


def test_an_access_token_that_has_expired_is_mentioned() -> None:
    told = seen(STATE, 1)
    assert told["status"] == "authorized"
    assert "access token has expired" in told["next_step"]


@pytest.mark.parametrize("name", [name for name, cause in CAUSES.items() if not cause.definite])
def test_trouble_is_told_by_its_cause(name: str) -> None:
    cause = CAUSES[name]
    trouble = Trouble(name, cause.status, False, "invalid_grant", "AADSTS53003: no.", ("53003",), cause.next_step)
    told = seen(STATE._replace(trouble=trouble))
    assert (told["status"], told["cause"], told["next_step"]) == (cause.status, name, cause.next_step)
    assert (told["error"], told["error_description"]) == ("invalid_grant", "AADSTS53003: no.")


def test_numbers_that_the_words_do_not_have() -> None:
    trouble = Trouble("policy", "blocked", False, "access_denied", "Blocked.", ("53003", "50076"), "ask")
    assert seen(STATE._replace(trouble=trouble))["error_description"] == "Blocked. [53003, 50076]"


def test_a_dead_grant() -> None:
    trouble = Trouble("revoked", "revoked", True, "invalid_grant", "gone", (), CAUSES["revoked"].next_step)
    dead = STATE._replace(grant=None, trouble=trouble, aside=(SetAside(GRANT, "revoked", NOW),))
    told = seen(dead)
    assert (told["status"], told["authorized_user"]) == ("revoked", USER)
    assert told["refresh_expires_at"] is None
    lost = seen(dead._replace(lost_answer_at=NOW))
    assert "a new refresh token was lost" in lost["next_step"]
    assert seen(dead._replace(pending=_pending()))["status"] == "pending"


def _pending(**changes: Any) -> Pending:
    return Pending("device_code", IDENTITY, NOW, NOW + 900, {"device_code": "R" * 40})._replace(**changes)


def test_pending() -> None:
    empty = TokenState(NAME, REGISTRATION)
    told = seen(empty)
    assert (told["status"], told["cause"]) == ("unauthorized", "never_authorized")
    pending = view(empty._replace(pending=_pending()), NOW)
    assert pending["status"] == "pending"
    assert pending["next_step"]
    assert seen(empty._replace(pending=_pending(expires_at=NOW)))["status"] == "unauthorized"
    assert seen(empty._replace(pending=_pending(identity="another")))["status"] == "unauthorized"
    assert seen(STATE._replace(pending=_pending()))["status"] == "authorized"


def test_nothing_is_declared() -> None:
    told = seen(TokenState(NAME))
    assert (told["status"], told["cause"]) == ("unauthorized", "not_declared")
    assert seen(STATE._replace(registration=None))["status"] == "misconfigured"


def test_scope_that_was_not_granted() -> None:
    told = seen(STATE._replace(grant=GRANT._replace(scope=("profile",))))
    assert told["missing_scope"] == ["smtp"]
    assert told["scope"] == ["profile"]
    assert (told["status"], told["cause"]) == ("unauthorized", "scope_missing")


def test_another_person() -> None:
    told = seen(STATE._replace(grant=GRANT._replace(user="other@example.test")))
    assert (told["status"], told["cause"]) == ("unauthorized", "other_person")
    assert seen(STATE._replace(grant=GRANT._replace(user=USER.upper())))["status"] == "authorized"
    unverified = GRANT._replace(user="other@example.test", user_verified=False)
    assert seen(STATE._replace(grant=unverified))["status"] == "authorized"


def test_the_person_of_a_shared_mailbox() -> None:
    assert STATE.registration
    registration = STATE.registration._replace(authorized_user="person@example.test")
    grant = GRANT._replace(user="Person@example.test")
    assert seen(STATE._replace(registration=registration, grant=grant))["status"] == "authorized"
    assert seen(STATE._replace(registration=registration))["cause"] == "other_person"
    # a grant without a person has none to check
    alone = registration._replace(grant="client_credentials")
    assert alone.expected_user == alone.username == USER


def test_without_a_refresh_token() -> None:
    told = seen(STATE._replace(grant=GRANT._replace(refresh_token=None)))
    assert (told["status"], told["cause"], told["days_left"]) == ("expiring", "no_refresh_token", None)
    assert seen(STATE._replace(grant=GRANT._replace(refresh_token=None)), 1)["status"] == "expired"


@pytest.mark.parametrize(("off", "words"), [(120, "120 s ahead of"), (-7200, "7200 s behind")])
def test_a_wrong_clock(off: int, words: str) -> None:
    told = seen(STATE._replace(clock_off=off))
    assert (told["status"], told["cause"]) == ("authorized", "clock")
    assert words in told["next_step"]
