# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""What an auditor is: it finds every way in which one software of a host sends mail, whoever set it up.

Reading only. What is said of TLS, credentials and relays in general is the engine's (audit.py), by the form alone; an
auditor tells what only that software has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import Problem
from ..findings import Finding, finding
from ..service import is_loopback

if TYPE_CHECKING:
    from ..host import Snapshot
    from .base import Backend


_EVERYBODY = {4: 8, 6: 12}  # a network of fewer bits is nobody's own: an address block of IANA's has as many


class Queue(NamedTuple):
    """What waits: how many mails, and when the oldest of them came (seconds since the epoch, 0: not known)."""

    mails: int
    oldest: float = 0


class Found:
    """One way of sending mail, in the form's words; ``security`` may be ``opportunistic`` beside the form's own."""

    def __init__(self, name: str, path: str, form: dict[str, Any], managed: bool = False, user: str = "") -> None:
        self.name, self.path, self.form, self.managed = name, path, form, managed
        self.user = user  # whose home it is in; empty for the host's
        self.findings: list[Finding] = []
        self.secrets: list[str] = []
        self.verification: dict[str, Any] | None = None
        self.exposed = False  # do credentials go out in clear where the relay offers no TLS?
        self.options: dict[str, Any] = {}  # backend_options that say what is so already
        self.lost: list[Problem] = []  # what a service cannot carry and would go with a take-over
        self.refused: list[Problem] = []  # why it cannot become a service at all

    def tell(self, kind: str, path: str = "", field: str = "", **facts: Any) -> None:
        """Add a finding, once."""
        told = finding(kind, path, field, **facts)
        if told not in self.findings:
            self.findings.append(told)

    def tell_of_secret(self, path: str, now: Snapshot | None, readers: Iterable[str] = ()) -> None:
        """Who can read a file with a secret beside its owner and the groups ``readers``?"""
        who = wide(now, readers) if now else ""
        if now and who:
            mode = f"{now.mode:04o}"
            self.tell("secret-readable", path, mode=mode, owner=now.owner, group=now.group, readers=who)


class Auditor:
    """Base of all auditors. A subclass is one file and one line in ``auditors.py``."""

    on_loopback = ""  # the setting by which the software listens on loopback addresses alone
    lists_queue = ""  # the command that shows what waits

    def __init__(self, software: Backend, homes: bool = False) -> None:
        """``homes``: look at what users have in their home directories, too."""
        self.software, self.host, self.homes = software, software.host, homes
        self.installed = software.installed()
        self.found: list[Found] = []
        self.secrets: list[str] = []
        self.findings: list[Finding] = []  # about the software as a whole

    def present(self) -> bool:
        """Is the software there, or something of it that is worth a look?"""
        return self.installed

    def look(self) -> None:
        """Fill ``found``, ``findings`` and ``secrets``; what was found before something failed counts."""
        raise NotImplementedError

    def running(self) -> bool | None:
        """Does its service run? None where there is none."""
        return None

    def queue(self) -> Queue | None:
        """What waits; None where there is no queue, or where it cannot be seen."""
        return None

    def tell(self, kind: str, path: str = "", **facts: Any) -> None:
        """Add a finding about the software as a whole, once."""
        told = finding(kind, path, **facts)
        if told not in self.findings:
            self.findings.append(told)

    def tell_of_relaying(self, interfaces: Iterable[str], networks: Iterable[str], anybody: str = "") -> None:
        """Does it take mail from others, for whom, and where does it listen?

        ``interfaces``: addresses, "all" for every one; ``networks``: whose mail is relayed; ``anybody``: why all are.
        """
        listening = [one for one in interfaces if not is_loopback(one.strip("[]"))]
        if not listening:
            return
        where = "all interfaces" if "all" in listening else ", ".join(listening)
        classes = {network: reach(network) for network in networks}
        everybody = [network for network, kind in classes.items() if kind == "everybody"]
        strangers = [network for network, kind in classes.items() if kind == "strangers"]
        if anybody or everybody:
            who = anybody or ", ".join(everybody)
            self.tell("open-relay", how=self.on_loopback, detail=who, interfaces=where)
        elif strangers:
            self.tell("relays-for-networks", detail=", ".join(strangers), interfaces=where)
        elif all(kind == "itself" for kind in classes.values()):
            self.tell("listens", how=self.on_loopback, interfaces=where)


def wide(now: Snapshot, readers: Iterable[str] = ()) -> str:
    """Who can read a file beside its owner and the groups that may; empty when nobody can."""
    if now.mode & 0o004:
        return "everybody"
    return f"group {now.group}" if now.mode & 0o040 and now.group not in ("root", *readers) else ""


def reach(network: str) -> str:
    """Whose addresses a network has: ``everybody``'s, ``strangers``', the host ``itself``'s, or a ``house``'s."""
    text = re.sub(r"[\[\]]", "", network)
    if text in ("*", "0/0"):
        return "everybody"
    try:
        whole = ip_network(text, strict=False)
    except ValueError:
        return "house"
    # both halves: before Python 3.11 only two ends are looked at, which in 0.0.0.0/0 are private ones
    if whole.prefixlen < _EVERYBODY[whole.version] and not all(half.is_private for half in whole.subnets()):
        return "everybody"
    mapped = getattr(whole.network_address, "ipv4_mapped", None)
    if whole.is_loopback or (mapped is not None and mapped.is_loopback):
        return "itself"
    return "strangers" if whole.is_global and whole.num_addresses > 1 else "house"


def is_network(text: str) -> bool:
    """Is it an address or a network?"""
    try:
        ip_network(re.sub(r"[\[\]]", "", text), strict=False)
    except ValueError:
        return False
    return True


def service_name(text: str, taken: Iterable[str]) -> str:
    """A name for a service made of a text (of a relay, of an account) that no other one has."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-._")[:55] or "service"
    known = set(taken)
    names = [plain, *(f"{plain}-{number}" for number in range(2, len(known) + 3))]
    return next(name for name in names if name not in known)
