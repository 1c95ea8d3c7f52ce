# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The views of a report, each judged by another program's parser: csv, junitparser, prometheus_client, html.parser."""

from __future__ import annotations

import base64
import csv
import hashlib
import html.parser
import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import junitparser
import pytest
from lab.fleet_results import NOW, Fleet, iso
from prometheus_client.parser import text_string_to_metric_families

from ansible_collections.fleetmail.smtp.plugins.plugin_utils.report import junit, page, pool, prometheus, table
from ansible_collections.fleetmail.smtp.plugins.plugin_utils.report.net import Net
from ansible_collections.fleetmail.smtp.plugins.plugin_utils.report.report import Order, make
from ansible_collections.fleetmail.smtp.plugins.plugin_utils.report.results import Play, host_of

Record = dict[str, Any]
HOSTILE = "</script><script>alert(1)</script>'\"&<b>\u2028{{ 7 * 7 }}\x00\x1b]]>\ud800 --> <!--"


def report(results: dict[str, Record], groups: Any = lambda _host: [], title: str = "Mail of the fleet") -> Record:
    net = Net()
    hosts = [host_of(name, groups(name), found, Play(iso(0)), net) for name, found in results.items()]
    return make(hosts, Order(title, "0.2.0"), Path("/nonexistent"), NOW.timestamp(), net).document


@pytest.fixture(scope="module")
def fleet() -> Record:
    made = Fleet(400)
    return report(made.results(), made.groups)


def hostile() -> Record:
    """Every text of a result says something that could break out of something."""
    drift = [
        {"field": HOSTILE, "before": HOSTILE, "after": [HOSTILE, HOSTILE]},
        {"field": "host", "before": HOSTILE, "after": "x"},
    ]
    service = {
        "service": {"name": HOSTILE, "backend": HOSTILE, "host": HOSTILE, "__proto__": HOSTILE, "constructor": HOSTILE},
        "drift": drift, "diff": {"before": HOSTILE * 3, "after": HOSTILE}, "warnings": [HOSTILE],
        "verification": {"ok": False, "steps": [{"name": HOSTILE, "ok": False, "detail": HOSTILE}],
                         "tls": {"subject": HOSTILE, "not_after": iso(1)}},
    }  # fmt: skip
    failed = {"failed": True, "msg": HOSTILE, "problems": [{"option": HOSTILE, "problem": HOSTILE, "hint": HOSTILE}]}
    token = {"token": {"name": HOSTILE, "status": "revoked", "next_step": HOSTILE, "authorized_user": HOSTILE}}
    info = {"services": [{"path": HOSTILE, "findings": [{"severity": "critical", "id": HOSTILE, "message": HOSTILE}]}]}
    results = {HOSTILE: {"a": service, "b": failed, "c": token, "d": info}, "=cmd|' /C calc'!A0": {"a": service}}
    return report(results, lambda _host: [HOSTILE], HOSTILE)


# -- CSV -------------------------------------------------------------------------------------------------------------


def rows(document: Record) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table.render(document), newline=""), strict=True))


def test_the_table_has_a_line_for_each_service_of_each_host(fleet: Record) -> None:
    found = rows(fleet)
    assert [row["host"] for row in found if row["service"] == "default"] == [
        host["name"] for host in fleet["hosts"] for _service in host["services"]
    ]
    assert {row["host"] for row in found} == {host["name"] for host in fleet["hosts"]}
    drifting = next(host for host in fleet["hosts"] if host["status"] == "drifting")
    (row,) = (row for row in found if row["host"] == drifting["name"])
    first = drifting["services"][0]["drift"][0]
    assert f"{first['field']}: {table.shown(first['before'])} -> {table.shown(first['after'])}" in row["drift"]
    assert row["validate_certs"] in ("true", "false")


def test_a_spreadsheet_runs_nothing_of_the_table() -> None:
    for row in rows(hostile()):
        assert not any(cell.startswith(table.FORMULA) for cell in row.values() if not re.fullmatch(r"-?\d+", cell))
    assert any(row["host"] == "'=cmd|' /C calc'!A0" for row in rows(hostile()))


# -- JUnit -----------------------------------------------------------------------------------------------------------


def suites(document: Record, folder: Path) -> junitparser.JUnitXml:
    (folder / "junit.xml").write_text(junit.render(document), encoding="utf-8")
    return junitparser.JUnitXml.fromfile(str(folder / "junit.xml"))


def test_a_ci_system_sees_each_host_and_what_is_wrong_with_it(fleet: Record, tmp_path: Path) -> None:
    found = suites(fleet, tmp_path)
    by_host = {suite.name: suite for suite in found}
    assert list(by_host) == [host["name"] for host in fleet["hosts"]]
    for host in fleet["hosts"]:
        results = {case.name: case.result for case in by_host[host["name"]]}
        kinds = {(type(one).__name__, one.type) for result in results.values() for one in result}
        assert (("Failure", "drift") in kinds) == (host["status"] == "drifting")
        assert (("Failure", "failed") in kinds) == (host["status"] == "failed")
        assert (("Error", "unreachable") in kinds) == (host["status"] == "unreachable")
        assert (("Error", "unknown") in kinds) == (host["status"] == "unknown")
        dead = {token["status"] for token in host["tokens"]} - {"authorized", "expiring", "pending"}
        assert dead <= {kind for _element, kind in kinds}


def test_the_counts_of_the_suites_are_those_of_their_tests(fleet: Record, tmp_path: Path) -> None:
    found = suites(fleet, tmp_path)
    told = [(suite.tests, suite.failures, suite.errors) for suite in found]
    total = found.tests, found.failures, found.errors
    for suite in found:
        suite.update_statistics()
    found.update_statistics()
    assert told == [(suite.tests, suite.failures, suite.errors) for suite in found]
    assert total == (found.tests, found.failures, found.errors)


def test_drift_is_told_in_words_with_the_diff(tmp_path: Path) -> None:
    drift = [{"field": "security", "before": "opportunistic", "after": "starttls"}]
    result = {
        "service": {"name": "default", "backend": "postfix"},
        "drift": drift,
        "diff": {"before": "a\n", "after": "b\n"},
    }
    (suite,) = suites(report({"web1": {"mail": result}}), tmp_path)
    (failure,) = next(case for case in suite if case.name == "service default (postfix)").result
    assert failure.message == "security: opportunistic -> starttls"
    assert "-a\n+b\n" in failure.text


def test_what_xml_cannot_say_is_no_matter(tmp_path: Path) -> None:
    assert len(list(suites(hostile(), tmp_path))) == 2


# -- Prometheus ------------------------------------------------------------------------------------------------------


def samples(document: Record) -> dict[str, list[Any]]:
    families = text_string_to_metric_families(prometheus.render(document))
    return {family.name: list(family.samples) for family in families}


def test_prometheus_reads_the_numbers_of_the_summary(fleet: Record) -> None:
    found = samples(fleet)
    for name, label, part in (
        ("hosts", "status", "status"),
        ("tokens", "status", "tokens"),
        ("findings", "severity", "findings"),
    ):
        told = {one.labels[label]: one.value for one in found[f"fleetmail_report_{name}"]}
        assert told == fleet["summary"][part]
    assert found["fleetmail_report_generated_timestamp_seconds"][0].value == NOW.timestamp()


def test_prometheus_has_each_host_with_its_status(fleet: Record) -> None:
    found = samples(fleet)
    told = {one.labels["host"]: one.labels["status"] for one in found["fleetmail_report_host_status"]}
    assert told == {host["name"]: host["status"] for host in fleet["hosts"]}
    drift = {one.labels["host"]: one.value for one in found["fleetmail_report_host_drift_fields"]}
    for host in fleet["hosts"]:
        if host["status"] in ("drifting", "changed"):
            assert bool(drift[host["name"]]) == (host["status"] == "drifting")


def test_no_series_is_there_twice_and_none_has_a_time_of_its_own() -> None:
    for document in (hostile(), report({"web1": {"a": {"tokens": [{"name": ""}, {"name": None}, {}]}}})):
        seen = Counter(
            (one.name, frozenset(one.labels.items())) for family in samples(document).values() for one in family
        )
        assert set(seen.values()) == {1}
        assert all(one.timestamp is None for family in samples(document).values() for one in family)


def test_a_label_says_what_the_host_is_called() -> None:
    told = {one.labels["host"] for one in samples(hostile())["fleetmail_report_host_status"]}
    assert {host["name"] for host in hostile()["hosts"]} == told


# -- the page --------------------------------------------------------------------------------------------------------


class Elements(html.parser.HTMLParser):
    """What a browser would make of a page: its elements, and the text in scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.inside.append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem:
            self.inside[-1] += data


def held(text: str) -> Record:
    """The document that a page has in it."""
    parsed = Elements(text)
    content = json.loads(parsed.inside[1])
    restored: Record = pool.restored(content["document"], content["pool"])
    return restored


def test_nothing_breaks_out_of_the_page() -> None:
    text = page.render(hostile())
    found = Elements(text)
    assert [tag for tag, _attributes in found.tags].count("script") == 2
    assert "alert" not in found.inside[2]
    assert not any(name.startswith("on") for _tag, attributes in found.tags for name in attributes)
    assert "49" not in held(text)["title"]
    assert held(text)["hosts"] == pool.restored(*pool.pooled(hostile()["hosts"]))


def test_the_page_holds_the_whole_document(fleet: Record) -> None:
    assert held(page.render(fleet)) == pool.restored(*pool.pooled(fleet))


def test_the_policy_lets_our_style_and_script_run_and_nothing_else(fleet: Record) -> None:
    found = Elements(page.render(fleet))
    policy = next(one["content"] for tag, one in found.tags if tag == "meta" and one.get("http-equiv"))
    assert policy is not None
    for text, kind in ((found.inside[0], "style"), (found.inside[2], "script")):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_the_page_needs_nothing_from_outside(fleet: Record) -> None:
    for tag, attributes in Elements(page.render(fleet)).tags:
        assert not {"src", "srcset", "style"} & set(attributes), tag
        assert (attributes.get("href") or "#").startswith("#"), tag
        assert tag not in ("link", "iframe", "img", "object", "base", "form")


def test_diffs_are_shortened_where_the_page_would_be_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "LIMIT", 200_000)
    results = {}
    for number in range(6):
        diff = {
            "before": "",
            "after": "".join(f"line {line} of host {number}, all of it new\n" for line in range(1500)),
        }
        service = {"name": "default", "backend": "postfix"}
        results[f"web{number}"] = {"m": {"service": service, "drift": [{"field": "x"}], "diff": diff}}
    document = report(results)
    text = page.render(document)
    assert len(text.encode()) <= page.LIMIT
    assert "more lines: the JSON file has them" in held(text)["hosts"][0]["services"][0]["diff"]
    assert "line 1499" in document["hosts"][0]["services"][0]["diff"]


def test_a_template_of_somebody_else_is_given_the_same(fleet: Record, tmp_path: Path) -> None:
    (tmp_path / "own.j2").write_text("<h1>{{ document.title }}</h1>{{ document.summary.hosts }}")
    assert page.render(fleet, tmp_path / "own.j2") == "<h1>Mail of the fleet</h1>400"
