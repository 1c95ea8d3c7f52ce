# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Lookup tables that are files, as Postfix finds in them (postmap(1)): passwords, and which senders go where."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import marks
from .base import raw, text_of
from .postfix_files import OURS, map_path

if TYPE_CHECKING:
    from ..port import Host


def look_up(host: Host, maps: str, keys: Sequence[str]) -> dict[str, str]:
    """What Postfix finds for keys (postmap(1) -q); from the source text where Postfix is not there."""
    found: dict[str, str] = {}
    # maps in files only: what stands in main.cf itself (inline:, static:) is not to become an argument
    for one in re.findall(r"(?:^|[\s,])(\w+:/[^\s,{}]+)", maps) if keys else ():
        if not (host.live and host.which("postmap")):
            found = {**source_of(host, one.split(":", 1)[-1]), **found}
        else:
            said = host.run(["postmap", "-q", "-", one], raw("".join(key + "\n" for key in keys)))
            rows = (line.split("\t", 1) for line in said.out.split("\n"))
            found = {**{row[0]: row[1] for row in rows if len(row) == 2}, **found}
    return {key: found[key] for key in keys if key in found}


def source_of(host: Host, path: str) -> dict[str, str]:
    """The entries of a lookup table's source (postmap(1)), as ours are: one a line."""
    lines = raw(text_of(host, path)).split(b"\n")
    rows = (line.split(None, 1) for line in lines if not line.startswith(b"#"))
    pairs = (b"\t".join(row).rstrip().decode("utf-8", "surrogateescape").split("\t", 1) for row in rows)
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def routes(host: Host, maps: str, name: str) -> tuple[tuple[str, ...], str, str, bool]:
    """The senders whose mail Postfix gives to the service's own agent, that agent, its next hop; is it held?

    ``maps``: sender_dependent_default_transport_maps.
    """
    path = map_path(maps)
    block = marks.get(text_of(host, path), name) if path else None
    found = look_up(host, maps, [line.split()[0] for line in (block or "").splitlines()])
    ours = re.compile(rf"(retry:.* )?({OURS}{re.escape(name)}\.[ab]):(.*)")
    ways = {key: match.groups() for key, match in ((key, ours.match(way)) for key, way in found.items()) if match}
    held, agent, hop = first = next(iter(ways.values()), ("", "", ""))
    return tuple(sorted(key.lstrip("@") for key, way in ways.items() if way == first)), agent, hop, bool(held)
