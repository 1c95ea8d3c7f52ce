# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Who authorized: what the server says about that, compared with who should have."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .answers import json_object
from .causes import CAUSES
from .client import Refused

if TYPE_CHECKING:
    from .client import TokenClient
    from .grants.base import Reply
    from .registration import Registration

# OpenID Connect Core 5.1, Microsoft's ID token (upn, unique_name) and RFC 7662 2.2 (username). A subject is mostly a
# number that says nothing about a mailbox; where it is the mailbox, that proves it too.
CLAIMS = ("preferred_username", "email", "upn", "unique_name", "username", "sub")
_TOO_LITTLE = ("sub",)  # cannot prove that it was somebody else


def named(reply: Reply, said: Mapping[str, Any], registration: Registration, client: TokenClient) -> Reply:
    """The reply with the person in it. Raises Refused (other_person) when it is not the one who must have authorized.

    Asked are the ID token, then the userinfo endpoint, then introspection, as far as the server has them.
    """
    wanted = registration.expected_user
    for claims in _told(reply, said, registration, client):
        names = _names(claims)
        matching = next((name for name in names.values() if same_mailbox(name, wanted)), "")
        if matching:
            return reply._replace(user=matching, user_verified=True)
        others = [name for claim, name in names.items() if claim not in _TOO_LITTLE and "@" in name]
        if not wanted and others:
            return reply._replace(user=others[0], user_verified=True)
        if others and "@" in wanted:
            detail = f"{others[0]} instead of {wanted}"
            subject = "authorized_user" if registration.authorized_user else "username"
            raise Refused(CAUSES["other_person"], subject, detail=detail)
    return reply._replace(user=wanted, user_verified=False)


def same_mailbox(one: str, other: str) -> bool:
    """Do both name the same mailbox? Case means nothing, as all providers have it (RFC 5321 2.4 lets them)."""
    return bool(one) and one.casefold() == other.casefold()


def id_token_claims(token: Any, registration: Registration, nonce: str = "") -> dict[str, Any]:
    """The claims of an ID token, {} for what is none or somebody else's.

    It came from the token endpoint itself over TLS, which stands for its signature (OpenID Connect Core 3.1.3.7, 6).
    """
    parts = token.split(".") if isinstance(token, str) else []
    if len(parts) != 3:
        return {}
    try:
        claims = json_object(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return {}
    if claims is None:
        return {}
    audience = claims.get("aud")
    mine = registration.client_id in (audience if isinstance(audience, list) else [audience])
    return claims if mine and (not nonce or claims.get("nonce") == nonce) else {}


def _told(
    reply: Reply, said: Mapping[str, Any], registration: Registration, client: TokenClient
) -> Iterator[Mapping[str, Any]]:
    yield id_token_claims(said.get("id_token"), registration, str(said.get("nonce") or ""))
    token = reply.access_token.reveal()
    yield client.userinfo(token) or {}
    try:
        found = client.introspect(token) or {}
    except Refused:  # it may be for resource servers only
        found = {}
    yield found if found.get("active") is True else {}


def _names(claims: Mapping[str, Any]) -> dict[str, str]:
    unverified = claims.get("email_verified") is False
    found = {claim: claims[claim] for claim in CLAIMS if isinstance(claims.get(claim), str) and claims[claim]}
    if unverified:
        found.pop("email", None)
    return {claim: name for claim, name in found.items() if name.isprintable()}
