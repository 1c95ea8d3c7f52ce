# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The store: the only owner of registrations, grants and their history, one directory a token.

NAME/registration.json   what is declared of the client
NAME/token.json          everything that the engine writes
NAME/consumers/*.json    who reads the access token
NAME itself              its lock (flock(2)), and a hidden candidate of token.json while one is written
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..errors import HostError
from . import document
from .records import kept_in, record_of, time_in
from .state import Access, Event, HeldGrant, Pending, SetAside, TokenState, Trouble
from .token_files import Consumer

if TYPE_CHECKING:
    from ..port import Host
    from .registration import Registration

__all__ = ["STORE", "Access", "Consumer", "Event", "HeldGrant", "Pending", "SetAside", "Store", "TokenState", "Trouble"]
STORE = "/var/lib/fleetmail/oauth"
ROOM = 64 * 1024  # for an answer: the largest tokens that are known of have some 16 KB
LONGEST_NAME = 63
_NAME = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")


class Store:
    """The store in ``directory`` of a host. All methods raise HostError with the file in it."""

    def __init__(self, host: Host, directory: str = STORE) -> None:
        self.host = host
        self.directory = directory.rstrip("/") or "/"
        self._reserved: set[str] = set()

    # -- places ------------------------------------------------------------------------------------------------------

    def path(self, name: str) -> str:
        """The token's directory. HostError: there is no token of such a name."""
        if not is_name(name):
            raise HostError(self.directory, "has no token of that name", "letters, digits, _ . -, at most 63")
        return f"{self.directory}/{name}"

    def registration_path(self, name: str) -> str:
        """What is declared of the client: ``document.written(registration.as_record())``."""
        return self.path(name) + "/registration.json"

    def consumer_path(self, name: str, service: str) -> str:
        """One consumer: ``document.written(consumer.as_record())``."""
        return f"{self.path(name)}/consumers/{service}.json"

    def token_path(self, name: str) -> str:
        """Everything that only the engine writes."""
        return self.path(name) + "/token.json"

    # -- reading -----------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """The tokens in it, sorted. Raises HostError where the store is a file or somebody else's."""
        self.host.own_directory(self.directory, repair=False)
        found = [name for name in self.host.names_in(self.directory) if is_name(name)]
        places = {name: (self.registration_path(name), self.token_path(name)) for name in found}
        return [name for name in found if any(map(self.host.exists, places[name]))]

    def read(self, name: str) -> TokenState:
        """What is known of a token; empty where it is not there."""
        wide: list[str] = []
        state = TokenState(name, self._registration(name, wide), consumers=tuple(self._consumers(name, wide)))
        path = self.token_path(name)
        record = self._record(path, wide)
        if record is not None:
            try:
                state = state._replace(**kept_in(record))
            except ValueError:
                raise document.not_ours(path) from None
        return state._replace(wide=tuple(wide)) if wide else state

    def _record(self, path: str, wide: list[str]) -> dict[str, Any] | None:
        found = self.host.read(path)
        if found is None:
            return None
        if found.mode & 0o077:
            wide.append(path)
        return document.understood(path, found.content)

    def _registration(self, name: str, wide: list[str]) -> Registration | None:
        path = self.registration_path(name)
        record = self._record(path, wide)
        if record is None:
            return None
        from .registration import Registration

        try:
            return Registration.from_record(record)
        except (ValueError, TypeError):
            raise document.not_ours(path) from None

    def _consumers(self, name: str, wide: list[str]) -> Iterator[Consumer]:
        directory = self.path(name) + "/consumers"
        for entry in self.host.names_in(directory):
            path = f"{directory}/{entry}"
            if entry.startswith(".") or not entry.endswith(".json"):
                continue
            record = self._record(path, wide)
            if record is not None:
                try:
                    yield Consumer.from_record(record)
                except (ValueError, TypeError):
                    raise document.not_ours(path) from None

    # -- writing, under the lock -------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def locked(self, name: str, patience: float = 60) -> Iterator[None]:
        """Hold the one lock of a token, across all processes; its directory is made where there is none.

        What a run that was killed had written completely is taken up first.
        """
        path = self.path(name)
        self.host.own_directory(self.directory)
        self.host.own_directory(path)
        with self.host.locked(path, patience):
            self._take_up(name)
            yield

    def _take_up(self, name: str) -> None:
        left = self._left_over(name)
        if left is not None and left.get("serial") == self.read(name).serial + 1:
            self.host.sync(self._candidate(name))
            self.host.rename(self._candidate(name), self.token_path(name))

    def _left_over(self, name: str) -> dict[str, Any] | None:
        """What an interrupted run left: a whole token.json, a note that an answer is waited for, {}: neither."""
        candidate = self._candidate(name)
        found = self.host.read(candidate)
        if found is None:
            return None
        try:
            record = document.understood(candidate, found.content)
            if "asking_since" in record:
                return {"asking_since": time_in(record["asking_since"])}
            return kept_in(record)
        except (HostError, ValueError):
            return {}

    def recovered(self, name: str, now: int) -> TokenState:
        """As ``read``, under the lock: ``lost_answer_at`` says when a run was killed that waited for an answer."""
        state, left = self.read(name), self._left_over(name)
        if left is None or "serial" in left:  # nothing, or a whole one of another time
            return state
        return state._replace(lost_answer_at=left.get("asking_since", now))

    def is_reserved(self, name: str) -> bool:
        """Was room taken for the next ``write``?"""
        return name in self._reserved

    def reserve(self, name: str, now: int, room: int = ROOM) -> None:
        """Take room on disk for the next ``write``, so that an answer can be kept, and note that it is waited for."""
        note = document.written({"asking_since": now})
        own = str(os.geteuid()), str(os.getegid())
        path = self.token_path(name)
        now_there = self.host.read(path)
        size = room + 2 * len(now_there.content if now_there else b"")
        self.host.sync(self.host.stage(path, note.ljust(size), 0o600, *own))
        self._reserved.add(name)

    def write(self, name: str, state: TokenState) -> TokenState:
        """Write token.json, synced; gives the state as it is now."""
        state = state._replace(serial=state.serial + 1)
        content = document.written(record_of(state))
        if name in self._reserved:
            self._fill(name, content)
            self._reserved.discard(name)
        else:
            self._put(self.token_path(name), content)
        return state

    def _fill(self, name: str, content: bytes) -> None:
        """Into the room that was taken; where that is of no use after all, give it up to have it for a new file."""
        candidate, path = self._candidate(name), self.token_path(name)
        try:
            self.host.refill(candidate, content)
        except HostError:
            self._put(path, content)
        else:
            self.host.rename(candidate, path)

    def narrow(self, state: TokenState) -> TokenState:
        """Make files that others can read ours alone again."""
        for path in state.wide:
            found = self.host.read(path)
            if found is not None:
                self._put(path, found.content)
        return state._replace(wide=())

    def write_registration(self, name: str, registration: Registration) -> bool:
        """Write registration.json where it differs. True: it did."""
        path = self.registration_path(name)
        content, found = document.written(registration.as_record()), self.host.read(path)
        if found is not None:
            document.understood(path, found.content)
            if (found.content, found.mode) == (content, 0o600):
                return False
        self._put(path, content)
        return True

    def forget(self, name: str) -> None:
        """Remove what the engine wrote; what is declared stays."""
        self.host.remove(self.token_path(name))
        self.host.remove(self._candidate(name))

    def remove(self, name: str) -> None:
        """Remove all that is known of a token."""
        self.host.remove_tree(self.path(name))
        if self.host.exists(self.path(name)):
            raise HostError(self.path(name), "cannot be removed", "is its file system mounted read-only?")

    def _put(self, path: str, content: bytes) -> None:
        own = str(os.geteuid()), str(os.getegid())
        self.host.rename(self.host.stage(path, content, 0o600, *own), path)

    def _candidate(self, name: str) -> str:
        return self.host.staged_name(self.token_path(name))


def is_name(name: str) -> bool:
    """Can a token be called so? As a service's name: it becomes a directory's."""
    return 0 < len(name) <= LONGEST_NAME and set(name) <= _NAME and name[0].isalnum()
