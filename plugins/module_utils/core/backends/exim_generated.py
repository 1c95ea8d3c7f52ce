# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The configuration that Exim reads, and what update-exim4.conf(8) makes it of."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from .. import marks
from ..errors import Problem
from . import exim_files as files
from .base import text_of
from .exim_files import ETC, GENERATED, MONOLITHIC_MACROS, TEMPLATE

if TYPE_CHECKING:
    from ..port import Host

SECTIONS = ("main", "acl", "router", "transport", "retry", "rewrite", "auth")


def fault(host: Host, split: bool) -> str:
    """What is wrong with the generated file, when it is not what its sources make now; else empty."""
    generated = host.read(GENERATED)
    if generated is None:
        return "(absent)"
    made = files.code(generated.content.decode("utf-8", "surrogateescape"))
    return "" if made == files.code(joined(host, split)) else "(stale or edited)"


def joined(host: Host, split: bool) -> str:
    """The sources in the order of update-exim4.conf(8)."""
    if not split:
        return text_of(host, MONOLITHIC_MACROS) + text_of(host, TEMPLATE)
    return "".join(text_of(host, path) + "\n" for path in _parts(host))


def _parts(host: Host) -> Iterator[str]:
    for section in SECTIONS:
        place = f"{ETC}/conf.d/{section}"
        names = host.names_in(place)
        for name in sorted(names):
            if re.fullmatch(r"[A-Za-z0-9_-]+", name):
                yield f"{place}/{name}.rul" if name + ".rul" in names else f"{place}/{name}"


def redefined(host: Host, split: bool, macros: Collection[str]) -> Iterator[Problem]:
    """The places that give one of these macros of ours another value after us."""
    if not macros:
        return
    for path in _parts(host) if split else (MONOLITHIC_MACROS, TEMPLATE):
        for entry in files.macro_entries(marks.outside(text_of(host, path))):
            if entry.redefines and entry.key in macros:
                yield Problem(path, f"redefines {entry.key} after us", "remove that line")
