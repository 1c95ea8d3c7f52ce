# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A relay that says what a test tells it to, over real sockets and real TLS; and what the tests of the probe share."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.probe import Password, Target

HANG, CLOSE, TLS = "HANG", "CLOSE", "TLS"
GREETING = "GREETING"


class Connection:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket, relay: Scripted) -> None:
        self.sock, self.relay = sock, relay
        self._buffer = b""

    def say(self, text: bytes) -> None:
        self.sock.sendall(text)

    def line(self) -> bytes:
        """The next line without its end; b"" when the client is gone."""
        while b"\n" not in self._buffer:
            data = self.sock.recv(65536)
            if not data:
                return b""
            self._buffer += data
        line, _rest, self._buffer = self._buffer.partition(b"\n")
        self.relay.heard.append(line.rstrip(b"\r"))
        return line.rstrip(b"\r")

    def begin_tls(self) -> None:
        assert self.relay.context
        self.sock = self.relay.context.wrap_socket(self.sock, server_side=True)
        self._buffer = b""

    def hang(self) -> None:
        """Say nothing until the test is over."""
        self.relay.over.wait(20)


class Scripted:
    """Accepts connections on a loopback port and hands each to ``handler``; ``heard`` is every line of every client."""

    def __init__(
        self, handler: Callable[[Connection], None], context: ssl.SSLContext | None = None, implicit: bool = False
    ) -> None:
        self.handler, self.context, self.implicit = handler, context, implicit
        self.heard: list[bytes] = []
        self.connections = self.ended = 0
        self.over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _rest = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(20)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(sock, self)
        with contextlib.suppress(OSError):
            try:
                if self.implicit:
                    connection.begin_tls()
                self.handler(connection)
            finally:
                connection.sock.close()
                self.ended += 1

    def stop(self) -> None:
        self.over.set()
        self.stop_listening()

    def stop_listening(self) -> None:
        with contextlib.suppress(OSError):  # stopped before
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


POLITE: dict[str, Any] = {
    GREETING: b"220 relay.example.test ESMTP\r\n",
    "EHLO": b"250-relay.example.test greets you\r\n250-PIPELINING\r\n250-AUTH PLAIN LOGIN\r\n250 SIZE 10240000\r\n",
    "AUTH": b"235 2.7.0 Authentication successful\r\n",
    "MAIL": b"250 2.1.0 Ok\r\n",
    "RCPT": b"250 2.1.5 Ok\r\n",
    "DATA": b"354 go on\r\n",
    ".": b"250 2.0.0 Ok: queued as 4F3A\r\n",
    "RSET": b"250 2.0.0 Ok\r\n",
    "QUIT": b"221 2.0.0 Bye\r\n",
}


def script(**replies: Any) -> Callable[[Connection], None]:
    """A handler that answers each verb from POLITE and ``replies``: bytes, HANG, CLOSE, TLS or a list used up in turn.

    ``EHLO_TLS`` is the answer to EHLO inside TLS; a callable gets the connection and the line.
    """

    def handle(connection: Connection) -> None:
        table = {**POLITE, **replies}
        table = {verb: list(reply) if isinstance(reply, list) else reply for verb, reply in table.items()}
        in_tls = in_data = False
        verb, line = GREETING, b""
        while True:
            if verb == "EHLO" and in_tls and "EHLO_TLS" in table:
                verb = "EHLO_TLS"
            reply = table.get(verb, b"502 5.5.2 no such command\r\n")
            reply = reply.pop(0) if isinstance(reply, list) else reply
            if reply is HANG:
                return connection.hang()
            if reply is CLOSE:
                return None
            if callable(reply):
                reply(connection, line)
            elif reply is TLS:
                connection.say(b"220 2.0.0 Ready to start TLS\r\n")
                connection.begin_tls()
                in_tls = True
            else:
                connection.say(reply)
            in_data = verb == "DATA" and isinstance(reply, bytes) and reply.startswith(b"354")
            line = connection.line()
            while in_data and line != b".":
                line = connection.line()
            if not line and connection.relay.heard[-1:] != [b""]:
                return None
            verb = line.partition(b" ")[0].decode("latin-1").upper() or "(empty)"

    return handle


# The probe

AUTH = Password("jürgen", "pä ß\t€ wörd")
PLAIN_AUTH = b"AUTH PLAIN " + base64.b64encode("\0jürgen\0pä ß\t€ wörd".encode())
INSIDE = b"250-relay\r\n250-AUTH PLAIN LOGIN\r\n250 8BITMIME\r\n"
OUTSIDE = b"250-relay\r\n250-STARTTLS\r\n250 8BITMIME\r\n"
STARTTLS = {"EHLO": OUTSIDE, "STARTTLS": "TLS", "EHLO_TLS": INSIDE}


def target(server, **changes) -> Target:
    settings = {"host": "localhost", "port": server.port, "timeout": 3, "sender": "me@example.test", **changes}
    return Target(**settings)


def names(report) -> list[str]:
    return [step.name for step in report.steps]


def secured(security, relay, context):
    """A good relay for ``security``, with a certificate of ``context``."""
    if security == "none":
        return relay()
    if security == "starttls":
        return relay(context=context, **STARTTLS)
    return relay(context=context, implicit=True, EHLO=INSIDE)


def context_of(certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.chain, certificate.key)
    return context
