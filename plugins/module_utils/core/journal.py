# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The journal of a run that changes a host: what was begun and how far it came. It holds no content of any file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .errors import HostError

if TYPE_CHECKING:
    from .port import Host

STATE = "/var/lib/fleetmail/smtp"
JOURNAL = STATE + "/journal.json"
VERSION = 1

Entry = dict[str, Any]  # path; had: was it there; old, new: names of the kept and the staged file; inode of the latter


def note(host: Host, phase: str, backend: str, options: Any, running: bool | None, files: list[Entry]) -> None:
    """Write it, synced to disk before anything that it tells of happens. ``phase``: staging, applying or kept."""
    record = {"version": VERSION, "phase": phase, "backend": backend}
    record.update(options=options, running=running, files=files)
    host.rename(host.stage(JOURNAL, json.dumps(record).encode(), 0o600, "root", "root"), JOURNAL)


def interrupted(host: Host) -> dict[str, Any] | None:
    """The journal that a run left which did not come to its end. Raises HostError when it cannot be understood."""
    found = host.read(JOURNAL)
    if found is None:
        return None
    try:
        record: dict[str, Any] = json.loads(found.content)
        if record["version"] != VERSION:
            raise ValueError
        return record
    except (ValueError, KeyError, TypeError):
        raise HostError(JOURNAL, "is not a journal of this version", "look at it, then move it away") from None
