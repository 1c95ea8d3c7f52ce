# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""What an audit says of a Postfix as a whole: whom it relays for, what SASL has, what waits, what is old in main.cf."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from .. import marks
from . import postfix_by_hand as by_hand
from .auditing import Queue, is_network
from .base import text_of
from .postfix import MAIN, MASTER
from .postfix_files import OURS, entries, transports
from .postfix_tables import contents, leaves, pieces, tables

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
_TYPED = re.compile(r"[a-z]{3,}:[/{\w]")  # a table, and no IPv6 address
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
    if values["content_filter"]:
        auditor.tell("content-filter", MAIN, filter=values["content_filter"])
    if values["multi_instance_directories"]:
        auditor.tell("other-instances", MAIN, places=values["multi_instance_directories"])
    _tell_of_networks(auditor)
    for server in servers(text_of(auditor.host, MASTER)) if auditor.installed else ():
        own = {**values, **{key: by_hand.expanded(value, values) for key, value in server.settings.items()}}
        anybody = "smtpd_relay_restrictions permits it" if permits_all(own) else ""
        auditor.tell_of_relaying(interfaces(server, own), networks(auditor.host, own), anybody)


def _tell_of_networks(auditor: PostfixAuditor) -> None:
    for word in filter(_TYPED.match, pieces(auditor.values["mynetworks"])):
        for table in leaves(word):
            if not table.asked:
                auditor.tell("map-unread", MAIN, parameter="mynetworks", table=table.kind)


class Server(NamedTuple):
    """An entry of master.cf that takes mail by SMTP: the address that it listens on, if that is said, and -o."""

    address: str
    settings: dict[str, str]


def servers(master: str) -> Iterator[Server]:
    """The ``inet`` services of master.cf that are smtpd(8) or postscreen(8)."""
    for service in transports(master, "inet"):
        if service.command.split(" ", 1)[0] in ("smtpd", "postscreen"):
            yield Server(service.name.rpartition(":")[0], service.settings)


def interfaces(server: Server, values: Mapping[str, str]) -> list[str]:
    """Where it listens: what master(5) has before the port, else inet_interfaces."""
    if server.address:
        return ["all" if server.address.strip("[]") in ("0.0.0.0", "::") else server.address]  # noqa: S104 - no socket
    return [one for one in re.split(r"[\s,]+", values["inet_interfaces"]) if one not in ("", "loopback-only")]


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
    given = [values["smtpd_relay_restrictions"], values["smtpd_recipient_restrictions"]]
    return any("permit" in re.split(r"[\s,]+", one) for one in given) and not any(map(_denies, given))


def _denies(restrictions: str) -> bool:
    """Is somebody refused before all are permitted? Each list is asked, and one that refuses is enough."""
    for word in re.split(r"[\s,]+", restrictions):
        if word == "permit":
            return False
        if _DENIES.match(word):
            return True
    return False


def networks(host: Host, values: Mapping[str, str]) -> list[str]:
    """The networks of mynetworks, those in files and tables too."""
    found: list[str] = []
    for word in pieces(values["mynetworks"]):
        if word.startswith("/"):
            found += text_of(host, word).split()
        elif _TYPED.match(word):
            found += [key for table in leaves(word) for key in contents(host, table)]
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
