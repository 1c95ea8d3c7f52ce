# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The document: every host of a fleet at one time, and what follows from them. All other formats are views of it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from ...module_utils.core.errors import Problem
from . import shape
from .net import Net
from .problem import NoReport
from .shape import take

Record = dict[str, Any]
SCHEMA_VERSION = 1  # raised when a key goes or changes its meaning
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
# Different in every run although nothing has changed, and the words of a step that went well likewise.
PASSING = frozenset(
    (
        "generated_at", "observed_at", "kept_observed_at", "dropped_observed_at",
        "refreshed_at", "expires_at", "refresh_expires_at", "ms", "message_id", "queue_id", "reply",
    )
)  # fmt: skip
TOKEN_SEVERITY = {
    "expiring": "warning",
    "pending": "warning",
    "unreachable": "warning",
    "unauthorized": "critical",
    "expired": "critical",
    "revoked": "critical",
    "misconfigured": "critical",
    "blocked": "critical",
}


def moment(seconds: float) -> str:
    """An epoch time as ISO 8601 UTC."""
    return datetime.fromtimestamp(int(seconds), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_of(time: str) -> float | None:
    """Epoch seconds of an ISO 8601 UTC time; None when it is none."""
    if not TIME.fullmatch(time):
        return None
    try:
        return datetime.strptime(time, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc).timestamp()
    except ValueError:
        return None


def complete(hosts: Iterable[Record], made: Mapping[str, Any], certificate_days: int) -> Record:
    """The document of these hosts, with everything that follows from them as it is at ``generated_at``.

    made: title, generator, generated_at, sources, replaced. certificate_days: from when the end of one is a finding.
    """
    now = seconds_of(made["generated_at"]) or 0.0
    judged = sorted((_judged(host, now, certificate_days) for host in hosts), key=lambda host: natural(host["name"]))
    certificates = list(_certificates(judged))
    return {
        "schema_version": SCHEMA_VERSION,
        **made,
        "certificate_days": certificate_days,
        "summary": _summary(judged, certificates, certificate_days),
        "certificates": certificates,
        "hosts": judged,
    }


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts web2 before web10."""
    parts = re.findall(r"[0-9]{1,18}|[^0-9]+|[0-9]+", name)
    return [(0, int(part), "") if part.isdigit() and part.isascii() else (1, 0, part.lower()) for part in parts]


def _judged(host: Record, now: float, certificate_days: int) -> Record:
    """The host with days counted up to now, and the findings that this report makes itself."""
    judged = {**host, "tokens": [_aged(token, "refresh_expires_at", now) for token in host["tokens"]]}
    for key in ("services", "consumers", "probes"):
        judged[key] = [_with_aged_certificate(one, now) for one in host[key]]
    findings = [one for one in host["findings"] if one["origin"] == "audit"]
    findings += [_token_finding(token) for token in judged["tokens"] if token["status"] in TOKEN_SEVERITY]
    for relay, tls in dict(_seen(judged)).items():
        if tls["days_left"] is not None and tls["days_left"] <= certificate_days:
            findings.append(_certificate_finding(relay, tls))
    judged["findings"] = sorted(findings, key=lambda one: shape.SEVERITIES.index(one["severity"]))
    return judged


def _seen(host: Record) -> Iterator[tuple[str, Record]]:
    """The certificates that a host was shown: relay, and what is known of it."""
    for key, name in (("services", _probed), ("consumers", relay_of), ("probes", _target)):
        for one in host[key]:
            tls = (one["verification"] or {}).get("tls")
            if tls and tls["not_after"]:
                yield name(one), tls


def _probed(service: Record) -> str:
    """The relay that a service's probe spoke with: the one of the definition, also where the host has another."""
    wanted = {one["field"]: one["after"] for one in service["drift"] if one["field"] in ("host", "port")}
    return relay_of({"form": {**service["form"], **wanted}})


def _target(probe: Record) -> str:
    return str(probe["target"])


def relay_of(service: Record) -> str:
    """host:port of a service."""
    form = service["form"]
    name, port = form.get("host") or "", form.get("port")
    shown = f"[{name}]" if ":" in str(name) else name
    return f"{shown}:{port}" if name and port else str(shown)


def _with_aged_certificate(record: Record, now: float) -> Record:
    verification = record["verification"]
    if not verification or not verification["tls"]:
        return record
    return {**record, "verification": {**verification, "tls": _aged(verification["tls"], "not_after", now)}}


def _aged(record: Record, end: str, now: float) -> Record:
    """The record with the whole days that are left at ``now``."""
    last = seconds_of(record[end])
    return record if last is None else {**record, "days_left": int((last - now) // 86400)}


def _token_finding(token: Record) -> Record:
    status, ends = token["status"], token["refresh_expires_at"][:10]
    said = f"The grant of token {token['name']} is {status}"
    if status == "expiring" and ends:
        said = f"The grant of token {token['name']} ends on {ends}"
    severity = TOKEN_SEVERITY[status]
    where = f"token {token['name']}"
    return _own("token", severity, f"token-{status}", said, token["next_step"], where)


def _certificate_finding(relay: str, tls: Record) -> Record:
    days, day = tls["days_left"], tls["not_after"][:10]
    hint = "renew it at the relay before then, or no host that checks it sends mail"
    if days < 0:
        said = f"The certificate of {relay} ended on {day}"
        return _own("certificate", "critical", "certificate-ended", said, "renew it at the relay", relay)
    said = f"The certificate of {relay} ends on {day}"
    return _own("certificate", "warning", "certificate-ends", said, hint, relay)


def _own(origin: str, severity: str, name: str, finding: str, hint: str, where: str) -> Record:
    told = {"severity": severity, "name": name, "finding": finding, "hint": hint, "where": where}
    return {**told, "field": "", "origin": origin}


def _certificates(hosts: Sequence[Record]) -> Iterator[Record]:
    """Every certificate that was seen, the one that ends first first, with the number of hosts that saw it."""
    seen: dict[tuple[str, str, str], tuple[Record, set[str]]] = {}
    for host in hosts:
        for relay, tls in _seen(host):
            key = relay, tls["subject"], tls["not_after"]
            seen.setdefault(key, (tls, set()))[1].add(host["name"])
    for relay, _subject, not_after in sorted(seen, key=lambda key: (key[2], key)):
        tls, names = seen[relay, _subject, not_after]
        told = {key: tls[key] for key in ("subject", "issuer", "names", "not_after", "days_left")}
        yield {"relay": relay, **told, "hosts": len(names)}


def _summary(hosts: Sequence[Record], certificates: Sequence[Record], certificate_days: int) -> Record:
    statuses = Counter(host["status"] for host in hosts)
    tokens = Counter(token["status"] for host in hosts for token in host["tokens"])
    findings = Counter(finding["severity"] for host in hosts for finding in host["findings"])
    days = [one["days_left"] for one in certificates if one["days_left"] is not None]
    return {
        "hosts": len(hosts),
        "status": {status: statuses[status] for status in shape.STATUSES},
        "tokens": {status: tokens[status] for status in ("unknown", *shape.TOKEN_STATUSES)},
        "findings": {severity: findings[severity] for severity in shape.SEVERITIES},
        "certificates": {
            "ended": sum(one < 0 for one in days),
            "ending": sum(0 <= one <= certificate_days for one in days),
            "good": sum(one > certificate_days for one in days),
        },
    }


# -- from and to a file ----------------------------------------------------------------------------------------------


def dump(document: Record) -> str:
    """The document as the text of a JSON file, one host a line: a difference of two files is read by host."""
    head = json.dumps({key: value for key, value in document.items() if key != "hosts"}, indent=1, ensure_ascii=False)
    hosts = ",".join("\n  " + json.dumps(host, ensure_ascii=False) for host in document["hosts"])
    return head[: -len("\n}")] + f',\n "hosts": [{hosts}\n ]\n}}\n'


def load(name: str, text: str, net: Net) -> Record:
    """The document that a file holds: made, and hosts as a report wants them.

    Raises NoReport naming the file when it is none of ours or of a newer version.
    """
    try:
        found = json.loads(text)
    except ValueError as error:
        raise NoReport([Problem(name, f"is no JSON ({error})", "give the JSON file of a report")]) from None
    version = found.get("schema_version") if isinstance(found, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or not isinstance(found.get("hosts"), list):
        raise NoReport([Problem(name, "is not the JSON file of a report", "give the file that the role wrote")])
    if version > SCHEMA_VERSION:
        what = f"is of schema version {version}, and this release knows {SCHEMA_VERSION}"
        raise NoReport([Problem(name, what, "update the collection on this controller")])
    hosts = [take(host, shape.HOST, net.text) for host in found["hosts"]]
    if not all(host["name"] and TIME.fullmatch(host["observed_at"]) for host in hosts):
        raise NoReport([Problem(name, "has a host without a name or time", "give the file as the role wrote it")])
    made = take(found, MADE, net.text)
    return {**made, "hosts": hosts}


SOURCE = {"name": str, "generated_at": str, "hosts": int}
MADE: Record = {
    "title": str,
    "generated_at": str,
    "generator": {"name": str, "version": str},
    "sources": [SOURCE],
    "replaced": [
        {"host": str, "kept": str, "kept_observed_at": str, "dropped": str, "dropped_observed_at": str},
    ],
}


def essence(value: Any) -> Any:
    """What a document says beside times and other things that pass: equal for two runs that found the same."""
    if isinstance(value, dict):
        passing = PASSING | {"detail"} if value.get("ok") is True else PASSING
        return {key: essence(inner) for key, inner in value.items() if key not in passing}
    return [essence(one) for one in value] if isinstance(value, list) else value
