# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An HTTP proxy for CONNECT (RFC 9110, 9.3.6) that notes who wanted to go where."""

from __future__ import annotations

import base64
import contextlib
import select
import socket
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from .space import listen

if TYPE_CHECKING:
    from .space import Space

_LIMIT = 30


class Visit(NamedTuple):
    """A request to the proxy: its first line's words, and the credentials that came with it, decoded."""

    method: str
    target: str
    credentials: str


class Proxy:
    """The proxy. names: host -> address that it goes to, others only by what this machine resolves.

    credentials: user:password that it asks for. refusal: the status that every CONNECT gets, for a test of that.
    """

    def __init__(self, names: Mapping[str, str] | None = None, credentials: str = "", refusal: int = 0) -> None:
        self.names, self.credentials, self.refusal = dict(names or {}), credentials, refusal
        self.visits: list[Visit] = []
        self.port = 0
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._stopped = threading.Event()

    @property
    def url(self) -> str:
        """Its address, without credentials."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, host: str = "127.0.0.1", port: int = 0, in_net_of: Space | None = None) -> Proxy:
        """Listen here, or in the network that a tree or space has for this address."""
        listening = listen(host, port, in_net_of.network_of([host]) if in_net_of else None)
        self.port = listening.getsockname()[1]
        self._open.append(listening)
        self._run(self._accept, listening)
        return self

    def __enter__(self) -> Proxy:
        return self if self.port else self.start()

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End all connections and wait for their threads."""
        self._stopped.set()
        for opened in self._open:
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
            opened.close()
        for thread in self._threads:
            thread.join(10)

    def _run(self, target: Callable[[socket.socket], None], argument: socket.socket) -> None:
        thread = threading.Thread(target=target, args=(argument,), name="proxy", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while not self._stopped.is_set():
                client, _rest = listening.accept()
                self._open.append(client)
                self._run(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(_LIMIT)
        with client, contextlib.suppress(OSError, ValueError):
            visit = self._read(client)
            self.visits.append(visit)
            status = self._judge(visit)
            if status != 200:
                challenge = "Proxy-Authenticate: Basic realm=proxy\r\n" if status == 407 else ""
                client.sendall(f"HTTP/1.1 {status} no\r\n{challenge}Content-Length: 0\r\n\r\n".encode())
                return
            host, _colon, port = visit.target.rpartition(":")
            with socket.create_connection((self.names.get(host, host), int(port)), _LIMIT) as server:
                self._open.append(server)
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                self._carry(client, server)

    def _judge(self, visit: Visit) -> int:
        if visit.method != "CONNECT":
            return 405
        if self.credentials and visit.credentials != self.credentials:
            return 407
        return self.refusal or 200

    @staticmethod
    def _read(client: socket.socket) -> Visit:
        head = b""
        while b"\r\n\r\n" not in head and len(head) < 65536:
            data = client.recv(4096)
            if not data:
                raise ValueError("no request")
            head += data
        first, *lines = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _colon, value in (line.partition(":") for line in lines)}
        kind, _space, blob = fields.get("proxy-authorization", "").partition(" ")
        method, target, _version = first.split(" ")
        return Visit(method, target, base64.b64decode(blob).decode() if kind.lower() == "basic" else "")

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        others = {client: server, server: client}
        while not self._stopped.is_set():
            readable, _rest, _rest = select.select(list(others), [], [], _LIMIT)
            if not readable:
                return
            for source in readable:
                data = source.recv(65536)
                if not data:
                    return
                others[source].sendall(data)
