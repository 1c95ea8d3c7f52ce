# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real Exim, in Debian's two layouts: the sequence, what drift is seen, held mail, and the way back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from integration.exim_machine import (
    CONF,
    CREDENTIALS,
    GENERATED,
    LAYOUTS,
    LOGIN,
    PASSWORD,
    TEMPLATE,
    Machine,
    form,
    machine,
)
from lab.authority import Authority
from lab.layers import why_unavailable
from lab.tree import RELAY_NAME, Tree

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.enforce import enforce
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.posix_host import PosixHost

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "the lab is there")

SERVICE = form(**LOGIN, from_address="hosts@example.test")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module", params=LAYOUTS)
def started(request: pytest.FixtureRequest, authority: Authority) -> Iterator[Machine]:
    with machine(authority, request.param) as found:
        yield found


@pytest.fixture
def host(started: Machine) -> Machine:
    return started.reset()


# -- check, real, check, real; then Exim is asked --------------------------------------------------------------------


def test_the_sequence_and_what_exim_says_of_it(host: Machine) -> None:
    pristine = host.snapshot()
    planned = host.enforced(SERVICE, check=True)
    assert planned["changed"]
    assert host.snapshot() == pristine
    real = host.applied(SERVICE)
    assert [real[key] for key in ("changed", "drift", "diff")] == [planned[key] for key in ("changed", "drift", "diff")]
    assert host.drift(SERVICE) == {}
    before = host.snapshot()
    assert not host.applied(SERVICE)["changed"]
    assert host.snapshot() == before
    assert host.exim("router", "smarthost")["route_list"] == f"* {RELAY_NAME}::587 byname"
    expected = {
        "hosts_require_tls": "*", "tls_verify_hosts": "*", "tls_verify_certificates": form()["ca_file"],
        "hosts_require_auth": "*", "tls_sni": RELAY_NAME, "protocol": "smtp",
        "headers_rewrite": "*@* hosts@example.test fs",
    }  # fmt: skip
    said = host.exim("transport", "remote_smtp_smarthost")
    assert {key: said[key] for key in expected} == expected
    assert host.shell(f"stat -c '%a %U %G' {CREDENTIALS}") == "640 root Debian-exim"
    assert PASSWORD not in str(planned) + str(real)


def test_absent_gives_everything_back_byte_for_byte(host: Machine) -> None:
    by_hand = "dc_smarthost='mine.example.test::26'  # by hand"
    host.shell(
        f'echo "{by_hand}" >> {CONF}; echo "MINE = 1" > {host.macros}; echo "x.example:me:secret" >> {CREDENTIALS}'
    )
    host.shell(f"chmod 644 {CREDENTIALS}; chown root:root {CREDENTIALS}; update-exim4.conf")
    pristine = host.snapshot()
    for options in (SERVICE, form("none"), form("tls", enabled=False), form(enabled=False, host="", ca_file="")):
        host.applied(options)
    absent = {"backend": "exim", "state": "absent"}
    assert host.enforced(absent, check=True)["changed"]
    assert host.applied(absent)["changed"]
    assert {key: value for key, value in host.snapshot().items() if "fleetmail" not in key} == pristine
    assert not host.applied(absent)["changed"]


def test_an_image_gets_the_same_files(host: Machine) -> None:
    host.applied(SERVICE)
    live = {key: value for key, value in host.snapshot().items() if key.startswith("etc")}
    host.reset()
    image = PosixHost(str(host.tree.path))
    result = enforce(SERVICE, image, False)
    assert result["changed"]
    assert any("init script" in warning for warning in result["warnings"])
    assert {key: value for key, value in host.snapshot().items() if key.startswith("etc")} == live
    assert enforce(SERVICE, image, True)["drift"] == []
    host.shell("/etc/init.d/exim4 restart")
    assert host.drift(SERVICE) == {}


def test_the_package_may_configure_itself_again(host: Machine) -> None:
    """Its maintainer script writes its answers into every line of update-exim4.conf.conf that sets one."""
    host.applied(SERVICE)
    before = host.snapshot()
    host.shell("DEBIAN_FRONTEND=noninteractive dpkg-reconfigure exim4-config")
    assert host.snapshot() == before
    host.applied({"backend": "exim", "state": "absent"})
    assert "dc_eximconfig_configtype='local'" in host.shell(f"cat {CONF}")


# -- drift -----------------------------------------------------------------------------------------------------------

GENERATED_DRIFT = f"content of {GENERATED}"
EDITS = {
    "a later line": (f"echo dc_smarthost=other.example.test::26 >> {CONF}; update-exim4.conf", {"host", "port"}),
    "an edited line": (f"sed -i s/::587/::588/ {CONF}; update-exim4.conf", {"port"}),
    "a later line, not yet effective": (f"echo dc_smarthost=x::26 >> {CONF}", {f"content of {CONF}"}),
    "no mandatory TLS": ("sed -i /REQUIRE_TLS/d MACROS; update-exim4.conf", {"security"}),
    "no verification": ("sed -i 's/VERIFY_HOSTS = ./VERIFY_HOSTS =/' MACROS; update-exim4.conf", {"validate_certs"}),
    "another macro": ("echo 'REMOTE_SMTP_RETURN_PATH == x@y.z' >> MACROS; update-exim4.conf", {"from_address"}),
    "no macros": ("rm MACROS; update-exim4.conf", {"security", "ca_file", "from_address"}),
    "no options in the transport": ("BLOCK; update-exim4.conf", {"hosts_require_auth", "tls_sni"}),
    "an edit in what is generated": ("sed -i 's/hosts_require_tls = .*//' GENERATED", {"security", GENERATED_DRIFT}),
    "an edit of no consequence there": ("sed -i '1i message_size_limit = 1M' GENERATED", {GENERATED_DRIFT}),
    "a stale one": ("echo 'MESSAGE_SIZE_LIMIT = 1M' >> MACROS", {GENERATED_DRIFT}),
    "none at all": ("rm GENERATED", {"host", "security", GENERATED_DRIFT}),
    "another password": (f"sed -i 's/;word$/;w0rd/' {CREDENTIALS}", {"password"}),
    "an earlier login": (f"sed -i '1i {RELAY_NAME}:a:b' {CREDENTIALS}", {"username", "password"}),
    "no logins": (f"rm {CREDENTIALS}", {"auth_type", "username", "password"}),
    "logins that all can read": (f"chmod 644 {CREDENTIALS}", {f"mode of {CREDENTIALS}"}),
    "logins that Exim cannot read": (f"chown root:root {CREDENTIALS}", {f"group of {CREDENTIALS}"}),
    "a stopped daemon": ("/etc/init.d/exim4 stop", {"running"}),
    "a broken configuration": ("sed -i '1i bogus = 1' GENERATED", {"host", "security", GENERATED_DRIFT}),
}  # fmt: skip
FOREIGN = (  # lines of somebody else stay as they are, or muted
    *("a later line", "a later line, not yet effective", "another macro", "a stale one"),
    *("an earlier login", "no logins"),
)
# the same in both layouts but for these
OF_LAYOUT = ("no macros", "no options in the transport", "an edit in what is generated", "a stale one", "another macro")
CASES = [("monolithic", edit) for edit in EDITS] + [("split", edit) for edit in OF_LAYOUT]


@pytest.mark.parametrize(("started", "edit"), CASES, indirect=["started"])
def test_drift_is_seen_and_repaired(host: Machine, edit: str) -> None:
    command, fields = EDITS[edit]
    host.applied(SERVICE)
    compliant = host.snapshot()
    if host.layout == "split":
        block = "rm /etc/exim4/conf.d/transport/*-fleetmail"
    else:
        block = f"sed -i '/BEGIN fleetmail/,/END fleetmail/d' {TEMPLATE}"
    host.shell(command.replace("BLOCK", block).replace("MACROS", host.macros).replace("GENERATED", GENERATED))
    drift = host.drift(SERVICE)
    assert fields <= set(drift), drift
    host.applied(SERVICE)
    assert host.drift(SERVICE) == {}
    if edit not in FOREIGN:
        assert host.snapshot() == compliant
    assert host.exim("transport", "remote_smtp_smarthost")["hosts_require_tls"] == "*"
    assert PASSWORD not in str(drift)


def test_a_configuration_that_replaces_all_others_is_reported(host: Machine) -> None:
    host.applied(SERVICE)
    host.shell(f"sed 's/{RELAY_NAME}/other.example.test/' {GENERATED} > /etc/exim4/exim4.conf")
    before = host.snapshot()
    planned = host.enforced(SERVICE, check=True)
    assert any("/etc/exim4/exim4.conf" in warning for warning in planned["warnings"])
    failed = host.enforced(SERVICE)
    assert failed["failed"]
    assert failed["rolled_back"]
    assert "/etc/exim4/exim4.conf" in {problem["option"] for problem in failed["problems"]}
    after = {key: value for key, value in host.snapshot().items() if "fleetmail" not in key}
    assert after == {key: value for key, value in before.items() if "fleetmail" not in key}
    host.shell("rm /etc/exim4/exim4.conf")
    assert host.drift(SERVICE) == {}


def test_a_macro_redefined_elsewhere_is_named(host: Machine) -> None:
    line = "REMOTE_SMTP_SMARTHOST_HOSTS_REQUIRE_TLS =="
    place = "/etc/exim4/conf.d/main/50_mine" if host.layout == "split" else TEMPLATE
    host.applied(SERVICE)
    host.shell(f"touch {place}; echo '{line}' | cat - {place} > /t; cat /t > {place}; update-exim4.conf")
    assert "security" in host.drift(SERVICE)
    failed = host.enforced(SERVICE)
    assert failed["rolled_back"]
    assert place in {problem["option"] for problem in failed["problems"]}


def test_a_bare_host_gets_a_plan(authority: Authority) -> None:
    with Tree("bare") as tree:
        bare = Machine.__new__(Machine)
        bare.tree = tree
        planned = bare.enforced({**SERVICE, "ca_file": ""}, check=True)
        assert planned["changed"]
        assert {"host", "password", "running"} <= {one["field"] for one in planned["drift"]}
        assert bare.enforced({**SERVICE, "ca_file": ""})["problems"][0]["option"] == "backend"


# -- nothing leaves, nothing is lost ---------------------------------------------------------------------------------


def test_held_mail_stays_whatever_is_done_and_leaves_when_enabled_again(host: Machine) -> None:
    held = {**SERVICE, "enabled": False}
    host.applied(held)
    host.send(sender="user@client.example.test")  # who is there: Exim warns the sender of a mail that waits for long
    host.send(to="user@client.example.test")
    host.tree.wait_for_log(r"=> user <user@client.example.test>")  # local delivery goes on
    for forced in ("-q", "-qf", "-qff", "-M $(exim4 -bpr | awk '/</{print $3}')", "-Rf example.org"):
        host.shell(f"exim4 {forced}")
    _make_older(host, days=30)
    host.shell("exim4 -qff; exim4 -q")
    assert host.queue() == 1
    assert "** " not in host.tree.log()
    assert host.relay.sessions() == []
    assert host.drift(held) == {}
    host.applied(SERVICE)
    assert host.relay.wait_for_message().sender == "hosts@example.test"
    host.wait_for_empty_queue()


def _make_older(host: Machine, days: int) -> None:
    """Let the mail in the queue have come so long ago: its spool file says when (Exim's specification 56.1)."""
    came = int(time.time()) - days * 86400
    host.shell(f"sed -i '4s/^[0-9]*/{came}/' /var/spool/exim4/input/*-H")


def test_a_host_that_was_never_configured_can_hold_too(host: Machine) -> None:
    host.applied({"backend": "exim", "enabled": False})
    host.send()
    host.tree.wait_for_log("domain is held")
    host.applied({"backend": "exim", "state": "absent"})
    assert host.queue() == 1


# -- the way back ----------------------------------------------------------------------------------------------------

FAILURES: dict[str, dict[str, Any]] = {
    "the checker": {"backend_options": {}, "ca_file": "/etc/ssl/relay-ca.pem"},
    "the probe": {"password": "wrong", "verify": "auth"},
    "the test send": {"password": "wrong", "test_send": {"to": ["x@example.org"], "via": "mta", "timeout": 2}},
}


WAYS_BACK = [(layout, failure, True) for layout in LAYOUTS for failure in FAILURES] + [("split", "the probe", False)]


@pytest.mark.parametrize(("started", "failure", "runs"), WAYS_BACK, indirect=["started"])
def test_what_fails_leaves_the_host_as_it_was(host: Machine, failure: str, runs: bool) -> None:
    host.relay.change(auth_required=True)
    host.applied(form("tls", **LOGIN))
    # as different from what we would write as can be: edited by hand, and stopped
    host.shell(f"echo '# by hand' >> {GENERATED}; chmod 600 {CONF}" + ("" if runs else "; /etc/init.d/exim4 stop"))
    if failure == "the checker":
        host.shell(f"echo 'REMOTE_SMTP_RETURN_PATH = 1' | cat - {TEMPLATE} > /t; cat /t > {TEMPLATE}")
        host.shell("echo 'REMOTE_SMTP_RETURN_PATH = 1' > /etc/exim4/conf.d/main/50_mine")
    before = {key: value for key, value in host.snapshot().items() if "fleetmail" not in key}
    failed = host.enforced({**SERVICE, **FAILURES[failure]})
    assert failed["failed"]
    assert failed["rolled_back"]
    assert PASSWORD not in str(failed)
    assert {key: value for key, value in host.snapshot().items() if "fleetmail" not in key} == before
    assert bool(host.shell("pgrep -x exim4 || true")) == runs
    assert host.queue() == 0


def test_a_relay_that_was_taken_over_bounces_nothing(host: Machine) -> None:
    """By hand there was another login at another relay, and nothing that would defer a refused one."""
    host.relay.change(users={"fleet": PASSWORD, "by": "hand"}, auth_required=True)
    host.tree.add_name("old.example.test", "10.77.0.25")
    host.shell(
        f"printf \"dc_eximconfig_configtype='smarthost'\\ndc_smarthost='old.example.test::587'\\n\" >> {CONF}"
        f"; echo '*:by:hand' >> {CREDENTIALS}; update-exim4.conf"
    )
    host.shell(f"echo REMOTE_SMTP_SMARTHOST_TLS_VERIFY_HOSTS = > {host.macros}; update-exim4.conf")
    senders = "for i in $(seq 40); do echo hi | sendmail -i -f a@client.example.test x@example.org; sleep 0.05; done"
    host.shell(f"({senders}) >/dev/null 2>&1 &")
    host.relay.wait_for_message()
    host.applied(SERVICE)
    host.relay.wait_for(lambda: len(host.relay.messages()) + host.queue() >= 40, timeout=30)
    host.shell("exim4 -qf")
    host.relay.wait_for(lambda: len(host.relay.messages()) == 40)
    assert "** " not in host.tree.log()
    assert {message.auth_user for message in host.relay.messages()} == {b"by", b"fleet"}
