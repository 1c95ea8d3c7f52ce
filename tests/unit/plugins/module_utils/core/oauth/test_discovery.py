# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from unit.scripted_http import CLIENT, ISSUER, TOKENS, Script, said

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth import discovery
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.client import Refused
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.http import Answer, NoAnswer
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.registration import Registration

OAUTH, OPENID = "/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"
DESCRIBED = {"issuer": ISSUER, "token_endpoint": ISSUER + "/t", "authorization_endpoint": ISSUER + "/a"}
MISSING = Answer(404, {}, b"")
DISCOVERED = Registration(client_id="fleet", issuer=ISSUER, username="fleet@example.test")


@pytest.mark.parametrize(
    ("issuer", "places"),
    [
        ("https://a.test", ("https://a.test" + OAUTH, "https://a.test" + OPENID)),
        ("https://a.test/", ("https://a.test" + OAUTH, "https://a.test" + OPENID)),
        ("https://a.test:8/r/x", (f"https://a.test:8{OAUTH}/r/x", f"https://a.test:8/r/x{OPENID}")),
    ],
)
def test_where_a_description_may_be(issuer: str, places: tuple[str, str]) -> None:
    assert tuple(discovery.places(issuer)) == places


def test_endpoints_come_from_the_description_unless_they_are_given() -> None:
    script = Script(paths={OAUTH: said(**DESCRIBED)})
    client = script.client(DISCOVERED._replace(token_url="https://given.test/token"))
    assert client.endpoint("authorization_url") == ISSUER + "/a"
    assert client.endpoint("token_url") == "https://given.test/token"
    assert len(script.calls) == 1


def test_openid_where_that_is_all_there_is() -> None:
    script = Script(paths={OAUTH: MISSING, OPENID: said(**DESCRIBED)})
    assert script.client(DISCOVERED).endpoint("token_url") == ISSUER + "/t"


@pytest.mark.parametrize(
    ("paths", "cause"),
    [
        ({OAUTH: said(**{**DESCRIBED, "issuer": "https://evil.test"})}, "issuer_mismatch"),
        ({OAUTH: said(**{**DESCRIBED, "issuer": ISSUER + "/"})}, "issuer_mismatch"),
        ({OAUTH: said(token_endpoint=ISSUER + "/t")}, "issuer_mismatch"),
        ({OAUTH: MISSING, OPENID: MISSING}, "metadata"),
        ({OAUTH: Answer(200, {}, b"<html>"), OPENID: MISSING}, "metadata"),
        ({OAUTH: Answer(302, {"location": "https://evil.test"}, b""), OPENID: MISSING}, "metadata"),
        ({OAUTH: said(issuer=ISSUER)}, "metadata"),
        ({OAUTH: said(issuer=ISSUER, token_endpoint=7)}, "metadata"),
        ({OAUTH: said(issuer=ISSUER, token_endpoint="http://login.example.test/t")}, "metadata"),
        ({OAUTH: Answer(503, {}, b"")}, "temporarily_unavailable"),
    ],
)
def test_a_description_that_cannot_be_believed(paths: dict[str, Answer], cause: str) -> None:
    with pytest.raises(Refused) as refused:
        Script(paths=paths).client(DISCOVERED).endpoint("token_url")
    assert refused.value.cause.name == cause
    assert not refused.value.cause.definite


def test_a_server_that_is_silent_about_itself_is_not_asked_again_and_again() -> None:
    script = Script(NoAnswer("connection_refused", "Connection refused", False))
    client = script.client(DISCOVERED)
    for _each in range(3):
        with pytest.raises(Refused, match="nothing listens"):
            client.metadata()
    assert len(script.calls) == 3


def test_details_do_not_stop_a_request_whose_url_is_given() -> None:
    given = CLIENT._replace(issuer=ISSUER)
    script = Script(paths={OAUTH: MISSING, OPENID: MISSING, "/token": said(**TOKENS)})
    assert script.client(given).ask({"grant_type": "client_credentials"})["access_token"]


@pytest.mark.parametrize(
    ("methods", "basic"),
    [
        (["client_secret_basic"], True),
        (["client_secret_basic", "client_secret_post"], False),
        (["client_secret_post"], False),
        (None, True),
        (["private_key_jwt"], False),
    ],
)
def test_the_server_says_how_it_wants_the_secret(methods: list[str] | None, basic: bool) -> None:
    described: dict[str, Any] = {**DESCRIBED, "token_endpoint_auth_methods_supported": methods}
    script = Script(paths={OAUTH: said(**described), "/token": said(**TOKENS)})
    script.client(CLIENT._replace(issuer=ISSUER)).ask({"grant_type": "client_credentials"})
    call = script.calls[-1]
    assert ("Authorization" in call.headers) is basic
    assert ("client_secret" in (call.form or {})) is not basic
