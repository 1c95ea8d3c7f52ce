# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The HTTP port of the OAuth client on a script: answers in turn, and everything that was asked."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.client import TokenClient
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.http import Answer, Call, NoAnswer
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.registration import Registration
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.posix_host import PosixHost
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.redaction import Secret

NOW = 1_795_500_000
ISSUER = "https://login.example.test"
USER = "fleet@example.test"
TOKENS = {"access_token": "the-access-token", "token_type": "Bearer", "expires_in": 3600}
GRANTED = {**TOKENS, "refresh_token": "the-refresh-token", "scope": "smtp offline_access"}
CLIENT = Registration(
    name="default",
    client_id="fleet",
    client_secret=Secret("cl1ent+s3cret"),
    scope=("smtp", "offline_access"),
    authorization_url=ISSUER + "/auth",
    token_url=ISSUER + "/token",
    device_authorization_url=ISSUER + "/device",
    username=USER,
)


def said(status: int = 200, headers: dict[str, str] | None = None, **fields: Any) -> Answer:
    """An answer in JSON."""
    return Answer(status, {"content-type": "application/json", **(headers or {})}, json.dumps(fields).encode())


def error(code: str, status: int = 400, **fields: Any) -> Answer:
    return said(status, None, error=code, **fields)


def id_token(**claims: Any) -> str:
    """An ID token as the token endpoint gives it; nobody looks at its signature."""
    parts = [json.dumps(part).encode() for part in ({"alg": "RS256"}, {"aud": CLIENT.client_id, **claims})]
    return ".".join([base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts] + ["sig"])


class Script:
    """Answers in turn (a NoAnswer is raised), or by path in ``paths``; the last one again and again."""

    def __init__(self, *answers: Answer | NoAnswer, paths: dict[str, Answer] | None = None) -> None:
        self.answers = list(answers)
        self.paths = paths or {}
        self.calls: list[Call] = []
        self.pauses: list[float] = []

    def __call__(self, call: Call, seconds: float) -> Answer:
        self.calls.append(call)
        path = urlsplit(call.url).path
        if path in self.paths:
            return self.paths[path]
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, NoAnswer):
            raise answer
        return answer

    def client(self, registration: Registration = CLIENT, now: float = NOW, chance: float = 0) -> TokenClient:
        return TokenClient(
            registration,
            PosixHost(),
            transport=self,
            sleep=self.pauses.append,
            now=lambda: now,
            chance=lambda: chance,
        )

    @property
    def forms(self) -> list[dict[str, str]]:
        return [dict(call.form or {}) for call in self.calls]
