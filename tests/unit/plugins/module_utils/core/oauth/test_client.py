# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest
from unit.scripted_http import CLIENT, ISSUER, NOW, TOKENS, Script, error, said

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.client import Refused, TokenClient
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.http import Answer, NoAnswer
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.registration import Registration
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.redaction import Secret

REFRESH = {"grant_type": "refresh_token", "refresh_token": "r3fresh-t0ken"}
DOWN = NoAnswer("connection_refused", "Connection refused", False)
HTML = Answer(502, {"content-type": "text/html"}, b"<html>Bad Gateway</html>")


def refusal(script: Script, form: dict[str, str] | None = None, **changes: Any) -> Refused:
    with pytest.raises(Refused) as refused:
        script.client(CLIENT._replace(**changes)).ask(form or REFRESH)
    return refused.value


def test_the_form_as_it_is_sent() -> None:
    script = Script(said(**TOKENS))
    assert script.client().ask(REFRESH)["access_token"] == "the-access-token"
    assert script.calls[0].url == ISSUER + "/token"
    assert script.forms == [{**REFRESH, "client_id": "fleet", "client_secret": "cl1ent+s3cret"}]


def test_a_public_client_names_itself() -> None:
    script = Script(said(**TOKENS))
    script.client(CLIENT._replace(client_secret=None)).ask(REFRESH)
    assert script.forms == [{**REFRESH, "client_id": "fleet"}]


def test_basic_where_the_server_wants_that_and_stays_so() -> None:
    wants = Answer(401, {"www-authenticate": 'Basic realm="x"'}, json.dumps({"error": "invalid_client"}).encode())
    script = Script(wants, said(**TOKENS))
    client = script.client(CLIENT._replace(client_id="a b:c", client_secret=Secret("s+%&: \u00e9")))
    client.ask(REFRESH)
    client.ask(REFRESH)
    headers = [call.headers.get("Authorization", "") for call in script.calls]
    # RFC 6749 2.3.1: each part form-encoded before they are joined
    wanted = "Basic " + base64.b64encode(b"a+b%3Ac:s%2B%25%26%3A+%C3%A9").decode()
    assert headers == ["", wanted, wanted]
    assert all("client_secret" not in form for form in script.forms[1:])


@pytest.mark.parametrize(
    ("answer", "cause", "definite"),
    [
        (error("invalid_grant"), "invalid_grant", True),
        (error("invalid_client", 401), "client_refused", False),
        (error("made_up"), "refused", False),
        (said(200, None, error="invalid_code"), "code_refused", False),
        (said(200, None, error="invalid_grant"), "invalid_grant", True),
        (HTML, "temporarily_unavailable", False),
        (error("invalid_grant", 503), "temporarily_unavailable", False),
        (Answer(404, {}, b"Not Found"), "no_endpoint", False),
        (Answer(302, {"location": "https://evil.test/token?code=1"}, b""), "redirected", False),
        (Answer(307, {"location": "/elsewhere"}, b""), "redirected", False),
        (Answer(429, {}, b""), "asks_too_often", False),
        (Answer(401, {}, b""), "client_refused", False),
        (Answer(418, {}, b""), "not_oauth", False),
        (Answer(200, {}, b""), "not_oauth", False),
        (Answer(200, {}, b"<html>Welcome to the hotel</html>"), "not_oauth", False),
        (Answer(200, {}, b"[]"), "not_oauth", False),
        (Answer(200, {}, b'{"access_token": "x", "expi'), "not_oauth", False),
        (said(token_type="Bearer"), "not_oauth", False),
        (said(access_token="", token_type="Bearer"), "not_oauth", False),
        (said(access_token="a\r\nb", token_type="Bearer"), "not_oauth", False),
        (said(access_token="x", token_type="mac"), "token_type", False),
        (said(access_token="x", token_type=7), "token_type", False),
    ],
)
def test_refusals(answer: Answer, cause: str, definite: bool) -> None:
    found = refusal(Script(answer))
    assert (found.cause.name, found.cause.definite) == (cause, definite)
    assert found.http_status == answer.status
    assert found.problems[0].option == "token_url"
    assert found.problems[0].hint == found.cause.next_step
    assert "code=1" not in str(found)


@pytest.mark.parametrize("kind", ["bearer", "Bearer", "BEARER", None])
def test_token_types_that_are_fine(kind: str | None) -> None:
    fields = {key: value for key, value in {**TOKENS, "token_type": kind}.items() if value}
    assert Script(said(**fields)).client().ask(REFRESH)


def test_what_the_server_repeats_of_ours_is_masked() -> None:
    secrets = ["cl1ent+s3cret", "cl1ent%2Bs3cret", "r3fresh-t0ken", base64.b64encode(b"r3fresh-t0ken").decode()]
    found = refusal(Script(error("invalid_grant", error_description="bad: " + " ".join(secrets), suberror=secrets[2])))
    told = " ".join((str(found), found.description, found.suberror, json.dumps(found.problems[0].as_dict())))
    assert not [secret for secret in secrets if secret in told]
    assert "bad:" in found.description


def test_tokens_in_an_answer_that_is_refused_are_masked() -> None:
    found = refusal(Script(said(400, access_token="gotcha-1", error="x", error_description="gotcha-1 is no good")))
    assert "gotcha-1" not in str(found)


def test_the_servers_words_are_one_short_line() -> None:
    found = refusal(Script(error("invalid_grant", error_description="a\n" * 1000)))
    assert "\n" not in found.description
    assert len(found.description) < 310


@pytest.mark.parametrize(
    ("answers", "pauses", "calls"),
    [
        ([DOWN, said(**TOKENS)], [1], 2),
        ([DOWN, DOWN, said(**TOKENS)], [1, 3], 3),
        ([NoAnswer("timeout", "no connection", False), said(**TOKENS)], [1], 2),
        ([Answer(429, {"retry-after": "2"}, b""), said(**TOKENS)], [2], 2),
        ([Answer(503, {"retry-after": "0"}, b""), said(**TOKENS)], [1], 2),
        ([Answer(503, {"retry-after": formatdate(NOW + 4, usegmt=True)}, b""), said(**TOKENS)], [4], 2),
    ],
)
def test_tried_again_where_nothing_can_have_been_done(answers: list[Any], pauses: list[int], calls: int) -> None:
    script = Script(*answers)
    script.client().ask(REFRESH)
    assert script.pauses == pauses
    assert len(script.calls) == calls


@pytest.mark.parametrize(
    ("answer", "cause", "sent", "calls"),
    [
        (DOWN, "connection_refused", False, 3),
        (NoAnswer("timeout", "no answer", True), "timeout", True, 1),
        (NoAnswer("closed", "Connection reset by peer", True), "closed", True, 1),
        (NoAnswer("certificate_expired", "certificate has expired", False), "certificate_expired", False, 1),
        (NoAnswer("proxy", "Forbidden", False), "proxy", False, 1),
        (NoAnswer("ca_file", "it is not there", False), "ca_file", False, 1),
        (NoAnswer("too_large", "more", True), "too_large", True, 1),
    ],
)
def test_no_answer(answer: NoAnswer, cause: str, sent: bool, calls: int) -> None:
    script = Script(answer)
    found = refusal(script)
    assert (found.cause.name, found.sent, found.http_status) == (cause, sent, 0)
    assert len(script.calls) == calls
    assert not found.cause.definite
    assert found.problems[0].option == {"ca_file": "ca_file", "proxy": "proxy"}.get(cause, "token_url")


@pytest.mark.parametrize("answer", [HTML, Answer(503, {}, b""), error("temporarily_unavailable", 503)])
def test_a_server_that_does_not_say_when_is_left_alone(answer: Answer) -> None:
    script = Script(answer)
    assert refusal(script).cause.status == "unreachable"
    assert len(script.calls) == 1


def test_a_long_wait_is_the_keepers() -> None:
    script = Script(Answer(429, {"retry-after": "120"}, b""))
    assert refusal(script).retry_after == 120
    assert script.pauses == []


def test_patience_has_an_end() -> None:
    script = Script(Answer(503, {"retry-after": "2"}, b""))
    assert refusal(script).retry_after == 2
    assert script.pauses == [2, 2]


def test_requests_that_is_not_there_names_its_package() -> None:
    found = refusal(Script(NoAnswer("library_missing", "requests: the package python3-requests", False)))
    assert found.cause.status == "misconfigured"
    assert "python3-requests" in found.cause.next_step
    assert not found.sent


def test_a_proxys_password_is_never_told() -> None:
    missed = NoAnswer("proxy", "user:pr0xy%21pw is not welcome, nor pr0xy!pw", False)
    found = refusal(Script(missed), proxy="http://user:pr0xy%21pw@proxy.example.test:3128")
    assert "pr0xy" not in str(found)


@pytest.mark.parametrize(("off", "told"), [(0, 0), (600, 600), (-172800, -172800)])
def test_the_clock(off: int, told: int) -> None:
    client = Script(said(200, {"date": formatdate(NOW - off, usegmt=True)}, **TOKENS)).client()
    assert client.clock_off is None
    client.ask(REFRESH)
    assert client.clock_off == told


@pytest.mark.parametrize("date", ["", "yesterday", "Tue, 99 Nov 2026 99:99:99 GMT"])
def test_a_date_that_is_none(date: str) -> None:
    client = Script(said(200, {"date": date}, **TOKENS)).client()
    client.ask(REFRESH)
    assert client.clock_off is None


def test_an_assertion_that_came_at_the_wrong_time() -> None:
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": "x"}
    late = Answer(400, {"date": formatdate(NOW - 600, usegmt=True)}, b'{"error": "invalid_grant"}')
    found = refusal(Script(late), form)
    assert found.cause.name == "clock"
    assert "600 s ahead" in str(found)
    assert refusal(Script(error("invalid_grant")), form).cause.name == "assertion_refused"


def test_an_endpoint_that_nobody_told() -> None:
    with pytest.raises(Refused) as refused:
        Script(said(**TOKENS)).client(CLIENT._replace(token_url="")).ask(REFRESH)
    assert refused.value.cause.name == "no_endpoint"
    assert not refused.value.sent


# -- revocation, introspection, userinfo


def with_urls(script: Script) -> TokenClient:
    return script.client(CLIENT._replace(revocation_url=ISSUER + "/revoke", introspection_url=ISSUER + "/introspect"))


@pytest.mark.parametrize(
    ("answer", "done"),
    [
        (Answer(200, {}, b""), True),
        (said(), True),
        (error("invalid_token"), True),
        (error("unsupported_token_type"), False),
    ],
)
def test_revocation(answer: Answer, done: bool) -> None:
    script = Script(answer)
    assert with_urls(script).revoke("r3fresh", "refresh_token") is done
    assert script.forms[0]["token"] == "r3fresh"
    assert script.forms[0]["token_type_hint"] == "refresh_token"
    assert script.forms[0]["client_id"] == "fleet"


@pytest.mark.parametrize(
    ("answer", "cause"),
    [(HTML, "temporarily_unavailable"), (error("invalid_client", 401), "client_refused"), (DOWN, "connection_refused")],
)
def test_revocation_that_was_not_done(answer: Any, cause: str) -> None:
    with pytest.raises(Refused) as refused:
        with_urls(Script(answer)).revoke("r3fresh", "refresh_token")
    assert refused.value.cause.name == cause


def test_what_the_server_does_not_offer_is_not_asked() -> None:
    script = Script(HTML)
    client = script.client()
    assert client.revoke("x", "refresh_token") is False
    assert client.introspect("x") is None
    assert client.userinfo("x") is None
    assert script.calls == []


def test_introspection() -> None:
    assert with_urls(Script(said(active=True, username="x"))).introspect("t") == {"active": True, "username": "x"}
    with pytest.raises(Refused):
        with_urls(Script(error("invalid_client", 401))).introspect("t")


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (said(email="x@example.test"), {"email": "x@example.test"}),
        (Answer(401, {}, b""), None),
        (Answer(200, {}, b"eyJ.signed.jwt"), None),
        (DOWN, None),
    ],
)
def test_userinfo(answer: Any, found: dict[str, str] | None) -> None:
    script = Script(answer)
    google = Registration(provider="google", client_id="fleet")
    assert script.client(google).userinfo("the-token") == found
    assert script.calls[0].headers == {"Authorization": "Bearer the-token"}
    assert script.calls[0].form is None


@pytest.mark.parametrize("what", [repr, str])
def test_the_client_shows_no_secret(what: Callable[[object], str]) -> None:
    assert "cl1ent" not in what(Script(said(**TOKENS)).client().registration)


def test_a_token_of_another_server_is_never_shown_to_the_provider() -> None:
    script = Script(said(email="x@example.test"))
    assert script.client(CLIENT._replace(provider="google")).userinfo("the-token") is None
    assert script.calls == []
    assert script.client(CLIENT._replace(provider="google")).issuer == ""
