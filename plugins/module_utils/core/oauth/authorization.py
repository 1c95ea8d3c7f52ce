# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""An authorization by a person, in two phases that may be tasks, plays or machines apart.

``begin`` keeps what is pending in the store and tells what to open. ``finish`` takes the answer, ``wait`` polls for it,
``listen`` takes it from the browser. All of them work under the token's lock and with room on disk for the answer.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Callable, NamedTuple
from urllib.parse import urlsplit

from ..errors import HostError, InvalidService, Problem
from ..service import is_loopback
from .answered import authorized, refused
from .causes import CAUSES, Cause
from .client import Refused
from .grants.base import PersonGrant, Reply
from .grants.registry import grant_type
from .renewal import CLOCK_OFF, noted
from .status import iso
from .tokens import ClientOf, Clock, Outcome, step

if TYPE_CHECKING:
    from .client import TokenClient
    from .registration import Registration
    from .state import Pending, TokenState
    from .store import Store

ENDS = ("unauthorized", "blocked", "revoked", "expired")  # with such a cause the pending one is of no more use
ANSWER = "authorization_response"
HOST_TROUBLE = Cause(
    "host",
    "pending",
    False,
    "the host could not take the answer",
    "look at what the task that waited for this says, then open the address again",
)


def begin(store: Store, name: str, client_of: ClientOf, now: Clock = time.time, redirect_uri: str = "") -> Outcome:
    """Begin an authorization, or keep the one that is pending: ``state.pending`` of what is given back.

    ``redirect_uri`` "": a loopback address with a free port, or none where the flow has no browser.
    Raises Refused, HostError.
    """

    def make(state: TokenState, at: int, registration: Registration, client: TokenClient) -> TokenState:
        if resumable(state, at):
            return state
        uri = redirect_uri or redirect_for(registration)
        pending = _grant(registration).begin(registration, client, lambda: at, uri)
        pending = pending._replace(data={**pending.data, "asked": _asked(registration)})
        return noted(state._replace(pending=pending), at, "begun", pending.flow)

    return _Step(store, name, client_of, now).run(make)


def finish(store: Store, name: str, answer: str, client_of: ClientOf, now: Clock = time.time) -> Outcome:
    """Complete it: with the pasted address or code, or, where the flow polls, by asking once ("").

    ``refreshed`` of what is given back: it is complete. Else ``state.pending`` is what there is to wait for.
    Raises Refused: nothing is pending, the answer is not one to what is (which is kept), or the server said no (then
    it is gone). Raises HostError.
    """

    def make(state: TokenState, at: int, registration: Registration, client: TokenClient) -> TokenState:
        pending = state.pending
        if pending is None and seen.pending is not None and not answer:
            return state  # while we waited for the lock somebody else had the server's answer
        if pending is None or pending.identity not in registration.identities:
            raise Refused(CAUSES["nothing_pending"], ANSWER if answer else "state", sent=False)
        began = time.monotonic()
        got = _grant(registration, pending.flow).finish(registration, pending, answer, client, now)
        if not isinstance(got, Reply):
            return state._replace(pending=got)
        _check(got, registration)
        done = int(now() - (time.monotonic() - began))
        off = client.clock_off or 0
        state = authorized(state, registration._replace(grant=pending.flow), got, done)
        return state._replace(clock_off=off if abs(off) > CLOCK_OFF else 0)

    seen = store.read(name)
    if not answer and seen.pending and not _due(seen.pending, now()):
        return Outcome(seen)
    return _Step(store, name, client_of, now).run(make)


def wait(
    store: Store,
    name: str,
    client_of: ClientOf,
    seconds: float,
    now: Clock = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Outcome:
    """Poll for the answer, where the flow does that, at the server's pace, at most ``seconds`` long; 0: ask once.

    The lock is free between polls, and what is kept says when the next one may be, so that others can go on.
    Raises as ``finish``.
    """
    end, slept = time.monotonic() + seconds, False
    while True:
        state = store.read(name)
        if slept and state.pending is None:
            return Outcome(state)  # the keeper, or another task, had the server's answer
        pause = _due_in(state.pending, now()) if state.pending else 0.0
        left = end - time.monotonic()
        if pause > max(left, 0):
            sleep(max(left, 0))
            return Outcome(store.read(name))
        if pause:
            sleep(pause)
            slept = True
            continue
        outcome = finish(store, name, "", client_of, now)
        if outcome.refreshed or outcome.state.pending is None or time.monotonic() >= end:
            return outcome


def listen(store: Store, name: str, client_of: ClientOf, seconds: float, now: Clock = time.time) -> Outcome:
    """Wait for the browser at the loopback address of the pending authorization, at most ``seconds`` long.

    Raises as ``finish``; HostError where that address cannot be listened at.
    """
    from .landing import Ending
    from .listener import Listener

    state = store.read(name)
    if state.pending is None or "redirect_uri" not in state.pending.data:
        raise Refused(CAUSES["nothing_pending"], "listen", sent=False)
    taken: list[Outcome] = []
    last: list[Exception] = []

    def answer(address: str) -> Ending | None:
        """What the browser brought; why it is not good, for the page."""
        try:
            taken.append(finish(store, name, address, client_of, now))
        except Exception as error:  # of the browser's thread: it is raised in ours
            last[:] = [error]
            return Ending(error.cause, error.description) if isinstance(error, Refused) else Ending(HOST_TROUBLE)
        return None

    def enough() -> bool:
        return bool(taken or (last and not isinstance(last[0], Refused)) or store.read(name).pending is None)

    with Listener(state.pending.data["redirect_uri"], _for_whom(state)) as listener:
        listener.serve(answer, seconds, enough)
    if taken:
        return taken[0]
    if last:
        raise last[0]
    return Outcome(store.read(name))


def resumable(state: TokenState, now: float) -> bool:
    """Is an authorization pending that ``finish`` would take, for what is registered now?"""
    pending, registration = state.pending, state.registration
    if pending is None or registration is None or now >= pending.expires_at:
        return False
    same_client = pending.identity in registration.identities and pending.flow == registration.grant
    return same_client and pending.data.get("asked") == _asked(registration)


def shown(pending: Pending, registration: Registration | None) -> dict[str, Any]:
    """The contract's ``authorization``: what the person has to do. Nothing in it is secret."""
    data, until = pending.data, iso(pending.expires_at)
    who = f"sign in as {registration.expected_user}" if registration and registration.expected_user else "sign in"
    if data.get("user_code"):
        code = data["user_code"]
        words = f"Open {data['url']} on any machine, {who} and type in {code}, before {until}."
        if data.get("url_complete"):
            words += f" Or open {data['url_complete']}, which has the code in it, and compare it."
        if data.get("missed"):
            words += f" When it was asked last, the server could not be reached: {data['missed']}"
    else:
        words = (
            f"Open this address in a browser, {who} and accept, before {until}. The browser then ends at an address "
            f"that begins with {data['redirect_uri']}; it does not matter if that page cannot be shown. Give that "
            "whole address as authorization_response, at once, for the code in it is valid for minutes."
        )
    return {
        "flow": pending.flow,
        "url": data["url"],
        "user_code": data.get("user_code", ""),
        "expires_at": until,
        "instructions": words,
    }


def redirect_for(registration: Registration, listen: str = "") -> str:
    """Where the browser is to be sent back to.

    ``listen``: a loopback address literal with or without a port, "" for any. Without a port, a free one is chosen, as
    authorization servers let loopback redirects have any (RFC 8252 7.3). Raises InvalidService.
    """
    declared = registration.redirect_uri
    host, port = _listening(listen) if listen else ("127.0.0.1", 0)
    if declared:
        parts = urlsplit(declared)
        fixed = not is_loopback(parts.hostname or "") or parts.port is not None or parts.scheme != "http"
        if fixed:
            return declared
        name = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"http://{name}:{port or _free_port(host)}{parts.path}" + (f"?{parts.query}" if parts.query else "")
    shown_host = registration.provider_row.loopback if host == "127.0.0.1" else f"[{host}]" if ":" in host else host
    return f"http://{shown_host}:{port or _free_port(host)}"


def _listening(listen: str) -> tuple[str, int]:
    """Address and port of the option; 0 for any port."""
    from ipaddress import ip_address

    try:
        parts = urlsplit("//" + listen)
        host, port = parts.hostname or "", parts.port or 0
        fine = ip_address(host).is_loopback and not (parts.path or parts.query)
    except ValueError:
        fine = False
    if not fine:
        raise InvalidService([Problem("listen", "is not a loopback address", "127.0.0.1:8400 or [::1]:8400")])
    return host, port


def _free_port(host: str) -> int:
    import socket

    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
    return port


class _Step(NamedTuple):
    """One step under the lock, whose refusal is written down before it is raised."""

    store: Store
    name: str
    client_of: ClientOf
    now: Clock

    def run(self, make: Callable[[TokenState, int, Registration, TokenClient], TokenState]) -> Outcome:
        told: list[Exception] = []

        def guarded(state: TokenState, at: int) -> TokenState:
            registration = state.registration
            if registration is None:
                told.append(
                    HostError(self.store.registration_path(self.name), "is not there", "declare the client first")
                )
                return state
            try:
                return make(state, at, registration, self.client_of(registration))
            except Refused as error:
                told.append(error)
                return _after(state, registration, error, at)
            except Exception as error:  # raised again below: the reserved room must be given back first
                told.append(error)
                return state

        outcome = step(self.store, self.name, guarded, self.now)
        if told:
            raise told[0]
        return outcome


def _after(state: TokenState, registration: Registration, error: Refused, at: int) -> TokenState:
    """What a refusal leaves: the pending one where it may still be answered, a working grant in any case."""
    if error.cause.name == "nothing_pending" or error.cause.status == "pending":
        return state
    if state.grant is None:
        state = refused(state, registration, error, at)._replace(lost_answer_at=state.lost_answer_at)
    return state._replace(pending=None) if error.cause.status in ENDS else state


def _check(reply: Reply, registration: Registration) -> None:
    """An authorization that mail cannot be sent with, or that ends within the hour, is none."""
    missing = registration.missing_scope(reply.scope)
    if missing:
        detail = "not granted: {}; granted: {}".format(" ".join(missing), " ".join(reply.scope or ()))
        raise Refused(CAUSES["scope_missing"], "scope", detail=detail[:300])
    if reply.refresh_token is None:
        raise Refused(CAUSES["no_refresh_token"], "scope")


def _grant(registration: Registration, flow: str = "") -> PersonGrant:
    found = grant_type(flow or registration.grant)
    if not isinstance(found, PersonGrant):
        hint = "smtp_oauth_token with state: present gets its token"
        raise InvalidService([Problem("oauth_grant", f"{registration.grant} needs no person", hint)])
    return found


def _asked(registration: Registration) -> list[str]:
    """What an authorization is for: another one has to be begun when that changes."""
    return [registration.expected_user, *registration.requested_scope]


def _due_in(pending: Pending, now: float) -> float:
    """Seconds until the server may be asked, or until there is no more use in waiting."""
    poll = float(pending.data.get("next_poll", pending.expires_at))
    return max(0.0, min(poll, pending.expires_at) - now)


def _due(pending: Pending, now: float) -> bool:
    return _due_in(pending, now) == 0.0


def _for_whom(state: TokenState) -> str:
    return state.registration.username if state.registration else ""
