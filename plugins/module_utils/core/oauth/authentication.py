# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""How the client says who it is: RFC 6749 2.3.1 and RFC 7523 2.2."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

from .discovery import strings

if TYPE_CHECKING:
    from .registration import Registration
    from .signing import SigningKey

POST, BASIC, SIGNED, PUBLIC = "client_secret_post", "client_secret_basic", "private_key_jwt", "none"
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def method_of(registration: Registration, metadata: Mapping[str, Any]) -> str:
    """The method: the secret travels in the form, as all providers take it, unless the server's metadata wants Basic.

    Metadata that name no method mean Basic (RFC 8414 2).
    """
    if registration.client_secret is not None:
        offered = strings(dict(metadata), "token_endpoint_auth_methods_supported") or (BASIC,)
        return BASIC if metadata and POST not in offered and BASIC in offered else POST
    if registration.jwt_key_file and registration.grant != "jwt_bearer":
        return SIGNED
    return PUBLIC


def basic(registration: Registration) -> dict[str, str]:
    """The header, its parts form-encoded first (RFC 6749 2.3.1)."""
    secret = registration.client_secret.reveal() if registration.client_secret else ""
    pair = f"{quote_plus(registration.client_id)}:{quote_plus(secret)}"
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def posted(registration: Registration) -> dict[str, str]:
    """The form's fields. A key of RFC 7523 2.1 says by itself who it is."""
    if registration.client_secret is not None:
        return {"client_id": registration.client_id, "client_secret": registration.client_secret.reveal()}
    return {} if registration.grant == "jwt_bearer" else {"client_id": registration.client_id}


def signed(
    registration: Registration, key: SigningKey, audience: str, accepted: tuple[str, ...], now: float
) -> dict[str, str]:
    """The form's fields with a signed assertion about the client itself."""
    from .signing import sign

    claims = assertion_claims(registration.client_id, registration.client_id, audience, now, 300)
    assertion = sign(key, claims, accepted)
    return {
        "client_id": registration.client_id,
        "client_assertion_type": _ASSERTION,
        "client_assertion": assertion.reveal(),
    }


def assertion_claims(issuer: str, subject: str, audience: str, now: float, life: int) -> dict[str, Any]:
    """The claims that RFC 7523 3 wants; ``life`` in seconds. ``jti`` makes each one different."""
    at = int(now)
    return {
        "iss": issuer,
        "sub": subject,
        "aud": audience,
        "iat": at,
        "exp": at + life,
        "jti": secrets.token_urlsafe(24),
    }
