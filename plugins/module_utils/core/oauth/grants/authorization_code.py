# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""A person in a browser, who is sent back with a code (RFC 6749 4.1), with PKCE (RFC 7636)."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from ..answers import Complaint, complaint
from ..causes import CAUSES
from ..client import Refused
from ..person import named
from ..refusals import cause_of
from ..state import Pending
from .base import Clock, PersonGrant, Reply

if TYPE_CHECKING:
    from ..client import TokenClient
    from ..registration import Registration

LIFE = 86400  # seconds that an address may wait for its person; the code that comes back lives for minutes
ANSWER = "authorization_response"


class AuthorizationCode(PersonGrant):
    name = "authorization_code"

    def begin(self, registration: Registration, client: TokenClient, now: Clock, redirect_uri: str = "") -> Pending:
        verifier = secrets.token_urlsafe(64)  # 86 characters; RFC 7636 4.1 wants 43 to 128
        state = secrets.token_urlsafe(32)
        scope = registration.requested_scope
        row = registration.provider_row
        asked = {
            "response_type": "code",
            "client_id": registration.client_id,
            "redirect_uri": redirect_uri,
            "scope": row.scope_separator.join(scope),
            "state": state,
            "code_challenge": challenge(verifier),
            "code_challenge_method": "S256",
            "nonce": secrets.token_urlsafe(16) if "openid" in scope else "",
            "login_hint": registration.expected_user,
            "prompt": "consent" if row.consent_for_offline and "offline_access" in scope else "",
            **dict(row.authorization_parameters),
        }
        asked = {name: value for name, value in asked.items() if value}
        url = _with_query(client.endpoint("authorization_url"), asked)
        begun = int(now())
        data = {
            "url": url,
            "state": state,
            "verifier": verifier,
            "nonce": asked.get("nonce", ""),
            "redirect_uri": redirect_uri,
        }
        return Pending(self.name, registration.identity, begun, begun + LIFE, data)

    def finish(
        self, registration: Registration, pending: Pending, answer: str, client: TokenClient, now: Clock
    ) -> Reply | Pending:
        """With the address that the browser ended at (or a code, where the page shows nothing else)."""
        if not answer.strip():
            return pending
        if now() >= pending.expires_at:
            raise Refused(CAUSES["expired_token"], ANSWER, detail="the address is a day old", sent=False)
        code = self._code(answer.strip(), pending, client)
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": pending.data["redirect_uri"],
            "code_verifier": pending.data["verifier"],
        }
        said = client.ask(form)
        return named(Reply.of(said), {**said, "nonce": pending.data["nonce"]}, registration, client)

    def _code(self, answer: str, pending: Pending, client: TokenClient) -> str:
        returned = read_answer(answer)
        redirect = pending.data["redirect_uri"]
        if returned is None:
            return _bare_code(answer, redirect)
        client.learn(returned.get("code"))
        if returned.address and not _same_place(returned.address, redirect):
            raise _other(f"the browser should have ended at {redirect}")
        if not _same(returned.get("state"), pending.data["state"]):
            raise _other("it has no state" if not returned.get("state") else "its state belongs to another one")
        _check_issuer(returned, client)
        told = complaint(returned.values)
        if told is not None:
            raise _declined(told, client)
        if not returned.get("code"):
            raise Refused(CAUSES["answer_incomplete"], ANSWER, detail="there is no code in it", sent=False)
        return returned.get("code")


class Returned(NamedTuple):
    """What the browser brought back: the parameters, and the address that they stood in ("": only they were given)."""

    address: str
    values: Mapping[str, str]

    def get(self, name: str) -> str:
        return self.values.get(name, "")


def read_answer(answer: str) -> Returned | None:
    """What a pasted text or a request's target says; None for a bare code."""
    text = answer.strip().strip("'\"<>")
    address, mark, query = text.partition("?")
    if not mark:
        address, query = ("", text) if "=" in text and "://" not in text.partition("=")[0] else (text, "")
        if not query and "://" not in text:
            return None
    if "code=" not in query and "error=" not in query and "state=" not in query and "://" not in address:
        return None  # a code may hold "?" and "="
    pairs = parse_qsl(query.partition("#")[0], keep_blank_values=True)
    return Returned(address, _once(pairs))


def _once(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """A parameter that comes twice is none (RFC 6749 3.1)."""
    names = [name for name, _value in pairs]
    return {name: value for name, value in pairs if names.count(name) == 1}


def challenge(verifier: str) -> str:
    """S256 of RFC 7636 4.2."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode("ascii")).digest()).rstrip(b"=").decode()


def _bare_code(answer: str, redirect: str) -> str:
    """A code alone has no state; the verifier ties it to this authorization all the same (RFC 9700 4.5.3.1)."""
    if not answer.isascii() or not answer.isprintable() or " " in answer:
        detail = f"that begins with {redirect}, and has the code in it"
        raise Refused(CAUSES["answer_incomplete"], ANSWER, detail=detail, sent=False)
    return answer


def _same_place(address: str, redirect: str) -> bool:
    """Did the browser end where the server was told to send it? A browser adds the "/" of an empty path."""
    try:
        ended, sent = urlsplit(address), urlsplit(redirect)
        same_port = ended.port == sent.port
    except ValueError:
        return False
    same_host = (ended.scheme, ended.hostname) == (sent.scheme, sent.hostname)
    return same_host and same_port and (ended.path or "/") == (sent.path or "/")


def _same(one: str, other: str) -> bool:
    return secrets.compare_digest(one.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass"))


def _check_issuer(returned: Returned, client: TokenClient) -> None:
    """RFC 9207 2.4: an answer of another server is no answer."""
    expected, found = client.issuer, returned.get("iss")
    if found and expected and found != expected:
        raise Refused(CAUSES["issuer_mismatch"], "issuer", detail=client.told(f"it is {found}"), sent=False)
    if expected and not found and client.metadata().get("authorization_response_iss_parameter_supported") is True:
        raise Refused(CAUSES["issuer_mismatch"], "issuer", detail="the answer does not name its issuer", sent=False)


def _declined(told: Complaint, client: TokenClient) -> Refused:
    """The server's no, which came by the browser (RFC 6749 4.1.2.1)."""
    cause = cause_of(told.error, told.suberror, told.codes, 400, "authorization")
    return Refused(
        cause,
        "oauth_grant",
        error=client.told(told.error),
        suberror=client.told(told.suberror),
        description=client.told(told.description),
        codes=told.codes,
        sent=False,
    )


def _other(detail: str) -> Refused:
    return Refused(CAUSES["other_authorization"], ANSWER, detail=detail, sent=False)


def _with_query(url: str, asked: Mapping[str, str]) -> str:
    """The endpoint may have a query of its own, which stays (RFC 6749 3.1)."""
    parts = urlsplit(url)
    query = "&".join(part for part in (parts.query, urlencode(asked)) if part)
    return urlunsplit(parts._replace(query=query))
