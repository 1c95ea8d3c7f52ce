# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The store's files as JSON: always the same bytes for the same record, and never a guess at what is not ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..errors import HostError

VERSION = 1
KEPT = "the file is kept as it is; look at it, then move it away or restore it from a backup"


def written(record: Mapping[str, Any]) -> bytes:
    """The file's bytes for a record of plain data."""
    return json.dumps({"version": VERSION, **record}, indent=1, sort_keys=True).encode("ascii") + b"\n"


def understood(path: str, content: bytes) -> dict[str, Any]:
    """The record that ``content``, found at ``path``, is. HostError: it is not ours, damaged, or newer than we are."""
    try:
        record = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        raise HostError(path, "is damaged or not a file of the token store", KEPT) from None
    version = record.get("version") if isinstance(record, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < VERSION:
        raise HostError(path, "is not a file of the token store", KEPT)
    if version > VERSION:
        problem = f"was written by a newer release (version {version}, known here: {VERSION})"
        raise HostError(path, problem, "install the newer release of the collection and of the keeper")
    found: dict[str, Any] = record
    return found


def not_ours(path: str) -> HostError:
    """What to raise where a record has the right version and the wrong fields."""
    return HostError(path, "has fields that are not those of the token store", KEPT)
