# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A token store on the machine's own files, a clock that is set by hand, and an authorization server to ask."""

from __future__ import annotations

import functools
import grp
import os
import pwd
from pathlib import Path
from typing import Any

from lab.error_server import ErrorServer
from lab.granting import accept

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth import document, tokens
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.client import TokenClient
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.grants.base import Reply
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.registration import Registration
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.status import view
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.store import Consumer, Store, TokenState
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.posix_host import PosixHost
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.redaction import Secret

NAME, USER, SCOPE = "default", "fleet@example.test", ("smtp", "offline_access")
NOW = 1_795_500_000
DAY = 86400


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self, now: float = NOW) -> None:
        self.time = now

    def __call__(self) -> float:
        return self.time


class Held:
    """One token: its store below a directory, its server, its clock."""

    def __init__(self, directory: Path, server: ErrorServer | None = None, **registration: Any) -> None:
        self.directory = directory
        self.host = PosixHost()
        self.store = Store(self.host, str(directory / "oauth"))
        self.clock = Clock()
        self.server = server
        url = server.token_url if server else "http://127.0.0.1:1/token"
        declared: dict[str, Any] = {"client_id": "fleet", "token_url": url, "scope": SCOPE, "username": USER}
        self.registration = Registration(name=NAME, **{**declared, **registration})
        with self.store.locked(NAME):
            self.store.write_registration(NAME, self.registration)

    def declare(self, **changes: Any) -> None:
        """Change the registration, as a playbook would."""
        self.registration = self.registration._replace(**changes)
        with self.store.locked(NAME):
            self.store.write_registration(NAME, self.registration)

    def consumer(self, format: str = "plain", **fields: Any) -> Consumer:  # noqa: A002 - the field's name
        """Declare somebody who reads the access token."""
        path = str(self.directory / "tokens" / f"{NAME}.{format}")
        usual = {"service": NAME, "backend": format, "format": format, "path": path, "mode": 0o640, **own_names()}
        consumer = Consumer(**{**usual, **fields})
        place = Path(self.store.consumer_path(NAME, f"{consumer.service}.{consumer.backend}"))
        place.parent.mkdir(mode=0o700, exist_ok=True)
        place.write_bytes(document.written(consumer.as_record()))
        place.chmod(0o600)
        return consumer

    def authorize(self, refresh_token: str = "", **reply: Any) -> tokens.Outcome:
        """As if a person had just said yes."""
        if not refresh_token and self.server:
            refresh_token = self.server.oauth.issue_refresh_token("fleet", " ".join(SCOPE))
        said = {"expires_in": 3600, "refresh_token": Secret(refresh_token or "first-refresh-token"), "scope": SCOPE}
        return accept(self.store, NAME, Reply(Secret("first-access-token"), **{**said, **reply}), self.clock)

    def client(self, registration: Registration) -> TokenClient:
        return TokenClient(registration, self.host, timeout=3, sleep=lambda _seconds: None, now=self.clock)

    @property
    def ensure(self) -> Any:
        return functools.partial(tokens.ensure, self.store, NAME, self.client, self.clock)

    def remove(self, revoke: bool = True) -> tokens.Outcome:
        client = self.client(self.registration) if revoke else None
        return tokens.remove(self.store, NAME, client, self.clock)

    @property
    def state(self) -> TokenState:
        return self.store.read(NAME)

    @property
    def view(self) -> dict[str, Any]:
        return view(self.state, self.clock())

    @property
    def file(self) -> Path:
        return Path(self.store.token_path(NAME))

    def refreshes(self) -> int:
        """How often the server was asked with a refresh token."""
        assert self.server
        return len(self.server.requests("token", grant_type="refresh_token"))

    def wait(self, **passed: float) -> None:
        """Let time pass: days=, seconds=."""
        self.clock.time += passed.get("days", 0) * DAY + passed.get("seconds", 0)


def own_names() -> dict[str, str]:
    """Owner and group of what this process makes."""
    return {"owner": pwd.getpwuid(os.geteuid()).pw_name, "group": grp.getgrgid(os.getegid()).gr_name}
