# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The keeper's words and exit codes, row by row."""

from __future__ import annotations

import re
from typing import Any

import documents
import pytest
from unit.token_store import NAME, NOW

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.errors import Problem
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth import keeper, keeper_hooks, keeper_metrics
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth import keeper_report as report
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.keeper_report import Row
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.state import TokenState
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.status import STATUSES, view

GUIDE = documents.GUIDES / "guide_keeper.rst"
BROKEN = Row("broken", problems=(Problem("/x/token.json", "is damaged", "look at it"),))


def row(status: str, **changes: Any) -> Row:
    view_changes = {key: changes.pop(key) for key in list(changes) if key not in Row._fields}
    return Row(NAME, {**view(TokenState(NAME), NOW), "status": status, "cause": "x", **view_changes}, **changes)


@pytest.mark.parametrize(
    ("status", "code", "valid"),
    [
        ("authorized", 0, 0),
        ("expiring", 1, 1),
        ("pending", 1, 1),
        ("unreachable", 2, 1),
        *((status, 2, 2) for status in ("unauthorized", "expired", "revoked", "misconfigured", "blocked")),
    ],
)
def test_exit_status(status: str, code: int, valid: int) -> None:
    assert row(status).code == code
    assert row(status, valid=True).code == valid


def test_every_status_has_an_exit_status() -> None:
    assert {row(status).code for status in STATUSES} == {0, 1, 2}


def test_the_worst_counts() -> None:
    fine, soon, dead = row("authorized"), row("expiring"), row("revoked")
    assert report.worst([]) == 0
    assert report.worst([fine, soon]) == 1
    assert report.worst([soon, BROKEN]) == 3
    assert report.worst([BROKEN, dead, fine]) == 2


def test_a_file_that_could_not_be_written_is_a_warning() -> None:
    assert row("authorized", warnings=("no room",)).code == 1


def test_a_grant_that_nothing_declares_is_no_alarm() -> None:
    assert row("misconfigured", cause="not_declared").code == 1


def test_one_line_whatever_the_server_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    told = row("blocked", error="x", error_description="a\nb\x1b[31mc\x00", next_step="do\r\nthis")
    line = report.journal(told)
    assert line == "default: blocked (x); x; a?b?[31mc?; do??this"
    assert all("\n" not in text and "\x1b" not in text for text in report.table([told]))


def test_a_broken_file_in_words() -> None:
    assert report.journal(BROKEN).endswith("broken: /x/token.json: is damaged (look at it)")
    lines = list(report.table([BROKEN]))
    assert lines[1].split() == ["broken", "unknown"]
    assert lines[2] == "broken: /x/token.json: is damaged (look at it)"


# -- the guide


def test_the_guide_knows_every_metric() -> None:
    named = set(re.findall(r"``(fleetmail_[a-z_]+)(?:\{[a-z,]+\})?``", GUIDE.read_text()))
    times = {field: "2026-11-24T06:00:00Z" for field, _meaning in keeper_metrics.TIMES.values()}
    lines = keeper_metrics.metrics([Row(NAME, {**view(TokenState(NAME), NOW), **times})], NOW)
    made = {line.partition("{")[0].split()[0] for line in lines if not line.startswith("#")}
    assert named == made


def test_the_guide_knows_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        keeper.main(["--help"])
    assert ended.value.code == 0
    commands = re.findall(r"^    (\w+) ", capsys.readouterr().out, re.M)
    assert commands == ["tick", "status", "refresh", "token"]
    text = GUIDE.read_text()
    assert all(f"* - ``{command}" in text for command in commands)


def test_the_guide_knows_what_hooks_get() -> None:
    told = set(re.findall(r"``FLEETMAIL_([A-Z_]+)``", GUIDE.read_text()))
    assert told == {field.upper() for field in keeper_hooks.TOLD}
