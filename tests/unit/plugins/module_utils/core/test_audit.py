# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import datetime
import json
import re
import subprocess
from typing import Any

import by_hand.exim
import by_hand.msmtp
import by_hand.postfix
import pytest
from by_hand import PASSWORD, RELAY
from driver import pythons
from driver.checkout import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.audited import laid_down, looked_at
from unit.fake_host import FakeHost

from ansible_collections.fleetmail.smtp.plugins.module_utils.core import audit as engine
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.adoption import placeholder
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends.auditing import reach, service_name
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends.auditors import AUDITORS
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends.registry import BACKENDS
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.findings import SEVERITIES, TABLE, finding
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.retirements import RETIREMENTS, retirement

CORE = ROOT / "plugins/module_utils/core"
PASSWD = "/etc/passwd"


def test_every_backend_can_be_audited() -> None:
    assert sorted(AUDITORS) == sorted(BACKENDS)


# -- findings ----------------------------------------------------------------------------------------------------------


def test_every_kind_of_finding_is_told_somewhere_and_complete() -> None:
    sources = "".join(path.read_text() for path in CORE.rglob("*.py") if path.name != "findings.py")
    assert [kind for kind in TABLE if f'"{kind}"' not in sources] == []
    for kind, row in TABLE.items():
        assert row.severity in SEVERITIES, kind
        assert row.message, kind
        assert row.hint, kind
        assert row.reason, kind


def test_the_way_out_is_in_the_softwares_own_words() -> None:
    told = finding("listens", how="inet_interfaces = loopback-only", interfaces="all interfaces").as_dict()
    assert told["hint"] == TABLE["listens"].hint + ": inet_interfaces = loopback-only"
    queueing = [AUDITORS[name]() for name in BACKENDS if BACKENDS[name]().capabilities.queue]
    assert len(queueing) > 1
    assert len({one.on_loopback for one in queueing}) == len({one.lists_queue for one in queueing}) == len(queueing)


def test_every_kind_that_is_expected_of_a_hand_made_configuration_exists() -> None:
    cases = [*by_hand.postfix.CASES.values(), *by_hand.exim.CASES.values(), *by_hand.msmtp.CASES.values()]
    assert {kind for case in cases for kind in case.findings | case.silent | case.live} <= set(TABLE)


def test_the_worst_comes_first() -> None:
    result = looked_at(laid_down(by_hand.postfix.CASES["a tutorial of 2012 for Gmail"]))
    order = [SEVERITIES.index(one["severity"]) for one in result["findings"]]
    assert order == sorted(order)
    assert len(set(order)) == 3


@pytest.mark.parametrize(
    ("host", "day", "kind"),
    [
        ("smtp.office365.com", "2026-11-24", "basic-auth-retiring"),
        ("SMTP.Office365.com.", "2026-12-31", "basic-auth-retiring"),
        ("smtp.office365.com", "2027-01-01", "basic-auth-retired"),
        ("smtp-mail.outlook.com", "2026-11-24", "basic-auth-retired"),
        ("smtp.gmail.com", "2026-11-24", "app-password"),
        ("corp-example.mail.protection.outlook.com", "2026-11-24", None),
        ("smtp.office365.com.example.org", "2026-11-24", None),
    ],
)
def test_passwords_that_a_provider_gives_up(host: str, day: str, kind: str | None) -> None:
    told = retirement(host, datetime.date.fromisoformat(day))
    assert (told.id if told else None) == kind


def test_a_retirement_says_when() -> None:
    told = retirement("smtp.office365.com", datetime.date(2026, 11, 24))
    assert told is not None
    assert "2026-12-31" in told.message
    assert all(datetime.date.fromisoformat(row.last) for row in RETIREMENTS)


NETWORKS = {
    **dict.fromkeys(("0.0.0.0/0", "::/0", "*", "0/0", "0.0.0.0/1", "[2000::]/3", "10.0.0.0/7"), "everybody"),
    **dict.fromkeys(("127.0.0.0/8", "[::1]/128", "[::ffff:127.0.0.0]/104"), "itself"),
    **dict.fromkeys(("10.0.0.0/8", "192.168.1.0/24", "[fd00::]/8", "[fc00::]/7", "5.9.1.2", "nonsense"), "house"),
    **dict.fromkeys(("5.9.0.0/16", "[2a01:4f8::]/32"), "strangers"),
}


@pytest.mark.parametrize(("network", "whose"), NETWORKS.items())
def test_whose_addresses_a_network_has(network: str, whose: str) -> None:
    assert reach(network) == whose


@pytest.mark.parametrize("version", ["3.9", "3.10", "3.11", "3.12"])
def test_whose_addresses_a_network_has_by_another_python(version: str) -> None:
    """What ``ipaddress`` takes for private is not the same in all."""
    python = pythons.find(version)
    if python is None:
        pytest.skip(f"there is no Python {version} here")
    program = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); from core.backends.auditing import reach; "
        "print(json.dumps({network: reach(network) for network in sys.argv[2:]}))"
    )
    done = subprocess.run([python, "-B", "-c", program, CORE.parent, *NETWORKS], stdout=subprocess.PIPE, check=True)
    assert json.loads(done.stdout) == NETWORKS


def test_names_of_services() -> None:
    assert service_name("relay.example.test", []) == "relay.example.test"
    assert service_name("relay.example.test", ["relay.example.test"]) == "relay.example.test-2"
    assert service_name("2001:db8::1", []) == "2001-db8-1"
    assert service_name("", []) == "service"
    assert service_name("x" * 200, ["x" * 55]) == "x" * 55 + "-2"


def test_placeholders() -> None:
    assert placeholder("password", "Fleet@Example.COM", RELAY) == (
        "{{ vault_smtp_password_fleet_example_com_relay_example_test }}"
    )
    assert placeholder("client_secret", "an-id") == "{{ vault_smtp_client_secret_an_id }}"


@pytest.mark.parametrize("user", ["{{ lookup('pipe', 'id') }}", "{% x %}", "{# x #}"])
def test_no_host_writes_an_expression_into_a_task(user: str) -> None:
    host = FakeHost({"/etc/passwd": "root:x:0:0::/root:/bin/sh\n"}, live=False)
    text = f"account default\nhost {RELAY}\ntls on\nauth on\npassword secret\nuser "
    host.put("/etc/msmtprc", text + user, 0o600)
    (found,) = looked_at(host, as_task=True)["services"]
    assert (found["username"], found["task"]) == (user, None)
    assert [one["option"] for one in found["task_problems"]] == ["username"]
    host.put("/etc/msmtprc", f"{text}fleet\nlogfile /x/{user}\n", 0o600)
    assert looked_at(host, as_task=True)["services"][0]["task"] is None


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"probe": "all"}, ["probe"]),
        ({"timeout": 0, "certificate_days": 0}, ["timeout", "certificate_days"]),
        ({"timeout": 3601}, ["timeout"]),
        ({"root": "image"}, ["root"]),
        ({"root": "/a\nb"}, ["root"]),
    ],
)
def test_wrong_options_are_told_all_at_once(options: dict[str, Any], named: list[str]) -> None:
    result = engine.audit(options, FakeHost())
    assert result["failed"]
    assert [one["option"] for one in result["problems"]] == named


def test_a_root_that_is_none_is_no_empty_audit() -> None:
    result = engine.audit({"root": "/srv/image"}, FakeHost(live=False))
    assert [one["option"] for one in result["problems"]] == ["root"]


def test_a_bare_host_has_nothing() -> None:
    assert engine.audit({}, FakeHost()) == {"changed": False, "services": [], "findings": []}


# -- whatever is in the files ------------------------------------------------------------------------------------------

SECRET = "Wintergoldhaehnchen5Q"
LINES = st.sampled_from(
    [
        *("relayhost = [a.example]:587\n", "relayhost = a b, c\n", "smtp_sasl_auth_enable = yes\n", "  continued\n"),
        *(
            f"smtp_sasl_password_maps = static:u:{SECRET}\n",
            "smtp_sasl_password_maps = hash:/etc/postfix/sasl_passwd\n",
        ),
        *("transport_maps = inline:{ *=smtp:[b.example] }\n", "default_transport = $default_transport x\n", "junk"),
        *(
            "smtp_tls_policy_maps = regexp:/etc/passwd\n",
            "mynetworks = /etc/postfix/main.cf, [::1], x/99\n",
            "a = ${b?{\n",
        ),
        *(
            "smtp unix - - n - - smtp -o smtp_tls_security_level=secure\n",
            "smtp unix - - n - - pipe\n",
            "\\\n",
            "\x00\n",
        ),
        *(
            "dc_smarthost='a.example::x:[::1'\n",
            "dc_eximconfig_configtype='smarthost'\n",
            ".ifdef A\n",
            ".include /etc/x\n",
        ),
        *("begin routers\n", "begin authenticators\n", "r:\n", "  driver = manualroute\n", '  route_list = * "a:b\n'),
        *("begin transports\n", f"  client_send = ^u^{SECRET}\n", "A = A\n", "  transport = r\n", "driver = smtp\n"),
        *(
            f"*:u:{SECRET}\n",
            '"a\\"b: c\n',
            f"[a.example]:587 u:{SECRET}\n",
            "^(:u:p\n",
            "port x\n",
            "host a.example\n",
        ),
        *("account default : x, default\n", f"password {SECRET}\n", "account\n", "auth on\n", "user u\n", "tls on\n"),
        *("# BEGIN fleetmail.smtp default\n", "# END fleetmail.smtp default\n", "#fleetmail.smtp# relayhost = x\n"),
        *("passwordeval cat /etc/postfix/sasl_passwd\n", "from *@x\n", "timeout never\n", "port 99999999999\n"),
    ]
)
FILES = (
    *("/etc/postfix/main.cf", "/etc/postfix/master.cf", "/etc/postfix/sasl_passwd", "/etc/msmtprc", "/etc/netrc"),
    *("/etc/exim4/update-exim4.conf.conf", "/etc/exim4/exim4.conf.template", "/etc/exim4/passwd.client"),
    *("/etc/exim4/exim4.conf", "/home/user/.msmtprc", "/etc/x"),
)
TEXTS = st.lists(LINES | st.text(max_size=12), max_size=12).map("".join)


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(FILES), TEXTS, max_size=6))
def test_no_file_makes_an_audit_raise_or_show_a_secret(files: dict[str, str]) -> None:
    host = FakeHost({PASSWD: "user:x:1:1::/home/user:/bin/sh\n", **files}, live=False)
    for path in list(host.files):
        if path.endswith("sasl_passwd"):
            host.put(path + ".db", "\0")
    before = dict(host.files)
    result = looked_at(host, as_task=True, homes=True)
    assert "failed" not in result
    said = json.dumps(result)
    assert "internal error" not in said, re.findall(r"internal error[^\"]*", said)
    assert SECRET not in said
    assert host.files == before
    assert not host.calls


@settings(max_examples=25)
@given(st.sampled_from(sorted(by_hand.postfix.CASES)), st.integers(0, 400), st.text("\n\t ={}$:[]#,x", max_size=4))
def test_one_slip_in_a_good_file_is_no_trouble(name: str, place: int, slip: str) -> None:
    host = laid_down(by_hand.postfix.CASES[name])
    text = host.text(by_hand.postfix.MAIN)
    host.put(by_hand.postfix.MAIN, text[:place] + slip + text[place:])
    said = json.dumps(looked_at(host, as_task=True))
    assert "internal error" not in said
    assert PASSWORD not in said
