# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""What a token's state means, in the contract's words. No I/O: a status spends nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from .renewal import is_valid, keepalive_at, refresh_expires_at, settled

if TYPE_CHECKING:
    from .registration import Registration
    from .state import HeldGrant, TokenState, Trouble

STATUSES = (
    "authorized",
    "expiring",
    "pending",
    "unauthorized",
    "expired",
    "revoked",
    "misconfigured",
    "blocked",
    "unreachable",
)
DAY = 86400
_UNUSED = (
    "the refresh token was not used since {}: see that the keeper runs (role token_keeper), or run smtp_oauth_token"
)


class Verdict(NamedTuple):
    """One of the contract's statuses, why, and what to do; ``""`` where there is nothing to say."""

    status: str
    cause: str = ""
    next_step: str = ""


def view(state: TokenState, now: float) -> dict[str, Any]:
    """The contract's ``token``: no secret in it, times in ISO 8601 UTC; None is what is not known or not so."""
    at = int(now)
    state = settled(state, at)
    registration, grant, access, trouble = state.registration, state.grant, state.access, state.trouble
    verdict = judged(state, at)
    expires = refresh_expires_at(grant, registration) if grant and registration else 0
    grant = grant or _last(state)
    granted = (grant.scope or registration.effective().scope) if grant and registration else ()
    return {
        "name": state.name,
        "status": verdict.status,
        "cause": verdict.cause or None,
        "authorized_user": (grant.user or None) if grant else None,
        "authorized_user_verified": bool(grant and grant.user_verified),
        "authorized_at": iso(grant.authorized_at) if grant else None,
        "refreshed_at": iso(grant.refreshed_at) if grant else None,
        "expires_at": iso(access.expires_at) if access else None,
        "refresh_expires_at": iso(expires),
        "days_left": max(0, expires - at) // DAY if expires else None,
        "scope": list(granted),
        "missing_scope": list(_missing(state)),
        "grant": registration.grant if registration else grant.grant if grant else None,
        "provider": registration.provider if registration else None,
        "error": (trouble.error or None) if trouble else None,
        "error_description": _described(trouble) if trouble else None,
        "next_step": verdict.next_step or None,
    }


def _last(state: TokenState) -> HeldGrant | None:
    """The grant that was declared dead: who gave it, and when, is still of interest."""
    if state.trouble is None or not state.trouble.definite or not state.aside:
        return None
    return state.aside[-1].held


def iso(seconds: int) -> str | None:
    """ISO 8601 in UTC; None for 0, which is never."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)) if seconds else None


def _described(trouble: Trouble) -> str | None:
    """The server's words, with its own numbers where the words do not have them."""
    codes = [code for code in trouble.codes if code not in trouble.description]
    return f"{trouble.description} [{', '.join(codes)}]".strip() if codes else trouble.description or None


def _missing(state: TokenState) -> tuple[str, ...]:
    if state.registration is None or state.grant is None:
        return ()
    return state.registration.missing_scope(state.grant.scope)


def judged(state: TokenState, now: int) -> Verdict:
    """The status of a state whose grant is that of its client (``renewal.settled``)."""
    registration, grant = state.registration, state.grant
    if registration is None:
        return _undeclared(state)
    if grant is None:
        return _without_grant(state, registration, now)
    if state.trouble is not None:
        return Verdict(state.trouble.status, state.trouble.cause, _trouble_step(state, state.trouble))
    return _of_grant(state, registration, grant, now) or _aging(state, registration, grant, now)


def _undeclared(state: TokenState) -> Verdict:
    if state.grant is None:
        step = "declare it by smtp_service with auth_type: oauth, or by the options of smtp_oauth_token"
        return Verdict("unauthorized", "not_declared", step)
    step = "a grant is kept that nothing declares: declare its client again, or smtp_oauth_token with state: absent"
    return Verdict("misconfigured", "not_declared", step)


def _without_grant(state: TokenState, registration: Registration, now: int) -> Verdict:
    from .grant_causes import AUTHORIZE, AUTHORIZE_FIRST

    trouble, pending = state.trouble, state.pending
    if registration.person and pending and now < pending.expires_at and pending.identity in registration.identities:
        return Verdict("pending", trouble.cause if trouble else "", f"complete the authorization, or {AUTHORIZE}")
    if trouble is not None:
        return Verdict(trouble.status, trouble.cause, _trouble_step(state, trouble))
    if registration.person:
        return Verdict("unauthorized", "never_authorized", AUTHORIZE_FIRST)
    return Verdict("unauthorized", "never_asked", "run smtp_oauth_token or the keeper, which get the first token")


def _trouble_step(state: TokenState, trouble: Trouble) -> str:
    """What to do about a refusal, and what else is known about how it came to it."""
    if trouble.definite and state.lost_answer_at:
        lost = f"a run was interrupted on {iso(state.lost_answer_at)} before it had the server's answer, and with it a"
        return f"{trouble.next_step} ({lost} new refresh token was lost)"
    return trouble.next_step


def _of_grant(state: TokenState, registration: Registration, grant: HeldGrant, now: int) -> Verdict | None:
    """What is wrong with the grant as it was given."""
    name = ""
    expected = registration.expected_user
    if grant.user_verified and expected and grant.user.casefold() != expected.casefold():
        name = "other_person"
    elif _missing(state):
        name = "scope_missing"
    elif registration.person and grant.refresh_token is None:
        name = "no_refresh_token"
    if not name:
        return None
    from .grant_causes import OF_A_GRANT

    cause = next(cause for cause in OF_A_GRANT if cause.name == name)
    if name == "no_refresh_token":
        return Verdict("expiring" if is_valid(state.access, now) else "expired", name, cause.next_step)
    return Verdict(cause.status, name, cause.next_step)


def _aging(state: TokenState, registration: Registration, grant: HeldGrant, now: int) -> Verdict:
    """What its age means."""
    if grant.refreshed_at > now + DAY:
        return Verdict(
            "expiring", "clock", "this host's clock went back, so the token's age is not known: set the clock"
        )
    expires = refresh_expires_at(grant, registration)
    unused = now >= keepalive_at(grant, registration)
    if expires and now >= expires - _warning(registration, grant):
        from .grant_causes import AUTHORIZE

        step = _UNUSED.format(iso(grant.refreshed_at)) if unused else f"this grant ends {iso(expires)}: {AUTHORIZE}"
        if now >= expires:
            return Verdict("expired", "unused" if unused else "ended", f"{step}; if the server refuses, {AUTHORIZE}")
        return Verdict("expiring", "unused" if unused else "ends", step)
    return Verdict("authorized", *_remark(state, now))


def _warning(registration: Registration, grant: HeldGrant) -> int:
    """Seconds before the end from which on it is told: no more than half the life, or it would always be told."""
    return min(registration.warn_before, (grant.refresh_life or registration.lifetime) // 2)


def _remark(state: TokenState, now: int) -> tuple[str, str]:
    """Something that a good token's owner should know: cause and next step."""
    if state.lost_answer_at:
        return "answer_lost", (
            f"a run was interrupted on {iso(state.lost_answer_at)} before it had the server's answer; the next one asks"
            " again, and says so if the refresh token was lost with it"
        )
    if state.clock_off:
        way = "ahead of" if state.clock_off > 0 else "behind"
        return "clock", f"this host's clock is {abs(state.clock_off)} s {way} the authorization server's: set the clock"
    if not is_valid(state.access, now):
        return "", "the access token has expired: see that the keeper runs (role token_keeper), or run smtp_oauth_token"
    return "", ""
