# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import re
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.scripted_http import CLIENT, GRANTED, ISSUER, NOW, USER, Script, error, id_token, said

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.client import Refused
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.grants.authorization_code import (
    AuthorizationCode,
    challenge,
    read_answer,
)
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.grants.base import Reply
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.registration import Registration
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.state import Pending

REDIRECT = "http://127.0.0.1:8400/callback"
GOOGLE = Registration(provider="google", client_id="fleet", username=USER)
OAUTH = "/.well-known/oauth-authorization-server"


def begun(registration: Registration = CLIENT, redirect: str = REDIRECT) -> Pending:
    return AuthorizationCode().begin(registration, Script(said()).client(registration), lambda: NOW, redirect)


def query(pending: Pending) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(pending.data["url"]).query).items()}


def back(pending: Pending, *omit: str, place: str = "", **changes: str) -> str:
    values = {"code": "the-c0de", "state": pending.data["state"], **changes}
    return (place or pending.data["redirect_uri"]) + "?" + urlencode({k: v for k, v in values.items() if k not in omit})


def finish(pending: Pending, answer: str, script: Script | None = None, registration: Registration = CLIENT) -> Any:
    client = (script or Script(said(**GRANTED))).client(registration)
    return AuthorizationCode().finish(registration, pending, answer, client, lambda: NOW + 60)


def refusal(
    pending: Pending, answer: str, script: Script | None = None, registration: Registration = CLIENT
) -> Refused:
    with pytest.raises(Refused) as refused:
        finish(pending, answer, script, registration)
    return refused.value


def test_the_address_to_open() -> None:
    pending = begun()
    assert pending.data["url"].startswith(ISSUER + "/auth?")
    asked = query(pending)
    assert asked.pop("state") == pending.data["state"]
    assert asked.pop("code_challenge") == challenge(pending.data["verifier"])
    assert asked == {
        "response_type": "code",
        "client_id": "fleet",
        "redirect_uri": REDIRECT,
        "scope": "smtp offline_access",
        "code_challenge_method": "S256",
        "login_hint": USER,
        "prompt": "consent",
    }
    assert pending.data["verifier"] not in pending.data["url"]


def test_pkce() -> None:
    # RFC 7636 appendix B
    assert challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk") == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    assert re.fullmatch(r"[A-Za-z0-9._~-]{43,128}", begun().data["verifier"])


def test_two_authorizations_share_nothing() -> None:
    one, other = begun().data, begun().data
    assert not {one["state"], one["verifier"]} & {other["state"], other["verifier"]}
    assert len(one["state"]) >= 43


def test_what_a_provider_wants_beside() -> None:
    asked = query(begun(GOOGLE))
    assert (asked["access_type"], asked["prompt"]) == ("offline", "consent")
    assert asked["scope"] == "https://mail.google.com/ openid email"
    assert asked["nonce"]
    zoho = Registration(provider="zoho", client_id="c", scope=("a", "b"))
    assert query(begun(zoho))["scope"] == "a,b"


def test_a_query_of_the_endpoint_stays() -> None:
    pending = begun(CLIENT._replace(authorization_url=ISSUER + "/auth?realm=x%20y"))
    assert pending.data["url"].startswith(ISSUER + "/auth?realm=x%20y&response_type=code&")


def test_the_exchange() -> None:
    pending = begun()
    script = Script(said(**GRANTED))
    reply = finish(pending, back(pending), script)
    assert isinstance(reply, Reply)
    assert script.forms == [
        {
            "grant_type": "authorization_code",
            "code": "the-c0de",
            "redirect_uri": REDIRECT,
            "code_verifier": pending.data["verifier"],
            "client_id": "fleet",
            "client_secret": "cl1ent+s3cret",
        }
    ]


def test_no_answer_yet() -> None:
    pending = begun()
    assert finish(pending, "") is pending
    assert finish(pending, " \n") is pending


def test_an_answer_as_people_paste_it() -> None:
    pending = begun()
    address = back(pending)
    for pasted in (f"  {address}\n", f"'{address}'", f"<{address}>", address.partition("?")[2], address + "#"):
        assert isinstance(finish(pending, pasted), Reply)


@pytest.mark.parametrize(
    ("changes", "cause", "words"),
    [
        ({"state": "another"}, "other_authorization", "its state belongs to another one"),
        ({"state": ""}, "other_authorization", "it has no state"),
        ({"state": "\u00e9"}, "other_authorization", "its state belongs to another one"),
        ({"place": "http://127.0.0.1:9999/callback"}, "other_authorization", "should have ended at"),
        ({"place": "http://127.0.0.1:8400/other"}, "other_authorization", "should have ended at"),
        ({"place": "https://evil.test/callback"}, "other_authorization", "should have ended at"),
        ({"place": "https://127.0.0.1:8400/callback"}, "other_authorization", "should have ended at"),
        ({"place": "http://[::1"}, "other_authorization", "should have ended at"),
        ({"code": ""}, "answer_incomplete", "no code"),
    ],
)
def test_the_address_of_something_else(changes: dict[str, str], cause: str, words: str) -> None:
    pending = begun()
    script = Script(said(**GRANTED))
    found = refusal(pending, back(pending, **changes), script)
    assert (found.cause.name, found.cause.status) == (cause, "pending")
    assert words in str(found)
    assert script.calls == []
    assert "the-c0de" not in str(found)
    assert pending.data["state"] not in str(found)


def test_the_address_of_another_authorization_of_ours() -> None:
    assert refusal(begun(), back(begun())).cause.name == "other_authorization"


def test_a_parameter_that_comes_twice_is_none() -> None:
    pending = begun()
    assert refusal(pending, back(pending) + "&state=" + pending.data["state"]).cause.name == "other_authorization"
    assert refusal(pending, back(pending) + "&code=x").cause.name == "answer_incomplete"


@pytest.mark.parametrize("redirect", [REDIRECT, "urn:ietf:wg:oauth:2.0:oob", "https://mail.example.test/code"])
@pytest.mark.parametrize("code", ["4/0AVG7f-c0de", "M.C5_BAY.2.U.c0de!x*y12603"])
def test_a_code_alone_is_tied_to_its_authorization_by_the_verifier(redirect: str, code: str) -> None:
    pending = begun(redirect=redirect)
    script = Script(said(**GRANTED))
    assert isinstance(finish(pending, code, script), Reply)
    assert script.forms[0]["code"] == code
    assert script.forms[0]["code_verifier"] == pending.data["verifier"]


@pytest.mark.parametrize("text", ["two words", "caf\u00e9", "a\x00b"])
def test_a_text_that_is_no_code(text: str) -> None:
    found = refusal(begun(), text)
    assert found.cause.name == "answer_incomplete"
    assert REDIRECT in str(found)
    assert text not in str(found)


def test_the_slash_that_a_browser_adds() -> None:
    pending = begun(redirect="http://127.0.0.1:8400")
    assert isinstance(finish(pending, back(pending, place="http://127.0.0.1:8400/")), Reply)


@pytest.mark.parametrize(
    ("told", "expected", "fine"),
    [
        (ISSUER, ISSUER, True),
        ("", ISSUER, True),
        ("https://evil.test", ISSUER, False),
        (ISSUER + "/", ISSUER, False),
        ("https://whoever.test", "", True),
    ],
)
def test_who_answers(told: str, expected: str, fine: bool) -> None:
    """RFC 9207 2.4."""
    registration = CLIENT._replace(issuer=expected)
    script = Script(said(**GRANTED), paths={OAUTH: said(issuer=ISSUER)})
    pending = begun()
    answer = back(pending, **({"iss": told} if told else {}))
    if fine:
        assert isinstance(finish(pending, answer, script, registration), Reply)
    else:
        assert refusal(pending, answer, script, registration).cause.name == "issuer_mismatch"
        assert not [call for call in script.calls if call.form]


def test_a_server_that_always_names_itself() -> None:
    described = said(issuer=ISSUER, authorization_response_iss_parameter_supported=True)
    script = Script(said(**GRANTED), paths={OAUTH: described})
    pending = begun()
    found = refusal(pending, back(pending), script, CLIENT._replace(issuer=ISSUER))
    assert found.cause.name == "issuer_mismatch"


@pytest.mark.parametrize(
    ("error_name", "description", "cause"),
    [
        ("access_denied", "", "access_denied"),
        ("access_denied", "AADSTS65004: User declined to consent.", "access_denied"),
        ("consent_required", "AADSTS90094: The grant requires admin permission.", "consent_required"),
        ("login_required", "", "interaction_required"),
        ("invalid_scope", "", "scope_refused"),
        ("unauthorized_client", "", "client_not_allowed"),
        ("server_error", "", "temporarily_unavailable"),
        ("admin_policy_enforced", "", "policy"),
        ("invalid_grant", "", "refused"),
    ],
)
def test_a_no_that_comes_by_the_browser(error_name: str, description: str, cause: str) -> None:
    pending = begun()
    found = refusal(pending, back(pending, "code", error=error_name, error_description=description))
    assert (found.cause.name, found.error, found.description) == (cause, error_name, description)
    assert not found.cause.definite


def test_a_no_with_another_state_is_somebody_elses() -> None:
    found = refusal(begun(), back(begun(), "code", error="access_denied"))
    assert found.cause.name == "other_authorization"


def test_an_address_that_is_a_day_old() -> None:
    pending = begun()._replace(expires_at=NOW + 10)
    assert refusal(pending, back(pending)).cause.name == "expired_token"


def test_a_code_that_the_server_does_not_take() -> None:
    pending = begun()
    found = refusal(pending, back(pending), Script(error("invalid_grant", error_description="code the-c0de is used")))
    assert found.cause.name == "code_refused"
    assert "the-c0de" not in str(found)


def test_the_nonce_ties_the_id_token_to_this_authorization() -> None:
    pending = begun(GOOGLE)
    theirs = id_token(email="boss@example.test", nonce="another")
    ours = id_token(email=USER, nonce=pending.data["nonce"])
    answer = {**GRANTED, "scope": "https://mail.google.com/"}
    script = Script(said(**answer, id_token=ours), paths={"/v1/userinfo": said()})
    assert finish(pending, back(pending), script, GOOGLE).user_verified
    script = Script(said(**answer, id_token=theirs), paths={"/v1/userinfo": said()})
    assert not finish(pending, back(pending), script, GOOGLE).user_verified


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("http://127.0.0.1:1/?code=a&state=b", {"code": "a", "state": "b"}),
        ("?code=a&state=b", {"code": "a", "state": "b"}),
        ("code=a&state=b", {"code": "a", "state": "b"}),
        ("http://127.0.0.1:1/?code=a%2Bb&state=b#frag", {"code": "a+b", "state": "b"}),
        ("http://127.0.0.1:1/", {}),
        ("the-code", None),
        ("4/0AVG7=?x", None),
        ("abc==", None),
    ],
)
def test_how_an_answer_is_read(text: str, values: dict[str, str] | None) -> None:
    found = read_answer(text)
    assert (None if found is None else dict(found.values)) == values


@settings(deadline=None)
@given(st.text())
def test_no_text_breaks_anything(text: str) -> None:
    pending = begun()
    for answer in (text, "http://127.0.0.1:8400/callback?" + text, f"?code=x&state={text}", "http://" + text):
        with contextlib.suppress(Refused):
            assert finish(pending, answer) is pending or read_answer(answer) is None  # which is a code
