# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A program beside a person: at a terminal, or as a job without one."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

LONGEST = 240  # seconds of silence and talk together


def watch(
    command: Sequence[str | Path],
    folder: Path,
    environment: Mapping[str, str],
    act: Callable[[str], str | None],
    terminal: bool = True,
) -> tuple[int, str]:
    """Run the program; ``act`` sees all that was shown so far, and may say something. Gives exit code and output.

    terminal: the program can ask, as a prompt does. Without one its standard input is empty.
    """
    ours, theirs = pty.openpty()
    stdin = theirs if terminal else subprocess.DEVNULL
    own_terminal = ["setsid", "--ctty", "--wait"] if terminal else []  # a prompt asks for a controlling one
    with subprocess.Popen(
        [*own_terminal, *command], cwd=folder, env=dict(environment), stdin=stdin, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = _talk(ours, act)
        os.close(ours)
        return process.wait(60), shown


def _talk(ours: int, act: Callable[[str], str | None]) -> str:
    shown, end = "", time.monotonic() + LONGEST
    while time.monotonic() < end:
        if not select.select([ours], [], [], 1)[0]:
            continue
        try:
            shown += os.read(ours, 65536).decode(errors="replace").replace("\r\n", "\n")
        except OSError:  # the last writer is gone
            break
        answer = act(shown)
        if answer is not None:
            os.write(ours, answer.encode() + b"\r")
    return shown
