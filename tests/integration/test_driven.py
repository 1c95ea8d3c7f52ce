# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""pytest-ansible drives the modules and a role: check, real, check, real, then other programs say what is so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from driver.environments import ANSIBLE_CORES, Unavailable, ansible_environment
from lab.authority import Authority
from lab.driven import Driven, Lost, NotDriven
from lab.layers import why_unavailable
from lab.network import Network
from lab.playbook import Played
from lab.relay import Relay, listeners
from lab.tree import RELAY_NAME, Tree

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "the lab is there")

CA_FILE = "/etc/ssl/relay-ca.pem"
PASSWORD = "Drv4canaryQwErTz81"
SERVICE, INFO, PROBE = (f"fleetmail.smtp.{name}" for name in ("smtp_service", "smtp_service_info", "smtp_probe"))
RELAY: dict[str, Any] = {
    "host": RELAY_NAME,
    "security": "starttls",
    "auth_type": "password",
    "username": "fleet",
    "password": PASSWORD,
    "ca_file": CA_FILE,
}
FILES = ("etc/postfix/main.cf", "etc/msmtprc")


class Lab(NamedTuple):
    """A host with Postfix, one with msmtp, and their relay."""

    mta: Tree
    plain: Tree
    relay: Relay

    @property
    def hosts(self) -> list[Tree]:
        return [self.mta, self.plain]

    def files(self) -> list[bytes | None]:
        return [one.read(path) if one.exists(path) else None for one in self.hosts for path in FILES]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    relay = Relay(listeners(authority.good(RELAY_NAME)), users={"fleet": PASSWORD}, auth_required=True)
    with (
        Network() as network,
        Tree("postfix", name="mta", network=network) as mta,
        Tree("msmtp", name="plain", network=network) as plain,
        relay.start(in_net_of=mta),
    ):
        for host in (mta, plain):
            host.write(CA_FILE, authority.ca_file.read_bytes())
        mta.let_cool()
        mta.start("postfix")
        yield Lab(mta, plain, relay)


def changed(played: Played) -> dict[str, bool]:
    return {one.host: one.result["changed"] for one in played.results}


def told(played: Played) -> dict[str, str]:
    """What pytest-ansible itself said of each host; the results are the journal's."""
    return dict(line.split(": ") for line in played.out.splitlines())


def test_service_info_and_probe(lab: Lab, driven: Driven) -> None:
    before = lab.files()
    both = {"mta": True, "plain": True}
    said = driven.module(SERVICE, lab.hosts, {**RELAY, "verify": "auth"}, check=True)
    assert (said.code, changed(said), lab.files()) == (0, both, before), said.err
    done = driven.module(SERVICE, lab.hosts, {**RELAY, "verify": "auth"})
    assert (done.code, changed(done), told(done)) == (0, both, {"mta": "ok", "plain": "ok"})
    for host in both:
        assert done.of(SERVICE, host)["diff"] == said.of(SERVICE, host)["diff"] != []
    assert PASSWORD not in str(done)
    after = lab.files()
    for check in (True, False):
        again = driven.module(SERVICE, lab.hosts, {**RELAY, "verify": "auth"}, check=check)
        assert (again.code, changed(again), lab.files()) == (0, dict.fromkeys(both, False), after)

    assert lab.mta.output(["postconf", "-h", "relayhost", "smtp_tls_security_level"]).split() == [
        f"[{RELAY_NAME}]:587",
        "secure",
    ]
    lab.plain.run(["msmtp", "oncall@example.test"], input=b"Subject: t\n\nhello\n")
    assert lab.relay.wait_for_message().auth_user == b"fleet"

    looked = driven.module(INFO, lab.hosts, {"as_task": True})
    found = {one.host: one.result["services"] for one in looked.results}
    assert {host: [one["backend"] for one in services] for host, services in found.items()} == {
        "mta": ["postfix"],
        "plain": ["msmtp"],
    }
    assert {one["host"] for services in found.values() for one in services} == {RELAY_NAME}
    adopted = {**found["mta"][0]["task"], "password": PASSWORD}
    assert changed(driven.module(SERVICE, [lab.mta], adopted, check=True)) == {"mta": False}

    probed = driven.module(PROBE, lab.hosts, RELAY)
    assert {one.result["verification"]["reached"] for one in probed.results} == {"auth"}
    assert len(lab.relay.messages()) == 1


def test_what_fails_and_who_is_lost(lab: Lab, driven: Driven) -> None:
    wrong = driven.module(PROBE, [*lab.hosts, Lost()], {**RELAY, "password": "wr0ng"})
    assert wrong.code == 4
    assert told(wrong) == {"mta": "failed", "plain": "failed", "lost": "unreachable"}
    assert {one.host: one.status for one in wrong.results} == told(wrong)
    assert "535" in wrong.of(PROBE, "mta")["msg"]
    assert driven.module(PROBE, [lab.mta], {**RELAY, "password": "wr0ng"}).code == 2
    skipped = driven.module("ansible.builtin.command", [lab.mta], {"cmd": "touch /touched"}, check=True)
    assert [one.status for one in skipped.results] == ["skipped"]
    assert not lab.mta.exists("/touched")
    with pytest.raises(NotDriven, match="smtp_servise"):
        driven.module("fleetmail.smtp.smtp_servise", lab.hosts)


def test_a_role(lab: Lab, driven: Driven) -> None:
    form = {f"relay_client_{name}": value for name, value in RELAY.items()} | {"relay_client_port": 2525}
    before = lab.files()
    said = driven.role("fleetmail.smtp.relay_client", lab.hosts, form, check=True)
    assert (said.code, lab.files()) == (0, before), said.err
    done = driven.role("fleetmail.smtp.relay_client", lab.hosts, form)
    assert done.code == 0, done.err
    task = "fleetmail.smtp.relay_client : Mail goes through the relay"
    for host in ("mta", "plain"):
        assert (said.of(task, host)["changed"], done.of(task, host)["changed"]) == (True, True)
    assert lab.mta.output(["postconf", "-h", "relayhost"]).strip() == f"[{RELAY_NAME}]:2525"


@pytest.mark.parametrize("version", [*ANSIBLE_CORES][:: len(ANSIBLE_CORES) - 1])
def test_with_the_oldest_and_the_newest_ansible_core(lab: Lab, driven: Driven, version: str) -> None:
    try:
        driven = driven.by(ansible_environment(version))
    except Unavailable as reason:
        pytest.skip(str(reason))
    looked = driven.module(INFO, [*lab.hosts, Lost()])
    assert told(looked) == {"mta": "ok", "plain": "ok", "lost": "unreachable"}
    assert looked.of(INFO, "mta")["services"][0]["backend"] == "postfix"
    assert driven.module(SERVICE, [lab.plain], {**RELAY, "timeout": 0}, check=True).code == 2
