# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The syntax of Postfix' main.cf and master.cf (postconf(5), master(5)), and our place in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from .. import marks

if TYPE_CHECKING:
    from ..service import Service

FILES = "/etc/postfix/fleetmail-"  # what our lookup tables' names begin with
CONFIG = ".msmtprc"  # the end of the name of msmtp's configuration for an agent that is a pipe
WRAPPER = "/usr/local/lib/fleetmail/postfix-msmtp"  # what such an agent runs
CONF = "/etc/sasl-xoauth2.conf"  # of the SASL plugin
OURS = "fleetmail-"  # what our delivery agents' names begin with
SHARED = "-shared"  # the block of what all services share; no service can have that name
_PARAMETER = re.compile(r"\s*([A-Za-z0-9_.-]+)\s*=", re.ASCII)  # a dot or hyphen: of a transport's name
_BLANK = marks.BLANK + "\n"
_BRACED = r"\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}"
_OPTION = re.compile(rf"-o\s*(?:{_BRACED}|(\S+))", re.ASCII)
_HOP = re.compile(r"(\[[\w.:-]+\]|[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+)(:\w+)?", re.ASCII)
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class Entry(NamedTuple):
    """A logical line: its first physical line, the one after its last, and its text without comments."""

    start: int
    stop: int
    text: str

    @property
    def setting(self) -> tuple[str, str]:
        """The parameter that it sets and its value; empty when it sets none."""
        name = parameter(self.text)
        return name, words(self.text.split("=", 1)[1]) if name else ""


def entries(text: str) -> Iterator[Entry]:
    """The logical lines: a line that begins with white space continues the one before (postconf(5))."""
    found: Entry | None = None
    for number, line in enumerate(marks.lines(text)):
        if line.lstrip(_BLANK)[:1] in ("", "#"):
            continue
        if line[0] in _BLANK and found is not None:
            found = Entry(found.start, number + 1, found.text + line)
            continue
        if found is not None:
            yield found
        found = Entry(number, number + 1, line)
    if found is not None:
        yield found


def parameter(text: str) -> str:
    """The name that a line of main.cf sets, empty when it sets none."""
    found = _PARAMETER.match(text)
    return found.group(1) if found else ""


def main_cf_values(text: str) -> dict[str, str]:
    """What main.cf sets, the last one wins, nothing expanded: for a tree where Postfix itself is not there."""
    return {name: value for name, value in (entry.setting for entry in entries(text)) if name}


def words(text: str) -> str:
    """A value as Postfix takes it: without white space at its ends, and on one line."""
    return re.sub(r"\s*\n\s*", " ", text.strip(_BLANK), flags=re.ASCII)


def rewrite_main_cf(text: str, block: str, wanted: Mapping[str, str]) -> str:
    """main.cf with our block holding exactly ``wanted`` (empty: no block).

    Lines elsewhere that set one of them are muted, and come back when we no longer set their parameter. What is left of
    a torn block of ours goes, and so does a line that is muted already.
    """
    torn = block in marks.tidy(text)[1]
    text = tidy(text)
    ours = set(main_cf_values(marks.get(text, block) or ""))
    inside = "".join(f"{name} = {value}\n".replace(" \n", "\n") for name, value in wanted.items())
    text = marks.put(text, block, inside) if wanted else marks.drop(text, block)
    set_elsewhere = {name for other in marks.names(text) for name in main_cf_values(marks.get(text, other) or "")}
    text = marks.unmute(text, lambda line: parameter(line) in ours and parameter(line) not in set_elsewhere)
    lines = marks.lines(text)
    protected = marks.ranges(text)
    for entry in list(entries(text))[::-1]:
        name, value = entry.setting
        if name in wanted and not any(low <= entry.start < high for low, high in protected):
            muted = marks.mute(lines[entry.start : entry.stop])
            again = "".join(muted).rstrip("\n") + "\n" in text
            gone = again or FILES in value or (torn and value == wanted[name])
            lines[entry.start : entry.stop] = [] if gone else muted
    return "".join(lines)


def tidy(text: str) -> str:
    """main.cf without torn marks of ours, and without lines after a block that would continue its last parameter."""
    text, _torn = marks.tidy(text)
    lines = marks.lines(text)
    for _low, high in marks.ranges(text)[::-1]:
        for number in range(high, len(lines)):
            if lines[number].lstrip(_BLANK)[:1] not in ("", "#"):
                if lines[number][0] not in _BLANK:
                    break
                lines[number] = ""  # nobody can have meant that
    return "".join(lines)


class Transport(NamedTuple):
    """A delivery agent of master.cf: its name, two columns, ``-o`` settings and command, on one line."""

    name: str
    chroot: str
    maxproc: str
    settings: dict[str, str]
    command: str


def transports(text: str, kind: str = "unix") -> Iterator[Transport]:
    """The services of master.cf that are of one kind: ``unix``, or ``inet`` for those that listen."""
    for entry in entries(text):
        columns = entry.text.split(None, 7)
        if len(columns) == 8 and columns[1] == kind:
            yield Transport(
                columns[0], columns[4], columns[6], dict(_settings(columns[7])), " ".join(columns[7].split())
            )


def _settings(command: str) -> Iterator[tuple[str, str]]:
    for braced, plain in _OPTION.findall(command):
        name, equals, value = (braced or plain).partition("=")
        if equals:
            yield name.strip(), words(value)


def transport_entry(name: str, chroot: str, maxproc: str, settings: Mapping[str, str]) -> str:
    """A master.cf entry for an SMTP client with settings of its own (master(5); braces since Postfix 3.0)."""
    lines = [f"{name} unix - - {chroot} - {maxproc} smtp\n", "  -o syslog_name=postfix/$service_name\n"]
    lines += [f"  -o {{ {key} = {value} }}\n" for key, value in settings.items()]
    return "".join(lines)


def seconds(value: str) -> int | None:
    """A time value of Postfix in seconds; None when it is none."""
    found = re.fullmatch(r"(\d+)([smhdw]?)", value)
    return int(found.group(1)) * _UNITS[found.group(2)] if found else None


def nexthop(host: str, port: int) -> str:
    """The destination that asks for no MX look-up (transport(5))."""
    return f"[{host}]:{port}"


def inline_secrets(text: str) -> Iterator[str]:
    """Credentials that stand in main.cf or master.cf: in a map there (DATABASE_README), or before a relay."""
    yield from re.findall(r"relayhost\s*=[^\n]*?:([^\s:@]+)@", text)
    for value in re.findall(r"sasl_password_maps\s*=((?:[^\n]|\n[ \t])*)", text):
        for entry in re.findall(r"static:\s*\{?([^{}\s,]+)", value) + re.findall(r"=\s*([^{}=]*?)\s*\}", value):
            yield entry
            yield entry.partition(":")[2]


def split_nexthop(text: str) -> tuple[str, int]:
    """Host and port of a relayhost; a name without brackets (looked up by MX) keeps a mark that equals no host."""
    named = {"smtp": 25, "submission": 587, "submissions": 465, "smtps": 465}
    found = re.fullmatch(r"(\[[^\]]+\]|[^\[\]:]+)(?::(\w+))?", text)
    if not found:
        several = re.split(r"[\s,]+", text)
        return hops_shown(several) if len(several) > 1 else text, 25
    host, port = found.group(1), found.group(2) or "25"
    number = int(port) if port.isdigit() else named.get(port, 0)
    return (host[1:-1] if host.startswith("[") else "MX of " + host), number


def hops_shown(hops: Iterable[str]) -> str:
    """Those that are hops: a comment after them, which Postfix takes for more of them, may say anything."""
    return ", ".join(hop if _HOP.fullmatch(hop) else "..." for hop in hops)


def sender_keys(service: Service) -> list[str]:
    """The keys by which sender_dependent_default_transport_maps finds the service's senders (postconf(5))."""
    return sorted(sender if "@" in sender else "@" + sender for sender in service.senders)


def is_ip(host: str) -> bool:
    """Is the relay given by its address?"""
    return ":" in host or re.fullmatch(r"[\d.]+", host) is not None


def map_path(map_name: str) -> str:
    """The file of a ``type:path`` of ours, the first of several; empty for anything else."""
    found = re.search(rf"\w+:({re.escape(FILES)}[^\s,]+)", map_name)
    return found.group(1) if found else ""
