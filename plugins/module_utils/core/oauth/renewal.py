# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""When a server has to be asked for a token, and whose the grant is that is there. No I/O."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from .document import written
from .providers import PERSON_GRANTS
from .records import LATEST
from .state import Access, Event, HeldGrant, SetAside, TokenState

if TYPE_CHECKING:
    from .registration import Registration

SLACK = 300  # s: a clock that is set right by less than that is not worth a request
CLOCK_OFF = 60  # s: less is the way of a request and its answer
ASIDE, HISTORY, LONGEST_DETAIL = 5, 20, 500  # kept at most; grants of each kind
OTHER_CLIENT = "other_client"


# -- what is so ------------------------------------------------------------------------------------------------------


def need(state: TokenState, now: int, min_validity: int | None = None) -> str:
    """Why the server has to be asked: "access", "keepalive", "clock", or "" when it need or can not be."""
    registration, grant, access = state.registration, state.grant, state.access
    if registration is None or not can_renew(grant, registration):
        return ""
    if access is None:
        return "access"
    if max(access.obtained_at, grant.refreshed_at if grant else 0) > now + SLACK:
        return "clock"  # it went back: nobody knows how old they are
    if access.expires_at - now < _wanted(access, registration.min_validity if min_validity is None else min_validity):
        return "access"
    return "keepalive" if grant and grant.refresh_token and now >= keepalive_at(grant, registration) else ""


def can_renew(grant: HeldGrant | None, registration: Registration) -> bool:
    """Is there something that a new access token can be asked for with?"""
    return not registration.person or bool(grant and grant.refresh_token and fits(grant, registration))


def _wanted(access: Access, min_validity: int) -> int:
    """Seconds that must be left. A token that never lives as long as is wanted is renewed at half its life."""
    life = access.expires_at - access.obtained_at
    return min_validity if life > min_validity else life // 2


def keepalive_at(grant: HeldGrant, registration: Registration) -> int:
    """When a refresh token is used although nobody needs an access token: the server's own figure wins."""
    after = registration.keepalive_after
    if grant.refresh_expires_at:
        after = min(after, (grant.refresh_expires_at - grant.refreshed_at) // 2)
    return grant.refreshed_at + max(after, SLACK)


def refresh_expires_at(grant: HeldGrant, registration: Registration) -> int:
    """When a refresh token dies that is not used; 0 where there is none."""
    if grant.refresh_token is None:
        return 0
    return grant.refresh_expires_at or grant.refreshed_at + registration.lifetime


def is_valid(access: Access | None, now: int) -> bool:
    """Is it still good, as far as this host's clock can tell?"""
    return access is not None and access.obtained_at - SLACK <= now < access.expires_at


def fits(grant: HeldGrant, registration: Registration) -> bool:
    """Was it given to this client, and in a way that this client uses?"""
    return grant.identity in registration.identities and registration.person == (grant.grant in PERSON_GRANTS)


def fingerprint(registration: Registration) -> str:
    """Changes when anything in the registration does. Not for secrecy: it stands where the secret stands too."""
    return f"{zlib.crc32(written(registration.as_record())):08x}"


def waits(state: TokenState, now: int) -> bool:
    """Is it too early to ask the server again that said no? A corrected registration is tried at once."""
    trouble, registration = state.trouble, state.registration
    if trouble is None or registration is None or trouble.registration != fingerprint(registration):
        return False
    return trouble.at - SLACK <= now < trouble.retry_at


def poll_due(state: TokenState, now: float) -> bool:
    """Is it time to ask the server whether the person has said yes, in a flow that asks (or to see that it is over)?"""
    pending, registration = state.pending, state.registration
    if pending is None or registration is None or pending.identity not in registration.identities:
        return False
    return "next_poll" in pending.data and now >= min(pending.data["next_poll"], pending.expires_at)


# -- what becomes of it ----------------------------------------------------------------------------------------------


def settled(state: TokenState, now: int) -> TokenState:
    """With the grant of the registered client: another's is set aside, and its own is taken back from there."""
    registration = state.registration
    if registration is None:
        return state
    if state.access and state.access.identity not in registration.identities:
        state = state._replace(access=None)
    if state.grant and not fits(state.grant, registration):
        state = set_aside(state, OTHER_CLIENT, now)._replace(access=None, trouble=None)
    if state.grant is None:
        mine = [one for one in state.aside if one.reason == OTHER_CLIENT and fits(one.held, registration)]
        return taken_back(state, mine[-1], now) if mine else state
    return state


def taken_back(state: TokenState, kept: SetAside, now: int) -> TokenState:
    """Use a grant again that was set aside."""
    rest = tuple(one for one in state.aside if one is not kept)
    back = state._replace(grant=kept.held, aside=rest, trouble=None)
    return noted(back, now, "taken_back", kept.held.identity)


def retaken(state: TokenState, now: int) -> TokenState:
    """Where there is no grant, the last one of this client that a server declared dead: servers have been wrong."""
    registration = state.registration
    if registration is None or state.grant is not None or not registration.person:
        return state
    mine = [one for one in state.aside if one.held.refresh_token and fits(one.held, registration)]
    return taken_back(state, mine[-1], now) if mine else state


def set_aside(state: TokenState, reason: str, now: int) -> TokenState:
    """Without its grant, which is kept. What has no refresh token is nothing to keep."""
    grant = state.grant
    if grant is None:
        return state
    kept = (*state.aside, SetAside(grant, reason, now)) if grant.refresh_token else state.aside
    return noted(state._replace(grant=None, aside=_bounded(kept)), now, "set_aside", reason)


def _bounded(aside: tuple[SetAside, ...]) -> tuple[SetAside, ...]:
    """The last ones of each kind: the dead ones push nothing out that another client may come back for."""
    dead = [one for one in aside if one.reason != OTHER_CLIENT][-ASIDE:]
    living = [one for one in aside if one.reason == OTHER_CLIENT][-ASIDE:]
    return tuple(one for one in aside if any(one is kept for kept in (*dead, *living)))


def noted(state: TokenState, now: int, what: str, detail: str = "") -> TokenState:
    """With one more line in the history."""
    return state._replace(history=(*state.history, Event(whole(now), what, detail[:LONGEST_DETAIL]))[-HISTORY:])


def whole(seconds: float) -> int:
    """Seconds since the epoch as they are kept: whole ones, of this age."""
    return int(min(max(seconds, 0), LATEST))
