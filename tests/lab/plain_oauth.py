# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The smallest correct authorization server: what lab.error_server answers where no error is scripted.

Nobody logs in: the one user agrees to everything, at once in the browser's flow, by approve() in the device's.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit, urlunsplit


class Answer(NamedTuple):
    """An HTTP answer. deed: what happens to it on its way, a key of lab.error_server.DEEDS, or empty.

    wait: seconds before it is sent.
    """

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    deed: str = ""
    wait: float = 0


class Request(NamedTuple):
    """A request as it arrived. headers have small names; form is the decoded body, query that of the address.

    endpoint: the last part of the path: token, authorize, devicecode, revoke, introspect, ... time: epoch seconds.
    """

    time: float
    method: str
    path: str
    endpoint: str
    headers: dict[str, str]
    query: dict[str, str]
    form: dict[str, str]
    body: bytes
    tls: bool

    @property
    def client(self) -> tuple[str, str]:
        """Client id and secret, from the form or from Basic authentication still form-encoded; empty where missing."""
        kind, _space, value = self.headers.get("authorization", "").partition(" ")
        if kind.lower() == "basic":
            name, _colon, secret = base64.b64decode(value).decode().partition(":")
            return name, secret
        return self.form.get("client_id", ""), self.form.get("client_secret", "")


@dataclass
class Grant:
    """What the user agreed to."""

    client_id: str
    scope: str
    challenge: str = ""
    redirect_uri: str = ""
    state: str = "approved"  # of a device code: pending, approved, denied, expired
    used: bool = False


@dataclass
class PlainOAuth:
    """The server's memory and rules.

    clients: id -> secret ("" for a public one); none given: any client is known. rotate: a new refresh token with every
    use; the old one stays good, as at Microsoft. issuer: filled in by the HTTP server.
    """

    clients: dict[str, str] = field(default_factory=dict)
    access_token_seconds: int = 3600
    device_code_seconds: int = 900
    interval: int = 1
    rotate: bool = True
    issuer: str = ""
    grants: dict[str, Grant] = field(default_factory=dict)  # refresh token -> grant
    access_tokens: dict[str, Grant] = field(default_factory=dict)
    codes: dict[str, Grant] = field(default_factory=dict)
    devices: dict[str, Grant] = field(default_factory=dict)  # device code -> grant
    user_codes: dict[str, str] = field(default_factory=dict)  # user code -> device code

    def answer(self, request: Request) -> Answer:
        """Do what the request asks for."""
        return _ENDPOINTS.get(request.endpoint, PlainOAuth._unknown)(self, request)

    def approve(self, user_code: str) -> None:
        """The person at the device agrees."""
        self.devices[self.user_codes[user_code]].state = "approved"

    def deny(self, user_code: str) -> None:
        """The person at the device refuses."""
        self.devices[self.user_codes[user_code]].state = "denied"

    def issue_refresh_token(self, client_id: str, scope: str) -> str:
        """A refresh token as if it had been granted before."""
        return self._refresh_token(Grant(client_id, scope))

    # -- endpoints

    def _unknown(self, _request: Request) -> Answer:
        return Answer(404, b"not found", (("Content-Type", "text/plain"),))

    def _discovery(self, _request: Request) -> Answer:
        """RFC 8414, 2."""
        places = {
            "authorization_endpoint": "authorize",
            "token_endpoint": "token",
            "device_authorization_endpoint": "devicecode",
            "revocation_endpoint": "revoke",
            "introspection_endpoint": "introspect",
        }
        known = {key: f"{self.issuer}/{name}" for key, name in places.items()}
        supported = {"code_challenge_methods_supported": ["S256"], "response_types_supported": ["code"]}
        return as_json({"issuer": self.issuer, **known, **supported})

    def _authorize(self, request: Request) -> Answer:
        asked = request.query
        code = secrets.token_urlsafe(16)
        self.codes[code] = Grant(
            asked.get("client_id", ""), asked.get("scope", ""), asked.get("code_challenge", ""), asked["redirect_uri"]
        )
        query = {"code": code, "iss": self.issuer} | ({"state": asked["state"]} if "state" in asked else {})
        place = urlunsplit(urlsplit(asked["redirect_uri"])._replace(query=urlencode(query)))
        return Answer(302, b"", (("Location", place),))

    def _device(self, request: Request) -> Answer:
        device, user_code = secrets.token_urlsafe(16), secrets.token_hex(4).upper()
        self.devices[device] = Grant(request.client[0], request.form.get("scope", ""), state="pending")
        self.user_codes[user_code] = device
        return as_json(
            {
                "device_code": device,
                "user_code": user_code,
                "verification_uri": f"{self.issuer}/device",
                "expires_in": self.device_code_seconds,
                "interval": self.interval,
                "message": f"Open {self.issuer}/device and enter {user_code}.",
            }
        )

    def _revoke(self, request: Request) -> Answer:
        """RFC 7009, 2.2: also for a token that is not known."""
        self.grants.pop(request.form.get("token", ""), None)
        return Answer(200)

    def _introspect(self, request: Request) -> Answer:
        grant = self.access_tokens.get(request.form.get("token", ""))
        return as_json(
            {"active": True, "scope": grant.scope, "client_id": grant.client_id} if grant else {"active": False}
        )

    def _token(self, request: Request) -> Answer:
        name, secret = request.client
        if self.clients and self.clients.get(name) != secret:
            return error("invalid_client", 401)
        handler = _GRANT_TYPES.get(request.form.get("grant_type", ""))
        return handler(self, request) if handler else error("unsupported_grant_type")

    # -- grant types

    def _redeem_code(self, request: Request) -> Answer:
        grant = self.codes.get(request.form.get("code", ""))
        if not grant or grant.used or grant.redirect_uri != request.form.get("redirect_uri"):
            return error("invalid_grant")
        if grant.challenge and grant.challenge != _challenge(request.form.get("code_verifier", "")):
            return error("invalid_grant", error_description="PKCE verification failed")
        grant.used = True
        return self._issue(grant, with_refresh_token=True)

    def _redeem_device_code(self, request: Request) -> Answer:
        grant = self.devices.get(request.form.get("device_code", ""))
        if not grant or grant.used:
            return error("invalid_grant")
        refusals = {"pending": "authorization_pending", "denied": "access_denied", "expired": "expired_token"}
        if grant.state in refusals:
            return error(refusals[grant.state])
        grant.used = True
        return self._issue(grant, with_refresh_token=True)

    def _refresh(self, request: Request) -> Answer:
        grant = self.grants.get(request.form.get("refresh_token", ""))
        if not grant:
            return error("invalid_grant")
        return self._issue(grant, with_refresh_token=self.rotate)

    def _issue_to_client(self, request: Request) -> Answer:
        return self._issue(Grant(request.client[0], request.form.get("scope", "")), with_refresh_token=False)

    def _issue(self, grant: Grant, with_refresh_token: bool) -> Answer:
        token = secrets.token_urlsafe(24)
        self.access_tokens[token] = grant
        told = {"access_token": token, "token_type": "Bearer", "expires_in": self.access_token_seconds}
        if with_refresh_token:
            told["refresh_token"] = self._refresh_token(grant)
        return as_json(told | ({"scope": grant.scope} if grant.scope else {}))

    def _refresh_token(self, grant: Grant) -> str:
        token = secrets.token_urlsafe(24)
        self.grants[token] = grant
        return token


def as_json(value: Any, status: int = 200, **headers: str) -> Answer:
    """An answer in JSON, not to be cached (RFC 6749, 5.1)."""
    more = tuple((name.replace("_", "-"), text) for name, text in headers.items())
    head = (("Content-Type", "application/json;charset=UTF-8"), ("Cache-Control", "no-store"))
    return Answer(status, json.dumps(value).encode(), head + more)


def error(code: str, status: int = 400, **fields: Any) -> Answer:
    """An error answer (RFC 6749, 5.2)."""
    return as_json({"error": code, **fields}, status)


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


_ENDPOINTS: dict[str, Callable[[PlainOAuth, Request], Answer]] = {
    "authorize": PlainOAuth._authorize,
    "devicecode": PlainOAuth._device,
    "introspect": PlainOAuth._introspect,
    "oauth-authorization-server": PlainOAuth._discovery,
    "openid-configuration": PlainOAuth._discovery,
    "revoke": PlainOAuth._revoke,
    "token": PlainOAuth._token,
}
_GRANT_TYPES: dict[str, Callable[[PlainOAuth, Request], Answer]] = {
    "authorization_code": PlainOAuth._redeem_code,
    "client_credentials": PlainOAuth._issue_to_client,
    "refresh_token": PlainOAuth._refresh,
    "urn:ietf:params:oauth:grant-type:device_code": PlainOAuth._redeem_device_code,
    "urn:ietf:params:oauth:grant-type:jwt-bearer": PlainOAuth._issue_to_client,
}
