# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""How mail leaves a Postfix that others set up: by postconf(5), whichever of its many ways they took.

Imported where a service is not ours yet: before its first change, and by an audit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import marks
from ..redaction import Secret
from ..service import is_address
from .postfix import ASKED, CHECKED, DEFAULTS, MANDATORY, Effective, from_address
from .postfix_files import OURS, hops_shown, main_cf_values, seconds, split_nexthop
from .postfix_tables import Table, contents, look_up, pieces, tables

if TYPE_CHECKING:
    from ..port import Host
    from ..service import Service
    from .base import Observed
    from .postfix import Postfix
    from .postfix_files import Transport

BY_SENDER = ("sender_dependent_relayhost_maps", "sender_dependent_default_transport_maps")
_MORE = (
    "smtp_use_tls", "smtp_enforce_tls", "smtp_tls_enforce_peername", "smtp_tls_per_site", "tls_append_default_CA",
    "smtp_sender_dependent_authentication", "smtp_fallback_relay", "smtp_header_checks", "relay_transport",
    "inet_interfaces", "mynetworks", "mynetworks_style", "smtpd_relay_restrictions", "smtpd_recipient_restrictions",
    "sender_canonical_maps", "smtp_generic_maps", "myhostname", "mydomain", "config_directory",
    "multi_instance_directories",
)  # fmt: skip
NAMES = tuple(dict.fromkeys((*ASKED, *_MORE)))
FRESH = {  # what holds in a tree where main.cf says nothing (postconf -d)
    **DEFAULTS, "smtp_tls_enforce_peername": "yes", "inet_interfaces": "all", "mynetworks_style": "host",
    "mydestination": "$myhostname, localhost.$mydomain, localhost",
    "smtpd_relay_restrictions": "permit_mynetworks, permit_sasl_authenticated, defer_unauth_destination",
    "smtp_sasl_security_options": "noplaintext, noanonymous", "config_directory": "/etc/postfix",
    "smtp_sasl_tls_security_options": "$smtp_sasl_security_options", "smtp_sasl_auth_enable": "no",
    "smtp_sasl_tls_verified_security_options": "$smtp_sasl_tls_security_options", "smtp_tls_wrappermode": "no",
}  # fmt: skip
ANYBODY = "somebody@elsewhere.invalid"  # a sender that no entry of its own can be for (RFC 6761 6.4)
LEVELS = ("none", "may", "dane", *MANDATORY)
_SITE = {"NONE": "none", "MAY": "may", "MUST": "verify", "MUST_NOPEERMATCH": "encrypt"}
_REFERENCE = re.compile(r"\$(?:(\$)|(\w+)|\{(\w+)(?:([?:])((?:[^{}]|\{[^{}]*\})*))?\}|\((\w+)(?:([?:])([^()]*))?\))")
_BOTH = re.compile(r"\{([^{}]*)\}\s*(?::\s*\{([^{}]*)\})?")
_DEPTH = 20


class Route(NamedTuple):
    """One way that mail takes: of which sender ("" for all), by which agent and hop, with what settings."""

    sender: str
    found: Effective
    held: bool = False

    @property
    def hop(self) -> str:
        return self.found.hop

    def to(self, hop: str) -> Route:
        """The same way to another hop."""
        return self._replace(found=self.found._replace(hop=hop))

    @property
    def settings(self) -> Mapping[str, str]:
        return self.found.settings


class Login(NamedTuple):
    """What Postfix logs in with: the entry it finds, in which table, and the keys that it looks for."""

    entry: str
    table: Table | None
    keys: tuple[str, ...]


def read(backend: Postfix, service: Service, observed: Observed) -> None:
    """Put into ``observed`` how the service's mail leaves without us, if it does so in a way that the form can say."""
    detail, host = observed.detail, backend.host
    if not detail or any(service.name in marks.tidy(detail[key])[1] for key in ("main", "master")):
        return  # not there, or what is left of a block of ours: that is a change by hand, not a set-up
    values = parameters(host, detail["main"])
    if not service.senders and any(not name.startswith("-") for name in marks.names(detail["main"])):
        return
    route = _route_of(host, service, values, detail["agents"])
    if route is None or not route.hop or not is_client(detail["agents"].get(route.found.agent)):
        return
    senders = tuple(sorted(sender.lstrip("@") for sender in service.senders))
    found = form(backend, route, observed)
    rewritten = "" if senders else rewritten_sender(host, values)
    observed.form = {**observed.form, **found, "senders": senders, "from_address": rewritten}
    if senders:
        observed.form["enabled"] = not route.held
    observed.theirs = True


def _route_of(host: Host, service: Service, values: Mapping[str, str], agents: Mapping[str, Transport]) -> Route | None:
    """The one way that all of the service's senders take; None when there is none, or several."""
    if not service.senders:
        return default_route(values, agents)
    ways = [sender_route(host, values, agents, sender) for sender in service.senders]
    same = {(way.found.agent, way.hop) for way in ways if way}
    return ways[0] if len(same) == 1 and all(ways) else None


# -- parameters --------------------------------------------------------------------------------------------------------


def parameters(host: Host, main: str, broken: list[str] | None = None) -> dict[str, str]:
    """The effective parameters, expanded: Postfix' own answer, else by our reading of main.cf.

    ``broken`` gets what postconf(1) says of a configuration that it refuses.
    """
    if host.live and host.which("postconf"):
        said = host.run(["postconf", "-x", *NAMES])
        if not said.code:
            lines = (line.partition(" =") for line in said.out.split("\n"))
            return {**dict.fromkeys(NAMES, ""), **{key: value.strip() for key, equals, value in lines if equals}}
        if broken is not None:
            broken.append(_without_values(said.words))
    values = {**dict.fromkeys(NAMES, ""), **FRESH, **main_cf_values(main)}
    return {key: expanded(values[key], values) for key in NAMES}


def _without_values(words: str) -> str:
    """What postconf(1) says without what it quotes: that may be a secret that nobody has learnt yet."""
    quotes = r"(overriding earlier entry: [^\s=]+|attribute name|macro reference)[:=].*?(?= postconf: |\Z)"
    return re.sub(quotes, r"\1", words)


def expanded(text: str, values: Mapping[str, str], depth: int = 0) -> str:
    """The text with every ``$name``, ``${name?text}`` and ``${name:text}`` filled in (postconf(5))."""

    def filled(place: re.Match[str]) -> str:
        dollar, plain, braced, sign, then, round_, round_sign, round_then = place.groups()
        if dollar or depth > _DEPTH:
            return "$"
        name, sign, then = plain or braced or round_, sign or round_sign, then or round_then
        value = values.get(name, "")
        if sign:
            value = _chosen(bool(value) == (sign == "?"), then or "")
        return expanded(value, values, depth + 1)

    return _REFERENCE.sub(filled, text)


def _chosen(holds: bool, then: str) -> str:
    """What stands after ``?`` or ``:``, also as ``{one}:{other}`` (since Postfix 3.0)."""
    both = _BOTH.fullmatch(then.strip())
    if both is None:
        return then if holds else ""
    return (both.group(1) if holds else both.group(2) or "").strip()


# -- routes ------------------------------------------------------------------------------------------------------------


def default_route(values: Mapping[str, str], agents: Mapping[str, Transport], way: str = "") -> Route:
    """The way of mail that nothing else decides about: ``way`` as transport(5) has it, else default_transport."""
    return _route("", way or values["default_transport"], values, agents)


def sender_route(host: Host, values: Mapping[str, str], agents: Mapping[str, Transport], sender: str) -> Route | None:
    """The way of one sender's mail; None when it is nobody's own."""
    sender = sender if "@" in sender else "@" + sender
    keys = [sender] if sender.startswith("@") else sender_keys(sender)
    for parameter in BY_SENDER[::-1]:
        answer = look_up(host, values[parameter], keys)
        if answer and answer[0].upper() != "DUNNO":
            return _sent(parameter, answer[0], sender, values, agents)
    return None


def sender_keys(sender: str) -> list[str]:
    """What Postfix looks for, in turn: the address, its domain."""
    return [sender, "@" + sender.rpartition("@")[2]]


def sender_routes(host: Host, values: Mapping[str, str], agents: Mapping[str, Transport]) -> Iterator[Route]:
    """The ways of all senders that have one of their own, but those of our agents; patterns as they stand."""
    for parameter in BY_SENDER[::-1]:
        for table in tables(values[parameter]):
            for sender, answer in contents(host, table).items():
                if OURS not in answer and answer.upper() != "DUNNO":
                    yield _sent(parameter, answer, sender, values, agents)


def _sent(
    parameter: str, answer: str, sender: str, values: Mapping[str, str], agents: Mapping[str, Transport]
) -> Route:
    if parameter == BY_SENDER[1]:
        return _route(sender, answer, values, agents)
    agent = values["default_transport"].partition(":")[0]
    return _route(sender, f"{agent}:{answer}", values, agents)


def _route(sender: str, way: str, values: Mapping[str, str], agents: Mapping[str, Transport]) -> Route:
    """``way``: transport and next hop as transport(5) has them; either may be missing."""
    name, _colon, hop = way.partition(":")
    held = name == "retry"
    name = values["default_transport"].partition(":")[0] if name in ("", "retry") else name
    agent = agents.get("smtp" if name == "retry" else name)
    own = {key: expanded(value, values) for key, value in agent.settings.items()} if agent else {}
    deferred = agent is not None and agent.name in re.split(r"[\s,]+", values["defer_transports"])
    return Route(
        sender,
        Effective({**values, **own}, agent.name if agent else name, values["relayhost"] if held or not hop else hop),
        held or deferred,
    )


def is_client(agent: Transport | None) -> bool:
    """Does the agent speak SMTP to another host?"""
    return agent is not None and agent.command.split(" ", 1)[0] in ("smtp", "lmtp")


# -- the form ----------------------------------------------------------------------------------------------------------


def form(backend: Postfix, route: Route, observed: Observed) -> dict[str, Any]:
    """The form's fields of a way, without those that say whose mail takes it."""
    several = list(pieces(route.hop))
    route = route.to(several[0]) if several else route
    settings = route.settings
    host, port = split_nexthop(route.hop) if route.hop else ("", 25)
    if len(several) > 1:
        host = hops_shown(several)  # the service has the first one, and that is a difference
    level = tls_level(backend.host, route)
    security = "none" if level == "none" else "opportunistic" if level not in MANDATORY else "starttls"
    if settings["smtp_tls_wrappermode"] == "yes" and security != "none":
        security = "tls"
    validates = {True: True, False: None if level in ("dane-only", "fingerprint") else False}
    return {
        "host": host,
        "port": port,
        "security": security,
        "validate_certs": security == "none" or validates[level in CHECKED],
        "ca_file": _trusted(backend, settings),
        "timeout": seconds(settings["smtp_connect_timeout"]),
        **_credentials(backend.host, route, observed),
    }


def _trusted(backend: Postfix, settings: Mapping[str, str]) -> str | None:
    named = backend.trusted(settings)
    return "" if named is None and settings["tls_append_default_CA"] == "yes" else named


def tls_level(host: Host, route: Route) -> str:
    """The TLS level for the next hop: its policy, else the level, else what the settings before Postfix 2.3 say."""
    settings = route.settings
    policy = look_up(host, settings["smtp_tls_policy_maps"], [route.hop, *_parents(route.hop)])
    if policy and policy[0].split():
        return policy[0].split()[0].lower()
    level = settings["smtp_tls_security_level"].lower()
    if level:
        return level
    name = split_nexthop(route.hop)[0].rpartition(" ")[2]
    site = look_up(host, settings["smtp_tls_per_site"], [name, route.hop])
    if site and site[0].upper() in _SITE:
        return _SITE[site[0].upper()]
    if settings["smtp_enforce_tls"] == "yes":
        return "encrypt" if settings["smtp_tls_enforce_peername"] == "no" else "verify"
    return "may" if settings["smtp_use_tls"] == "yes" else "none"


def _parents(hop: str) -> list[str]:
    """A next hop that is a domain is also found by its parents' names."""
    if hop.startswith("["):
        return []
    labels = hop.partition(":")[0].split(".")
    return ["." + ".".join(labels[number:]) for number in range(1, len(labels))]


def login(host: Host, route: Route) -> Login | None:
    """What Postfix logs in with; None when it does not log in at all."""
    settings = route.settings
    if settings["smtp_sasl_auth_enable"] != "yes" or not route.hop:
        return None
    sender = route.sender if settings["smtp_sender_dependent_authentication"] == "yes" else ""
    senders = sender_keys(sender) if "@" in sender.lstrip("@") else [sender] if sender else []
    name = split_nexthop(route.hop)[0].rpartition(" ")[2]
    keys = (*senders, name, route.hop)
    answer = look_up(host, settings["smtp_sasl_password_maps"], keys)
    return Login(answer[0] if answer else "", answer[1] if answer else None, keys)


def _credentials(host: Host, route: Route, observed: Observed) -> dict[str, Any]:
    found = login(host, route)
    if found is None:
        return {"auth_type": "none", "username": "", "password": None}
    for table in tables(route.settings["smtp_sasl_password_maps"]):
        observed.secrets += [text for entry in contents(host, table).values() for text in secrets_in(entry)]
    username, colon, password = found.entry.partition(":")
    if "xoauth2" in route.settings["smtp_sasl_mechanism_filter"].lower() and colon:
        return {"auth_type": "oauth", "username": username, "password": None}
    return {"auth_type": "password", "username": username, "password": Secret(password) if colon else None}


def secrets_in(entry: str) -> Sequence[str]:
    """What is not to be shown of an entry of a password map."""
    password = entry.partition(":")[2]
    return (password, entry) if password else ()


def rewritten_sender(host: Host, values: Mapping[str, str]) -> str:
    """The one address that all senders are rewritten to, however it is said; empty when they are not."""
    ours = from_address(values)
    if ours:
        return ours
    classes = set(re.split(r"[\s,]+", values["sender_canonical_classes"]))
    answer = look_up(host, values["sender_canonical_maps"], [ANYBODY, "@" + ANYBODY.partition("@")[2]])
    both = {"envelope_sender", "header_sender"} <= classes
    return answer[0] if answer and both and is_address(answer[0]) else ""
