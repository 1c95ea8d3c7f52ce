# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The engine: one request at most, however many ask at once, and never one whose answer has no place to be kept."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Callable, NamedTuple

from ..errors import FleetmailError, HostError
from .answered import authorized, not_asked, refused, renewed
from .giving import give, stale, wake
from .renewal import CLOCK_OFF, OTHER_CLIENT, is_valid, need, retaken, settled, waits

if TYPE_CHECKING:
    from .client import TokenClient
    from .registration import Registration
    from .store import Consumer, Store, TokenState

__all__ = ["Outcome", "ensure", "need", "remove", "step", "wake_again"]
Clock = Callable[[], float]
ClientOf = Callable[["Registration"], "TokenClient"]
TRIES, PAUSE = 10, 0.3  # to write down an answer that cannot be had twice
AGAIN = 900  # s after consumers were woken in which the keeper wakes them again: two of its ticks, at least


class Outcome(NamedTuple):
    """What came of it."""

    state: TokenState
    changed: bool = False  # something was written: the state, or a consumer's file
    refreshed: bool = False  # the server gave a new access token
    warnings: tuple[str, ...] = ()  # a consumer's file that could not be written, and why


def ensure(
    store: Store,
    name: str,
    client_of: ClientOf,
    now: Clock = time.time,
    min_validity: int | None = None,
    force: bool = False,
    patient: bool = False,
) -> Outcome:
    """See that there is an access token that is valid for ``min_validity`` seconds (None: as registered).

    force: ask the server in any case. patient: leave a server alone that said no a short time ago (the keeper).
    A refusal of the server is no exception: it is the state's ``trouble``, and ``status.view`` tells it.
    Raises HostError where the store cannot be read, locked or written. Then the server was not asked, unless the store
    ceased to be writable meanwhile, which the error says.
    """
    began = int(now())
    seen = store.read(name)
    asked = force or (need(settled(seen, began), began, min_validity) and not (patient and waits(seen, began)))
    if not asked and _is_fine(store, seen, began):
        return Outcome(seen)
    run = _Run(store, name, now)
    with store.locked(name):
        run.look()
        if _wants(run, seen, began, min_validity, force, patient):
            run.ask(client_of, force)
        run.keep()
    return run.outcome()


def _is_fine(store: Store, state: TokenState, now: int) -> bool:
    """Is there nothing to repair?"""
    return not state.wide and settled(state, now) is state and not stale(store.host, state, now)


def _wants(run: _Run, seen: TokenState, began: int, min_validity: int | None, force: bool, patient: bool) -> bool:
    """Under the lock: is there still a reason to ask, or did somebody else while we waited for it?"""
    state, at = run.state, run.at
    if state.registration is None:
        return False
    failed_meanwhile = state.serial != seen.serial and state.trouble is not None and state.trouble.at >= began
    if (patient or failed_meanwhile) and waits(state, at):
        return False
    return bool(need(state, at, min_validity)) or (force and state.access == seen.access)


def step(store: Store, name: str, make: Callable[[TokenState, int], TokenState], now: Clock = time.time) -> Outcome:
    """One step of an authorization: ``make`` gives the state that comes of it, and may ask the server. Takes the lock.

    ``make`` must not raise. Raises HostError where the store cannot be written; then ``make`` was not called.
    """
    run = _Run(store, name, now)
    with store.locked(name):
        run.look()
        store.reserve(name, run.at)
        before = run.state.access
        run.state = make(run.state, run.at)
        run.refreshed = run.waited = run.state.access is not before and run.state.access is not None
        run.keep()
    return run.outcome()


def wake_again(store: Store, outcome: Outcome, began: int) -> Outcome:
    """Wake once more who was woken a short time before ``began``.

    A mail that was on its way just then, without a token or with one that was refused, came back into the queue after
    it had been gone through, and would wait for the software's own next try.
    """
    state = outcome.state
    if not began - AGAIN < state.woken_at < began or not is_valid(state.access, began):
        return outcome
    return outcome._replace(warnings=(*outcome.warnings, *wake(store.host, state.consumers)))


def remove(store: Store, name: str, client: TokenClient | None, now: Clock = time.time) -> Outcome:
    """Revoke the grant at the server (RFC 7009; client None: do not) and forget it. Takes the lock itself.

    What smtp_service declared stays while it has a consumer. Raises Refused when the server could not be asked, and
    HostError when the store cannot be written: nothing was removed then.
    """
    seen = store.read(name)
    if seen.registration is None and not (seen.serial or seen.consumers):
        return Outcome(seen)
    run = _Run(store, name, now)
    with store.locked(name):
        run.look()
        held = run.state
        if client is not None:
            run.warnings += _revoke(held, client)
        run.warnings += _left(held)
        run.state = held._replace(grant=None, access=None, pending=None, trouble=None, aside=(), history=())
        run.give()
        if held.consumers:
            store.forget(name)
        else:
            store.remove(name)
    return Outcome(run.state, run.changed or held.serial > 0 or not held.consumers, False, tuple(run.warnings))


def _revoke(state: TokenState, client: TokenClient) -> list[str]:
    """Revoke what is held of this client; gives what a person should know of it."""
    from .client import Refused

    held = [("refresh_token", state.grant.refresh_token if state.grant else None)]
    held.append(("access_token", state.access.token if state.access else None))
    for hint, token in held:
        if token is None:
            continue
        try:
            if client.revoke(token.reveal(), hint):
                return []  # RFC 7009 2.1: with the refresh token go the access tokens
            return ["the server offers no revocation: remove the application's access in the account's settings"]
        except Refused as error:
            if error.cause.status == "unreachable":
                raise
            return [f"the grant was forgotten but not revoked: {error}"]
    return []


def _left(state: TokenState) -> list[str]:
    """Grants of other clients, which this one cannot revoke."""
    others = dict.fromkeys(one.held.identity for one in state.aside if one.reason == OTHER_CLIENT)
    hint = "remove the application's access in the account's settings"
    return [f"a grant of another client ({other}) was forgotten and not revoked: {hint}" for other in others]


class _Run:
    """One pass under the lock."""

    def __init__(self, store: Store, name: str, now: Clock) -> None:
        self.store, self.name, self.now = store, name, now
        self.at = 0
        self.refreshed = self.changed = False
        self.warnings: list[str] = []
        self.written: list[Consumer] = []
        self.waited = False

    def look(self) -> None:
        """Read again, take up what an interrupted run left, and put the right client's grant in its place."""
        self.at = int(self.now())
        self.stored = self.store.recovered(self.name, self.at)
        for path in self.stored.wide:
            self.warnings.append(f"{path} could be read by others; authorize again if somebody may have")
        if self.stored.wide:
            self.stored = self.store.narrow(self.stored)
            self.changed = True
        self.state = settled(self.stored, self.at)
        self.waited = not is_valid(self.state.access, self.at) or self.state.trouble is not None

    def ask(self, client_of: ClientOf, force: bool) -> None:
        """Make room for the answer, ask, and make a state of what came."""
        state = retaken(self.state, self.at) if force else self.state
        registration, grant = state.registration, state.grant
        if registration is None or (registration.person and not (grant and grant.refresh_token)):
            return
        from .client import Refused
        from .grants.registry import grant_type

        self.store.reserve(self.name, self.at)
        began = time.monotonic()
        try:
            client = client_of(registration)
            reply = grant_type(registration.grant).renew(registration, grant and grant.refresh_token, client)
        except Refused as error:
            self.state = refused(state, registration, error, int(self.now()))
            return
        except FleetmailError as error:
            self.state = not_asked(state, registration, error, int(self.now()))
            return
        # the clock may have leapt meanwhile: what it says now is what the token's age will be judged by
        at = int(self.now()) - int(time.monotonic() - began)
        self.waited = self.waited or force
        if grant:
            self.state = renewed(state, registration, grant, reply, at)
        else:
            self.state = authorized(state, registration, reply, at)
        off = client.clock_off or 0
        self.state = self.state._replace(clock_off=off if abs(off) > CLOCK_OFF else 0)
        self.refreshed = True

    def keep(self) -> None:
        """Write it down where it differs, then consumers' files."""
        if self.wakes:
            self.state = self.state._replace(woken_at=int(self.now()))
        if self.state is not self.stored or self.store.is_reserved(self.name):
            self.state = self._write()
            self.changed = True
        self.give()

    def _write(self) -> TokenState:
        """What the server gave cannot be had twice: a disk that fails for a moment is given another chance."""
        for _attempt in range(TRIES if self.refreshed else 1):
            try:
                return self.store.write(self.name, self.state)
            except HostError as error:
                told = error.problems[0]
                time.sleep(PAUSE if self.refreshed else 0)
        if self.refreshed:
            problem = f"{told.problem}; the server's answer could not be kept, and a new refresh token is lost with it"
            told = told._replace(problem=problem)
        raise HostError(*told)

    def give(self) -> None:
        """The consumers' files that are not as they should be."""
        self.written = stale(self.store.host, self.state, self.at)
        self.warnings += give(self.store.host, self.state, self.written)
        self.changed = self.changed or bool(self.written)

    @property
    def wakes(self) -> bool:
        """Is there a new token, and may mail have waited for it?"""
        return self.refreshed and self.waited

    def outcome(self) -> Outcome:
        """After the lock was released: whose mail waited is told, and may ask us for its token itself."""
        if self.wakes:
            self.warnings += wake(self.store.host, self.state.consumers)
        return Outcome(self.state, self.changed, self.refreshed, tuple(self.warnings))
