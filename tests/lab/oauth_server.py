# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real authorization server for tests: oidc-provider, run by Node.js, with people, mail scopes and a journal.

with OAuthServer(users={"ann@example.test": "secret"}) as server: server.token_url, server.public.client_id, ...
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

from driver import node
from driver.environments import Unavailable

from . import oauth_journal as journals
from .journal import Journal
from .oauth_clients import Client, private_key, public_jwk
from .oauth_journal import Exchange, fingerprint
from .visitor import Visitor

if TYPE_CHECKING:
    from .authority import Certificate
    from .space import Space

__all__ = ["Client", "Exchange", "OAuthServer", "Settings", "fingerprint", "why_unavailable"]
SOURCE = Path(__file__).with_name("oidc")
START_TIMEOUT = 30
MICROSOFT_SCOPE = "https://outlook.office.com/SMTP.Send"
MICROSOFT_APP_SCOPE = "https://outlook.office365.com/.default"
GOOGLE_SCOPE = "https://mail.google.com/"
FASTMAIL_SCOPE = "https://www.fastmail.com/dev/protocol-smtp"
SCOPES = (
    *("openid", "email", "profile", "offline_access", "mail-w", "smtp"),
    *(MICROSOFT_SCOPE, MICROSOFT_APP_SCOPE, GOOGLE_SCOPE, FASTMAIL_SCOPE),
)
CODE = "authorization_code"
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
# Paths at any port of loopback that the clients with a person may be sent back to.
REDIRECT_PATHS = ("", "/", "/callback", "/oauth/callback", "/oauth2/callback", "/authorized")
USERS = {"fleet@example.test": "secret of fleet", "other@example.test": "secret of other"}


def why_unavailable() -> str:
    """Why the server cannot be had here, in one sentence; empty when it can (it is installed then)."""
    try:
        node.node()
        node.modules(SOURCE)
    except Unavailable as problem:
        lines = str(problem).splitlines()
        said = next((line for line in lines if line.startswith(("ERROR:", "npm error"))), lines[-1])
        return f"the authorization server could not be installed: {said}"
    return ""


@dataclass
class Settings:
    """How the server behaves; all of it can change while it runs. Times are seconds unless named otherwise."""

    access_token_seconds: int = 3600
    refresh_token_seconds: int = 90 * 86400
    code_seconds: int = 60
    device_code_seconds: int = 900
    device_interval: int = 0  # told, and polling faster is answered with slow_down; 0: neither
    rotate: bool = True  # a new refresh token with every use
    reuse_detection: bool = True  # a used one ends the whole grant; without it used ones stay good (as Microsoft's)
    strict_offline: bool = False  # offline_access only together with prompt=consent, as OpenID Connect has it
    access_token_length: int = 43  # characters
    delay_ms: int = 0  # before a token or device request is looked at
    answer_delay_ms: int = 0  # after a token request was carried out, before its answer is sent
    down_status: int = 0  # every request is answered with this status and a page; 0: not down
    token_omit: list[str] = field(default_factory=list)  # keys left out of token answers: "expires_in"
    token_extra: dict[str, Any] = field(default_factory=dict)  # put into token answers, over what is there


class OAuthServer:
    """The server, and its clients:

    public: PKCE, any loopback port (see REDIRECT_PATHS), device code, refresh. device: the device code alone, public.
    confidential: as public, with a secret that must be form-encoded; client_secret_post and _basic. service: client
    credentials, with a secret. signing: client credentials, by private_key_jwt. service_account: JWT bearer (RFC 7523)
    for users and scopes like a Google service account with delegation. relay: introspects tokens.
    users: login name (which is the mailbox) -> password. host: the address to listen on, in the network of in_net_of
    when that is given to start(). name: the name in all URLs, host unless told. certificate: https, with this.
    aliases: addresses of a provider that it stands for -> the path that answers there ("/auth", "/token",
    "/device/auth", "/token/revocation", "/token/introspection", "/me"); their names have to lead here and be in the
    certificate.
    The other options are those of Settings.
    """

    def __init__(
        self,
        users: Mapping[str, str] | None = None,
        host: str = "127.0.0.1",
        name: str = "",
        port: int = 0,
        certificate: Certificate | None = None,
        ca_file: Path | None = None,
        scopes: tuple[str, ...] = SCOPES,
        aliases: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        self.users = dict(USERS if users is None else users)
        self.host, self.name, self.port, self.scopes = host, name or host, port, scopes
        self.settings = Settings(**settings)
        self.issuer = ""
        self._certificate, self._ca_file, self._aliases = certificate, ca_file, dict(aliases or {})
        self._space: Space | None = None
        self._process: _Process | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="oauth-"))
        self._journal = Journal(self._folder / "journal.jsonl")
        self._seen = 0
        self._register()

    def _register(self) -> None:
        mailbox = next(iter(self.users), "fleet@example.test")
        self.public = Client("fleet-public")
        self.device = Client("fleet-device")
        # RFC 6749, 2.3.1: what is not form-encoded arrives as another secret
        self.confidential = Client("fleet-confidential", "s+cr/t %41&=" + secrets.token_urlsafe(12))
        self.service = Client("fleet-service", "s+rv/ce %42&=" + secrets.token_urlsafe(12), subject=mailbox)
        self.signing = Client("fleet-signing", key=private_key(), subject=mailbox)
        self.service_account = Client("robot@project.example.test", key=private_key(), subject=mailbox)
        self.relay = Client("relay", secrets.token_urlsafe(24))

    # -- life

    def __enter__(self) -> OAuthServer:
        return self if self._process else self.start()

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def start(self, in_net_of: Space | None = None) -> OAuthServer:
        """Listen, in this machine or in the network that a tree has for the address, as Relay.start does.

        Raises RuntimeError with the server's words when it cannot, driver.environments.Unavailable without Node.js.
        """
        self._space = in_net_of.network_of([self.host]) if in_net_of else None
        for source in SOURCE.glob("*.mjs"):
            shutil.copy(source, self._folder)
        (self._folder / "node_modules").symlink_to(node.modules(SOURCE))
        config = self._folder / "config.json"
        config.touch(0o600)
        config.write_text(json.dumps(self._config()))
        command = [str(node.node()), str(self._folder / "server.mjs"), str(config)]
        self._process = _Process(self._space.net_command(command) if self._space else command, self._journal)
        listening = self._journal.events()[0]
        self.port, self.issuer = listening["port"], listening["issuer"]
        return self

    def stop(self) -> None:
        """End it, and remove what is temporary."""
        if self._process:
            self._process.stop()
            self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _config(self) -> dict[str, Any]:
        account = self.service_account
        return {
            "host": self.host,
            "name": self.name,
            "port": self.port,
            "folder": str(self._folder),
            "journal": str(self._journal.path),
            "settings": asdict(self.settings),
            "users": self.users,
            "scopes": self.scopes,
            "aliases": self._aliases,
            "clients": self._clients(),
            "mailboxes": {client.client_id: client.subject for client in (self.service, self.signing)},
            "service_accounts": {
                account.client_id: {"jwk": public_jwk(account.key), "scopes": self.scopes, "users": list(self.users)}
            },
            "certificate": self._certificate
            and {"chain": str(self._certificate.chain), "key": str(self._certificate.key)},
        }

    def _clients(self) -> list[dict[str, Any]]:
        # a trailing slash and its absence are two redirect URIs (RFC 8252, 7.3: the port alone may differ)
        back = [f"http://{host}{path}" for host in ("127.0.0.1", "localhost", "[::1]") for path in REDIRECT_PATHS]
        person = {"grant_types": [CODE, "refresh_token", DEVICE], "response_types": ["code"], "redirect_uris": back}
        native = {"application_type": "native", **person}
        nothing: dict[str, Any] = {"response_types": [], "redirect_uris": []}
        secret, own = {"token_endpoint_auth_method": "client_secret_post"}, {"grant_types": ["client_credentials"]}
        open_ = {"token_endpoint_auth_method": "none"}
        signed = {"token_endpoint_auth_method": "private_key_jwt", "token_endpoint_auth_signing_alg": "RS256"}
        keys = {"jwks": {"keys": [public_jwk(self.signing.key)]}}
        return [
            _client(self.public, "Fleet mail", native | open_),
            _client(self.device, "Fleet device", nothing | open_ | {"grant_types": [DEVICE, "refresh_token"]}),
            _client(self.confidential, "Fleet mail (confidential)", native | secret),
            _client(self.service, "Fleet service", nothing | secret | own),
            _client(self.signing, "Fleet service (signing)", nothing | signed | keys | own),
            _client(self.service_account, "Robot", nothing | open_ | {"grant_types": [JWT_BEARER]}),
            _client(self.relay, "Mail relay", nothing | secret | {"grant_types": []}),
        ]

    # -- addresses

    @property
    def authorization_url(self) -> str:
        return f"{self.issuer}/auth"

    @property
    def token_url(self) -> str:
        return f"{self.issuer}/token"

    @property
    def device_authorization_url(self) -> str:
        return f"{self.issuer}/device/auth"

    @property
    def revocation_url(self) -> str:
        return f"{self.issuer}/token/revocation"

    @property
    def introspection_url(self) -> str:
        return f"{self.issuer}/token/introspection"

    # -- switches

    def change(self, **settings: Any) -> None:
        """Behave otherwise from now on. Raises TypeError for an unknown setting."""
        self.settings = replace(self.settings, **settings)
        self._do("change", settings=asdict(self.settings))

    def down(self, status: int = 503) -> None:
        """Answer every request with this status and an HTML page, until up()."""
        self.change(down_status=status)

    def refuse_connections(self) -> None:
        """Close the port and every connection, until up()."""
        self._do("refuse", connections=True)

    def up(self) -> None:
        """Serve again."""
        self._do("refuse", connections=False)
        self.change(down_status=0)

    def pass_time(self, seconds: float = 0, days: float = 0) -> None:
        """Set the server's clock forward."""
        self._do("pass", seconds=seconds + days * 86400)

    def expire(self, kind: str = "", value: str | None = None, user: str | None = None) -> int:
        """End the life of tokens; return how many.

        kind: access_token, refresh_token, authorization_code or device_code; all of them unless told.
        """
        return int(self._do("expire", which=_given(kind=kind or None, value=value, user=user)))

    def revoke(self, user: str | None = None, client: Client | None = None) -> int:
        """Withdraw the grants of a user, of a client or all, behind the client's back; return how many."""
        return int(self._do("revoke", which=_given(user=user, client=client and client.client_id)))

    def look(self, token: str) -> dict[str, Any] | None:
        """What the server knows of a token or code, spending nothing; None when it does not know it.

        Keys: kind, user, client, scope, expires_at, expired, consumed, usable.
        """
        found = self._do("look", value=token)
        return dict(found) if found else None

    def _do(self, command: str, **arguments: Any) -> Any:
        assert self._process, "the server does not run"
        return self._process.do({"do": command, **arguments})

    # -- the person

    def visitor(self, user: str) -> Visitor:
        """Somebody who can log in."""
        return Visitor(self.issuer, self.host, user, self.users[user], self._ca_file, self._space)

    def authorize(self, url: str, user: str, allow: bool = True, scopes: list[str] | None = None) -> str:
        """Log in at an authorization address and decide, without a browser; return the redirect address, not visited.

        scopes: those that the person leaves ticked. Raises lab.visitor.Refused with the page's text.
        """
        return self.visitor(user).authorize(url, allow, scopes)

    def approve_device(self, user_code: str, user: str) -> str:
        """Enter a device's code, log in and allow; return the last page's text."""
        return self.visitor(user).connect_device(self._device_url(user_code))

    def deny_device(self, user_code: str, user: str) -> str:
        """Enter a device's code and refuse."""
        return self.visitor(user).connect_device(self._device_url(user_code), allow=False)

    def _device_url(self, user_code: str) -> str:
        return f"{self.issuer}/device?{urlencode({'user_code': user_code})}"

    def grant_for(self, user: str, scope: str, client: Client | None = None) -> dict[str, Any]:
        """Authorize and redeem the code, as a client would; return the token answer."""
        client, redirect, verifier = client or self.public, "http://127.0.0.1:1/callback", secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {"response_type": "code", "client_id": client.client_id, "redirect_uri": redirect, "scope": scope}
        proof = {"code_challenge": challenge, "code_challenge_method": "S256"}
        back = self.authorize(f"{self.authorization_url}?{urlencode(asked | proof)}", user)
        code = parse_qs(urlsplit(back).query)["code"][0]
        return self.token(client, grant_type=CODE, code=code, redirect_uri=redirect, code_verifier=verifier)

    def token(self, client: Client, **form: str) -> dict[str, Any]:
        """A token request by a public client or one with a secret; the answer's JSON, an error's too."""
        return self.post(self.token_url, _given(**form, **_credentials(client)))

    def post(self, url: str, form: Mapping[str, Any]) -> dict[str, Any]:
        """POST a form to one of the server's addresses, in its network; return the answer's JSON."""
        return self.visitor(next(iter(self.users))).post(url, form)

    # -- what it saw

    def exchanges(self, endpoint: str = "", grant_type: str = "") -> list[Exchange]:
        """The requests since the start or the last forget(), oldest first."""
        return [
            exchange
            for exchange in journals.exchanges(self._journal.events()[self._seen :])
            if endpoint in ("", exchange.endpoint) and grant_type in ("", exchange.grant_type)
        ]

    def refreshes(self) -> list[Exchange]:
        """The requests to refresh a token."""
        return self.exchanges("token", "refresh_token")

    def forget(self) -> None:
        """Leave out of exchanges() what came until now."""
        self._seen = len(self._journal.events())

    def wait_for(self, condition: Callable[[], bool], timeout: float = 15) -> None:
        """Wait until the condition holds. Raises TimeoutError with what was seen."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the authorization server saw: {self.exchanges()}")
            time.sleep(0.01)


class _Process:
    """The server's process. It ends with its standard input, however this process ends."""

    def __init__(self, command: list[str], journal: Journal) -> None:
        self._turn = threading.Lock()
        with tempfile.TemporaryFile() as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={"PATH": os.environ.get("PATH", os.defpath)},
            )
            deadline = time.monotonic() + START_TIMEOUT
            while not journal.events():
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    errors.seek(0)
                    raise RuntimeError(f"the server did not start: {errors.read().decode(errors='replace')[-4000:]}")
                time.sleep(0.01)

    def do(self, command: dict[str, Any]) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        with self._turn:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline())
        if "problem" in answer:
            raise RuntimeError(answer["problem"])
        return answer["result"]

    def stop(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def _client(client: Client, name: str, metadata: dict[str, Any]) -> dict[str, Any]:
    named = {"client_id": client.client_id, "client_name": name, **metadata}
    return named | ({"client_secret": client.client_secret} if client.client_secret else {})


def _credentials(client: Client) -> dict[str, str | None]:
    return {"client_id": client.client_id, "client_secret": client.client_secret or None}


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
