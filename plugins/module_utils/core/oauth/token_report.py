# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""A token as modules tell of it: registration, drift, what is pending, and why it is of no use. Never a secret."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..errors import FleetmailError, Problem
from ..redaction import Secret
from .registration import OPTIONS, Registration
from .status import view

if TYPE_CHECKING:
    from .state import TokenState

SECRETS = ("client_secret", "proxy")  # a proxy's address may have a password in it
_WORDS = {
    "unauthorized": "has no grant",
    "pending": "has no grant yet, an authorization is pending",
    "expired": "has a grant that has expired",
    "revoked": "has a grant that was revoked",
}


def drift_between(stored: Registration | None, wanted: Registration) -> list[dict[str, Any]]:
    """What differs, in the options' words."""
    before = Registration(name=wanted.name) if stored is None else stored
    fields = [field for field in Registration._fields if getattr(before, field) != getattr(wanted, field)]
    return [
        {
            "field": OPTIONS.get(field, field),
            "before": _shown(field, getattr(before, field)),
            "after": _after(field, getattr(before, field), getattr(wanted, field)),
        }
        for field in fields
    ]


def _after(field: str, before: Any, after: Any) -> Any:
    return "(changed)" if field in SECRETS and before and after else _shown(field, after)


def _shown(field: str, value: Any) -> Any:
    if field in SECRETS:
        return "(set)" if value else "(unset)"
    return list(value) if isinstance(value, tuple) else value


def printed(state: TokenState, now: float) -> str:
    """The registration as far as it is not the default, and what is held: lines for a difference."""
    lines = []
    if state.registration is not None:
        lines += [f"{one['field']}: {one['after']}" for one in drift_between(None, state.registration)]
        told = view(state, now)
        fields = ("status", "cause", "authorized_user", "authorized_at", "refreshed_at", "expires_at", "scope")
        lines += [f"{field}: {told[field]}" for field in fields if told[field]]
        lines += [f"pending: {state.pending.flow}"] if pending_view(state, now) and state.pending else []
    return "".join(f"{line}\n" for line in lines)


def pending_view(state: TokenState, now: float) -> dict[str, Any] | None:
    """The contract's ``authorization``; None when nothing is pending that could be completed."""
    if state.pending is None or state.registration is None:
        return None
    from .authorization import resumable, shown

    return shown(state.pending, state.registration) if resumable(state, now) else None


def unusable(told: dict[str, Any], name: str) -> FleetmailError:
    """Why there is no valid access token, with what the server said and what to do."""
    from .causes import CAUSES

    cause = CAUSES.get(told["cause"] or "")
    words = cause.summary if cause else _WORDS.get(told["status"], "has no valid access token")
    said = ": ".join(part for part in (told["error"], told["error_description"]) if part)
    found = Problem("token", f"{name} is {told['status']}: {words}" + (f" ({said})" if said else ""), told["next_step"])
    return FleetmailError(str(found), [found])


def known_secrets(state: TokenState) -> Iterator[str]:
    """Every secret of a state, so that it can be masked."""
    held = [one for one in (state.grant, *(aside.held for aside in state.aside)) if one is not None]
    secrets: list[Secret | None] = [one.refresh_token for one in held]
    secrets.append(state.access.token if state.access else None)
    secrets.append(state.registration.client_secret if state.registration else None)
    yield from (secret.reveal() for secret in secrets if secret is not None)
    data = state.pending.data if state.pending else {}
    yield from (str(data[key]) for key in ("verifier", "code_verifier", "device_code") if data.get(key))
    if state.registration is not None and state.registration.proxy:
        yield state.registration.proxy
