# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The loopback listener that the browser comes back to (RFC 8252 7.3), open during one authorization."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..errors import HostError
from ..service import is_loopback
from . import landing

if TYPE_CHECKING:
    from .landing import Ending

DONE = (
    "/done"  # where the browser goes from the address with the code in it, so that none is left in its bar or history
)
LINGER = 5  # seconds that the browser has to fetch that page
IDLE = 10  # seconds of a connection that says nothing

Answer = Callable[[str], "Ending | None"]


class Listener:
    """Listens at the redirect URI's own loopback addresses from `__enter__` to `__exit__`."""

    def __init__(self, redirect_uri: str, username: str = "") -> None:
        """Raises HostError where that is no address to listen at."""
        parts = urlsplit(redirect_uri)
        host = parts.hostname or ""
        if parts.scheme != "http" or not is_loopback(host) or not parts.port:
            problem = f"is {redirect_uri}, which is no loopback address with a port"
            raise HostError("redirect_uri", problem, "paste the address that the browser ends at instead")
        self.origin = f"http://{parts.netloc}"
        self.path = parts.path or "/"
        self.port = parts.port
        self.username = username
        self.addresses = {"localhost": ("127.0.0.1", "::1")}.get(host, (host,))
        self._servers: list[_Server] = []
        self._page = landing.lost()
        self._answer: Answer | None = None
        self._one_at_a_time = threading.Lock()
        self._answered = False
        self._came = threading.Event()
        self._seen = threading.Event()

    def __enter__(self) -> Listener:
        for address in self.addresses:
            try:
                self._servers.append(_Server((address, self.port), self))
            except OSError as error:
                if address == "::1" and self._servers and error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    continue  # localhost without IPv6
                self._close()
                place = f"{address} port {self.port}"
                hint = "end what listens there, or begin the authorization again"
                raise HostError(place, f"cannot be listened at: {error.strerror}", hint) from None
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.shutdown()
        self._close()

    def _close(self) -> None:
        for server in self._servers:
            server.server_close()
        self._servers = []

    def serve(self, answer: Answer, seconds: float, enough: Callable[[], bool]) -> None:
        """Give every answer that a browser brings to ``answer``, until ``enough`` or ``seconds`` are over.

        ``enough`` is asked twice a second, for the answer may reach somebody else.
        """
        self._answer = answer
        end = time.monotonic() + seconds
        while not enough() and time.monotonic() < end:
            self._came.wait(min(0.5, max(0.0, end - time.monotonic())))
            self._came.clear()
        with self._one_at_a_time:  # what came at the last moment is seen through: its code is spent already
            self._answer = None
        if self._answered:
            self._seen.wait(LINGER)

    def take(self, target: str) -> None:
        """The browser is back: the page that it will be sent to is made of what came of it."""
        with self._one_at_a_time:
            if self._answer is None:
                return
            self._answered = True
            self._seen.clear()
            ending = self._answer(self.origin + target)
            self._page = landing.finished(self.username) if ending is None else landing.failed(ending)
            self._came.set()

    def page(self) -> str:
        return self._page

    def seen(self) -> None:
        """The browser has the last page."""
        self._seen.set()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64  # with the usual 5, one of a burst of connections waits a second for its next try
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], listener: Listener) -> None:
        self.listener = listener
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Without HTTPServer's look-up of the host's own name, which may take its time."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "localhost", self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that hangs up is nothing to print."""


class _Handler(BaseHTTPRequestHandler):
    timeout = IDLE
    server_version, sys_version = "fleetmail", ""
    server: _Server

    def do_GET(self) -> None:
        listener = self.server.listener
        try:
            target = urlsplit(self.path)
            asked_for = urlsplit("//" + self.headers.get("Host", "")).hostname or ""
        except ValueError:
            asked_for = ""
        if not is_loopback(asked_for):
            self._send(400, landing.lost())  # a name of somebody's that was made to lead here
        elif target.path == listener.path and target.query:
            listener.take(self.path)
            self._send(303, "", {"Location": listener.origin + DONE})
        elif target.path == DONE:
            self._send(200, listener.page())
            listener.seen()
        else:
            self._send(404, landing.lost())

    def _send(self, status: int, page: str, headers: dict[str, str] | None = None) -> None:
        body = page.encode()
        self.send_response(status)
        for name, value in {**landing.HEADERS, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the name that the base class has
        """The address of a request has the code in it: nothing is logged."""
