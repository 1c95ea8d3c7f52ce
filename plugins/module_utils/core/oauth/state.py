# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""What the store knows of one token. Times are whole epoch seconds; 0 is never, or not known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ..redaction import Secret

if TYPE_CHECKING:
    from .registration import Registration
    from .token_files import Consumer


class HeldGrant(NamedTuple):
    """The right that somebody gave. ``refresh_token`` is None where the client's own credentials are the grant."""

    identity: str  # of the client that it was given to (Registration.identity); it is of no use to another one
    grant: str  # name of the grant type
    refresh_token: Secret | None = None
    authorized_at: int = 0
    user: str = ""  # who authorized, as the server says, else the registration's username
    user_verified: bool = False
    refreshed_at: int = 0  # when the refresh token was given or last used: its age counts from here
    refresh_expires_at: int = 0  # the server's own figure
    refresh_life: int = 0  # the longest life in seconds that it gave to this grant's refresh tokens
    scope: tuple[str, ...] | None = None  # granted; None: the server did not say, so it is what was asked for


class Access(NamedTuple):
    """An access token."""

    token: Secret
    expires_at: int
    obtained_at: int
    assumed: bool = False  # the server did not say how long it is valid
    identity: str = ""  # of the client that it was given to


class Pending(NamedTuple):
    """An authorization that was begun. ``data`` is plain JSON data and as secret as a token (verifier, device code)."""

    flow: str
    identity: str
    begun_at: int
    expires_at: int
    data: dict[str, Any]


class Trouble(NamedTuple):
    """Why the last request came to nothing. Nothing in it is secret."""

    cause: str  # name of the cause, from the causes table
    status: str  # one of the contract's
    definite: bool = False  # the grant was declared dead
    error: str = ""
    description: str = ""
    codes: tuple[str, ...] = ()
    next_step: str = ""
    registration: str = ""  # fingerprint of the registration that was asked with: another one is tried at once
    since: int = 0  # the first of a row of failures
    at: int = 0  # the last one
    attempts: int = 0
    retry_at: int = 0  # a keeper does not ask before


class SetAside(NamedTuple):
    """A grant that is not used any more, and is kept."""

    held: HeldGrant
    reason: str  # name of the cause, or "other_client"
    at: int


class Event(NamedTuple):
    """One line of the history: authorized, refreshed, set_aside, taken_back, failed, interrupted, removed."""

    at: int
    what: str
    detail: str = ""


class TokenState(NamedTuple):
    """All of it. What is in registration.json and consumers/ is declared; the rest is the engine's, in token.json."""

    name: str
    registration: Registration | None = None
    grant: HeldGrant | None = None
    access: Access | None = None
    pending: Pending | None = None
    trouble: Trouble | None = None
    aside: tuple[SetAside, ...] = ()
    history: tuple[Event, ...] = ()
    consumers: tuple[Consumer, ...] = ()
    wide: tuple[str, ...] = ()  # files of the store that others can read
    lost_answer_at: int = 0  # a run was killed between a request and its answer; a rotated refresh token went with it
    clock_off: int = 0  # seconds that this host's clock is ahead of the server's, where it is more than a minute
    woken_at: int = 0  # when consumers were told that their mail can go
    reported: str = ""  # the status that the keeper's hooks were told last
    serial: int = 0  # of the file, one more with each writing
