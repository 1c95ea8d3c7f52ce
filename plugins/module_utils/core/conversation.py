# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The steps of a conversation with a relay, each timed, and the order in which they are safe.

Credentials leave only in the step ``auth``, which begins only when the connection is what the target asked for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from time import monotonic
from typing import Any

from . import tls
from .advice import Advice, Advised, advise
from .dialogue import Deadline, Dialogue, Failure, Reply, connect, shown
from .sasl import authenticate, choose
from .target import Password, Target, wire_address

QUIT_WAIT = 5  # seconds; nothing depends on the answer
SUBMISSIONS = 465
SOON = 3  # seconds


@dataclass(frozen=True)
class Step:
    """One step as the ``verification`` result tells it; ``ms`` is how long it took."""

    name: str
    ok: bool
    detail: str
    ms: int

    def as_result(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Envelope:
    """Who sends to whom, and the message in wire form when one is sent."""

    sender: str
    recipients: tuple[str, ...]
    data: bytes = b""


def plan(security: str, *more: str) -> list[str]:
    """The steps up to a secured connection in the order that ``security`` asks for, then ``more``."""
    return ["connect", *(("tls", "ehlo") if security == "tls" else ("ehlo", "tls")), *more]


class Conversation(Advised):
    """Runs steps against a target. Nothing of a step is raised: it is noted in ``steps`` and ``problem``."""

    def __init__(self, target: Target, envelope: Envelope) -> None:
        self.target = target
        self.envelope = envelope
        self.steps: list[Step] = []
        self.tls: dict[str, Any] = {}
        self.capabilities: dict[str, str] = {}
        self.advice = Advice()
        self._refused: dict[str, Reply] = {}
        self._deadline = Deadline(target.timeout)
        self._dialogue: Dialogue
        self._address = target.host

    def run(self, steps: Sequence[str]) -> bool:
        """Run the steps until one fails; whether all went well."""
        with contextlib.ExitStack() as self._open:
            return all(self._run(name) for name in steps)

    def _run(self, name: str) -> bool:
        began = monotonic()
        self._begin(self.target.timeout)
        try:
            ok, detail = True, STEPS[name](self)
        except Failure as failure:
            ok, detail = False, failure.words
            self.advice = advise(name, failure, self._facts())
        self.steps.append(Step(name, ok, shown(detail), int((monotonic() - began) * 1000)))
        return ok

    def _begin(self, seconds: float) -> None:
        self._deadline = Deadline(seconds)
        if self.steps:
            self._dialogue.deadline = self._deadline

    def _facts(self) -> dict[str, Any]:
        """What the sentences of the advice may speak of."""
        target, told = self.target, self.tls
        return {
            "host": target.host,
            "port": target.port,
            "security": target.security,
            "timeout": f"{target.timeout:g}",
            "helo": target.helo_name or "its address",
            "sender": self.envelope.sender,
            "recipient": ", ".join(self._refused),
            "username": target.auth.username if target.auth else "auth_type: none",
            "names": ", ".join(told.get("names", ())) or told.get("subject") or "unknown",
            "not_after": told.get("not_after") or "unknown",
            "issuer": told.get("issuer") or "unknown issuer",
        }

    # Getting there

    def _connect(self) -> str:
        target = self.target
        self._dialogue = self._open.enter_context(connect(target.host, target.port, self._deadline))
        self._address = self._dialogue.sock.getpeername()[0]
        where = f"{self._address} port {target.port}"
        return where if target.security == "tls" else f"{where}: {self._greeting()}"

    def _greeting(self) -> Reply:
        """The server's first words. Where none come, TLS is tried in the last part of the time.

        On 465 it is tried soon, because silence there means nothing else (RFC 8314 3.3).
        """
        reserve = min(2, self.target.timeout / 5)
        last = soon = self._deadline.earlier(reserve)
        if self.target.port == SUBMISSIONS:
            soon = self._deadline.earlier(max(reserve, self.target.timeout - SOON))
        for self._dialogue.deadline in dict.fromkeys((soon, last)):
            try:
                return _expect(self._dialogue.read_reply("greeting"), 220)
            except Failure as failure:
                if failure.cause not in ("timeout", "closed"):
                    raise
                if self._speaks_tls(Deadline(reserve)):
                    raise Failure("tls_first", "no greeting, but an answer to a TLS handshake") from failure
                silence = failure
        raise silence

    def _speaks_tls(self, deadline: Deadline) -> bool:
        with contextlib.suppress(Failure), connect(self._address, self.target.port, deadline) as second:
            second.begin_tls(tls.context("", False), self._name)
            return True
        return False

    def _ehlo(self) -> str:
        greeting = ""
        if self.target.security == "tls":
            greeting = f"{_expect(self._dialogue.read_reply('greeting'), 220)}; "
        return greeting + self._say_ehlo(self._dialogue)

    def _say_ehlo(self, dialogue: Dialogue) -> str:
        reply = _expect(dialogue.ehlo(self.target.helo_name), 250)
        self.capabilities = dialogue.capabilities
        return f"250 {reply.lines[0]}"

    # TLS

    @property
    def _name(self) -> str:
        return self.target.host.rstrip(".")  # a certificate has no dot at the end

    def _tls(self) -> str:
        if self.target.security == "none":
            return "not encrypted, as security: none asks for" + self._hint_of_starttls()
        context = tls.context(self.target.ca_file, self.target.validate_certs)
        try:
            self._secure(self._dialogue, context)
        except Failure as failure:
            if failure.cause == "certificate":
                self._look_at_certificate()
            raise
        self.tls = tls.described(self._dialogue.sock)
        if self.target.security == "starttls":
            self._say_ehlo(self._dialogue)
        return self._tls_detail()

    def _hint_of_starttls(self) -> str:
        return "; the relay offers STARTTLS" if "STARTTLS" in self.capabilities else ""

    def _tls_detail(self) -> str:
        checked = "verified" if self.target.validate_certs else "not verified (validate_certs: false)"
        return "{version} {cipher}, certificate {subject} until {not_after}, {checked}".format(
            **self.tls, checked=checked
        )

    def _secure(self, dialogue: Dialogue, context: Any) -> None:
        if self.target.security == "tls":
            dialogue.begin_tls(context, self._name)
            return
        if "STARTTLS" not in dialogue.capabilities:
            raise Failure("starttls_absent", "STARTTLS is not among what the relay offers")
        refused = dialogue.starttls(context, self._name)
        if refused:
            raise Failure("reply", str(refused))

    def _look_at_certificate(self) -> None:
        """Fetch the certificate that was refused, over a second connection that carries nothing else."""
        with contextlib.suppress(Failure), connect(self._address, self.target.port, self._deadline) as second:
            if self.target.security == "starttls":
                _expect(second.read_reply("greeting"), 220)
                _expect(second.ehlo(self.target.helo_name), 250)
            self._secure(second, tls.context("", False))
            self.tls = tls.described(second.sock)

    # AUTH

    def _auth(self) -> str:
        target, dialogue = self.target, self._dialogue
        if not target.auth:
            return "no credentials are set (auth_type: none), so none were sent"
        if not self._may_send_credentials():
            raise Failure("cleartext", "credentials were not sent in clear text")
        exchange = choose(target.auth, self._offered_mechanisms(), target.host, target.port)
        secret = target.auth.password if isinstance(target.auth, Password) else target.auth.token
        dialogue.conceal(secret, exchange.lines)
        reply, reason = authenticate(exchange, lambda line: dialogue.command(line, "AUTH"))
        if reply.code != 235:
            because = f"; the relay's reason: {dialogue.hidden(reason)}" if reason else ""
            raise Failure("reply", shown(f"{reply}{because}"))
        return f"{exchange.mechanism}: {reply}"

    def _may_send_credentials(self) -> bool:
        target = self.target
        in_clear = target.allow_cleartext or ip_address(self._address).is_loopback
        return self._dialogue.encrypted or (target.security == "none" and in_clear)

    def _offered_mechanisms(self) -> list[str]:
        offered = mechanisms(self.capabilities)
        if not offered and self._hint_of_starttls():
            raise Failure("auth_needs_tls", "AUTH is not offered before STARTTLS")
        if not offered:
            raise Failure("auth_absent", "AUTH is not among what the relay offers")
        return offered

    # The envelope and the message

    def _mail(self) -> str:
        path = _path(self.envelope.sender)
        unusual = [a for a in (self.envelope.sender, *self.envelope.recipients) if not a.rpartition("@")[0].isascii()]
        if unusual and "SMTPUTF8" not in self.capabilities:
            raise Failure("smtputf8", shown(unusual[0]))
        line = b"MAIL FROM:" + path + (b" BODY=8BITMIME SMTPUTF8" if unusual else b"")
        return f"{shown(self.envelope.sender)}: {_expect(self._dialogue.command(line), 250)}"

    def _rcpt(self) -> str:
        if not self.envelope.recipients:
            raise Failure("recipient_missing", "no recipient is set, so only the sender was tried")
        accepted = []
        for recipient in self.envelope.recipients:
            reply = self._dialogue.command(b"RCPT TO:" + _path(recipient))
            if reply.code in (250, 251, 252):
                accepted.append(f"{recipient}: {reply}")
            else:
                self._refused[recipient] = reply
        if self._refused:
            raise Failure("reply", "; ".join(f"{reply} [{address}]" for address, reply in self._refused.items()))
        return "; ".join(accepted)

    def _data(self) -> str:
        _expect(self._dialogue.command(b"DATA"), 354)
        return str(_expect(self._dialogue.send_data(self.envelope.data), 250))

    def _rset(self) -> str:
        return str(_expect(self._dialogue.command(b"RSET"), 250))

    def _quit(self) -> str:
        self._begin(min(QUIT_WAIT, self.target.timeout))
        try:
            return str(self._dialogue.command(b"QUIT"))
        except Failure as failure:
            return f"{failure.words} (nothing depends on it)"


STEPS: dict[str, Callable[[Conversation], str]] = {
    "connect": Conversation._connect,
    "ehlo": Conversation._ehlo,
    "tls": Conversation._tls,
    "auth": Conversation._auth,
    "mail": Conversation._mail,
    "rcpt": Conversation._rcpt,
    "data": Conversation._data,
    "rset": Conversation._rset,
    "quit": Conversation._quit,
}


def mechanisms(capabilities: dict[str, str]) -> list[str]:
    """The SASL mechanisms that the server offers, in its order, each once."""
    return list(dict.fromkeys(capabilities.get("AUTH", "").upper().split()))


def _expect(reply: Reply, code: int) -> Reply:
    if reply.code != code:
        raise Failure("reply", str(reply))
    return reply


def _path(address: str) -> bytes:
    try:
        return f"<{wire_address(address)}>".encode()
    except ValueError as error:  # UnicodeError too
        raise Failure("address", f"no mail address in '{shown(address)}'") from error
