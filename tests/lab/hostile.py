# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers that misbehave at one step of an otherwise proper SMTP conversation. Each is bounded in time.

Steps: banner, ehlo, starttls, handshake, ehlo2 (the EHLO after STARTTLS), auth, secret (what follows a 334), mail,
rcpt, rset, data, body, quit. Deeds: the keys of DEEDS.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import random
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from .threaded import ThreadedServer

if TYPE_CHECKING:
    from .authority import Certificate

FLOOD = 2 << 20
STEPS = (
    *("banner", "ehlo", "starttls", "handshake", "ehlo2", "auth", "secret"),
    *("mail", "rcpt", "rset", "data", "body", "quit"),
)
_REPLIES = {
    "banner": b"220 hostile.example.test ESMTP\r\n",
    "starttls": b"220 2.0.0 go ahead\r\n",
    "secret": b"235 2.7.0 welcome\r\n",
    "data": b"354 go on\r\n",
    "body": b"250 2.0.0 queued\r\n",
    "quit": b"221 2.0.0 bye\r\n",
}
_OK = b"250 2.0.0 ok\r\n"


class Hostile(ThreadedServer):
    """A server that does the deed at the step, and before and after it what it should.

    security: none, starttls or tls; the latter two need a certificate. limit: seconds after which it ends a connection.
    received: all bytes that clients sent, as they were after decryption.
    """

    def __init__(
        self,
        step: str,
        deed: str,
        security: str = "none",
        certificate: Certificate | None = None,
        limit: float = 60,
    ) -> None:
        if step not in STEPS or deed not in DEEDS:
            raise ValueError(f"no step {step} or no deed {deed}")
        super().__init__(limit, certificate)
        self.step, self.deed, self.security = step, deed, security
        self.received = bytearray()

    def serve(self, client: socket.socket) -> None:
        _Conversation(self, client).hold()


class _Conversation:
    """One client."""

    def __init__(self, server: Hostile, client: socket.socket) -> None:
        self.server, self.client = server, client
        self.tls = self.open = False
        self.line = b""
        self._buffer = b""

    def hold(self) -> None:
        """Talk until the client or the deed ends it."""
        self.open = True
        if self.server.security == "tls":
            self._handshake()
        if self.open:
            self.answer("banner")
        while self.open and self._read_line():
            verb = self.line.split(b" ")[0].strip().upper().decode(errors="replace")
            _VERBS.get(verb, _other)(self)

    def answer(self, step: str, reply: bytes = b"") -> None:
        """The proper reply, or the deed when this is its step."""
        proper = reply or _REPLIES.get(step, _OK)
        if step == self.server.step:
            DEEDS[self.server.deed](self, proper)
        else:
            self.client.sendall(proper)

    def _handshake(self) -> None:
        if self.server.step == "handshake":
            self.client.recv(65536)  # the ClientHello
            DEEDS[self.server.deed](self, b"")
            self.open = False
        else:
            self.client = self.server.secured(self.client)
            self.tls = True
            self._buffer = b""

    def _read_line(self) -> bool:
        while b"\n" not in self._buffer:
            data = self.client.recv(65536)
            if not data:
                return False
            self.server.received += data
            self._buffer += data
        self.line, self._buffer = self._buffer.split(b"\n", 1)
        return True

    # -- what a proper server does

    def hello(self) -> None:
        extensions = [b"hostile.example.test"]
        if self.server.security == "starttls" and not self.tls:
            extensions.append(b"STARTTLS")
        extensions.append(b"AUTH PLAIN LOGIN XOAUTH2")
        lines = [b"250-" + extension for extension in extensions] + [b"250 PIPELINING\r\n"]
        second = self.tls and self.server.security == "starttls"
        self.answer("ehlo2" if second else "ehlo", b"\r\n".join(lines))

    def start_tls(self) -> None:
        self.answer("starttls")
        if self.open:
            self._handshake()

    def authenticate(self) -> None:
        """PLAIN, LOGIN and XOAUTH2, with and without an initial response; every credential is right."""
        words = self.line.split()
        challenges = [b"334 VXNlcm5hbWU6\r\n", b"334 UGFzc3dvcmQ6\r\n"] if words[1:2] == [b"LOGIN"] else [b"334 \r\n"]
        pending = challenges[len(words) - 2 :]
        self.answer("auth", pending[0] if pending else _REPLIES["secret"])
        for challenge in pending[1:]:
            if self.open and self._read_line():
                self.client.sendall(challenge)
        if pending and self.open and self._read_line():
            self.answer("secret")

    def take_mail(self) -> None:
        self.answer("data")
        while self.open and self._read_line():
            if self.line.rstrip() == b".":
                self.answer("body")
                return

    def quit(self) -> None:
        self.answer("quit")
        self.open = False


_VERBS: dict[str, Callable[[_Conversation], None]] = {
    "AUTH": _Conversation.authenticate,
    "DATA": _Conversation.take_mail,
    "EHLO": _Conversation.hello,
    "MAIL": lambda talk: talk.answer("mail"),
    "QUIT": _Conversation.quit,
    "RCPT": lambda talk: talk.answer("rcpt"),
    "RSET": lambda talk: talk.answer("rset"),
    "STARTTLS": _Conversation.start_tls,
}


def _other(talk: _Conversation) -> None:
    talk.client.sendall(b"502 5.5.1 no\r\n")


# -- the deeds; each gets the reply that would be proper


def _hang(talk: _Conversation, _proper: bytes) -> None:
    talk.server.stopped.wait(talk.server.limit)
    talk.open = False


def _close(talk: _Conversation, _proper: bytes) -> None:
    talk.client.shutdown(socket.SHUT_RDWR)
    talk.open = False


def _close_midway(talk: _Conversation, proper: bytes) -> None:
    talk.client.sendall(proper[: max(1, len(proper) // 2)])
    _close(talk, proper)


def _garbage(talk: _Conversation, _proper: bytes) -> None:
    noise = random.Random(2).randbytes(4096)
    talk.client.sendall(noise + b"\r\n")


def _not_a_reply(talk: _Conversation, _proper: bytes) -> None:
    talk.client.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


def _flood_line(talk: _Conversation, proper: bytes) -> None:
    talk.client.sendall((proper[:3] or b"220") + b" " + b"x" * FLOOD + b"\r\n")


def _flood_lines(talk: _Conversation, proper: bytes) -> None:
    line = (proper[:3] or b"220") + b"-" + b"x" * 59 + b"\r\n"
    talk.client.sendall(line * (FLOOD // len(line)) + (proper[:3] or b"220") + b" end\r\n")


def _drip(talk: _Conversation, proper: bytes) -> None:
    """One byte a second; a handshake gets bytes that could begin a TLS record."""
    end = time.monotonic() + talk.server.limit
    for byte in proper or b"\x16\x03\x03\x40\x00" + bytes(256):
        talk.client.sendall(bytes([byte]))
        if talk.server.stopped.wait(1) or time.monotonic() > end:
            talk.open = False
            return


def _echo(talk: _Conversation, _proper: bytes) -> None:
    """Refuse, quoting what the client sent, as it was and decoded: it may be a credential."""
    quoted = talk.line.strip()
    decoded = b""
    with contextlib.suppress(binascii.Error, IndexError):
        decoded = base64.b64decode(quoted.split()[-1]).replace(b"\0", b" ").replace(b"\1", b" ")
    talk.client.sendall(b"535-5.7.8 you sent " + quoted + b"\r\n535 5.7.8 which means " + decoded + b"\r\n")


def _inject(talk: _Conversation, proper: bytes) -> None:
    """More replies in the clear in the packet that promises TLS: what follows must come from inside TLS alone."""
    forged = b"250-forged.example.test\r\n250-AUTH PLAIN LOGIN\r\n250 FORGED\r\n"
    talk.client.sendall(proper + forged)


DEEDS: dict[str, Callable[[_Conversation, bytes], None]] = {
    "close": _close,
    "close_midway": _close_midway,
    "drip": _drip,
    "echo": _echo,
    "flood_line": _flood_line,
    "flood_lines": _flood_lines,
    "garbage": _garbage,
    "hang": _hang,
    "inject": _inject,
    "not_a_reply": _not_a_reply,
}
