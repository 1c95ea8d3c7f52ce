# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the Microsoft identity platform answers, by its AADSTS number, as steps for lab.error_server."""

from __future__ import annotations

import json
import time
from typing import Any, NamedTuple

from .error_server import Step, instead
from .plain_oauth import as_json


class MicrosoftError(NamedTuple):
    """A row of the Microsoft identity platform: what its token endpoint says with this number."""

    status: int
    error: str
    suberror: str
    text: str


_EXPIRED = (
    "The refresh token has expired due to inactivity. The token was issued on {issued} and was inactive for "
    "90.00:00:00."
)
_BLOCKED = "Access has been blocked by Conditional Access policies. The access policy does not allow token issuance."
_MFA = (
    "Due to a configuration change made by your administrator, or because you moved to a new location, you must {} "
    "multi-factor authentication to access '00000002-0000-0ff1-ce00-000000000000'."
)
_PASSWORD = "The session is not valid due to password expiration or recent password change."
_MISSING = "The request body must contain the following parameter: '{}'."
_TRANSIENT = "A transient error has occurred. Please try again."
_APP = "11111111-2222-3333-4444-555555555555"

# The v2.0 endpoint as it was seen to answer; where nobody published an answer, error follows the number's neighbours.
AADSTS: dict[int, MicrosoftError] = {
    70008: MicrosoftError(400, "invalid_grant", "", _EXPIRED),
    700082: MicrosoftError(400, "invalid_grant", "", _EXPIRED),
    700084: MicrosoftError(
        400,
        "invalid_grant",
        "",
        "The refresh token was issued to a single page app (SPA), and therefore has a fixed, limited lifetime of "
        "1.00:00:00, which cannot be extended. It is now expired and a new sign in request must be sent.",
    ),
    70043: MicrosoftError(
        400,
        "invalid_grant",
        "token_expired",
        "The refresh token has expired or is invalid due to sign-in frequency checks by conditional access. "
        "The token was issued on {issued} and the maximum allowed lifetime for this request is 86400.",
    ),
    50173: MicrosoftError(
        400,
        "invalid_grant",
        "bad_token",
        "The provided grant has expired due to it being revoked, a fresh auth token is needed. The user might have "
        "changed or reset their password. The grant was issued on '{issued}'.",
    ),
    50132: MicrosoftError(400, "invalid_grant", "", _PASSWORD),
    50133: MicrosoftError(400, "invalid_grant", "", _PASSWORD),
    70000: MicrosoftError(
        400,
        "invalid_grant",
        "",
        "The provided value for the input parameter 'refresh_token' or 'assertion' is not valid.",
    ),
    50076: MicrosoftError(400, "invalid_grant", "basic_action", _MFA.format("use")),
    50078: MicrosoftError(
        400,
        "invalid_grant",
        "basic_action",
        "Presented multi-factor authentication has expired due to policies configured by your administrator.",
    ),
    50079: MicrosoftError(400, "invalid_grant", "basic_action", _MFA.format("enroll in")),
    53003: MicrosoftError(400, "invalid_grant", "message_only", _BLOCKED),
    530035: MicrosoftError(400, "invalid_grant", "message_only", "Access has been blocked by security defaults."),
    65001: MicrosoftError(
        400,
        "invalid_grant",
        "consent_required",
        f"The user or administrator has not consented to use the application with ID '{_APP}' named 'Fleet mail'. "
        "Send an interactive authorization request for this user and resource.",
    ),
    90094: MicrosoftError(400, "invalid_grant", "consent_required", "The grant requires admin permission."),
    50057: MicrosoftError(400, "invalid_grant", "", "The user account is disabled."),
    50053: MicrosoftError(
        400,
        "invalid_grant",
        "",
        "The account is locked, you've tried to sign in too many times with an incorrect user ID or password.",
    ),
    7000215: MicrosoftError(
        401,
        "invalid_client",
        "",
        "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not "
        f"the client secret ID, for a secret added to app '{_APP}'.",
    ),
    7000222: MicrosoftError(
        401,
        "invalid_client",
        "",
        f"The provided client secret keys for app '{_APP}' are expired. Visit the Azure portal to create new keys.",
    ),
    7000218: MicrosoftError(401, "invalid_client", "", _MISSING.format("client_assertion' or 'client_secret")),
    700025: MicrosoftError(
        401,
        "invalid_client",
        "",
        "Client is public so neither 'client_assertion' nor 'client_secret' should be presented.",
    ),
    700016: MicrosoftError(
        400,
        "unauthorized_client",
        "",
        f"Application with identifier '{_APP}' was not found in the directory 'Example'. You may have sent your "
        "authentication request to the wrong tenant.",
    ),
    90002: MicrosoftError(
        400,
        "invalid_request",
        "",
        "Tenant 'example.test' not found. Check to make sure you have the correct tenant ID and are signing into the "
        "correct cloud.",
    ),
    50194: MicrosoftError(
        400,
        "invalid_request",
        "",
        f"Application '{_APP}'(Fleet mail) is not configured as a multi-tenant application. Usage of the /common "
        "endpoint is not supported for such applications created after '10/15/2018'.",
    ),
    70011: MicrosoftError(
        400,
        "invalid_scope",
        "",
        "The provided request must include a 'scope' input parameter. The provided value for the input parameter "
        "'scope' is not valid.",
    ),
    28002: MicrosoftError(
        400,
        "invalid_request",
        "",
        "Provided value for the input parameter scope 'SMTP.Send' is not valid when requesting an access token.",
    ),
    900144: MicrosoftError(400, "invalid_request", "", _MISSING.format("scope")),
    # invalid_grant, and yet the refresh token is good: the client has asked 15 times in 5 minutes
    50196: MicrosoftError(
        400,
        "invalid_grant",
        "",
        "The server terminated an operation because it encountered a client request loop. "
        "Please contact your app vendor.",
    ),
    90024: MicrosoftError(503, "temporarily_unavailable", "", _TRANSIENT),
    90033: MicrosoftError(503, "temporarily_unavailable", "", _TRANSIENT),
    50033: MicrosoftError(503, "temporarily_unavailable", "", _TRANSIENT),
}
_CLAIMS = {"access_token": {"capolids": {"essential": True, "values": ["66666666-7777-8888-9999-000000000000"]}}}


def aadsts(number: int, **changes: Any) -> Step:
    """What Microsoft answers with this number. changes: fields of the row put in place of the usual ones.

    The v1.0 endpoint says interaction_required where this one says invalid_grant with a suberror.
    """
    row = AADSTS[number]._replace(**changes)
    now = time.gmtime()
    trace, stamp = "aaaaaaaa-0000-1111-2222-bbbbbbbbbbbb", time.strftime("%Y-%m-%d %H:%M:%SZ", now)
    text = row.text.replace("{issued}", "2026-01-02T03:04:05.0000000Z")
    body = {
        "error": row.error,
        "error_description": f"AADSTS{number}: {text} Trace ID: {trace} Correlation ID: {trace} Timestamp: {stamp}",
        "error_codes": [number],
        "timestamp": stamp,
        "trace_id": trace,
        "correlation_id": trace,
        "error_uri": f"https://login.microsoftonline.com/error?code={number}",
    }
    if row.suberror:
        body["suberror"] = row.suberror
    if row.suberror in ("basic_action", "message_only"):
        body["claims"] = json.dumps(_CLAIMS)
    return instead(as_json(body, row.status))
