# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Which cause a server's words stand for.

The OAuth ``error`` and ``suberror`` decide; a provider's own number (AADSTS) is shown and refines the reason.
Microsoft warns that programs which depend on the numbers will break.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .causes import CAUSES, Cause

# RFC 6749 4.1.2.1 and 5.2, RFC 8628 3.5, RFC 7009 2.2.1, OpenID Connect Core 3.1.2.6; then what providers made up
ERRORS: Mapping[str, str] = {
    "invalid_grant": "invalid_grant",
    "invalid_client": "client_refused",
    "unauthorized_client": "client_not_allowed",
    "invalid_request": "request_refused",
    "invalid_scope": "scope_refused",
    "unsupported_grant_type": "grant_type_unsupported",
    "unsupported_response_type": "grant_type_unsupported",
    "access_denied": "access_denied",
    "server_error": "temporarily_unavailable",
    "temporarily_unavailable": "temporarily_unavailable",
    "slow_down": "asks_too_often",
    "expired_token": "expired_token",
    "interaction_required": "interaction_required",
    "login_required": "interaction_required",
    "account_selection_required": "interaction_required",
    "consent_required": "consent_required",
    # Microsoft
    "authorization_declined": "access_denied",
    "bad_verification_code": "code_refused",
    "invalid_resource": "scope_refused",
    # Google
    "admin_policy_enforced": "policy",
    "org_internal": "policy",
    "deleted_client": "client_disabled",
    "disabled_client": "client_disabled",
    "redirect_uri_mismatch": "redirect_refused",
    "rate_limit_exceeded": "asks_too_often",
    "internal_failure": "temporarily_unavailable",
    # Yahoo; of its own words only INVALID_GRANT is an invalid_grant
    "INVALID_GRANT": "invalid_grant",
    "INVALID_CLIENT": "client_refused",
    "INVALID_CLIENT_SECRET": "client_secret_wrong",
    "INVALID_REDIRECT_URI": "redirect_refused",
    "INVALID_CALLBACK": "redirect_refused",
    "INVALID_REQUEST": "request_refused",
    "INVALID_INPUT": "request_refused",
    "PARAMETER_ABSENT": "request_refused",
    "INVALID_SCOPE": "scope_refused",
    "UNSUPPORTED_GRANT_TYPE": "grant_type_unsupported",
    "INTERNAL_ERROR": "temporarily_unavailable",
    "ERROR_HANDLING_REQUEST": "temporarily_unavailable",
    "ACCOUNT_NOT_AUTHORIZED": "consent_required",
    # Zoho
    "invalid_client_secret": "client_secret_wrong",
    "invalid_code": "code_refused",
    "invalid_redirect_uri": "redirect_refused",
}

# Microsoft's "suberror" and Google's "error_subtype"
SUBERRORS: Mapping[str, str] = {
    "bad_token": "invalid_grant",
    "token_expired": "expired",
    "basic_action": "interaction_required",
    "additional_action": "interaction_required",
    "message_only": "interaction_required",
    "consent_required": "consent_required",
    "user_password_expired": "password_changed",
    "protection_policy_required": "policy",
    "device_authentication_failed": "policy",
    "invalid_rapt": "interaction_required",
}

# Microsoft's AADSTS numbers
CODES: Mapping[str, str] = {
    "70008": "expired",
    "700082": "expired",
    "700081": "expired",
    "700084": "expired_redirect_type",
    "70043": "expired_policy",
    "50173": "revoked",
    "50132": "password_changed",
    "50133": "password_changed",
    "50055": "password_changed",
    "70000": "invalid_grant",
    "50072": "interaction_required",
    "50074": "interaction_required",
    "50076": "interaction_required",
    "50078": "interaction_required",
    "50079": "interaction_required",
    "50158": "interaction_required",
    "53000": "policy",
    "53001": "policy",
    "53002": "policy",
    "53003": "policy",
    "53004": "policy",
    "53011": "policy",
    "530002": "policy",
    "530003": "policy",
    "530035": "policy",
    "65001": "consent_required",
    "90094": "consent_required",
    "65004": "access_denied",
    "50057": "account_disabled",
    "50053": "account_locked",
    "50034": "account_unknown",
    "50020": "account_unknown",
    "50105": "account_unknown",
    "7000215": "client_secret_wrong",
    "7000222": "client_secret_expired",
    "7000218": "client_secret_missing",
    "7000216": "client_secret_missing",
    "700025": "client_public",
    "7000112": "client_disabled",
    "700016": "client_unknown",
    "90002": "tenant_unknown",
    "50194": "tenant_needed",
    "50011": "redirect_refused",
    "70011": "scope_refused",
    "28002": "scope_refused",
    "500011": "scope_refused",
    "650057": "scope_refused",
    "900144": "request_refused",
    "700024": "clock",
    "700027": "assertion_refused",
    "50196": "asks_too_often",
    "90024": "temporarily_unavailable",
    "90033": "temporarily_unavailable",
    "50033": "temporarily_unavailable",
}

_BY_HTTP_STATUS: Mapping[int, str] = {
    401: "client_refused",
    404: "no_endpoint",
    405: "no_endpoint",
    407: "proxy",
    410: "no_endpoint",
    429: "asks_too_often",
}
# what an invalid_grant means where no refresh token was sent
_NO_TOKEN_SENT: Mapping[str, str] = {
    "authorization_code": "code_refused",
    "device_code": "expired_token",
    "urn:ietf:params:oauth:grant-type:device_code": "expired_token",
    "urn:ietf:params:oauth:grant-type:jwt-bearer": "assertion_refused",
    "client_credentials": "client_refused",
}
REFRESH = "refresh_token"


def cause_of(
    error: str, suberror: str = "", codes: Iterable[str] = (), http_status: int = 400, asked: str = REFRESH
) -> Cause:
    """The cause of a refusal.

    ``error``, ``suberror``, ``codes``: as the server said them, "" and () where it did not. ``asked``: the grant_type
    of the request, for only a refresh token that was sent can be declared dead.
    """
    passing = http_status == 429 or http_status >= 500  # whatever else it says
    general = _general(error, http_status, asked)
    if passing:
        return general if general.status == "unreachable" else CAUSES[_by_status(http_status)]
    named = [
        table[word] for table, words in ((CODES, codes), (SUBERRORS, [suberror])) for word in words if word in table
    ]
    precise = [CAUSES[name] for name in named]
    kept = [cause for cause in precise if not cause.definite]
    if kept:  # something says that it may still be good: then it is kept
        return kept[0]
    return precise[0] if precise and general.definite else general


def _general(error: str, http_status: int, asked: str) -> Cause:
    if error in ("invalid_grant", "INVALID_GRANT") and asked != REFRESH:
        return CAUSES[_NO_TOKEN_SENT.get(asked, "refused")]
    if error in ERRORS:
        return CAUSES[ERRORS[error]]
    return CAUSES["refused" if error else _by_status(http_status)]


def _by_status(http_status: int) -> str:
    if http_status >= 500:
        return "temporarily_unavailable"
    if 300 <= http_status < 400:
        return "redirected"
    return _BY_HTTP_STATUS.get(http_status, "not_oauth")
