# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Our place in a file that is somebody else's: a marked block per service, and their lines muted, never lost.

Taking the block out and unmuting gives back the file byte for byte, with every edit made elsewhere in it meanwhile.
A line ends at a line feed and nowhere else, as it does for the software that reads the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Callable, NamedTuple

MUTED = "#fleetmail.smtp# "
BLANK = " \t\r\f\v"  # isspace(3) in the C locale, without the line feed
_BEGIN = re.compile(r"^# BEGIN fleetmail\.smtp ([A-Za-z0-9_.-]+)( \(joined\))?\n", re.M)
_END = re.compile(r"^# END fleetmail\.smtp ([A-Za-z0-9_.-]+)(?:\n|\Z)", re.M)


class _Block(NamedTuple):
    """Where a block begins, where its inside begins and ends, where it ends; was a newline added before it?"""

    name: str
    start: int
    inside: int
    stop: int
    end: int
    joined: bool


def lines(text: str) -> list[str]:
    """The lines, each with its line feed."""
    found = text.split("\n")
    return [line + "\n" for line in found[:-1]] + [line for line in found[-1:] if line]


def _blocks(text: str) -> Iterator[_Block]:
    """Every complete block. A begin without an end of its own, before the next begin, is somebody's debris."""
    begins = list(_BEGIN.finditer(text))
    limits = [begin.start() for begin in begins[1:]] + [len(text)]
    for begin, limit in zip(begins, limits):
        for end in _END.finditer(text, begin.end(), limit):
            if end.group(1) == begin.group(1):
                yield _Block(end.group(1), begin.start(), begin.end(), end.start(), end.end(), bool(begin.group(2)))
                break


def ranges(text: str) -> list[tuple[int, int]]:
    """The line numbers of every block: the first, and the one after the last."""
    return [(text.count("\n", 0, block.start), text.count("\n", 0, block.stop) + 1) for block in _blocks(text)]


def tidy(text: str) -> tuple[str, set[str]]:
    """The text without marks whose other half is gone, and the names on them."""
    blocks, torn = list(_blocks(text)), set()
    whole = {place for block in blocks for place in (block.start, block.stop)}
    for mark in sorted([*_BEGIN.finditer(text), *_END.finditer(text)], key=lambda found: -found.start()):
        if mark.start() not in whole:
            torn.add(mark.group(1))
            text = text[: mark.start()] + text[mark.end() :]
    return text, torn


def names(text: str) -> list[str]:
    """The services that have a block in the text, in order."""
    return list(dict.fromkeys(block.name for block in _blocks(text)))


def get(text: str, name: str) -> str | None:
    """The lines inside the service's block; None when it has none."""
    return next((text[block.inside : block.stop] for block in _blocks(text) if block.name == name), None)


def drop(text: str, name: str) -> str:
    """The text without the service's block."""
    for block in [block for block in _blocks(text) if block.name == name][::-1]:
        text = _without(text, block)
    return text


def _without(text: str, block: _Block) -> str:
    before, after = text[: block.start], text[block.end :]
    if not block.joined:
        return before + after
    # the newline that `put` had to add goes too, unless something else needs it by now
    follower = next((one for one in _blocks(after) if one.start == 0), None)
    if follower is not None and not follower.joined:
        return f"{before}# BEGIN fleetmail.smtp {follower.name} (joined)\n{after[follower.inside :]}"
    return before + after if after else before[:-1]


def put(text: str, name: str, inside: str, first: bool = False) -> str:
    """The text with the service's block holding ``inside`` (whole lines): where it was, else first or last."""
    found = [block for block in _blocks(text) if block.name == name]
    for block in found[:0:-1]:
        text = _without(text, block)
    if found:
        return text[: found[0].inside] + inside + text[found[0].stop :]
    end = f"# END fleetmail.smtp {name}\n"
    if first:
        return f"# BEGIN fleetmail.smtp {name}\n{inside}{end}" + text
    joined = bool(text) and not text.endswith("\n")
    begin = "\n# BEGIN fleetmail.smtp {} (joined)\n" if joined else "# BEGIN fleetmail.smtp {}\n"
    return text + begin.format(name) + inside + end


def outside(text: str) -> str:
    """The text without any block of ours."""
    for name in names(text):
        text = drop(text, name)
    return text


def mute(whole_lines: Sequence[str]) -> list[str]:
    """The lines as comments that ``unmute`` finds again."""
    return [MUTED + line for line in whole_lines]


def unmute(text: str, wanted: Callable[[str], bool]) -> str:
    """Give muted lines back: each run of them whose first line ``wanted`` says yes to."""
    if MUTED not in text:
        return text
    out: list[str] = []
    giving = within = False
    for line in lines(text):
        if line.startswith(MUTED):
            original = line[len(MUTED) :]
            # a continuation line, or a comment between such lines, shares the fate of the line before
            if not (within and original.startswith((*BLANK, "\n", "#"))):
                giving = wanted(original)
            within = True
            out.append(original if giving else line)
        else:
            within = False
            out.append(line)
    return "".join(out)
