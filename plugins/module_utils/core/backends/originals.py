# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""What a file was before it became wholly ours: kept on the host, given back when we leave."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from .base import FileState, original_path

if TYPE_CHECKING:
    from ..port import Host


def record(host: Host, path: str) -> FileState:
    """The record of ``path`` as it is now: content, mode, owner, or its absence."""
    now = host.read(path)
    kept: dict[str, Any] = {"path": path, "absent": now is None}
    if now is not None:
        kept.update(mode=now.mode, owner=now.owner, group=now.group, content=base64.b64encode(now.content).decode())
    return FileState(original_path(path), json.dumps(kept).encode(), 0o600, "root", "root", secret=True)


def given_back(host: Host, path: str) -> list[FileState]:
    """The file as it was, and the record gone; without a record there was no file."""
    found = host.read(original_path(path))
    if found is None:
        return [FileState(path, None, secret=True)]
    kept = json.loads(found.content)
    gone = FileState(original_path(path), None, secret=True)
    if kept["absent"]:
        return [FileState(path, None, secret=True), gone]
    content = base64.b64decode(kept["content"])
    return [FileState(path, content, kept["mode"], kept["owner"], kept["group"], secret=True), gone]
