# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report as a table for spreadsheets: CSV (RFC 4180), one line for each service of each host."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from . import shape
from .document import relay_of

Record = dict[str, Any]
FIELDS = (
    "enabled", "security", "auth_type", "username", "ca_file", "validate_certs", "from_address", "senders", "timeout",
)  # fmt: skip
COLUMNS = (
    "host", "status", "service", "service_status", "backend", "relay", *FIELDS, "drift", "problem",
    *(f"findings_{severity}" for severity in shape.SEVERITIES),
    "certificate_not_after", "certificate_days_left",
    "token", "token_status", "token_refresh_expires_at", "token_days_left",
    "groups", "observed_at", "source",
)  # fmt: skip
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would run


def render(document: Record) -> str:
    """The text of the file. A text that a spreadsheet would take for a formula begins with an apostrophe."""
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, COLUMNS, restval="", lineterminator="\r\n")
    writer.writeheader()
    for host in document["hosts"]:
        for row in _rows(host):
            writer.writerow({key: _cell(value) for key, value in row.items()})
    return buffer.getvalue()


def _rows(host: Record) -> Iterator[Record]:
    own = {
        "host": host["name"],
        "status": host["status"],
        "problem": "; ".join(_said(one) for one in host["problems"]),
        "groups": host["groups"],
        "observed_at": host["observed_at"],
        "source": host["source"],
        **_findings(host),
        **_token(host),
    }
    parts = [_service(one) for one in host["services"]] or [_consumer(one) for one in host["consumers"]] or [{}]
    for part in parts:
        yield {**own, **part}


def _said(problem: Record) -> str:
    return ": ".join(part for part in (problem["option"], problem["problem"]) if part)


def _findings(host: Record) -> Record:
    found = [one["severity"] for one in host["findings"]]
    return {f"findings_{severity}": found.count(severity) for severity in shape.SEVERITIES}


def _token(host: Record) -> Record:
    """Of several tokens the one that dies first; the others are in the JSON file."""
    tokens = sorted(host["tokens"], key=lambda one: one["refresh_expires_at"] or "9")
    if not tokens:
        return {}
    first = tokens[0]
    return {
        "token": first["name"],
        "token_status": first["status"],
        "token_refresh_expires_at": first["refresh_expires_at"],
        "token_days_left": first["days_left"],
    }


def _service(service: Record) -> Record:
    tls = (service["verification"] or {}).get("tls") or {}
    return {
        "service": service["name"],
        "service_status": service["status"],
        "backend": service["backend"],
        "relay": relay_of(service),
        **{field: service["form"].get(field) for field in FIELDS},
        "drift": "; ".join(differs(one) for one in service["drift"]),
        "certificate_not_after": tls.get("not_after"),
        "certificate_days_left": tls.get("days_left"),
    }


def _consumer(consumer: Record) -> Record:
    told = {field: consumer["form"].get(field) for field in FIELDS}
    return {**told, "backend": consumer["backend"], "service": consumer["name"], "relay": relay_of(consumer)}


def differs(drift: Record) -> str:
    """One difference in words."""
    return f"{drift['field']}: {shown(drift['before'])} -> {shown(drift['after'])}"


def shown(value: Any) -> str:
    """A value of the form as a person reads it."""
    if value is None or value == "" or value == []:
        return "(none)"
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(value) if isinstance(value, list) else str(value)


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    text = "" if value in ("", []) else shown(value)
    return "'" + text if text.startswith(FORMULA) else text
