# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real ansible-playbook against hosts of the lab, with all that it writes in one folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from .space import Space

PLUGINS = Path(__file__).parent / "plugins"
LOCAL = f"here ansible_connection=local ansible_python_interpreter={sys.executable}"
Task = Mapping[str, Any]


class Host(Protocol):
    """What an inventory can have: its line says how it is reached (lab, ssh, local)."""

    def inventory_line(self) -> str: ...


class Result(NamedTuple):
    """What one task gave on one host."""

    host: str
    task: str
    status: str
    result: dict[str, Any]


class Played(NamedTuple):
    """A play that ended: exit code, what ansible-playbook printed, and the results in order."""

    code: int
    out: str
    err: str
    results: list[Result]

    def of(self, task: str, host: str = "") -> dict[str, Any]:
        """The result of a task (on a host). Raises AssertionError with the play's output when there is none."""
        for one in self.results:
            if one.task == task and host in ("", one.host):
                return one.result
        raise AssertionError(f"no result of {task!r}:\n{self.out}\n{self.err}")


def good(played: Played) -> Played:
    """The play, which went well. Raises AssertionError with its output."""
    assert played.code == 0, played.out + played.err
    return played


def play(
    folder: Path,
    tasks: Sequence[Task],
    hosts: Sequence[Host] = (),
    variables: Mapping[str, Any] | None = None,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    ansible: Path = Path(sys.executable).parents[1],
    timeout: float = 300,
    book: str = "",
    network: Space | None = None,
) -> Played:
    """Run the tasks on the hosts (none: on this machine, connection local); ``book``: a playbook's name instead.

    network: what ansible-playbook reaches hosts through, this machine's own unless told.

    variables come from a file that is only in folder/input; everything that Ansible writes is in folder/output.
    ansible: the virtual environment whose ansible-playbook runs.
    """
    command, settings = prepared(folder, tasks, hosts, variables, arguments, ansible, book)
    reaching = network.net_command(command) if network else command
    return carried_out(folder, reaching, {**settings, **(environment or {})}, timeout)


def carried_out(folder: Path, command: Sequence[str], environment: Mapping[str, str], timeout: float) -> Played:
    """Run what was prepared in the folder; gives what the journal tells of it, whichever program it is."""
    done = subprocess.run(
        command,
        cwd=folder / "input",
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout,
        check=False,
    )
    results = folder / "output/results.jsonl"
    lines = results.read_text().splitlines() if results.exists() else []
    texts = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
    return Played(done.returncode, *texts, [Result(**json.loads(line)) for line in lines])


def prepared(
    folder: Path,
    tasks: Sequence[Task],
    hosts: Sequence[Host] = (),
    variables: Mapping[str, Any] | None = None,
    arguments: Sequence[str] = (),
    ansible: Path = Path(sys.executable).parents[1],
    book: str = "",
) -> tuple[list[str], dict[str, str]]:
    """Write what ``play`` runs; gives the command, to be run in folder/input, and its environment."""
    given, output = folder / "input", folder / "output"
    for one in (given, output):
        one.mkdir(parents=True, exist_ok=True)
    plays = [{"hosts": "all", "gather_facts": False, "tasks": list(tasks)}]
    (given / "ansible.cfg").write_text("")  # found first, because it is where ansible-playbook is started
    (given / "play.yml").write_text(json.dumps(plays, indent=1))
    (given / "hosts").write_text("\n".join(host.inventory_line() for host in hosts) or LOCAL)
    (given / "variables.json").write_text(json.dumps(dict(variables or {})))
    results = output / "results.jsonl"
    results.unlink(missing_ok=True)
    inventory = ["-i", str(given / "hosts"), "-e", f"@{given}/variables.json"]
    command = [str(ansible / "bin/ansible-playbook"), *inventory, *arguments, book or str(given / "play.yml")]
    return command, {**os.environ, **_settings(output, results)}


def _settings(output: Path, results: Path) -> dict[str, str]:
    """Ansible's settings: nothing of the person's who runs the tests, and every file where it can be looked at."""
    return {
        "ANSIBLE_HOME": str(output / "home"),
        "ANSIBLE_LOCAL_TEMP": str(output / "temporary"),
        "ANSIBLE_LOG_PATH": str(output / "ansible.log"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_DEPRECATION_WARNINGS": "0",
        "ANSIBLE_RETRY_FILES_ENABLED": "1",
        "ANSIBLE_RETRY_FILES_SAVE_PATH": str(output / "retry"),
        "ANSIBLE_CACHE_PLUGIN": "jsonfile",
        "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(output / "facts"),
        "ANSIBLE_CONNECTION_PLUGINS": str(PLUGINS / "connection"),
        "ANSIBLE_CALLBACK_PLUGINS": str(PLUGINS / "callback"),
        "ANSIBLE_CALLBACKS_ENABLED": "journal",
        "LAB_JOURNAL": str(results),
    }
