# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Configurations as people write them: after tutorials, vendors' pages and years of edits. What an audit sees in each.

The unit tests lay them down in memory and the integration tests on real software, which then is the judge.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

PASSWORD = "Handschrift7K2m"
RELAY = "relay.example.test"


class File(NamedTuple):
    """A file as it was left there."""

    text: str
    mode: int = 0o644
    group: str = "root"


class Case(NamedTuple):
    """``services``: fields that each service must have, in order of its name. ``findings``: kinds that must be told;
    ``silent``: kinds that must not. ``commands`` are run before a look, in a real tree only; ``live``: what is told
    only where the software can be asked."""

    files: Mapping[str, str | File]
    services: Mapping[str, Mapping[str, Any]]
    findings: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()
    commands: tuple[str, ...] = ()
    compiled: tuple[str, ...] = ()  # maps that postmap(1) makes; in memory, a file of that name
    live: frozenset[str] = frozenset()
    drift: Mapping[str, Any] | None = None  # of the default service's task: field -> (before, after); None: no task
    needs: str = ""  # a program or dictionary type that must be there


def kinds(*names: str) -> frozenset[str]:
    """Kinds of findings."""
    return frozenset(names)
