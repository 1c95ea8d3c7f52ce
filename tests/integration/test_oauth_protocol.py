# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every grant against a real authorization server (oidc-provider), which judges what we send."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from lab import oauth_server
from lab.oauth_server import DEVICE, GOOGLE_SCOPE, JWT_BEARER, MICROSOFT_SCOPE, Client, OAuthServer, fingerprint

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth import authorization, tokens
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.client import Refused, TokenClient
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.registration import Registration
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.status import view
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.store import Store
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.posix_host import PosixHost
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.redaction import Secret

pytestmark = pytest.mark.skipif(bool(oauth_server.why_unavailable()), reason=oauth_server.why_unavailable())

USER, OTHER = "fleet@example.test", "other@example.test"
SCOPE = (MICROSOFT_SCOPE, "offline_access")
WITH_NAME = (*SCOPE, "openid", "email")


@pytest.fixture(scope="module")
def running() -> Iterator[OAuthServer]:
    with OAuthServer() as server:
        yield server


@pytest.fixture
def server(running: OAuthServer) -> Iterator[OAuthServer]:
    """The one server, as if it had just been started."""
    running.change(**{field: getattr(oauth_server.Settings(), field) for field in ("device_interval", "rotate")})
    running.forget()
    yield running
    running.revoke()


class Machine:
    """A store on a machine, for one registration."""

    def __init__(self, folder: Path, server: OAuthServer, client: Client, **declared: Any) -> None:
        self.server = server
        self.folder = folder
        secret = Secret(client.client_secret) if client.client_secret else None
        urls = {
            "authorization_url": server.authorization_url,
            "token_url": server.token_url,
            "device_authorization_url": server.device_authorization_url,
            "revocation_url": server.revocation_url,
        }
        usual = {"client_id": client.client_id, "client_secret": secret, "scope": SCOPE, "username": USER}
        if client.key:
            usual["jwt_key_file"] = str(self._key_file(client.key))
        self.registration = Registration(**{**urls, **usual, **declared})
        assert list(self.registration.problems()) == []
        self.store = Store(PosixHost(), str(folder / "store"))
        with self.store.locked("default"):
            self.store.write_registration("default", self.registration)

    def _key_file(self, key: str) -> Path:
        path = self.folder / "key.pem"
        path.write_text(key)
        path.chmod(0o600)
        return path

    def client(self, registration: Registration) -> TokenClient:
        return TokenClient(registration, PosixHost())

    def begin(self, redirect_uri: str = "") -> dict[str, Any]:
        pending = authorization.begin(self.store, "default", self.client, redirect_uri=redirect_uri).state.pending
        assert pending
        return authorization.shown(pending, self.registration)

    def finish(self, answer: str = "") -> bool:
        return authorization.finish(self.store, "default", answer, self.client).refreshed

    def refusal(self, answer: str = "") -> str:
        """The name of the cause, and that nothing of the answer is in the words."""
        with pytest.raises(Refused) as refused:
            self.finish(answer)
        told = str(refused.value) + json.dumps(self.view)
        for value in parse_qs(urlsplit(answer).query).get("code", []):
            assert value not in told
        return refused.value.cause.name

    def authorize(self) -> None:
        assert self.finish(self.server.authorize(self.begin()["url"], USER))

    def ensure(self, **options: Any) -> bool:
        return tokens.ensure(self.store, "default", self.client, **options).refreshed

    @property
    def view(self) -> dict[str, Any]:
        return view(self.store.read("default"), time.time())

    @property
    def access_token(self) -> str:
        access = self.store.read("default").access
        assert access
        return access.token.reveal()

    @property
    def refresh_token(self) -> str:
        grant = self.store.read("default").grant
        assert grant
        assert grant.refresh_token
        return grant.refresh_token.reveal()


@pytest.fixture
def public(tmp_path: Path, server: OAuthServer) -> Machine:
    return Machine(tmp_path, server, server.public)


# -- authorization code


@pytest.mark.parametrize("kind", ["public", "confidential"])
def test_authorization_code(kind: str, tmp_path: Path, server: OAuthServer) -> None:
    machine = Machine(tmp_path, server, getattr(server, kind), scope=WITH_NAME)
    begun = machine.begin()
    assert machine.view["status"] == "pending"
    assert begun["flow"] == "authorization_code"
    assert machine.finish(server.authorize(begun["url"], USER))
    told = machine.view
    assert (told["status"], told["authorized_user"], told["authorized_user_verified"]) == ("authorized", USER, True)
    assert told["missing_scope"] == []
    found = server.look(machine.access_token)
    assert found
    assert (found["user"], found["usable"]) == (USER, True)
    exchange = server.exchanges("token", "authorization_code")[-1]
    assert exchange.authentication == ("none" if kind == "public" else "client_secret_post")
    assert exchange.fields["code_verifier"]


def code_in(address: str) -> str:
    return parse_qs(urlsplit(address).query)["code"][0]


def test_the_code_alone(tmp_path: Path, server: OAuthServer) -> None:
    """It has no state: it is PKCE by which the server knows that it belongs to another authorization."""
    machine = Machine(tmp_path / "ours", server, server.public)
    another = Machine(tmp_path / "theirs", server, server.public)
    theirs = server.authorize(another.begin()["url"], USER)
    machine.begin()
    assert machine.refusal(code_in(theirs)) == "code_refused"
    assert machine.finish(code_in(server.authorize(machine.begin()["url"], USER)))
    assert machine.view["status"] == "authorized"


def test_by_discovery_alone(tmp_path: Path, server: OAuthServer) -> None:
    """RFC 8414, and who answered is checked (RFC 9207): this server always says."""
    machine = Machine(
        tmp_path,
        server,
        server.confidential,
        issuer=server.issuer,
        authorization_url="",
        token_url="",
        device_authorization_url="",
        revocation_url="",
    )
    back = server.authorize(machine.begin()["url"], USER)
    assert f"iss={server.issuer}".replace(":", "%3A").replace("/", "%2F") in back
    for wrong in ("https%3A%2F%2Fevil.test", ""):
        parts = parse_qs(urlsplit(back).query)
        answer = back.partition("?")[0] + "?" + urlencode({**{k: v[0] for k, v in parts.items()}, "iss": wrong})
        assert machine.refusal(answer) == "issuer_mismatch"
    assert machine.view["status"] == "pending"
    assert machine.finish(back)
    assert tokens.remove(machine.store, "default", machine.client(machine.registration)).warnings == ()
    assert server.exchanges("revocation")[-1].status == 200


def test_whoever_names_nobody(public: Machine, server: OAuthServer) -> None:
    public.authorize()
    told = public.view
    assert (told["authorized_user"], told["authorized_user_verified"]) == (USER, False)


def test_another_person(tmp_path: Path, server: OAuthServer) -> None:
    machine = Machine(tmp_path, server, server.public, scope=WITH_NAME)
    assert machine.refusal(server.authorize(machine.begin()["url"], OTHER)) == "other_person"
    assert machine.view["status"] == "unauthorized"
    assert machine.store.read("default").grant is None


def test_the_same_person_in_another_case(tmp_path: Path, server: OAuthServer) -> None:
    machine = Machine(tmp_path, server, server.public, scope=WITH_NAME, username=USER.upper())
    machine.authorize()
    assert machine.view["authorized_user_verified"] is True


def test_a_person_who_declines(public: Machine, server: OAuthServer) -> None:
    assert public.refusal(server.authorize(public.begin()["url"], USER, allow=False)) == "access_denied"
    assert public.view["status"] == "unauthorized"


def test_a_person_who_takes_the_mail_away(tmp_path: Path, server: OAuthServer) -> None:
    machine = Machine(tmp_path, server, server.public, scope=(*SCOPE, GOOGLE_SCOPE))
    back = server.authorize(machine.begin()["url"], USER, scopes=[MICROSOFT_SCOPE, "offline_access"])
    assert machine.refusal(back) == "scope_missing"
    assert GOOGLE_SCOPE in machine.view["error_description"]
    assert machine.store.read("default").grant is None


def test_a_scope_that_the_server_does_not_know(tmp_path: Path, server: OAuthServer) -> None:
    """It answers 200 and leaves it out."""
    machine = Machine(tmp_path, server, server.public, scope=(*SCOPE, "mail.fly"))
    assert machine.refusal(server.authorize(machine.begin()["url"], USER)) == "scope_missing"


def test_without_offline_access_there_is_nothing_to_keep(tmp_path: Path, server: OAuthServer) -> None:
    machine = Machine(tmp_path, server, server.public, scope=(MICROSOFT_SCOPE,))
    assert machine.refusal(server.authorize(machine.begin()["url"], USER)) == "no_refresh_token"


def test_offline_access_where_the_server_wants_a_consent_for_it(tmp_path: Path, server: OAuthServer) -> None:
    server.change(strict_offline=True)
    try:
        machine = Machine(tmp_path, server, server.public, scope=WITH_NAME)
        machine.authorize()
        assert machine.refresh_token
    finally:
        server.change(strict_offline=False)


def test_a_code_is_good_once(public: Machine, server: OAuthServer, tmp_path: Path) -> None:
    back = server.authorize(public.begin()["url"], USER)
    assert public.finish(back)
    assert public.refusal(back) == "nothing_pending"
    assert public.view["status"] == "authorized"


def test_the_servers_pkce_check_holds(public: Machine, server: OAuthServer) -> None:
    """A code that somebody else got, pasted with our state: our verifier does not fit it."""
    ours = public.begin()["url"]
    state = parse_qs(urlsplit(ours).query)["state"][0]
    theirs = ours.replace("code_challenge=", "code_challenge=" + "A" * 43 + "&x=")
    assert public.refusal(server.authorize(theirs, USER)) == "code_refused"
    assert state
    assert server.exchanges("token")[-1].detail


def test_the_address_of_another_authorization(public: Machine, server: OAuthServer, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Machine(tmp_path / "other", server, server.public)
    redirect = "http://127.0.0.1:8400/callback"
    public.begin(redirect)
    assert public.refusal(server.authorize(other.begin(redirect)["url"], USER)) == "other_authorization"
    assert server.exchanges("token") == []


def test_begin_here_and_finish_elsewhere(public: Machine, server: OAuthServer) -> None:
    """Between tasks, plays and machines: the store is all that there is."""
    url = public.begin()["url"]
    again = Machine.__new__(Machine)
    again.__dict__.update(public.__dict__, store=Store(PosixHost(), public.store.directory))
    assert again.begin()["url"] == url
    assert again.finish(server.authorize(url, USER))


@pytest.mark.parametrize(
    "redirect", ["http://127.0.0.1:8400", "http://localhost:8400/", "http://[::1]:8400/callback", "http://127.0.0.1:1/"]
)
def test_redirects(redirect: str, public: Machine, server: OAuthServer) -> None:
    back = server.authorize(public.begin(redirect)["url"], USER)
    assert back.startswith(redirect)
    assert public.finish(back)


@pytest.mark.parametrize(("provider", "scope"), [("microsoft365", MICROSOFT_SCOPE), ("google", GOOGLE_SCOPE)])
def test_the_habits_of_providers(provider: str, scope: str, tmp_path: Path, server: OAuthServer) -> None:
    """Their scopes and parameters, at this server's addresses."""
    machine = Machine(tmp_path, server, server.public, provider=provider, scope=())
    begun = machine.begin()
    back = server.authorize(begun["url"], USER)
    assert back.startswith("http://localhost:" if provider == "microsoft365" else "http://127.0.0.1:")
    assert machine.finish(back)
    told = machine.view
    assert scope in told["scope"]
    assert (told["status"], told["authorized_user_verified"]) == ("authorized", True)


# -- device code


def test_device_code(tmp_path: Path, server: OAuthServer) -> None:
    machine = Machine(tmp_path, server, server.device, grant="device_code", scope=WITH_NAME)
    begun = machine.begin()
    assert begun["user_code"] in begun["instructions"]
    pending = machine.store.read("default").pending
    assert pending
    assert pending.data["interval"] == 5, "this server names none"
    server.approve_device(begun["user_code"], USER)
    outcome = authorization.wait(machine.store, "default", machine.client, 20)
    assert outcome.refreshed
    assert (machine.view["status"], machine.view["authorized_user"]) == ("authorized", USER)
    assert len(server.exchanges("token", DEVICE)) == 1


def at_once(machine: Machine) -> None:
    """Let the next poll be due now, as if the time had passed."""
    state = machine.store.read("default")
    assert state.pending
    data = {**state.pending.data, "next_poll": 0}
    with machine.store.locked("default"):
        machine.store.write("default", state._replace(pending=state.pending._replace(data=data)))


def test_a_device_that_is_too_quick(tmp_path: Path, server: OAuthServer) -> None:
    """The real server's slow_down, kept for whoever polls next."""
    server.change(device_interval=5)
    machine = Machine(tmp_path, server, server.public, grant="device_code")
    user_code = machine.begin()["user_code"]
    for interval in (5, 10):
        at_once(machine)
        assert not machine.finish()
        pending = machine.store.read("default").pending
        assert pending
        assert pending.data["interval"] == interval
    assert [one.error for one in server.exchanges("token", DEVICE)] == ["authorization_pending", "slow_down"]
    server.approve_device(user_code, USER)
    server.change(device_interval=0)
    at_once(machine)
    assert machine.finish()


def test_a_device_that_is_denied(tmp_path: Path, server: OAuthServer) -> None:
    machine = Machine(tmp_path, server, server.device, grant="device_code")
    server.deny_device(machine.begin()["user_code"], USER)
    at_once(machine)
    assert machine.refusal() == "access_denied"
    assert machine.view["status"] == "unauthorized"


def test_a_device_code_that_expired_at_the_server(tmp_path: Path, server: OAuthServer) -> None:
    machine = Machine(tmp_path, server, server.device, grant="device_code")
    machine.begin()
    server.expire("device_code")
    at_once(machine)
    assert machine.refusal() == "expired_token"
    assert machine.begin()["user_code"]


def test_a_device_where_another_person_signs_in(tmp_path: Path, server: OAuthServer) -> None:
    machine = Machine(tmp_path, server, server.device, grant="device_code", scope=WITH_NAME)
    server.approve_device(machine.begin()["user_code"], OTHER)
    at_once(machine)
    assert machine.refusal() == "other_person"


# -- without a person


def test_client_credentials_by_secret(tmp_path: Path, server: OAuthServer) -> None:
    machine = Machine(tmp_path, server, server.service, grant="client_credentials", scope=(MICROSOFT_SCOPE,))
    assert machine.ensure()
    assert server.exchanges("token")[-1].authentication == "client_secret_post"
    found = server.look(machine.access_token)
    assert found
    assert found["client"] == server.service.client_id
    assert machine.view["status"] == "authorized"
    assert not machine.ensure()


def test_client_credentials_by_secret_in_a_header(tmp_path: Path, server: OAuthServer) -> None:
    """Where the metadata wants that: the secret's + / % & = and space arrive."""
    machine = Machine(tmp_path, server, server.service, grant="client_credentials", scope=(MICROSOFT_SCOPE,))
    client = machine.client(machine.registration)
    client._basic = True
    assert client.ask({"grant_type": "client_credentials", "scope": MICROSOFT_SCOPE})
    assert server.exchanges("token")[-1].authentication == "client_secret_basic"


def test_client_credentials_by_key(tmp_path: Path, server: OAuthServer) -> None:
    machine = Machine(tmp_path, server, server.signing, grant="client_credentials", scope=(MICROSOFT_SCOPE,))
    assert machine.ensure()
    assert server.exchanges("token")[-1].authentication == "private_key_jwt"
    assert machine.ensure(force=True), "each assertion is another one"


def test_jwt_bearer(tmp_path: Path, server: OAuthServer) -> None:
    machine = Machine(tmp_path, server, server.service_account, grant="jwt_bearer", scope=(GOOGLE_SCOPE,))
    assert machine.ensure()
    found = server.look(machine.access_token)
    assert found
    assert found["user"] == USER
    assert server.exchanges("token", JWT_BEARER)[-1].status == 200


def test_a_service_account_as_google_hands_it_out(tmp_path: Path, server: OAuthServer) -> None:
    account = server.service_account
    record = {"type": "service_account", "client_email": account.client_id, "private_key": account.key}
    machine = Machine(tmp_path, server, account, provider="google", grant="jwt_bearer", scope=(), client_id="")
    Path(machine.registration.jwt_key_file).write_text(json.dumps(record))
    assert machine.ensure()
    assert machine.view["scope"] == [GOOGLE_SCOPE]


@pytest.mark.parametrize(
    ("kind", "grant", "cause"),
    [("signing", "client_credentials", "client_refused"), ("service_account", "jwt_bearer", "assertion_refused")],
)
def test_a_key_that_is_another_one(kind: str, grant: str, cause: str, tmp_path: Path, server: OAuthServer) -> None:
    wrong = getattr(server, kind)._replace(key=server.relay.key or getattr(server, _other(kind)).key)
    machine = Machine(tmp_path, server, wrong, grant=grant, scope=(GOOGLE_SCOPE,))
    assert not machine.ensure()
    assert (machine.view["status"], machine.view["cause"]) == ("misconfigured", cause)


def _other(kind: str) -> str:
    return {"signing": "service_account", "service_account": "signing"}[kind]


def test_a_secret_that_is_wrong(tmp_path: Path, server: OAuthServer) -> None:
    machine = Machine(
        tmp_path,
        server,
        server.service,
        grant="client_credentials",
        scope=(MICROSOFT_SCOPE,),
        client_secret=Secret("wr0ng-secret"),
    )
    assert not machine.ensure()
    assert (machine.view["status"], machine.view["cause"]) == ("misconfigured", "client_refused")
    assert "wr0ng" not in json.dumps(machine.view)


def test_the_clock_is_off(tmp_path: Path, server: OAuthServer) -> None:
    """A server that judges by its own clock, and says which time it is."""
    machine = Machine(tmp_path, server, server.service_account, grant="jwt_bearer", scope=(GOOGLE_SCOPE,))

    def late(registration: Registration) -> TokenClient:
        return TokenClient(registration, PosixHost(), now=lambda: time.time() - 172800)

    assert not tokens.ensure(machine.store, "default", late).refreshed
    assert machine.view["cause"] == "clock"


# -- what becomes of a grant


def test_refresh_with_rotation(public: Machine, server: OAuthServer) -> None:
    public.authorize()
    first = public.refresh_token
    assert public.ensure(force=True)
    second = public.refresh_token
    assert first != second
    assert public.ensure(force=True)
    used = [one.fields["refresh_token"] for one in server.refreshes()]
    assert used == [fingerprint(first), fingerprint(second)]
    found = server.look(public.refresh_token)
    assert found
    assert found["usable"]
    assert "scope" not in server.refreshes()[-1].fields


def test_refresh_without_rotation(public: Machine, server: OAuthServer) -> None:
    server.change(rotate=False)
    public.authorize()
    first = public.refresh_token
    assert public.ensure(force=True)
    assert public.refresh_token == first


def test_a_refresh_token_that_somebody_else_used(public: Machine, server: OAuthServer) -> None:
    """Reuse detection ends the whole grant; what we hold is kept aside."""
    public.authorize()
    stolen = public.refresh_token
    server.token(server.public, grant_type="refresh_token", refresh_token=stolen)
    assert not public.ensure(force=True)
    assert public.view["status"] == "revoked"
    aside = public.store.read("default").aside
    assert aside[-1].held.refresh_token == Secret(stolen)
    public.authorize()
    assert public.view["status"] == "authorized"


def test_a_grant_that_was_revoked_behind_our_back(public: Machine, server: OAuthServer) -> None:
    public.authorize()
    server.revoke(user=USER)
    assert not public.ensure(force=True)
    assert public.view["status"] == "revoked"
    assert "authorize again" in public.view["next_step"]


def test_revocation(public: Machine, server: OAuthServer) -> None:
    public.authorize()
    held = public.refresh_token, public.access_token
    assert tokens.remove(public.store, "default", public.client(public.registration)).warnings == ()
    for token in held:
        found = server.look(token)
        assert not (found and found["usable"])
    revoked = server.exchanges("revocation")[-1]
    assert (revoked.fields["token"], revoked.fields["token_type_hint"]) == (fingerprint(held[0]), "refresh_token")
    assert not public.store.host.exists(public.store.path("default"))


def test_a_server_that_cannot_be_asked_to_revoke(public: Machine, server: OAuthServer) -> None:
    public.authorize()
    server.down()
    try:
        with pytest.raises(Refused) as refused:
            tokens.remove(public.store, "default", public.client(public.registration))
    finally:
        server.up()
    assert refused.value.cause.status == "unreachable"
    assert public.refresh_token


def test_introspection(tmp_path: Path, server: OAuthServer) -> None:
    machine = Machine(tmp_path, server, server.confidential, introspection_url=server.introspection_url)
    machine.authorize()
    client = machine.client(machine.registration)
    found = client.introspect(machine.access_token)
    assert found
    assert found["active"] is True
    assert machine.view["authorized_user_verified"] is (found.get("username") == USER)
    server.revoke(user=USER)
    assert client.introspect(machine.access_token) == {"active": False}
    assert machine.view["status"] == "authorized", "asking spends nothing and changes nothing"


def test_a_token_that_is_far_longer_than_usual(public: Machine, server: OAuthServer) -> None:
    server.change(access_token_length=6000)
    try:
        public.authorize()
        assert len(public.access_token) == 6000
    finally:
        server.change(access_token_length=43)
