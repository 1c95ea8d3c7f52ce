# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Postfix' lookup tables as others set them up: any type that is a file, and what stands in main.cf itself.

Sources: postmap(1), DATABASE_README, regexp_table(5), pcre_table(5). Tables that ask another host or program (ldap,
mysql, tcp, socketmap, ...) are never asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..marks import BLANK
from .base import raw, text_of
from .postfix_files import entries

if TYPE_CHECKING:
    from ..port import Host

COMPILED = {
    "hash": ".db", "btree": ".db", "lmdb": ".lmdb", "cdb": ".cdb", "dbm": ".pag", "sdbm": ".pag",
}  # fmt: skip
PATTERNS = ("regexp", "pcre")
FILES = (*COMPILED, *PATTERNS, "texthash")
INSIDE = ("static", "inline")
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
    if table.kind == "static":
        return dict.fromkeys(keys, table.target)
    if table.kind == "inline":
        known = {key.lower(): value for key, value in _inline(table.target)}
        return {key: known[key.lower()] for key in keys if key.lower() in known}
    if table.kind == "unionmap":
        rows = [found(host, inner, keys) for inner in tables(table.target)]
        return {
            key: ",".join(row[key] for row in rows if key in row) for key in keys if any(key in row for row in rows)
        }
    if table.kind not in FILES or (table.compiled and not host.exists(table.compiled)):
        return {}
    asked = _asked(host, table, keys)
    return _by_source(host, table, keys) if asked is None else asked


def _asked(host: Host, table: Table, keys: Sequence[str]) -> dict[str, str] | None:
    """Postfix' own answer (postmap -q); None where it cannot be asked."""
    if not (host.live and host.which("postmap")):
        return None
    wanted = [key for key in keys if key and "\n" not in key]
    said = host.run(["postmap", "-q", "-", table.name], raw("".join(key + "\n" for key in wanted)))
    if "fatal:" in said.err or said.code > 1:
        return None
    rows = (line.split("\t", 1) for line in said.out.split("\n"))
    return {row[0]: row[1] for row in rows if len(row) == 2}


def _by_source(host: Host, table: Table, keys: Sequence[str]) -> dict[str, str]:
    text = text_of(host, table.target)
    if table.kind in PATTERNS:
        answers = {key: _matched(text, key) for key in keys}
        return {key: answer for key, answer in answers.items() if answer is not None}
    known = source_entries(text)
    return {key: known[key.lower()] for key in keys if key.lower() in known}


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
    if table.kind == "static":
        return {"*": table.target}
    if table.kind == "inline":
        return dict(_inline(table.target))
    if table.kind in PATTERNS:
        rules = (_SLASHED.match(entry.text) for entry in entries(text_of(host, table.target)))
        return {f"/{rule.group(2)}/": rule.group(4).strip() for rule in rules if rule}
    if table.kind in FILES:
        return dumped(host, table) or source_entries(text_of(host, table.target))
    return {}


def dumped(host: Host, table: Table) -> dict[str, str] | None:
    """What the compiled file holds (postmap -s); None where that cannot be said."""
    if not (table.compiled and host.live and host.which("postmap") and host.exists(table.compiled)):
        return None
    said = host.run(["postmap", "-s", table.name])
    if said.code:
        return None
    rows = (line.split("\t", 1) for line in said.out.split("\n"))
    return {row[0]: row[1].strip() for row in rows if len(row) == 2}


def fault(host: Host, table: Table) -> str:
    """``map-missing``, ``map-stale`` or ``map-without-source`` (kinds of findings); empty when all is well."""
    if table.kind not in FILES or not table.target.startswith("/"):
        return ""
    source = host.exists(table.target)
    if not table.compiled:
        return "" if source else "map-missing"
    if not host.exists(table.compiled):
        return "map-missing"
    if not source:
        return "map-without-source"
    holds = dumped(host, table)
    if holds is None:
        return "map-stale" if host.modified(table.target) > host.modified(table.compiled) else ""
    return "" if holds == source_entries(text_of(host, table.target)) else "map-stale"
