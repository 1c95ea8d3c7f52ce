# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""A server's own description of itself: RFC 8414, and OpenID Connect Discovery 1.0 where that is all there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

ENDPOINTS = {
    "authorization_url": "authorization_endpoint",
    "token_url": "token_endpoint",
    "device_authorization_url": "device_authorization_endpoint",
    "revocation_url": "revocation_endpoint",
    "introspection_url": "introspection_endpoint",
    "userinfo_url": "userinfo_endpoint",
}


class NotDescribed(Exception):
    """There is no description that can be believed; ``cause`` names why, the text is what was found."""

    def __init__(self, cause: str, words: str) -> None:
        super().__init__(words)
        self.cause = cause


def places(issuer: str) -> Iterator[str]:
    """Where the description of ``issuer`` may be, the better place first (RFC 8414 3.1 and 5)."""
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    yield f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{path}"
    yield f"{parts.scheme}://{parts.netloc}{path}/.well-known/openid-configuration"


def described(issuer: str, fetch: Callable[[str], dict[str, Any] | None]) -> dict[str, Any]:
    """The metadata of ``issuer``; ``fetch`` gives the JSON object at a URL, None where there is none.

    Raises NotDescribed: there is none, or it is another issuer's (RFC 8414 3.3).
    """
    for place in places(issuer):
        found = fetch(place)
        if found is None:
            continue
        if found.get("issuer") != issuer:
            raise NotDescribed("issuer_mismatch", "it calls itself {!r}".format(str(found.get("issuer"))[:200]))
        return found
    raise NotDescribed("metadata", "neither {} nor {} has it".format(*places(issuer)))


def endpoint(metadata: dict[str, Any], option: str) -> str:
    """The endpoint that would otherwise be given by ``option``, "" where the server has none."""
    found = metadata.get(ENDPOINTS[option], "")
    return found if isinstance(found, str) else ""


def strings(metadata: dict[str, Any], field: str) -> tuple[str, ...]:
    """A list of words of the metadata, () where it is not there."""
    found = metadata.get(field)
    return tuple(word for word in found if isinstance(word, str)) if isinstance(found, list) else ()
