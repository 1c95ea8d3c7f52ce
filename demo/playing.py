# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running ansible-playbook: what it said, trimmed, and what each host's result was."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT = 90  # seconds for one run, which takes two or three
PATIENCE = 5  # seconds for Ansible to end when told to
MODULE = "fleetmail.smtp.smtp_service"
_STATUS = re.compile(r"(ok|changed|fatal|failed|skipping|unreachable): \[([^\]]+)\]")
_KEY = re.compile(r" {2,4}(\w+):")
_TOLD = ("msg", "rolled_back")


@dataclass(frozen=True)
class Play:
    """One run: its exit code, its words, on which hosts anything changed or failed, and what smtp_service gave."""

    code: int
    output: str
    results: dict[str, dict[str, Any]]
    changed: set[str]
    failed: set[str]


class Ansible:
    """ansible-playbook with the demo's configuration and nothing of the user's own."""

    def __init__(self, home: Path, work: Path, collections: Path) -> None:
        self._home = home
        self._record = work / "record.jsonl"
        mine = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PYTHON"))}
        self._environment = mine | {
            "ANSIBLE_CONFIG": str(home / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(collections),
            "ANSIBLE_REMOTE_TEMP": str(work / "ansible/tmp"),
            "ANSIBLE_NOCOLOR": "1",
            "DEMO_RECORD": str(self._record),
            "LC_ALL": "C.UTF-8",  # Ansible wants UTF-8, whatever the machine has
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(work / "tmp"),
        }

    def play(self, password: str, *arguments: str) -> Play:
        """Run site.yml, and what the arguments name beside it.

        The password goes by the environment, as a command line can be read by everybody.
        """
        self._record.write_text("")
        # not the script ansible-playbook: its first line may be too long a path for the kernel
        command = [sys.executable, "-m", "ansible", "playbook", "site.yml", *arguments]
        code, output = run(command, self._home, self._environment | {"RELAY_PASSWORD": password})
        entries = [json.loads(line) for line in self._record.read_text().splitlines()]
        return Play(
            code,
            output,
            results={entry["host"]: entry["result"] for entry in entries if entry["action"] == MODULE},
            changed={entry["host"] for entry in entries if entry["result"].get("changed")},
            failed={entry["host"] for entry in entries if entry["failed"]},
        )


def run(command: list[str], folder: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    """Run a command to its end and give its exit code and output.

    It is in a session of its own: Ctrl-C reaches us alone, and we end it in a way that lets it end its workers.
    Raises TimeoutExpired.
    """
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            output = process.communicate(timeout=LIMIT)[0]
        finally:
            if process.poll() is None:
                _end(process)
    return process.returncode, output.decode(errors="replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def trim(output: str, order: tuple[str, ...]) -> list[str]:
    """What matters of Ansible's output: tasks that did something and each play's last, host by host in this order."""
    shown = []
    for play in re.split(r"(?m)^(?=PLAY \[)", output):
        *tasks, last = re.split(r"(?m)^(?=TASK \[)", play.partition("\nPLAY RECAP")[0])[1:] or [""]
        for task in (*tasks, last):
            head, *body = task.split("\n")
            hosts = dict(_hosts(body))
            if hosts and (task is last or any(not lines[-1].startswith("ok") for lines in hosts.values())):
                shown += [head.rstrip(" *"), *(line for host in order for line in hosts.get(host, ()))]
    return shown


def _hosts(body: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Take a task's output apart: what is said of each host, without what is said around it."""
    host = state = ""
    lines: list[str] = []
    before: list[str] = []  # a host's difference comes before its status
    for line in body:
        status = _STATUS.match(line)
        if status:
            if host:
                yield host, lines
            host, lines = status[2], [*before, line.removesuffix(" ").removesuffix(" =>")]
            before, state = [], "result"
        elif line.startswith("--- "):
            before, state = [line], "difference"
        elif state == "difference" and line:
            before += [] if line.startswith("@@") else [line]
        elif line.startswith(" ") and state in ("result", "told"):
            key = _KEY.match(line)
            if key and not line.startswith("     "):
                state = "told" if key[1] in _TOLD else "result"
            lines += [line] if state == "told" else []
        else:
            state = ""
    if host:
        yield host, lines
