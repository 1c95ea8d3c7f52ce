# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real fleet of a few hosts, each with another fate, and what ansible-playbook and the role make of it.

The hosts are folders (root) on this machine that smtp_service really enforces msmtp in, beside a real relay; one is
behind a port that nobody listens at.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import documents
import jsonschema
import junitparser
import pytest
import yaml
from driver import environments
from driver.checkout import ROOT
from lab.authority import Authority
from lab.canary import Cage, Canary
from lab.relay import Relay, listeners
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.skipif(shutil.which("ssh") is None, reason="an unreachable host needs ssh")

Record = dict[str, Any]
SCHEMA = json.loads((ROOT / "plugins/plugin_utils/report/schema.json").read_text())
PASSWORD = "Zk7canaryQwErTy91"
WRONG = "Wr0ngcanaryAsDfGh82"
FATES = {
    "web1": "compliant",
    "web2": "drifting",
    "web3": "failed",
    "web4": "unreachable",
    "web5": "unknown",
    "web6": "failed",
}
STATUS = {status: [name for name, fate in FATES.items() if fate == status] for status in set(FATES.values())}
CERTIFICATE_DAYS = 20
HERE = Path(sys.executable).parents[1]

SITE = """
- hosts: mail_clients
  gather_facts: false
  tasks:
    - name: Something that only web5 has trouble with
      ansible.builtin.assert:
        that: inventory_hostname != 'web5'
        quiet: true

    - name: Mail goes through the relay
      fleetmail.smtp.smtp_service:
        backend: msmtp
        host: localhost
        port: "{{ relay_port }}"
        security: starttls
        auth_type: "{{ 'nonsense' if inventory_hostname == 'web6' else 'password' }}"
        username: fleet
        password: "{{ passwords[inventory_hostname] | default(passwords.all) }}"
        ca_file: /etc/ssl/relay-ca.pem
        verify: auth
        root: "{{ tree }}"
      register: smtp_service
"""

REPORT = """
- hosts: localhost
  gather_facts: false
  tasks:
    - name: The report
      ansible.builtin.include_role:
        name: fleetmail.smtp.fleet_report
      vars:
        fleet_report_hosts: "{{ groups['mail_clients'] }}"
        fleet_report_folder: report
"""

IN_CHECK_MODE = (SITE + REPORT).replace("  gather_facts: false\n", "  gather_facts: false\n  check_mode: true\n", 1)
GO_ON = "register: smtp_service\n      ignore_errors: true\n      ignore_unreachable: true"

SAME_PLAY = """
    - name: The report
      ansible.builtin.include_role:
        name: fleetmail.smtp.fleet_report
"""


class Played(NamedTuple):
    code: int
    out: str


class Fleet:
    """Six hosts in folders, and a control node in another one."""

    def __init__(self, folder: Path, relay: Relay, ansible: Path) -> None:
        self.folder, self.relay, self.ansible = folder, relay, ansible
        self.control = folder / "control"
        here = {"ansible_connection": "local", "ansible_python_interpreter": str(ansible / "bin/python")}
        self.hosts: Record = {name: {"tree": str(folder / "hosts" / name), **here} for name in FATES}
        self.hosts["web4"].update(ansible_connection="ssh", ansible_host="127.0.0.1", ansible_port=1)

    def build(self, ca_file: Path) -> None:
        for host in self.hosts.values():
            tree = Path(host["tree"])
            (tree / "etc/ssl").mkdir(parents=True)
            (tree / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
            (tree / "etc/group").write_text("root:x:0:\n")
            shutil.copy(ca_file, tree / "etc/ssl/relay-ca.pem")
        self.control.mkdir()
        (self.control / "ansible.cfg").write_text("[defaults]\nforks = 2\n[ssh_connection]\nretries = 0\n")
        self.write(SITE + REPORT)

    def write(self, playbook: str, name: str = "site.yml") -> None:
        (self.control / name).write_text(playbook)

    def edit_by_hand(self, name: str) -> None:
        file = Path(self.hosts[name]["tree"]) / "etc/msmtprc"
        file.write_text(file.read_text().replace("tls_certcheck on", "tls_certcheck off"))
        file.chmod(0o644)

    def play(self, *arguments: str, playbook: str = "site.yml", hosts: Sequence[str] = tuple(FATES)) -> Played:
        inventory = {"all": {"children": {"mail_clients": {"hosts": {name: self.hosts[name] for name in hosts}}}}}
        (self.control / "hosts.yml").write_text(yaml.safe_dump(inventory))
        variables = {"relay_port": self.relay.port("starttls"), "passwords": {"all": PASSWORD, "web3": WRONG}}
        (self.control / "variables.json").write_text(json.dumps(variables))
        command = [
            self.ansible / "bin/ansible-playbook",
            "-i",
            "hosts.yml",
            "-e",
            "@variables.json",
            playbook,
            *arguments,
        ]
        settings = {"ANSIBLE_CONFIG": "ansible.cfg", "ANSIBLE_HOME": str(self.folder / "home"), "ANSIBLE_NOCOLOR": "1"}
        done = subprocess.run(
            command,
            cwd=self.control,
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        return Played(done.returncode, done.stdout + done.stderr)

    def report(self, folder: str = "report") -> Record:
        found: Record = json.loads((self.control / folder / "report.json").read_text())
        jsonschema.Draft202012Validator(SCHEMA).validate(found)
        return found


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Relay, Path]]:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    secured = listeners(authority.ending(CERTIFICATE_DAYS + 0.5, "localhost"), "127.0.0.1", 0, 0, 0)[1:]
    with Relay(secured, users={"fleet": PASSWORD}, auth_required=True).start() as relay:
        yield relay, authority.ca_file


@pytest.fixture(scope="module")
def rolled_out(tmp_path_factory: pytest.TempPathFactory, relay: tuple[Relay, Path]) -> Path:
    """web1 and web2 are as they should be, then somebody has edited web2."""
    fleet = Fleet(tmp_path_factory.mktemp("fleet"), relay[0], HERE)
    fleet.build(relay[1])
    played = fleet.play(hosts=["web1", "web2"])
    assert played.code == 0, played.out
    assert fates(fleet.report()) == {"web1": "changed", "web2": "changed"}
    shutil.rmtree(fleet.control / "report")
    fleet.edit_by_hand("web2")
    return fleet.folder


@pytest.fixture
def fleet(tmp_path: Path, relay: tuple[Relay, Path], rolled_out: Path) -> Fleet:
    return copied(tmp_path, relay[0], rolled_out)


def copied(folder: Path, relay: Relay, original: Path, ansible: Path = HERE) -> Fleet:
    shutil.copytree(original, folder / "fleet", symlinks=True)
    return Fleet(folder / "fleet", relay, ansible)


def environment(version: str) -> Path:
    try:
        return environments.ansible_environment(version)
    except environments.Unavailable as reason:
        pytest.skip(str(reason))


def by_name(found: Record) -> Record:
    return {host["name"]: host for host in found["hosts"]}


def fates(found: Record) -> dict[str, str]:
    return {host["name"]: host["status"] for host in found["hosts"]}


def test_the_report_tells_exactly_what_befell_each_host(fleet: Fleet) -> None:
    fleet.write(IN_CHECK_MODE)
    played = fleet.play()
    found = fleet.report()
    assert fates(found) == FATES, played.out
    hosts = by_name(found)
    drift = {one["field"]: (one["before"], one["after"]) for one in hosts["web2"]["services"][0]["drift"]}
    assert drift == {"validate_certs": (False, True), "mode of /etc/msmtprc": ("0644", "0600")}
    assert "-  validate_certs: false\n" in hosts["web2"]["services"][0]["diff"]
    assert hosts["web3"]["problems"][0]["option"] == "verify"
    assert "535" in hosts["web3"]["problems"][0]["hint"]
    assert "Connection refused" in hosts["web4"]["problems"][0]["problem"]
    assert "no result" in hosts["web5"]["problems"][0]["problem"]
    assert hosts["web6"]["problems"][0]["option"] == "auth_type"
    assert [(one["days_left"], one["hosts"]) for one in found["certificates"]] == [(CERTIFICATE_DAYS, 3)]
    assert {one["name"] for one in hosts["web1"]["findings"]} == {"certificate-ends"}
    every_view_says_so(fleet.control / "report")


def every_view_says_so(folder: Path) -> None:
    with (folder / "report.csv").open(newline="") as file:
        assert {row["host"]: row["status"] for row in csv.DictReader(file)} == FATES
    suites = junitparser.JUnitXml.fromfile(str(folder / "junit.xml"))
    bad = {suite.name: (suite.failures, suite.errors) for suite in suites}
    assert bad == {"web1": (0, 0), "web2": (1, 0), "web3": (1, 0), "web4": (0, 1), "web5": (0, 1), "web6": (1, 0)}
    metrics = {one.name: one for one in text_string_to_metric_families((folder / "fleetmail_report.prom").read_text())}
    statuses = metrics["fleetmail_report_host_status"].samples
    assert {one.labels["host"]: one.labels["status"] for one in statuses} == FATES
    page = (folder / "report.html").read_text()
    assert all(name in page for name in FATES)
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == dict.fromkeys(
        ("report.json", "report.html", "report.csv", "junit.xml", "fleetmail_report.prom"), 0o644
    )


def test_what_was_repaired_is_told_and_a_second_run_changes_nothing(fleet: Fleet) -> None:
    hosts = ["web1", "web2"]
    assert fleet.play(hosts=hosts).code == 0
    assert fates(fleet.report()) == {"web1": "compliant", "web2": "changed"}
    assert fleet.play(hosts=hosts).code == 0
    assert fates(fleet.report()) == {"web1": "compliant", "web2": "compliant"}
    before = {path: path.read_bytes() for path in (fleet.control / "report").iterdir()}
    again = fleet.play(hosts=hosts)
    assert "changed=0" in again.out.split("PLAY RECAP")[1].split("localhost")[1]
    assert {path: path.read_bytes() for path in (fleet.control / "report").iterdir()} == before
    (fleet.control / "report/report.csv").write_text("edited by hand")
    fleet.play(hosts=hosts)
    assert {path: path.read_bytes() for path in (fleet.control / "report").iterdir()} == before


def test_check_mode_tells_what_would_be_written(fleet: Fleet) -> None:
    told = fleet.play("--check", "-v", hosts=["web1", "web2"])
    assert told.code == 0
    assert "report.html" in told.out
    assert '"drifting": ["web2"]' in told.out
    assert not (fleet.control / "report").exists()


def test_at_the_end_of_the_play_that_asked_the_hosts(fleet: Fleet) -> None:
    """Those that the play lost are among its hosts, so they need not be named; the first one left writes."""
    fleet.write(SITE + SAME_PLAY)
    played = fleet.play("--limit", "web1,web4,web5")
    assert fates(fleet.report()) == {name: FATES[name] for name in ("web1", "web4", "web5")}, played.out


def test_slices_of_the_inventory_become_one_report(fleet: Fleet) -> None:
    for number, part in enumerate((("web1", "web2", "web3"), ("web3", "web4", "web5", "web6"))):
        given = json.dumps({"fleet_report_source": f"slice {number + 1}"})
        site = SITE.replace("register: smtp_service", GO_ON)  # or nothing is reported where every host fails
        fleet.write(site + REPORT.replace("fleet_report_folder: report", f"fleet_report_folder: slices/{number}"))
        fleet.play("-e", given, hosts=part)
    merge = """
- hosts: localhost
  gather_facts: false
  roles:
    - role: fleetmail.smtp.fleet_report
      vars:
        fleet_report_merge: ["slices/*/report.json"]
        fleet_report_fail_on: [drifting, failed, unreachable, unknown]
"""
    fleet.write(merge, "merge.yml")
    played = fleet.play(playbook="merge.yml")
    found = fleet.report()
    assert fates(found) == {**FATES, "web2": "changed"}
    assert by_name(found)["web3"]["source"] == "slice 2"
    assert [(one["host"], one["kept"], one["dropped"]) for one in found["replaced"]] == [("web3", "slice 2", "slice 1")]
    assert "web3 is in slice 2" in " ".join(played.out.split())
    assert played.code == 2
    assert "unreachable: web4; failed: web3, web6; unknown: web5" in " ".join(played.out.split())


def test_the_playbooks_of_the_guide(fleet: Fleet) -> None:
    for name, text in documents.files("guide_report").items():
        fleet.write(text.replace("become: true", "become: false"), name)  # whose rights a task has is the host's matter
    (task,) = (one for one in yaml.safe_load(SITE)[0]["tasks"] if "register" in one)
    fleet.write(yaml.safe_dump([{**task, "register": "mail"}]), "mail.yml")
    hosts = [name for name in FATES if name != "web5"]
    assert fleet.play(playbook="report.yml", hosts=["web1"]).code == 0
    played = fleet.play(playbook="report.yml", hosts=hosts)
    assert played.code == 2
    assert fates(fleet.report()) == {name: FATES[name] for name in hosts}, played.out
    fleet.play(playbook="rollout.yml", hosts=hosts)
    assert fates(fleet.report()) == {**{name: FATES[name] for name in hosts}, "web2": "changed"}
    shutil.copytree(fleet.control / "report", fleet.control / "slices/1")
    shutil.rmtree(fleet.control / "report")
    assert fleet.play(playbook="merge.yml", hosts=["web1"]).code == 0
    assert set(fates(fleet.report())) == set(hosts)


def test_the_examples_of_the_action(fleet: Fleet) -> None:
    """As they stand in its documentation, in check mode and for real."""
    documentation = yaml.safe_load((ROOT / "plugins/modules/smtp_fleet_report.yml").read_text())
    tasks = yaml.safe_load(documentation["EXAMPLES"])
    fleet.write((SITE + REPORT).replace("fleet_report_folder: report", "fleet_report_folder: slices/0"))
    fleet.play(hosts=["web1"])
    first, second = tasks
    fleet.write(SITE.replace("register: smtp_service", "register: mail") + _indented([first]))
    played = fleet.play("--check", hosts=["web1", "web2"])
    assert played.code == 0, played.out
    played = fleet.play(hosts=["web1", "web2"])
    assert fates(fleet.report()) == {"web1": "compliant", "web2": "changed"}
    fleet.write("- hosts: localhost\n  gather_facts: false\n  tasks:\n" + _indented([second]))
    for arguments in (["--check"], []):
        assert fleet.play(*arguments, hosts=["web1"]).code == 0
    assert fates(fleet.report()) == {"web1": "compliant"}


def _indented(tasks: list[Record]) -> str:
    return textwrap.indent(yaml.safe_dump(tasks), "    ")


def test_all_problems_with_the_options_are_told_at_once(fleet: Fleet) -> None:
    wrong = """
- hosts: localhost
  gather_facts: false
  tasks:
    - fleetmail.smtp.smtp_fleet_report: {folder: report, mode: rwx, max_age: -1}
      ignore_errors: true
    - fleetmail.smtp.smtp_fleet_report: {folder: report, merge: [ansible.cfg, missing.json]}
      ignore_errors: true
    - fleetmail.smtp.smtp_fleet_report: {folder: report, formats: [pdf], verbose: true}
      ignore_errors: true
    - fleetmail.smtp.smtp_fleet_report: {folder: report, hosts: [web1], template: ansible.cfg, merge: []}
      ignore_errors: true
    - fleetmail.smtp.smtp_fleet_report: {folder: report, hosts: [web1], mode: 0644}
      ignore_errors: true
    - fleetmail.smtp.smtp_fleet_report: {folder: ansible.cfg/report, hosts: [web1]}
      ignore_errors: true
"""
    fleet.write(wrong, "wrong.yml")
    told = " ".join(fleet.play("-v", playbook="wrong.yml").out.split())
    for said in (
        "mode: 'rwx' is no file mode", "cannot be less than 0", "ansible.cfg: is no JSON", "missing.json is not there",
        "pdf", "cannot be written", "mode: '420' is a mode with which the owner could not read",
    ):  # fmt: skip
        assert said in told
    assert "Traceback" not in told


def test_no_secret_is_in_any_file_of_the_report(tmp_path: Path, relay: tuple[Relay, Path], rolled_out: Path) -> None:
    """With the ansible-core that no longer masks arguments in results, and a host that says its password aloud."""
    fleet = copied(tmp_path, relay[0], rolled_out, environment("2.22"))
    aloud = """
    - name: Another program says it aloud
      ansible.builtin.fail:
        msg: "login as fleet with {{ passwords.all }} failed"
      register: smtp_probe
      ignore_errors: true
"""
    secrets = REPORT + '        fleet_report_secrets: ["{{ passwords.all }}"]\n'
    fleet.write(SITE + aloud + secrets)
    played = fleet.play("-vvv", "--diff")
    assert fates(fleet.report()) == {**FATES, "web1": "failed", "web2": "failed"}, played.out
    assert "login as fleet with ********" in by_name(fleet.report())["web1"]["problems"][0]["problem"]
    cage = Cage([Canary("right", PASSWORD), Canary("wrong", WRONG)])
    assert cage.search_folder(fleet.control / "report") == []


def test_with_the_oldest_ansible_core(tmp_path: Path, relay: tuple[Relay, Path], rolled_out: Path) -> None:
    fleet = copied(tmp_path, relay[0], rolled_out, environment("2.18"))
    fleet.write(IN_CHECK_MODE)
    played = fleet.play()
    assert fates(fleet.report()) == FATES, played.out
    assert "DEPRECATION" not in played.out
