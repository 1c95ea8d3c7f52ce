# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Exim at work: its own judgement of a change, making one effective, and a mail followed until the relay answered."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import StepFailed
from ..scratch import Scratch
from .base import Submission, raw, text_of
from .exim_files import AUTHENTICATOR, CONF, CONTINUED, ETC, GENERATED, MONOLITHIC_MACROS, SPLIT_MACROS, TEMPLATE

if TYPE_CHECKING:
    from ..host import LogMark
    from ..port import Host
    from ..service import Service
    from .base import Observed
    from .exim import Exim

PAUSE = 0.2
_ID = r"[0-9A-Za-z]{6}-(?:[0-9A-Za-z]{11}|[0-9A-Za-z]{6})-[0-9A-Za-z]{2,4}"
_WAITING = "retry time not reached"
COULD_NOT_RUN = (125, 126, 127)  # chroot(1): it failed itself, cannot invoke, not found


def judge(host: Host, staged: Mapping[str, str]) -> list[str]:
    """Make the configuration from the staged files and let Exim read it; gives what to tell.

    Raises StepFailed("check", Exim's words).
    """
    with Scratch(host, "exim") as place:
        _lay_out(host, place, staged)
        made = place.path + "/generated"
        said = host.run(["update-exim4.conf", "-d", place.path, "-o", made])
        if said.code in COULD_NOT_RUN and not host.live:
            return ["Exim cannot be run in the tree: its files were judged by this collection's rules alone"]
        if not said.code:
            said = host.run(["exim4", "-C", made, "-bV"])
        if said.code:
            raise StepFailed("check", f"Exim refuses the new configuration: {said.words}", "see that line")
    if not host.live:
        return [f"{GENERATED} is made anew when Debian's init script starts Exim, not before"]
    return []


def _lay_out(host: Host, place: Scratch, staged: Mapping[str, str]) -> None:
    host.run(["cp", "-rL", ETC + "/conf.d", place.path])
    for path in (CONF, TEMPLATE, MONOLITHIC_MACROS):
        place.copy(staged.get(path, path), path[len(ETC) + 1 :])
    for path in (SPLIT_MACROS, CONTINUED, AUTHENTICATOR):
        if path in staged:
            place.copy(staged[path], path[len(ETC) + 1 :])
    if not host.exists(MONOLITHIC_MACROS):  # then update-exim4.conf -d does not look for the candidate either
        macros, template = (f"{place.path}/{name}" for name in ("exim4.conf.localmacros", "exim4.conf.template"))
        joined = raw(text_of(host, macros) + text_of(host, template))
        host.rename(host.stage(template, joined, 0o600, "root", "root"), template)


def activate(backend: Exim, before: Observed, service: Service | None) -> None:
    """Make the configuration anew, and let those who run read it."""
    backend.replaced = backend.host.read(GENERATED)
    backend.act("activate", ["update-exim4.conf"])
    backend.mark = backend.host.log_mark(backend.logs)
    if backend.daemons():
        _reload(backend, "activate")
    elif before.running is not None and service is not None:
        backend.act_service("activate", "start", "exim4")


def _reload(backend: Exim, step: str) -> None:
    # not by the init script: that would run update-exim4.conf once more
    backend.act(step, ["sh", "-c", "kill -HUP " + " ".join(backend.daemons())])


def restore(backend: Exim, was_running: bool | None) -> None:
    """The old files are back: the old configuration too, and it is read if Exim ran."""
    if not _put_back(backend):
        backend.actions.append("update-exim4.conf")
        backend.host.run(["update-exim4.conf"])  # what was there before us may have been refused already
    running = bool(backend.daemons())
    if running and was_running is False:
        backend.act_service("roll-back", "stop", "exim4")
    elif running:
        _reload(backend, "roll-back")
    elif was_running:
        backend.act_service("roll-back", "start", "exim4")
        _put_back(backend)  # the init script makes it anew


def _put_back(backend: Exim) -> bool:
    """Give back the very configuration that Exim read before: it may have been edited by hand."""
    host, old = backend.host, backend.replaced
    if old is None:
        return False
    if host.read(GENERATED) != old:
        host.rename(host.stage(GENERATED, old.content, old.mode, old.owner, old.group), GENERATED)
    return True


def submit(
    host: Host, logs: Sequence[str], message: bytes, sender: str, recipients: Sequence[str], timeout: float
) -> Submission:
    """Hand it to Exim and follow it. A failed test leaves nothing behind in the queue."""
    mark = host.log_mark(logs)
    given = host.run(["exim4", "-i", "-f", sender or "<>", "--", *recipients], message, timeout)
    if given.code:
        return Submission(False, given.words or "exim4 did not take the mail")
    ended = follow(host, mark, message, timeout)
    if not ended.sent and ended.queue_id:
        host.run(["exim4", "-Mrm", ended.queue_id])
    return ended


def follow(host: Host, mark: LogMark, message: bytes, timeout: float) -> Submission:
    """Wait until every recipient of the mail was accepted or one was refused, ``timeout`` seconds at most."""
    header = re.search(rb"^Message-ID:\s*<([^>]+)>", message, re.M | re.I)
    ident = header.group(1).decode("utf-8", "replace") if header else ""
    end, forced = time.monotonic() + timeout, False
    while True:
        ended, final = state_of(host.log(mark), ident)
        if final:
            return ended
        if time.monotonic() > end:
            return ended._replace(reply=f"{ended.reply} (after {timeout:g} s)")
        if _WAITING in ended.reply and not forced:
            # an earlier failure is remembered for the relay, not for this mail: try now
            forced = True
            host.run(["exim4", "-M", ended.queue_id], timeout=max(1.0, end - time.monotonic()))
            continue
        time.sleep(PAUSE)


def state_of(log: str, ident: str) -> tuple[Submission, bool]:
    """How far the mail with that Message-ID is: what is known, and whether that is its end."""
    named = re.search(rf"({_ID}) <= .* id={re.escape(ident)}(?: |$)", log, re.M)
    if not named:
        return Submission(False, "Exim's main log never named it"), False
    queue_id = named.group(1)
    events = re.findall(rf"{re.escape(queue_id)} (=>|->|\*\*|==|Completed) ?(.*)$", log, re.M)
    refused = next((words for sign, words in events if sign == "**"), None)
    if refused is not None:
        return Submission(False, _without_address(refused), queue_id), True
    if any(sign == "Completed" for sign, _rest in events):
        return _delivered([words for sign, words in events if sign in ("=>", "->")], queue_id), True
    waiting = [words for sign, words in events if sign == "=="]
    return Submission(False, _without_address(waiting[-1]) if waiting else "still in the queue", queue_id), False


def _delivered(deliveries: list[str], queue_id: str) -> Submission:
    replies = [re.search(r' C="((?:[^"\\]|\\.)*)"', words) for words in deliveries]
    local = next((words for words, reply in zip(deliveries, replies) if reply is None), None)
    if local is not None or not deliveries:
        return Submission(False, f"delivered on this host, not by the relay: {local or 'nothing'}", queue_id)
    return Submission(True, next(reply.group(1) for reply in replies if reply), queue_id)


def _without_address(words: str) -> str:
    """The reason: after the recipient, the router and the transport."""
    found = re.search(r" defer \(-?\d+\)(.*)", words) or re.search(r" T=\S+(.*)", words)
    return (found.group(1) if found else words).strip(" :")
