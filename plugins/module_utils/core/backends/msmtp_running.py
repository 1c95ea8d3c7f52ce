# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""msmtp at work: what may surprise those who call it, and one mail sent through it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from .base import Submission
from .msmtp_file import SYSTEM_ONLY

if TYPE_CHECKING:
    from ..host import Completed
    from ..port import Host

_LOGGED = re.compile(r"(\w+)='(.*?)'(?= \w+=|$)", re.S)


def cautions(host: Host, candidate: str, readers: tuple[str, str, int]) -> Iterator[str]:
    """What is right and may still surprise. ``readers``: owner, group and mode of a file with a secret."""
    new, program = host.read(candidate), host.read(host.which("msmtp") or "")
    helper = new is not None and b"\npasswordeval " in new.content
    owner, group, mode = readers if helper or new is None else (new.owner, new.group, new.mode)
    if new and program and not mode & 0o004:
        setgid = program.mode & 0o2000
        if not setgid or helper:  # a helper does not inherit the group
            secret = "access token" if b"\npasswordeval cat /var/lib/fleetmail/tokens/" in new.content else "password"
            why = f"the {secret}'s own file is not theirs to read" if setgid else "this msmtp is not setgid"
            yield (
                f"only {owner} and members of {group} can send, for {why}; "
                f"backend_options mode: '0644' lets every user send, and read the {secret}"
            )
    if host.which("sendmail") is None:
        yield "there is no sendmail: programs that call it need the package msmtp-mta"


def submit(host: Host, message: bytes, sender: str, recipients: Sequence[str], timeout: float) -> Submission:
    """Send it now: msmtp has no queue, and its log line says what the relay answered."""
    chosen = ["-f", sender] if sender else []
    argv = ["msmtp", "--logfile=-", *chosen, "--", *recipients]
    done = host.run(argv, data=message, timeout=timeout, environment=SYSTEM_ONLY)
    said = dict(_LOGGED.findall(done.out.strip()))
    reply = " ".join((said.get("smtpmsg") or said.get("errormsg") or _without_name(done)).split())
    queued = re.search(r"(?i)queued as ([\w.-]+)", reply)
    return Submission(done.code == 0, reply, queued.group(1) if queued else "")


def _without_name(done: Completed) -> str:
    return done.words.replace("msmtp: ", "") or f"exit code {done.code}"
