# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Postfix at work: its own checkers, making a change effective, and a mail followed on its way out."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import StepFailed
from ..scratch import Scratch
from .base import Submission, text_of
from .postfix import MAIN, MASTER
from .postfix_files import CONFIG, OURS

if TYPE_CHECKING:
    from ..port import Host
    from ..service import Service
    from .base import Observed
    from .postfix import Postfix

# of the daemons that every mail goes through; what a user's mailq or sendmail complained of meanwhile is not ours
_FATAL = re.compile(
    r"/(?:master|qmgr|trivial-rewrite|cleanup|smtp|pipe)\[\d+\]: ((?:fatal|panic): .*|warning: .*throttling.*)"
)
_STATUS = re.compile(r": ([0-9A-Za-z]+): to=<([^>]*)>.*? relay=([^,]*),.* status=(\w+) \((.*)\)$", re.M)
_A_RELAY = re.compile(r"\[.*\]:\d+$")  # delivered over the network, not by this host to itself
_A_PIPE = re.compile(rf"{OURS}\S+$")  # ours, which says what the relay said
_PIPED = re.compile(r"delivered via \S+ service \((.*)\)$")
_STAYED = "delivered on this host, not by the relay"
_ENDS = ("bounced", "SOFTBOUNCE", "expired", _STAYED)


def check(backend: Postfix, staged: Mapping[str, str]) -> list[str]:
    """Let postconf(1) and ``postfix check`` judge the candidates in a directory of their own."""
    host = backend.host
    if host.which("postfix") is None:
        return ["Postfix is not in the tree: its files were judged by this collection's rules alone"]
    with Scratch(host, "postfix") as place:
        for path in (MAIN, MASTER):
            place.copy(staged.get(path, path), path.rsplit("/", 1)[1])
        commands = [["postconf", "-c", place.path, "-n"], ["postconf", "-c", place.path, "-M"]]
        for argv in [*commands, *([["postfix", "-c", place.path, "check"]] if host.live else [])]:
            said = host.run(argv)
            if said.code:
                words = (said.words or f"exit code {said.code}").replace(place.path, MAIN.rsplit("/", 1)[0])
                raise StepFailed("check", f"{argv[0]} {argv[-1]} says: {words}")
    return [told for path in staged if path.endswith(CONFIG) for told in _piped(host, staged[path], path)]


def _piped(host: Host, candidate: str, path: str) -> list[str]:
    from .postfix_pipe import check as check_pipe

    return list(check_pipe(host, candidate, path))


def activate(backend: Postfix, before: Observed, service: Service | None) -> None:
    """Start it, restart it where a reload would not do, else reload it."""
    after = backend.values(text_of(backend.host, MAIN))
    if not backend.running(after["queue_directory"]):
        if service is not None:
            backend.act_service("activate", "start", "postfix")
    elif after["inet_interfaces"] != before.detail["values"]["inet_interfaces"]:
        backend.act_service("activate", "stop", "postfix")  # a reload does not rebind (postconf(5))
        backend.act_service("activate", "start", "postfix")
    else:
        backend.act("activate", ["postfix", "reload"])


def complaints(log: str) -> str:
    """The first line that says that mail cannot be delivered with this configuration."""
    found = _FATAL.search(log)
    return found.group(1) if found else ""


def submit(backend: Postfix, message: bytes, sender: str, recipients: Sequence[str], timeout: float) -> Submission:
    """Hand it to sendmail(1) and follow it through the mail log by its Message-ID and queue id.

    A failed test leaves nothing behind: no bounce is sent, and what is in the queue still is taken out of it.
    """
    host = backend.host
    file = backend.values("")["maillog_file"]
    mark = host.log_mark([file] if file else [])
    given = host.run(["sendmail", "-i", "-N", "never", "-f", sender, "--", *recipients], message)
    if given.code:
        return Submission(False, given.words or "sendmail failed")
    header = re.search(rb"^Message-ID:\s*(<[^>]+>)", message, re.M | re.I)
    ident = header.group(1).decode() if header else ""
    end = time.monotonic() + timeout
    ended, final = followed("", ident, recipients)
    while not final and time.monotonic() < end:
        time.sleep(0.1)
        ended, final = followed(host.log(mark), ident, recipients)
    if not ended.sent and ended.queue_id:
        host.run(["postsuper", "-d", ended.queue_id])
    return ended if final else ended._replace(reply=f"{ended.reply} (after {timeout:g} s)")


def followed(log: str, ident: str, recipients: Sequence[str]) -> tuple[Submission, bool]:
    """How far the mail with that Message-ID is: what is known, and whether that is its end."""
    named = re.search(rf": ([0-9A-Za-z]+): message-id={re.escape(ident)}", log)
    if not named:
        return Submission(False, "the mail log never named it: is there one on this host?"), False
    queue_id = named.group(1)
    last = {to: _outcome(*told) for found, to, *told in _STATUS.findall(log) if found == queue_id}
    unsent = {to: one for to, one in last.items() if one[0] != "sent"}
    if not last or (not unsent and len(last) < len(set(recipients))):
        return Submission(False, "still in the queue", queue_id), False
    if not unsent:
        return Submission(True, next(iter(last.values()))[1], queue_id), True
    told = "; ".join(f"{to}: {status}: {words}" for to, (status, words) in unsent.items())
    complete = len(last) >= len(set(recipients)) and all(status in _ENDS for status, _words in unsent.values())
    return Submission(False, told, queue_id), complete


def _outcome(relay: str, status: str, words: str) -> tuple[str, str]:
    """Status and words of a delivery; one that never left this host proves nothing of the relay."""
    piped = _PIPED.match(words) if _A_PIPE.match(relay) else None
    if piped:
        return status, piped.group(1).strip()
    return (status, words) if status != "sent" or _A_RELAY.search(relay) else (_STAYED, words)
