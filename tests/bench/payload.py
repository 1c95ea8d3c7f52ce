# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What Ansible sends to a host for a module: the very file, as it arrived there, and what it is made of."""

from __future__ import annotations

import base64
import io
import re
import zipfile
from collections.abc import Mapping
from typing import NamedTuple

from lab.tree import HOME

from bench.fleet import Disagreement, Fleet
from bench.measure import Bench

_ZIP = re.compile(rb"[A-Za-z0-9+/=]{10000,}")
_OURS = "ansible_collections/fleetmail/smtp/plugins/"
_HEADERS = 30 + 46  # of a file in a zip, each with the file's name behind it (APPNOTE.TXT 4.3.7, 4.3.12)
# the parts of our payload: the first whose pattern is found in a file's path has it
PARTS = (
    ("backend postfix", r"backends/postfix"),
    ("backend exim", r"backends/exim"),
    ("backend msmtp", r"backends/msmtp"),
    ("OAuth", r"core/oauth/"),
    ("probe and test send", r"core/(advice|conversation|dialogue|message|probe|proof|relay_check|sasl|target|tls)\."),
    ("core", r"core/"),
    ("module and adapters", _OURS),
)
ANSIBLE = "ansible-core and the wrapper"


class Part(NamedTuple):
    """Files that belong together, the bytes of their sources, and those that they add to what is transferred."""

    files: int
    source: int
    sent: int


class Payload(NamedTuple):
    """Bytes: what is transferred (the wrapper, with the zip in base64), the zip alone, and the parts of the former."""

    sent: int
    zipped: int
    parts: Mapping[str, Part]


def payloads(bench: Bench, fleet: Fleet, plays: dict[str, str]) -> dict[str, Payload]:
    """Run each play (name of the module -> play) so that its module stays on the first host, and look at it there."""
    files = delivered(bench, fleet, plays)
    return {name: _payload(name, content) for name, content in files.items()}


def delivered(bench: Bench, fleet: Fleet, plays: dict[str, str]) -> dict[str, bytes]:
    """The content of the modules' files."""
    host = fleet.hosts[0]
    files = {}
    for name, play in plays.items():
        arguments = ("--limit", host.name, "--extra-vars", "ansible_pipelining=false")
        bench.play(play, fleet, arguments, settings={"ANSIBLE_KEEP_REMOTE_FILES": "1"})
        found = host.output(["find", f"{HOME}/.ansible/tmp", "-name", f"AnsiballZ_{name.rpartition('.')[2]}.py"])
        files[name] = host.read(found.splitlines()[-1])
    host.run(["rm", "-rf", f"{HOME}/.ansible"])
    return files


def _payload(name: str, content: bytes) -> Payload:
    found = max(_ZIP.findall(content), key=len, default=b"")
    if not found:
        raise Disagreement(f"{name}: there is no zip in its payload")
    zipped = base64.b64decode(found)
    return Payload(len(content), len(zipped), parts_of(zipped, len(content)))


def parts_of(zipped: bytes, sent: int) -> dict[str, Part]:
    """Name -> part, of a zip file that takes this many bytes to send; what is not ours is ansible-core's."""
    files: dict[str, list[zipfile.ZipInfo]] = {}
    with zipfile.ZipFile(io.BytesIO(zipped)) as archive:
        for one in archive.infolist():
            if one.filename.startswith(_OURS):
                part = next(part for part, pattern in PARTS if re.search(pattern, one.filename))
                files.setdefault(part, []).append(one)
        foreign = len(archive.infolist()) - sum(map(len, files.values()))
    told = {part: _part(files[part]) for part, _pattern in PARTS if part in files}
    rest = sent - sum(part.sent for part in told.values())
    return {ANSIBLE: Part(foreign, 0, rest), **told}


def _part(files: list[zipfile.ZipInfo]) -> Part:
    packed = sum(one.compress_size + _HEADERS + 2 * len(one.filename) for one in files)
    return Part(len(files), sum(one.file_size for one in files), packed * 4 // 3)  # base64
