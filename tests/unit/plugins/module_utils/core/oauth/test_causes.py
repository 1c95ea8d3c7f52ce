# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import itertools

import pytest
from lab.microsoft_errors import AADSTS

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.causes import CAUSES, by_age, cause_named
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.refusals import (
    CODES,
    ERRORS,
    SUBERRORS,
    cause_of,
)
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.status import STATUSES

# the rows of the facts that mean: this refresh token is of no use any more
DEAD = {70008: "expired", 700082: "expired", 700084: "expired", 70043: "expired"}
DEAD |= {50173: "revoked", 50132: "revoked", 50133: "revoked", 70000: "revoked"}
# number -> status, for those that leave it alive
ALIVE = dict.fromkeys((50076, 50078, 50079, 53003, 530035, 65001, 90094, 50057, 50053), "blocked")
ALIVE |= dict.fromkeys((7000215, 7000222, 7000218, 700025, 700016, 90002, 50194, 70011, 28002, 900144), "misconfigured")
ALIVE |= dict.fromkeys((50196, 90024, 90033, 50033), "unreachable")


def asked_with(number: int, **changes: str) -> tuple[str, str, list[str], int]:
    row = AADSTS[number]._replace(**changes)
    return row.error, row.suberror, [str(number)], row.status


def test_every_row_of_the_laboratory_is_judged() -> None:
    assert set(AADSTS) == set(DEAD) | set(ALIVE)


@pytest.mark.parametrize("number", AADSTS)
def test_microsofts_numbers(number: int) -> None:
    cause = cause_of(*asked_with(number))
    assert cause.status == {**DEAD, **ALIVE}[number]
    assert cause.definite is (number in DEAD)
    assert cause.next_step


@pytest.mark.parametrize("number", ALIVE)
def test_no_error_word_makes_a_living_token_dead(number: int) -> None:
    for error in ERRORS:
        assert not cause_of(*asked_with(number, error=error)).definite


@pytest.mark.parametrize("number", DEAD)
def test_no_number_alone_makes_a_token_dead(number: int) -> None:
    for error in {*ERRORS, "", "made_up"} - {"invalid_grant", "INVALID_GRANT"}:
        assert not cause_of(*asked_with(number, error=error)).definite


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_nothing_that_a_broken_server_says_makes_a_token_dead(status: int) -> None:
    cause = cause_of("invalid_grant", "bad_token", ["70008"], status)
    assert (cause.status, cause.definite) == ("unreachable", False)


@pytest.mark.parametrize(
    "asked", ["authorization_code", "device_authorization_url", "client_credentials", "revocation", "authorization"]
)
def test_where_no_refresh_token_was_sent_none_is_dead(asked: str) -> None:
    for error, suberror, code in itertools.product(ERRORS, ["", *SUBERRORS], ["", *CODES]):
        assert not cause_of(error, suberror, [code], 400, asked).definite


@pytest.mark.parametrize(
    ("error", "suberror", "codes", "status", "cause"),
    [
        ("invalid_grant", "", [], 400, "invalid_grant"),
        ("invalid_grant", "", ["999999"], 400, "invalid_grant"),
        ("INVALID_GRANT", "", [], 401, "invalid_grant"),
        ("invalid_grant", "token_expired", [], 400, "expired"),
        ("invalid_grant", "bad_token", ["50173"], 400, "revoked"),
        ("invalid_grant", "invalid_rapt", [], 400, "interaction_required"),
        ("invalid_grant", "consent_required", ["70000"], 400, "consent_required"),
        ("interaction_required", "", ["50076"], 400, "interaction_required"),
        ("invalid_client", "", [], 401, "client_refused"),
        ("invalid_client", "", ["7000222"], 401, "client_secret_expired"),
        ("invalid_client", "", ["7000215"], 401, "client_secret_wrong"),
        ("unauthorized_client", "", [], 400, "client_not_allowed"),
        ("temporarily_unavailable", "", [], 503, "temporarily_unavailable"),
        ("server_error", "", [], 400, "temporarily_unavailable"),
        ("rate_limit_exceeded", "", [], 403, "asks_too_often"),
        ("admin_policy_enforced", "", [], 400, "policy"),
        ("made_up", "", [], 400, "refused"),
        ("made_up", "", [], 500, "temporarily_unavailable"),
        ("", "", [], 401, "client_refused"),
        ("", "", [], 404, "no_endpoint"),
        ("", "", [], 302, "redirected"),
        ("", "", [], 429, "asks_too_often"),
        ("", "", [], 502, "temporarily_unavailable"),
        ("", "", [], 418, "not_oauth"),
    ],
)
def test_what_servers_say(error: str, suberror: str, codes: list[str], status: int, cause: str) -> None:
    assert cause_of(error, suberror, codes, status).name == cause


@pytest.mark.parametrize(
    ("asked", "cause"),
    [
        ("authorization_code", "code_refused"),
        ("urn:ietf:params:oauth:grant-type:device_code", "expired_token"),
        ("urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion_refused"),
        ("client_credentials", "client_refused"),
        ("revocation", "refused"),
    ],
)
def test_an_invalid_grant_means_what_was_sent(asked: str, cause: str) -> None:
    assert cause_of("invalid_grant", asked=asked).name == cause


def test_both_words_for_a_person_who_declines() -> None:
    assert cause_of("access_denied") is cause_of("authorization_declined")


def test_the_table_is_whole() -> None:
    for name, cause in CAUSES.items():
        assert cause.name == name
        assert cause.status in STATUSES
        assert cause.summary
        assert cause.next_step
        assert not cause.definite or cause.status in ("expired", "revoked")
        for text in (cause.summary, cause.next_step):
            assert not text.endswith(".")
            assert text.isprintable()
    for table in (ERRORS, SUBERRORS, CODES):
        assert set(table.values()) <= set(CAUSES)


def test_distinguishable() -> None:
    """An operator can tell these apart by the next step alone."""
    numbers = [
        "7000215",
        "7000222",
        "7000218",
        "700025",
        "53003",
        "65001",
        "50173",
        "70008",
        "700084",
        "700016",
        "90002",
    ]
    assert len({CAUSES[CODES[number]].next_step for number in numbers}) == len(numbers)


def test_age_tells_expired_from_revoked() -> None:
    dead = CAUSES["invalid_grant"]
    assert by_age(dead, past_lifetime=True).status == "expired"
    assert by_age(dead, past_lifetime=False) is dead
    assert by_age(CAUSES["revoked"], past_lifetime=True).status == "revoked"


def test_a_cause_of_a_later_release() -> None:
    assert cause_named("something_new").name == "refused"
