# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Our place in a file that is somebody else's: a marked block per service, and their lines muted, never lost.

Taking the block out and unmuting gives back the file byte for byte, with every edit made elsewhere in it meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Callable

MUTED = "#fleetmail.smtp# "
_BEGIN = re.compile(r"^# BEGIN fleetmail\.smtp ([A-Za-z0-9_.-]+)( \(joined\))?\n", re.M)


def _end(name: str) -> str:
    return f"# END fleetmail.smtp {name}\n"


def _span(text: str, name: str) -> tuple[int, int, int, int] | None:
    """Begin of the block, begin and end of its inside, end of the block."""
    for found in _BEGIN.finditer(text):
        if found.group(1) == name:
            stop = text.find(_end(name), found.end())
            if stop >= 0:
                # the newline that `put` had to add before the block belongs to the block
                return found.start() - bool(found.group(2)), found.end(), stop, stop + len(_end(name))
    return None


def names(text: str) -> list[str]:
    """The services that have a block in the text, in order."""
    return [found.group(1) for found in _BEGIN.finditer(text) if _end(found.group(1)) in text[found.end() :]]


def get(text: str, name: str) -> str | None:
    """The lines inside the service's block; None when it has none."""
    span = _span(text, name)
    return None if span is None else text[span[1] : span[2]]


def drop(text: str, name: str) -> str:
    """The text without the service's block."""
    span = _span(text, name)
    return text if span is None else text[: span[0]] + text[span[3] :]


def put(text: str, name: str, inside: str, first: bool = False) -> str:
    """The text with the service's block holding ``inside`` (whole lines): where it was, else first or last."""
    span = _span(text, name)
    if span is not None:
        return text[: span[1]] + inside + text[span[2] :]
    if first:
        return f"# BEGIN fleetmail.smtp {name}\n{inside}{_end(name)}" + text
    joined = bool(text) and not text.endswith("\n")
    begin = "\n# BEGIN fleetmail.smtp {} (joined)\n" if joined else "# BEGIN fleetmail.smtp {}\n"
    return text + begin.format(name) + inside + _end(name)


def outside(text: str) -> str:
    """The text without any block of ours."""
    for name in names(text):
        text = drop(text, name)
    return text


def mute(lines: Sequence[str]) -> list[str]:
    """The lines as comments that ``unmute`` finds again."""
    return [MUTED + line for line in lines]


def unmute(text: str, wanted: Callable[[str], bool]) -> str:
    """Give muted lines back: each run of them whose first line ``wanted`` says yes to."""
    out: list[str] = []
    giving = False
    for line in text.splitlines(keepends=True):
        if line.startswith(MUTED):
            original = line[len(MUTED) :]
            # a continuation line, or a comment between such lines, shares the fate of the line before
            if not (original[:1].isspace() or original.startswith("#")):
                giving = wanted(original)
            out.append(original if giving else line)
        else:
            out.append(line)
    return "".join(out)
