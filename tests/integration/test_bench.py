# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The bench itself runs; its figures are nobody's business here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from lab.layers import why_unavailable

BENCH = Path(__file__).parents[1] / "bench/run.py"


@pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable())
def test_the_bench_measures_what_it_says(tmp_path: Path) -> None:
    written = tmp_path / "figures.json"
    command = [sys.executable, str(BENCH), "--hosts", "1", "--quick", "--json", str(written)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(written.read_text())
    runs = {(run["contender"], run["run"]): run for run in figures["runs"]}
    assert set(runs) == {
        ("ansible.builtin.ping", "second run"),
        ("smtp_service", "first run"),
        ("smtp_service", "second run"),
        ("smtp_service", "drift check"),
    }
    for run in runs.values():
        assert {size: len(samples) for size, samples in run["samples"].items()} == {"1": 1}
        assert all(sample["cpu"] > 0 for samples in run["samples"].values() for sample in samples)
    assert figures["payload"]["smtp_service"]["sent"] > figures["payload"]["ansible.builtin.ping"]["sent"] > 50_000
    parts = figures["payload"]["smtp_service"]["parts"]
    assert sum(part["sent"] for part in parts.values()) == figures["payload"]["smtp_service"]["sent"]
    assert {"backend postfix", "backend exim", "backend msmtp", "core"} < set(parts)
    assert all(part["files"] and part["sent"] > 0 for part in parts.values())
    assert "one more" in done.stdout
    assert "NOT REACHED" in done.stdout or "reached" in done.stdout
