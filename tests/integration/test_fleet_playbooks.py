# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbooks rollout, drift and audit on one mixed fleet: Postfix, Exim, msmtp, a relay, and a host that is lost."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import documents
import junitparser
import pytest
import yaml
from driver import environments
from driver.checkout import ROOT
from integration.reader import Reader
from lab.authority import Authority
from lab.driven import HERE, Driven, Lost
from lab.forms import CA_FILE, relay_client
from lab.layers import why_unavailable
from lab.network import Network
from lab.playbook import Played
from lab.relay import Relay, listeners
from lab.tree import RELAY_NAME, Tree

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "the lab is there")

PASSWORD = "Flt3canaryYhNuJm28"
FORM = relay_client(PASSWORD, verify="tls")
SOFTWARE = {"web1": "postfix", "web2": "exim", "web3": "msmtp", "web4": "postfix"}
HELD = ("etc/postfix", "etc/exim4", "etc/msmtprc", "var/lib/fleetmail")
PLAYBOOKS = ("rollout", "drift", "audit", "migrate_to_oauth")


class Fleet:
    """Four hosts, one that is lost, their relay, and a control node in a folder."""

    def __init__(self, driven: Driven, hosts: dict[str, Tree], relay: Relay) -> None:
        self.driven, self.hosts, self.relay = driven, hosts, relay

    @property
    def folder(self) -> Path:
        return self.driven.folder

    def site(self, *names: str, form: Any = None, **variables: Any) -> Played:
        """Several of the playbooks in one run."""
        book = self.folder / "site.yml"
        self.folder.mkdir(exist_ok=True)
        book.write_text(yaml.safe_dump([{"import_playbook": f"fleetmail.smtp.{name}"} for name in names]))
        return self.play(str(book), form=form, **variables)

    def play(self, name: str, *arguments: str, ansible: Path = HERE, form: Any = None, **variables: Any) -> Played:
        """Run one of the playbooks, or a file."""
        group = self.folder / "input/group_vars/all.yml"
        group.parent.mkdir(parents=True, exist_ok=True)
        group.write_text(yaml.safe_dump({**FORM, "ansible_become": False, **(form or {})}))
        every: list[Any] = [*self.hosts.values(), Lost()]
        book = name if name.startswith("/") else f"fleetmail.smtp.{name}"
        played = self.driven.by(ansible).book(book, every, variables, arguments)
        assert PASSWORD not in played.out + played.err
        return played

    def report(self) -> dict[str, dict[str, Any]]:
        found = json.loads((self.folder / "input/fleetmail-report/report.json").read_text())
        return {host["name"]: host for host in found["hosts"]}

    def fates(self) -> dict[str, str]:
        return {name: host["status"] for name, host in self.report().items()}

    def files(self) -> dict[str, tuple[int, bytes]]:
        """Every file that could have been touched: mode and content."""
        found = {}
        for host in self.hosts.values():
            for place in HELD:
                top = host.path / place
                for path in [top, *top.rglob("*")] if top.is_dir() else [top]:
                    if path.is_file():
                        found[str(path)] = (path.stat().st_mode, path.read_bytes())
        return found


def told(played: Played) -> str:
    return " ".join(played.out.split())


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    relay = Relay(listeners(authority.good(RELAY_NAME)), users={"fleet": PASSWORD}, auth_required=True)
    with (
        Network() as network,
        Tree("postfix", name="web1", network=network) as web1,
        Tree("exim", name="web2", network=network) as web2,
        Tree("msmtp", name="web3", network=network) as web3,
        Tree("postfix", name="web4", network=network) as web4,
        relay.start(in_net_of=web1),
    ):
        hosts = {one.name: one for one in (web1, web2, web3, web4)}
        for name, host in hosts.items():
            host.write(CA_FILE, authority.ca_file.read_bytes())
            if SOFTWARE[name] == "postfix":
                host.let_cool()
            if SOFTWARE[name] != "msmtp":
                host.start(SOFTWARE[name])
        yield Fleet(Driven(tmp_path_factory.mktemp("control")), hosts, relay)


@pytest.fixture
def fleet(lab: Fleet, driven: Driven) -> Fleet:
    lab.relay.forget()
    return Fleet(driven, lab.hosts, lab.relay)


def set_up_by_hand(fleet: Fleet) -> None:
    """As somebody did years ago: a relay without TLS, a password for everybody, and one that forgot all of it."""
    web1, web3 = fleet.hosts["web1"], fleet.hosts["web3"]
    web1.write("/etc/postfix/sasl_passwd", f"[{RELAY_NAME}]:587 fleet:{PASSWORD}\n", 0o644)
    settings = [
        *("relayhost=[relay.example.test]:587", "smtp_sasl_auth_enable=yes", "smtp_tls_security_level=may"),
        *("smtp_sasl_password_maps=hash:/etc/postfix/sasl_passwd", "smtp_sasl_security_options=noanonymous"),
    ]
    web1.run(["postconf", "-e", *settings])
    web1.run(["postmap", "/etc/postfix/sasl_passwd"])
    text = f"account default\nhost {RELAY_NAME}\nport 587\nauth plain\nuser fleet\npassword {PASSWORD}\ntls off\n"
    web3.write("/etc/msmtprc", text, 0o644)


def test_audit_of_what_somebody_set_up(fleet: Fleet) -> None:
    set_up_by_hand(fleet)
    before = fleet.files()
    audited = fleet.play("audit", "--check", audit_tasks="adopt", audit_fail_on_hosts=["failed", "unknown"])
    assert audited.code == 0, audited.out + audited.err
    table = audited.of("The findings")["msg"]
    ranks = ["critical", "warning", "info", "unknown"]
    found = [ranks.index(line.split()[0]) for line in table[:-1]]
    assert found == sorted(found)
    assert found.count(3) == 1
    assert any(line.startswith("warning  web1:") and "opportunistic" in line for line in table)
    assert any(line.startswith("critical web3:") for line in table)
    assert table[-1] == "5 hosts"
    assert fleet.fates() == {**dict.fromkeys(SOFTWARE, "audited"), "lost": "unreachable"}
    assert {one["name"] for one in fleet.report()["web1"]["findings"]} >= {"tls-opportunistic"}
    written = {path.name: yaml.safe_load(path.read_text()) for path in (fleet.folder / "input/adopt").iterdir()}
    assert set(written) == {f"{name}.yml" for name in SOFTWARE}
    task = written["web1.yml"][0]["fleetmail.smtp.smtp_service"]
    assert (task["host"], task["security"], task["username"]) == (RELAY_NAME, "starttls", "fleet")
    assert task["password"].startswith("{{ vault_smtp_password")
    assert fleet.files() == before

    refused = fleet.play("audit", audit_hosts="web3", audit_fail_on=["critical"])
    assert refused.code != 0
    assert "critical web3:" in str(refused.of("Nothing of what was to be told is there")["msg"])
    fleet.hosts["web1"].run(["postconf", "-X", "relayhost", "smtp_tls_security_level", "smtp_sasl_auth_enable"])
    fleet.hosts["web3"].inside("/etc/msmtprc").unlink()


def tamper(fleet: Fleet) -> dict[str, set[str]]:
    """Three hosts in three ways; gives what a report must say of each."""
    web1, web2, web3 = (fleet.hosts[name] for name in ("web1", "web2", "web3"))
    web1.run(["postconf", "-e", "smtp_tls_security_level=may"])
    web1.let_cool()
    os.chmod(web2.inside("/etc/exim4/passwd.client"), 0o644)
    web3.inside("/etc/msmtprc").unlink()
    return {"web1": {"security", "validate_certs"}, "web2": {"mode of /etc/exim4/passwd.client"}, "web3": {"host"}}


def test_rollout_drift_repair(fleet: Fleet) -> None:
    rollout = {"rollout_canary": "web1", "rollout_test_to": "oncall@example.test", "rollout_batches": ["50%", "100%"]}
    first = fleet.play("rollout", **rollout, rollout_max_fail_percentage=50)
    assert fleet.fates() == {**dict.fromkeys(SOFTWARE, "changed"), "lost": "unreachable"}, first.out
    assert "unreachable: lost" in told(first)
    assert first.code != 0
    assert [mail.recipients for mail in fleet.relay.messages()] == [["oncall@example.test"]]
    order = [one.host for one in first.results if one.task.endswith("Mail goes through the relay")]
    assert order[0] == "web1"

    again = fleet.play("rollout", **rollout, rollout_hosts="all:!lost")
    assert again.code == 0, again.out + again.err
    hosts = [one for one in again.results if "fleet_report" not in one.task]
    assert not [one.task for one in hosts if one.result.get("changed") or one.result.get("failed")]
    assert len(fleet.relay.messages()) == 1
    assert set(fleet.fates().values()) == {"compliant"}

    expected = tamper(fleet)
    before = fleet.files()
    drift = fleet.play("drift")
    assert drift.code != 0
    assert fleet.files() == before
    fates = {"web1": "drifting", "web2": "drifting", "web3": "drifting", "web4": "compliant", "lost": "unreachable"}
    assert fleet.fates() == fates, drift.out
    lost = [one.task for one in drift.results if one.status == "unreachable"]
    assert len(lost) == 1, lost  # each costs a time-out
    for name, fields in expected.items():
        (service,) = fleet.report()[name]["services"]
        assert fields <= {one["field"] for one in service["drift"]}
    assert fleet.report()["web2"]["services"][0]["drift"] == [
        {"field": "mode of /etc/exim4/passwd.client", "before": "0644", "after": "0640"}
    ]
    assert "drifting: web1, web2, web3" in told(drift)
    suites = junitparser.JUnitXml.fromfile(str(fleet.folder / "input/fleetmail-report/junit.xml"))
    assert {one.name: (one.failures, one.errors) for one in suites} == {
        "web1": (1, 0), "web2": (1, 0), "web3": (1, 0), "web4": (0, 0), "lost": (0, 1)
    }  # fmt: skip

    repaired = fleet.play("rollout", **rollout, rollout_hosts="all:!lost")
    assert repaired.code == 0, repaired.out + repaired.err
    assert fleet.fates() == {**dict.fromkeys(("web1", "web2", "web3"), "changed"), "web4": "compliant"}
    clean = fleet.play("drift", "--check", drift_fail_on=["drifting", "failed", "unknown"])
    assert clean.code == 0, clean.out + clean.err
    assert fleet.fates() == {**dict.fromkeys(SOFTWARE, "compliant"), "lost": "unreachable"}
    assert fleet.play("drift", drift_hosts="lost", drift_report="out/nightly").code != 0
    assert (fleet.folder / "input/out/nightly/report.json").exists()


def test_a_failing_canary_leaves_the_others_untouched(fleet: Fleet) -> None:
    before = fleet.files()
    wrong = {
        "relay_client_from_address": "new@example.test",
        "relay_client_password": "wr0ng",
        "relay_client_verify": "auth",
    }
    options = {"rollout_canary": "web1,web2", "rollout_hosts": "all:!lost", "drift_hosts": "all:!lost"}
    # an earlier play of the same run has results of all hosts, which are not the rollout's
    played = fleet.site("drift", "rollout", form=wrong, drift_fail_on=[], **options)
    assert played.code != 0
    assert fleet.files() == before
    assert played.of("The rollout stopped, these hosts are untouched")["msg"] == ["web3", "web4"]
    assert fleet.fates() == {"web1": "failed", "web2": "failed", "web3": "unknown", "web4": "unknown"}
    assert "535" in json.dumps(fleet.report()["web1"]["problems"])
    begun = [one.task for one in played.results].index("It can begin")
    asked = [
        {one.host for one in some if "relay_client" in one.task}
        for some in (played.results[:begun], played.results[begun:])
    ]
    assert asked == [set(SOFTWARE), {"web1", "web2"}]
    typo = fleet.play("rollout", rollout_canary="wbe1")
    assert typo.code != 0
    assert "no host of the inventory is wbe1" in told(typo)
    outside = fleet.play("rollout", rollout_canary="web3", rollout_hosts="web1")
    assert outside.code != 0
    assert [one.task for one in outside.results] == ["No host has a result yet", "It can begin"]
    assert "not among the hosts of rollout_hosts: web3" in told(outside)
    nobody = fleet.play("drift", drift_hosts="nobody")
    assert nobody.code != 0
    assert "drift_hosts: no host of the inventory is nobody" in nobody.err
    fewer = fleet.play("rollout", "--check", "--limit", "web1,web4", rollout_canary="web1,web2")
    batches = [one.host for one in fewer.results if one.task == "It can begin"]
    assert batches == ["web1", "web4"]


def test_what_the_role_refuses_is_not_done(fleet: Fleet) -> None:
    """A host whose mail software would be replaced, and one with a variable that is not there: no later task runs."""
    wrong = {
        "relay_client_backend": "{{ 'postfix' if inventory_hostname == 'web2' else 'auto' }}",
        "relay_client_from_address": "{{ not_there if inventory_hostname == 'web3' else 'a@example.test' }}",
    }
    before = fleet.files()
    options = {"rollout_batches": 2, "rollout_max_fail_percentage": "60%"}
    played = fleet.play("rollout", form=wrong, rollout_hosts="web1,web2,web3,web4", **options)
    touched = {name for name, held in fleet.files().items() if before.get(name) != held}
    assert played.code != 0
    assert fleet.fates() == {"web1": "changed", "web2": "failed", "web3": "failed", "web4": "unknown"}
    assert not [name for name in touched if "/web1-" not in name]
    why = {name: host["problems"][0]["problem"] for name, host in fleet.report().items() if host["status"] == "failed"}
    assert "postfix would take its place" in why["web2"]
    assert "not_there" in why["web3"]
    assert not [one.host for one in played.results if one.task.endswith("Install them")]
    assert fleet.play("rollout", rollout_hosts="web1").code == 0


def test_with_the_oldest_ansible_core(fleet: Fleet) -> None:
    try:
        ansible = environments.ansible_environment("2.18")
    except environments.Unavailable as reason:
        pytest.skip(str(reason))
    options = {"ansible": ansible, "rollout_hosts": "all:!lost", "rollout_test_to": "a@example.test"}
    done = fleet.play("rollout", **options)
    assert done.code == 0, done.out + done.err
    os.chmod(fleet.hosts["web2"].inside("/etc/exim4/passwd.client"), 0o644)
    drift = fleet.play("drift", ansible=ansible)
    assert drift.code != 0
    assert fleet.fates() == {**dict.fromkeys(SOFTWARE, "compliant"), "web2": "drifting", "lost": "unreachable"}
    assert fleet.play("rollout", **options).code == 0
    assert fleet.fates()["web2"] == "changed"


def test_the_guide(fleet: Fleet, tmp_path: Path) -> None:
    """Its files, and its commands to the letter, by a reader whose hosts somebody has changed before the first one."""
    reader = Reader(tmp_path / "reader", {}, {"smtp_password": PASSWORD})
    reader.copies("guide_fleet")
    reader.encrypts("inventory/group_vars/mail_clients/vault.yml")
    for name in ("web1", "web2", "web3"):
        pairs = (pair.split("=", 1) for pair in fleet.hosts[name].inventory_line().split()[1:])
        reader.has(f"inventory/host_vars/{name}.yml", yaml.safe_dump({**dict(pairs), "ansible_become": False}))
    commands = {
        words[3].removeprefix("fleetmail.smtp."): [words[3], *words[1:3], *words[4:]]
        for language, text in documents.blocks("guide_fleet")
        if language == "console" and (words := shlex.split(text)[1:])[0] == "ansible-playbook"
    }
    assert list(commands) == ["audit", "rollout", "drift", "migrate_to_oauth"]

    def plays(name: str, *more: str, ends: int = 0) -> str:
        return reader.plays(*commands[name], *more, ends=ends)

    assert fleet.play("rollout", rollout_hosts="all:!lost").code == 0
    tamper(fleet)
    assert "critical" in plays("audit")
    assert (reader.folder / "adopt/web1.yml").exists()
    plays("drift", ends=2)
    plays("rollout", "--check")
    assert fleet.relay.messages() == []
    plays("rollout")
    assert [mail.recipients for mail in fleet.relay.messages()] == [["oncall@example.test"]]
    plays("drift")
    plays("drift", "-e", '{"drift_fail_on": ["drifting", "failed"]}')
    assert (reader.folder / "fleetmail-report/junit.xml").exists()

    # nobody has authorized the client, so nothing is switched; that it is with a grant see test_migrate_playbook.py
    assert "web1: password -> password (" in plays("migrate_to_oauth", "--check", ends=2)


def test_every_variable_is_documented_where_it_is_used_and_in_the_guide() -> None:
    guide = (ROOT / "docs/docsite/rst/guide_fleet.rst").read_text()
    for name in PLAYBOOKS:
        text = (ROOT / f"playbooks/{name}.yml").read_text()
        head, body = text.split("\n- name:", 1)
        told = set(re.findall(rf"^#   ({name}_\w+)", head, re.M))
        own = set(re.findall(rf"^\s+({name}_\w+):|register: ({name}_\w+)", body, re.M))
        used = set(re.findall(rf"\b({name}_\w+)", body)) - {one for pair in own for one in pair}
        assert used == told
        assert not [one for one in told if f"``{one}``" not in guide]
