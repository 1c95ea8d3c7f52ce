# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server in threads of the test: one waits for connections, and each of those has its own."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from .space import listen

if TYPE_CHECKING:
    from .authority import Certificate
    from .space import Space


class ThreadedServer:
    """What such a server does whatever it speaks; ``serve`` is a subclass's own.

    limit: seconds that a connection may be silent. connections: how many there were. stopped: when all have to end.
    """

    def __init__(self, limit: float, certificate: Certificate | None = None) -> None:
        self.limit = limit
        self.connections = 0
        self.port = 0
        self.stopped = threading.Event()
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._context: ssl.SSLContext | None = None
        if certificate:
            self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._context.load_cert_chain(certificate.chain, certificate.key)

    def serve(self, client: socket.socket) -> None:
        """Hold one conversation; OSError and ValueError end it."""
        raise NotImplementedError

    def start(self, host: str = "127.0.0.1", port: int = 0, in_net_of: Space | None = None) -> Self:
        """Listen here, or in the network that a tree or space has for this address."""
        listening = listen(host, port, in_net_of.network_of([host]) if in_net_of else None)
        self.port = listening.getsockname()[1]
        self._open.append(listening)
        self._run(self._accept, listening)
        return self

    def __enter__(self) -> Self:
        return self if self.port else self.start()

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End all connections and wait for their threads."""
        self.stopped.set()
        for opened in self._open:
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
            opened.close()
        for thread in self._threads:
            thread.join(10)

    def secured(self, client: socket.socket) -> ssl.SSLSocket:
        """The connection after a proper TLS handshake. OSError: it came to nothing."""
        assert self._context, "TLS needs a certificate"
        wrapped = self._context.wrap_socket(client, server_side=True)
        self._open.append(wrapped)
        return wrapped

    def _run(self, target: Callable[[socket.socket], None], argument: socket.socket) -> None:
        thread = threading.Thread(target=target, args=(argument,), name=type(self).__name__, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while not self.stopped.is_set():
                client, _rest = listening.accept()
                self.connections += 1
                self._open.append(client)
                self._run(self._hold, client)

    def _hold(self, client: socket.socket) -> None:
        client.settimeout(self.limit)
        with contextlib.suppress(OSError, ValueError):
            self.serve(client)
        with contextlib.suppress(OSError):
            client.close()
