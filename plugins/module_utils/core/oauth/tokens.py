# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The engine: one request at most, however many ask at once, and never one whose answer has no place to be kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, NamedTuple

if TYPE_CHECKING:
    from .client import TokenClient
    from .grants.base import Reply
    from .registration import Registration
    from .store import Store, TokenState

Clock = Callable[[], float]
ClientOf = Callable[["Registration"], "TokenClient"]


class Outcome(NamedTuple):
    """What came of it."""

    state: TokenState
    changed: bool = False  # something was written: the state, or a consumer's file
    refreshed: bool = False  # the server gave a new access token
    warnings: tuple[str, ...] = ()  # a consumer's file that could not be written, and why


def need(state: TokenState, now: int, min_validity: int | None = None) -> str:
    """Why the server has to be asked: "access", "keepalive", "clock", or "" when it need not be. No I/O."""
    raise NotImplementedError


def ensure(
    store: Store,
    name: str,
    client_of: ClientOf,
    now: Clock,
    min_validity: int | None = None,
    force: bool = False,
    patient: bool = False,
) -> Outcome:
    """See that there is an access token that is valid for ``min_validity`` seconds (None: as registered).

    force: ask the server in any case. patient: leave a server alone that said no a short time ago (the keeper).
    A refusal of the server is no exception: it is the state's ``trouble``, and ``status.view`` tells it.
    Raises HostError where the store cannot be read, locked or written; then the server was not asked.
    """
    raise NotImplementedError


def accept(store: Store, name: str, reply: Reply, now: Clock) -> Outcome:
    """Keep what a finished authorization gave, and give consumers their files. Takes the lock itself."""
    raise NotImplementedError


def remove(store: Store, name: str, client: TokenClient | None, now: Clock) -> Outcome:
    """Revoke the grant at the server (RFC 7009; client None: do not) and forget it. Takes the lock itself.

    Raises what the client raises when the server could not be asked: nothing was removed then.
    """
    raise NotImplementedError
