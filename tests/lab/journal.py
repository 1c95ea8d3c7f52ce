# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a relay saw: one JSON line an event, written as it happens, so that a session that hangs is seen too."""

from __future__ import annotations

import base64
import email
import email.policy
import json
import os
import time
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class AuthAttempt:
    """Credentials as they arrived, byte for byte. secret is the password or the access token."""

    mechanism: str
    user: bytes
    secret: bytes
    tls: bool
    accepted: bool


@dataclass(frozen=True)
class Message:
    """A mail that was accepted."""

    sender: str
    recipients: list[str]
    data: bytes
    tls: dict[str, Any] | None
    auth_user: bytes | None
    session: int

    @property
    def email(self) -> EmailMessage:
        """Its header and body, parsed."""
        return email.message_from_bytes(self.data, policy=email.policy.default)


@dataclass
class Session:
    """One TCP connection."""

    number: int
    listener: str
    peer: str
    tls: dict[str, Any] | None = None
    tls_error: str | None = None
    dialogue: list[tuple[str, str]] = field(default_factory=list)
    auths: list[AuthAttempt] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    ended: bool = False

    @property
    def commands(self) -> list[str]:
        """The client's command lines, in order."""
        return [text for who, text in self.dialogue if who == "C"]

    @property
    def replies(self) -> list[str]:
        """The relay's reply lines, in order."""
        return [text for who, text in self.dialogue if who == "S"]

    @property
    def saw_credentials(self) -> bool:
        """Whether the client sent any credential, finished or not, accepted or not."""
        return bool(self.auths) or any(
            line.upper().startswith("AUTH ") and len(line.split()) > 2 for line in self.commands
        )


class Journal:
    """The file. It holds passwords, so it is made 0600."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))

    def write(self, event: str, session: int = 0, **fields: Any) -> None:
        """Add an event; bytes become base64."""
        line = json.dumps({"event": event, "session": session, "time": time.time(), **_plain(fields)})
        with open(self.path, "ab", buffering=0) as file:
            file.write(line.encode() + b"\n")

    def events(self) -> list[dict[str, Any]]:
        """All events so far."""
        lines = self.path.read_bytes().split(b"\n")[:-1]
        return [json.loads(line) for line in lines]


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        key: base64.b64encode(value).decode() if isinstance(value, bytes) else value for key, value in fields.items()
    }


def sessions(events: list[dict[str, Any]]) -> list[Session]:
    """The sessions that the events tell of, oldest first."""
    found: dict[int, Session] = {}
    for event in events:
        number = event["session"]
        if event["event"] == "connect":
            found[number] = Session(number, event["listener"], event["peer"])
        elif number in found:
            _ADD[event["event"]](found[number], event)
    return list(found.values())


def _add_tls(session: Session, event: dict[str, Any]) -> None:
    session.tls = {key: event[key] for key in ("version", "cipher", "server_name")}


def _add_tls_error(session: Session, event: dict[str, Any]) -> None:
    session.tls_error = event["error"]


def _add_command(session: Session, event: dict[str, Any]) -> None:
    session.dialogue.append(("C", event["line"]))


def _add_reply(session: Session, event: dict[str, Any]) -> None:
    session.dialogue.append(("S", event["line"]))


def _add_auth(session: Session, event: dict[str, Any]) -> None:
    user, secret = base64.b64decode(event["user"]), base64.b64decode(event["secret"])
    session.auths.append(AuthAttempt(event["mechanism"], user, secret, session.tls is not None, event["accepted"]))


def _add_message(session: Session, event: dict[str, Any]) -> None:
    user = next((attempt.user for attempt in session.auths if attempt.accepted), None)
    data = base64.b64decode(event["data"])
    session.messages.append(Message(event["sender"], event["recipients"], data, session.tls, user, session.number))


def _add_end(session: Session, _event: dict[str, Any]) -> None:
    session.ended = True


_ADD = {
    "auth": _add_auth,
    "command": _add_command,
    "disconnect": _add_end,
    "message": _add_message,
    "reply": _add_reply,
    "tls": _add_tls,
    "tls_error": _add_tls_error,
}
