# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Everything that goes wrong between a client and an authorization server, from the wire to the store.

The rule that all of it proves: what is not a definite invalid_grant never takes the refresh token away.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from driver import pythons
from driver.environments import virtual_environment
from lab.authority import Authority
from lab.error_replies import (
    BAD_CERTIFICATES,
    NONSENSE,
    ODD,
    TRANSIENT,
    aadsts,
    amended,
    bad_certificate,
    deed,
    html,
    id_token,
    oauth_error,
    redirect,
    retry_after,
)
from lab.error_server import ErrorServer, Step
from lab.http_proxy import Proxy
from lab.microsoft_errors import AADSTS
from lab.plain_oauth import Answer, Request, as_json
from unit.token_store import USER, Held

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth import authorization
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.causes import cause_named
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.client import Refused, TokenClient
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.refusals import CODES
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.registration import Registration
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.posix_host import PosixHost
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.redaction import Secret

DEAD = {70008: "expired", 700082: "expired", 700084: "expired", 70043: "expired", 50173: "revoked"}
DEAD |= {50132: "revoked", 50133: "revoked", 70000: "revoked"}
REFRESH = {"grant_type": "refresh_token", "refresh_token": "r3fresh-t0ken-of-ours"}


@pytest.fixture
def server() -> Iterator[ErrorServer]:
    with ErrorServer(limit=20) as running:
        yield running


@pytest.fixture
def held(tmp_path: Path, server: ErrorServer) -> Held:
    """An authorized token, whose access token is about to end."""
    held = Held(tmp_path, server)
    held.authorize()
    held.wait(seconds=3500)
    return held


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def refused(server: ErrorServer, timeout: int = 3, **registration: Any) -> Refused:
    """The refusal that one request ends in."""
    known = Registration(client_id="fleet", **{"token_url": server.token_url, **registration})
    client = TokenClient(known, PosixHost(), timeout=timeout, sleep=lambda _seconds: None)
    with pytest.raises(Refused) as found:
        client.ask(REFRESH)
    told = json.dumps([problem.as_dict() for problem in found.value.problems]) + found.value.description
    assert REFRESH["refresh_token"] not in told
    assert found.value.problems[0].hint
    return found.value


def kept_token(held: Held) -> str:
    assert held.state.grant
    assert held.state.grant.refresh_token
    return held.state.grant.refresh_token.reveal()


# -- what the server says


@pytest.mark.parametrize("number", AADSTS)
def test_microsofts_numbers(number: int, held: Held, server: ErrorServer) -> None:
    before = kept_token(held)
    server.script(aadsts(number))
    held.ensure()
    told, state = held.view, held.state
    cause = cause_named(CODES[str(number)])
    assert told["status"] == cause.status
    assert told["cause"] == cause.name
    assert str(number) in told["error_description"]
    assert told["next_step"].startswith(cause.next_step)
    assert "Trace ID" not in told["error_description"]
    if number in DEAD:
        assert told["status"] == DEAD[number]
        assert state.grant is None
        assert [one.held.refresh_token for one in state.aside] == [Secret(before)]
    else:
        assert kept_token(held) == before
        held.wait(days=1)
        assert held.ensure().refreshed, "it is tried again, and works"
        assert held.view["status"] == "authorized"


@pytest.mark.parametrize("number", [50076, 53003, 50057])
@pytest.mark.parametrize("error", ["interaction_required", "invalid_grant", "invalid_request"])
def test_the_older_endpoints_words_lead_to_the_same(number: int, error: str, held: Held, server: ErrorServer) -> None:
    server.script(aadsts(number, error=error, suberror=""))
    held.ensure()
    assert held.view["cause"] == CODES[str(number)]
    assert held.state.grant


@pytest.mark.parametrize("name", TRANSIENT)
def test_what_passes(name: str, held: Held, server: ErrorServer) -> None:
    before = kept_token(held)
    server.always(TRANSIENT[name])
    held.ensure()
    assert held.view["status"] == "unreachable"
    assert kept_token(held) == before
    server.always(None)
    assert held.ensure().refreshed
    assert held.view["status"] == "authorized"


@pytest.mark.parametrize("name", NONSENSE)
def test_what_is_no_answer(name: str, held: Held, server: ErrorServer) -> None:
    before = kept_token(held)
    server.script(NONSENSE[name])
    held.ensure()
    assert held.view["status"] in ("unreachable", "misconfigured")
    assert held.view["next_step"]
    assert kept_token(held) == before
    assert held.ensure().refreshed


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_and_good_enough(name: str, held: Held, server: ErrorServer) -> None:
    server.script(ODD[name])
    assert held.ensure().refreshed
    state = held.state
    assert state.access
    assert state.access.token.reveal() in server.oauth.access_tokens
    assert kept_token(held) in server.oauth.grants
    life = state.access.expires_at - int(held.clock())
    assert 3590 <= life <= 3600 or (name == "expires_in huge" and life > 3600)
    assert held.view["status"] == "authorized"
    assert held.view["missing_scope"] == []


@pytest.mark.parametrize("told", [{}, {"suberror": "bad_token"}, {"error_description": "Token has been revoked."}])
def test_a_definite_no(told: dict[str, str], held: Held, server: ErrorServer) -> None:
    before = kept_token(held)
    server.script(oauth_error("invalid_grant", **told))
    held.ensure()
    assert held.view["status"] == "revoked"
    assert held.state.aside[-1].held.refresh_token == Secret(before)
    held.wait(days=1)
    held.ensure()
    assert held.refreshes() == 1, "a dead token is not asked with again"


def test_a_definite_no_after_its_life_is_an_end_by_age(held: Held, server: ErrorServer) -> None:
    """Most servers say the same of a token that was revoked and of one that expired."""
    held.wait(days=91)
    server.script(oauth_error("invalid_grant"))
    held.ensure()
    assert (held.view["status"], held.view["cause"]) == ("expired", "expired")


def test_what_a_provider_ends_its_tokens_by(held: Held, server: ErrorServer) -> None:
    held.declare(provider="google")
    held.authorize()
    held.wait(seconds=3500)
    server.script(oauth_error("invalid_grant", error_description="Token has been expired or revoked."))
    held.ensure()
    assert held.view["cause"] == "invalid_grant"
    assert "Testing" in held.view["next_step"]


@pytest.mark.parametrize(
    "word", ["invalid_client", "unauthorized_client", "invalid_scope", "invalid_request", "made_up"]
)
def test_a_client_that_is_wrong_keeps_its_token(word: str, held: Held, server: ErrorServer) -> None:
    before = kept_token(held)
    server.script(oauth_error(word, 401 if word == "invalid_client" else 400))
    held.ensure()
    assert held.view["status"] == "misconfigured"
    assert kept_token(held) == before


def test_scope_that_shrank(held: Held, server: ErrorServer) -> None:
    server.script(amended(scope="offline_access"))
    held.ensure()
    assert held.view["missing_scope"] == ["smtp"]
    assert held.view["status"] != "authorized"
    held.wait(seconds=3500)
    server.script(amended(scope="smtp offline_access"))
    held.ensure()
    assert held.view["missing_scope"] == []


def test_no_new_refresh_token_and_a_new_one(held: Held, server: ErrorServer) -> None:
    before = kept_token(held)
    server.script(amended("refresh_token"))
    assert held.ensure().refreshed
    assert kept_token(held) == before
    held.wait(seconds=3500)
    assert held.ensure().refreshed
    assert kept_token(held) != before
    sent = [request.form["refresh_token"] for request in server.requests("token")]
    assert sent == [before, before]


def test_what_the_server_repeats_of_ours(server: ErrorServer) -> None:
    def echo(request: Request, _proper: Callable[[], Answer]) -> Answer:
        words = f"{request.form} {request.body.decode()}"
        return as_json({"error": "invalid_request", "error_description": words, "suberror": words}, 400)

    server.script(echo)
    found = refused(server, client_secret=Secret("cl1ent/s+cret %"))
    for secret in ("cl1ent/s+cret %", "cl1ent%2Fs%2Bcret+%25", REFRESH["refresh_token"]):
        assert secret not in str(found) + found.suberror + found.description


def test_a_secret_arrives_as_it_is(server: ErrorServer) -> None:
    """What is not form-encoded arrives as another one (RFC 6749 2.3.1)."""
    secret = "a+b/c %41&=d;\u00e9\"'"
    server.oauth.clients["fl+eet &"] = secret
    known = Registration(client_id="fl+eet &", client_secret=Secret(secret), token_url=server.token_url)
    client = TokenClient(known, PosixHost())
    assert client.ask({"grant_type": "client_credentials", "scope": "a b"})["access_token"]
    assert server.requests("token")[0].form["scope"] == "a b"


# -- how long it is waited


@pytest.mark.parametrize("as_date", [False, True])
@pytest.mark.parametrize("status", [429, 503])
def test_the_server_says_when_to_come_again(status: int, as_date: bool, server: ErrorServer) -> None:
    token = server.oauth.issue_refresh_token("fleet", "smtp")
    server.script(retry_after(status, 2, as_date))
    client = TokenClient(Registration(client_id="fleet", token_url=server.token_url), PosixHost())
    client.ask({"grant_type": "refresh_token", "refresh_token": token})
    first, second = server.requests("token")
    assert 1 <= second.time - first.time < 30


def test_a_long_wait_is_told_and_not_waited_for(server: ErrorServer) -> None:
    server.script(retry_after(429, 600))
    began = time.monotonic()
    assert refused(server).retry_after == 600
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("name", ["hang", "hang_after_head", "drip"])
def test_a_server_that_hangs(name: str, server: ErrorServer) -> None:
    """Every single read of a dripping answer succeeds: the whole exchange has an end all the same."""
    server.script(deed(name))
    began = time.monotonic()
    found = refused(server, timeout=1)
    assert time.monotonic() - began < 10
    assert (found.cause.name, found.sent) == ("timeout", True)
    assert len(server.requests("token")) == 1, "it may have been carried out: it is not asked again"


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("endless", "too_large"),
        ("close", "closed"),
        ("close_midway", "closed"),
        ("reset", "closed"),
        ("garbage", "closed"),
        ("big_head", "closed"),
    ],
)
def test_a_server_that_breaks_off(name: str, cause: str, server: ErrorServer) -> None:
    server.script(deed(name, carried_out=True))
    found = refused(server, timeout=10)
    assert (found.cause.name, found.sent, found.cause.definite) == (cause, True, False)
    assert len(server.requests("token")) == 1


def test_a_connection_that_hangs_before_tls(authority: Authority) -> None:
    with ErrorServer(authority.good("localhost"), limit=10) as server:
        server.start(name="localhost")
        server.script_connections("hang")
        assert refused(server, timeout=1, ca_file=str(authority.ca_file)).cause.name == "timeout"


def test_nobody_listens() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    found = refused(ErrorServer(), token_url=f"http://127.0.0.1:{port}/token")
    assert (found.cause.name, found.sent) == ("connection_refused", False)
    assert f"http://127.0.0.1:{port}/token" in str(found)


@pytest.mark.parametrize("name", ["nowhere.invalid", "a" * 64 + ".invalid"])
def test_a_name_that_is_none(name: str) -> None:
    found = refused(ErrorServer(), token_url=f"https://{name}/token", timeout=15)
    assert (found.cause.name, found.sent) == ("name_unknown", False)


# -- where it leads


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_told_and_not_followed(status: int, server: ErrorServer) -> None:
    with ErrorServer() as other:
        server.script(redirect(other.token_url + "?x=y", status))
        found = refused(server)
        assert found.cause.name == "redirected"
        assert other.token_url in str(found)
        assert other.connections == 0


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("from_unknown_ca", "certificate_unknown_ca"),
        ("wrong_name", "certificate_name"),
        ("expired", "certificate_expired"),
        ("not_yet_valid", "certificate_not_yet"),
    ],
)
def test_certificates(kind: str, cause: str, authority: Authority) -> None:
    assert kind in BAD_CERTIFICATES
    with ErrorServer(bad_certificate(authority, kind, "localhost")).start(name="localhost") as server:
        found = refused(server, ca_file=str(authority.ca_file))
        assert (found.cause.name, found.sent) == (cause, False)
        assert server.requests() == [], "nothing was said to it"
        known = Registration(client_id="fleet", token_url=server.token_url, validate_certs=False)
        assert TokenClient(known, PosixHost()).ask({"grant_type": "client_credentials"})["access_token"]


def test_a_certificate_that_is_good(authority: Authority) -> None:
    with ErrorServer(authority.good("localhost")).start(name="localhost") as server:
        known = Registration(client_id="fleet", token_url=server.token_url, ca_file=str(authority.ca_file))
        assert TokenClient(known, PosixHost()).ask({"grant_type": "client_credentials"})["access_token"]
        assert refused(server).cause.name == "certificate_unknown_ca", "the system does not know that CA"


def test_tls_where_there_is_none(server: ErrorServer) -> None:
    assert refused(server, token_url=server.token_url.replace("http:", "https:")).cause.name == "tls"


@pytest.mark.parametrize("content", [None, "", "no certificate", "-----BEGIN CERTIFICATE-----\nxx\n"])
def test_a_ca_file_that_is_none(content: str | None, authority: Authority, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with ErrorServer(authority.good("localhost")).start(name="localhost") as server:
        found = refused(server, ca_file=str(file))
        assert (found.cause.name, found.problems[0].option) == ("ca_file", "ca_file")
        assert found.cause.status == "misconfigured"


@pytest.mark.parametrize("credentials", ["", "user:p%40ss word"])
def test_a_proxy(credentials: str, authority: Authority) -> None:
    secret = credentials.replace("%40", "@")
    with (
        ErrorServer(authority.good("auth.example.test")) as server,
        Proxy(names={"auth.example.test": "127.0.0.1"}, credentials=secret) as proxy,
    ):
        server.start(name="auth.example.test")
        login = f"{credentials.replace(' ', '%20')}@" if credentials else ""
        url = proxy.url.replace("//", f"//{login}")
        known = Registration(client_id="fleet", token_url=server.token_url, ca_file=str(authority.ca_file), proxy=url)
        assert TokenClient(known, PosixHost()).ask({"grant_type": "client_credentials"})["access_token"]
        assert [visit.method for visit in proxy.visits] == ["CONNECT"]
        assert proxy.visits[0].credentials == secret


def test_the_proxy_of_the_environment(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"auth.example.test": "127.0.0.1"}
    with ErrorServer(authority.good("auth.example.test")) as server, Proxy(names) as proxy:
        server.start(name="auth.example.test")
        monkeypatch.setenv("https_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "")
        known = Registration(client_id="fleet", token_url=server.token_url, ca_file=str(authority.ca_file))
        assert TokenClient(known, PosixHost()).ask({"grant_type": "client_credentials"})["access_token"]
        assert len(proxy.visits) == 1


@pytest.mark.parametrize(("refusal", "credentials"), [(403, ""), (502, ""), (0, "user:secret")])
def test_a_proxy_that_does_not_want(refusal: int, credentials: str) -> None:
    with Proxy(refusal=refusal, credentials=credentials) as proxy:
        url = proxy.url.replace("//", "//user:wr0ng-pw@")
        found = refused(ErrorServer(), token_url="https://auth.example.test/token", proxy=url)
        assert (found.cause.name, found.problems[0].option, found.sent) == ("proxy", "proxy", False)
        assert "wr0ng" not in str(found)
        assert "Tunnel connection failed" in found.description


def test_a_proxy_that_is_not_there() -> None:
    found = refused(ErrorServer(), token_url="https://auth.example.test/token", proxy="http://127.0.0.1:9")
    assert found.cause.name == "proxy"


def test_nothing_is_taken_from_netrc(server: ErrorServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    os.chmod(netrc, 0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    known = Registration(client_id="fleet", token_url=server.token_url)
    TokenClient(known, PosixHost()).ask({"grant_type": "client_credentials"})
    assert "authorization" not in server.requests("token")[0].headers


# -- an authorization


def device_of(held: Held, server: ErrorServer) -> str:
    """Begin one by device code; the user code."""
    held.declare(grant="device_code", device_authorization_url=server.url("devicecode"))
    begun = authorization.begin(held.store, "default", held.client, held.clock)
    assert begun.state.pending
    return str(begun.state.pending.data["user_code"])


def poll(held: Held) -> bool:
    """One poll, when it is time: is it complete?"""
    state = held.state
    assert state.pending
    held.clock.time = state.pending.data["next_poll"]
    return authorization.finish(held.store, "default", "", held.client, held.clock).refreshed


def test_slow_down_counts_for_all_later_polls(tmp_path: Path, server: ErrorServer) -> None:
    held = Held(tmp_path, server)
    user_code = device_of(held, server)
    server.script(oauth_error("slow_down"), oauth_error("authorization_pending"), oauth_error("slow_down"))
    at = []
    for _each in range(4):
        assert not poll(held)
        at.append(held.clock())
    assert [later - earlier for earlier, later in pairwise(at)] == [6, 6, 11]
    server.oauth.approve(user_code)
    assert poll(held)
    assert held.clock() - at[-1] == 11
    assert held.view["status"] == "authorized"


def test_the_interval_is_five_seconds_where_none_is_told(tmp_path: Path, server: ErrorServer) -> None:
    held = Held(tmp_path, server)
    server.script(amended("interval"), on="devicecode")
    device_of(held, server)
    assert held.state.pending
    assert held.state.pending.data["interval"] == 5


@pytest.mark.parametrize(
    ("word", "cause"),
    [
        ("access_denied", "access_denied"),
        ("authorization_declined", "access_denied"),
        ("expired_token", "expired_token"),
    ],
)
def test_a_device_that_gets_a_no(word: str, cause: str, tmp_path: Path, server: ErrorServer) -> None:
    held = Held(tmp_path, server)
    device_of(held, server)
    server.script(oauth_error(word))
    with pytest.raises(Refused):
        poll(held)
    assert (held.view["status"], held.view["cause"]) == ("unauthorized", cause)
    assert held.state.pending is None


@pytest.mark.parametrize(
    "step", [html(502), deed("close"), retry_after(429, 60), oauth_error("temporarily_unavailable", 503)]
)
def test_a_device_whose_server_stumbles(step: Step, tmp_path: Path, server: ErrorServer) -> None:
    held = Held(tmp_path, server)
    user_code = device_of(held, server)
    server.script(step)
    assert not poll(held)
    server.oauth.approve(user_code)
    assert poll(held)


@pytest.mark.parametrize(
    ("step", "cause"),
    [
        (amended(scope="offline_access"), "scope_missing"),
        (amended("refresh_token"), "no_refresh_token"),
        (amended(id_token=id_token(aud="fleet", email="boss@example.test")), "other_person"),
    ],
)
def test_an_authorization_that_is_not_taken(step: Step, cause: str, tmp_path: Path, server: ErrorServer) -> None:
    held = Held(tmp_path, server)
    server.oauth.approve(device_of(held, server))
    server.script(step)
    with pytest.raises(Refused) as found:
        poll(held)
    assert found.value.cause.name == cause
    assert (held.state.grant, held.state.access) == (None, None)
    assert held.view["cause"] == cause


def test_the_right_person_in_another_case(tmp_path: Path, server: ErrorServer) -> None:
    held = Held(tmp_path, server)
    server.oauth.approve(device_of(held, server))
    server.script(amended(id_token=id_token(aud="fleet", preferred_username=USER.upper())))
    assert poll(held)
    assert held.view["authorized_user_verified"] is True


# -- the oldest libraries that hosts have (Debian 11: Python 3.9, requests 2.25; PyJWT 1.7 on others of that age)

OLDEST = "requests==2.25.1\nPyJWT==1.7.1\ncryptography>=3.3,<43\n"
ASK = """
import json, sys
sys.path.insert(0, sys.argv[1])
from core.oauth.client import Refused, TokenClient
from core.oauth.grants.registry import grant_type
from core.oauth.registration import Registration
from core.posix_host import PosixHost
from core.redaction import Secret

for record, timeout in json.load(sys.stdin):
    known = Registration.from_record(record)
    client = TokenClient(known, PosixHost(), timeout=timeout, sleep=lambda seconds: None)
    try:
        reply = grant_type(known.grant).renew(known, Secret("a refresh token"), client)
        print(json.dumps(["", bool(reply.access_token.reveal())]))
    except Refused as error:
        print(json.dumps([error.cause.name, error.sent]))
"""


def asked_by_the_oldest(*registrations: Registration, hanging: int = 0) -> list[list[Any]]:
    """What each registration's request ends in: the cause's name, and whether it was sent. hanging: of the first."""
    python = pythons.find("3.9")
    if python is None:
        pytest.skip("there is no Python 3.9 here")
    environment = virtual_environment(OLDEST, python)
    core = Path(__file__).parents[2] / "plugins/module_utils"
    done = subprocess.run(
        [environment / "bin/python", "-B", "-W", "error", "-c", ASK, core],
        input=json.dumps([[known.as_record(), 1 if n < hanging else 20] for n, known in enumerate(registrations)]),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_oldest_libraries(server: ErrorServer, authority: Authority, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.write_bytes(authority.good("localhost").key.read_bytes())
    usual = Registration(client_id="fleet", client_secret=Secret("s"), token_url=server.token_url)
    app = usual._replace(grant="client_credentials")
    steps = {"hang": "timeout", "drip": "timeout", "endless": "too_large", "close": "closed", "reset": "closed"}
    server.script(*(deed(name) for name in steps), aadsts(70008), html(502))
    found = asked_by_the_oldest(
        *[usual] * (2 + len(steps)),
        app,
        app._replace(client_secret=None, jwt_key_file=str(key)),
        app._replace(grant="jwt_bearer", username=USER, jwt_key_file=str(key)),
        app._replace(token_url="http://127.0.0.1:9/token"),
        app._replace(token_url="https://nowhere.invalid/token"),
        app._replace(token_url=server.token_url.replace("http:", "https:")),
        app._replace(token_url="https://nowhere.invalid/token", proxy="http://127.0.0.1:9"),
        app._replace(ca_file=str(key)),
        hanging=2,
    )
    wanted = [*([cause, True] for cause in steps.values()), ["expired", True], ["temporarily_unavailable", True]]
    wanted += [["", True]] * 3
    wanted += [["connection_refused", False], ["name_unknown", False], ["tls", False], ["proxy", False]]
    assert found == [*wanted, ["ca_file", False]]


def test_certificates_and_the_oldest_libraries(authority: Authority) -> None:
    found, wanted = [], []
    for kind, cause in {
        "from_unknown_ca": "certificate_unknown_ca",
        "wrong_name": "certificate_name",
        "expired": "certificate_expired",
    }.items():
        with ErrorServer(bad_certificate(authority, kind, "localhost")).start(name="localhost") as server:
            known = Registration(grant="client_credentials", token_url=server.token_url, ca_file=str(authority.ca_file))
            found += asked_by_the_oldest(known, known._replace(validate_certs=False))
            wanted += [[cause, False], ["", True]]
    assert found == wanted
