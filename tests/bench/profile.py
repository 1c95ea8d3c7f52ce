# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the time of one compliant host goes: the modules' own files, run on a host as Ansible runs them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

from lab.tree import Tree

from bench.fleet import Fleet
from bench.measure import Bench
from bench.payload import delivered

REPEATS = 15
PLACE = "/opt/profile"
_IMPORT = re.compile(r"import time:\s+(\d+) \|\s+\d+ \| +(\S+)")
_OURS = "ansible_collections.fleetmail.smtp.plugins."

# Runs in the host: each command in turn, many times, so that what disturbs one disturbs all.
_STOPWATCH = """
import json, os, subprocess, sys, time
null = subprocess.DEVNULL
repeats, commands = json.loads(sys.argv[1])
best = [[9e9, 9e9] for _ in commands]
for _attempt in range(repeats):
    for least, command in zip(best, commands):
        began = time.perf_counter()
        process = subprocess.Popen(command, stdin=null, stdout=null, stderr=null)
        used = os.wait4(process.pid, 0)[2]
        process.returncode = 0
        least[:] = [min(least[0], time.perf_counter() - began), min(least[1], used.ru_utime + used.ru_stime)]
print(json.dumps(best))
"""

# Runs in the host: the programs that a module starts.
_WATCHER = """
import runpy, sys
def watch(event, given):
    if event == "subprocess.Popen":
        print("ran", *map(str, given[1]), file=sys.stderr)
sys.addaudithook(watch)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Imported(NamedTuple):
    """A module that was imported, and the ms that it took itself."""

    name: str
    ms: float


def told(bench: Bench) -> str:
    """The profile as text."""
    with Fleet("ours", 1) as fleet:
        host = fleet.hosts[0]
        bench.play("smtp_service", fleet)
        for name, content in delivered(bench, fleet, {"ping": "ping", "smtp_service": "smtp_service"}).items():
            host.write(f"{PLACE}/{name}.py", content, 0o600)
        return "\n".join([*_clock(host), "", *_imports(host), "", *_programs(host)])


def _clock(host: Tree) -> Iterator[str]:
    commands = {
        "python3, nothing else": ["python3", "-c", "pass"],
        "ping": ["python3", f"{PLACE}/ping.py"],
        "smtp_service, compliant": ["python3", f"{PLACE}/smtp_service.py"],
        "postconf -x": ["postconf", "-x", "relayhost"],
    }
    found = host.output(["python3", "-c", _STOPWATCH, json.dumps([REPEATS, list(commands.values())])])
    yield f"on the host, without controller and connection, the least of {REPEATS}: ms by the clock / of processors"
    for name, (wall, cpu) in zip(commands, json.loads(found), strict=True):
        yield f"  {name:24} {wall * 1000:7.1f} / {cpu * 1000:.1f}"


def _imports(host: Tree) -> Iterator[str]:
    found = {name: _imported(host, name) for name in ("ping", "smtp_service")}
    base = {one.name for one in found["ping"]}
    more = sorted((one for one in found["smtp_service"] if one.name not in base), key=lambda one: -one.ms)
    ours = sum(one.ms for one in more if one.name.startswith(_OURS))
    yield f"imports that ping has not: {len(more)} modules, {sum(one.ms for one in more):.1f} ms, ours {ours:.1f} ms"
    for one in more:
        if one.ms >= 0.3:
            yield f"  {one.ms:6.1f}  {one.name.removeprefix(_OURS)}"


def _imported(host: Tree, name: str) -> list[Imported]:
    """The least of three for each module."""
    least: dict[str, float] = {}
    for _attempt in range(3):
        said = host.run(["python3", "-X", "importtime", f"{PLACE}/{name}.py"]).stderr.decode()
        for micro, module in _IMPORT.findall(said):
            least[module] = min(least.get(module, 9e9), int(micro) / 1000)
    return [Imported(module, ms) for module, ms in least.items()]


def _programs(host: Tree) -> Iterator[str]:
    said = host.run(["python3", "-c", _WATCHER, f"{PLACE}/smtp_service.py"]).stderr.decode()
    ran = [line for line in said.splitlines() if line.startswith("ran ")]
    yield f"programs that smtp_service ran: {len(ran)}"
    for line in ran:
        yield f"  {line[4:160]}"
