# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""What an audit says of a Postfix as a whole: whom it relays for, what SASL has, what waits, what is old in main.cf."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from .. import marks
from .auditing import Queue, is_network
from .base import text_of
from .postfix import MAIN
from .postfix_files import OURS, entries
from .postfix_tables import contents, tables

if TYPE_CHECKING:
    from ..port import Host
    from .postfix_audit import PostfixAuditor

QUEUES = ("deferred", "hold", "incoming", "active")
COUNTED_ONLY = 1000  # mails from which on the queue is not listed: that takes its time
LEGACY = {
    "smtp_use_tls": "smtp_tls_security_level",
    "smtp_enforce_tls": "smtp_tls_security_level",
    "smtp_tls_per_site": "smtp_tls_policy_maps",
}
_SASL = re.compile(r"lib(plain|login)\.so")
_DENIES = re.compile(r"(reject|defer|reject_unauth_destination|defer_unauth_destination)\Z")


def look_around(auditor: PostfixAuditor) -> None:
    """Tell what is to be told of all of it."""
    if not auditor.main:
        return
    _tell_of_settings(auditor)
    others = sorted(set(recipient_routes(auditor)))
    if others:
        keys = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
        auditor.tell("routes-by-recipient", MAIN, parameter="transport_maps", keys=keys)
    logs_in = any(found.form.get("auth_type") == "password" for found in auditor.found)
    if logs_in and auditor.installed and not _has_sasl(auditor.host):
        auditor.tell("sasl-library-missing")
    values = auditor.values
    interfaces = [one for one in re.split(r"[\s,]+", values["inet_interfaces"]) if one not in ("", "loopback-only")]
    anybody = "smtpd_relay_restrictions permits it" if permits_all(values) else ""
    if auditor.installed:
        auditor.tell_of_relaying(interfaces, networks(auditor.host, values), anybody)


def _tell_of_settings(auditor: PostfixAuditor) -> None:
    named = Counter(entry.setting[0] for entry in entries(marks.outside(auditor.main)))
    for parameter, times in sorted(named.items()):
        if parameter and times > 1:
            auditor.tell("duplicate-setting", MAIN, parameter=parameter)
        if parameter in LEGACY:
            auditor.tell("legacy-setting", MAIN, parameter=parameter, instead=LEGACY[parameter])


def _has_sasl(host: Host) -> bool:
    """Are the modules for PLAIN or LOGIN where Cyrus SASL looks for them?"""
    triplets = [f"/usr/lib/{name}" for name in host.names_in("/usr/lib") if "-linux-" in name]
    places = ["/usr/lib", "/usr/lib64", "/usr/local/lib", *triplets]
    return any(_SASL.match(name) for place in places for name in host.names_in(place + "/sasl2"))


def recipient_routes(auditor: PostfixAuditor) -> Iterator[str]:
    """The recipients that transport(5) sends another way than the rest."""
    for table in tables(auditor.values["transport_maps"]):
        for key, answer in contents(auditor.host, table).items():
            if key != "*" and OURS not in answer and not answer.startswith(("local", "discard", "error")):
                yield key


def permits_all(values: Mapping[str, str]) -> bool:
    """Do the restrictions let everybody relay (SMTPD_ACCESS_README)? What a table says is not looked at."""
    given = values["smtpd_relay_restrictions"] or values["smtpd_recipient_restrictions"]
    for word in re.split(r"[\s,]+", given):
        if word == "permit":
            return True
        if _DENIES.match(word):
            return False
    return False


def networks(host: Host, values: Mapping[str, str]) -> list[str]:
    """The networks of mynetworks, those in files and tables too."""
    found: list[str] = []
    for word in re.split(r"[\s,]+", values["mynetworks"]):
        if word.startswith("/"):
            found += text_of(host, word).split()
        elif ":/" in word:
            found += [key for table in tables(word) for key in contents(host, table)]
        else:
            found.append(word)
    return [word for word in found if is_network(word)]


def queue(host: Host, directory: str) -> Queue:
    """What waits. A long queue is only counted."""
    count = sum(1 for name in QUEUES for _mail in _mails(host, f"{directory}/{name}"))
    if not 0 < count <= COUNTED_ONLY:
        return Queue(count)
    said = host.run(["postqueue", "-j"], timeout=20)
    times = []
    for line in said.out.split("\n"):
        try:
            times.append(float(json.loads(line)["arrival_time"]))
        except (ValueError, KeyError, TypeError):
            continue
    return Queue(count, min(times, default=0))


def _mails(host: Host, directory: str, depth: int = 2) -> Iterator[str]:
    """The queue files below a directory: those of one character are directories (hash_queue_depth)."""
    for name in host.names_in(directory):
        if len(name) > 1:
            yield name
        elif depth:
            yield from _mails(host, f"{directory}/{name}", depth - 1)
