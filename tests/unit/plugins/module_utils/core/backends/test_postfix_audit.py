# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from by_hand import PASSWORD
from by_hand.postfix import AUTH, BASE, CASES, HOP, MAIN, MASTER, MASTER_CF
from unit.audited import assert_seen, laid_down, looked_at
from unit.fake_host import FakeHost

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends import postfix_audit_host as around
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends import postfix_by_hand as by_hand
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends.postfix_tables import Table, fault
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.host import Completed

UNREADABLE_IN_MEMORY = {"a map whose source is gone", "a map that is stale"}  # nobody can read what was compiled


@pytest.mark.parametrize("name", [name for name in CASES if name not in UNREADABLE_IN_MEMORY])
def test_what_people_write_is_understood(name: str) -> None:
    result = looked_at(laid_down(CASES[name]))
    assert_seen(CASES[name], result)
    assert PASSWORD not in json.dumps(result)


@pytest.mark.parametrize("name", sorted(UNREADABLE_IN_MEMORY))
def test_maps_that_are_not_what_they_seem_are_told(name: str) -> None:
    result = looked_at(laid_down(CASES[name]))
    assert CASES[name].findings <= {one["id"] for one in result["findings"]}


@pytest.mark.parametrize(
    ("relay", "recipient", "open_to_all"),
    [
        ("permit_mynetworks, reject_unauth_destination", "permit", False),
        ("permit_mynetworks permit", "", True),
        ("permit", "permit_mynetworks, reject_unauth_destination", False),
        ("", "permit_mynetworks, permit", True),
        ("permit_mynetworks, defer", "", False),
        ("", "", False),  # Postfix takes no mail at all then
    ],
)
def test_who_may_relay(relay: str, recipient: str, open_to_all: bool) -> None:
    values = {"smtpd_relay_restrictions": relay, "smtpd_recipient_restrictions": recipient}
    assert around.permits_all(values) == open_to_all


def test_what_takes_mail_and_where() -> None:
    master = MASTER_CF + (
        "127.0.0.1:10025 inet n - y - - smtpd\n  -o mynetworks=127.0.0.0/8\n"
        "[::]:587 inet n - y - - smtpd\n465 inet n - y - 1 postscreen\n2526 inet n - n - - qmqpd\n"
    )
    values = {"inet_interfaces": "10.77.0.2, loopback-only"}
    assert [around.interfaces(one, values) for one in around.servers(master)] == [
        ["10.77.0.2"],
        ["127.0.0.1"],
        ["all"],
        ["10.77.0.2"],
    ]


def test_networks_of_tables_and_files() -> None:
    host = FakeHost({"/etc/a.cidr": "# all\n0.0.0.0/0 OK\n", "/etc/b": "10.0.0.0/8\n"})
    values = {"mynetworks": "[::1]/128, cidr:/etc/a.cidr /etc/b cidr:{ {192.0.2.0/24 OK} } ldap:x 127.0.0.0/8"}
    assert around.networks(host, values) == ["[::1]/128", "0.0.0.0/0", "10.0.0.0/8", "192.0.2.0/24", "127.0.0.0/8"]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ('postconf: fatal: main.cf, line 3: missing \'=\' after attribute name: "geheim " x"', "attribute name"),
        ("postconf: warning: main.cf, line 3: overriding earlier entry: pw=a geheim", "overriding earlier entry: pw"),
        ('postconf: warning: truncated macro reference: "geheim${"', "macro reference"),
    ],
)
def test_what_postconf_quotes_is_not_told(said: str, told: str) -> None:
    host = FakeHost({MAIN: "x\n"})
    host.programs["postconf"] = Completed(1, "", said + "\npostconf: fatal: macro processing error\n")
    broken: list[str] = []
    by_hand.parameters(host, "", broken)
    assert "geheim" not in broken[0]
    assert told in broken[0]
    assert broken[0].endswith("postconf: fatal: macro processing error")


@pytest.mark.parametrize(("more", "told"), [("", True), ("tls_append_default_CA = yes\n", False)])
def test_trust_in_nobody(more: str, told: bool) -> None:
    main = BASE.replace("smtp_tls_CApath = /etc/ssl/certs\n", "") + HOP + "smtp_tls_security_level = secure\n" + more
    host = FakeHost({MAIN: main, MASTER: MASTER_CF, "/etc/passwd": "root:x:0:0::/root:/bin/sh\n"}, live=False)
    assert ("tls-no-trust" in {one["id"] for one in looked_at(host)["findings"]}) == told


@pytest.mark.parametrize(
    ("main", "told", "silent"),
    [
        (HOP + "smtp_tls_security_level = encrypted\n" + AUTH + f"smtp_sasl_password_maps = static:f:{PASSWORD}\n",
         "tls-level-unknown", "cleartext-credentials"),
        (HOP + "smtp_tls_security_level = fingerprint\n", "", "tls-no-trust"),
        ("default_transport = error:no mail from here\n", "", "relayhost-mx"),
        ("default_transport = error:no mail from here\n", "", "several-relays"),
        ("default_transport = lmtp:unix:/run/lmtp\n", "relay-behind-tunnel", "tls-none"),
    ],
)  # fmt: skip
def test_what_is_said_and_what_is_not(main: str, told: str, silent: str) -> None:
    main = BASE.replace("smtp_tls_CApath = /etc/ssl/certs\n", "") + main
    master = MASTER_CF + "lmtp unix - - y - - lmtp\n"
    host = FakeHost({MAIN: main, MASTER: master, "/etc/passwd": "root:x:0:0::/root:/bin/sh\n"}, live=False)
    kinds = {one["id"] for one in looked_at(host)["findings"]}
    assert not {told} - {""} - kinds
    assert silent not in kinds


def test_of_several_relays_the_first_is_the_service_and_a_comment_is_not_told() -> None:
    main = (
        BASE + f"relayhost = [a.example]:587, b.example # {PASSWORD}\n" + AUTH + "smtp_tls_security_level = encrypt\n"
    )
    main += "smtp_sasl_password_maps = texthash:/etc/postfix/pw\n"
    host = FakeHost({MAIN: main, MASTER: MASTER_CF, "/etc/passwd": "root:x:0:0::/root:/bin/sh\n"}, live=False)
    host.put("/etc/postfix/pw", "[a.example]:587 fleet:geheim\n", 0o600)
    result = looked_at(host, as_task=True)
    (found,) = result["services"]
    assert found["task_drift"] == [
        {"field": "host", "before": "[a.example]:587, b.example, ..., ...", "after": "a.example"}
    ]
    assert [one["option"] for one in found["task_problems"]] == ["relayhost"]
    assert PASSWORD not in json.dumps(result)


def test_a_table_that_postfix_cannot_open_is_told() -> None:
    host = FakeHost({"/etc/t": "a b\n", "/etc/t.db": "garbage"})
    host.programs["postmap"] = Completed(1, "", "postmap: fatal: open database /etc/t.db: Invalid argument")
    assert fault(host, Table("hash", "/etc/t")) == "map-broken"
    host.programs["postmap"] = Completed(0, "a\tb\n", "")
    assert fault(host, Table("hash", "/etc/t")) == ""


def test_a_domain_has_the_login_of_its_own_entry_in_the_next_run_as_well() -> None:
    maps = {"/etc/postfix/hops": "@corp.example [relay.example.test]:587\n", "/etc/postfix/pw": ""}
    maps["/etc/postfix/pw"] = f"[relay.example.test]:587 fleet:{PASSWORD}\n@corp.example corp:{PASSWORD}2\n"
    main = BASE + HOP + AUTH + "smtp_tls_security_level = encrypt\nsmtp_sender_dependent_authentication = yes\n"
    main += "sender_dependent_relayhost_maps = texthash:/etc/postfix/hops\n"
    main += "smtp_sasl_password_maps = texthash:/etc/postfix/pw\n"
    host = FakeHost({MAIN: main, MASTER: MASTER_CF, "/etc/passwd": "root:x:0:0::/root:/bin/sh\n"}, live=False)
    for path, text in maps.items():
        host.put(path, text, 0o600)
    default, corp = looked_at(host, as_task=True)["services"]
    assert (default["username"], corp["username"], corp["senders"]) == ("fleet", "corp", ["corp.example"])
    assert (default["task_drift"], corp["task_drift"]) == ([], [])
    assert corp["takes_over"]
