# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ready-made steps for lab.error_server: what authorization servers and what stands before them really answer.

Those of Microsoft are in lab.microsoft_errors, and here too as aadsts().
Steps that refuse or break do not carry out the request; those that change a proper answer do.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from .authority import Authority, Certificate
from .error_server import Step, instead
from .microsoft_errors import AADSTS, aadsts
from .plain_oauth import Answer, Request, as_json, error

MEGABYTE = 1 << 20


# -- errors of OAuth itself (RFC 6749, 5.2; RFC 8628, 3.5)


def oauth_error(code: str, status: int = 400, **fields: Any) -> Step:
    """An error in JSON: invalid_grant, slow_down, access_denied, authorization_declined, expired_token, ..."""
    return instead(error(code, status, **fields))


# -- what stands before the server, or is no server of OAuth at all


def html(status: int, text: str = "Bad Gateway") -> Step:
    """A web page."""
    page = f"<!DOCTYPE html>\n<html><head><title>{text}</title></head><body><h1>{text}</h1></body></html>\n"
    return instead(Answer(status, page.encode(), (("Content-Type", "text/html; charset=utf-8"),)))


def retry_after(status: int = 429, seconds: float = 2, as_date: bool = False, code: str = "") -> Step:
    """429 or 503 with Retry-After (RFC 9110, 10.2.3) in seconds or as a date. code: an OAuth error, else a page."""

    def step(request: Request, proper: Callable[[], Answer]) -> Answer:
        value = formatdate(time.time() + seconds, usegmt=True) if as_date else str(int(seconds))
        answer = error(code, status) if code else html(status, "Too Many Requests")(request, proper)
        return answer._replace(headers=(*answer.headers, ("Retry-After", value)))

    return step


def redirect(place: str, status: int = 302) -> Step:
    """Sent elsewhere."""
    return instead(Answer(status, b"", (("Location", place),)))


# -- proper answers with something wrong


def changed(change: Callable[[Answer], Answer]) -> Step:
    """The request is carried out, and its answer changed."""
    return lambda _request, proper: change(proper())


def amended(*omit: str, **fields: Any) -> Step:
    """The proper JSON without these keys and with these fields: amended("expires_in"), amended(expires_in="3600")."""

    def change(answer: Answer) -> Answer:
        told = {key: value for key, value in json.loads(answer.body).items() if key not in omit}
        return answer._replace(body=json.dumps(told | fields).encode())

    return changed(change)


def late(seconds: float) -> Step:
    """The proper answer, but so late."""
    return changed(lambda answer: answer._replace(wait=seconds))


def truncated(at: float = 0.5) -> Step:
    """Proper HTTP around JSON that stops in the middle."""
    return changed(lambda answer: answer._replace(body=answer.body[: int(len(answer.body) * at)]))


def body(data: bytes, status: int = 200, content_type: str = "application/json") -> Step:
    """Any bytes, with the request carried out."""
    return changed(lambda answer: Answer(status, data, (("Content-Type", content_type),)))


def content_type(kind: str) -> Step:
    """The proper JSON under another name; empty: under none."""
    head = (("Content-Type", kind),) if kind else ()
    return changed(lambda answer: answer._replace(headers=head))


def padded(size: int = 2 * MEGABYTE) -> Step:
    """The proper JSON with so many bytes of something else in it."""
    return amended(padding="x" * size)


def back_with(*omit: str, **query: str) -> Step:
    """For the authorization endpoint: the proper redirect with its query changed: back_with(iss="https://else.where")."""

    def change(answer: Answer) -> Answer:
        parts = urlsplit(dict(answer.headers)["Location"])
        kept = {key: value for key, value in parse_qsl(parts.query) if key not in omit}
        place = urlunsplit(parts._replace(query=urlencode(kept | query)))
        return answer._replace(headers=(("Location", place),))

    return changed(change)


def id_token(**claims: Any) -> str:
    """An ID token that nobody signed, with these claims."""
    parts = [json.dumps(part).encode() for part in ({"alg": "none"}, claims)]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "."


# -- broken connections


def deed(name: str, carried_out: bool = False) -> Step:
    """A key of lab.error_server.DEEDS. carried_out: the server has done what it was asked, and nobody learns it."""

    def step(_request: Request, proper: Callable[[], Answer]) -> Answer:
        answer = proper() if carried_out else as_json({"access_token": "x" * 40, "token_type": "Bearer"})
        return answer._replace(deed=name)

    return step


# -- collections to run through

# Nothing is known after these, so the grant must be kept and tried again.
TRANSIENT: dict[str, Step] = {
    **{f"html {status}": html(status) for status in (500, 502, 503, 504)},
    "429 seconds": retry_after(429, 2),
    "429 date": retry_after(429, 2, as_date=True),
    "503 seconds": retry_after(503, 2),
    "503 date": retry_after(503, 2, as_date=True),
    "429 slow_down": retry_after(429, 2, code="slow_down"),
    "server_error": oauth_error("server_error", 500),
    "temporarily_unavailable": oauth_error("temporarily_unavailable", 503),
    **{f"AADSTS{number}": aadsts(number) for number, row in AADSTS.items() if row.status == 503},
    "AADSTS50196": aadsts(50196),
    "close": deed("close"),
    "reset": deed("reset"),
    "garbage": deed("garbage"),
}
# Answers that are none of a token endpoint. The request was not carried out: a refresh token is still good.
NONSENSE: dict[str, Step] = {
    "html 200": html(200, "Welcome to the hotel's network"),
    "html 400": html(400, "Bad Request"),
    "html 404": html(404, "Not Found"),
    "empty 200": instead(Answer(200)),
    "empty 400": instead(Answer(400)),
    "list": instead(as_json([1, 2])),
    "string": instead(as_json("access_token")),
    "null": instead(as_json(None)),
    "number as error": instead(as_json({"error": 17}, 400)),
    "error is an object": instead(as_json({"error": {"code": 400, "message": "Bad Request"}}, 400)),
    "no access_token": instead(as_json({"token_type": "Bearer", "expires_in": 3600})),
    "empty access_token": instead(as_json({"access_token": "", "token_type": "Bearer"})),
    "access_token is a list": instead(as_json({"access_token": ["x"], "token_type": "Bearer"})),
    "access_token with a line end": instead(as_json({"access_token": "x\r\nRCPT TO:<y>", "token_type": "Bearer"})),
    "another token_type": instead(as_json({"access_token": "x", "token_type": "mac"})),
    "truncated": instead(Answer(200, b'{"access_token": "abc", "expi', (("Content-Type", "application/json"),))),
    "not UTF-8": instead(Answer(200, b'{"access_token": "\xff\xfe"}', (("Content-Type", "application/json"),))),
    "deep": instead(Answer(200, b"[" * 100_000, (("Content-Type", "application/json"),))),
}
# The request was carried out and the answer is good enough to use.
ODD: dict[str, Step] = {
    "no expires_in": amended("expires_in"),
    "expires_in as a string": amended(expires_in="3600"),
    "expires_in with a fraction": amended(expires_in=3599.5),
    "expires_in null": amended(expires_in=None),
    "expires_in zero": amended(expires_in=0),
    "expires_in negative": amended(expires_in=-1),
    "expires_in huge": amended(expires_in=10**18),
    "expires_in nonsense": amended(expires_in="soon"),
    "no scope": amended("scope"),
    "no token_type": amended("token_type"),
    "token_type in small letters": amended(token_type="bearer"),
    "text/plain": content_type("text/plain"),
    "no content type": content_type(""),
    "status 201": changed(lambda answer: answer._replace(status=201)),
    "2 MB": padded(),
}
# Methods of lab.authority.Authority for certificates that no client may accept.
BAD_CERTIFICATES = ("from_unknown_ca", "wrong_name", "expired", "not_yet_valid")


def bad_certificate(authority: Authority, kind: str, name: str) -> Certificate:
    """A certificate for a server of this name that is bad in one of the BAD_CERTIFICATES ways."""
    issued: Certificate = getattr(authority, kind)(*([] if kind == "wrong_name" else [name]))
    return issued
