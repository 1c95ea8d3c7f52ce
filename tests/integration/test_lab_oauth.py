# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The laboratory's OAuth servers, relays and browser, judged by requests, curl, smtplib and the servers themselves."""

from __future__ import annotations

import base64
import hashlib
import json
import smtplib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote_plus, urlencode, urlsplit

import pytest
import requests
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from lab import browser, layers, oauth_server
from lab.authority import Authority
from lab.browser import Browser
from lab.error_replies import (
    BAD_CERTIFICATES,
    NONSENSE,
    ODD,
    TRANSIENT,
    amended,
    back_with,
    bad_certificate,
    deed,
    html,
    late,
    oauth_error,
    redirect,
    retry_after,
    truncated,
)
from lab.error_server import DEEDS, ErrorServer
from lab.http_proxy import Proxy
from lab.microsoft_errors import AADSTS, aadsts
from lab.network import AUTH_ADDRESS, AUTH_NAME, Network
from lab.oauth_server import (
    DEVICE,
    GOOGLE_SCOPE,
    JWT_BEARER,
    MICROSOFT_APP_SCOPE,
    MICROSOFT_SCOPE,
    Client,
    OAuthServer,
    fingerprint,
)
from lab.relay import Listener, Relay
from lab.relay_oauth import OAUTH_RELAY_NAME, OAuthRelay
from lab.tree import RELAY_ADDRESS, Tree
from lab.visitor import Refused

USER, OTHER = "fleet@example.test", "other@example.test"
OFFLINE = f"{MICROSOFT_SCOPE} offline_access"
BACK = "http://127.0.0.1:12345/callback"

needs_server = pytest.mark.skipif(bool(oauth_server.why_unavailable()), reason=oauth_server.why_unavailable())
needs_browser = pytest.mark.skipif(bool(browser.why_unavailable()), reason=browser.why_unavailable())
needs_trees = pytest.mark.skipif(bool(layers.why_unavailable()), reason=layers.why_unavailable())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def running() -> Iterator[OAuthServer]:
    with OAuthServer() as server:
        yield server


@pytest.fixture
def server(running: OAuthServer) -> Iterator[OAuthServer]:
    """The one server of these tests, as if it were new."""
    running.forget()
    yield running
    running.up()
    running.change(**vars(oauth_server.Settings()))


def authorization(server: OAuthServer, client: Client, scope: str = OFFLINE, **more: str) -> str:
    asked = {"response_type": "code", "client_id": client.client_id, "redirect_uri": BACK, "scope": scope}
    return f"{server.authorization_url}?{urlencode(asked | more)}"


def jwt(key: str, **claims: Any) -> str:
    """RFC 7515 with RS256."""
    parts = [json.dumps(part).encode() for part in ({"alg": "RS256", "typ": "JWT"}, claims)]
    text = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
    private: Any = serialization.load_pem_private_key(key.encode(), None)
    signature = private.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


# -- the authorization server


@needs_server
def test_discovery_tells_what_it_can(server: OAuthServer) -> None:
    told = requests.get(f"{server.issuer}/.well-known/oauth-authorization-server", timeout=5).json()
    assert told["issuer"] == server.issuer
    assert told["token_endpoint"] == server.token_url
    assert told["device_authorization_endpoint"] == server.device_authorization_url
    assert told["revocation_endpoint"] == server.revocation_url
    assert told["introspection_endpoint"] == server.introspection_url
    assert told["authorization_endpoint"] == server.authorization_url
    assert {JWT_BEARER, DEVICE, "client_credentials"} <= set(told["grant_types_supported"])


@needs_server
def test_a_code_is_for_who_can_prove_it(server: OAuthServer) -> None:
    challenge = base64.urlsafe_b64encode(hashlib.sha256(b"v" * 43).digest()).rstrip(b"=").decode()
    pkce = {"code_challenge": challenge, "code_challenge_method": "S256"}
    back = server.authorize(authorization(server, server.public, state="st", **pkce), USER)
    assert back.startswith(f"{BACK}?")
    query = parse_qs(urlsplit(back).query)
    assert (query["state"], query["iss"]) == (["st"], [server.issuer])
    form = {"grant_type": "authorization_code", "code": query["code"][0], "redirect_uri": BACK}
    assert server.token(server.public, **form, code_verifier="w" * 43)["error"] == "invalid_grant"
    answer = server.token(server.public, **form, code_verifier="v" * 43)
    assert answer["scope"].split() == OFFLINE.split()
    assert server.look(answer["access_token"])["user"] == USER
    tried = server.exchanges("token")
    assert [exchange.status for exchange in tried] == [400, 200]
    assert tried[1].fields["code_verifier"] == fingerprint("v" * 43)
    assert tried[1].answer["refresh_token"] == fingerprint(answer["refresh_token"])
    without_pkce = parse_qs(urlsplit(server.authorize(authorization(server, server.public), USER)).query)
    assert without_pkce["error"] == ["invalid_request"]


@needs_server
def test_a_person_can_refuse_mistype_and_leave_out(server: OAuthServer) -> None:
    back = server.authorize(authorization(server, server.confidential), USER, allow=False)
    assert parse_qs(urlsplit(back).query)["error"] == ["access_denied"]
    wanted = f"{GOOGLE_SCOPE} email openid"
    back = server.authorize(
        authorization(server, server.confidential, wanted, access_type="offline", prompt="consent"),
        USER,
        scopes=["email", "openid"],
    )
    form = {"grant_type": "authorization_code", "code": parse_qs(urlsplit(back).query)["code"][0], "redirect_uri": BACK}
    answer = server.token(server.confidential, **form)
    assert set(answer["scope"].split()) == {"email", "openid"}
    assert "refresh_token" in answer, "access_type=offline"
    claims = json.loads(base64.urlsafe_b64decode(answer["id_token"].split(".")[1] + "=="))
    assert claims["email"] == USER
    mistyping = server.visitor(USER)
    mistyping._password = "wrong"
    with pytest.raises(Refused, match="User name or password is wrong"):
        mistyping.authorize(authorization(server, server.confidential))
    with pytest.raises(Refused, match="redirect_uri"):
        server.authorize(authorization(server, server.confidential).replace("callback", "elsewhere"), USER)


@needs_server
def test_refresh_tokens_rotate_and_reuse_ends_the_grant(server: OAuthServer) -> None:
    first = server.grant_for(USER, OFFLINE)
    again = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
    second = server.token(server.public, **again)
    assert second["refresh_token"] != first["refresh_token"]
    assert server.look(first["refresh_token"])["consumed"]
    assert server.token(server.public, **again)["error"] == "invalid_grant"
    assert server.look(second["refresh_token"]) is None
    assert server.look(second["access_token"]) is None
    assert [exchange.detail for exchange in server.refreshes()] == [None, "refresh token already used"]
    server.change(reuse_detection=False)
    first = server.grant_for(USER, OFFLINE)
    again["refresh_token"] = first["refresh_token"]
    answers = [server.token(server.public, **again)["refresh_token"] for _rest in range(2)]
    assert len({first["refresh_token"], *answers}) == 3
    server.change(rotate=False)
    assert server.token(server.public, **again)["refresh_token"] == first["refresh_token"]


@needs_server
def test_of_two_uses_at_once_one_is_the_second(server: OAuthServer) -> None:
    server.change(delay_ms=100)
    again = {"grant_type": "refresh_token", "refresh_token": server.grant_for(USER, OFFLINE)["refresh_token"]}
    with ThreadPoolExecutor(8) as many:
        answers = list(many.map(lambda _number: server.token(server.public, **again), range(8)))
    assert sum("access_token" in answer for answer in answers) == 1
    assert len(server.refreshes()) == 8
    assert max(exchange.time for exchange in server.refreshes()) < min(e.answered for e in server.refreshes())


@needs_server
def test_lives_end_by_themselves_by_order_and_with_the_clock() -> None:
    with OAuthServer(access_token_seconds=77, refresh_token_seconds=86400) as server:
        lives_end(server)


def lives_end(server: OAuthServer) -> None:
    server.change(token_omit=["scope"], token_extra={"x": 1})
    answer = server.grant_for(USER, OFFLINE)
    assert (answer["expires_in"], answer["x"], "scope" in answer) == (77, 1, False)
    assert server.expire("access_token", value=answer["access_token"]) == 1
    assert server.look(answer["access_token"])["expired"]
    assert server.look(answer["refresh_token"])["usable"]
    server.pass_time(days=1.01)
    form = {"grant_type": "refresh_token", "refresh_token": answer["refresh_token"]}
    assert server.token(server.public, **form)["error"] == "invalid_grant"
    assert server.refreshes()[-1].detail == "refresh token is expired"
    answer = server.grant_for(OTHER, OFFLINE)
    assert server.revoke(user=USER) >= 1
    assert server.look(answer["refresh_token"])["usable"]
    assert server.revoke(user=OTHER) == 1
    assert server.look(answer["refresh_token"]) is None


@needs_server
def test_slow_down_and_out(server: OAuthServer) -> None:
    granted = server.grant_for(USER, OFFLINE)
    form = {"grant_type": "refresh_token", "refresh_token": granted["refresh_token"], "client_id": "fleet-public"}
    server.change(delay_ms=400)
    with pytest.raises(requests.Timeout):
        requests.post(server.token_url, data=form, timeout=0.2)
    (hasty,) = server.refreshes()
    assert hasty.status == 0, "seen, but not yet answered"
    server.wait_for(lambda: server.refreshes()[0].status == 200)
    assert server.look(granted["refresh_token"])["consumed"], "a client that went away has spent it all the same"
    server.change(delay_ms=0)
    server.down()
    down = requests.post(server.token_url, data=form, timeout=5)
    assert (down.status_code, down.headers["Content-Type"]) == (503, "text/html; charset=utf-8")
    server.refuse_connections()
    with pytest.raises(requests.ConnectionError):
        requests.post(server.token_url, data=form, timeout=5)
    server.up()
    assert requests.post(server.token_url, data=form, timeout=5).json()["error"] == "invalid_grant"


@needs_server
def test_devices(server: OAuthServer) -> None:
    server.change(device_interval=2)
    client = server.device

    def begin() -> dict[str, Any]:
        return server.post(server.device_authorization_url, {"client_id": client.client_id, "scope": OFFLINE})

    def poll(begun: dict[str, Any]) -> dict[str, Any]:
        return server.token(client, grant_type=DEVICE, device_code=begun["device_code"])

    begun = begin()
    assert (begun["interval"], begun["expires_in"]) == (2, 900)
    assert poll(begun)["error"] == "authorization_pending"
    assert poll(begun)["error"] == "slow_down"
    server.change(device_interval=0)
    assert "may go on" in server.approve_device(begun["user_code"], USER)
    assert server.look(poll(begun)["refresh_token"])["user"] == USER
    begun = begin()
    assert "refused" in server.deny_device(begun["user_code"], USER)
    assert poll(begun)["error"] == "access_denied"
    begun = begin()
    server.expire("device_code", value=begun["device_code"])
    assert poll(begun)["error"] == "expired_token"
    with pytest.raises(Refused, match="not known"):
        server.approve_device("XXXX-XXXX", USER)


@needs_server
def test_clients_without_a_person(server: OAuthServer) -> None:
    own = {"grant_type": "client_credentials", "scope": MICROSOFT_APP_SCOPE}
    token = server.token(server.service, **own)["access_token"]
    assert server.post(server.introspection_url, {"token": token, **relay_secret(server)})["username"] == USER
    basic = tuple(urlencode({"": part})[1:] for part in (server.service.client_id, server.service.client_secret))
    assert requests.post(server.token_url, data=own, auth=basic, timeout=5).status_code == 200  # type: ignore[arg-type]
    wrong = server.token(server.service._replace(client_secret="wrong"), **own)
    assert wrong["error"] == "invalid_client"
    raw = urlencode(own | {"client_id": server.service.client_id}) + f"&client_secret={server.service.client_secret}"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert requests.post(server.token_url, data=raw, headers=form, timeout=5).json()["error"] == "invalid_client"

    name, now = server.signing.client_id, int(time.time())
    claims = {"iss": name, "sub": name, "aud": server.token_url, "jti": "once", "iat": now, "exp": now + 60}
    kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    signed = own | {"client_assertion_type": kind, "client_assertion": jwt(server.signing.key, **claims)}
    assert server.post(server.token_url, signed)["token_type"] == "Bearer"
    assert server.post(server.token_url, signed)["error"] == "invalid_client", "an assertion is good once"
    signed["client_assertion"] = jwt(server.service_account.key, **claims | {"jti": "two"})
    assert server.post(server.token_url, signed)["error"] == "invalid_client"
    used = [exchange.authentication for exchange in server.exchanges("token")]
    assert used == ["client_secret_post", "client_secret_basic", *["client_secret_post"] * 2, *["private_key_jwt"] * 3]


def relay_secret(server: OAuthServer) -> dict[str, str]:
    return {"client_id": server.relay.client_id, "client_secret": server.relay.client_secret}


@needs_server
@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({}, None),
        ({"aud": "issuer"}, None),
        ({"aud": "https://elsewhere.example.test/token"}, "invalid_grant"),
        ({"sub": "nobody@example.test"}, "invalid_grant"),
        ({"iss": "stranger@project.example.test"}, "invalid_client"),
        ({"scope": f"{GOOGLE_SCOPE} https://elsewhere.example.test/"}, "unauthorized_client"),
        ({"scope": ""}, "invalid_scope"),
        ({"exp": -10}, "invalid_grant"),
        ({"exp": 7200}, "invalid_grant"),
        ({"iat": 600, "exp": 900}, "invalid_grant"),
        ({"key": "signing"}, "invalid_grant"),
    ],
)
def test_service_accounts(server: OAuthServer, change: dict[str, Any], error: str | None) -> None:
    account, now = server.service_account, int(time.time())
    claims: dict[str, Any] = {"iss": account.client_id, "sub": USER, "aud": server.token_url, "scope": GOOGLE_SCOPE}
    claims |= {"iat": 0, "exp": 3600}
    claims |= {key: value for key, value in change.items() if key != "key"}
    claims |= {"iat": now + claims["iat"], "exp": now + claims["exp"]}
    claims["aud"] = server.issuer if claims["aud"] == "issuer" else claims["aud"]
    key = server.signing.key if "key" in change else account.key
    answer = server.post(server.token_url, {"grant_type": JWT_BEARER, "assertion": jwt(key, **claims)})
    assert answer.get("error") == error
    if not error:
        assert server.look(answer["access_token"])["user"] == USER
        seen = server.post(server.introspection_url, {"token": answer["access_token"], **relay_secret(server)})
        assert (seen["active"], seen["username"], seen["scope"]) == (True, USER, GOOGLE_SCOPE)


@needs_server
def test_revocation_and_introspection(server: OAuthServer) -> None:
    granted = server.grant_for(USER, OFFLINE, server.confidential)
    secret = {"client_id": server.confidential.client_id, "client_secret": server.confidential.client_secret}
    question = {"token": granted["access_token"], **relay_secret(server)}
    assert server.post(server.introspection_url, question)["username"] == USER
    revoked = requests.post(server.revocation_url, {"token": granted["refresh_token"], **secret}, timeout=5)
    assert revoked.status_code == 200
    assert server.look(granted["refresh_token"]) is None
    assert server.post(server.introspection_url, question) == {"active": False}
    assert server.exchanges("revocation")[0].fields["token"] == fingerprint(granted["refresh_token"])


@needs_server
def test_long_tokens(server: OAuthServer) -> None:
    server.change(access_token_length=3000)
    assert len(server.grant_for(USER, OFFLINE)["access_token"]) == 3000


@needs_server
def test_nothing_is_left_and_nothing_is_told(tmp_path: Path) -> None:
    server = OAuthServer()
    with server:
        granted = server.grant_for(USER, OFFLINE, server.confidential)
        journal = server._journal.path
        assert journal.stat().st_mode & 0o777 == 0o600
        for secret in (*granted.values(), server.confidential.client_secret, server.users[USER]):
            assert str(secret) not in journal.read_text() or secret in ("Bearer", 3600, OFFLINE)
        process = server._process._process.pid  # type: ignore[union-attr]
    assert not journal.exists()
    assert subprocess.run(["kill", "-0", str(process)], capture_output=True, check=False).returncode != 0


@needs_server
def test_it_ends_with_its_owner() -> None:
    program = (
        "from lab.oauth_server import OAuthServer; server = OAuthServer().start(); "
        "print(server._process._process.pid, flush=True); input()"
    )
    tests = Path(layers.__file__).parents[1]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    owner = subprocess.Popen([sys.executable, "-c", program], cwd=tests, **pipes)
    assert owner.stdout
    place = Path("/proc", owner.stdout.readline().decode().strip())
    command = (place / "cmdline").read_bytes().split(b"\0")
    folder = Path(command[1].decode()).parent
    assert (folder / "journal.jsonl").exists()
    owner.kill()
    owner.communicate()
    deadline = time.monotonic() + 5
    while place.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not place.exists()
    assert not folder.exists()


@needs_server
@needs_trees
def test_in_a_network_with_tls(authority: Authority) -> None:
    certificate = authority.good("auth.example.test")
    with Network() as network:
        server = OAuthServer(
            host=RELAY_ADDRESS, name="auth.example.test", port=443, certificate=certificate, ca_file=authority.ca_file
        )
        with server.start(in_net_of=network):
            assert server.issuer == "https://auth.example.test"
            assert server.look(server.grant_for(USER, OFFLINE)["access_token"])["usable"]
            begun = server.post(server.device_authorization_url, {"client_id": "fleet-device", "scope": OFFLINE})
            assert begun["verification_uri"] == "https://auth.example.test/device"
            assert "may go on" in server.approve_device(begun["user_code"], USER)


# -- the server of errors


@pytest.fixture
def errors() -> Iterator[ErrorServer]:
    with ErrorServer(limit=5) as server:
        yield server


def refresh(server: ErrorServer, token: str = "", timeout: float = 5, **options: Any) -> requests.Response:
    token = token or server.oauth.issue_refresh_token("fleet", OFFLINE)
    form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": "fleet"}
    return requests.post(server.token_url, data=form, timeout=timeout, **options)


def test_without_a_script_it_is_a_proper_server(errors: ErrorServer) -> None:
    known = requests.get(f"{errors.issuer}/.well-known/oauth-authorization-server", timeout=5).json()
    assert (known["issuer"], known["token_endpoint"]) == (errors.issuer, errors.token_url)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(b"v" * 43).digest()).rstrip(b"=").decode()
    asked = {"client_id": "fleet", "redirect_uri": BACK, "scope": OFFLINE, "state": "st", "code_challenge": challenge}
    sent = requests.get(errors.url("authorize"), asked, allow_redirects=False, timeout=5)
    query = parse_qs(urlsplit(sent.headers["Location"]).query)
    assert (query["state"], query["iss"]) == (["st"], [errors.issuer])
    form = {"grant_type": "authorization_code", "code": query["code"][0], "redirect_uri": BACK, "client_id": "fleet"}
    assert requests.post(errors.token_url, form | {"code_verifier": "x"}, timeout=5).json()["error"] == "invalid_grant"
    first = requests.post(errors.token_url, form | {"code_verifier": "v" * 43}, timeout=5).json()
    assert (first["scope"], first["expires_in"]) == (OFFLINE, 3600)
    second = refresh(errors, first["refresh_token"]).json()
    assert second["refresh_token"] != first["refresh_token"]
    assert requests.post(errors.url("revoke"), {"token": second["refresh_token"]}, timeout=5).status_code == 200
    assert refresh(errors, second["refresh_token"]).json() == {"error": "invalid_grant"}
    assert refresh(errors, "unknown").status_code == 400
    assert [request.endpoint for request in errors.requests()][:4] == [
        *("oauth-authorization-server", "authorize", "token", "token")
    ]
    assert errors.requests("token", grant_type="refresh_token")[0].form["refresh_token"] == first["refresh_token"]


def test_its_devices(errors: ErrorServer) -> None:
    begun = requests.post(errors.url("devicecode"), {"client_id": "fleet", "scope": OFFLINE}, timeout=5).json()
    form = {"grant_type": DEVICE, "device_code": begun["device_code"], "client_id": "fleet"}
    errors.script(oauth_error("slow_down"), oauth_error("authorization_declined"))
    said = [requests.post(errors.token_url, form, timeout=5).json()["error"] for _rest in range(3)]
    assert said == ["slow_down", "authorization_declined", "authorization_pending"]
    errors.oauth.approve(begun["user_code"])
    assert "refresh_token" in requests.post(errors.token_url, form, timeout=5).json()


def test_its_clients() -> None:
    with ErrorServer(clients={"fleet": "s+ %"}, access_token_seconds=7) as errors:
        form = {"grant_type": "client_credentials", "scope": MICROSOFT_APP_SCOPE, "client_id": "fleet"}
        assert requests.post(errors.token_url, form, timeout=5).json()["error"] == "invalid_client"
        answer = requests.post(errors.token_url, form | {"client_secret": "s+ %"}, timeout=5).json()
        assert answer["expires_in"] == 7
        assert "refresh_token" not in answer


@pytest.mark.parametrize("number", AADSTS)
def test_every_row_of_microsofts(errors: ErrorServer, number: int) -> None:
    errors.script(aadsts(number))
    answer = refresh(errors)
    body, row = answer.json(), AADSTS[number]
    assert (answer.status_code, body["error"], body["error_codes"]) == (row.status, row.error, [number])
    assert body["error_description"].startswith(f"AADSTS{number}: ")
    assert body.get("suberror", "") == row.suberror
    assert body["trace_id"]
    assert "{" not in body["error_description"]
    assert refresh(errors).status_code == 200


@pytest.mark.parametrize("name", [*TRANSIENT, *NONSENSE])
def test_no_token_comes_of_an_error(errors: ErrorServer, name: str) -> None:
    errors.script({**TRANSIENT, **NONSENSE}[name])
    token = errors.oauth.issue_refresh_token("fleet", OFFLINE)
    try:
        answer = refresh(errors, token)
        body = answer.json()
    except (requests.ConnectionError, requests.JSONDecodeError, RecursionError):
        body = None
    usable = isinstance(body, dict) and answer.ok and str(body.get("token_type")).lower() == "bearer"
    assert not (usable and isinstance(body.get("access_token"), str) and body["access_token"].isalnum())
    assert errors.left == 0
    assert refresh(errors, token).json()["access_token"], "the refresh token was not spent"


@pytest.mark.parametrize("name", ODD)
def test_odd_answers_are_those_of_requests_carried_out(errors: ErrorServer, name: str) -> None:
    errors.script(ODD[name])
    answer = refresh(errors)
    assert answer.ok
    assert answer.json()["access_token"] in errors.oauth.access_tokens
    assert answer.json()["refresh_token"] in errors.oauth.grants


def test_answers_can_be_bent(errors: ErrorServer) -> None:
    errors.script(amended("refresh_token", scope="email"), truncated(), redirect("http://127.0.0.2:1/token", 307))
    answer = refresh(errors)
    assert "refresh_token" not in answer.json()
    assert answer.json()["scope"] == "email"
    with pytest.raises(requests.JSONDecodeError):
        refresh(errors).json()
    sent = refresh(errors, allow_redirects=False)
    assert (sent.status_code, sent.headers["Location"]) == (307, "http://127.0.0.2:1/token")
    errors.script(back_with("state", iss="https://else.where"), on="authorize")
    asked = {"client_id": "fleet", "redirect_uri": BACK, "state": "st"}
    sent = requests.get(errors.url("authorize"), asked, allow_redirects=False, timeout=5)
    query = parse_qs(urlsplit(sent.headers["Location"]).query)
    assert (set(query), query["iss"]) == ({"code", "iss"}, ["https://else.where"])
    errors.script(retry_after(503, 100, as_date=True))
    assert refresh(errors).headers["Retry-After"].endswith(" GMT")
    errors.always(html(502))
    assert [refresh(errors).status_code for _rest in range(3)] == [502] * 3
    errors.always(None)
    errors.script(late(0.3))
    began = time.monotonic()
    assert refresh(errors).ok
    assert time.monotonic() - began > 0.3


@pytest.mark.parametrize("name", [name for name in DEEDS if name])
@pytest.mark.parametrize("tls", [False, True])
def test_broken_connections(authority: Authority, name: str, tls: bool) -> None:
    certificate = authority.good("localhost") if tls else None
    with ErrorServer(certificate, limit=20) as errors:
        errors.start(name="localhost")
        token = errors.oauth.issue_refresh_token("fleet", OFFLINE)
        errors.script(deed(name, carried_out=True))
        began = time.monotonic()
        with pytest.raises((requests.RequestException, _TooLong)):  # noqa: PT012 - any of the lines may be the one
            options = {"verify": str(authority.ca_file)}
            with refresh(errors, token, timeout=0.2, stream=True, **options) as answer:
                for _chunk in answer.iter_content(1):
                    if time.monotonic() - began > 0.5:
                        raise _TooLong
                if name == "big_head":
                    raise _TooLong
        assert len(errors.oauth.grants) == 2, "carried out, and the client does not know"
        stopping = time.monotonic()
    assert time.monotonic() - stopping < 2


class _TooLong(Exception):
    """The answer has no end."""


@pytest.mark.parametrize("name", ["hang", "close", "reset", "garbage"])
def test_connections_that_never_become_any(authority: Authority, name: str) -> None:
    with ErrorServer(authority.good("localhost")) as errors:
        errors.start(name="localhost")
        errors.script_connections(name)
        with pytest.raises(requests.RequestException):
            refresh(errors, timeout=0.3, verify=str(authority.ca_file))
        assert errors.requests() == []
        assert refresh(errors, verify=str(authority.ca_file)).ok


@pytest.mark.parametrize("kind", BAD_CERTIFICATES)
def test_bad_certificates(authority: Authority, kind: str) -> None:
    with ErrorServer(bad_certificate(authority, kind, "localhost")) as errors:
        errors.start(name="localhost")
        with pytest.raises(requests.exceptions.SSLError):
            refresh(errors, verify=str(authority.ca_file))
        assert errors.requests() == []
        assert errors.connections == 1


def test_a_proxy_counts(authority: Authority) -> None:
    with ErrorServer(authority.good("auth.example.test")) as errors, Proxy(credentials="p:pw") as proxy:
        errors.start(name="auth.example.test")
        proxy.names["auth.example.test"] = "127.0.0.1"
        options = {"verify": str(authority.ca_file)}
        with pytest.raises(requests.exceptions.ProxyError):
            refresh(errors, proxies={"https": proxy.url}, **options)
        with_credentials = {"https": proxy.url.replace("//", "//p:pw@")}
        assert refresh(errors, proxies=with_credentials, **options).ok
        assert [visit.target for visit in proxy.visits] == [f"auth.example.test:{errors.port}"] * 2
        proxy.refusal = 502
        with pytest.raises(requests.exceptions.ProxyError):
            refresh(errors, proxies=with_credentials, **options)
        assert len(errors.requests()) == 1


@needs_trees
def test_errors_in_a_network(authority: Authority) -> None:
    with Network() as network, ErrorServer(authority.good("auth.example.test")) as errors:
        errors.start(RELAY_ADDRESS, 443, in_net_of=network, name="auth.example.test")
        command = ["curl", "--silent", "--show-error", "--cacert", str(authority.ca_file), "--max-time", "5"]
        command += ["--resolve", f"auth.example.test:443:{RELAY_ADDRESS}", "--data", "grant_type=password"]
        said = subprocess.run(
            network.net_command([*command, errors.token_url]), capture_output=True, text=True, check=True
        )
        assert json.loads(said.stdout) == {"error": "unsupported_grant_type"}
        assert errors.requests()[0].headers["user-agent"].startswith("curl/")


# -- the relay that asks the authorization server


@dataclass
class Site:
    """An authorization server, a relay that asks it, and a client of both, on one network."""

    network: Network
    server: OAuthServer
    relay: OAuthRelay
    client: Tree
    ca_file: Path


@pytest.fixture(scope="module")
def site(authority: Authority) -> Iterator[Site]:
    files = {"certificate": authority.good(AUTH_NAME), "ca_file": authority.ca_file}
    with (
        Network() as network,
        OAuthServer(host=AUTH_ADDRESS, name=AUTH_NAME, port=443, **files).start(in_net_of=network) as server,
        OAuthRelay(
            authority.good(OAUTH_RELAY_NAME), network, server, authority.ca_file, {"p": "pw"}, scope=MICROSOFT_SCOPE
        ) as relay,
        Tree("msmtp", network=network) as client,
    ):
        client.write("/etc/ssl/ca.pem", authority.ca_file.read_bytes())
        client.write("/usr/local/bin/bearer", _BEARER)
        yield Site(network, server, relay, client, authority.ca_file)


# Runs in the client: AUTH without an initial response, then the error's acknowledgement.
_BEARER = f"""
import base64, json, smtplib, ssl, sys
mechanism, user, token = sys.argv[1:]
client = smtplib.SMTP("{OAUTH_RELAY_NAME}", 587, timeout=10)
client.starttls(context=ssl.create_default_context(cafile="/etc/ssl/ca.pem"))
client.ehlo()
head = "user=" + user if mechanism == "XOAUTH2" else "n,a=" + user + ",\\1host={OAUTH_RELAY_NAME}\\1port=587"
blob = head + "\\1auth=Bearer " + token + "\\1\\1"
replies = [client.docmd("AUTH", mechanism), client.docmd(base64.b64encode(blob.encode()).decode())]
if replies[-1][0] == 334:
    replies.append(client.docmd("" if mechanism == "XOAUTH2" else "AQ=="))
print(json.dumps([[code, text.decode()] for code, text in replies[1:]]))
"""


def bearer(site: Site, mechanism: str, user: str, token: str) -> list[tuple[int, str]]:
    said = site.client.output(["python3", "/usr/local/bin/bearer", mechanism, user, token])
    return [tuple(answer) for answer in json.loads(said)]


@needs_server
@needs_trees
@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
def test_a_relay_takes_good_tokens_alone(site: Site, mechanism: str) -> None:
    error = {"XOAUTH2": '"status":"401"', "OAUTHBEARER": '"status":"invalid_token"'}[mechanism]

    def refused(user: str, token: str) -> bool:
        (code, challenge), (last, _text) = bearer(site, mechanism, user, token)
        return (code, last) == (334, 535) and error in base64.b64decode(challenge).decode()

    site.server.change(access_token_length=3000)
    good = site.server.grant_for(USER, OFFLINE)["access_token"]
    assert [code for code, _text in bearer(site, mechanism, USER, good)] == [235]
    assert refused(OTHER, good)
    assert refused(USER, "bad")
    site.server.change(access_token_length=43)
    without_scope = site.server.grant_for(OTHER, GOOGLE_SCOPE)["access_token"]
    assert refused(OTHER, without_scope)
    expired = site.server.grant_for(OTHER, OFFLINE)["access_token"]
    site.server.expire("access_token", value=expired)
    assert refused(OTHER, expired)
    site.server.revoke(user=USER)
    assert refused(USER, good)
    again = site.server.grant_for(USER, OFFLINE)["access_token"]
    assert [code for code, _text in bearer(site, mechanism, USER, again)] == [235], "failures leave no penalty"
    asked = site.server.exchanges("introspection")[-1]
    assert (asked.client, asked.fields["token"]) == (site.server.relay.client_id, fingerprint(again))


@needs_server
@needs_trees
@pytest.mark.parametrize("mechanism", ["xoauth2", "oauthbearer"])
def test_msmtp_sends_with_a_token(site: Site, mechanism: str) -> None:
    site.relay.forget()
    token = site.server.grant_for(USER, OFFLINE)["access_token"]
    options = ["--host", OAUTH_RELAY_NAME, "--port=587", "--tls=on", "--tls-trust-file=/etc/ssl/ca.pem"]
    options += [f"--auth={mechanism}", f"--user={USER}", f"--passwordeval=echo {token}", f"--from={USER}"]
    site.client.run(["msmtp", *options, "to@example.test"], input=b"Subject: proof\n\nbody\n")
    mail = site.relay.wait_for_message()
    assert (mail.auth_user, mail.email["Subject"]) == (USER.encode(), "proof")
    site.server.revoke(user=USER)
    failed = site.client.run(["msmtp", *options, "to@example.test"], input=b"Subject: x\n\n", check=False)
    assert failed.returncode == 77
    assert len(site.relay.messages()) == 1


@needs_server
@needs_trees
def test_curl_sends_with_a_token_of_client_credentials(site: Site) -> None:
    site.relay.forget()
    scope = {"grant_type": "client_credentials", "scope": MICROSOFT_SCOPE}
    token = site.server.token(site.server.service, **scope)["access_token"]
    place = f"{OAUTH_RELAY_NAME}:465"
    command = ["curl", "--silent", "--show-error", "--cacert", str(site.ca_file), "--upload-file", "-"]
    command += ["--resolve", f"{place}:{site.relay.address}", "--mail-from", USER, "--mail-rcpt", "to@example.test"]
    command += ["--user", USER, "--oauth2-bearer", token, f"smtps://{place}"]
    mail = b"Subject: curl\r\n\r\nbody\r\n"
    done = subprocess.run(site.network.net_command(command), input=mail, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert site.relay.wait_for_message().auth_user == USER.encode()
    site.server.expire("access_token", value=token)
    done = subprocess.run(site.network.net_command(command), input=mail, capture_output=True, check=False)
    assert done.returncode == 67, "curl's word for a login denied"


@needs_server
@needs_trees
def test_the_relay_still_takes_passwords(site: Site) -> None:
    site.relay.forget()
    options = ["--host", OAUTH_RELAY_NAME, "--port=465", "--tls=on", "--tls-starttls=off"]
    options += ["--tls-trust-file=/etc/ssl/ca.pem", "--auth=plain", "--user=p", "--from=p@example.test"]
    send = ["msmtp", *options, "--passwordeval=echo pw", "to@example.test"]
    site.client.run(send, input=b"Subject: proof\n\nbody\n")
    assert site.relay.wait_for_message().auth_user == b"p"


def test_the_embedded_relay_takes_any_of_a_users_tokens() -> None:
    mechanisms = ["XOAUTH2", "OAUTHBEARER"]
    with Relay([Listener()], tokens={USER: ["one", "two" * 3000]}, mechanisms=mechanisms).start() as relay:

        def codes(token: str, user: str = USER) -> list[int]:
            blobs = [f"user={user}", f"n,a={user},\1host=h\1port=25"]
            found = []
            for mechanism, blob in zip(mechanisms, blobs, strict=True):
                with smtplib.SMTP("127.0.0.1", relay.port(), timeout=5) as client:
                    client.ehlo()
                    client.docmd("AUTH", mechanism)
                    answer = base64.b64encode(f"{blob}\1auth=Bearer {token}\1\1".encode()).decode()
                    found.append(client.docmd(answer)[0])
                    if found[-1] == 334:
                        assert client.docmd("AQ==")[0] == 535
            return found

        assert codes("one") == codes("two" * 3000) == [235, 235]
        assert codes("three") == codes("one", OTHER) == [334, 334]
        relay.change(tokens={USER: ["three"]})
        assert codes("three") == [235, 235]
        assert codes("one") == [334, 334]


# -- the browser


class _Landing(BaseHTTPRequestHandler):
    """A client's landing page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(b"<title>Done</title><h1>You can close this page</h1>")

    def log_message(self, *_anything: object) -> None:
        """Nothing goes to standard error."""


@pytest.fixture
def landing() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Landing) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}/callback"
        httpd.shutdown()
        thread.join(5)


@needs_server
@needs_browser
def test_a_person_with_a_browser(server: OAuthServer, landing: str, tmp_path: Path) -> None:
    url = authorization(server, server.confidential, state="st").replace(quote_plus(BACK), quote_plus(landing))
    with Browser(tmp_path) as person:
        shown = person.open(url)
        assert "Fleet mail (confidential)" in shown.text
        wrong = person.authorize(url, USER, "wrong")
        assert "User name or password is wrong" in wrong.text
        page = person.authorize(url, USER, server.users[USER])
        assert page.address.startswith(f"{landing}?code=")
        assert (page.title, page.text) == ("Done", "You can close this page")
        assert page.screenshot.read_bytes().startswith(b"\x89PNG")
        landed = person.visits[-1]
        assert (landed.url, landed.status) == (page.address, 200)
        refused = person.authorize(url, USER, server.users[USER], allow=False)
        assert "error=access_denied" in refused.address
        code = parse_qs(urlsplit(page.address).query)["code"][0]
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": landing}
        assert server.look(server.token(server.confidential, **form)["access_token"])["user"] == USER
        nobody = person.open("http://no-such-host.example.test/x?y=1")
        assert nobody.address == "http://no-such-host.example.test/x?y=1"
        assert "ERR_NAME_NOT_RESOLVED" in nobody.text


@needs_server
@needs_browser
def test_a_person_with_a_browser_and_a_device(server: OAuthServer, tmp_path: Path) -> None:
    question = {"client_id": server.device.client_id, "scope": OFFLINE}
    with Browser(tmp_path) as person:
        for complete in (False, True):
            begun = server.post(server.device_authorization_url, question)
            url = begun["verification_uri_complete" if complete else "verification_uri"]
            page = person.connect_device(url, begun["user_code"], USER, server.users[USER])
            assert "may go on" in page.text
            token = server.token(server.device, grant_type=DEVICE, device_code=begun["device_code"])["access_token"]
            assert server.look(token)["user"] == USER


@needs_server
@needs_browser
@needs_trees
def test_a_browser_in_a_tree(site: Site, tmp_path: Path) -> None:
    with Browser(tmp_path, in_net_of=site.client) as person:
        url = authorization(site.server, site.server.public, code_challenge="x" * 43, code_challenge_method="S256")
        page = person.authorize(url, USER, site.server.users[USER])
        assert page.address.startswith(f"{BACK}?code=")
        assert "ERR_CONNECTION_REFUSED" in page.text, "nobody listens in the tree"
        assert {urlsplit(visit.url).hostname for visit in person.visits} == {AUTH_NAME, "127.0.0.1"}
