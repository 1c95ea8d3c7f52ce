# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""A whole configuration of Exim, whoever wrote it: macros, conditions and included files resolved, taken to pieces.

Exim's own answer (``exim4 -bP config``) where it can be asked; else our reading (Exim's specification, 6).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from . import exim_files as files
from .base import text_of
from .exim_files import CONF, ETC, WHOLE
from .exim_generated import joined

if TYPE_CHECKING:
    from ..port import Host

Driver = dict[str, str]
SECTIONS = ("routers", "transports", "authenticators")
_MACRO = re.compile(r"([A-Z]\w*)\s*(==?)\s*(.*)", re.S)
_SETTING = re.compile(r"(?:hide\s+)?([a-z]\w*)(?:\s+(\w+))?\s*(?:=\s*(.*))?\Z", re.S)
_NAME = re.compile(r"(\w+):\s*(.*)\Z", re.S)
_DIRECTIVE = re.compile(r"\.(ifdef|ifndef|elifdef|elifndef|else|endif|include|include_if_exists)\b\s*(.*)\Z", re.S)
_ROUTE_OPTIONS = ("byname", "bydns", "randomize", "no_randomize", "ipv4_only", "ipv4_prefer")
_DEPTH = 10
_LONGEST = 1 << 16  # of a line after macros: two that name each other would never end


class Config(NamedTuple):
    """``main``: options, and named lists as ``hostlist NAME``; the drivers of each kind in order, by name."""

    main: dict[str, str]
    routers: dict[str, Driver]
    transports: dict[str, Driver]
    authenticators: dict[str, Driver]


def read(host: Host, split: bool, broken: list[str]) -> Config:
    """The configuration in effect; in a tree the one that its next start makes. ``broken``: why Exim refuses it."""
    if host.live and host.which("exim4"):
        said = host.run(["exim4", "-bP", "config"])
        if not said.code and "begin " in said.out:
            return parsed(said.out)
        broken.append(said.words)
    if host.exists(WHOLE):
        return parsed("\n".join(resolved(host, text_of(host, WHOLE), {})))
    return parsed("\n".join(resolved(host, joined(host, split), debconf_macros(text_of(host, CONF)))))


def debconf_macros(conf: str) -> dict[str, str]:
    """What update-exim4.conf(8) defines by itself, as far as it decides how mail leaves."""
    given = files.shell_values(conf)
    kind = given.get("dc_eximconfig_configtype", "local").lower()
    nets = [one.strip() for one in given.get("dc_relay_nets", "").split(";") if one.strip()]
    relayed = " ; ".join(["127.0.0.1", "::1", *nets])
    interfaces = given.get("dc_local_interfaces", "")
    return {
        "CONFDIR": ETC,
        "DCsmarthost": given.get("dc_smarthost", "").lower(),
        "DCreadhost": given.get("dc_readhost", ""),
        "DC_eximconfig_configtype": kind,
        f"DCconfig_{kind}": "1",
        "MAIN_RELAY_NETS": "<; ; " + relayed,
        **({"MAIN_LOCAL_INTERFACES": "<; " + interfaces} if interfaces else {}),
    }


# -- lines -------------------------------------------------------------------------------------------------------------


def resolved(host: Host, text: str, macros: dict[str, str], depth: int = 0) -> Iterator[str]:
    """The logical lines that count, macros filled in; ``macros`` gets those that are defined on the way."""
    stack: list[tuple[bool, bool]] = []  # does this branch count, has one of its kind counted?
    for line in logical(text):
        directive = _DIRECTIVE.match(line)
        if directive is None:
            if all(counts for counts, _done in stack):
                yield from _plain(line, macros)
            continue
        word, rest = directive.groups()
        if word.startswith("include"):
            path = filled(rest.strip().strip('"'), macros)
            if all(counts for counts, _done in stack) and depth < _DEPTH:
                yield from resolved(host, text_of(host, path), macros, depth + 1)
        else:
            _branch(word, rest, macros, stack)


def _branch(word: str, rest: str, macros: Mapping[str, str], stack: list[tuple[bool, bool]]) -> None:
    if word == "endif":
        stack[-1:] = []
        return
    holds = any(name in rest for name in macros) != word.endswith("ndef") if word != "else" else True
    if word.startswith("if"):
        stack.append((holds, holds))
    elif stack:
        _counts, done = stack[-1]
        stack[-1] = (holds and not done, done or holds)


def _plain(line: str, macros: dict[str, str]) -> Iterator[str]:
    definition = _MACRO.match(line)
    if definition is None:
        yield filled(line, macros)
        return
    name, sign, value = definition.groups()
    if sign == "==" or name not in macros:
        macros[name] = filled(value, macros)


def filled(line: str, macros: Mapping[str, str]) -> str:
    """The line with macros replaced, in the order of their definition (6.4)."""
    for name, value in macros.items():
        if name in line and len(line) < _LONGEST:
            line = line.replace(name, value)
    return line


def logical(text: str) -> Iterator[str]:
    """The lines without comments and empty ones; a backslash at the end joins a line with the next one."""
    whole = ""
    for physical in text.split("\n"):
        line = physical.strip()
        if line.startswith("#") or not (line or whole):
            continue
        whole += line
        if whole.endswith("\\"):
            whole = whole[:-1]
        elif whole:
            yield whole
            whole = ""
    if whole:
        yield whole


# -- pieces ------------------------------------------------------------------------------------------------------------


def parsed(text: str) -> Config:
    """The configuration that these lines are."""
    config = Config({}, {}, {}, {})
    section, driver = "", config.main
    for line in logical(text):
        begun = re.match(r"begin\s+(\w+)\s*\Z", line)
        if begun:
            section, driver = begun.group(1), {}
            continue
        named = _NAME.match(line) if section in SECTIONS else None
        if named:
            driver = {}
            getattr(config, section)[named.group(1)] = driver
        if not section or section in SECTIONS:
            _set(driver, named.group(2) if named else line)
    return config


def _set(driver: Driver, line: str) -> None:
    setting = _SETTING.match(line)
    if setting is None:
        return
    key, second, value = setting.groups()
    name = f"{key} {second}" if second else key
    driver[name] = "true" if value is None else unquoted(value.strip())


def unquoted(value: str) -> str:
    """Without the double quotes around it, and with what they escape (6.16)."""
    if len(value) > 1 and value[0] == value[-1] == '"':
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    return value


def items(text: str) -> list[str]:
    """The items of a list (6.21): colons separate, or what ``<x`` says; a doubled one is one."""
    separator, rest = ":", text.strip()
    if rest.startswith("<") and len(rest) > 1:
        separator, rest = rest[1], rest[2:]
    mark = "\0"
    parts = rest.replace(separator * 2, mark).split(separator)
    return [part.replace(mark, separator).strip() for part in parts if part.strip()]


def covers(listed: str, host: str) -> bool:
    """Is a host in a host list, as far as it can be said without looking anything up?"""
    for item in items(listed):
        negated, name = item.startswith("!"), item.lstrip("! ").lower()
        if name == "*" or name == host.lower() or (name.startswith("*") and host.lower().endswith(name[1:])):
            return not negated
    return False


def relays(route: str) -> list[tuple[str, int, bool]]:
    """Host, port (0: none given) and "by MX?" of each relay in what follows the pattern of a route_list item."""
    quoted = re.match(r'"((?:[^"\\]|\\.)*)"', route.strip())
    words = (quoted.group(1) if quoted else route).split()
    found = []
    for item in items(" ".join(word for word in words if word not in _ROUTE_OPTIONS)):
        by_mx = item.lower().endswith("/mx")
        name = item[:-3] if by_mx else item
        address = re.match(r"\[([^\]]+)\](?::(\d+))?\Z", name) or re.match(r"([^:]+)(?::(\d+))?\Z", name)
        if address:
            found.append((address.group(1), int(address.group(2) or 0), by_mx))
    return found
