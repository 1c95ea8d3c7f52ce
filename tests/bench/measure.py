# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""One run of ansible-playbook: how long it took, how much of the processors, and whether it did what it should."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lab.tree import RELAY_NAME

from bench.fleet import PASSWORD, USER, Disagreement, Fleet
from bench.peers import Ground

HERE = Path(__file__).parent
VARIABLES = {"relay_host": RELAY_NAME, "relay_port": 587, "relay_user": USER, "relay_password": PASSWORD}
_RECAP = re.compile(r"^(\S+) +: ok=(\d+) +changed=(\d+) +unreachable=(\d+) +failed=(\d+)", re.M)


class Sample(NamedTuple):
    """Seconds of the clock, and seconds of processors (the controller and all that it started, on hosts too)."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Bench:
    """What all contenders have in common."""

    ground: Ground
    forks: int
    folder: Path

    def play(
        self,
        play: str,
        fleet: Fleet,
        arguments: tuple[str, ...] = (),
        changes: bool | None = None,
        settings: Mapping[str, str] | None = None,
        inside: Callable[[list[str]], list[str]] | None = None,
    ) -> Sample:
        """Run a play of the folder plays on a fleet.

        changes: whether each host must report a change (True), none may (False), or it does not matter (None).
        settings: more of Ansible's environment variables. inside: makes the command one that runs in a network.
        Raises Disagreement with what Ansible said when a host failed or that is not so.
        """
        # not as arguments: they would stand in the process list
        variables = self.folder / "variables.json"
        variables.write_text(json.dumps({**VARIABLES, "bench_folder": str(self.folder)}))
        common = ["--inventory", str(fleet.inventory), "--extra-vars", f"@{variables}"]
        command = [self.ground.playbook, *common, *arguments, str(HERE / "plays" / f"{play}.yml")]
        sample, code, output = timed(inside(command) if inside else command, self._environment(settings or {}))
        problem = _problem(output, 1 if "--limit" in arguments else fleet.size, changes)
        if code or problem:
            raise Disagreement(f"{play} {' '.join(arguments)} at {fleet.size}: {problem or code}\n{output[-3000:]}")
        return sample

    def _environment(self, settings: Mapping[str, str]) -> dict[str, str]:
        """The machine's environment with our settings of Ansible and none of the user's."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        ours = {
            "PATH": f"{self.ground.environment}/bin:{os.environ['PATH']}",
            "ANSIBLE_CONFIG": str(self._nothing("ansible.cfg")),
            "ANSIBLE_HOME": str(self.folder / "ansible"),
            "ANSIBLE_COLLECTIONS_PATH": os.pathsep.join(map(str, self.ground.collections)),
            "ANSIBLE_CONNECTION_PLUGINS": str(HERE.parent / "lab/plugins/connection"),
            "ANSIBLE_FORKS": str(self.forks),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_DEPRECATION_WARNINGS": "0",
        }
        return {**kept, **ours, **settings}

    def _nothing(self, name: str) -> Path:
        """An empty file: without one Ansible looks for the user's."""
        path = self.folder / name
        path.touch()
        return path


def timed(command: list[str], environment: Mapping[str, str]) -> tuple[Sample, int, str]:
    """Run a command; gives its sample, exit code and output."""
    with tempfile.TemporaryFile() as output:
        began = time.monotonic()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        _pid, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        said = output.read().decode(errors="replace")
    return Sample(wall, used.ru_utime + used.ru_stime), process.returncode, said


def _problem(output: str, size: int, changes: bool | None) -> str:
    """What is wrong by the recap, empty when nothing is."""
    rows = _RECAP.findall(output)
    if len(rows) != size:
        return f"{len(rows)} of {size} hosts in the recap"
    for host, _ok, changed, unreachable, failed in rows:
        if int(unreachable) or int(failed):
            return f"{host} failed"
        if changes is not None and bool(int(changed)) != changes:
            return f"{host} has changed={changed}"
    return ""
