# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""One fleet from what others left behind to a relay that is proved, and through what happens to fleets.

Real machines with systemd, Debian 12 and 13, Postfix, Exim and msmtp, over ssh as an ordinary user who becomes root, on
one by a password. One machine's disk is full, one has no requests for Python, one does not answer. The tests are one
story, in this order.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import junitparser
import pytest
import yaml
from lab.machine import Machine, why_unavailable
from lab.playbook import good
from lab.tree import RELAY_ADDRESS, RELAY_NAME

from fleet.site import CA_FILE, LIVE, MACHINES, OLD_PASSWORD, PASSWORD, QUEUEING, Fleet, running

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "machines can run here")

TEST_MAIL = {"rollout_canary": "web1", "rollout_test_to": "oncall@example.test", "rollout_batches": ["50%", "100%"]}
GOOD = {"rollout_hosts": "all:!down:!full"}
JOURNAL = "var/lib/fleetmail/smtp/journal.json"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running(tmp_path_factory.mktemp("fleet")) as made:
        yield made


def test_an_audit_of_what_others_set_up(fleet: Fleet) -> None:
    audited = fleet.play("audit", audit_tasks="adopt", audit_fail_on_hosts=["failed", "unknown"])
    assert audited.code == 0, audited.out + audited.err
    assert fleet.fates() == {**dict.fromkeys((*LIVE, "full"), "audited"), "down": "unreachable"}
    found = {name: {one["name"] for one in host["findings"]} for name, host in fleet.report().items()}
    assert {"secret-readable", "tls-opportunistic"} <= found["web1"]
    assert {"secret-readable", "cleartext-credentials"} <= found["box1"]
    assert "tls-opportunistic" in found["app1"]


def test_what_is_adopted_does_not_drift(fleet: Fleet) -> None:
    """What a task would make other is told beside it. After it nothing is."""
    adopt = fleet.control.folder / "input/adopt"
    written = {name: (adopt / f"{name}.yml").read_text() for name in ("web1", "app1", "box1")}
    assert not [name for name, text in written.items() if len(yaml.safe_load(text)) != 1]
    include = {"name": "adopt", "ansible.builtin.include_tasks": f"{adopt}/{{{{ inventory_hostname }}}}.yml"}
    vault = {"vault_smtp_password_old_relay_example_test": OLD_PASSWORD}
    for arguments in ("--check", "--diff"), ("--check",):
        played = fleet.control.play([include], "--limit", "web1,app1,box1", *arguments, **vault)
        for name in written:
            told = [line for line in written[name].splitlines() if " becomes " in line]
            result = played.of(f"The service default of {backend_of(written[name])}", name)
            assert len(result["drift"]) == len(told), (told, result["drift"])
    good(fleet.control.play([include], "--limit", "web1,app1,box1", **vault))
    after = good(fleet.control.play([include], "--limit", "web1,app1,box1", "--check", **vault))
    assert {
        name: after.of(f"The service default of {backend_of(written[name])}", name)["drift"] for name in written
    } == {name: [] for name in written}


def backend_of(tasks: str) -> str:
    (task,) = yaml.safe_load(tasks)
    backend: str = task["fleetmail.smtp.smtp_service"]["backend"]
    return backend


def test_every_machine_reaches_the_relay(fleet: Fleet) -> None:
    probe = {"host": RELAY_NAME, "security": "starttls", "ca_file": CA_FILE, "verify": "tls"}
    probed = fleet.control.module("fleetmail.smtp.smtp_probe", **probe)
    assert {one.host: one.status for one in probed.results} == {**dict.fromkeys(MACHINES, "ok"), "down": "unreachable"}
    assert {one.result["verification"]["reached"] for one in probed.results if one.status == "ok"} == {"tls"}


def test_a_rollout(fleet: Fleet) -> None:
    rolled = fleet.play("rollout", **TEST_MAIL, rollout_max_fail_percentage=50)
    assert rolled.code != 0
    assert fleet.fates() == {**dict.fromkeys(LIVE, "changed"), "full": "failed", "down": "unreachable"}, rolled.out
    assert "No space left on device" in json.dumps(fleet.report()["full"]["problems"])
    assert fleet.machines["full"].output(["postconf", "-h", "relayhost"]) == ""
    assert [mail.recipients for mail in fleet.relay.messages()] == [["oncall@example.test"]]
    fleet.send(*LIVE, subject="after the rollout")
    fleet.arrived("after the rollout", *LIVE)

    again = good(fleet.play("rollout", **TEST_MAIL, **GOOD))
    assert not [one for one in again.results if "fleet_report" not in one.task and one.result.get("changed")]
    assert set(fleet.fates().values()) == {"compliant"}


def tamper(fleet: Fleet) -> dict[str, set[str]]:
    """Four machines in four ways; gives what a report must say of each."""
    web1, app1, box2, web2 = (fleet.machines[name] for name in ("web1", "app1", "box2", "web2"))
    web1.run(["postconf", "-e", "smtp_tls_security_level=may"])
    app1.run(["chmod", "644", "/etc/exim4/passwd.client"])
    box2.run(["sed", "-i", "s/^tls on/tls off/; s/^ *tls .*on/tls off/", "/etc/msmtprc"])
    web2.run(["systemctl", "disable", "--now", "postfix"])
    return {
        "web1": {"security", "validate_certs"},
        "app1": {"mode of /etc/exim4/passwd.client"},
        "box2": {"security"},
        "web2": {"running"},
    }


def test_drift(fleet: Fleet) -> None:
    expected = tamper(fleet)
    drift = fleet.play("drift", drift_hosts="all:!full")
    assert drift.code != 0
    fates = {**dict.fromkeys(LIVE, "compliant"), **dict.fromkeys(expected, "drifting"), "down": "unreachable"}
    assert fleet.fates() == fates, drift.out
    for name, fields in expected.items():
        (service,) = fleet.report()[name]["services"]
        assert fields <= {one["field"] for one in service["drift"]}, service["drift"]
    suites = junitparser.JUnitXml.fromfile(str(fleet.control.folder / "input/fleetmail-report/junit.xml"))
    assert {one.name for one in suites if one.failures} == set(expected)
    assert {one.name for one in suites if one.errors} == {"down"}

    good(fleet.play("rollout", **TEST_MAIL, **GOOD))
    assert {name for name, fate in fleet.fates().items() if fate == "changed"} == set(expected)
    assert fleet.machines["web2"].output(["systemctl", "is-enabled", "postfix"]) == "enabled"
    good(fleet.play("drift", drift_hosts="all:!full:!down"))


def test_the_relay_is_cut_off_in_the_middle_of_a_rollout(fleet: Fleet) -> None:
    """What was not proved is put back, nobody after it is touched, and every mail arrives in the end."""
    new = {"relay_client_from_address": "alerts@example.test"}
    before = {name: fleet.machines[name].output(["postconf", "-n"]) for name in ("web1", "web2")}
    fleet.relay.forget()
    with fleet.control.network.cut(RELAY_ADDRESS):
        fleet.send(*QUEUEING, subject="meanwhile")
        refused = fleet.machines["box1"].run(["/usr/sbin/sendmail", "you@example.org"], b"hello\n", check=False)
        assert refused.returncode == 75  # EX_TEMPFAIL of sysexits.h: its caller keeps the mail
        stopped = fleet.play("rollout", **GOOD, rollout_canary="web1", form=new)
        assert stopped.code != 0
        fates = fleet.fates()
    assert fates == {**dict.fromkeys(LIVE, "unknown"), "web1": "failed"}
    assert stopped.of("The rollout stopped, these hosts are untouched")["msg"] == [
        name for name in LIVE if name != "web1"
    ]
    assert {name: fleet.machines[name].output(["postconf", "-n"]) for name in before} == before
    for name in QUEUEING:
        flush = ["postqueue", "-f"] if name.startswith("web") else ["exim4", "-qff"]
        fleet.machines[name].run(flush)
    fleet.arrived("meanwhile", *QUEUEING)
    good(fleet.play("drift", drift_hosts="all:!full:!down"))


def test_machines_that_lose_their_power_in_the_middle_of_a_rollout(fleet: Fleet) -> None:
    """A mail that waits is not lost, the rollout tells of the machine, and the next one makes it whole."""
    fleet.relay.forget()
    web2, app2 = fleet.machines["web2"], fleet.machines["app2"]
    with fleet.control.network.cut(RELAY_ADDRESS):
        fleet.send("web2", "app2", subject="before the cut")
        web2.wait_for_log("status=deferred")
    new = {"relay_client_from_address": "alerts@example.test"}
    cuts = [
        threading.Thread(target=cut_in_the_middle, args=(machine, begun))
        for machine, begun in ((web2, b"applying"), (app2, b"staging"))
    ]
    for one in cuts:
        one.start()
    played = fleet.play("rollout", **GOOD, rollout_canary="web1", rollout_max_fail_percentage=100, form=new)
    for one in cuts:
        one.join()
    assert played.code != 0
    assert {fleet.fates()[name] for name in ("web2", "app2")} == {"unreachable"}, played.out
    for machine in (web2, app2):
        machine.switch_on()
    web2.run(["postqueue", "-f"])
    app2.run(["exim4", "-qff"])
    fleet.arrived("before the cut", "web2", "app2", sender="")
    again = good(fleet.play("rollout", **GOOD, **TEST_MAIL, form=new))
    assert [machine.exists(JOURNAL) for machine in (web2, app2)] == [False, False], again.out
    good(fleet.play("drift", drift_hosts="all:!full:!down", form=new))


def cut_in_the_middle(machine: Machine, begun: bytes) -> None:
    """As soon as the journal says so."""
    journal, end = machine.path / JOURNAL, time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(FileNotFoundError):
            if begun in journal.read_bytes():
                break
        time.sleep(0.002)
    machine.cut_power()


def test_after_a_reboot_everything_is_as_it_was(fleet: Fleet) -> None:
    fleet.relay.forget()
    for name in ("web2", "app1"):
        fleet.machines[name].reboot()
    fleet.send("web2", "app1", subject="after the reboot")
    fleet.arrived("after the reboot", "web2", "app1", sender="alerts@example.test")


def test_no_password_is_where_it_does_not_belong(fleet: Fleet) -> None:
    """Neither in what the control node wrote, nor in a log of a machine."""
    folder = fleet.control.folder / "output"
    held = [path for path in folder.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()]
    assert held == []
    for machine in fleet.machines.values():
        logs = [path for path in Path(machine.path, "var/log").rglob("*") if path.is_file() and not path.is_symlink()]
        assert [path for path in logs if PASSWORD.encode() in path.read_bytes()] == []
