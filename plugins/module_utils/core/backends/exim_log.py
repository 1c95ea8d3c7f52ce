# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Following one mail through Exim's main log (Exim's specification, chapter 52) until the relay has answered."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from .base import Submission

if TYPE_CHECKING:
    from ..host import LogMark
    from ..port import Host

PAUSE = 0.2
_ID = r"[0-9A-Za-z]{6}-(?:[0-9A-Za-z]{11}|[0-9A-Za-z]{6})-[0-9A-Za-z]{2,4}"
_WAITING = "retry time not reached"


def follow(host: Host, mark: LogMark, message: bytes, timeout: float) -> Submission:
    """Wait until every recipient of the mail was accepted or one was refused, ``timeout`` seconds at most."""
    header = re.search(rb"^Message-ID:\s*<([^>]+)>", message, re.M | re.I)
    ident = header.group(1).decode("utf-8", "replace") if header else ""
    end, forced = time.monotonic() + timeout, False
    while True:
        ended, final = state_of(host.log(mark), ident)
        if final or time.monotonic() > end:
            return ended
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
