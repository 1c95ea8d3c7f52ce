# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The parts of the test command: run each, time it, and sum up."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

_ON_REQUEST = ("crash", "fleet")  # too long for `make test`, and a part of another one


@dataclass(frozen=True)
class Part:
    """One command of the test command. In the background it runs beside the others and is shown in its turn."""

    name: str
    command: list[str]
    folder: Path
    group: str
    background: bool = False

    @property
    def targets(self) -> tuple[str, ...]:
        """The make targets that run it."""
        return (self.group,) if self.group in _ON_REQUEST else (self.group, "test")


@dataclass(frozen=True)
class Result:
    """How a part went."""

    name: str
    code: int
    seconds: float

    @property
    def verdict(self) -> str:
        return "failed" if self.code else "passed"


class _Running:
    """A part under way, in a session of its own so that it can be stopped with all it started."""

    def __init__(self, part: Part, environment: dict[str, str], quiet: bool) -> None:
        self._part = part
        self._output = tempfile.TemporaryFile() if quiet else None  # noqa: SIM115 (closed with the process)
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            part.command,
            cwd=part.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT if quiet else None,
            start_new_session=True,
        )

    def finish(self) -> Result:
        code = self._process.wait()
        if self._output:
            self._output.seek(0)
            print(self._output.read().decode(errors="replace"), flush=True)
        return Result(self._part.name, code, time.monotonic() - self._began)

    def stop(self) -> None:
        """Interrupt it if it still runs, as Ctrl-C would, so that it cleans up."""
        if self._process.poll() is not None:
            return
        os.killpg(self._process.pid, signal.SIGINT)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)


def run(parts: list[Part], environment: dict[str, str]) -> int:
    """Run all parts, whatever fails, and print a summary; return the exit code."""
    results = []
    with ExitStack() as started:

        def start(part: Part, quiet: bool = False) -> _Running:
            running = _Running(part, environment, quiet)
            started.callback(running.stop)
            return running

        beside = {part.name: start(part, quiet=True) for part in parts if part.background and len(parts) > 1}
        for part in parts:
            print(f"\n== {part.name}", flush=True)
            results.append((beside.get(part.name) or start(part)).finish())
            print(f"-- {part.name}: {results[-1].verdict} in {results[-1].seconds:.1f} s", flush=True)
    return _sum_up(results)


def _sum_up(results: list[Result]) -> int:
    print("\n== summary")
    for result in results:
        print(f"{result.name:<24} {result.verdict:<8} {result.seconds:7.1f} s")
    failed = sum(1 for result in results if result.code)
    print(f"parts: {len(results) - failed} passed, {failed} failed")
    return 1 if failed else 0
