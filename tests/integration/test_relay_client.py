# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role relay_client on real Debian trees: from a host that has nothing to one that sends, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from lab.authority import Authority
from lab.forms import CA_FILE, relay_client
from lab.layers import why_unavailable
from lab.network import Network
from lab.playbook import Played, play
from lab.relay import Relay, listeners
from lab.tree import RELAY_NAME, Tree

from ansible_collections.fleetmail.smtp.plugins.module_utils.form_arguments import OAUTH, RELAY

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "the lab is there")

ROOT = Path(__file__).parents[2]
PASSWORD = "Rcl7canaryPlMkNj46"
LOOK, INSTALL = "Look which software there is", "Install them"
SERVICE = "Mail goes through the relay"
FORM = relay_client(PASSWORD, from_address="fleet@example.test")


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Network, Relay, bytes]]:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    relay = Relay(listeners(authority.good(RELAY_NAME)), users={"fleet": PASSWORD}, auth_required=True)
    with Network() as network, Tree("bare", name="gate", network=network) as gate, relay.start(in_net_of=gate):
        yield network, relay, authority.ca_file.read_bytes()


def uses(*ways: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Tasks that use the role once in each way: a name, and keywords beside it. Each has its name as a task before."""
    role = {"name": "role", "ansible.builtin.import_role": {"name": "fleetmail.smtp.relay_client"}}
    marks = [{"name": name, "ansible.builtin.debug": {"msg": name}} for name, _keywords in ways]
    return [one for mark, (_name, keywords) in zip(marks, ways, strict=True) for one in (mark, {**role, **keywords})]


def role(folder: Path, host: Tree, *arguments: str, **more: Any) -> Played:
    return play(folder, uses(("once", {})), [host], {**FORM, **more}, arguments)


def of_use(played: Played, name: str) -> dict[str, dict[str, Any]]:
    """What ran in that use of the role, beside the reading of its arguments: task -> result."""
    results = [one for one in played.results if one.status == "ok" and "Validating arguments" not in one.task]
    start = next(number for number, one in enumerate(results) if one.task == name) + 1
    end = next(
        (number for number, one in enumerate(results) if number >= start and "relay_client :" not in one.task), None
    )
    return {one.task.split(" : ")[-1]: one.result for one in results[start:end]}


def test_from_nothing_to_a_mail_and_then_two_tasks(tmp_path: Path, beside: tuple[Network, Relay, bytes]) -> None:
    network, relay, ca_file = beside
    with Tree("bare-repository", name="web1", network=network) as host:
        host.write(CA_FILE, ca_file)
        before = host.output(["sh", "-c", "dpkg-query -W; ls -lR /etc"])
        planned = role(tmp_path, host, "--check")
        assert planned.code == 0, planned.out + planned.err
        assert_planned(of_use(planned, "once"))
        assert host.output(["sh", "-c", "dpkg-query -W; ls -lR /etc"]) == before

        looking = {"check_mode": True}
        tasks = uses(("plan", looking), ("do", {}), ("look", looking), ("again", {}))
        done = play(tmp_path, tasks, [host], FORM)
        assert done.code == 0, done.out + done.err
        assert_planned(of_use(done, "plan"))
        made = of_use(done, "do")
        assert made[INSTALL]["changed"]
        assert not made[SERVICE]["check_mode"]
        for name in ("look", "again"):
            ran = of_use(done, name)
            assert list(ran) == [LOOK, SERVICE]
            assert not any(one["changed"] for one in ran.values())
        relay.forget()
        host.run(["sendmail", "-f", "app@web1.example.test", "you@example.org"], b"Subject: t\n\nhello\n")
        mail = relay.wait_for_message()
        assert (mail.sender, mail.auth_user) == ("fleet@example.test", b"fleet")
        assert PASSWORD not in planned.out + done.out


def assert_planned(said: dict[str, dict[str, Any]]) -> None:
    assert said["Say what would be installed"]["msg"] == ["postfix", "libsasl2-modules"]
    assert said["Say what would be installed"]["changed"]
    plan = said[SERVICE]
    assert plan["check_mode"]
    assert {"host", "security", "password"} <= {one["field"] for one in plan["drift"]}
    assert plan["verification"]["reached"] == "auth"


def test_what_a_host_has_is_kept_and_its_queue_too(tmp_path: Path, beside: tuple[Network, Relay, bytes]) -> None:
    network, _relay, ca_file = beside
    with Tree("exim", name="web2", network=network) as host:
        host.write(CA_FILE, ca_file)
        refused = role(tmp_path, host, "--check", relay_client_backend="postfix")
        assert refused.code != 0
        assert "exim is on this host, and postfix would take its place" in refused.out
        host.start("exim")
        before = host.read("/etc/exim4/update-exim4.conf.conf")
        replaced = {"check_mode": True, "vars": {"relay_client_backend": "postfix", "relay_client_replace": True}}
        gone = {"vars": {"relay_client_state": "absent", "relay_client_verify": "none"}}
        done = play(tmp_path, uses(("replace", replaced), ("keep", {}), ("gone", gone)), [host], FORM)
        assert done.code == 0, done.out + done.err
        assert of_use(done, "replace")["Say what would be installed"]["msg"] == ["postfix", "libsasl2-modules"]
        assert of_use(done, "keep")[SERVICE]["service"]["backend"] == "exim"
        assert INSTALL not in of_use(done, "keep")
        assert of_use(done, "gone")[SERVICE]["service"]["state"] == "absent"
        assert host.read("/etc/exim4/update-exim4.conf.conf") == before


def test_other_mail_software_is_not_replaced_either(tmp_path: Path, beside: tuple[Network, Relay, bytes]) -> None:
    """By a package that says it is a mail server, such as nullmailer with its queue."""
    control = "Package: nullmailer\nVersion: 1\nArchitecture: all\nMaintainer: a@example.test\nDescription: t\n"
    with Tree("bare", name="web4", network=beside[0]) as host:
        host.run(["sh", "-c", "rm -r /var/lib/apt/lists/* && : > /etc/apt/sources.list"])
        alone = role(tmp_path, host)
        assert alone.code != 0
        assert "postfix, libsasl2-modules could not be installed: " in alone.out
        host.write("/tmp/own/DEBIAN/control", f"{control}Provides: mail-transport-agent\n")
        host.run(["sh", "-c", "dpkg-deb -b /tmp/own /tmp/own.deb && dpkg -i /tmp/own.deb"])
        refused = role(tmp_path, host)
    assert refused.code != 0
    assert "nullmailer is on this host, and postfix would take its place" in refused.out


JWT = {"auth_type": "oauth", "oauth_grant": "jwt_bearer", "backend": "exim"}
OAUTH_OF_MSMTP = {"auth_type": "oauth", "backend": "msmtp"}
SUSE_MSMTP = ["msmtp", "msmtp-mta", "ca-certificates-mozilla"]
FAMILIES: dict[str, tuple[str, dict[str, Any], list[str] | None]] = {
    "ubuntu": ("ID=ubuntu\nID_LIKE=debian", {}, ["postfix", "libsasl2-modules"]),
    "rocky": ('ID="rocky"\nID_LIKE="rhel centos fedora"', {}, ["postfix", "cyrus-sasl-plain"]),
    "leap": ('ID="leap"\nID_LIKE="suse opensuse"', {}, ["postfix", "ca-certificates-mozilla", "cyrus-sasl-plain"]),
    "exim": ("ID=debian", {"backend": "exim"}, ["exim4-daemon-light"]),
    "msmtp": ("ID=debian", {"new_backend": "msmtp"}, ["msmtp", "msmtp-mta"]),
    "oauth": ("ID=debian", {"auth_type": "oauth"}, ["postfix", "msmtp", "python3-requests"]),
    "jwt": ("ID=debian", JWT, ["exim4-daemon-light", "python3-requests", "python3-jwt", "python3-cryptography"]),
    "own": ("ID=debian", {"packages": ["nullmailer"]}, ["nullmailer"]),
    "rocky-python": ("ID=rocky\nID_LIKE=rhel", OAUTH_OF_MSMTP, ["msmtp", "python3.11-requests"]),
    "sles-python": ("ID=sles\nID_LIKE=suse", OAUTH_OF_MSMTP, [*SUSE_MSMTP, "python311-requests"]),
    "arch": ("ID=arch", {}, None),
}


def test_the_packages_of_each_family(tmp_path: Path, beside: tuple[Network, Relay, bytes]) -> None:
    """On Debian, whose list of packages is asked in any case, with the words that other systems have for themselves."""
    software = {"name": "fleetmail.smtp.relay_client", "tasks_from": "software"}
    tasks: list[dict[str, Any]] = []
    for name, (release, service, _told) in FAMILIES.items():
        variables = {f"relay_client_{key}": value for key, value in service.items()}
        tasks.append({"name": name, "ansible.builtin.copy": {"content": f"{release}\n", "dest": "/etc/os-release"}})
        use = {"ansible.builtin.include_role": {**software, "apply": {"check_mode": True}}}
        tasks.append({"name": "role", **use, "vars": {**FORM, **variables}})
    with Tree("bare", name="web3", network=beside[0]) as host:
        # /usr/bin/python3 is an older one, as on SLES 15 and RHEL 8, which Ansible cannot use
        host.run(["sh", "-c", "cp /usr/bin/python3.11 /usr/bin/python3.6 && ln -sf python3.6 /usr/bin/python3"])
        played = play(tmp_path, tasks, [host], {"ansible_python_interpreter": "/usr/bin/python3.11"})
    assert played.code == 0, played.out + played.err
    found: dict[str, list[str] | None] = {}
    for one in played.results:
        if one.task in FAMILIES:
            found[one.task] = None
        elif one.task.endswith("Say what would be installed") and one.status == "ok":
            found[list(found)[-1]] = one.result["msg"]
    assert found == {name: told for name, (_release, _service, told) in FAMILIES.items()}


def test_every_option_of_the_module_is_a_variable_and_is_passed_on() -> None:
    module = yaml.safe_load((ROOT / "plugins/modules/smtp_service.yml").read_text())["DOCUMENTATION"]["options"]
    options = {*module, *RELAY, *OAUTH}
    specs = yaml.safe_load((ROOT / "roles/relay_client/meta/argument_specs.yml").read_text())
    declared = specs["argument_specs"]["main"]["options"]
    tasks = yaml.safe_load((ROOT / "roles/relay_client/tasks/main.yml").read_text())
    (passed,) = (one["fleetmail.smtp.smtp_service"] for one in tasks if "fleetmail.smtp.smtp_service" in one)
    own = {"new_backend", "replace", "packages"}
    assert set(passed) == options
    assert set(declared) == {f"relay_client_{name}" for name in options | own}
    defaults = yaml.safe_load((ROOT / "roles/relay_client/defaults/main.yml").read_text())
    assert {name: one["default"] for name, one in declared.items() if "default" in one} == defaults
    assert {name for name, one in declared.items() if one.get("no_log")} == {
        "relay_client_password",
        "relay_client_client_secret",
    }
