# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A relay for tests and for the demo: several listeners, any answer on demand, and a journal of all that clients sent.

In this process, in a thread: Relay(listeners, users={...}).start(). As a process of its own, in the network of a tree:
Relay(...).start(in_net_of=host). By hand: python -m lab.relay --config FILE, where FILE is what config() gives.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import journal as journals
from .journal import Journal, Message, Session
from .relay_server import Behaviour, Listener, Protocol, TlsFirst

if TYPE_CHECKING:
    from .authority import Certificate
    from .space import Space

__all__ = ["Behaviour", "Listener", "Message", "Relay", "Session", "listeners"]
START_TIMEOUT = 20


def listeners(
    certificate: Certificate, host: str = "10.77.0.25", plain: int = 25, starttls: int = 587, tls: int = 465
) -> list[Listener]:
    """The usual three: without security, with STARTTLS required, and TLS from the first byte."""
    chain, key = str(certificate.chain), str(certificate.key)
    return [
        Listener(host, plain),
        Listener(host, starttls, "starttls", chain, key),
        Listener(host, tls, "tls", chain, key),
    ]


class Relay:
    """A running or not yet running relay. Options beside the three named ones are those of Behaviour.

    journal: the file of events; without it one in a temporary folder that goes with stop().
    """

    def __init__(
        self,
        listeners: list[Listener],
        journal: Path | None = None,
        hostname: str = "relay.example.test",
        **behaviour: Any,
    ) -> None:
        self.listeners = [replace(listener) for listener in listeners]
        self.hostname = hostname
        self.behaviour = Behaviour(**behaviour)
        self._folder = Path(tempfile.mkdtemp(prefix="relay-"))
        self._config_file = self._folder / "config.json"
        self._journal = Journal(journal or self._folder / "journal.jsonl")
        self._seen = 0
        self._running: _Thread | _Process | None = None

    def __enter__(self) -> Relay:
        return self if self._running else self.start()

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def start(self, in_net_of: Space | None = None) -> Relay:
        """Listen: in a thread, or as a process in the network of a tree or beside it.

        Of a tree: listeners at 127.0.0.0/8 or ::1 are in the tree itself, others beside it, in the tree's network.
        Raises OSError or RuntimeError when it cannot.
        """
        if in_net_of is None:
            self._running = _Thread(_Server(self.listeners, self.hostname, self._journal, lambda: self.behaviour))
        else:
            self._save()
            network = in_net_of.network_of([listener.host for listener in self.listeners])
            self._running = _Process(network, self._config_file, self._journal)
            listening = next(event for event in self._journal.events() if event["event"] == "listening")
            for listener, port in zip(self.listeners, listening["ports"], strict=True):
                listener.port = port
        return self

    def stop(self) -> None:
        """Stop listening, drop all connections, and remove what is temporary."""
        if self._running:
            self._running.stop()
            self._running = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def port(self, security: str = "none") -> int:
        """The port of the first listener with this security."""
        return next(listener.port for listener in self.listeners if listener.security == security)

    def change(self, **behaviour: Any) -> None:
        """Answer otherwise from the next connection on. Raises TypeError for an unknown option."""
        self.behaviour = replace(self.behaviour, **behaviour)
        if isinstance(self._running, _Process):
            self._save()

    def config(self) -> dict[str, Any]:
        """What --config takes, as JSON."""
        return {
            "listeners": [asdict(listener) for listener in self.listeners],
            "hostname": self.hostname,
            "journal": str(self._journal.path),
            "behaviour": asdict(self.behaviour),
        }

    def _save(self) -> None:
        new = self._config_file.with_suffix(".new")
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump(self.config(), file)
        new.rename(self._config_file)

    # -- what it saw

    def sessions(self) -> list[Session]:
        """All connections since the start or the last forget(), oldest first."""
        return journals.sessions(self._journal.events()[self._seen :])

    def messages(self) -> list[Message]:
        """All accepted mail, oldest first."""
        return [message for session in self.sessions() for message in session.messages]

    def forget(self) -> None:
        """Leave out of sessions() and messages() what came until now."""
        self._seen = len(self._journal.events())

    def wait_for_message(self, timeout: float = 15, count: int = 1) -> Message:
        """The count-th message, as soon as it is there. Raises TimeoutError with what was seen instead."""
        self.wait_for(lambda: len(self.messages()) >= count, timeout)
        return self.messages()[count - 1]

    def wait_for(self, condition: Callable[[], bool], timeout: float = 15) -> None:
        """Wait until the condition holds. Raises TimeoutError with the sessions seen."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the relay saw: {self.sessions()}")
            time.sleep(0.02)


class _Server:
    """The listeners, in the event loop that runs them. behaviour is asked at each connection."""

    def __init__(
        self, listeners: list[Listener], hostname: str, journal: Journal, behaviour: Callable[[], Behaviour]
    ) -> None:
        self._listeners, self._hostname, self._journal, self._behaviour = listeners, hostname, journal, behaviour
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            factory = self._factory(listener, listener.context())
            server = await loop.create_server(factory, listener.host, listener.port)
            listener.port = server.sockets[0].getsockname()[1]
            self._servers.append(server)
        self._journal.write("listening", ports=[listener.port for listener in self._listeners])

    def _factory(self, listener: Listener, context: Any) -> Callable[[], asyncio.Protocol]:
        def protocol() -> asyncio.Protocol:
            smtp = Protocol(listener, context, self._behaviour(), self._journal, self._hostname)
            return TlsFirst(smtp, context) if listener.security == "tls" else smtp

        return protocol

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # transports close in the loop's next round


class _Thread:
    """A server in a thread of this process."""

    def __init__(self, server: _Server) -> None:
        self._loop = asyncio.new_event_loop()
        self._server = server
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(server.start(), self._loop).result(START_TIMEOUT)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._server.close(), self._loop).result(START_TIMEOUT)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_TIMEOUT)
        self._loop.close()


class _Process:
    """A server as a process in another network. It ends with its standard input, however this process ends."""

    def __init__(self, space: Space, config: Path, journal: Journal) -> None:
        command = space.net_command([sys.executable, "-m", "lab.relay", "--config", str(config)])
        home = Path(__file__).parents[1]  # as the working directory it comes first in the module search path
        with tempfile.TemporaryFile() as errors:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=errors, cwd=home)
            deadline = time.monotonic() + START_TIMEOUT
            while not any(event["event"] == "listening" for event in journal.events()):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    errors.seek(0)
                    raise RuntimeError(f"the relay did not start: {errors.read().decode(errors='replace')}")
                time.sleep(0.01)

    def stop(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class _ConfigFile:
    """The behaviour as the file has it now; it is read again when it was replaced."""

    def __init__(self, path: Path) -> None:
        self._path, self._stamp, self._behaviour = path, (0, 0), Behaviour()

    def behaviour(self) -> Behaviour:
        status = self._path.stat()
        stamp = (status.st_ino, status.st_mtime_ns)
        if stamp != self._stamp:
            self._stamp, self._behaviour = stamp, Behaviour(**json.loads(self._path.read_text())["behaviour"])
        return self._behaviour


async def _serve(config_file: Path) -> None:
    config = json.loads(config_file.read_text())
    listeners = [Listener(**listener) for listener in config["listeners"]]
    behaviour = _ConfigFile(config_file).behaviour
    server = _Server(listeners, config["hostname"], Journal(Path(config["journal"])), behaviour)
    await server.start()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    await server.close()


def main() -> None:
    """Run until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m lab.relay", description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True)
    asyncio.run(_serve(parser.parse_args().config))


if __name__ == "__main__":
    main()
