# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The keeper where its store or its server fails it; the installed program is in tests/integration/test_keeper.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.error_replies import oauth_error
from lab.error_server import ErrorServer
from unit.token_store import NAME, Held

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth import authorization, keeper


@pytest.fixture
def server() -> Iterator[ErrorServer]:
    with ErrorServer() as server:
        yield server


@pytest.fixture
def held(tmp_path: Path, server: ErrorServer) -> Held:
    return Held(tmp_path, server)


def run(held: Held, *words: str) -> int:
    return keeper.main([words[0], "--store", held.store.directory, *words[1:]], held.clock)


def break_store(held: Held) -> None:
    """Nothing can be written there any more, as on a full disk; what is there can be read."""
    Path(held.host.staged_name(str(held.file))).mkdir()


def test_a_store_that_cannot_be_written_keeps_no_valid_token_back(
    held: Held, server: ErrorServer, capsys: pytest.CaptureFixture[str]
) -> None:
    held.authorize()
    break_store(held)
    held.wait(seconds=3300)
    assert run(held, "token", NAME) == 0
    said = capsys.readouterr()
    assert said.out == "first-access-token\n"
    held.wait(seconds=400)
    assert run(held, "token", NAME) == keeper.TEMPORARY_FAILURE, "mail waits, it is not refused"
    said = capsys.readouterr()
    assert said.out == ""
    assert "token.json" in said.err
    assert server.requests("token") == []


def test_a_tick_soon_after_wakes_again_what_was_just_trying(held: Held, tmp_path: Path) -> None:
    bell = tmp_path / "bell"
    held.consumer(wake=("sh", "-c", f"echo >> {bell}"))
    held.authorize()
    for _command in ("tick", "token", "token"):
        held.wait(seconds=60)
        assert run(held, *([_command] if _command == "tick" else [_command, NAME])) == 0
    assert bell.read_text().count("\n") == 2, "whoever reads its token wakes nobody"


# -- a code that a person types in when no task waits for it any more


@pytest.fixture
def coded(tmp_path: Path, server: ErrorServer) -> Held:
    """An authorization by a code, which was begun a minute ago."""
    held = Held(tmp_path, server, grant="device_code", device_authorization_url=server.url("devicecode"))
    held.consumer()
    authorization.begin(held.store, NAME, held.client, held.clock)
    held.wait(seconds=60)
    return held


def polls(server: ErrorServer) -> int:
    return len(server.requests("token"))


def test_a_tick_completes_what_the_person_did(
    coded: Held, server: ErrorServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(coded, "tick") == 1
    assert "pending" in capsys.readouterr().out
    assert polls(server) == 1
    pending = coded.state.pending
    assert pending
    server.oauth.approve(pending.data["user_code"])
    coded.wait(seconds=60)
    assert run(coded, "tick") == 0
    said = capsys.readouterr().out
    assert "authorized" in said
    assert said.endswith("; refreshed\n")
    access = coded.state.access
    assert access
    assert (coded.directory / "tokens" / f"{NAME}.plain").read_text() == access.token.reveal() + "\n"
    assert coded.state.pending is None
    assert run(coded, "tick") == 0
    assert polls(server) == 2


def test_ticks_keep_to_the_servers_pace(coded: Held, server: ErrorServer) -> None:
    begun = coded.state.pending
    assert begun
    pace = begun.data["interval"] + 5  # of all later ones
    server.script(oauth_error("slow_down"))
    for _turn in range(3):
        run(coded, "tick")
    assert polls(server) == 1
    coded.wait(seconds=pace - 1)
    run(coded, "tick")
    assert polls(server) == 1
    coded.wait(seconds=1)
    run(coded, "tick")
    assert polls(server) == 2


def test_a_no_is_told_and_ends_it(coded: Held, server: ErrorServer, capsys: pytest.CaptureFixture[str]) -> None:
    pending = coded.state.pending
    assert pending
    server.oauth.deny(pending.data["user_code"])
    assert run(coded, "tick") == 2
    assert "unauthorized (access_denied)" in capsys.readouterr().out
    assert coded.state.pending is None
    coded.wait(days=1)
    run(coded, "tick")
    assert polls(server) == 1


def test_a_code_that_nobody_typed_in_is_told_without_asking(
    coded: Held, server: ErrorServer, capsys: pytest.CaptureFixture[str]
) -> None:
    coded.wait(days=1)
    assert run(coded, "tick") == 2
    assert "unauthorized (expired_token)" in capsys.readouterr().out
    assert polls(server) == 0


def test_a_code_of_another_client_is_nothing_to_ask_about(coded: Held, server: ErrorServer) -> None:
    coded.declare(client_id="another")
    run(coded, "tick")
    assert polls(server) == 0


def test_an_address_that_waits_for_its_person_costs_nothing(tmp_path: Path, server: ErrorServer) -> None:
    held = Held(tmp_path, server, authorization_url=server.url("authorize"))
    authorization.begin(held.store, NAME, held.client, held.clock)
    before = held.file.stat().st_mtime_ns
    for _turn in range(3):
        held.wait(days=1)
        run(held, "tick")
    assert held.file.stat().st_mtime_ns == before
    assert polls(server) == 0
