# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hands that meddle with a managed Postfix: check mode says exactly what is off, a real run repairs it, once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from integration.postfix_machine import CA_FILE, LOGIN, MAIN, MASTER, OWN, Machine, form, machine
from lab.authority import Authority
from lab.layers import why_unavailable
from lab.tree import RELAY_NAME

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "the lab is there")

SERVICE = form(**LOGIN, from_address=OWN, backend_options={"null_client": True})
MAP = "/etc/postfix/fleetmail-default.a"
GOOD = "/opt/postfix-good"
ELSEWHERE: dict[str, tuple[Any, Any]] = {"host": ("other.example.test", RELAY_NAME), "port": (25, 587)}
UNTRUSTING: dict[str, tuple[Any, Any]] = {"security": ("opportunistic", "starttls"), "validate_certs": (False, True)}
NO_LOGIN: dict[str, tuple[Any, Any]] = {"username": ("", "fleet"), "password": ("(unset)", "(set)")}
FILE: dict[str, tuple[Any, Any]] = {f"content of {MAIN}": ("(differs)", "(managed)")}

# a hand's edit (postconf -e NAME=VALUE) -> what must be told, and nothing else
EDITS: dict[str, dict[str, tuple[Any, Any]]] = {
    "relayhost=[other.example.test]": ELSEWHERE,
    "default_transport=error:no": {"default_transport": ("error:no", "smtp")},
    "smtp_tls_security_level=may": UNTRUSTING,
    "smtp_tls_security_level=encrypt": {"validate_certs": (False, True)},
    "smtp_tls_wrappermode=yes": {"security": ("tls", "starttls")},
    "smtp_tls_policy_maps=static:none": {"smtp_tls_policy_maps": ("static:none", "")},
    "smtp_tls_secure_cert_match=dot-nexthop": {"smtp_tls_secure_cert_match": ("dot-nexthop", "nexthop")},
    "smtp_tls_servername=other": {"smtp_tls_servername": ("other", "hostname")},
    "smtp_tls_CAfile=/etc/ssl/certs/ca-certificates.crt": {"ca_file": ("", CA_FILE)},
    "smtp_tls_CApath=/etc/ssl/certs": {"ca_file": (CA_FILE + " /etc/ssl/certs", CA_FILE)},
    "smtp_host_lookup=native": {"smtp_host_lookup": ("native", "dns, native")},
    "smtp_generic_maps=static:other@example.test": {"smtp_generic_maps": ("static:other@example.test", "")},
    "smtp_sasl_auth_enable=no": {"auth_type": ("none", "password"), **NO_LOGIN},
    "smtp_sasl_password_maps=": NO_LOGIN,
    "smtp_sasl_security_options=noplaintext": {"smtp_sasl_security_options": ("noplaintext", "noanonymous")},
    "smtp_sasl_tls_security_options=": {"smtp_sasl_tls_security_options": ("", "noanonymous")},
    "smtp_sasl_tls_verified_security_options=noplaintext": {
        "smtp_sasl_tls_verified_security_options": ("noplaintext", "noanonymous")
    },
    "smtp_sasl_mechanism_filter=xoauth2": {"smtp_sasl_mechanism_filter": ("xoauth2", "plain, login")},
    "smtp_connect_timeout=1m": {"timeout": (60, 30)},
    "smtp_helo_timeout=5s": {"smtp_helo_timeout": ("5s", "30s")},
    "sender_canonical_maps=": {"from_address": ("", OWN)},
    "sender_canonical_classes=header_sender": {"from_address": ("", OWN)},
    "mydestination=localhost": {"mydestination": ("localhost", "")},
    "inet_interfaces=all": {"inet_interfaces": ("all", "loopback-only")},
    "defer_transports=smtp": {"enabled": (False, True)},
}

# other ways to meddle, as shell commands
DEEDS: dict[str, dict[str, tuple[Any, Any]]] = {
    f"echo 'relayhost = [other.example.test]' >> {MAIN}": ELSEWHERE,
    rf"printf 'relayhost =\n# x\n\n  [other.example.test]' >> {MAIN}": ELSEWHERE,
    f"echo 'relayhost = [{RELAY_NAME}]:587' >> {MAIN}": FILE,
    f"echo '  continued' >> {MAIN}": FILE,
    f"sed -i 's/^#fleetmail.smtp# //' {MAIN}": FILE,
    f"sed -i '/^# BEGIN fleetmail.smtp default/d' {MAIN}": FILE,
    f"sed -i '/^# END fleetmail.smtp default/d' {MAIN}": FILE,
    "postconf -X smtp_sasl_mechanism_filter": {"smtp_sasl_mechanism_filter": ("", "plain, login")},
    f"sed -i '/BEGIN fleetmail.smtp -shared/,/END fleetmail.smtp -shared/d' {MAIN}": {"from_address": ("", OWN)},
}


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with machine(Authority(tmp_path_factory.mktemp("authority"))) as found:
        found.reset()
        found.enforce(SERVICE)
        found.shell(f"cp -a /etc/postfix {GOOD}")
        yield found


@pytest.fixture
def host(started: Machine) -> Machine:
    """The service as it was enforced, whatever a test before did."""
    started.shell(f"rm -rf /etc/postfix; cp -a {GOOD} /etc/postfix")
    assert started.running()
    return started


def repaired(host: Machine, expected: dict[str, tuple[Any, Any]]) -> dict[str, Any]:
    """Check mode tells it, a real run mends it, the next one has nothing to do."""
    host.tree.let_cool()
    assert host.drift(SERVICE) == expected
    result = host.enforce(SERVICE)
    after = host.snapshot()
    again = host.enforce(SERVICE)
    assert not again["changed"], again
    assert host.snapshot() == after
    return result


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_parameter_is_told(host: Machine, edit: str) -> None:
    host.tree.run(["postconf", "-e", edit])
    host.tree.let_cool()
    assert host.drift(SERVICE) == EDITS[edit]


def test_all_edits_together_are_told_and_repaired_to_the_very_file(host: Machine) -> None:
    good = host.tree.read(MAIN)
    others = ("defer", "smtp_generic")  # what stays as a muted line
    edits = [edit for edit in EDITS if edit.split("=")[1] not in ("encrypt", "no", "") and not edit.startswith(others)]
    assert len(edits) == 18
    host.tree.run(["postconf", "-e", *edits])
    host.tree.let_cool()
    result = host.enforce(SERVICE)
    told = {one["field"]: (one["before"], one["after"]) for one in result["drift"]}
    expected = {field: change for edit in edits for field, change in EDITS[edit].items()}
    for follower in (
        "smtp_helo_timeout",
        "smtp_tls_servername",
        "smtp_host_lookup",
    ):  # of the timeout and the host, which are told
        del expected[follower]
    assert told == {**expected, **UNTRUSTING, "ca_file": ("", CA_FILE)}
    assert host.tree.read(MAIN) == good
    assert host.drift(SERVICE) == {}


@pytest.mark.parametrize("deed", DEEDS)
def test_a_meddled_file_is_told(host: Machine, deed: str) -> None:
    host.shell(deed)
    host.tree.let_cool()
    assert host.drift(SERVICE) == DEEDS[deed]


def test_lines_before_and_after_and_torn_marks_are_repaired(host: Machine) -> None:
    good = host.tree.read(MAIN).decode()
    host.shell(f"sed -i -e 's/^#fleetmail.smtp# //' -e '/^# BEGIN fleetmail.smtp default/d' {MAIN}")
    host.shell(rf"printf 'relayhost =\n# x\n\n  [other.example.test]' >> {MAIN}")
    result = repaired(host, ELSEWHERE)
    assert [one["path"] for one in result["files"]] == [MAIN]
    mended = host.tree.read(MAIN).decode()
    begin = mended.index("# BEGIN fleetmail.smtp default")
    block = good[good.index("# BEGIN fleetmail.smtp default") : good.index("# BEGIN fleetmail.smtp -")]
    assert mended[begin:] == block.replace("default\n", "default (joined)\n", 1)
    assert mended[:begin].count("[" + RELAY_NAME) == 0
    assert "#fleetmail.smtp# relayhost =\n#fleetmail.smtp# # x\n" in mended
    removed = host.enforce({**SERVICE, "state": "absent"})
    assert removed["changed"]
    assert host.parameters("relayhost", "smtp_tls_security_level") == {
        "relayhost": "[other.example.test]",  # what the hand wanted
        "smtp_tls_security_level": "may",
    }


# -- the password map ------------------------------------------------------------------------------------------------

BUILT = f"password map {MAP}"
MAPS: dict[str, tuple[str, dict[str, tuple[Any, Any]]]] = {
    "not compiled": (f"rm {MAP}.db", {**NO_LOGIN, BUILT: ("not compiled", "compiled from its source")}),
    "source edited": (f"sed -i s/c4nary/other/ {MAP}", {BUILT: ("stale", "compiled from its source")}),
    "compiled from another": (
        f"cp {MAP} /tmp/k; sed -i s/c4nary/other/ {MAP}; postmap {MAP}; cat /tmp/k > {MAP}",
        {"password": ("(set)", "(changed)"), BUILT: ("stale", "compiled from its source")},
    ),
    "both edited": (f"sed -i s/c4nary/other/ {MAP}; postmap {MAP}", {"password": ("(set)", "(changed)")}),
    "no source": (f"rm {MAP}", {BUILT: ("without its source", "compiled from its source")}),
    "nothing": (f"rm {MAP}*", {**NO_LOGIN, BUILT: ("without its source", "compiled from its source")}),
    "wide": (
        f"chmod 644 {MAP} {MAP}.db",
        {f"mode of {MAP}": ("0644", "0600"), f"mode of {MAP}.db": ("0644", "0600")},
    ),
    "wide when compiled": (f"chmod 640 {MAP}.db", {f"mode of {MAP}.db": ("0640", "0600")}),
    "somebody else's": (
        f"chown postfix:mail {MAP}; chgrp mail {MAP}.db",
        {
            f"owner of {MAP}": ("postfix", "root"),
            f"group of {MAP}": ("mail", "root"),
            f"group of {MAP}.db": ("mail", "root"),
        },
    ),
    "another left over": ("touch /etc/postfix/fleetmail-default.b.db", {f"presence of {MAP[:-1]}b.db": (True, False)}),
}


@pytest.mark.parametrize("fault", MAPS)
def test_a_map_that_is_not_as_it_should_be_is_told(host: Machine, fault: str) -> None:
    deed, expected = MAPS[fault]
    host.shell(deed)
    assert host.drift(SERVICE) == expected


@pytest.mark.parametrize("fault", ["not compiled", "source edited", "no source", "wide", "another left over"])
def test_a_map_is_repaired(host: Machine, fault: str) -> None:
    deed, expected = MAPS[fault]
    host.shell(deed)
    repaired(host, expected)
    host.send()
    assert host.relay.wait_for_message().auth_user == b"fleet"
    host.relay.forget()
    names = [name for name in host.shell("ls -A /etc/postfix").split() if "fleetmail" in name]
    assert len(names) == 2
    assert host.shell("stat -c '%a %U %G' /etc/postfix/fleetmail-*") == "600 root root\n600 root root"


# -- what is not in files, or not in ours ----------------------------------------------------------------------------


def test_a_stopped_postfix_is_started(host: Machine) -> None:
    host.tree.stop("postfix")
    result = repaired(host, {"running": (False, True)})
    assert result["actions"] == ["service postfix start"]
    assert result["files"] == []
    assert host.running()


def test_an_override_in_master_cf_is_told_with_the_way_out(host: Machine) -> None:
    host.shell("postconf -P smtp/unix/smtp_tls_security_level=may smtp/unix/smtp_helo_timeout=2s")
    checked = host.enforce(SERVICE, check=True)
    told = {one["field"]: (one["before"], one["after"]) for one in checked["drift"]}
    assert told == {**UNTRUSTING, "smtp_helo_timeout": ("2s", "30s")}
    assert f"{MASTER}: the smtp agent sets smtp_helo_timeout = 2s" in str(checked["warnings"])
    result = host.failure(SERVICE)
    assert result["rolled_back"]
    assert "did not become effective" in result["msg"]
    problems = {(one["option"], one["problem"], one["hint"]) for one in result["problems"]}
    way_out = "remove that -o: it wins over main.cf"
    assert (MASTER, "the smtp agent sets smtp_tls_security_level = may", way_out) in problems
    assert (MASTER, "the smtp agent sets smtp_helo_timeout = 2s", way_out) in problems


def test_mail_that_goes_another_way_is_told(host: Machine) -> None:
    host.shell("postconf -e transport_maps=inline:{example.org=smtp:other} smtp_fallback_relay=other.example.test")
    host.tree.let_cool()
    result = host.enforce(SERVICE)
    assert any("transport_maps" in warning and "another way" in warning for warning in result["warnings"])
    assert host.parameters("smtp_fallback_relay") == {"smtp_fallback_relay": ""}
    assert host.drift(SERVICE) == {}
