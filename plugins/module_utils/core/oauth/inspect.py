# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""What ``smtp_oauth_token_info`` tells: every token of a store, and what the server says of it, spending nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Callable

from ..errors import FleetmailError, InvalidService, Problem
from ..redaction import Redactor
from ..service import is_one_line, name_problems
from .renewal import settled
from .status import iso, view
from .store import Store
from .token_order import LONGEST_TIMEOUT
from .token_report import known_secrets, pending_view

if TYPE_CHECKING:
    from ..port import Host
    from .state import TokenState

WHOLE = 1 << 30


def inspect(options: Mapping[str, Any], host: Host, now: Callable[[], float] = time.time) -> dict[str, Any]:
    """The module's result. What cannot be read is a problem; the other tokens are told of all the same."""
    problems = offline_problems(options)
    result: dict[str, Any] = {"changed": False, "tokens": []}
    redactor = Redactor()
    if not problems:
        try:
            problems = _look(options, host, now, result["tokens"], redactor)
        except FleetmailError as error:
            problems = error.problems
    if problems:
        invalid = InvalidService(problems)
        result.update(failed=True, msg=invalid.message, problems=[problem.as_dict() for problem in problems])
    told: dict[str, Any] = redactor.data(result, WHOLE)
    return told


def offline_problems(options: Mapping[str, Any]) -> list[Problem]:
    """Everything that is wrong with the options, whatever the store has."""
    problems = list(name_problems(options["name"])) if options.get("name") is not None else []
    store = options.get("store") or "/"
    if not is_one_line(store) or not store.startswith("/"):
        problems.append(Problem("store", "is not an absolute path", "a directory on the host"))
    timeout = options.get("timeout")
    if timeout is not None and not 1 <= timeout <= LONGEST_TIMEOUT:
        problems.append(Problem("timeout", f"{timeout} is out of range", f"1 to {LONGEST_TIMEOUT} seconds"))
    return problems


def _look(
    options: Mapping[str, Any],
    host: Host,
    now: Callable[[], float],
    tokens: list[dict[str, Any]],
    redactor: Redactor,
) -> list[Problem]:
    """Tell of the tokens; gives what could not be told."""
    store = Store(host, options["store"])
    names, problems = store.names(), []
    wanted = options.get("name")
    if wanted is not None and wanted not in names:
        return [Problem("name", f"{store.directory} has no token {wanted}", "it has: " + (", ".join(names) or "none"))]
    for name in names if wanted is None else [wanted]:
        try:
            state = store.read(name)
        except FleetmailError as error:
            problems += error.problems
            continue
        for secret in known_secrets(state):
            redactor.learn(secret)
        tokens.append(_told(state, options, host, now()))
    return problems


def _told(state: TokenState, options: Mapping[str, Any], host: Host, now: float) -> dict[str, Any]:
    told = view(state, now)
    pending = pending_view(state, now)
    if pending is not None:
        told["authorization"] = pending
    if options.get("introspect"):
        told["introspection"] = _introspected(settled(state, int(now)), options.get("timeout"), host)
    return told


def _introspected(state: TokenState, timeout: int | None, host: Host) -> dict[str, Any]:
    """What the server says of the access token, if it is one of the client that is registered now."""
    from .client import TokenClient
    from .exchange import TIMEOUT

    answer: dict[str, Any] = {"active": None, "username": None, "scope": [], "expires_at": None, "problem": None}
    if state.registration is None or state.access is None:
        return {**answer, "problem": "there is no access token to ask about"}
    try:
        client = TokenClient(state.registration, host, timeout or TIMEOUT)
        said = client.introspect(state.access.token.reveal())
    except FleetmailError as error:
        return {**answer, "problem": error.message}
    if said is None:
        return {**answer, "problem": "the server offers no introspection (introspection_url)"}
    return {**answer, **_understood(said)}


def _understood(said: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of RFC 7662 2.2 that a person asks for."""
    scope, username, ends = said.get("scope"), said.get("username"), said.get("exp")
    return {
        "active": said.get("active") is True,
        "username": username if isinstance(username, str) else None,
        "scope": scope.split() if isinstance(scope, str) else [],
        "expires_at": iso(int(ends)) if isinstance(ends, (int, float)) and 0 < ends < 1 << 33 else None,
    }
