# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An authorization server that misbehaves as its script says, and is a correct one in between.

with ErrorServer() as server:
    server.script(aadsts(50173), html(502))  # the next two token requests
    ...
    assert server.requests("token")[0].form["grant_type"] == "refresh_token"
Ready-made steps are in lab.error_replies.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from .plain_oauth import Answer, PlainOAuth, Request
from .threaded import ThreadedServer

if TYPE_CHECKING:
    from .authority import Certificate
    from .space import Space

# A step gets the request and what makes the proper answer, and carries out the request only if it asks for that.
Step = Callable[[Request, Callable[[], Answer]], Answer]


class ErrorServer(ThreadedServer):
    """The server. certificate: https. limit: seconds after which a deed that takes time ends. pause: between drips.

    oauth: the correct server behind it (approve(), grants, ...). connections and tls_errors: what came before HTTP.
    The other options are those of PlainOAuth.
    """

    def __init__(
        self, certificate: Certificate | None = None, limit: float = 30, pause: float = 0.2, **plain: Any
    ) -> None:
        super().__init__(limit, certificate)
        self.pause = pause
        self.oauth = PlainOAuth(**plain)
        self.tls_errors: list[str] = []
        self.issuer = ""
        self._seen: list[Request] = []
        self._steps: dict[str, deque[Step]] = defaultdict(deque)
        self._standing: dict[str, Step] = {}
        self._at_accept: deque[str] = deque()
        self._turn = threading.RLock()

    # -- life

    def start(
        self, host: str = "127.0.0.1", port: int = 0, in_net_of: Space | None = None, name: str = ""
    ) -> ErrorServer:
        """Listen here, or in the network that a tree or space has for this address. name: of the host in all URLs."""
        super().start(host, port, in_net_of)
        self.issuer = f"{'https' if self._context else 'http'}://{name or host}:{self.port}"
        self.oauth.issuer = self.issuer
        return self

    def url(self, endpoint: str) -> str:
        """The address of an endpoint: authorize, token, devicecode, revoke, introspect."""
        return f"{self.issuer}/{endpoint}"

    @property
    def token_url(self) -> str:
        return self.url("token")

    # -- the script

    def script(self, *steps: Step, on: str = "token") -> None:
        """Answer the next requests at an endpoint so, one step a request."""
        with self._turn:
            self._steps[on].extend(steps)

    def always(self, step: Step | None, on: str = "token") -> None:
        """Answer so whenever no step is left; None: properly again."""
        with self._turn:
            self._standing.pop(on, None)
            if step:
                self._standing[on] = step

    def script_connections(self, *deeds: str) -> None:
        """What happens to the next connections before TLS or HTTP: hang, close, reset, garbage or proper."""
        with self._turn:
            self._at_accept.extend(deeds)

    @property
    def left(self) -> int:
        """How many steps nobody has asked for yet."""
        return sum(len(steps) for steps in self._steps.values())

    # -- what it saw

    def requests(self, endpoint: str = "", **form: str) -> list[Request]:
        """The requests that arrived, oldest first: all, or those at an endpoint with these form fields."""
        with self._turn:
            return [
                request
                for request in self._seen
                if endpoint in ("", request.endpoint) and form.items() <= request.form.items()
            ]

    def forget(self) -> None:
        """Leave out of requests() what came until now."""
        with self._turn:
            self._seen.clear()

    # -- at work

    def serve(self, client: socket.socket) -> None:
        with self._turn:
            deed = self._at_accept.popleft() if self._at_accept else "proper"
        if deed != "proper":
            DEEDS[deed](self, client, Answer(0))
        elif spoken := self._spoken_on(client):
            _Handler(spoken, spoken.getpeername(), self)  # type: ignore[arg-type]
            spoken.close()

    def _spoken_on(self, client: socket.socket) -> socket.socket | None:
        try:
            return self.secured(client) if self._context else client
        except OSError as problem:
            self.tls_errors.append(str(problem))
            return None

    def answer(self, request: Request) -> Answer:
        """The answer to a request, which is in the journal before."""
        with self._turn:
            self._seen.append(request)
            steps = self._steps[request.endpoint]
            step = steps.popleft() if steps else self._standing.get(request.endpoint, _properly)
            return step(request, lambda: self.oauth.answer(request))


def instead(answer: Answer) -> Step:
    """The step that gives this answer, whatever was asked."""
    return lambda _request, _proper: answer


def _properly(_request: Request, proper: Callable[[], Answer]) -> Answer:
    return proper()


class _Handler(BaseHTTPRequestHandler):
    """One connection, with as many requests as the client sends."""

    protocol_version = "HTTP/1.1"
    server: ErrorServer  # type: ignore[assignment]

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    do_DELETE = do_HEAD = do_PUT = do_POST  # noqa: N815

    def log_message(self, *_anything: object) -> None:
        """Nothing goes to standard error."""

    def _handle(self) -> None:
        answer = self.server.answer(self._read())
        self.server.stopped.wait(answer.wait)
        DEEDS[answer.deed](self.server, self.connection, answer)
        if answer.deed:
            self.close_connection = True

    def _read(self) -> Request:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        form = "x-www-form-urlencoded" in self.headers.get("Content-Type", "")
        return Request(
            time.time(),
            self.command,
            self.path,
            parts.path.rstrip("/").rpartition("/")[2],
            {name.lower(): value for name, value in self.headers.items()},
            dict(parse_qsl(parts.query, keep_blank_values=True)),
            dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True)) if form else {},
            body,
            isinstance(self.connection, ssl.SSLSocket),
        )


# -- the deeds; each gets the answer that would be sent


def head_of(answer: Answer, length: int | None = None) -> bytes:
    """Status line and header, for a body of this length (the answer's unless told)."""
    size = len(answer.body) if length is None else length
    reason = BaseHTTPRequestHandler.responses.get(answer.status, ("",))[0]
    lines = [f"HTTP/1.1 {answer.status} {reason}", *(f"{name}: {value}" for name, value in answer.headers)]
    return "\r\n".join([*lines, f"Content-Length: {size}", "", ""]).encode()


def _send(_server: ErrorServer, client: socket.socket, answer: Answer) -> None:
    client.sendall(head_of(answer) + answer.body)


def _hang(server: ErrorServer, _client: socket.socket, _answer: Answer) -> None:
    server.stopped.wait(server.limit)


def _hang_after_head(server: ErrorServer, client: socket.socket, answer: Answer) -> None:
    client.sendall(head_of(answer))
    server.stopped.wait(server.limit)


def _drip(server: ErrorServer, client: socket.socket, answer: Answer) -> None:
    """Header at once, then one byte at a time: every single read succeeds, the whole takes for ever."""
    end = time.monotonic() + server.limit
    client.sendall(head_of(answer, 1 << 20))
    for byte in answer.body.ljust(1 << 20):
        client.sendall(bytes([byte]))
        if server.stopped.wait(server.pause) or time.monotonic() > end:
            return


def _endless(server: ErrorServer, client: socket.socket, answer: Answer) -> None:
    """A chunked body that never ends, as fast as it is read."""
    end = time.monotonic() + server.limit
    lines = [f"HTTP/1.1 {answer.status} OK", "Content-Type: application/json", "Transfer-Encoding: chunked", "", ""]
    client.sendall("\r\n".join(lines).encode())
    while not server.stopped.is_set() and time.monotonic() < end:
        client.sendall(b"10000\r\n" + b" " * 0x10000 + b"\r\n")


def _close(_server: ErrorServer, client: socket.socket, _answer: Answer) -> None:
    client.shutdown(socket.SHUT_RDWR)


def _close_midway(server: ErrorServer, client: socket.socket, answer: Answer) -> None:
    client.sendall(head_of(answer) + answer.body[: max(1, len(answer.body) // 2)])
    _close(server, client, answer)


def _reset(_server: ErrorServer, client: socket.socket, _answer: Answer) -> None:
    """RST: close(2) with a linger time of zero."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def _garbage(_server: ErrorServer, client: socket.socket, _answer: Answer) -> None:
    client.sendall(b"220 mail.example.test ESMTP\r\n" + bytes(range(256)))


def _big_head(_server: ErrorServer, client: socket.socket, answer: Answer) -> None:
    """More header lines than any client should take."""
    first, rest = head_of(answer).split(b"\r\n", 1)
    client.sendall(first + b"\r\n" + b"X-Padding: " + b"x" * 100_000 + b"\r\n" + rest + answer.body)


DEEDS: dict[str, Callable[[ErrorServer, socket.socket, Answer], None]] = {
    "": _send,
    "big_head": _big_head,
    "close": _close,
    "close_midway": _close_midway,
    "drip": _drip,
    "endless": _endless,
    "garbage": _garbage,
    "hang": _hang,
    "hang_after_head": _hang_after_head,
    "reset": _reset,
}
