# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What decides how long a large fleet takes: forks, pipelining, slices, ssh; and what a control node needs for it.

The play is that of smtp_service on hosts that are as they should be already, which is what most runs of a fleet are.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from lab.control import ControlNode
from lab.machine import Machine, why_unavailable
from lab.network import Network
from lab.tree import Tree

from bench.fleet import Fleet
from bench.measure import Bench

SIZES = (10, 100)
FORKS = (5, 25, 50)
MACHINES = 8  # by ssh
LOOK = 0.5  # s between two looks at the memory in use
_COUNTING = "/usr/local/bin/counting-python"
_COUNTED = "/var/counted"
# times(1): a line for the shell itself, one for what it ran
_COUNTER = f"""#!/bin/sh
/usr/bin/python3 "$@"
code=$?
times >> {_COUNTED}
exit $code
"""


class Cost(NamedTuple):
    """Of one run: seconds by the clock, of the control node's processors and of the hosts', and bytes at the peak."""

    wall: float
    node: float
    hosts: float
    memory: int


class Row(NamedTuple):
    """What was run, and what it cost by the size of the fleet."""

    what: str
    costs: Mapping[int, Cost]

    @property
    def per_host(self) -> tuple[float, float]:
        """Seconds of processors that one more host costs: the control node's, the host's."""
        small, large = min(self.costs), max(self.costs)
        few, many = self.costs[small], self.costs[large]
        return (many.node - few.node) / (large - small), (many.hosts - few.hosts) / (large - small)


def measure(bench: Bench) -> list[Row]:
    """All of it. Raises bench.fleet.Disagreement when a run does not do what it should."""
    rows: list[Row] = []
    with Fleet("ours", max(SIZES)) as fleet:
        bench.play("smtp_service", fleet)
        for host in fleet.hosts:
            host.write(_COUNTING, _COUNTER, 0o755)
        for forks in FORKS:
            rows.append(_row(bench, fleet, f"{forks} forks", forks))
        rows.append(_row(bench, fleet, "25 forks, without pipelining", 25, "ansible_pipelining=false"))
        rows.append(Row("two slices at once, 25 forks each", {max(SIZES): _sliced(bench, fleet, 2, 25)}))
    return rows if why_unavailable() else rows + _by_ssh(bench)


def _row(bench: Bench, fleet: Fleet, what: str, forks: int, *variables: str) -> Row:
    costs = {}
    for size in SIZES:
        with _part(fleet, fleet.hosts[:size]) as part:
            costs[size] = _play(bench, part, forks, variables)
    return Row(what, costs)


@contextmanager
def _part(fleet: Fleet, hosts: Sequence[Tree]) -> Iterator[Fleet]:
    """Some of the hosts, with an inventory of their own."""
    part = Fleet(fleet.name, len(hosts))
    part.hosts = list(hosts)
    part.inventory.write_text("".join(host.inventory_line() + "\n" for host in hosts))
    try:
        yield part
    finally:
        part.hosts = []
        part.__exit__()


def _play(bench: Bench, fleet: Fleet, forks: int, variables: Sequence[str] = ()) -> Cost:
    arguments = ["--extra-vars", " ".join((f"ansible_python_interpreter={_COUNTING}", *variables))]
    for host in fleet.hosts:
        host.write(_COUNTED, "")
    with _watched() as seen:
        sample = bench.play("smtp_service", fleet, tuple(arguments), False, {"ANSIBLE_FORKS": str(forks)})
    hosts = sum(_seconds(host.read(_COUNTED).decode()) for host in fleet.hosts)
    return Cost(sample.wall, sample.cpu - hosts, hosts, max(seen, default=0))


def _sliced(bench: Bench, fleet: Fleet, slices: int, forks: int) -> Cost:
    """As AWX slices a job: every n-th host, each slice by a control process of its own."""
    with ThreadPoolExecutor(slices) as hands:
        parts = [_part(fleet, fleet.hosts[number::slices]) for number in range(slices)]
        entered = [part.__enter__() for part in parts]
        try:
            costs = list(hands.map(lambda part: _play(bench, part, forks), entered))
        finally:
            for part in parts:
                part.__exit__(None, None, None)
    return Cost(
        max(cost.wall for cost in costs),
        sum(cost.node for cost in costs),
        sum(cost.hosts for cost in costs),
        max(cost.memory for cost in costs),
    )


def _by_ssh(bench: Bench) -> list[Row]:
    """Whole machines, an ordinary user who becomes root, ssh's connections made anew for each run."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, Network() as network:
        machines = [Machine(role="fleet-postfix", name=f"ssh-{number}", network=network) for number in range(MACHINES)]
        begun: list[Machine] = []
        try:
            for machine in machines:
                machine.begin_host()
                begun.append(machine)
            for machine in machines:
                machine.wait_until_booted()
                machine.write(_COUNTING, _COUNTER, 0o755)
            control = ControlNode(Path(folder, "control"), network, machines)
            try:
                return [_ssh_row(bench, control, machines, pipelining) for pipelining in (True, False)]
            finally:
                control.close()
        finally:
            for machine in begun:
                machine.kill()


def _ssh_row(bench: Bench, control: ControlNode, machines: Sequence[Machine], pipelining: bool) -> Row:
    costs = {}
    for size in (1, len(machines)):
        some = list(machines[:size])
        part = Fleet("ssh", size)
        part.hosts = list(some)
        part.inventory.write_text("".join(machine.inventory_line() + "\n" for machine in some))
        try:
            for _run in range(2):  # the first one makes them as they should be
                control.close()
                for machine in some:
                    machine.write(_COUNTED, "", 0o666)
                costs[size] = _ssh_play(bench, control, part, pipelining)
        finally:
            part.hosts = []
            part.__exit__()
    return Row(f"by ssh, {'with' if pipelining else 'without'} pipelining", costs)


def _ssh_play(bench: Bench, control: ControlNode, fleet: Fleet, pipelining: bool) -> Cost:
    settings = {**control.driven.environment, "ANSIBLE_PIPELINING": str(pipelining), "ANSIBLE_FORKS": "25"}
    arguments = ("--become", "--extra-vars", f"ansible_python_interpreter={_COUNTING}")
    with _watched() as seen:
        sample = bench.play("smtp_service", fleet, arguments, None, settings, control.network.net_command)
    hosts = sum(_seconds(host.read(_COUNTED).decode()) for host in fleet.hosts)
    return Cost(sample.wall, sample.cpu, hosts, max(seen, default=0))


def _seconds(counted: str) -> float:
    """Of processors, by what the shell's `times` printed again and again."""
    found = 0.0
    for span in counted.split():
        minutes, seconds = span.rstrip("s").split("m")
        found += int(minutes) * 60 + float(seconds)
    return found


@contextmanager
def _watched() -> Iterator[list[int]]:
    """The memory that all processes of ansible-playbook below this one use together, looked at now and then."""
    seen: list[int] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(LOOK):
            seen.append(sum(map(_memory, _descendants(os.getpid()))))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()


def _descendants(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,comm="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()]
    found, wanted = {pid}, []
    for _depth in range(8):
        found |= {int(row[0]) for row in rows if int(row[1]) in found}
    for row in rows:
        if int(row[0]) in found and row[2].startswith("ansible-playboo"):
            wanted.append(int(row[0]))
    return wanted


def _memory(pid: int) -> int:
    """Bytes, those that several processes share in equal parts; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def told(rows: Sequence[Row]) -> str:
    """The figures as text."""
    lines = [
        "a fleet that is as it should be, smtp_service: seconds by the clock / of the control node's processors /",
        "of all hosts' processors; the control node's memory at its peak",
    ]
    for row in rows:
        for size, cost in row.costs.items():
            lines.append(
                f"  {row.what:32} {size:4} hosts  {cost.wall:6.1f} / {cost.node:6.2f} / {cost.hosts:6.2f}"
                f"   {cost.memory / 1e6:5.0f} MB"
            )
        if len(row.costs) > 1:
            node, host = row.per_host
            lines.append(
                f"  {'':32} one more: {node * 1000:.0f} ms on the control node, {host * 1000:.0f} ms on the host"
            )
    return "\n".join(lines)
