# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report as Prometheus text (exposition format 0.0.4), for node_exporter's textfile collector."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from . import shape
from .document import seconds_of

Record = dict[str, Any]
Sample = tuple[Mapping[str, str], float]


class Metric(NamedTuple):
    """One gauge: its name after the prefix, what it means, and its samples."""

    name: str
    meaning: str
    samples: Iterable[Sample]


PREFIX = "fleetmail_report_"
NEWLINE = "\n"


def render(document: Record) -> str:
    """The text of the file. No sample has a timestamp: the collector refuses them."""
    return "".join(_shown(metric) for metric in _metrics(document))


def _metrics(document: Record) -> Iterator[Metric]:
    summary, hosts = document["summary"], document["hosts"]
    generated = seconds_of(document["generated_at"])
    yield Metric("generated_timestamp_seconds", "When the report was made.", _known([({}, generated)]))
    yield Metric("hosts", "Hosts by status.", _counts("status", summary["status"]))
    yield Metric("tokens", "OAuth tokens by status.", _counts("status", summary["tokens"]))
    yield Metric("findings", "Findings by severity.", _counts("severity", summary["findings"]))
    yield Metric(
        "certificates", "Certificates of relays by what is left of them.", _counts("state", summary["certificates"])
    )
    yield Metric("host_status", "1 for the status that a host has.", _statuses(hosts))
    yield Metric("host_observed_timestamp_seconds", "When a host was looked at.", _known(_observed(hosts)))
    yield Metric("host_drift_fields", "Differences between a service and its definition.", _drift(hosts))
    yield Metric("host_findings", "Findings on a host by severity.", _findings(hosts))
    yield Metric("token_status", "1 for the status that a token has.", _tokens(hosts))
    yield Metric("token_grant_end_timestamp_seconds", "When a grant dies if it is not used.", _known(_ends(hosts)))
    yield Metric(
        "certificate_end_timestamp_seconds", "When a relay's certificate ends.", _known(_certificates(document))
    )


def _counts(label: str, counts: Mapping[str, int]) -> Iterator[Sample]:
    return (({label: word}, count) for word, count in counts.items())


def _known(samples: Iterable[tuple[Mapping[str, str], float | None]]) -> Iterator[Sample]:
    return ((labels, value) for labels, value in samples if value is not None)


def _statuses(hosts: Iterable[Record]) -> Iterator[Sample]:
    return (({"host": host["name"], "status": host["status"]}, 1) for host in hosts)


def _observed(hosts: Iterable[Record]) -> Iterator[tuple[Mapping[str, str], float | None]]:
    return (({"host": host["name"]}, seconds_of(host["observed_at"])) for host in hosts)


def _drift(hosts: Iterable[Record]) -> Iterator[Sample]:
    """Only what is still there: a host that was brought into line has none."""
    for host in hosts:
        for service in host["services"]:
            count = 0 if service["status"] in ("compliant", "changed") else len(service["drift"])
            labels = {"host": host["name"], "service": service["name"], "backend": service["backend"]}
            yield labels, count


def _findings(hosts: Iterable[Record]) -> Iterator[Sample]:
    for host in hosts:
        counts = Counter(one["severity"] for one in host["findings"])
        for severity in shape.SEVERITIES:
            if counts[severity]:
                yield {"host": host["name"], "severity": severity}, counts[severity]


def _tokens(hosts: Iterable[Record]) -> Iterator[Sample]:
    return (
        ({"host": host["name"], "token": token["name"], "status": token["status"]}, 1)
        for host in hosts
        for token in host["tokens"]
    )


def _ends(hosts: Iterable[Record]) -> Iterator[tuple[Mapping[str, str], float | None]]:
    for host in hosts:
        for token in host["tokens"]:
            yield {"host": host["name"], "token": token["name"]}, seconds_of(token["refresh_expires_at"])


def _certificates(document: Record) -> Iterator[tuple[Mapping[str, str], float | None]]:
    for one in document["certificates"]:
        yield {"relay": one["relay"], "subject": one["subject"]}, seconds_of(one["not_after"])


def _shown(metric: Metric) -> str:
    """A metric's block. Of samples with the same labels the last one counts: twice the same is an error there."""
    samples = {_labels(labels): value for labels, value in metric.samples}
    if not samples:
        return ""
    name = PREFIX + metric.name
    lines = [f"# HELP {name} {metric.meaning}", f"# TYPE {name} gauge"]
    lines += [f"{name}{labels} {value:.0f}" for labels, value in samples.items()]
    return "".join(line + NEWLINE for line in lines)


def _labels(labels: Mapping[str, str]) -> str:
    shown = ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items())
    return f"{{{shown}}}" if shown else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace(NEWLINE, "\\n")
