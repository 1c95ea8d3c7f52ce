# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The store: the only owner of registrations, grants and their history, one directory a token."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from .state import Access, Event, HeldGrant, Pending, SetAside, TokenState, Trouble
from .token_files import Consumer

if TYPE_CHECKING:
    from ..port import Host
    from .registration import Registration

__all__ = ["STORE", "Access", "Consumer", "Event", "HeldGrant", "Pending", "SetAside", "Store", "TokenState", "Trouble"]
STORE = "/var/lib/fleetmail/oauth"


class Store:
    """The store in ``directory`` of a host. All methods raise HostError with the file in it."""

    def __init__(self, host: Host, directory: str = STORE) -> None:
        self.host = host
        self.directory = directory.rstrip("/") or "/"

    def path(self, name: str) -> str:
        """The token's directory."""
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

    def names(self) -> list[str]:
        """The tokens in it, sorted."""
        raise NotImplementedError

    def read(self, name: str) -> TokenState:
        """What is known of a token; empty where it is not there."""
        raise NotImplementedError

    def locked(self, name: str, patience: float = 60) -> AbstractContextManager[None]:
        """Hold the one lock of a token, across all processes; its directory is made where there is none."""
        raise NotImplementedError

    def reserve(self, name: str) -> None:
        """Take room on disk for the next ``write``, so that an answer of the server can be kept. Under the lock."""
        raise NotImplementedError

    def write(self, name: str, state: TokenState) -> TokenState:
        """Write token.json, synced; gives the state as it is now. Under the lock."""
        raise NotImplementedError

    def write_registration(self, name: str, registration: Registration) -> bool:
        """Write registration.json where it differs. Under the lock. True: it did."""
        raise NotImplementedError

    def remove(self, name: str) -> None:
        """Remove all that is known of a token. Under the lock."""
        raise NotImplementedError
