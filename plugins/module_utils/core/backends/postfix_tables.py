# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Postfix' lookup tables as others set them up: any type that is a file, and what stands in main.cf itself.

Sources: postmap(1), DATABASE_README, regexp_table(5), pcre_table(5), cidr_table(5). Tables that ask another host or
program (ldap, mysql, tcp, socketmap, ...) are never asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..errors import HostError
from ..marks import BLANK
from .base import raw, text_of
from .postfix_files import entries

if TYPE_CHECKING:
    from ..port import Host

COMPILED = {
    "hash": ".db", "btree": ".db", "lmdb": ".lmdb", "cdb": ".cdb", "dbm": ".pag", "sdbm": ".pag",
}  # fmt: skip
PATTERNS = ("regexp", "pcre")
FILES = (*COMPILED, *PATTERNS, "cidr", "texthash")
INSIDE = ("static", "inline", "randmap")
OF_TABLES = ("unionmap", "pipemap")  # made of other tables
PATIENCE = 20  # seconds for one question to postmap(1)
_ROW = re.compile(rf"([^{BLANK}\n]+)[{BLANK}\n]+(.*)", re.S)  # a password may have other kinds of blanks
_SLASHED = re.compile(r"(!?)/((?:[^/\\]|\\.)*)/([a-zA-Z]*)\s+(.*)", re.S)


class Table(NamedTuple):
    """One table of a parameter: its type and the file, or what stands in the parameter itself."""

    kind: str
    target: str

    @property
    def name(self) -> str:
        """As main.cf has it."""
        return f"{self.kind}:{self.target}"

    @property
    def compiled(self) -> str:
        """The file that postmap(1) makes of it, empty for a type that is read as it is."""
        return self.target + COMPILED[self.kind] if self.kind in COMPILED else ""

    @property
    def inside(self) -> bool:
        """Does all of it stand in the parameter? Since Postfix 3.7 patterns can, too."""
        return self.kind in INSIDE or (self.kind in FILES and self.target.startswith("{"))

    @property
    def is_file(self) -> bool:
        """Is it a file that can be read here?"""
        return self.kind in FILES and not self.inside

    @property
    def asked(self) -> bool:
        """Can it be said what it holds?"""
        return self.inside or self.is_file or self.kind == "unionmap"


def tables(value: str) -> list[Table]:
    """The tables that a parameter names, in order. ``proxy:`` is dropped: who opens a file is of no interest."""
    found = []
    for word in pieces(value):
        kind, colon, target = word.partition(":")
        while kind == "proxy":
            kind, colon, target = target.partition(":")
        if colon:
            found.append(Table(kind, braceless(target)))
    return found


def leaves(value: str) -> list[Table]:
    """The tables that a parameter names, of those that are made of others the others."""
    found = []
    for table in tables(value):
        found += leaves(table.target) if table.kind in OF_TABLES else [table]
    return found


def pieces(value: str) -> Iterator[str]:
    """The parts of a list that are separated by commas or white space outside of braces."""
    depth, part = 0, ""
    for character in value:
        depth += (character == "{") - (character == "}")
        if depth <= 0 and character in ", \t\r\n":
            if part:
                yield part
            part = ""
        else:
            part += character
    if part:
        yield part


def braceless(text: str) -> str:
    """Without one pair of braces around it, and the white space inside them."""
    return text[1:-1].strip() if text.startswith("{") and text.endswith("}") else text


def look_up(host: Host, value: str, keys: Sequence[str]) -> tuple[str, Table] | None:
    """What Postfix finds for the first of the keys that any of the tables knows, and in which of them.

    Every table is asked for one key before the next key's turn comes, as Postfix does.
    """
    answers = [(table, found(host, table, keys)) for table in tables(value)]
    for key in keys:
        for table, known in answers:
            if key in known:
                return known[key], table
    return None


def found(host: Host, table: Table, keys: Sequence[str]) -> dict[str, str]:
    """What a table says for those of the keys that it knows."""
    if table.kind in ("static", "randmap"):
        return dict.fromkeys(keys, contents(host, table)["*"])
    if table.kind == "inline":
        known = {key.lower(): value for key, value in _inline(table.target)}
        return {key: known[key.lower()] for key in keys if key.lower() in known}
    if table.kind == "unionmap":
        rows = [found(host, inner, keys) for inner in tables(table.target)]
        return {
            key: ",".join(row[key] for row in rows if key in row) for key in keys if any(key in row for row in rows)
        }
    if not (table.inside or table.is_file) or (table.compiled and not host.exists(table.compiled)):
        return {}
    if not table.compiled and not _opens(host, table):
        return {}
    asked = _asked(host, table, keys)
    return _by_source(host, table, keys) if asked is None else asked


def _opens(host: Host, table: Table) -> bool:
    """Is it there, and a file? postmap would wait for who writes a pipe."""
    try:
        return table.inside or host.read(table.target) is not None
    except HostError:
        return False


def _asked(host: Host, table: Table, keys: Sequence[str]) -> dict[str, str] | None:
    """Postfix' own answer (postmap -q); None where it cannot be asked."""
    if table.inside or not (host.live and host.which("postmap")):
        return None  # what stands in a parameter may be a secret, which is not for a command line
    wanted = [key for key in keys if key and "\n" not in key]
    said = host.run(["postmap", "-q", "-", table.name], raw("".join(key + "\n" for key in wanted)), PATIENCE)
    if "fatal:" in said.err or said.code > 1:
        return None
    rows = (line.split("\t", 1) for line in said.out.split("\n"))
    return {row[0]: row[1] for row in rows if len(row) == 2}


def _by_source(host: Host, table: Table, keys: Sequence[str]) -> dict[str, str]:
    if table.kind == "cidr":
        return {}  # networks, and what is looked for here are names
    text = _text(host, table)
    if table.kind in PATTERNS:
        answers = {key: _matched(text, key) for key in keys}
        return {key: answer for key, answer in answers.items() if answer is not None}
    known = source_entries(text)
    return {key: known[key.lower()] for key in keys if key.lower() in known}


def _text(host: Host, table: Table) -> str:
    """The source; of a table inside a parameter, its rules."""
    return (
        "".join(braceless(rule) + "\n" for rule in pieces(table.target))
        if table.inside
        else text_of(host, table.target)
    )


def source_entries(text: str) -> dict[str, str]:
    """The entries of an indexed table's source, keys in lower case (postmap(1)); of two, the first is kept."""
    known: dict[str, str] = {}
    for entry in entries(text):
        row = _ROW.match(entry.text)
        if row:
            known.setdefault(row.group(1).lower(), row.group(2).replace("\n", "").strip(BLANK))
    return known


def _inline(text: str) -> Iterator[tuple[str, str]]:
    """The pairs of an inline table: ``name = value`` or, with white space in it, ``{ name = value }``."""
    for part in re.findall(r"\{[^{}]*\}|[^\s,{}]+\s*=\s*[^\s,{}]+", text):
        key, equals, value = braceless(part).partition("=")
        if equals:
            yield key.strip(), value.strip()


def _matched(text: str, key: str) -> str | None:
    """The result of the first pattern that fits; patterns as Python takes them."""
    for entry in entries(text):
        rule = _SLASHED.match(entry.text)
        if rule is None:
            continue
        negated, pattern, flags, result = rule.groups()
        try:
            hit = re.search(pattern, key, 0 if "i" in flags else re.I)  # the flag turns off what is the default
        except re.error:
            continue
        if bool(hit) != bool(negated):
            return _substituted(result.replace("\n", "").strip(), hit)
    return None


def _substituted(result: str, hit: re.Match[str] | None) -> str:
    def group(place: re.Match[str]) -> str:
        number = int(place.group(1))
        return (hit.group(number) or "") if hit and number <= (hit.re.groups) else ""

    return re.sub(r"\$[{(]?(\d)[)}]?", group, result)


# -- what a table holds, and whether it is what its source says --------------------------------------------------------


def contents(host: Host, table: Table) -> dict[str, str]:
    """All that a table holds, as far as that can be listed: pattern or key -> result."""
    if table.kind in ("static", "randmap"):
        return {"*": next(pieces(table.target), "") if table.kind == "randmap" else table.target}
    if table.kind == "inline":
        return dict(_inline(table.target))
    if table.kind in OF_TABLES:
        return {key: entry for inner in tables(table.target) for key, entry in contents(host, inner).items()}
    if table.kind not in FILES or not (table.compiled or _opens(host, table)):
        return {}
    if table.kind in PATTERNS:
        rules = (_SLASHED.match(entry.text) for entry in entries(_text(host, table)))
        return {f"/{rule.group(2)}/": rule.group(4).strip() for rule in rules if rule}
    holds = dumped(host, table)
    return source_entries(_text(host, table)) if holds is None else holds


def dumped(host: Host, table: Table) -> dict[str, str] | None:
    """What the compiled file holds (postmap -s); None where that cannot be said."""
    if not _can_be_dumped(host, table):
        return None
    said = host.run(["postmap", "-s", table.name], timeout=PATIENCE)
    if said.code:
        return None
    rows = (line.split("\t", 1) for line in said.out.split("\n"))
    return {row[0]: row[1].strip() for row in rows if len(row) == 2}


def _can_be_dumped(host: Host, table: Table) -> bool:
    return bool(table.compiled and host.live and host.which("postmap") and host.exists(table.compiled))


def fault(host: Host, table: Table) -> str:
    """``map-missing``, ``-broken``, ``-stale`` or ``-without-source`` (kinds of findings); empty when all is well."""
    if table.kind not in FILES or not table.target.startswith("/"):
        return ""
    source = host.exists(table.target)
    if not table.compiled:
        return "map-missing" if not source else "" if _opens(host, table) else "map-broken"
    if not host.exists(table.compiled):
        return "map-missing"
    holds = dumped(host, table)
    if holds is None and _can_be_dumped(host, table):
        return "map-broken"
    if not source:
        return "map-without-source"
    if holds is None:
        return "map-stale" if host.modified(table.target) > host.modified(table.compiled) else ""
    return "" if _opens(host, table) and holds == source_entries(text_of(host, table.target)) else "map-stale"
