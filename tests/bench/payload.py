# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What Ansible sends to a host for a module: the very file, as it arrived there."""

from __future__ import annotations

import base64
import re
from typing import NamedTuple

from bench.fleet import Disagreement, Fleet
from bench.measure import Bench

_ZIP = re.compile(rb"[A-Za-z0-9+/=]{10000,}")


class Payload(NamedTuple):
    """Bytes: what is transferred (the wrapper, with the zip in base64), and the zip alone."""

    sent: int
    zipped: int


def payloads(bench: Bench, fleet: Fleet, plays: dict[str, str]) -> dict[str, Payload]:
    """Run each play (name of the module -> play) so that its module stays on the first host, and look at it there."""
    files = delivered(bench, fleet, plays)
    return {name: Payload(len(content), _zip_size(name, content)) for name, content in files.items()}


def delivered(bench: Bench, fleet: Fleet, plays: dict[str, str]) -> dict[str, bytes]:
    """The content of the modules' files."""
    host = fleet.hosts[0]
    files = {}
    for name, play in plays.items():
        arguments = ("--limit", host.name, "--extra-vars", "ansible_pipelining=false")
        bench.play(play, fleet, arguments, settings={"ANSIBLE_KEEP_REMOTE_FILES": "1"})
        found = host.output(["find", "/root/.ansible/tmp", "-name", f"AnsiballZ_{name.rpartition('.')[2]}.py"])
        files[name] = host.read(found.splitlines()[-1])
    host.run(["rm", "-rf", "/root/.ansible"])
    return files


def _zip_size(name: str, content: bytes) -> int:
    found = max(_ZIP.findall(content), key=len, default=b"")
    if not found:
        raise Disagreement(f"{name}: there is no zip in its payload")
    return len(base64.b64decode(found))
