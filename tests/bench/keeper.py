# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the keeper costs: a refresh against emailproxy's and a bare `requests` call, an idle tick against its daemon.

All run in one environment, against one server on loopback, taking turns; of the rounds the least is kept.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from driver import checkout, environments
from lab.error_server import ErrorServer

from bench.measure import Sample

sys.path.insert(0, str(checkout.linked()))
from lab.token_host import TokenHost  # it imports the collection

HERE = Path(__file__).parent
ROUNDS = 9
TOKENS = 5
IDLE_LIMIT = 0.1  # s of processors for an idle tick
INTERVAL = 300  # s between two ticks, as the role's timer has it
WATCHED = 10  # s that a daemon is watched
USER, PASSWORD = "fleet@example.test", "a password of the proxy's"

_BARE = """
import requests, sys
form = {"grant_type": "refresh_token", "client_id": "fleet", "refresh_token": sys.argv[2]}
answer = requests.post(sys.argv[1], data=form, timeout=20)
print(answer.json()["access_token"])
"""

# What emailproxy does when somebody logs in whose access token is about to expire.
_PEER = """
import sys
place, user, password, token = sys.argv[1:]
sys.argv = ["emailproxy", "--no-gui"]
import emailproxy
emailproxy.CONFIG_FILE_PATH = emailproxy.CACHE_STORE = place
if token:
    config = emailproxy.AppConfig.get()
    secret = emailproxy.Cryptographer(config, user, password)
    config.set(user, "token_salt", secret.salt)
    config.set(user, "token_iterations", str(secret.iterations))
    config.set(user, "refresh_token", secret.encrypt(token))
    emailproxy.AppConfig.save()
good, said = emailproxy.OAuth2Helper.get_oauth2_credentials(user, password)
if not good:
    sys.exit(said)
"""
_PEER_CONFIG = """
[SMTP-{port}]
local_address = 127.0.0.1
server_address = 127.0.0.1
server_port = 1

[{user}]
token_url = {token_url}
oauth2_scope = smtp offline_access
client_id = fleet
"""


class Keeper(NamedTuple):
    """The figures, seconds by the clock and of processors: least of the rounds by name; idle: of a daemon."""

    refresh: Mapping[str, Sample]
    tick: Mapping[str, Sample]
    daemon_cpu: float  # s of processors in one interval
    daemon_memory: int  # bytes that stay in use


def measure(rounds: int = ROUNDS) -> Keeper:
    """Measure it. Raises driver.environments.Unavailable, and RuntimeError when a contender does not do its job."""
    environment = environments.virtual_environment((HERE / "requirements-keeper.txt").read_text())
    python = environment / "bin/python"
    # a token below both programs' limit is renewed each time; one that is not rotated serves all contenders
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as scratch,
        ErrorServer(rotate=False, access_token_seconds=60) as server,
    ):
        folder = Path(scratch)
        ours = _ours(folder / "ours", server)
        idle = _ours(folder / "idle", server, TOKENS)
        peer = _peer(folder, server, python)
        token = server.oauth.issue_refresh_token("fleet", "smtp")
        refresh = {
            "requests, bare": [str(python), "-c", _BARE, server.token_url, token],
            "keeper refresh": ours.command("refresh", "token-0", python=python),
            "emailproxy": peer,
        }
        tick = {
            "python, nothing": [str(python), "-I", "-c", "pass"],
            "keeper tick": idle.command("tick", "--quiet", python=python),
        }
        asked = len(server.requests("token"))
        figures = _least(refresh, rounds)
        if len(server.requests("token")) - asked != rounds * len(refresh):
            raise RuntimeError("a contender did not refresh each time")
        asked = len(server.requests("token"))
        ticks = _least(tick, rounds)
        if len(server.requests("token")) != asked:
            raise RuntimeError("an idle tick asked the server")
        return Keeper(figures, ticks, *_daemon(environment, folder / "emailproxy.config"))


def _ours(folder: Path, server: ErrorServer, count: int = 1) -> TokenHost:
    """A store with tokens that were authorized just now, two readers each."""
    from lab.granting import accept

    from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.grants.base import Reply
    from ansible_collections.fleetmail.smtp.plugins.module_utils.core.redaction import Secret

    folder.mkdir()
    host = TokenHost(folder)
    for number in range(count):
        name = f"token-{number}"
        host.declare(name, client_id="fleet", token_url=server.token_url, scope=("smtp", "offline_access"))
        for kind in ("plain", "exim"):
            host.consumer(name, kind)
        token = Secret(server.oauth.issue_refresh_token("fleet", "smtp"))
        accept(host.store, name, Reply(Secret("a" * 1500), 3600, token))
    return host


def _peer(folder: Path, server: ErrorServer, python: Path) -> list[str]:
    """emailproxy with a refresh token in its file; gives the command that makes it renew its access token."""
    place = folder / "emailproxy.config"
    place.write_text(_PEER_CONFIG.format(port=_free_port(), user=USER, token_url=server.token_url))
    command = [str(python), "-c", _PEER, str(place), USER, PASSWORD]
    token = server.oauth.issue_refresh_token("fleet", "smtp")
    subprocess.run([*command, token], check=True, capture_output=True)
    return [*command, ""]


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _least(commands: Mapping[str, list[str]], rounds: int) -> dict[str, Sample]:
    """Each command in turn; raises RuntimeError when one fails."""
    found: dict[str, list[Sample]] = {name: [] for name in commands}
    for _round in range(rounds):
        for name, command in commands.items():
            found[name].append(_run(name, command))
    return {name: Sample(min(one.wall for one in all_), min(one.cpu for one in all_)) for name, all_ in found.items()}


def _run(name: str, command: list[str]) -> Sample:
    began = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _pid, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{name} ended with {process.returncode}")
    return Sample(time.perf_counter() - began, used.ru_utime + used.ru_stime)


def _daemon(environment: Path, place: Path) -> tuple[float, int]:
    """What emailproxy costs while nobody does anything: processors in one interval, and memory."""
    command = [str(environment / "bin/emailproxy"), "--no-gui", "--config-file", str(place)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(3)
        before = _used(process.pid)
        time.sleep(WATCHED)
        if process.poll() is not None:
            raise RuntimeError(f"emailproxy ended with {process.returncode}")
        return (_used(process.pid) - before) * INTERVAL / WATCHED, _memory(process.pid)
    finally:
        process.kill()
        process.communicate()


def _used(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS:"))) * 1024


def told(figures: Keeper) -> str:
    """The figures as text."""
    bare, idle = figures.refresh["requests, bare"], figures.tick["keeper tick"]
    rows = [
        f"  {name:16} {one.wall * 1000:7.1f} / {one.cpu * 1000:6.1f}   x bare {one.wall / bare.wall:5.2f} /"
        f" {one.cpu / bare.cpu:5.2f}"
        for name, one in figures.refresh.items()
    ]
    ticks = [f"  {name:16} {one.wall * 1000:7.1f} / {one.cpu * 1000:6.1f}" for name, one in figures.tick.items()]
    reached = "reached" if idle.cpu <= IDLE_LIMIT else "NOT REACHED"
    return "\n".join([
        "the keeper: ms by the clock / of processors, the least of the rounds",
        "a refresh:",
        *rows,
        f"an idle tick ({TOKENS} tokens, {2 * TOKENS} readers' files):",
        *ticks,
        f"  limit: an idle tick costs at most {IDLE_LIMIT * 1000:.0f} ms of processors: {reached}",
        f"idle for {INTERVAL} s: keeper {idle.cpu * 1000:.0f} ms of processors, no memory; emailproxy"
        f" {figures.daemon_cpu * 1000:.0f} ms, {figures.daemon_memory / 1e6:.0f} MB",
    ])  # fmt: skip
