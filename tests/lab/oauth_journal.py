# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the authorization server saw: each request, and its answer when there was one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple


def fingerprint(secret: str) -> str:
    """A secret as the journal names it."""
    return hashlib.sha256(secret.encode()).hexdigest()[:16]


class Exchange(NamedTuple):
    """A request that arrived and its answer (status 0: none yet). Secrets are fingerprints: see fingerprint().

    endpoint: authorization, token, device_authorization, introspection, revocation, userinfo, interaction, device, ...
    fields: of query and form. answer: the JSON answer's keys. location: the query of the address redirected to.
    detail: why it was refused, which the client is not told. time: epoch seconds, when it arrived.
    authentication: none, client_secret_basic, client_secret_post, private_key_jwt.
    """

    number: int
    time: float
    endpoint: str
    method: str
    path: str
    client: str | None
    authentication: str
    fields: dict[str, Any]
    status: int = 0
    error: str | None = None
    error_description: str | None = None
    detail: str | None = None
    answer: dict[str, Any] = {}  # noqa: RUF012 - never changed
    location: dict[str, Any] = {}  # noqa: RUF012 - never changed
    answered: float = 0

    @property
    def grant_type(self) -> str:
        """The grant type of a token request, else empty."""
        return str(self.fields.get("grant_type", ""))


def exchanges(events: list[dict[str, Any]]) -> list[Exchange]:
    """The exchanges that the journal's events tell of, oldest first."""
    found: dict[int, Exchange] = {}
    for event in events:
        _ADD[event["event"]](found, event)
    return list(found.values())


def _add_request(found: dict[int, Exchange], event: dict[str, Any]) -> None:
    known = {item: event[item] for item in Exchange._fields if item in event}
    found[event["number"]] = Exchange(**known)


def _add_answer(found: dict[int, Exchange], event: dict[str, Any]) -> None:
    if event["number"] in found:
        found[event["number"]] = found[event["number"]]._replace(
            status=event["status"],
            error=event["error"],
            error_description=event["error_description"],
            detail=event["detail"],
            answer=event["fields"],
            location=event["location"],
            answered=event["time"],
        )


_ADD: dict[str, Callable[[dict[int, Exchange], dict[str, Any]], None]] = {
    "answer": _add_answer,
    "listening": lambda _found, _event: None,
    "request": _add_request,
}
