# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The keeper's program as it is installed: what it does, says and costs, on every Python that hosts may have."""

from __future__ import annotations

import base64
import calendar
import json
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from driver import environments, pythons
from lab.error_replies import html
from lab.error_server import ErrorServer
from lab.oauth_server import OAuthServer, why_unavailable
from lab.token_host import USER, TokenHost, program

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth import authorization, keeper
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.client import TokenClient
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.status import STATUSES
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.redaction import base64_forms, forms

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "the server is there")

DAY = 86400
IDLE_LIMIT = 0.1  # seconds of processors


@pytest.fixture(scope="module")
def server() -> Iterator[OAuthServer]:
    with OAuthServer() as server:
        yield server


@pytest.fixture
def host(tmp_path: Path, server: OAuthServer) -> TokenHost:
    server.up()
    server.forget()
    return TokenHost(tmp_path, server)


# -- what it does


def test_a_token_through_its_life(host: TokenHost, server: OAuthServer) -> None:
    reader = host.consumer()
    said = host.keeper("tick")
    assert (said.returncode, said.stdout) == (0, "")
    assert host.keeper("status").stdout == "no token is declared on this host\n"
    host.declare()
    said = host.keeper("tick")
    assert said.returncode == 2
    assert said.stdout.startswith("default: unauthorized (never_authorized); authorize it: ")
    assert host.keeper("token", "default").returncode == 75
    first = host.authorize(age=4000)
    said = host.keeper("tick")
    assert said.returncode == 0
    assert re.fullmatch(r"default: authorized, \d+ days left, access token until \S+Z; refreshed\n", said.stdout)
    assert reader.read_text() == host.access_token() + "\n"
    assert host.access_token() != first["access_token"]
    assert host.keeper("token", "default").stdout == host.access_token() + "\n"
    said = host.keeper("tick")
    assert "refreshed" not in said.stdout
    assert len(server.refreshes()) == 1
    reader.unlink()
    said = host.keeper("tick", "--quiet")
    assert said.stdout.endswith("; repaired\n")
    assert reader.read_text() == host.access_token() + "\n"
    assert host.keeper("tick", "--quiet").stdout == ""
    server.revoke(user=USER)
    said = host.keeper("refresh", "default")
    assert said.returncode == 2
    assert "default: revoked (invalid_grant)" in said.stdout
    assert host.keeper("status", "default").returncode == 2
    host.authorize()
    assert host.keeper("status").returncode == 0


def test_a_code_that_a_person_types_in_needs_no_further_task(host: TokenHost, server: OAuthServer) -> None:
    """The keeper as it is installed completes what a task began, and gives the reader its token."""
    reader = host.consumer()
    device = {"grant": "device_code", "device_authorization_url": server.device_authorization_url}
    host.declare(client=server.device, **device)
    authorization.begin(host.store, "default", lambda registration: TokenClient(registration, host.store.host))
    pending = host.state().pending
    assert pending
    time.sleep(max(0.0, pending.data["next_poll"] - time.time()) + 1)
    said = host.keeper("tick")
    assert (said.returncode, "pending" in said.stdout, reader.exists()) == (1, True, False)
    server.approve_device(pending.data["user_code"], USER)
    time.sleep(pending.data["interval"] + 1)
    said = host.keeper("tick")
    assert (said.returncode, said.stdout.endswith("; refreshed\n")) == (0, True)
    assert reader.read_text() == host.access_token() + "\n"
    assert len(server.exchanges(endpoint="token")) == 2


def test_many_tokens_and_one_that_is_broken(host: TokenHost) -> None:
    for name in ("alpha", "beta", "gamma"):
        host.declare(name)
        host.consumer(name)
        host.authorize(name, age=4000)
    broken = Path(host.store.token_path("beta"))
    broken.write_bytes(b"{")
    said = host.keeper("tick")
    assert said.returncode == 3
    lines = said.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["alpha", "beta", "gamma"]
    assert f"{broken}: is damaged" in lines[1]
    assert lines[0].endswith("; refreshed")
    assert lines[2].endswith("; refreshed")
    assert broken.read_bytes() == b"{"
    told = json.loads(host.keeper("status", "--json").stdout)
    assert [token["name"] for token in told["tokens"]] == ["alpha", "gamma"]
    assert told["problems"][0]["name"] == "beta"
    assert told["problems"][0]["option"] == str(broken)
    assert told["code"] == 3


def test_exit_codes_by_status(host: TokenHost, server: OAuthServer) -> None:
    host.authorize(age=3300)  # it has some minutes left
    server.down()
    said = host.keeper("tick")
    assert said.returncode == 1, "unreachable, and the token is still valid"
    assert "default: unreachable" in said.stdout
    server.up()
    host.authorize(age=4000)
    server.down()
    assert host.keeper("tick").returncode == 2, "unreachable, and there is none"
    assert host.keeper("token", "default").returncode == 75
    server.up()
    assert host.keeper("refresh", "default").returncode == 0
    host.authorize(age=80 * DAY, expires_in=100 * DAY)
    assert host.status()["status"] == "expiring"
    assert host.keeper("status").returncode == 1
    assert host.keeper("tick").returncode == 0, "it has kept it alive"
    assert host.keeper("status", "nothing-of-that-name").returncode == 1
    os.unlink(host.store.registration_path("default"))
    assert host.keeper("tick").returncode == 1, "a grant that nothing declares any more"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "required"),
        (["dance"], "invalid choice: 'dance'"),
        (["token"], "the following arguments are required: NAME"),
        (["token", "../../etc"], "has no token of that name"),
        (["tick", "--frob"], "unrecognized arguments"),
        (["status", "--store", "{folder}/file"], "file: is not a directory"),
    ],
)
def test_what_cannot_be_is_3_and_a_sentence(host: TokenHost, words: list[str], says: str) -> None:
    (host.folder / "file").write_text("mine")
    told = [word.format(folder=host.folder) for word in words]
    command = [sys.executable, "-I", str(program()), *told]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert (host.folder / "file").read_text() == "mine"


def test_a_reader_that_hangs_up_is_no_traceback(host: TokenHost) -> None:
    host.authorize()
    process = subprocess.Popen(host.command("status", "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    assert b"Traceback" not in process.stderr.read()
    process.wait(30)
    process.stderr.close()


def test_the_journal_gets_a_priority(host: TokenHost, server: OAuthServer) -> None:
    host.authorize()
    assert host.keeper("tick", env={"JOURNAL_STREAM": "8:1"}).stdout.startswith("<6>default: authorized")
    server.revoke(user=USER)
    said = host.keeper("refresh", "default", env={"JOURNAL_STREAM": "8:1"}).stdout
    assert said.startswith("<3>default: revoked")
    assert said.count("\n") == 1


# -- day 90


def ticks(host: TokenHost, clock: list[float]) -> int:
    return keeper.main(["--store", host.store.directory, "tick", "--quiet"], lambda: clock[0])


@pytest.mark.parametrize(
    ("access_days", "step", "requests"), [(400, 1, 8), (1 / 24, 8, 50)], ids=["long access tokens", "hourly ones"]
)
def test_an_idle_host_never_loses_its_grant(
    host: TokenHost, access_days: float, step: int, requests: int, capsys: Any
) -> None:
    """400 days in which nobody sends a mail, the server's clock with ours."""
    with OAuthServer(access_token_seconds=int(access_days * DAY)) as server:
        host.server = server
        host.authorize(expires_in=int(access_days * DAY))
        server.forget()
        clock = [time.time()]
        for _tick in range(0, 400, step):
            server.pass_time(days=step)
            clock[0] += step * DAY
            assert ticks(host, clock) == 0
        assert len(server.refreshes()) == requests
        known = server.look(host.refresh_token())
        assert known
        assert known["usable"]
    assert "Traceback" not in capsys.readouterr().err


def test_without_the_keeper_it_warns_14_days_before(host: TokenHost, capsys: Any) -> None:
    with OAuthServer(access_token_seconds=400 * DAY) as server:
        host.server = server
        host.authorize(expires_in=400 * DAY)
        begun = time.time()
        seen = []
        for day in range(93):
            code = keeper.main(["--store", host.store.directory, "status", "--json"], lambda at=begun + day * DAY: at)
            token = json.loads(capsys.readouterr().out)["tokens"][0]
            seen.append((token["status"], code))
            assert 89 - day <= token["days_left"] <= 90 - day or day > 89
        assert seen == [("authorized", 0)] * 76 + [("expiring", 1)] * 14 + [("expired", 2)] * 3
        assert server.refreshes() == [], "a status spends nothing"
        server.pass_time(days=91)
        assert ticks(host, [begun + 91 * DAY]) == 2
        assert host.status()["error"] == "invalid_grant", "asked at last, the server has the last word"
        assert host.status()["status"] == "expired"


# -- metrics and hooks

SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="[^"\\\n]*",?)*)\})? (-?[0-9.e+]+)')


def samples(text: str) -> dict[str, float]:
    """The samples of Prometheus' text format, read as strictly as node_exporter does."""
    found: dict[str, float] = {}
    typed: set[str] = set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            name = line.split()[2]
            assert name not in typed
            typed.add(name)
        elif not line.startswith("# HELP "):
            match = SAMPLE.fullmatch(line)
            assert match, line
            assert match[1] in typed
            assert line.rpartition(" ")[0] not in found
            found[line.rpartition(" ")[0]] = float(match[3])
    assert text.endswith("\n")
    return found


def test_metrics(host: TokenHost, server: OAuthServer) -> None:
    target = host.folder / "node" / "fleetmail.prom"
    target.parent.mkdir()
    for name in ("alpha", "beta", "gone"):
        host.declare(name)
    host.authorize("alpha", age=4000)
    host.authorize("beta", age=3400)
    Path(host.store.token_path("gone")).write_text("{")
    assert host.keeper("tick", "--prometheus", str(target)).returncode == 3
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    found = samples(target.read_text())
    for status in STATUSES:
        assert found[f'fleetmail_token_status{{name="alpha",status="{status}"}}'] == (status == "authorized")
    assert found['fleetmail_token_valid{name="alpha"}'] == 1
    assert found['fleetmail_token_unreadable{name="gone"}'] == 1
    assert 'fleetmail_token_valid{name="gone"}' not in found
    expires = calendar.timegm(time.strptime(host.status("alpha")["expires_at"], "%Y-%m-%dT%H:%M:%SZ"))
    assert found['fleetmail_token_access_expires_timestamp_seconds{name="alpha"}'] == expires
    assert abs(found["fleetmail_keeper_run_timestamp_seconds"] - time.time()) < 60
    server.revoke(user=USER)
    host.keeper("refresh", "beta")
    assert host.keeper("tick", "--prometheus", str(target)).returncode == 2
    assert samples(target.read_text())['fleetmail_token_status{name="beta",status="revoked"}'] == 1
    assert sorted(path.name for path in target.parent.iterdir()) == ["fleetmail.prom"]
    said = host.keeper("tick", "--prometheus", str(host.folder / "not-there" / "x.prom"))
    assert "x.prom: cannot be written" in said.stderr
    assert said.returncode in (2, 3)


def test_hooks(host: TokenHost, server: OAuthServer) -> None:
    log = host.folder / "told"
    hook = host.folder / "hook"
    hook.write_text(
        f"#!/bin/sh\nenv | grep ^FLEETMAIL_ | sort >> {log}\ncat >> {log}\necho >> {log}\nexit $(cat {log}.code)\n"
    )
    hook.chmod(0o755)
    code = Path(f"{log}.code")
    code.write_text("0")

    def calls() -> list[str]:
        text = log.read_text() if log.exists() else ""
        log.unlink(missing_ok=True)
        return re.findall(r"^FLEETMAIL_STATUS=(.*)$", text, re.M)

    host.authorize()
    for _turn in range(2):
        host.keeper("tick", "--hook", str(hook))
        assert calls() == [], "good from the start is no news"
    server.revoke(user=USER)
    host.keeper("refresh", "default")
    code.write_text("1")
    said = host.keeper("tick", "--hook", str(hook))
    assert f"the hook {hook} ended with 1" in said.stdout
    assert calls() == ["revoked"]
    code.write_text("0")
    host.keeper("tick", "--hook", str(hook))
    text = log.read_text()
    assert calls() == ["revoked"], "a hook that failed is told again"
    assert "FLEETMAIL_STATUS_BEFORE=authorized" in text
    assert "FLEETMAIL_NAME=default" in text
    told = json.loads(next(line for line in text.splitlines() if line.startswith("{")))
    assert (told["status"], told["status_before"], told["cause"]) == ("revoked", "authorized", "invalid_grant")
    host.keeper("tick", "--hook", str(hook))
    assert calls() == []
    host.authorize()
    host.keeper("tick", "--hook", str(hook), "--hook", "/not/there")
    assert calls() == ["authorized"]


# -- what leaks


def test_nothing_that_it_says_is_secret(host: TokenHost, server: OAuthServer) -> None:
    """Whatever happens, in no output, metric, hook, argument or environment, and in no file that others read."""
    seen: list[bytes] = []
    spy = host.folder / "spy"
    parent = "/proc/$PPID"
    spy.write_text(f"#!/bin/sh\n(env; cat; cat {parent}/cmdline {parent}/environ) >> {host.folder}/spied\n")
    spy.chmod(0o755)
    reader = host.consumer(wake=(str(spy),))
    secrets: set[str] = set()

    def learn() -> None:
        secrets.update(filter(None, (host.refresh_token(), host.access_token())))

    def run(*words: str) -> None:
        said = host.keeper(*words)
        seen.append((said.stdout + said.stderr).encode())
        learn()

    secret = server.confidential.client_secret
    secrets.update((secret, base64.b64encode(secret.encode()).decode()))
    host.declare(client=server.confidential)
    answer = server.grant_for(USER, " ".join(host.declare(client=server.confidential).scope), server.confidential)
    secrets.update((answer["access_token"], answer["refresh_token"]))
    host.authorize(age=4000)
    learn()
    metrics = host.folder / "x.prom"
    run("tick", "--hook", str(spy), "--prometheus", str(metrics))
    run("refresh", "default")
    server.down()
    run("refresh", "default")
    server.up()
    server.revoke(user=USER)
    run("refresh", "default")
    run("tick", "--hook", str(spy), "--prometheus", str(metrics))
    run("status")
    run("status", "--json")
    host.keeper("token", "default")
    seen += [metrics.read_bytes(), (host.folder / "spied").read_bytes()]
    for path in host.folder.rglob("*"):
        if path.is_file() and path.lstat().st_mode & 0o007 and path != reader:
            seen.append(path.read_bytes())
    assert len(seen) > 9
    assert len(secrets) >= 6
    everything = b"\n".join(seen).decode(errors="replace")
    for one in secrets:
        for form in {*forms(one), *base64_forms(one)}:
            assert form not in everything


# -- what it costs, and where it runs


def best_of(command: list[str], times: int = 10) -> float:
    """The least processor time of a command, in seconds."""
    least = 9e9
    for _turn in range(times):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _pid, code, used = os.wait4(process.pid, 0)
        process.returncode = code
        assert code == 0
        least = min(least, used.ru_utime + used.ru_stime)
    return least


def test_an_idle_tick_costs_next_to_nothing(host: TokenHost) -> None:
    for number in range(5):
        host.declare(f"token-{number}")
        for kind in ("plain", "exim", "sasl_xoauth2"):
            host.consumer(f"token-{number}", kind)
        host.authorize(f"token-{number}")
    assert host.keeper("tick").returncode == 0
    assert best_of(host.command("tick", "--quiet")) < IDLE_LIMIT


@pytest.mark.parametrize("version", ["3.9", "3.10", "3.11", "3.12", "3.13"])
def test_every_python(host: TokenHost, version: str) -> None:
    python = pythons.find(version)
    if python is None:
        pytest.skip(f"there is no Python {version} here")
    reader = host.consumer()
    host.authorize()
    reader.unlink()
    said = host.keeper("tick", python=python)
    assert (said.returncode, said.stderr) == (0, "")
    assert reader.read_text() == host.access_token() + "\n"
    assert json.loads(host.keeper("status", "--json", python=python).stdout)["tokens"][0]["status"] == "authorized"
    for words in (["tick", "--prometheus", str(host.folder / "x.prom")], ["token", "default"], ["status"]):
        assert host.keeper(*words, python=python).returncode == 0
    has_requests = subprocess.run([str(python), "-I", "-c", "import requests"], capture_output=True, check=False)
    if has_requests.returncode:
        said = host.keeper("refresh", "default", python=python)
        assert said.returncode == 2
        assert "library_missing" in said.stdout
        assert "requests" in said.stdout
        assert host.status()["status"] == "misconfigured"
        assert host.refresh_token()


def test_the_oldest_python_asks_a_server(host: TokenHost) -> None:
    python = pythons.find("3.9")
    if python is None:
        pytest.skip("there is no Python 3.9 here")
    python = environments.virtual_environment("requests>=2.25,<3\n", python) / "bin/python"
    host.authorize(age=4000)
    said = host.keeper("tick", python=python)
    assert (said.returncode, said.stderr) == (0, "")
    assert "; refreshed" in said.stdout


def test_a_server_of_errors_never_gives_a_traceback(host: TokenHost) -> None:
    with ErrorServer(limit=1) as server:
        token = server.oauth.issue_refresh_token("fleet", "smtp")
        host.server = None
        host.declare(client_id="fleet", token_url=server.token_url, scope=("smtp",))
        _hold(host, token)
        server.always(html(500))
        said = host.keeper("refresh", "default")
        assert said.returncode in (1, 2)
        assert said.stdout.count("\n") == 1
        assert "Traceback" not in said.stderr


def _hold(host: TokenHost, refresh_token: str) -> None:
    from lab.granting import accept

    from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.grants.base import Reply
    from ansible_collections.fleetmail.smtp.plugins.module_utils.core.redaction import Secret

    accept(host.store, "default", Reply(Secret("an-access-token"), 3600, Secret(refresh_token)))
