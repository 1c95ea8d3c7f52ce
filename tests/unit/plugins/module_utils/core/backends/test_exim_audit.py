# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from by_hand import PASSWORD, Case
from by_hand.exim import CASES, CONF, TEMPLATE, WHOLE
from unit.audited import assert_seen, laid_down, looked_at
from unit.fake_host import FakeHost

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends import exim_config
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends.exim_audit import arrived

# of exim4.conf.template and conf.d what decides where mail goes, in the package's own words
ROUTERS = """
domainlist local_domains = MAIN_LOCAL_DOMAINS
hostlist relay_from_hosts = MAIN_RELAY_NETS
.ifdef MAIN_LOCAL_INTERFACES
local_interfaces = MAIN_LOCAL_INTERFACES
.endif
begin routers
hubbed_hosts:
  driver = manualroute
  domains = "${if exists{CONFDIR/hubbed_hosts}\\
                   {partial-lsearch;CONFDIR/hubbed_hosts}\\
              fail}"
  route_data = ${lookup{$domain}partial-lsearch{CONFDIR/hubbed_hosts}}
  transport = remote_smtp
.ifdef DCconfig_internet
dnslookup:
  driver = dnslookup
  domains = ! +local_domains
  transport = remote_smtp
.endif
.ifdef DCconfig_smarthost DCconfig_satellite
smarthost:
  driver = manualroute
  domains = ! +local_domains
  transport = remote_smtp_smarthost
  route_list = * DCsmarthost byname
  no_more
.endif
begin transports
remote_smtp:
  driver = smtp
remote_smtp_smarthost:
  driver = smtp
  hosts_try_auth = <; ${if exists{CONFDIR/passwd.client} \\
        {${lookup{$host}nwildlsearch{CONFDIR/passwd.client}{$host_address}}} {} }
.ifdef REMOTE_SMTP_SMARTHOST_PROTOCOL
  protocol = REMOTE_SMTP_SMARTHOST_PROTOCOL
.endif
.ifdef REMOTE_SMTP_SMARTHOST_HOSTS_AVOID_TLS
  hosts_avoid_tls = REMOTE_SMTP_SMARTHOST_HOSTS_AVOID_TLS
.endif
.ifdef REMOTE_SMTP_SMARTHOST_HOSTS_REQUIRE_TLS
  hosts_require_tls = REMOTE_SMTP_SMARTHOST_HOSTS_REQUIRE_TLS
.endif
.ifdef REMOTE_SMTP_SMARTHOST_TLS_VERIFY_CERTIFICATES
  tls_verify_certificates = REMOTE_SMTP_SMARTHOST_TLS_VERIFY_CERTIFICATES
.endif
.ifndef REMOTE_SMTP_SMARTHOST_TLS_VERIFY_HOSTS
REMOTE_SMTP_SMARTHOST_TLS_VERIFY_HOSTS = *
.endif
  tls_verify_hosts = REMOTE_SMTP_SMARTHOST_TLS_VERIFY_HOSTS
begin authenticators
PASSWDLINE=${lookup{$host}nwildlsearch{CONFDIR/passwd.client}{$value}fail}
plain:
  driver = plaintext
  public_name = PLAIN
.ifndef AUTH_CLIENT_ALLOW_NOTLS_PASSWORDS
  client_send = "<; ${if !eq{$tls_out_cipher}{}{^${extract{1}{:}{PASSWDLINE}}^PASSWDLINE}fail}"
.else
  client_send = "<; ^${extract{1}{:}{PASSWDLINE}}^PASSWDLINE"
.endif
"""


def tree(case: Case) -> FakeHost:
    host = laid_down(case)
    host.put(TEMPLATE, ROUTERS)
    host.put("/etc/exim4/conf.d/router/000", ROUTERS)
    return host


@pytest.mark.parametrize("name", CASES)
def test_what_people_write_is_understood(name: str) -> None:
    case = CASES[name]
    host = tree(case)
    host.put("/etc/exim4/conf.d/main/01_empty", "")
    result = looked_at(host)
    assert_seen(case, result)
    assert PASSWORD not in json.dumps(result)


def test_conditions_macros_and_included_files_are_resolved() -> None:
    host = FakeHost({"/etc/more": "b = ONE\n.include /etc/more\n"}, live=False)
    text = (
        ".ifdef NOPE\na = 1\n.elifdef YES\na = 2\n.else\na = 3\n.endif\nONE = 1\nONE == 2\nONE = 3\n"
        "ONEMORE = x\n.include /etc/more\n.ifndef ONE\nc = 1\n.endif\nd = a \\\n  # not this\n  b\n.endif\n"
    )
    lines = list(exim_config.resolved(host, text, {"YES": ""}))
    assert lines == ["a = 2", *["b = 2"] * 10, "d = a b"]


def test_macros_that_name_each_other_end() -> None:
    host = FakeHost(live=False)
    assert len("".join(exim_config.resolved(host, "A = AA\nx = A\n", {"A": "AAAA" * 9}))) < 1 << 20


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("smtp.example.com::587 byname", [("smtp.example.com", 587, False)]),
        ("<; smtp.example.com:587; [2001:db8::1]:25", [("smtp.example.com", 587, False), ("2001:db8::1", 25, False)]),
        ('"one.example : two.example/MX" randomize', [("one.example", 0, False), ("two.example", 0, True)]),
        ("192.0.2.1", [("192.0.2.1", 0, False)]),
        ("", []),
    ],
)
def test_relays_of_a_route(text: str, found: list[tuple[str, int, bool]]) -> None:
    assert exim_config.relays(text) == found


@pytest.mark.parametrize(
    ("listed", "covered"),
    [("*", True), ("!a.example : *", False), ("*.example", True), ("b.example", False), ("<; x ; a.example", True)],
)
def test_a_host_in_a_list(listed: str, covered: bool) -> None:
    assert exim_config.covers(listed, "a.example") == covered


@pytest.mark.parametrize(
    ("domains", "route", "relay"),
    [
        ("! client.example.test : ! localhost", "* relay.example.test::587", "relay.example.test"),
        ("!+local_domains : *", "* relay.example.test", "relay.example.test"),
        ("", "!client.example.test relay.example.test", "relay.example.test"),
        ("! +local_domains", "branch.example mx.branch.example ; * relay.example.test", "relay.example.test"),
        ("! +local_domains : branch.example", "* relay.example.test", ""),
        ("branch.example", "* relay.example.test", ""),
    ],
)
def test_a_route_for_all_but_some(domains: str, route: str, relay: str) -> None:
    limits = f"domains = {domains}" if domains else ""
    text = f"begin routers\nr:\ndriver = manualroute\n{limits}\ntransport = t\nroute_list = {route}\n"
    whole = {WHOLE: text + "begin transports\nt:\ndriver = smtp\n", CONF: ""}
    (found,) = looked_at(laid_down(Case(whole, {})))["services"]
    assert found["host"] == relay


def test_a_password_of_a_look_up_or_of_an_included_file_is_not_told() -> None:
    router = "driver = manualroute\ntransport = t\n"
    asked = "route_data = ${lookup ldap{user=cn pass=" + PASSWORD + " ldap:///o}}\n"
    text = (
        f".include /etc/exim4/extra\nbegin routers\nl:\n{router}{asked}r:\n{router}route_list = * relay.example.test\n"
    )
    text += "begin transports\nt:\ndriver = smtp\nhosts_require_auth = *\nbegin authenticators\n"
    text += "a:\ndriver = plaintext\npublic_name = PLAIN\nclient_send = ^fleet^SMTPPASS\n"
    host = laid_down(Case({WHOLE: text, CONF: ""}, {}))
    host.put("/etc/exim4/extra", f"SMTPPASS = {PASSWORD}2\n", 0o600)
    host.put("/var/lib/exim4/config.autogenerated", f"{PASSWORD}2", 0o644)  # not in effect
    result = looked_at(host)
    assert result["services"][0]["password"] == "(set)"
    assert PASSWORD not in json.dumps(result)
    told = {one["id"]: one for one in result["findings"]}
    assert "by a look-up" in told["routes-by-recipient"]["message"]
    assert not {"secret-in-line", "secret-readable"} & set(told)


def test_the_same_relay_is_no_other_way() -> None:
    router = "driver = manualroute\ntransport = t\nroute_list = * relay.example.test\n"
    text = f"begin routers\nall:\n{router}domains = ! +local_domains\nhub:\n{router}domains = client.example.test\n"
    whole = {WHOLE: text + "begin transports\nt:\ndriver = smtp\n", CONF: ""}
    told = looked_at(laid_down(Case(whole, {})))["findings"]
    assert "routes-by-recipient" not in {one["id"] for one in told}


def test_a_message_tells_when_it_came() -> None:
    assert arrived("1uC7Zk-0003Xq-2a-H") == pytest.approx(1746477000, abs=3e7)


def test_whatever_is_in_the_files_nothing_is_raised() -> None:
    for text in ("", "begin\n", "begin routers\n:\n", "\\", "a = \\\n", ".ifdef", ".endif\n.else\n", "x:\n  driver\n"):
        files = {WHOLE: text, "/etc/exim4/update-exim4.conf.conf": text, "/etc/passwd": ""}
        host = FakeHost(files, live=False)
        assert looked_at(host, as_task=True)["services"]
