# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A token store in a folder of this machine, the keeper's program as the role installs it, and a real server's grants.

with OAuthServer() as server: host = TokenHost(folder, server); host.authorize(); host.keeper("tick")
"""

from __future__ import annotations

import functools
import grp
import json
import os
import pwd
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth import document
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.grants.base import Reply
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.registration import Registration
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.store import Consumer, Store, TokenState
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.posix_host import PosixHost
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.redaction import Secret
from ansible_collections.fleetmail.smtp.plugins.plugin_utils.keeper_program import program as packed

from .granting import accept
from .oauth_server import MICROSOFT_SCOPE

if TYPE_CHECKING:
    from .oauth_server import Client, OAuthServer

ROOT = Path(__file__).parents[2]
CORE = ROOT / "plugins" / "module_utils"
USER = "fleet@example.test"
SCOPE = (MICROSOFT_SCOPE, "offline_access")


@functools.cache
def program() -> Path:
    """The keeper in one file, as the lookup plugin packs it."""
    path = Path(tempfile.mkdtemp(prefix="keeper-")) / "fleetmail-keeper"
    path.write_bytes(packed("/usr/bin/python3"))
    path.chmod(0o755)
    return path


class TokenHost:
    """The store and what reads from it, below ``folder``. Tokens are named; "default" unless told."""

    def __init__(self, folder: Path, server: OAuthServer | None = None) -> None:
        self.folder, self.server = folder, server
        self.store = Store(PosixHost(), str(folder / "oauth"))
        self.tokens = folder / "tokens"

    # -- what is declared and granted

    def declare(self, name: str = "default", client: Client | None = None, **fields: Any) -> Registration:
        """As smtp_service would."""
        usual: dict[str, Any] = {"name": name, "scope": SCOPE, "username": USER}
        if self.server:
            client = client or self.server.public
            usual.update(authorization_url=self.server.authorization_url, token_url=self.server.token_url)
            usual.update(revocation_url=self.server.revocation_url)
            usual.update(client_id=client.client_id)
            if client.client_secret:
                usual.update(client_secret=Secret(client.client_secret))
        registration = Registration(**{**usual, **fields})
        with self.store.locked(name):
            self.store.write_registration(name, registration)
        return registration

    def consumer(self, name: str = "default", format: str = "plain", **fields: Any) -> Path:  # noqa: A002
        """Somebody who reads the access token; gives the file that is read."""
        own = {"owner": pwd.getpwuid(os.geteuid()).pw_name, "group": grp.getgrgid(os.getegid()).gr_name}
        usual = {"service": name, "backend": format, "format": format, "mode": 0o640, **own}
        consumer = Consumer(**{**usual, "path": str(self.tokens / f"{name}.{format}"), **fields})
        place = Path(self.store.consumer_path(name, f"{name}.{format}"))
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.write_bytes(document.written(consumer.as_record()))
        place.chmod(0o600)
        return Path(consumer.path)

    def authorize(self, name: str = "default", age: float = 0, expires_in: int = 3600) -> dict[str, Any]:
        """A person says yes at the server, ``age`` seconds ago as this host's clock has it; the server's answer."""
        assert self.server
        registration = self.store.read(name).registration or self.declare(name)
        answer = self.server.grant_for(USER, " ".join(registration.scope))
        reply = Reply(Secret(answer["access_token"]), expires_in, Secret(answer["refresh_token"]), None, SCOPE)
        accept(self.store, name, reply, lambda: time.time() - age)
        return answer

    def state(self, name: str = "default") -> TokenState:
        return self.store.read(name)

    def refresh_token(self, name: str = "default") -> str:
        """The one that the store holds, "" where there is none."""
        grant = self.state(name).grant
        return grant.refresh_token.reveal() if grant and grant.refresh_token else ""

    def access_token(self, name: str = "default") -> str:
        """The one that the store holds, "" where there is none."""
        access = self.state(name).access
        return access.token.reveal() if access else ""

    # -- the keeper

    def command(self, *words: str, python: str | Path = sys.executable) -> list[str]:
        """The keeper's command line for this store."""
        return [str(python), "-I", str(program()), words[0], "--store", self.store.directory, *words[1:]]

    def keeper(
        self,
        *words: str,
        python: str | Path = sys.executable,
        env: Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run the keeper: ``keeper("status", "--json")``."""
        given = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", **(env or {})}
        command = self.command(*words, python=python)
        return subprocess.run(command, capture_output=True, text=True, env=given, timeout=60, check=False)

    def status(self, name: str = "default") -> dict[str, Any]:
        """What ``status --json`` says of a token."""
        said = json.loads(self.keeper("status", "--json", name).stdout)
        view: dict[str, Any] = said["tokens"][0]
        return view
