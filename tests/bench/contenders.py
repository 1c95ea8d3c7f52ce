# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who runs: the plays, in which runs, on how many hosts at most."""

from __future__ import annotations

from typing import NamedTuple

FEW = 10  # the most hosts for what takes minutes at a hundred
VERY_FEW = 4  # the same, for what takes minutes at ten


class Run(NamedTuple):
    """One way to run a play. once: it needs fresh hosts, so it has one sample a fleet."""

    label: str
    changes: bool | None
    arguments: tuple[str, ...] = ()
    once: bool = False


FIRST = Run("first run", True, once=True)
SECOND = Run("second run", False)
DRIFT = Run("drift check", False, ("--check", "--diff"))


class Contender(NamedTuple):
    """A play and what is measured of it.

    fleet: contenders with the same name share hosts. most: the largest fleet it is run on. judged: its hosts must be
    null clients of the relay after its first run. slow: fewer rounds.
    """

    name: str
    play: str
    runs: tuple[Run, ...]
    fleet: str
    most: int = 10**6
    judged: bool = True
    slow: bool = True


PING = Contender("ansible.builtin.ping", "ping", (SECOND,), "ours", judged=False, slow=False)
OURS = Contender("smtp_service", "smtp_service", (FIRST, SECOND, DRIFT), "ours", slow=False)
TEXTBOOK = Contender("textbook, lean", "textbook_lean", (FIRST, SECOND), "textbook")
ROLE = Contender("debops.debops.postfix", "debops", (FIRST, SECOND), "debops", most=VERY_FEW)
JOB = (
    OURS,
    PING,
    TEXTBOOK,
    Contender("textbook, without package", "textbook_lean", (Run("second run", False, ("--skip-tags", "package")),),
              "textbook", most=FEW, judged=False),
    Contender("textbook, usual", "textbook", (FIRST, SECOND), "usual", most=FEW),
    ROLE,
)  # fmt: skip

SENDING = Run("test send", None)
OUR_SEND = Contender("smtp_probe", "send_probe", (SENDING,), "ours", most=FEW, judged=False, slow=False)
THEIR_SEND = Contender("community.general.mail", "send_mail", (SENDING,), "ours", most=FEW, judged=False, slow=False)
SENDERS = (
    OUR_SEND,
    THEIR_SEND,
    Contender("smtp_service", "send_service", (SENDING,), "ours", most=FEW, judged=False, slow=False),
)
