# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The keeper where its store or its server fails it; the installed program is in tests/integration/test_keeper.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.error_server import ErrorServer
from unit.token_store import NAME, Held

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth import keeper


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
