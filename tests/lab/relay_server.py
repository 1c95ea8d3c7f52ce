# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The relay's protocol: aiosmtpd with every trap of a test server taken out, and all that it saw in a journal."""

from __future__ import annotations

import asyncio
import base64
import binascii
import collections
import functools
import hmac
import itertools
import json
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiosmtpd.smtp import MISSING, SMTP

from .journal import Journal

LINE_LIMIT = 1 << 20  # RFC 4954 allows 12,288; tokens and passwords of tests are longer
_BEFORE_STARTTLS = {"EHLO", "HELO", "STARTTLS", "NOOP", "RSET", "QUIT"}
_TLS_ERRORS = (OSError, ssl.SSLError, TimeoutError)


@dataclass
class Behaviour:
    """How the relay answers. A reply is a whole line such as "451 4.7.1 later"; empty means the ordinary one."""

    users: dict[str, str] = field(default_factory=dict)  # name -> password
    # name -> access token or all good ones, for XOAUTH2 and OAUTHBEARER
    tokens: dict[str, str | list[str]] = field(default_factory=dict)
    mechanisms: list[str] = field(default_factory=lambda: ["PLAIN", "LOGIN"])
    auth_required: bool = False
    greeting: str = ""  # refuses the connection: "554 5.3.2 go away"
    auth_reply: str = ""  # the answer to every AUTH, whatever the credentials: "535 5.7.139 disabled"
    mail_reply: str = ""
    rcpt_replies: dict[str, str] = field(default_factory=dict)  # address, @domain or * -> reply
    data_reply: str = ""  # after the message; a refused one is not kept


@dataclass
class Listener:
    """Where the relay listens and with what security. Port 0 takes a free one, and is then the one taken."""

    host: str = "127.0.0.1"
    port: int = 0
    security: str = "none"  # none (also: STARTTLS stripped), starttls, tls
    chain: str = ""
    key: str = ""
    tls_required: bool = True  # security starttls: nothing goes before STARTTLS
    cleartext_auth: bool | None = None  # AUTH offered without TLS; by itself only where security is none

    def context(self) -> ssl.SSLContext | None:
        """What this listener's TLS is made with."""
        if self.security == "none":
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.chain, self.key)
        context.sni_callback = _remember_server_name
        return context

    @property
    def name(self) -> str:
        return f"{self.security} {self.host}:{self.port}"


def _remember_server_name(connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
    connection.fleetmail_server_name = name  # type: ignore[attr-defined]


class _Hooks:
    """aiosmtpd's places for a server's own answers."""

    async def handle_EHLO(  # noqa: N802
        self, server: Protocol, session: Any, _envelope: Any, name: str, lines: list[str]
    ) -> list[str]:
        session.host_name = name
        return [*lines[:-1], *(f"250-{line}" for line in server.extensions()), lines[-1]]

    async def handle_MAIL(  # noqa: N802
        self, server: Protocol, _session: Any, envelope: Any, address: str, options: list[str]
    ) -> Any:
        if server.behaviour.mail_reply:
            return server.behaviour.mail_reply
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 Sender OK"

    async def handle_RCPT(  # noqa: N802
        self, server: Protocol, _session: Any, envelope: Any, address: str, _options: list[str]
    ) -> Any:
        replies = server.behaviour.rcpt_replies
        for key in (address, "@" + address.rpartition("@")[2], "*"):
            if key in replies:
                return replies[key]
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Recipient OK"

    async def handle_DATA(self, server: Protocol, _session: Any, envelope: Any) -> str:  # noqa: N802
        if server.behaviour.data_reply:
            return server.behaviour.data_reply
        sender = "" if envelope.mail_from == "<>" else envelope.mail_from
        server.note("message", sender=sender, recipients=envelope.rcpt_tos, data=envelope.content)
        return f"250 2.0.0 Queued as {server.number:06d}"


class Protocol(SMTP):
    """One connection."""

    line_length_limit = LINE_LIMIT
    command_size_limit = LINE_LIMIT
    command_size_limits: dict[str, int] = collections.defaultdict(lambda: LINE_LIMIT)  # noqa: RUF012 - as in the base class
    # aiosmtpd's own challenges are refused by clients that look at them
    AuthLoginUsernameChallenge = "Username:"
    AuthLoginPasswordChallenge = "Password:"
    _numbers = itertools.count(1)
    session: Any

    def __init__(
        self, listener: Listener, context: ssl.SSLContext | None, behaviour: Behaviour, journal: Journal, hostname: str
    ) -> None:
        super().__init__(
            _Hooks(),
            hostname=hostname,
            ident="ESMTP",
            enable_SMTPUTF8=True,
            auth_required=behaviour.auth_required,
            loop=asyncio.get_running_loop(),
        )
        self.listener, self.behaviour, self.number = listener, behaviour, next(Protocol._numbers)
        self._context, self._journal, self._tls, self._lost = context, journal, False, False
        self._smtp_methods = {name: self._noted(name, method) for name, method in self._smtp_methods.items()}

    def note(self, event: str, **fields: Any) -> None:
        """Write an event of this connection to the journal."""
        self._journal.write(event, self.number, **fields)

    def opened(self, peer: Any) -> None:
        """Note that somebody connected."""
        self.note("connect", listener=self.listener.name, peer=f"{peer[0]}:{peer[1]}" if peer else "")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self.listener.security == "tls":
            self._note_tls(transport)
        else:
            self.opened(transport.get_extra_info("peername"))
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            self.note("disconnect")
            if self.session:  # none when the first TLS handshake failed
                super().connection_lost(error)

    async def push(self, status: Any) -> None:
        text = status if isinstance(status, str) else status.decode(errors="replace")
        if self.behaviour.greeting and text.startswith("220 ") and not self.session.host_name and not self._tls:
            text = status = self.behaviour.greeting
        self.note("reply", line=text)
        await super().push(status)

    def _note_tls(self, transport: asyncio.BaseTransport) -> None:
        connection = transport.get_extra_info("ssl_object")
        self._tls = True
        name = getattr(connection, "fleetmail_server_name", None)
        self.note("tls", version=connection.version(), cipher=connection.cipher()[0], server_name=name)

    def _noted(self, name: str, method: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
        @functools.wraps(method)
        async def noted(argument: Any) -> None:
            self.note("command", line=f"{name} {argument or ''}".rstrip().encode("utf-8", "replace").decode())
            if self.behaviour.greeting and name != "QUIT":
                await self.push("503 5.5.1 " + self.behaviour.greeting[4:])
            elif self._needs_starttls() and name not in _BEFORE_STARTTLS:
                await self.push("530 5.7.0 Must issue a STARTTLS command first")
            else:
                await method(argument)

        return noted

    def _needs_starttls(self) -> bool:
        return self.listener.security == "starttls" and self.listener.tls_required and not self._tls

    def extensions(self) -> list[str]:
        """What EHLO offers besides aiosmtpd's own."""
        offers = ["STARTTLS"] if self.listener.security == "starttls" and not self._tls else []
        if self._auth_offered() and self.behaviour.mechanisms:
            offers.append("AUTH " + " ".join(self.behaviour.mechanisms))
        return [*offers, "ENHANCEDSTATUSCODES"]

    def _auth_offered(self) -> bool:
        allowed = self.listener.cleartext_auth
        return self._tls or (self.listener.security == "none" if allowed is None else allowed)

    async def smtp_STARTTLS(self, argument: str) -> None:  # noqa: N802
        if self.listener.security != "starttls" or self._tls:
            await self.push("503 5.5.1 STARTTLS not available")
            return
        assert self._context
        await self.push("220 2.0.0 Ready to start TLS")
        self._reader._buffer.clear()  # type: ignore[attr-defined]  # RFC 3207: forget what came before TLS
        try:
            await self._writer.start_tls(self._context)
        except _TLS_ERRORS as error:
            self.note("tls_error", error=str(error) or type(error).__name__)
            self._drop()
            return
        self.transport = self._writer.transport
        self._set_rset_state()  # type: ignore[no-untyped-call]
        peer, self.session = self.session.peer, self._create_session()
        self.session.peer = peer
        self._note_tls(self.transport)

    def _drop(self) -> None:
        assert self.transport
        self.transport.abort()  # type: ignore[attr-defined]
        self.connection_lost(None)

    async def smtp_MAIL(self, argument: str | None) -> None:  # noqa: N802
        # RFC 4954, 5: MAIL FROM may have AUTH=; Exim always sends it, aiosmtpd answers 555
        words = (argument or "").split(" ")
        await super().smtp_MAIL(" ".join(word for word in words if not word.upper().startswith("AUTH=")) or None)

    async def smtp_AUTH(self, argument: str | None) -> None:  # noqa: N802
        words = (argument or "").split()
        mechanism = words[0].upper() if words else ""
        refusal = self._auth_refusal(mechanism)
        if refusal:
            await self.push(refusal)
            return
        credentials = await _READERS[mechanism](self, words[1] if len(words) > 1 else None)
        if credentials is None:
            return
        user, secret = credentials
        accepted = self._judge(mechanism, user, secret)
        self.note("auth", mechanism=mechanism, user=user, secret=secret, accepted=accepted)
        if not accepted and mechanism in _BEARER:
            await self.challenge_auth(json.dumps({"status": "401", "schemes": "bearer"}))
        self.session.authenticated = accepted
        await self.push(self._auth_answer(accepted))

    def _auth_refusal(self, mechanism: str) -> str:
        if not self.session.host_name:
            return "503 5.5.1 EHLO first"
        if self.session.authenticated:
            return "503 5.5.1 Already authenticated"
        if not self._auth_offered():
            return "538 5.7.11 Encryption required for requested authentication mechanism"
        return "" if mechanism in self.behaviour.mechanisms else "504 5.5.4 Unrecognized authentication type"

    def _judge(self, mechanism: str, user: bytes, secret: bytes) -> bool:
        if self.behaviour.auth_reply:
            return self.behaviour.auth_reply.startswith("2")
        known = self.behaviour.tokens if mechanism in _BEARER else self.behaviour.users
        wanted = known.get(user.decode(errors="surrogateescape"), [])
        good = [wanted] if isinstance(wanted, str) else wanted
        return any(hmac.compare_digest(one.encode(errors="surrogateescape"), secret) for one in good)

    def _auth_answer(self, accepted: bool) -> str:
        ordinary = "235 2.7.0 Authentication successful" if accepted else "535 5.7.8 Authentication credentials invalid"
        return self.behaviour.auth_reply or ordinary

    async def blob(self, initial: str | None, challenge: str = "") -> bytes | None:
        """The client's bytes: its initial response, or its answer to the challenge; None when an error was answered."""
        if initial is None:
            answer = await self.challenge_auth(challenge)
            return None if answer is MISSING else answer
        try:
            return b"" if initial == "=" else base64.b64decode(initial, validate=True)
        except binascii.Error:
            await self.push("501 5.5.2 Cannot decode base64")
            return None


_Credentials = tuple[bytes, bytes] | None


async def _read_plain(server: Protocol, initial: str | None) -> _Credentials:
    blob = await server.blob(initial)
    parts = blob.split(b"\0") if blob is not None else []
    if len(parts) == 3:
        return parts[1], parts[2]
    if blob is not None:
        await server.push("501 5.5.2 Not three parts (RFC 4616)")
    return None


async def _read_login(server: Protocol, initial: str | None) -> _Credentials:
    user = await server.blob(initial, server.AuthLoginUsernameChallenge)
    secret = None if user is None else await server.blob(None, server.AuthLoginPasswordChallenge)
    return None if user is None or secret is None else (user, secret)


async def _read_xoauth2(server: Protocol, initial: str | None) -> _Credentials:
    blob = await server.blob(initial)
    if blob is None:
        return None
    pairs = _pairs(blob)
    return pairs.get(b"user", b""), pairs.get(b"auth", b"").removeprefix(b"Bearer ")


async def _read_oauthbearer(server: Protocol, initial: str | None) -> _Credentials:
    """RFC 7628, 3.1: a GS2 header, n,a=USER, and then pairs as in XOAUTH2."""
    blob = await server.blob(initial)
    if blob is None:
        return None
    header, _rest, rest = blob.partition(b"\1")
    user = next((part[2:] for part in header.split(b",") if part.startswith(b"a=")), b"")
    return user.replace(b"=2C", b",").replace(b"=3D", b"="), _pairs(rest).get(b"auth", b"").removeprefix(b"Bearer ")


def _pairs(blob: bytes) -> dict[bytes, bytes]:
    return {part.partition(b"=")[0]: part.partition(b"=")[2] for part in blob.split(b"\1") if part}


_BEARER = {"XOAUTH2", "OAUTHBEARER"}
_READERS: dict[str, Callable[[Protocol, str | None], Awaitable[_Credentials]]] = {
    "LOGIN": _read_login,
    "OAUTHBEARER": _read_oauthbearer,
    "PLAIN": _read_plain,
    "XOAUTH2": _read_xoauth2,
}


class TlsFirst(asyncio.Protocol):
    """Implicit TLS with the handshake made by hand, so that one that the client breaks off is in the journal too."""

    def __init__(self, smtp: Protocol, context: ssl.SSLContext) -> None:
        self._smtp, self._context = smtp, context
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.pause_reading()  # type: ignore[attr-defined]
        self._smtp.opened(transport.get_extra_info("peername"))
        self._task = asyncio.get_running_loop().create_task(self._handshake(transport))  # type: ignore[arg-type]

    async def _handshake(self, transport: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        try:
            secured = await loop.start_tls(transport, self._smtp, self._context, server_side=True)
        except _TLS_ERRORS as error:
            self._smtp.note("tls_error", error=str(error) or type(error).__name__)
            transport.abort()
            self._smtp.connection_lost(error)
            return
        assert secured
        self._smtp.connection_made(secured)
