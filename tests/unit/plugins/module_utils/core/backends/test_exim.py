# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.exim_host import (
    CONF,
    LOGIN,
    NASTY,
    SAID,
    SPLIT,
    TEMPLATE,
    carried,
    contents,
    deploy,
    installed,
    plan_of,
    problems_of,
    running,
    service,
)
from unit.fake_host import FakeHost

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends import exim_files
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends.exim import Exim
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.errors import HostError
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.plan import compare
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.service import Service

# -- render, read back -----------------------------------------------------------------------------------------------

LABEL = st.from_regex(r"[a-zA-Z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
DOMAIN = st.lists(LABEL, min_size=2, max_size=4).map(".".join).filter(lambda name: not name.replace(".", "").isdigit())
ADDRESS = st.builds("{}@{}".format, st.from_regex(r"[A-Za-z0-9!#%&'+/=^_`|~-]{1,20}", fullmatch=True), DOMAIN)


@st.composite
def services(draw) -> Service:
    options = {
        "enabled": draw(st.booleans()),
        "host": draw(DOMAIN | st.ip_addresses().filter(lambda one: not one.is_loopback).map(str)),
        "port": draw(st.integers(1, 65535)),
        "security": draw(st.sampled_from(["none", "starttls", "tls"])),
        "validate_certs": draw(st.booleans()),
        "allow_cleartext_auth": True,
        "ca_file": draw(st.sampled_from(["", "/etc/ssl/ca.pem"])),
        "from_address": draw(st.just("") | ADDRESS),
    }
    if not options["enabled"] and draw(st.booleans()):
        options["host"] = ""
    if draw(st.booleans()):
        username = draw(NASTY.map(lambda text: text.replace("\t", "x")).filter(lambda one: carried(one, "username")))
        password = draw(NASTY.filter(lambda text: carried(text, "password")))
        options.update(auth_type="password", username=username, password=password)
    return Service.from_options(options)


@given(services(), st.sampled_from([CONF, SPLIT, CONF.replace("'local'", "'satellite'"), CONF.rstrip("\n")]))
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_read_back_and_needs_no_second_run(wanted, conf):
    host = installed(conf)
    before = contents(host)
    assert problems_of(wanted, host) == []
    deploy(host, wanted)
    assert plan_of(host, wanted).empty
    assert not any(plan_of(host, wanted).changes)
    deploy(host, None)
    assert contents(host) == before


@given(services(), services(), st.sampled_from([CONF, SPLIT]))
@settings(max_examples=20, deadline=None)
def test_one_service_after_the_other(first, second, conf):
    host = installed(conf)
    before = contents(host)
    for wanted in (first, second):
        deploy(host, wanted)
        assert plan_of(host, wanted).empty
    deploy(host, None)
    assert contents(host) == before


@given(
    services(),
    st.binary(max_size=300),
    st.sampled_from([exim_files.CONF, exim_files.CREDENTIALS, exim_files.MONOLITHIC_MACROS]),
)
@settings(max_examples=25, deadline=None)
def test_no_file_found_there_gives_a_traceback(wanted, content, path):
    host = installed()
    host.put(path, content)
    backend = Exim(host)
    observed = backend.read("default")
    compare(backend.wanted_form(wanted), observed, backend.desired(wanted, "default", observed), host)


def test_the_layout_may_change():
    host = installed()
    deploy(host, service(**LOGIN))
    host.put(exim_files.CONF, host.text(exim_files.CONF).replace("config='false'", "config='true'"))
    deploy(host, service(**LOGIN))
    assert plan_of(host, service(**LOGIN)).empty
    assert exim_files.MONOLITHIC_MACROS not in host.files
    assert host.text(exim_files.TEMPLATE) == TEMPLATE
    assert "hosts_require_auth" in host.text(exim_files.CONTINUED)


def test_a_file_that_was_there_stays_when_we_go():
    host = installed(**{exim_files.MONOLITHIC_MACROS: ""})
    deploy(host, service())
    deploy(host, None)
    assert host.text(exim_files.MONOLITHIC_MACROS) == ""


def test_edits_made_elsewhere_meanwhile_are_kept():
    host = installed()
    deploy(host, service(**LOGIN))
    host.put(exim_files.MONOLITHIC_MACROS, host.text(exim_files.MONOLITHIC_MACROS) + "MINE = 1\n")
    host.put(exim_files.CONF, "dc_new='x'\n" + host.text(exim_files.CONF))
    deploy(host, None)
    assert host.text(exim_files.MONOLITHIC_MACROS) == "MINE = 1\n"
    assert host.text(exim_files.CONF) == "dc_new='x'\n" + CONF


def test_a_bare_host_gets_a_plan():
    host = FakeHost({}, live=True)
    plan = plan_of(host, service(**LOGIN))
    assert {drift.field for drift in plan.drift} >= {"host", "password", "running"}
    assert {change.wanted.path for change in plan.changes} == {
        exim_files.CREDENTIALS,
        exim_files.MONOLITHIC_MACROS,
        exim_files.CONF,
    }


def test_a_tree_without_exim_gets_files_that_the_package_will_keep():
    host = FakeHost({}, live=False)
    deploy(host, service(**LOGIN))
    assert plan_of(host, service(**LOGIN)).empty
    assert exim_files.shell_values(host.text(exim_files.CONF))["dc_local_interfaces"] == "127.0.0.1 ; ::1"
    assert host.files[exim_files.CREDENTIALS].mode == 0o600
    deploy(host, None)
    assert not host.files


# -- what is written -------------------------------------------------------------------------------------------------


def test_without_a_login_nobody_elses_is_found_and_it_comes_back():
    host = installed()
    host.put(exim_files.CREDENTIALS, "relay.example.com:by:hand\n", 0o640, "root", "Debian-exim")
    assert Exim(host).read("default").secrets == ["hand"]
    deploy(host, service())
    assert exim_files.credentials(host.text(exim_files.CREDENTIALS), "relay.example.com") is None
    deploy(host, service(**LOGIN))
    assert exim_files.credentials(host.text(exim_files.CREDENTIALS), "relay.example.com") == ("fleet", "s3cret")
    deploy(host, None)
    assert host.text(exim_files.CREDENTIALS) == "relay.example.com:by:hand\n"


def test_each_relay_gets_its_own_login_until_it_is_switched(monkeypatch):
    aliases = {"old.example": "old-7.cloud.example", "relay.example.com": "new-7.cloud.example"}

    def canonical(host, *_rest, **_how):
        return [(0, 0, 0, aliases.get(host, ""), ())]

    monkeypatch.setattr("socket.getaddrinfo", canonical)
    host = running(SAID.replace("relay.example.com::587", "old.example::25"))
    host.put(exim_files.CREDENTIALS, "*:by:hand\n", 0o640, "root", "Debian-exim")
    for expected in (("by", "hand"), ("fleet", "s3cret")):
        backend = Exim(host)
        state = backend.desired(service(**LOGIN), "default", backend.read("default"))[0]
        both = (state.transition or b"").decode()
        assert exim_files.credentials(both, "old.example") == expected
        assert exim_files.credentials(both, "old-7.cloud.example") == expected
        assert exim_files.credentials(both, "relay.example.com") == ("fleet", "s3cret")
        assert exim_files.credentials(both, "new-7.cloud.example") == ("fleet", "s3cret")
        assert exim_files.credentials(both, "anybody.else") is None
        host.put(exim_files.CREDENTIALS, state.content or b"", 0o640, "root", "Debian-exim")
    same = backend.desired(service(host="old.example", **LOGIN), "default", backend.read("default"))[0]
    assert same.transition is None


def test_permissions_come_back_too():
    host = installed()
    host.put(exim_files.CREDENTIALS, "x:y:z\n", 0o644, "root", "root")
    deploy(host, service(**LOGIN))
    deploy(host, service(**{**LOGIN, "password": "another"}))
    assert host.files[exim_files.CREDENTIALS].mode == 0o640
    deploy(host, None)
    assert host.files[exim_files.CREDENTIALS][1:] == (0o644, "root", "root")
    assert host.text(exim_files.CREDENTIALS) == "x:y:z\n"


def test_the_types_that_have_one_relay_stay():
    for kind, expected in (("satellite", "satellite"), ("smarthost", "smarthost"), ("internet", "smarthost")):
        host = installed(CONF.replace("'local'", f"'{kind}'"))
        deploy(host, service())
        deploy(host, service())
        assert exim_files.shell_values(host.text(exim_files.CONF))["dc_eximconfig_configtype"] == expected


def test_the_template_stays_untouched_when_asked():
    host = installed()
    deploy(host, service(**LOGIN), edit_template=False)
    assert host.text(exim_files.TEMPLATE) == TEMPLATE
    assert plan_of(host, service(**LOGIN), edit_template=False).empty
    told = [(drift.field, drift.before, drift.after) for drift in plan_of(host, service(**LOGIN)).drift]
    assert told == [("hosts_require_auth", "", "*"), ("tls_sni", "", "relay.example.com")]


def test_no_name_is_sent_for_an_address():
    for host_name in ("192.0.2.25", "2001:db8::25"):
        assert Exim(installed())._wanted_options(service(host=host_name)) == {}


# -- what cannot be expressed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({"timeout": 10}, "timeout"),
        ({"senders": ["a@example.com"]}, "senders"),
        ({"host": "127.0.0.1"}, "host"),
        ({"host": "localhost"}, "host"),
        ({**LOGIN, "username": "a:b"}, "username"),
        ({**LOGIN, "username": "^a"}, "username"),
        ({**LOGIN, "username": " a"}, "username"),
        ({**LOGIN, "password": "^a"}, "password"),
        ({**LOGIN, "password": "a "}, "password"),
        ({**LOGIN, "password": "a\t"}, "password"),
        ({**LOGIN, "password": "é" * 1500}, "password"),
        ({"ca_file": "/etc/ssl/a b.pem"}, "ca_file"),
        ({"ca_file": "/etc/ssl/$x.pem"}, "ca_file"),
        ({"from_address": "a$b@example.com"}, "from_address"),
        ({"from_address": "a}b@example.com"}, "from_address"),
    ],
)
def test_it_is_refused_by_name_with_a_way_out(options, refused):
    problems = list(Exim(installed()).problems(service(**options)))
    assert [one.option for one in problems] == [refused]
    assert problems[0].hint


@pytest.mark.parametrize(
    "options",
    [
        {**LOGIN, "username": "a^b^ ", "password": "a^^b^"},
        {**LOGIN, "password": " lead"},
        {**LOGIN, "password": "x" * 1500},
        {**LOGIN, "password": "a:b;c{}$'\"\\"},
        {"from_address": "a!#%&'*+/=?^_`|~-b@example.com"},
    ],
)
def test_it_is_carried(options):
    assert problems_of(service(**options)) == []


def test_a_ca_file_that_cannot_be_read_hides_no_other_problem(monkeypatch):
    host = installed()

    def read(path: str):
        if path == "/etc/ssl/certs":
            raise HostError(path, "cannot be read: Is a directory")
        return host.files.get(path)

    monkeypatch.setattr(host, "read", read)
    assert [one[0] for one in problems_of(service(ca_file="/etc/ssl/certs", timeout=9), host)] == ["timeout"]


def test_a_ca_file_that_exim_cannot_read_is_refused():
    host = installed()
    host.put("/etc/ssl/ca.pem", "x", 0o600)
    assert [one[0] for one in problems_of(service(ca_file="/etc/ssl/ca.pem"), host)] == ["ca_file"]
    host.put("/etc/ssl/ca.pem", "x", 0o640, "root", "Debian-exim")
    assert problems_of(service(ca_file="/etc/ssl/ca.pem"), host) == []


def test_one_service_at_a_time():
    host = installed()
    deploy(host, service(name="one"), "one")
    assert problems_of(service(name="two"), host) == [("name", "'one' already takes all mail of this Exim")]
    assert problems_of(service(name="one"), host) == []
