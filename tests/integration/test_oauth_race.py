# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fifty processes at once want an access token from a server that rotates refresh tokens and punishes their reuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from driver import checkout
from lab.oauth_server import OAuthServer, why_unavailable
from lab.token_host import CORE, TokenHost

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "the server is there")

TOGETHER = 50

# As a module does it: the engine in a process of its own, which prints the access token. It begins with the others.
_ENGINE = """
import sys
sys.path.insert(0, sys.argv[1])
from core.oauth.client import TokenClient
from core.oauth.store import Store
from core.oauth.tokens import ensure
from core.posix_host import PosixHost
host = PosixHost()
sys.stdin.read()
outcome = ensure(Store(host, sys.argv[2]), "default", lambda registration: TokenClient(registration, host))
print(outcome.state.access.token.reveal())
print("asked" if outcome.refreshed else "found", file=sys.stderr)
"""

# The module itself, with Ansible's own argument parsing; it too begins with the others.
_MODULE = """
import json, sys
sys.path.insert(0, sys.argv[1])
from ansible.module_utils import basic
from ansible_collections.fleetmail.smtp.plugins.modules import smtp_oauth_token
basic._ANSIBLE_ARGS = json.dumps({"ANSIBLE_MODULE_ARGS": {"name": "default", "store": sys.argv[2]}}).encode()
basic._ANSIBLE_PROFILE = "legacy"
sys.stdin.read()
smtp_oauth_token.main()
"""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[TokenHost]:
    with OAuthServer(delay_ms=1500) as server:
        host = TokenHost(tmp_path, server)
        host.consumer(format="plain")
        host.consumer(format="exim")
        yield host


def race(host: TokenHost, count: int = TOGETHER) -> list[tuple[str, int, str, str]]:
    """Start them, let them go together; (kind, exit status, output, errors) of each."""
    kinds = {
        "module": [sys.executable, "-c", _MODULE, str(checkout.linked()), host.store.directory],
        "engine": [sys.executable, "-c", _ENGINE, str(CORE), host.store.directory],
        "keeper token": ["sh", "-c", 'cat && exec "$@"', "sh", *host.command("token", "default")],
        "keeper tick": ["sh", "-c", 'cat && exec "$@"', "sh", *host.command("tick")],
    }
    turn = ["engine", "keeper token", "module", "engine", "keeper tick"]
    waits, gate = os.pipe()  # all of them read from it, and go when it is closed
    started = []
    for number in range(count):
        kind = turn[number % len(turn)]
        process = subprocess.Popen(
            kinds[kind], stdin=waits, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, close_fds=True
        )
        started.append((kind, process))
    os.close(waits)
    os.close(gate)
    said = []
    for kind, process in started:
        out, errors = process.communicate(timeout=120)
        said.append((kind, process.returncode, out, errors))
    return said


def test_one_request_and_a_token_for_everybody(host: TokenHost) -> None:
    assert host.server
    old = host.authorize(age=4000)
    host.server.forget()
    said = race(host)
    assert [(kind, code, errors) for kind, code, _out, errors in said if code] == []
    assert len(host.server.refreshes()) == 1, "one request"
    new = host.access_token()
    assert new != old["access_token"]
    printed = [out.strip() for kind, _code, out, _errors in said if kind in ("engine", "keeper token")]
    assert printed == [new] * len(printed), "everybody gets the new token"
    told = [json.loads(out)["token"] for kind, _code, out, _errors in said if kind == "module"]
    assert {(token["status"], token["expires_at"]) for token in told} == {("authorized", host.status()["expires_at"])}
    assert new not in "".join(out for kind, _code, out, _errors in said if kind in ("module", "keeper tick"))
    assert (host.tokens / "default.plain").read_text() == new + "\n"
    assert (host.tokens / "default.exim").read_text() == f"access_token={new}\n"
    found = host.server.look(host.refresh_token())
    assert found
    assert found["usable"], "the grant lives"
    host.server.change(delay_ms=0)
    assert host.keeper("refresh", "default").returncode == 0
    assert not list(host.folder.glob("**/.*fleetmail-*"))


def test_a_server_that_is_down_is_asked_once_by_those_who_wait(host: TokenHost) -> None:
    assert host.server
    host.authorize(age=4000)
    old = host.refresh_token()
    host.server.down(503)
    host.server.forget()
    said = race(host, 24)
    assert not any("Traceback" in errors for _kind, _code, _out, errors in said)
    asked = len([one for one in host.server.exchanges() if one.path.startswith("/token")])
    assert 1 <= asked <= 6, "who was waiting for the first answer takes it for its own; who comes later asks by itself"
    assert host.refresh_token() == old
    host.server.up()
    host.server.change(delay_ms=0)
    assert host.keeper("refresh", "default").returncode == 0
