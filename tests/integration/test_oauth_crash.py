# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""SIGKILL at every step of a refresh: the grant survives wherever the protocol allows it, else it is said.

The server rotates refresh tokens and ends the whole grant when a used one comes again. Between the moment in which it
has carried out a request and the one in which its answer is on this host's disk, the only refresh token that is good
exists nowhere but in the process that is killed. The test command takes a sample; ``make crash`` takes every point.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from lab.oauth_server import OAuthServer, why_unavailable
from lab.token_host import CORE, TokenHost

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "the server is there")

SAMPLE = 12

# Counts what changes the host and what goes over the network and, before the chosen one, kills the process as a power
# cut would: nothing is flushed, no handler runs.
_RUNNER = """
import http.client, json, os, signal, sys
core, store, crash_at = json.loads(sys.argv[1])
sys.path.insert(0, core)
from core.oauth.client import TokenClient
from core.oauth.store import Store
from core.oauth.tokens import ensure
from core.posix_host import PosixHost
import requests

seen = []
def point(name, what=""):
    seen.append(f"{name} {what}".strip())
    if len(seen) == crash_at:
        os.kill(os.getpid(), signal.SIGKILL)

WATCHED = {"os.rename", "os.link", "os.remove", "os.chmod", "os.chown", "os.mkdir", "os.rmdir", "os.truncate",
           "subprocess.Popen", "http.client.connect", "http.client.send"}
def hook(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        if isinstance(flags, int) and flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR) and os.path.isabs(str(path)):
            point("open", os.path.basename(str(path)))
    elif event in WATCHED:
        point(event, os.path.basename(str(arguments[0])) if event.startswith("os.") else "")

def watched(owner, name, after=False):
    real = getattr(owner, name)
    def call(*arguments, **named):
        if after:
            answer = real(*arguments, **named)
            point(name + " done")
            return answer
        point(name)
        return real(*arguments, **named)
    setattr(owner, name, call)

for name in ("fsync", "fchmod", "fchown"):
    watched(os, name)
watched(http.client.HTTPConnection, "getresponse")
watched(http.client.HTTPResponse, "begin", after=True)
sys.addaudithook(hook)
host = PosixHost()
outcome = ensure(Store(host, store), "default", lambda registration: TokenClient(registration, host))
print(json.dumps({"points": seen, "refreshed": outcome.refreshed}))
"""


class Ended(NamedTuple):
    """How a refresh ended: killed, or with all its points."""

    killed: bool
    points: list[str]


def refresh(host: TokenHost, crash_at: int = 0) -> Ended:
    order = json.dumps([str(CORE), host.store.directory, crash_at])
    done = subprocess.run([sys.executable, "-B", "-c", _RUNNER, order], capture_output=True, text=True, check=False)
    if done.returncode == -signal.SIGKILL:
        return Ended(True, [])
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["refreshed"]
    return Ended(False, answer["points"])


@pytest.fixture
def host(tmp_path: Path) -> Iterator[TokenHost]:
    with OAuthServer() as server:
        host = TokenHost(tmp_path, server)
        host.consumer(format="plain")
        host.consumer(format="exim")
        yield host


def good_refresh_tokens(host: TokenHost) -> set[str]:
    """Those on the disk, whatever file they are in, that the server would take; asking it spends none."""
    assert host.server
    words = set()
    for path in Path(host.store.directory).rglob("*"):
        if path.is_file():
            words.update(re.findall(r"[A-Za-z0-9_-]{30,}", path.read_text(errors="replace")))
    found = {word: host.server.look(word) for word in words}
    return {word for word, known in found.items() if known and known["kind"] == "refresh_token" and known["usable"]}


def settle(host: TokenHost) -> None:
    """Wait until the server is done with what reached it before the kill: until then it may still rotate."""
    assert host.server
    seen: list[int] = []
    for _turn in range(50):
        time.sleep(0.2)
        before, seen = seen, [one.status for one in host.server.exchanges()]
        if seen == before and 0 not in seen:
            return


def wide_files(host: TokenHost) -> list[str]:
    """What others can read."""
    return [
        str(path)
        for path in host.folder.rglob("*")
        if path.is_file() and not path.is_symlink() and stat.S_IMODE(path.lstat().st_mode) & 0o007
    ]


def crash(host: TokenHost, point: int) -> bool:
    """Kill at one point, look, and let the keeper run; gives whether the grant survived."""
    assert host.server
    first = host.authorize(age=4000)
    assert refresh(host, point).killed, f"point {point}"
    assert not wide_files(host), f"point {point}"
    either = {first["access_token"], host.access_token()}
    assert (host.tokens / "default.plain").read_text() in {f"{token}\n" for token in either}, f"point {point}"
    assert (host.tokens / "default.exim").read_text() in {f"access_token={token}\n" for token in either}, (
        f"point {point}"
    )
    settle(host)
    can_survive = bool(good_refresh_tokens(host))
    said = host.keeper("tick")
    assert "Traceback" not in said.stderr, f"point {point}"
    status = host.status()
    if can_survive:
        assert status["status"] == "authorized", f"point {point}: a good refresh token was on the disk: {said}"
        assert (host.tokens / "default.plain").read_text() == host.access_token() + "\n", f"point {point}"
    else:
        assert status["status"] == "revoked", f"point {point}"
        assert "interrupted" in status["next_step"], f"point {point}"
        assert "authorize again" in status["next_step"], f"point {point}"
        assert host.state().aside, f"point {point}"
    assert not list(host.folder.rglob(".*fleetmail-*")), f"point {point}"
    return can_survive


def all_points(host: TokenHost) -> list[str]:
    host.authorize(age=4000)
    points = refresh(host).points
    assert len([point for point in points if point == "http.client.send"]) >= 1
    return points


def run(host: TokenHost, chosen: list[int], points: list[str]) -> dict[int, bool]:
    survived = {number: crash(host, number) for number in chosen}
    sent = max(number for number, name in enumerate(points, 1) if name == "http.client.send")
    written = next(number for number, name in enumerate(points, 1) if number > sent and name == "fsync")
    lost = {number for number, alive in survived.items() if not alive}
    assert all(sent < number <= written for number in lost), "only an answer that was not on the disk yet is lost"
    return survived


def test_a_killed_refresh_keeps_the_grant_or_says_that_it_is_lost(host: TokenHost) -> None:
    points = all_points(host)
    sent = max(number for number, name in enumerate(points, 1) if name == "http.client.send")
    near = range(sent, sent + 7)  # from the request to the rename of its answer: all that matters most
    others = [number for number in range(1, len(points) + 1) if number not in near]
    seed = int(os.environ.get("FLEETMAIL_CRASH_SEED", "20261124"))
    chosen = sorted([*near, *random.Random(seed).sample(others, SAMPLE - len(near))])
    survived = run(host, chosen, points)
    assert not all(survived.values()), "a kill between request and answer must have hit the grant, or it proves nothing"


@pytest.mark.crash_full
def test_every_step_of_a_refresh(host: TokenHost) -> None:
    points = all_points(host)
    survived = run(host, list(range(1, len(points) + 1)), points)
    lost = [f"{number} before {points[number - 1]}" for number, alive in survived.items() if not alive]
    print(f"{len(points)} points, grant lost at {lost}")
