# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Consumers get their files, with owner and mode, and are told when their mail can go."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ..errors import FleetmailError
from .renewal import is_valid
from .token_files import Consumer, render

if TYPE_CHECKING:
    from ..port import Host
    from .state import TokenState

PATIENCE = 120  # s for a program that is told that mail can go


def stale(host: Host, state: TokenState, now: int) -> list[Consumer]:
    """The consumers whose file is not as it should be: missing, changed, a link, of another mode or owner."""
    return [consumer for consumer in state.consumers if _is_stale(host, consumer, state, now)]


def _is_stale(host: Host, consumer: Consumer, state: TokenState, now: int) -> bool:
    if state.access is not None and not is_valid(state.access, now):
        return False  # nothing good could be put there; what there is makes mail wait
    try:
        found = host.read(consumer.path)
        linked = host.is_link(consumer.path)
    except FleetmailError:  # a directory, a pipe: the attempt to write it tells
        return True
    if state.access is None or found is None or linked:
        return linked or (found is None) != (state.access is None)
    content = render(consumer.format, state.access, consumer.username)
    owners = _named("passwd", consumer.owner), _named("group", consumer.group)
    return tuple(found) != (content, consumer.mode, *owners)


def _named(kind: str, owner: str) -> str:
    """An owner as a file's is told: by name, where a number was declared and has one."""
    if not owner.isdigit():
        return owner
    import grp
    import pwd

    try:
        return pwd.getpwuid(int(owner)).pw_name if kind == "passwd" else grp.getgrgid(int(owner)).gr_name
    except KeyError:
        return owner


def give(host: Host, state: TokenState, consumers: Iterable[Consumer]) -> Iterator[str]:
    """Write these consumers' files, or remove them where there is no access token. Yields what did not work."""
    for consumer in consumers:
        try:
            _write(host, consumer, state)
        except FleetmailError as error:
            yield f"{consumer.service}: {error}"


def _write(host: Host, consumer: Consumer, state: TokenState) -> None:
    content = None
    if state.access is not None:
        content = render(consumer.format, state.access, consumer.username)
        host.make_directory(os.path.dirname(consumer.path), 0o755, str(os.geteuid()), str(os.getegid()))
    host.replace(consumer.path, content, consumer.mode, consumer.owner, consumer.group)


def wake(host: Host, consumers: Iterable[Consumer]) -> Iterator[str]:
    """Tell software whose mail may have waited, each program once. Yields what did not work."""
    for argv in dict.fromkeys(consumer.wake for consumer in consumers if consumer.wake):
        done = host.run(argv, timeout=PATIENCE)
        if done.code:
            yield f"{argv[0]} ended with {done.code}: {done.words[:200]}"
