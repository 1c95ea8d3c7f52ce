# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A report's document: what each result makes of a host, merging, secrets, what stays as it is, and its schema."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from driver.checkout import ROOT
from lab.fleet_results import NOW, Fleet, iso

from ansible_collections.fleetmail.smtp.plugins.plugin_utils.report import document, outputs, pool, shape
from ansible_collections.fleetmail.smtp.plugins.plugin_utils.report.merging import merged
from ansible_collections.fleetmail.smtp.plugins.plugin_utils.report.net import Net
from ansible_collections.fleetmail.smtp.plugins.plugin_utils.report.problem import NoReport
from ansible_collections.fleetmail.smtp.plugins.plugin_utils.report.report import Order, make
from ansible_collections.fleetmail.smtp.plugins.plugin_utils.report.results import Play, difference, host_of

Record = dict[str, Any]
SCHEMA = json.loads((ROOT / "plugins/plugin_utils/report/schema.json").read_text())
ORDER = Order("Mail of the fleet", "0.2.0")
DRIFT = {"field": "security", "before": "opportunistic", "after": "starttls"}
MODE = {"field": "mode of /etc/msmtprc", "before": "0644", "after": "0600"}
NOTHING = Path("/nonexistent/report.json")


def host(results: Record, name: str = "web1", at: float = 0, source: str = "", check: bool | None = None) -> Record:
    return host_of(name, ["mail"], results, Play(iso(at), source, check), Net())


def service(*drift: Record, **more: Any) -> Record:
    form = {"name": "default", "backend": "msmtp", "state": "present", "host": "relay.example.test", "port": 587}
    form["security"] = "starttls"
    form.update({one["field"]: one["before"] for one in drift if one["field"] in form})
    return {"changed": bool(drift), "service": form, "drift": list(drift), "actions": [], "rolled_back": False, **more}


def report(*hosts: Record, now: float | None = None, order: Order = ORDER, previous: Path = NOTHING) -> Record:
    return make(hosts, order, previous, NOW.timestamp() if now is None else now, Net()).document


def fleet(hosts: int, at: float = 0, source: str = "", seed: int = 4) -> list[Record]:
    made = Fleet(hosts, seed)
    net = Net()
    return [
        host_of(name, made.groups(name), found, Play(iso(at), source), net) for name, found in made.results().items()
    ]


def valid(found: Record) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(found)


# -- one host --------------------------------------------------------------------------------------------------------


def enforced() -> Record:
    found = service(DRIFT)
    found["service"]["security"] = "starttls"
    return found


@pytest.mark.parametrize(
    ("results", "check", "status"),
    [
        ({}, None, "unknown"),
        ({"mail": {"skipped": True, "changed": False}}, None, "unknown"),
        ({"mail": service()}, None, "compliant"),
        ({"mail": service(DRIFT)}, None, "drifting"),
        ({"mail": enforced()}, None, "changed"),
        ({"mail": service(MODE)}, None, "drifting"),  # it does not tell, and no drift is hidden
        ({"mail": service(MODE)}, False, "changed"),
        ({"mail": service(MODE, check_mode=False)}, None, "changed"),
        ({"mail": service(MODE, check_mode=True, actions=["postfix reload"])}, None, "drifting"),
        ({"mail": service(MODE, actions=["postfix reload"])}, None, "changed"),
        ({"mail": enforced()}, True, "drifting"),
        ({"mail": service(DRIFT, failed=True, msg="verify: no")}, None, "failed"),
        ({"mail": {"unreachable": True, "msg": "no route"}}, None, "unreachable"),
        ({"mail": {"failed": True, "msg": "no python"}, "other": service()}, None, "failed"),
        ({"mail": {"services": [{"backend": "postfix"}]}}, None, "audited"),
        ({"mail": {"token": {"name": "default", "status": "revoked"}}}, None, "audited"),
        ({"mail": {"results": [service(), service(DRIFT)], "msg": "One or more items failed"}}, None, "drifting"),
    ],
)
def test_what_results_make_of_a_host(results: Record, check: bool | None, status: str) -> None:
    found = host(results, check=check)
    assert found["status"] == status
    valid(report(found))


def test_every_problem_of_a_failed_host_is_told() -> None:
    problems = [
        {"option": "host", "problem": "is missing", "hint": "set it"},
        {"option": "port", "problem": "is wrong"},
    ]
    found = host({"mail": {"failed": True, "msg": "host: is missing (and 1 more)", "problems": problems}})
    assert [(one["task"], one["option"], one["hint"]) for one in found["problems"]] == [
        ("mail", "host", "set it"),
        ("mail", "port", ""),
    ]


def test_a_failure_of_another_kind_is_told_by_its_message() -> None:
    found = host({"mail": {"failed": True, "msg": "No package matching 'postfix' is available"}})
    assert found["problems"][0]["problem"] == "No package matching 'postfix' is available"


def test_the_probed_relay_is_the_one_that_was_called() -> None:
    tls = {"names": ["a.example.test"], "not_after": iso(5), "subject": "CN=a", "days_left": 99}
    verification = {"ok": True, "level": "tls", "reached": "tls", "tls": tls}
    called = {"verification": verification, "invocation": {"module_args": {"host": "relay.example.test", "port": 2525}}}
    found = report(host({"probe": {"results": [called, {"verification": verification}]}}))
    assert [one["relay"] for one in found["certificates"]] == ["a.example.test", "relay.example.test:2525"]
    assert found["certificates"][0]["days_left"] == 5  # as of the report, whatever the host said when it was asked
    assert [(one["severity"], one["name"]) for one in found["hosts"][0]["findings"]] == [
        ("warning", "certificate-ends")
    ] * 2


def test_a_certificate_belongs_to_the_relay_of_the_definition() -> None:
    moved = {"field": "host", "before": "old.example.test", "after": "relay.example.test"}
    tls = {"not_after": iso(90), "subject": "CN=relay"}
    found = report(host({"mail": service(moved, verification={"level": "tls", "tls": tls})}))
    assert [one["relay"] for one in found["certificates"]] == ["relay.example.test:587"]


@pytest.mark.parametrize(("days", "severity"), [(-1, "critical"), (0, "warning"), (30, "warning"), (31, None)])
def test_the_end_of_a_certificate(days: int, severity: str | None) -> None:
    tls = {"not_after": iso(days), "subject": "CN=relay"}
    found = report(host({"mail": service(verification={"level": "tls", "tls": tls})}))
    assert [one["severity"] for one in found["hosts"][0]["findings"]] == ([severity] if severity else [])
    told = found["summary"]["certificates"]
    assert told == {"ended": int(days < 0), "ending": int(0 <= days <= 30), "good": int(days > 30)}


def test_of_a_token_the_last_result_counts_and_a_dead_one_is_a_finding() -> None:
    old, new = (
        {"name": "default", "status": status, "next_step": "authorize again"} for status in ("authorized", "revoked")
    )
    found = report(host({"token": {"token": old}, "info": {"tokens": [new, {"name": "b", "status": "authorized"}]}}))
    assert [(one["name"], one["status"]) for one in found["hosts"][0]["tokens"]] == [
        ("default", "revoked"),
        ("b", "authorized"),
    ]
    assert found["hosts"][0]["findings"][0]["hint"] == "authorize again"
    assert found["summary"]["tokens"]["revoked"] == 1


def test_what_an_audit_found_is_told_once() -> None:
    found = {
        "severity": "critical",
        "id": "map-key",
        "message": "not looked up",
        "hint": "name it",
        "field": "username",
    }
    odd = {"severity": "odd", "id": "new", "message": "something", "backend": "exim", "service": "default", "path": ""}
    service = {
        "backend": "exim",
        "name": "default",
        "path": "/etc/exim4",
        "host": "mx",
        "findings": [found],
        "task": {"x": 1},
    }
    for result in (
        {"services": [service], "findings": [{**found, "path": "/etc/exim4"}, odd]},
        {"services": [service]},
    ):
        told = host({"info": result})
        assert told["findings"][0]["where"] == "/etc/exim4"
        assert [one["name"] for one in told["findings"]] == (
            ["map-key", "new"] if "findings" in result else ["map-key"]
        )
        assert told["consumers"][0]["form"] == {"host": "mx"}
    assert [
        (one["severity"], one["where"]) for one in host({"i": {"services": [], "findings": [odd]}})["findings"]
    ] == [("warning", "exim default")]


def test_a_relay_that_an_audit_probed_is_among_the_certificates() -> None:
    service = {
        "backend": "exim",
        "host": "mx",
        "port": 587,
        "verification": {"level": "tls", "tls": {"not_after": iso(3)}},
    }
    found = report(host({"info": {"services": [service]}}))
    assert [(one["relay"], one["days_left"]) for one in found["certificates"]] == [("mx:587", 3)]


def test_nothing_that_no_report_has_gets_in() -> None:
    odd = service(DRIFT, stdout="STRANGE", invocation={"module_args": {"x": "STRANGE"}}, warnings="STRANGE")
    odd["service"]["nested"] = {"x": "STRANGE"}
    odd["drift"] += ["STRANGE", {"field": "x", "extra": "STRANGE"}]
    odd["verification"] = "STRANGE"
    found = report(host({"mail": odd, "services": {"services": "STRANGE"}, "tokens": {"tokens": ["STRANGE", 4, None]}}))
    valid(found)
    assert "STRANGE" not in json.dumps(found)


def test_a_diff_of_ansible_is_read_in_all_its_forms() -> None:
    assert difference({"before": "a\n", "after": "b\n"}) == "--- before\n+++ after\n@@ -1 +1 @@\n-a\n+b\n"
    assert difference([{"prepared": "x\n"}, {"before": "", "after": ""}]) == "x\n"
    assert difference(None) == ""


# -- secrets ---------------------------------------------------------------------------------------------------------

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJmbGVldCJ9.c2lnbmF0dXJlLXBhcnQ"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nsecret\n-----END RSA PRIVATE KEY-----", "MIIEow"),
        (f"the token {JWT} was refused", JWT),
        ("Authorization: Bearer abcdef0123456789", "abcdef0123456789"),
        ("sent: AUTH PLAIN AGZsZWV0AHNlY3JldA==", "AGZsZWV0AHNlY3JldA=="),
        ("proxy http://fleet:hunter2@proxy.example.test:3128", "hunter2"),
        ("client_secret=Zx9~secretvalue rest", "Zx9~secretvalue"),
        ('{"refresh_token": "abc.def"}', "abc.def"),
        ("password: hunter2", "hunter2"),
        ("refused 1//0gabcdefghijklmnop", "1//0gabcdefghijklmnop"),
        ("0.AXoAabcdefghijklmnopqrstuvwxyz0123456789abcdefghijkl", "AXoAabcdefghijkl"),
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str, secret: str) -> None:
    masked = Net().text(text)
    assert secret not in masked
    assert "********" in masked


@pytest.mark.parametrize(
    "text",
    [
        "password: (set)",
        "password: ends in white space, which Postfix strips (change the password)",
        "verify: The relay refused user name or password of fleet",
        "smtp_sasl_password_maps = hash:/etc/postfix/sasl_passwd",
        "set client_secret to its value and run the playbook again",
        "token_url: https://login.example.test/token",
        "relay.example.test:587",
    ],
)
def test_sentences_are_left_alone(text: str) -> None:
    assert Net().text(text) == text


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        ("-password hunter2 and more", "hunter2"),
        ("+[relay.example.test]:587 fleet:hunter2", "hunter2"),
        (" relay.example.test\tfleet:hunter2", "hunter2"),
        ("-  client_send = : fleet : hunter2", "hunter2"),
    ],
)
def test_lines_of_configuration_are_read_more_strictly(line: str, secret: str) -> None:
    assert secret not in Net().configuration(line)


@pytest.mark.parametrize(
    "line", ["-  relayhost = [relay.example.test]:587", "+  host: relay.example.test", "@@ -1,2 +1,2 @@"]
)
def test_other_lines_of_a_diff_are_left_alone(line: str) -> None:
    assert Net().configuration(line) == line


def test_secrets_among_the_arguments_are_masked_everywhere_on_that_host() -> None:
    secret = "p4ss w0rd ü/+"
    found = service(DRIFT, warnings=[f"the log says {secret!r}"], invocation={"module_args": {"password": secret}})
    found["diff"] = {"before": f"x {secret}\n", "after": ""}
    found["service"]["from_address"] = secret
    text = json.dumps(report(host({"mail": found})), ensure_ascii=False)
    assert "p4ss" not in text
    assert "w0rd" not in text


def test_a_secret_of_the_caller_is_masked_in_what_other_programs_say() -> None:
    found = host_of(
        "web1", [], {"mail": {"failed": True, "msg": "login with Tr0ub4dor failed"}}, Play(iso(0)), Net(["Tr0ub4dor"])
    )
    assert "Tr0ub4dor" not in json.dumps(found)


@pytest.mark.parametrize("field", ["password", "client_secret"])
def test_a_secret_field_only_says_that_it_is_set(field: str) -> None:
    found = service({"field": field, "before": "old-one", "after": "new-one"})
    found["service"][field] = "old-one"
    text = json.dumps(host({"mail": found}))
    assert "old-one" not in text
    assert "new-one" not in text


def test_an_authorization_that_is_pending_cannot_be_taken_over_by_a_reader() -> None:
    token = {
        "name": "default",
        "status": "pending",
        "authorization": {"url": "https://login/device", "user_code": "WDJB-MJHT"},
    }
    text = json.dumps(host({"token": {"token": token, "authorization": token["authorization"]}}))
    assert "WDJB" not in text


# -- merging ---------------------------------------------------------------------------------------------------------


def test_slices_of_one_inventory_become_one_report() -> None:
    whole = fleet(40)
    found, replaced = merged([{"hosts": whole[:25]}, {"hosts": whole[25:]}])
    assert {one["name"] for one in found} == {one["name"] for one in whole}
    assert replaced == []
    assert report(*found)["hosts"] == report(*whole)["hosts"]


@pytest.mark.parametrize("turned", [False, True])
def test_of_a_host_in_two_slices_the_newest_is_reported_and_told(turned: bool) -> None:
    old = host({"mail": service(DRIFT)}, at=-1, source="a")
    new = host({"mail": service()}, at=0, source="b")
    slices = [{"hosts": [old]}, {"hosts": [new]}]
    found, replaced = merged(slices[::-1] if turned else slices)
    assert [one["status"] for one in found] == ["compliant"]
    assert replaced == [
        {"host": "web1", "kept": "b", "kept_observed_at": iso(0), "dropped": "a", "dropped_observed_at": iso(-1)}
    ]


def test_having_no_result_replaces_nothing() -> None:
    found, replaced = merged(
        [{"hosts": [host({}, at=0, source="b")]}, {"hosts": [host({"m": service()}, at=-9, source="a")]}]
    )
    assert [one["status"] for one in found] == ["compliant"]
    assert replaced == []


def written(folder: Path, found: Record) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(document.dump(found))
    return folder / "report.json"


def test_reports_in_files_are_merged_and_named(tmp_path: Path) -> None:
    whole = fleet(30, at=-2)
    for number, part in enumerate((whole[:20], whole[10:])):
        written(tmp_path / str(number), report(*part))
    order = ORDER._replace(merge=[str(tmp_path / "*/report.json")])
    made = make([host({"mail": service()}, name="extra")], order, tmp_path / "report.json", NOW.timestamp(), Net())
    valid(made.document)
    assert made.document["summary"]["hosts"] == 31
    assert [one["hosts"] for one in made.document["sources"]] == [1, 20, 20]
    told = len(made.document["replaced"])
    assert 8 <= told <= 10  # those without a result are no views of a host
    assert "0/report.json" in made.warnings[0]
    assert "1/report.json" in made.warnings[0]


def test_a_report_that_is_merged_with_its_own_past_keeps_the_other_hosts(tmp_path: Path) -> None:
    own = written(tmp_path, report(*fleet(10, at=-1)))
    order = ORDER._replace(merge=[str(own)])
    made = make(fleet(4), order, own, NOW.timestamp(), Net())
    assert made.document["summary"]["hosts"] == 10
    assert made.warnings == []
    seen = {one["name"]: one["observed_at"] for one in made.document["hosts"] if one["status"] != "unknown"}
    assert sorted(seen.values()) == [iso(-1)] * (len(seen) - 4) + [iso(0)] * 4


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("no json", "is no JSON"),
        ("[]", "is not the JSON file of a report"),
        ('{"schema_version": 1}', "is not the JSON file of a report"),
        ('{"schema_version": 2, "hosts": []}', "schema version 2"),
        ('{"schema_version": 1, "hosts": [{"name": "web1"}]}', "without a name or time"),
        ('{"schema_version": 1, "hosts": [4]}', "without a name or time"),
    ],
)
def test_files_that_are_none_of_ours_are_named(tmp_path: Path, content: str, said: str) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text(content)
    order = ORDER._replace(merge=[str(bad), str(tmp_path / "missing.json")])
    with pytest.raises(NoReport) as error:
        make([], order, NOTHING, 0, Net())
    assert [one.option for one in error.value.problems] == [str(bad), "merge"]
    assert said in error.value.problems[0].problem


def test_what_was_added_to_a_file_by_hand_does_not_get_in(tmp_path: Path) -> None:
    own = written(tmp_path, report(host({"mail": service()})))
    changed = json.loads(own.read_text())
    changed["hosts"][0].update(extra="STRANGE", status="fine", tokens="STRANGE")
    own.write_text(json.dumps(changed))
    found = make([], ORDER._replace(merge=[str(own)]), NOTHING, NOW.timestamp(), Net()).document
    valid(found)
    assert "STRANGE" not in json.dumps(found)


def test_without_any_host_there_is_no_report() -> None:
    with pytest.raises(NoReport, match="no host"):
        report()


# -- what stays as it is ---------------------------------------------------------------------------------------------


def test_a_second_run_gives_the_same_bytes_and_an_old_report_is_made_anew(tmp_path: Path) -> None:
    first = report(*fleet(30))
    own = written(tmp_path, first)
    later = NOW.timestamp() + 1800
    again = report(*fleet(30, at=1800 / 86400), now=later, previous=own)
    assert document.dump(again) == own.read_text()
    old = report(*fleet(30, at=3600 / 86400), now=NOW.timestamp() + 3600, previous=own)
    assert old["generated_at"] != first["generated_at"]


def test_what_changed_is_reported_at_once(tmp_path: Path) -> None:
    own = written(tmp_path, report(host({"mail": service()})))
    found = report(host({"mail": service(DRIFT)}, at=0.001), now=NOW.timestamp() + 86, previous=own)
    assert found["summary"]["status"]["drifting"] == 1


@pytest.mark.parametrize("content", ["", "{}", "\udcff", '{"schema_version": 1, "hosts": 4}'])
def test_a_damaged_report_is_replaced(tmp_path: Path, content: str) -> None:
    own = tmp_path / "report.json"
    own.write_bytes(content.encode("utf-8", "surrogateescape"))
    valid(report(host({"mail": service()}), previous=own))


def test_files_are_replaced_as_a_whole_and_only_when_they_differ(tmp_path: Path) -> None:
    files = outputs.outputs(report(*fleet(5)), tmp_path / "new", outputs.NAMES)
    assert all(one.differs(0o644) for one in files)
    for one in files:
        one.write(0o640)
    assert not any(one.differs(0o640) for one in files)
    assert all(one.differs(0o644) for one in files)
    assert sorted(one.name for one in (tmp_path / "new").iterdir()) == sorted(outputs.NAMES.values())


# -- the document ----------------------------------------------------------------------------------------------------


def test_the_document_follows_its_schema_and_survives_its_file() -> None:
    found = report(*fleet(200))
    valid(found)
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(document.dump(found)) == found


def test_the_schema_knows_exactly_what_a_report_has() -> None:
    for name in ("service", "token", "finding", "consumer", "verification", "tls", "test_send", "host"):
        described = SCHEMA["$defs"][name]
        assert list(described["properties"]) == described["required"] == list(getattr(shape, name.upper()))


def test_the_summary_counts_what_there_is() -> None:
    found = report(*fleet(300))
    for status, count in found["summary"]["status"].items():
        assert count == sum(one["status"] == status for one in found["hosts"])
    assert sum(found["summary"]["status"].values()) == 300
    assert sum(found["summary"]["findings"].values()) == sum(len(one["findings"]) for one in found["hosts"])


def test_hosts_are_in_the_order_of_people() -> None:
    names = ["web10", "web2", "Web1", "10.0.0.9", "10.0.0.10", "a", "²"]
    found = report(*(host({"m": service()}, name=name) for name in names))
    assert [one["name"] for one in found["hosts"]] == ["10.0.0.9", "10.0.0.10", "a", "Web1", "web2", "web10", "²"]


def test_what_is_pooled_comes_back() -> None:
    found = report(*fleet(60))
    root, entries = pool.pooled(found)
    again = pool.restored(root, entries)
    assert again["hosts"][7]["name"] == found["hosts"][7]["name"]
    assert pool.pooled(again) == (root, entries)
    assert len(json.dumps([root, entries])) < len(json.dumps(found)) * 0.6


def test_truth_and_numbers_are_not_mixed_up_by_pooling() -> None:
    value = {"a": [True, 1, False, 0, "1", None, ""], "b": [True, 1, False, 0, "1", None, ""], "c": False, "d": 0}
    assert pool.restored(*pool.pooled(value)) == value
    assert str(pool.restored(*pool.pooled(value))) == str(value)


@pytest.mark.parametrize(
    "text", ["a." * 100_000, "-" * 200_000, "eyJ" * 60_000, "password" + " " * 200_000, "0.A" * 60_000]
)
def test_no_text_keeps_the_net_busy(text: str) -> None:
    began = time.monotonic()
    Net(["Tr0ub4dor"]).configuration(text)
    assert time.monotonic() - began < 2
