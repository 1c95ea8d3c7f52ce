# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the demo shows: plain text, in colours on a terminal only."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable

BOLD, DIM, RED, GREEN, YELLOW, CYAN = "1", "2", "31", "32", "33", "36"
_BY_START = (
    (re.compile(r"(ok|skipping): "), GREEN),
    (re.compile(r"changed: "), YELLOW),
    (re.compile(r"(fatal|failed|unreachable): "), RED),
    (re.compile(r"-"), RED),
    (re.compile(r"\+"), GREEN),
    (re.compile(r"TASK "), BOLD),
)


def coloured() -> bool:
    """Whether standard output is a terminal that may be coloured (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str) -> str:
    return f"\033[{colour}m{text}\033[0m" if text and coloured() else text


said: list[str] = []


def say(text: str = "", colour: str = "") -> None:
    """Print a line at once, and remember it in ``said``."""
    said.append(text)
    print(paint(text, colour) if colour else text, flush=True)


def heading(number: int, text: str) -> None:
    say()
    say(f"{number}. {text}", BOLD)


def command(text: str) -> None:
    say(f"   $ {text}", CYAN)


def block(lines: Iterable[str]) -> None:
    """Print lines of a program or file, each in the colour of what it begins with."""
    for line in lines:
        colour = next((colour for start, colour in _BY_START if start.match(line)), "")
        say("   " + paint(line, colour))


def lesson(*lines: str) -> None:
    """Print what a step has shown."""
    for mark, line in zip(("=>", *["  "] * len(lines)), lines, strict=False):
        say(f"{mark} {line}", GREEN)
