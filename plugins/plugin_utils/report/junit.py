# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report as JUnit XML, as CI systems read it: one test suite for each host, one test for each thing looked at."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from xml.etree import ElementTree

from .table import differs

Record = dict[str, Any]
# What XML 1.0 cannot say, not even escaped (2.2 Characters).
UNSAYABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
FAILING_FINDINGS = ("critical",)
GOOD_TOKENS = ("authorized", "expiring", "pending")


class Verdict(NamedTuple):
    """One test: passed unless ``element`` is failure (looked at, and not good) or error (could not be judged)."""

    name: str
    element: str = ""
    kind: str = ""
    message: str = ""
    detail: str = ""


def render(document: Record) -> str:
    """The text of the file."""
    root = ElementTree.Element("testsuites", name=_said(document["title"]))
    for host in document["hosts"]:
        suite = ElementTree.SubElement(root, "testsuite", name=_said(host["name"]))
        verdicts = list(_verdicts(host))
        for verdict in verdicts:
            _test(suite, host["name"], verdict)
        _count(suite, verdicts)
        suite.set("timestamp", host["observed_at"].rstrip("Z"))
    _sum_up(root)
    ElementTree.indent(root, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _test(suite: ElementTree.Element, host: str, verdict: Verdict) -> None:
    case = ElementTree.SubElement(suite, "testcase", classname=_said(host), name=_said(verdict.name), time="0")
    if verdict.element:
        found = ElementTree.SubElement(case, verdict.element, type=verdict.kind, message=_said(verdict.message))
        found.text = _said(verdict.detail or verdict.message)


def _count(suite: ElementTree.Element, verdicts: list[Verdict]) -> None:
    elements = [verdict.element for verdict in verdicts]
    suite.set("tests", str(len(verdicts)))
    suite.set("failures", str(elements.count("failure")))
    suite.set("errors", str(elements.count("error")))
    suite.set("skipped", "0")
    suite.set("time", "0")


def _sum_up(root: ElementTree.Element) -> None:
    for name in ("tests", "failures", "errors", "skipped"):
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in root)))
    root.set("time", "0")


def _verdicts(host: Record) -> Iterator[Verdict]:
    yield _reached(host)
    for service in host["services"]:
        yield _service(service, host["problems"])
    for probe in host["probes"]:
        yield _probe(probe)
    for token in host["tokens"]:
        yield _token(token)
    yield from _findings(host["findings"])


def _reached(host: Record) -> Verdict:
    """Whether the host could be judged at all. A service that failed says so itself."""
    name, detail = "host", "\n".join(_problem(one) for one in host["problems"])
    message = _problem(host["problems"][0]) if host["problems"] else ""
    if host["status"] in ("unreachable", "unknown"):
        return Verdict(name, "error", host["status"], message, detail)
    if host["status"] == "failed" and all(one["status"] != "failed" for one in host["services"]):
        return Verdict(name, "failure", "failed", message, detail)
    return Verdict(name)


def _problem(problem: Record) -> str:
    said = ": ".join(part for part in (problem["option"], problem["problem"]) if part)
    return f"{said} ({problem['hint']})" if problem["hint"] else said


def _service(service: Record, problems: list[Record]) -> Verdict:
    name = f"service {service['name']} ({service['backend']})"
    if service["status"] == "failed":
        said = [_problem(one) for one in problems]
        return Verdict(name, "failure", "failed", said[0] if said else "failed", "\n".join([*said, service["diff"]]))
    if service["status"] == "drifting":
        fields = [differs(one) for one in service["drift"]]
        return Verdict(name, "failure", "drift", "; ".join(fields), "\n".join([*fields, "", service["diff"]]))
    return Verdict(name)


def _probe(probe: Record) -> Verdict:
    name = f"probe of {probe['target']}"
    if probe["ok"]:
        return Verdict(name)
    steps = probe["verification"]["steps"]
    said = f"{steps[-1]['name']}: {steps[-1]['detail']}" if steps else "not reached"
    return Verdict(name, "failure", "probe", said)


def _token(token: Record) -> Verdict:
    name = f"token {token['name']}"
    if token["status"] in GOOD_TOKENS:
        return Verdict(name)
    said = f"{token['status']}: {token['error_description'] or token['error'] or token['cause']}".rstrip(": ")
    return Verdict(name, "failure", token["status"], said, f"{said}\n{token['next_step']}")


def _findings(findings: list[Record]) -> Iterator[Verdict]:
    """What the audit found. A token's own findings are told by its test, a certificate's by their own."""
    names: dict[str, int] = {}
    for finding in findings:
        if finding["severity"] in FAILING_FINDINGS and finding["origin"] != "token":
            name = f"finding {finding['name'] or finding['severity']} {finding['where']}".rstrip()
            names[name] = names.get(name, 0) + 1
            shown = name if names[name] == 1 else f"{name} ({names[name]})"
            yield Verdict(shown, "failure", finding["severity"], finding["finding"], finding["hint"])


def _said(text: str) -> str:
    return UNSAYABLE.sub("?", text)
