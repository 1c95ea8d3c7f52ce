# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Every way in which mail leaves a Postfix: ours and others', by default and by sender."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from .. import marks
from ..errors import FleetmailError, HostError, Problem
from . import postfix_by_hand as by_hand
from .auditing import Auditor, Found, Queue, service_name
from .base import Observed, text_of
from .postfix import MAIN, MASTER
from .postfix_by_hand import Route
from .postfix_files import SHARED, hops_shown, inline_secrets, split_nexthop, transports
from .postfix_tables import Table, contents, fault, leaves, look_up, pieces

if TYPE_CHECKING:
    from ..port import Host
    from .postfix import Postfix
    from .postfix_files import Transport

READERS = ("postfix",)  # a group that may read a map with passwords
ROUTING = ("transport_maps", *by_hand.BY_SENDER, "smtp_tls_policy_maps", "sender_canonical_maps", "smtp_generic_maps")
REWRITING = ("sender_canonical_maps", "canonical_maps", "smtp_generic_maps", "masquerade_domains", "smtp_header_checks")
ENDS = ("error", "discard", "local", "virtual")  # programs of agents that send nothing to another host
_SHOWN = 5  # keys of a map in one sentence


class Unasked:
    """The host without its programs: each of them waits a second before it refuses a broken main.cf."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)

    def which(self, program: str) -> None:
        """There is none."""


class PostfixAuditor(Auditor):
    """See ``Auditor``."""

    on_loopback = "inet_interfaces = loopback-only"
    lists_queue = "postqueue -p"
    main = ""
    values: Mapping[str, str] = {}
    agents: Mapping[str, Transport] = {}

    def present(self) -> bool:
        return self.installed or self.host.exists(MAIN)

    def look(self) -> None:
        self.main, master = text_of(self.host, MAIN), text_of(self.host, MASTER)
        self.secrets += [*inline_secrets(self.main), *inline_secrets(master)]
        self.agents = {agent.name: agent for agent in transports(master)}
        broken: list[str] = []
        self.values = by_hand.parameters(self.host, self.main, broken)
        for words in broken:
            self.tell("config-refused", MAIN, detail=words)
            self.host = self.software.host = cast("Host", Unasked(self.host))
        if self.main:
            self._look_at_ways(master)
        for found in self.found if broken else ():
            found.refused.append(Problem(MAIN, "is refused by Postfix", "mend it first"))
        from .postfix_audit_host import look_around

        look_around(self)

    def running(self) -> bool | None:
        return cast("Postfix", self.software).running(self.values["queue_directory"]) if self.main else None

    def queue(self) -> Queue | None:
        from .postfix_audit_host import queue

        return queue(self.host, self.values["queue_directory"]) if self.main and self.host.live else None

    # -- the ways ----------------------------------------------------------------------------------------------------

    def _look_at_ways(self, master: str) -> None:
        taking_all = [name for name in marks.names(self.main) if name != SHARED]
        for name in dict.fromkeys([*taking_all, *marks.names(master)]):
            self._managed(name, master, takes_all=name in taking_all)
        if not taking_all:
            self._default()
        self._by_senders()

    def _managed(self, name: str, master: str, takes_all: bool) -> None:
        found = self._add(Found(name, MAIN if takes_all else MASTER, {}, managed=True))
        try:
            observed = self.software.read(name)
        except FleetmailError as error:
            found.tell("config-refused", MAIN, detail=error.message)
            return
        found.form = observed.form
        self._take(found, observed)
        for what, is_, should in observed.faults:
            found.tell("overridden", detail=f"{what} is {is_}, and should be {should}")
        for override in observed.overrides:
            found.tell("overridden", override.option, detail=f"{override.option}: {override.problem}")
        route = by_hand.default_route(self.values, self.agents)
        self._options(found, takes_all)
        if not takes_all:
            mine = [agent for agent in transports(marks.get(master, name) or "") if by_hand.is_client(agent)]
            if not mine:
                return
            hop = "[{}]:{}".format(found.form.get("host", ""), found.form.get("port", 25))
            route = by_hand.default_route(self.values, self.agents, f"{mine[-1].name}:{hop}")
        self._inspect(found, route)

    def _default(self) -> None:
        everything = look_up(self.host, self.values["transport_maps"], ["*"])
        route = by_hand.default_route(self.values, self.agents, everything[0] if everything else "")
        found = self._way("default", route, ())
        found.form["from_address"] = by_hand.rewritten_sender(self.host, self.values)
        self._options(found, takes_all=True)
        if everything:
            told = f"has {everything[0]} for everything, which goes before the relay of a service"
            found.refused.append(Problem("transport_maps", told, "take * out of it first"))
        for parameter in REWRITING:
            if self.values.get(parameter) and not (parameter == REWRITING[0] and found.form["from_address"]):
                found.tell("rewrites-addresses", MAIN, "from_address", parameter=parameter)

    def _options(self, found: Found, takes_all: bool) -> None:
        """The backend's options that say what is so already."""
        values = self.values
        if takes_all and not values["mydestination"] and values["inet_interfaces"] == "loopback-only":
            found.options["null_client"] = True
        if found.managed and found.form.get("auth_type") == "oauth":
            from . import postfix_oauth

            found.options.update(postfix_oauth.options(cast("Postfix", self.software), found.name))

    def _by_senders(self) -> None:
        """Senders that share relay and login are one service."""
        ways: dict[tuple[str, str, str], tuple[Route, list[str]]] = {}
        users: dict[tuple[str, str, str], str] = {}  # a question to Postfix takes its time
        for route in by_hand.sender_routes(self.host, self.values, self.agents):
            by_sender = route.settings["smtp_sender_dependent_authentication"] == "yes"
            asked = (route.found.agent, route.hop, route.sender if by_sender else "")
            if asked not in users:
                login = by_hand.login(self.host, route)
                users[asked] = login.entry.partition(":")[0] if login else ""
            user = users[asked]
            ways.setdefault((route.found.agent, route.hop, user), (route, []))[1].append(route.sender)
        for route, senders in ways.values():
            name = split_nexthop(route.hop)[0].rpartition(" ")[2]
            found = self._way(service_name(name, [one.name for one in self.found]), route, senders)
            if any(sender.startswith("/") for sender in senders):
                told = "are chosen by patterns: " + ", ".join(senders)
                found.refused.append(Problem("senders", told, "name the addresses or domains"))

    def _way(self, name: str, route: Route, senders: Any) -> Found:
        """One way that somebody set up by hand."""
        found = self._add(Found(name, MAIN, {}))
        observed = Observed({})
        agent = self.agents.get(route.found.agent)
        sends = agent is None or by_hand.is_client(agent)  # what another agent is given is no host
        hops = list(pieces(route.hop))
        if sends and len(hops) > 1:
            found.tell("several-relays", MAIN, "host", hosts=hops_shown(hops))
            told = f"{hops_shown(hops[1:])} is not kept"
            found.lost.append(Problem("relayhost", told, "one host with several addresses"))
            route = route.to(hops[0])
        form = by_hand.form(cast("Postfix", self.software), route, observed)
        found.form = {
            **form,
            "enabled": not route.held,
            "from_address": "",
            "senders": tuple(sorted(sender.lstrip("@").lower() for sender in senders)),
        }
        self._take(found, observed)
        self._judge_hop(found, route)
        if found.form["host"]:
            self._inspect(found, route)
        else:
            self._judge_routing(found, route)
        return found

    def _judge_hop(self, found: Found, route: Route) -> None:
        host, form = str(found.form["host"]), found.form
        agent = self.agents.get(route.found.agent)
        if agent is not None and not by_hand.is_client(agent):
            self._judge_other_agent(found, agent)
        elif host.startswith("MX of "):
            form["host"] = host[len("MX of ") :]
            found.tell("relayhost-mx", MAIN, "host", host=form["host"], port=form["port"])
        elif not form["host"]:
            told = "there is no relay: mail goes straight to the recipients' mail servers"
            found.refused.append(Problem("host", told, "name a relay"))
        fallback = route.settings["smtp_fallback_relay"]
        if fallback:
            found.tell("several-relays", MAIN, "host", hosts=f"{route.hop}, {fallback}")
            found.lost.append(Problem("smtp_fallback_relay", f"{fallback} is not kept", "one host with two addresses"))

    def _judge_other_agent(self, found: Found, agent: Transport) -> None:
        program = agent.command.split(" ", 1)[0]
        told = f"mail goes to {agent.name} ({program} of master.cf), which is no SMTP client"
        if program in ENDS:
            told = f"there is no relay: no mail leaves this host ({agent.name})"
        else:
            found.tell("not-understood", MASTER, detail=told)
        found.form.update(host="", port=25, security="none", auth_type="none", username="", password=None)
        found.refused.append(Problem("host", told, "name a relay"))

    def _add(self, found: Found) -> Found:
        self.found.append(found)
        return found

    def _take(self, found: Found, observed: Observed) -> None:
        found.secrets += observed.secrets
        self.secrets += observed.secrets

    # -- what is wrong with one --------------------------------------------------------------------------------------

    def _inspect(self, found: Found, route: Route) -> None:
        self._judge_routing(found, route)
        level = by_hand.tls_level(self.host, route)
        if route.settings["smtp_tls_wrappermode"] == "yes" and level in ("none", "may"):
            found.tell("tls-wrapper-level", MAIN, "security", level=level)
            told = "contradicts itself: a wrapper of TLS, and no TLS"
            found.refused.append(Problem("security", told, "say which is meant: security: tls or none"))
        if level not in by_hand.LEVELS:
            found.tell("tls-level-unknown", MAIN, "security", level=level)
            found.refused.append(Problem("security", f"{level} is no TLS level", "say which is meant"))
        login = by_hand.login(self.host, route)
        if login is None or found.form.get("auth_type") == "none":
            return
        self._judge_password_maps(found, route)
        if not login.entry:
            self._missing(found, route, login.keys)
        self._judge_mechanisms(found, route)

    def _judge_routing(self, found: Found, route: Route) -> None:
        for parameter in ROUTING:
            for table in leaves(route.settings[parameter]):
                self._judge_table(found, parameter, table)
                if table.kind == "randmap":
                    found.tell("several-relays", MAIN, "host", hosts=table.target)

    def _judge_password_maps(self, found: Found, route: Route) -> None:
        parameter = "smtp_sasl_password_maps"
        agent = self.agents.get(route.found.agent)
        place = MASTER if agent is not None and parameter in agent.settings else MAIN
        for table in leaves(route.settings[parameter]):
            self._judge_table(found, parameter, table)
            self._judge_secrets(found, parameter, table, place)

    def _judge_table(self, found: Found, parameter: str, table: Table) -> None:
        if not table.asked:
            found.tell("map-unread", MAIN, parameter=parameter, table=table.kind)
            return
        kind = fault(self.host, table)
        opened = table.compiled if table.compiled and kind in ("map-missing", "map-broken") else table.target
        missing = opened if kind != "map-missing" or not self.host.exists(opened) else table.target
        if kind:
            found.tell(kind, missing, parameter=parameter)

    def _judge_secrets(self, found: Found, parameter: str, table: Table, place: str) -> None:
        if table.inside:
            found.tell("secret-in-line", place, "password", parameter=parameter)
            found.tell_of_secret(place, self.host.read(place))
        elif table.is_file:
            for path in dict.fromkeys((table.target, table.compiled)):
                self._judge_secret_file(found, path)

    def _judge_secret_file(self, found: Found, path: str) -> None:
        try:
            now = self.host.read(path) if path else None
        except HostError as error:
            found.tell("unreadable", error.problems[0].option, detail=error.problems[0].problem)
            return
        if now is not None and now.content.strip():
            found.tell_of_secret(path, now, READERS)

    def _missing(self, found: Found, route: Route, wanted: tuple[str, ...]) -> None:
        named = leaves(route.settings["smtp_sasl_password_maps"])
        unasked = [table.kind for table in named if not table.asked]
        unasked += ["pipemap"] * ("pipemap:" in route.settings["smtp_sasl_password_maps"])
        if unasked:
            told = f"may be in {unasked[0]}, which an audit does not ask"
            found.refused.append(Problem("username", told, "look there by hand"))
            return
        if any(fault(self.host, table) in ("map-missing", "map-broken") for table in named):
            return
        there = [key for table in named for key in contents(self.host, table) if not table.inside]
        where = ", ".join(table.target for table in named if table.is_file) or MAIN
        host = split_nexthop(route.hop)[0].rpartition(" ")[2]
        if any(host in key for key in there) and not set(wanted) & set(there):
            keys = ", ".join(sorted(there)[:_SHOWN])
            found.tell("map-key", where, "username", keys=keys, wanted=" or ".join(wanted))
        else:
            found.tell("credentials-missing", where, "username", host=host or route.hop)

    def _judge_mechanisms(self, found: Found, route: Route) -> None:
        settings, secured = route.settings, found.form["security"] in ("starttls", "tls")
        options = {"smtp_sasl_security_options": False, "smtp_sasl_tls_security_options": True}
        plain = "noplaintext" not in settings["smtp_sasl_security_options"]
        found.exposed = plain and by_hand.tls_level(self.host, route) in by_hand.LEVELS
        for parameter, by_tls in options.items():
            if (
                by_tls == (secured or found.form["security"] == "opportunistic")
                and "noplaintext" in settings[parameter]
            ):
                found.tell("sasl-no-plaintext", MAIN, "auth_type", parameter=parameter)
        if found.form["auth_type"] == "oauth" and not found.managed:
            found.tell("oauth-by-hand", MAIN, "auth_type")
            told = "the grant of an access token cannot be taken over"
            found.refused.append(Problem("auth_type", told, "see auth_type: oauth and smtp_oauth_token"))
