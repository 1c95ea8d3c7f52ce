# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An HTTP proxy for CONNECT (RFC 9110, 9.3.6) that notes who wanted to go where."""

from __future__ import annotations

import base64
import select
import socket
from collections.abc import Mapping
from typing import NamedTuple

from .threaded import ThreadedServer

_LIMIT = 30


class Visit(NamedTuple):
    """A request to the proxy: its first line's words, and the credentials that came with it, decoded."""

    method: str
    target: str
    credentials: str


class Proxy(ThreadedServer):
    """The proxy. names: host -> address that it goes to, others only by what this machine resolves.

    credentials: user:password that it asks for. refusal: the status that every CONNECT gets, for a test of that.
    """

    def __init__(self, names: Mapping[str, str] | None = None, credentials: str = "", refusal: int = 0) -> None:
        super().__init__(_LIMIT)
        self.names, self.credentials, self.refusal = dict(names or {}), credentials, refusal
        self.visits: list[Visit] = []

    @property
    def url(self) -> str:
        """Its address, without credentials."""
        return f"http://127.0.0.1:{self.port}"

    def serve(self, client: socket.socket) -> None:
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
        while not self.stopped.is_set():
            readable, _rest, _rest = select.select(list(others), [], [], _LIMIT)
            if not readable:
                return
            for source in readable:
                data = source.recv(65536)
                if not data:
                    return
                others[source].sendall(data)
