# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the bench makes of the samples of larger fleets."""

from __future__ import annotations

import os
import subprocess

from bench import scale
from bench.scale import Cost, Row


def test_what_a_shell_counts_is_understood() -> None:
    """times(1) as this machine's sh prints it, after a child that has used some of the processor."""
    script = "python3 -c 'sum(range(3_000_000))'; times; times"
    printed = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    used = scale._seconds(printed)
    assert 0.02 < used < 20
    assert scale._seconds("0m0.010000s 0m0.020000s\n1m2.500000s 0m0.000000s\n") == 62.53
    assert scale._seconds("") == 0


def test_one_more_host_is_the_slope() -> None:
    row = Row("25 forks", {10: Cost(4, 1.2, 2.0, 10), 100: Cost(20, 5.7, 20.0, 10**8)})
    assert [round(seconds, 6) for seconds in row.per_host] == [0.05, 0.2]
    said = scale.told([row, Row("two slices", {100: Cost(18, 6, 18, 1)})])
    assert "one more: 50 ms on the control node, 200 ms on the host" in said
    assert "100 MB" in said
    assert said.count("one more") == 1


def test_memory_is_that_of_processes_that_are_there() -> None:
    assert scale._memory(os.getpid()) > 1_000_000
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert scale._memory(ended.pid) == 0
    assert scale._descendants(os.getpid()) == []  # no ansible-playbook runs below this process
