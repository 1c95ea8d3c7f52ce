# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The formats of Debian's Exim files, as text: shell assignments, macros, credentials, template, generated file.

Nothing here touches a host. Sources: update-exim4.conf(8), exim4-config_files(5), Exim's specification 6.4 (macros) and
9.3 (lsearch).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Callable, NamedTuple

from .. import marks

CREATED = "# this file was not here before: it goes with this block\n"
_ASSIGNMENT = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_]\w*)=")
_DEFINITION = re.compile(r"[ \t]*([A-Za-z]\w*)[ \t]*(==?)[ \t]*(.*)", re.S)
_NAME = re.compile(r"^remote_smtp_smarthost:[ \t]*\n", re.M)
_DRIVER = re.compile(r"^[ \t]*driver[ \t]*=[ \t]*smtp[ \t]*\n", re.M)
_NEXT_DRIVER = re.compile(r"^(?:\w+:|begin[ \t]+\w+)[ \t]*$", re.M)
_DEBCONF_MACROS = re.compile(r"^#+\n# the following macro definitions were created\n.*?^#{20,}\n", re.M | re.S)
_KEY_AND_DATA = re.compile(r'(?:"((?:[^"\\]|\\.)*)"|([^: \t\r\f\v]*))[ \t\r\f\v]*:?(.*)', re.S)
_SHELL_VALUE = re.compile(r"'([^']*)'|\"([^\"]*)\"|([^\s;#]*)")
_ROUTE = re.compile(r"\*\s+(\[[^\]\s]*\]|[^:\s]+)(?:::(\d+))?\s+byname")


class Entry(NamedTuple):
    """One setting: its first line, the line after its last one, its name and its value."""

    start: int
    stop: int
    key: str
    value: str
    redefines: bool = False


class Format(NamedTuple):
    """How a kind of file sets something, and whether our block stands first or last in it."""

    entries: Callable[[str], Iterator[Entry]]
    line: Callable[[str, str], str]
    first: bool


# -- update-exim4.conf.conf: sourced by a shell ----------------------------------------------------------------------


def shell_entries(text: str) -> Iterator[Entry]:
    """The assignments that stand at the beginning of a line; a quoted value may go on over more lines."""
    lines = marks.lines(text)
    number = 0
    while number < len(lines):
        found = _ASSIGNMENT.match(lines[number])
        stop = number + 1
        if found:
            value = lines[number][found.end() :]
            stop += _lines_in_quotes(value, lines[stop:])
            given = _SHELL_VALUE.match(value + "".join(lines[number + 1 : stop]))
            yield Entry(number, stop, found.group(1), next((one for one in given.groups() if one), "") if given else "")
        number = stop


def _lines_in_quotes(value: str, following: Sequence[str]) -> int:
    quote = value[:1]
    if quote not in ("'", '"') or quote in value[1:]:
        return 0
    return next((number for number, line in enumerate(following, 1) if quote in line), 0)


def shell_values(text: str) -> dict[str, str]:
    """What a shell that sources the text ends up with, for plain assignments: the last one wins."""
    return {entry.key: entry.value for entry in shell_entries(text)}


# -- localmacros: the first lines of Exim's configuration ------------------------------------------------------------


def macro_entries(text: str) -> Iterator[Entry]:
    """The macro definitions and main options; a backslash at a line's end continues it."""
    lines = marks.lines(text)
    number = 0
    while number < len(lines):
        stop = number + 1
        while stop < len(lines) and _goes_on(lines[number:stop]):
            stop += 1
        found = _DEFINITION.fullmatch(_joined(lines[number:stop]))
        if found:
            yield Entry(number, stop, found.group(1), found.group(3), found.group(2) == "==")
        number = stop


def _goes_on(lines: Sequence[str]) -> bool:
    """Does the next line belong to these? Comments in between do not count (Exim's specification 6.2)."""
    last = next((line for line in lines[::-1] if line is lines[0] or not line.lstrip().startswith("#")), "")
    return last.rstrip().endswith("\\") and not lines[0].lstrip().startswith("#")


def _joined(lines: Sequence[str]) -> str:
    """One logical line: without the backslashes that join it, and the white space after them."""
    rest = [line.strip() for line in lines[1:] if not line.lstrip().startswith("#")]
    parts = [lines[0].rstrip(), *rest]
    return "".join([part[:-1] for part in parts[:-1]] + parts[-1:])


def macro_values(text: str) -> dict[str, str]:
    """What the definitions come to: the first one counts, unless a later one redefines it with ``==``."""
    values: dict[str, str] = {}
    for entry in macro_entries(text):
        if entry.redefines or entry.key not in values:
            values[entry.key] = entry.value
    return values


SHELL = Format(shell_entries, lambda key, value: f"{key}='{value}'\n", first=False)  # the last assignment wins
MACROS = Format(macro_entries, lambda key, value: f"{key} = {value}".rstrip() + "\n", first=True)


def rewrite(text: str, name: str, wanted: Mapping[str, str], how: Format, note: str = "") -> str:
    """The file with our block setting exactly ``wanted`` (empty: no block).

    A line elsewhere that sets one of them is muted when it was there before us, and dropped when it came after: then it
    is a change by hand. Muted lines come back when we no longer set what they set.
    """
    ours = {entry.key for entry in how.entries(marks.get(text, name) or "")}
    inside = note + "".join(how.line(key, value) for key, value in wanted.items())
    text = marks.put(text, name, inside, how.first) if wanted else marks.drop(text, name)
    lines = _given_back(marks.lines(text), ours - set(wanted), how)
    for start, stop in _outside(lines)[::-1]:
        for entry in list(how.entries("".join(lines[start:stop])))[::-1]:
            if entry.key in wanted:
                rival = slice(start + entry.start, start + entry.stop)
                lines[rival] = [] if entry.key in ours else marks.mute(lines[rival])
    return "".join(lines)


def _given_back(lines: list[str], keys: set[str], how: Format) -> list[str]:
    """The lines with those unmuted that set one of these."""
    given: list[str] = []
    for muted, group in groupby(lines, lambda line: line.startswith(marks.MUTED)):
        run = list(group)
        if muted:
            original = [line[len(marks.MUTED) :] for line in run]
            for entry in how.entries("".join(original)):
                if entry.key in keys:
                    run[entry.start : entry.stop] = original[entry.start : entry.stop]
        given += run
    return given


def _outside(lines: Sequence[str]) -> list[tuple[int, int]]:
    """The ranges of lines before, between and after our blocks."""
    edges = [edge for block in marks.ranges("".join(lines)) for edge in block]
    return list(zip([0, *edges[1::2]], [*edges[::2], len(lines)]))


# -- passwd.client ---------------------------------------------------------------------------------------------------


def credential_line(key: str, username: str, password: str) -> str:
    """A line that gives the user name and password for a host (exim4_passwd_client(5))."""
    return "{}:{}:{}\n".format(f'"{key}"' if ":" in key else key, username, password)


def credential_entries(text: str) -> Iterator[tuple[str, str, str]]:
    """Key, user name and password of each line, as an lsearch takes it apart."""
    rows: list[str] = []
    for line in text.split("\n"):
        if line[:1] and line[0] in marks.BLANK and rows:
            rows[-1] += line  # a continuation
        elif line.strip(marks.BLANK) and not line.startswith("#"):
            rows.append(line)
    for row in rows:
        quoted, plain, data = _KEY_AND_DATA.findall(row)[0]
        username, _rest, password = data.strip(marks.BLANK).partition(":")
        yield (quoted or plain).lower(), username, password


def credentials(text: str, host: str) -> tuple[str, str] | None:
    """User name and password for a host: those of the first line that matches it, as in an nwildlsearch."""
    for key, username, password in credential_entries(text):
        if _key_matches(key, host.lower()):
            return username, password
    return None


def _key_matches(key: str, host: str) -> bool:
    if key.startswith("^"):
        try:
            return re.search(key, host) is not None
        except re.error:
            return False
    return host.endswith(key[1:]) if key.startswith("*") else key == host


def put_credentials(text: str, name: str, line: str, note: str = "") -> str:
    """The file with our line in a block before every other line: the first match wins."""
    before = text.split("# BEGIN fleetmail.smtp ")[0]
    if any(row.strip() and not row.startswith("#") for row in before.split("\n")):
        text = marks.drop(text, name)
    return marks.put(text, name, note + line, first=True)


# -- the transport to the relay --------------------------------------------------------------------------------------


def sets(text: str, option: str) -> bool:
    """Does a driver's text set the option?"""
    return re.search(rf"^[ \t]*{option}[ \t]*=", text, re.M) is not None


def smarthost_transport(template: str) -> tuple[int, int] | None:
    """Where in the template the transport's options go, and where it ends; None when it is not there."""
    name = _NAME.search(template)
    if name is None:
        return None
    following = _NEXT_DRIVER.search(template, name.end())
    end = following.start() if following else len(template)
    driver = _DRIVER.search(template, name.end(), end)
    return (driver.end(), end) if driver else None


def put_in_transport(template: str, name: str, options: str) -> str | None:
    """The template with our block of options right after the transport's driver; None when it has no such transport."""
    template = marks.drop(template, name)
    place = smarthost_transport(template)
    if place is None:
        return None
    # not at the transport's end: there the package's own options stand between conditions
    return marks.put(template[: place[0]], name, options) + template[place[0] :]


def smarthost(host: str, port: int) -> str:
    """dc_smarthost for one host without MX look-up: colons are doubled, for it becomes an item of a list."""
    return "{}::{}".format("[{}]".format(host.replace(":", "::")) if ":" in host else host, port)


def split_route(route: str, default_port: int) -> tuple[str, int]:
    """Host and port of the router's route_list; what is not one host by name is given as it stands."""
    found = _ROUTE.fullmatch(route)
    if found:
        host = found.group(1)
        host = host[1:-1].replace("::", ":") if host.startswith("[") else host
        return host, int(found.group(2) or default_port)
    return route, default_port


# -- the generated file ----------------------------------------------------------------------------------------------


def code(text: str) -> list[str]:
    """The lines that mean something to Exim, without the macros that update-exim4.conf adds by itself."""
    lines = (line.strip() for line in _DEBCONF_MACROS.sub("", text).split("\n"))
    return [line for line in lines if line and not line.startswith("#")]
