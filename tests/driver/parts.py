# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The parts of the test command: run each, time it, and sum up."""

from __future__ import annotations

import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO


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
        """The make targets that run it; the long crash matrix has its own only."""
        return (self.group,) if self.group == "crash" else (self.group, "test")


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
    """A part under way."""

    def __init__(self, part: Part, environment: dict[str, str]) -> None:
        self._part = part
        self._output: IO[bytes] | None = tempfile.TemporaryFile() if part.background else None  # noqa: SIM115 (read in finish)
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            part.command,
            cwd=part.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT if self._output else None,
        )

    def finish(self) -> Result:
        code = self._process.wait()
        if self._output:
            self._output.seek(0)
            print(self._output.read().decode(errors="replace"), flush=True)
        return Result(self._part.name, code, time.monotonic() - self._began)


def run(parts: list[Part], environment: dict[str, str]) -> int:
    """Run all parts, whatever fails, and print a summary; return the exit code."""
    background = {part.name: _Running(part, environment) for part in parts if part.background and len(parts) > 1}
    results = []
    for part in parts:
        print(f"\n== {part.name}", flush=True)
        result = (background.get(part.name) or _Running(part, environment)).finish()
        print(f"-- {part.name}: {result.verdict} in {result.seconds:.1f} s", flush=True)
        results.append(result)
    return _sum_up(results)


def _sum_up(results: list[Result]) -> int:
    print("\n== summary")
    for result in results:
        print(f"{result.name:<24} {result.verdict:<8} {result.seconds:7.1f} s")
    failed = sum(1 for result in results if result.code)
    print(f"parts: {len(results) - failed} passed, {failed} failed")
    return 1 if failed else 0
