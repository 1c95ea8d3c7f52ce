# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""What a server's answer or its refusal makes of a token's state. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .causes import by_age
from .renewal import LONGEST_DETAIL, fingerprint, noted, refresh_expires_at, set_aside, whole
from .state import Access, HeldGrant, TokenState, Trouble

if TYPE_CHECKING:
    from ..errors import FleetmailError
    from .client import Refused
    from .grants.base import Reply
    from .registration import Registration

ASSUMED = 3600  # s: what a token lives whose server does not say (RFC 6749 5.1 leaves it open; an hour is usual)
FIRST_PAUSE, LONGEST_PAUSE = 60, 3600  # s between the requests of a keeper to a server that says no
PASSING_PAUSE = 900  # s: the longest where the trouble passes by itself, for mail waits from then on


def authorized(state: TokenState, registration: Registration, reply: Reply, now: int) -> TokenState:
    """A person said yes (or the client's own credentials were good): a new grant in place of the old one."""
    user, verified = reply.user or registration.expected_user, bool(reply.user and reply.user_verified)
    grant = HeldGrant(registration.identity, registration.grant, reply.refresh_token, whole(now), user, verified)
    held = renewed(state._replace(pending=None), registration, grant._replace(scope=reply.scope), reply, now)
    return noted(held, now, "authorized", user)


def renewed(state: TokenState, registration: Registration, grant: HeldGrant, reply: Reply, now: int) -> TokenState:
    """The server gave a new access token for the grant."""
    access = Access(reply.access_token, whole(now + ASSUMED), whole(now), True, registration.identity)
    if reply.expires_in and reply.expires_in > 0:  # a token that is valid for no time is nothing that a server means
        access = access._replace(expires_at=whole(now + reply.expires_in), assumed=False)
    if state.trouble is not None:
        state = noted(state, now, "recovered", state.trouble.cause)
    return state._replace(grant=_used(grant, reply, now), access=access, trouble=None, lost_answer_at=0)


def _used(grant: HeldGrant, reply: Reply, now: int) -> HeldGrant:
    """Its refresh token was used: a new one takes its place, and none keeps it (RFC 6749 6)."""
    rotated = reply.refresh_token is not None and reply.refresh_token != grant.refresh_token
    expires, life = (0, 0) if rotated else (grant.refresh_expires_at, grant.refresh_life)
    if reply.refresh_expires_in:  # 0 is "not known" (Keycloak)
        expires, life = whole(now + reply.refresh_expires_in), max(grant.refresh_life, reply.refresh_expires_in)
    return grant._replace(
        refresh_token=reply.refresh_token or grant.refresh_token,
        refreshed_at=whole(now),
        refresh_expires_at=expires,
        refresh_life=whole(life),
        scope=grant.scope if reply.scope is None else reply.scope,
        user=reply.user or grant.user,
        user_verified=reply.user_verified if reply.user else grant.user_verified,
    )


def refused(state: TokenState, registration: Registration, error: Refused, now: int) -> TokenState:
    """The server said no, or nothing that could be understood."""
    grant = state.grant
    expires = refresh_expires_at(grant, registration) if grant else 0
    cause = by_age(error.cause, past_lifetime=0 < expires <= now)
    trouble = Trouble(cause.name, cause.status, cause.definite, error.error, error.description, error.codes)
    state = _troubled(state, registration, trouble._replace(next_step=cause.next_step), error.retry_after or 0, now)
    if cause.definite:
        return set_aside(state, cause.name, now)
    if grant and grant.refresh_token and error.refresh_token:
        grant = grant._replace(refresh_token=error.refresh_token, refreshed_at=whole(now))
        return state._replace(grant=grant._replace(refresh_expires_at=0, refresh_life=0))
    if error.sent and not error.error and error.http_status < 300:  # no answer, or none that makes sense
        return state._replace(lost_answer_at=whole(now))  # it may have been carried out all the same
    return state


def not_asked(state: TokenState, registration: Registration, error: FleetmailError, now: int) -> TokenState:
    """This host has not what it takes to ask: a key file, a library."""
    hint = error.problems[0].hint if error.problems else ""
    trouble = Trouble("not_asked", "misconfigured", description=error.message, next_step=hint)
    return _troubled(state, registration, trouble, 0, now)


def _troubled(
    state: TokenState, registration: Registration, trouble: Trouble, retry_after: int, now: int
) -> TokenState:
    """With the trouble, and when a keeper tries again: a row of failures makes it wait longer."""
    asked_with, row = fingerprint(registration), state.trouble
    if row is None or row.registration != asked_with:
        row = Trouble("", "", since=whole(now))
    if row.cause != trouble.cause:
        state = noted(state, now, "failed", trouble.cause)
    longest = PASSING_PAUSE if trouble.status == "unreachable" else LONGEST_PAUSE
    pause = min(FIRST_PAUSE << min(row.attempts, 16), longest)
    trouble = trouble._replace(
        description=trouble.description[:LONGEST_DETAIL],
        next_step=trouble.next_step[:LONGEST_DETAIL],
        registration=asked_with,
        since=row.since,
        at=whole(now),
        attempts=row.attempts + 1,
        retry_at=whole(now + max(pause, retry_after)),
    )
    return state._replace(trouble=trouble)
