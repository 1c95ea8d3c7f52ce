# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""What Postfix cannot express of a service beside what its Capabilities say, and services that do not go together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from .. import marks
from ..errors import Problem
from ..service import Service
from .base import text_of
from .postfix import MAIN, MASTER, from_address, system_bundle
from .postfix_files import SHARED, is_ip, main_cf_values, map_path, sender_keys, transports

if TYPE_CHECKING:
    from ..port import Host


def problems(host: Host, service: Service) -> Iterator[Problem]:
    """What Postfix, or what is in its files already, cannot do of a service."""
    main, master = text_of(host, MAIN), text_of(host, MASTER)
    by_hand = main_cf_values(marks.outside(main))
    yield from _unreachable(service.host, by_hand.get("inet_protocols", "all"))
    shared = main_cf_values(marks.get(main, SHARED) or "")
    if service.senders:
        yield from _problems_by_senders(service, main, by_hand)
        if not master and not host.live:
            yield Problem("senders", f"need {MASTER}, which is not there", "install Postfix in the tree first")
    else:
        others = [name for name in marks.names(main) if name not in (SHARED, service.name)]
        if others:
            told = f"'{others[0]}' already takes all mail of this Postfix"
            yield Problem("senders", told, "give this service senders, or make the other one absent first")
        if marks.get(master, service.name) is not None and marks.get(main, service.name) is None:
            yield Problem("senders", "this service takes some senders' mail only", "make it absent first")
    yield from _conflicts(host, service, shared)
    needs_bundle = service.security != "none" and service.validate_certs and not service.ca_file
    if host.live and master and needs_bundle and not host.exists(system_bundle(host)):
        told = "is needed: this host has no CA certificates of its own to verify the relay by"
        yield Problem("ca_file", told, "install ca-certificates, or give ca_file")
    if master and not service.enabled and "retry" not in {agent.name for agent in transports(master)}:
        told = f"false needs the agent 'retry', which {MASTER} has not"
        yield Problem("enabled", told, "add 'retry unix - - y - - error' to it")


def _problems_by_senders(service: Service, main: str, by_hand: Mapping[str, str]) -> Iterator[Problem]:
    routes = by_hand.get("sender_dependent_default_transport_maps")
    if routes and not map_path(routes):
        told = f"main.cf has sender_dependent_default_transport_maps = {routes} already"
        yield Problem("senders", told, "move its entries into services, then remove that line")
    if service.from_address:
        told = "is not needed with senders: their mail keeps their address"
        yield Problem("from_address", told, "leave it out")
    if marks.get(main, service.name) is not None:
        yield Problem("senders", "this service takes all mail of the host", "make it absent first")


def _conflicts(host: Host, service: Service, shared: Mapping[str, str]) -> Iterator[Problem]:
    """Where this service and those that are there would get into each other's mail."""
    path = map_path(shared.get("sender_dependent_default_transport_maps", ""))
    routes = text_of(host, path) if path else ""
    taken = {
        line.split()[0]: name
        for name in marks.names(routes)
        if name != service.name
        for line in (marks.get(routes, name) or "").splitlines()
    }
    mine = sender_keys(service)
    for key in (key for key in mine if key in taken):
        yield Problem("senders", f"{key.lstrip('@')} goes through service '{taken[key]}' already", "name it in one")
    rewritten = from_address(shared) if service.senders else service.from_address
    option = "senders" if service.senders else "from_address"
    for key in {**taken, **dict.fromkeys(mine)} if rewritten else ():
        if key.lower() == rewritten.lower():
            told = f"the rewritten sender {rewritten} is one of the senders of '{taken.get(key, service.name)}'"
            yield Problem(option, f"{told}, which would get all mail", "rewrite to another address")
        elif key.startswith("@"):
            told = f"senders of {key[1:]} ('{taken.get(key, service.name)}') would be rewritten to {rewritten}"
            yield Problem(option, told, "name the addresses one by one instead of their domain")


def _unreachable(host: str, protocols: str) -> Iterator[Problem]:
    """Is the relay given by an address that Postfix is told not to use?"""
    family = "ipv6" if ":" in host else "ipv4"
    if is_ip(host) and not {"all", family} & set(re.split(r"[\s,]+", protocols)):
        told = f"is an {family.replace('ip', 'IP')} address, but main.cf has inet_protocols = {protocols}"
        yield Problem("host", told, f"give another address, or let inet_protocols have {family}")
