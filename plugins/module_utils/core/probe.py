# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The probe: a live conversation with a relay, as far as a level says, that sends no mail."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .advice import NONE, Advice, Advised
from .conversation import Conversation, Envelope, Step, mechanisms, plan
from .dialogue import shown
from .target import Bearer, Password, Target

__all__ = ["LEVELS", "Bearer", "Password", "Report", "Step", "Target", "probe"]

_ENVELOPE = ("mail", "rcpt", "rset")
_MORE = {"tls": (), "auth": ("auth",), "recipient": ("auth", *_ENVELOPE)}
LEVELS = ("none", "connect", *_MORE)
_REACHED_BY = {"connect": "connect", "tls": "tls", "auth": "auth", "rset": "recipient"}


@dataclass(frozen=True)
class Report(Advised):
    """What a probe found. ``problem`` is one sentence (what is wrong, what to do), ``cause`` its name in advice.py."""

    level: str
    reached: str
    ok: bool
    steps: tuple[Step, ...] = ()
    tls: dict[str, Any] = field(default_factory=dict)
    capabilities: list[str] = field(default_factory=list)
    auth_mechanisms: list[str] = field(default_factory=list)
    advice: Advice = NONE

    def as_result(self) -> dict[str, Any]:
        """The ``verification`` result of the modules."""
        return {
            "level": self.level,
            "reached": self.reached,
            "ok": self.ok,
            "steps": [step.as_result() for step in self.steps],
            "tls": self.tls,
            "capabilities": self.capabilities,
            "auth_mechanisms": self.auth_mechanisms,
        }


def probe(target: Target, level: str) -> Report:
    """Talk to the relay as far as ``level`` (one of LEVELS) says; never raises for what the relay does.

    What is not configured passes and says so (tls with security none, auth without credentials); only level
    recipient needs something, ``target.recipient``. With security tls the greeting is behind the handshake, so that
    level connect does it too, certificate and all.
    """
    if level == "none":
        return Report(level, level, True)
    recipients = (target.recipient,) if target.recipient else ()
    talk = Conversation(target, Envelope(target.default_sender, recipients))
    ok = talk.run(_steps(target.security, level))
    return Report(
        level=level,
        reached=_reached(talk.steps, level),
        ok=ok,
        steps=tuple(talk.steps),
        tls=talk.tls,
        capabilities=[shown(f"{keyword} {value}".strip()) for keyword, value in talk.capabilities.items()],
        auth_mechanisms=[shown(name) for name in mechanisms(talk.capabilities)],
        advice=talk.advice,
    )


def _steps(security: str, level: str) -> list[str]:
    if level == "connect" and security != "tls":
        return ["connect", "ehlo", "quit"]
    return plan(security, *_MORE.get(level, ()), "quit")


def _reached(steps: list[Step], level: str) -> str:
    done = [_REACHED_BY[step.name] for step in steps if step.ok and step.name in _REACHED_BY]
    return min(done[-1] if done else "none", level, key=LEVELS.index)
