# Copyright: fleetmail.smtp contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What can be said of a hub before it is opened, and of the answer that it gives afterwards. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network
from typing import Any, Callable, NamedTuple, Union

Network = Union[IPv4Network, IPv6Network]

WIDEST = {4: 8, 6: 20}  # the shortest prefixes that a network of leaves can have
PRIVATE = ip_network("fc00::/7")  # of private use however wide (RFC 4193)
MAPPED = ip_network("::ffff:0:0/96")  # all of IPv4 in IPv6's clothes (RFC 4291 2.5.5.2)
LIMITS = {
    "relay_hub_message_size": (1024, 1 << 31),
    "relay_hub_recipients": (1, 10000),
    "relay_hub_connections": (1, 10000),
    "relay_hub_messages_per_minute": (1, 1000000),
    "relay_hub_processes": (1, 10000),
}
PATHS = ("relay_hub_certificate", "relay_hub_certificate_key", "relay_hub_client_ca")
FINGERPRINT = re.compile(r"([0-9A-Fa-f]{2}:){31}[0-9A-Fa-f]{2}")  # SHA-256


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"relay_hub_problems": relay_hub_problems, "relay_hub_answer": relay_hub_answer}


class Postfix(NamedTuple):
    """What the host said: its inet entries of master.cf, parameters of main.cf, and what is missing."""

    entries: Sequence[str] = ()
    parameters: Mapping[str, str] = {}
    missing: Sequence[str] = ()

    @classmethod
    def heard(cls, lines: Iterable[str]) -> Postfix:
        entries, parameters, missing = [], {}, []
        for line in lines:
            word, _space, rest = line.partition(" ")
            if word == "entry":
                entries.append(rest)
            elif word == "no":
                missing.append(rest)
            else:
                parameters[word] = rest
        return cls(entries, parameters, missing)


def relay_hub_problems(wanted: Mapping[str, Any], said: Sequence[str] = ()) -> list[str]:
    """Everything that is wrong with a hub's variables, and what on the host stands in its way: one sentence each."""
    postfix = Postfix.heard(said)
    checks = (_listen, _access, _networks, _clients, _tls, _limits)
    return [told for check in checks for told in check(wanted)] + list(_host(wanted, postfix))


def relay_hub_answer(probe: Mapping[str, Any], address: str, networks: Sequence[str], permit: str) -> str:
    """What is wrong with the answer that a hub gave to its own host at ``address``; "" when it is as it should be."""
    steps = probe.get("verification", {}).get("steps") or [{"name": "connect", "ok": False, "detail": ""}]
    last = steps[-1]
    if last["name"] in ("mail", "rcpt") and not last["ok"]:
        return ""
    if not last["ok"]:
        return "the hub does not answer as it should: {}: {}".format(last["name"], probe.get("msg", last["detail"]))
    among = any(ip_address(address) in ip_network(network) for network in networks)
    if permit == "permit_mynetworks" and among:
        return ""  # this host is one of the leaves
    return "the hub takes mail from its own host, which is none of the leaves"


def _listen(wanted: Mapping[str, Any]) -> Iterator[str]:
    listen = wanted["relay_hub_listen"]
    if not listen:
        yield "relay_hub_listen: is empty (for example 0.0.0.0:587)"
    for text in listen:
        if _address(text) is None:
            yield f"relay_hub_listen: '{text}' is not an address and a port (for example 0.0.0.0:587 or [::]:587)"
    if len(set(listen)) < len(listen):
        yield "relay_hub_listen: names an address twice"


def _address(text: str) -> tuple[str, int] | None:
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):(\d{1,5})", str(text))
    if found is None:
        return None
    host, port = found.group(1) or found.group(2), int(found.group(3))
    try:
        version = ip_address(host).version
    except ValueError:
        return None
    return (host, port) if 0 < port < 65536 and version == (6 if found.group(1) else 4) else None


def _access(wanted: Mapping[str, Any]) -> Iterator[str]:
    names = ("relay_hub_networks", "relay_hub_clients", "relay_hub_client_ca")
    given = [name for name in names if wanted[name]]
    if not given:
        yield "relay_hub_networks: nobody may use the hub (give networks, clients or client_ca)"
    if "relay_hub_clients" in given and "relay_hub_client_ca" in given:
        yield "relay_hub_client_ca: cannot go with relay_hub_clients (leave one of them out)"
    if wanted["relay_hub_security"] == "none":
        for name in given[0 if not wanted["relay_hub_networks"] else 1 :]:
            yield f"{name}: needs TLS (relay_hub_security: starttls)"


def _networks(wanted: Mapping[str, Any]) -> Iterator[str]:
    networks: list[Network] = []
    for text in wanted["relay_hub_networks"]:
        try:
            network = ip_network(str(text))
        except ValueError as error:
            yield f"relay_hub_networks: '{text}' is not a network ({error})"
            continue
        if network.version == 6 and network.overlaps(MAPPED):
            yield f"relay_hub_networks: '{text}' has all of IPv4 in it (give IPv4 networks as such)"
        else:
            networks.append(network)
    for whole in _collapsed(networks):
        if too_wide(whole):
            yield f"relay_hub_networks: {whole} is too wide, the hub would be open (give the networks of the leaves)"


def _collapsed(networks: Iterable[Network]) -> Iterator[Network]:
    listed = list(networks)
    yield from collapse_addresses(one for one in listed if isinstance(one, IPv4Network))
    yield from collapse_addresses(one for one in listed if isinstance(one, IPv6Network))


def too_wide(network: Network) -> bool:
    """Is it wider than any network of leaves can be?"""
    if isinstance(network, IPv6Network) and network.subnet_of(PRIVATE):  # type: ignore[arg-type]
        return False
    return network.prefixlen < WIDEST[network.version]


def _clients(wanted: Mapping[str, Any]) -> Iterator[str]:
    names = [str(client["name"]) for client in wanted["relay_hub_clients"]]
    for client in wanted["relay_hub_clients"]:
        if not re.fullmatch(r"[\w.-]+", str(client["name"])):
            yield "relay_hub_clients: '{}' is not a name (letters, digits, '.', '_' and '-')".format(client["name"])
        if not FINGERPRINT.fullmatch(str(client["fingerprint"])):
            hint = "openssl x509 -noout -fingerprint -sha256"
            yield "relay_hub_clients: {} has no SHA-256 fingerprint ({})".format(client["name"], hint)
    if len(set(names)) < len(names):
        yield "relay_hub_clients: names a leaf twice"


def _tls(wanted: Mapping[str, Any]) -> Iterator[str]:
    if wanted["relay_hub_security"] != "none":
        for name in PATHS[:2]:
            if not wanted[name]:
                yield f"{name}: is required with relay_hub_security: {wanted['relay_hub_security']}"
    for name in PATHS:
        path = str(wanted[name])
        if path and not re.fullmatch(r"/[^\s,${}\"']*", path):
            yield f"{name}: '{path}' is not an absolute path without spaces, commas, quotes and '$'"


def _limits(wanted: Mapping[str, Any]) -> Iterator[str]:
    for name, (least, most) in LIMITS.items():
        if not least <= int(wanted[name]) <= most:
            yield f"{name}: {wanted[name]} is out of range ({least} to {most})"


def _host(wanted: Mapping[str, Any], postfix: Postfix) -> Iterator[str]:
    if "postfix" in postfix.missing:
        return  # in check mode, before it is installed
    for missing in postfix.missing:
        if missing.startswith("file "):
            yield f"{missing[5:]}: is not there"
    for text in wanted["relay_hub_listen"]:
        found = _address(text)
        if found is not None:
            yield from _taken(text, found[1], postfix.entries, wanted["relay_hub_listen"])
            yield from _family(text, ":" in found[0], postfix)
    limit = postfix.parameters.get("message_size_limit", "0")
    if limit.isdigit() and 0 < int(limit) < int(wanted["relay_hub_message_size"]):
        yield f"relay_hub_message_size: Postfix takes {limit} bytes at most (message_size_limit in main.cf)"
    yield from _open(postfix.parameters.get("mynetworks", ""))


def _taken(text: str, port: int, entries: Sequence[str], ours: Sequence[str]) -> Iterator[str]:
    """Another entry for that port: the master that cannot bind an address ends, and no mail moves any more."""
    for entry in entries:
        service = entry.split()[0]
        last = service.rsplit(":", 1)[-1]
        if service not in ours and NAMED.get(last, last) == str(port):
            yield f"relay_hub_listen: {text} is taken by the entry '{service}' in master.cf (take another port)"


NAMED = {"smtp": "25", "submission": "587", "submissions": "465", "smtps": "465"}


def _family(text: str, six: bool, postfix: Postfix) -> Iterator[str]:
    protocols = postfix.parameters.get("inet_protocols", "all")
    if six and ("ipv6" in postfix.missing or protocols == "ipv4"):
        yield f"relay_hub_listen: {text} needs IPv6, which this host or inet_protocols in main.cf does not have"
    if not six and protocols == "ipv6":
        yield f"relay_hub_listen: {text} needs IPv4, which inet_protocols in main.cf does not have"


def _open(mynetworks: str) -> Iterator[str]:
    """The stock smtpd would be an open relay that uses our grant."""
    for word in re.split(r"[\s,]+", mynetworks):
        try:
            network = ip_network(word.replace("[", "").replace("]", ""), strict=False)
        except ValueError:
            continue  # a table, or a name
        if too_wide(network):
            yield f"mynetworks in main.cf has {word}: the stock smtpd would relay for everybody (narrow it first)"
