# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.fake_host import Call, FakeHost, apply

from ansible_collections.fleetmail.smtp.plugins.module_utils.core import marks
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends import exim, exim_files, exim_generated
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends.base import Observed
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends.exim import Exim
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.errors import StepFailed
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.host import Completed
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.plan import compare
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.service import Service

CONF = """# a comment
dc_eximconfig_configtype='local'
dc_other_hostnames='client.example.test'
dc_local_interfaces='127.0.0.1 ; ::1'
dc_readhost=''
dc_smarthost=''
dc_use_split_config='false'
dc_hide_mailname=''
"""
SPLIT = CONF.replace("config='false'", "config='true'")
BEFORE = "address_file:\n  driver = appendfile\n\n"
TRANSPORT = (
    'remote_smtp_smarthost:\n  debug_print = "T: $local_part@$domain"\n  driver = smtp\n  multi_domain\n'
    ".ifdef REMOTE_SMTP_SMARTHOST_PROTOCOL\n  protocol = REMOTE_SMTP_SMARTHOST_PROTOCOL\n.endif\n"
)
AFTER = "address_directory:\n  driver = appendfile\n\nbegin retry\n"
TEMPLATE = "UPEX4CmacrosUPEX4C = 1\nbegin transports\n" + BEFORE + TRANSPORT + AFTER
PASSWD = "# see exim4_passwd_client(5)\n### target.mail.server.example:login:password\n"
RELAY = {"host": "relay.example.com", "port": 587, "security": "starttls"}
LOGIN = {"auth_type": "password", "username": "fleet", "password": "s3cret"}


def service(**options: object) -> Service:
    return Service.from_options({**RELAY, **options})


def installed(conf: str = CONF, live: bool = False, **files: str) -> FakeHost:
    """A host as Debian's packages leave it; ``live`` without a daemon that runs."""
    host = FakeHost({exim.CONF: conf, exim.TEMPLATE: TEMPLATE, **files}, live=live)
    host.groups.add("Debian-exim")
    host.put(exim.CREDENTIALS, PASSWD, 0o640, "root", "Debian-exim")
    host.put(exim.TRANSPORT_FILE, TRANSPORT)
    host.put(exim.ETC + "/conf.d/transport/35_exim4-config_address_directory", AFTER)
    return host


def deploy(host: FakeHost, wanted: Service | None, name: str = "default", **options: object) -> None:
    backend = Exim(host, options)
    apply(host, backend.desired(wanted, name, backend.read(name)))


def plan_of(host: FakeHost, wanted: Service, **options: object):
    backend = Exim(host, options)
    observed = backend.read(wanted.name)
    return compare(backend.wanted_form(wanted), observed, backend.desired(wanted, wanted.name, observed), host)


def problems_of(wanted: Service, host: FakeHost | None = None) -> list[tuple[str, str]]:
    return [(one.option, one.problem) for one in Exim(host or installed()).problems(wanted)]


def contents(host: FakeHost) -> dict[str, tuple[bytes, int]]:
    return {path: (file.content, file.mode) for path, file in host.files.items()}


# -- update-exim4.conf.conf, as a shell reads it ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("dc_a='one'\ndc_a='two'\n", {"dc_a": "two"}),
        ("dc_a=bare # why\ndc_b=\n", {"dc_a": "bare", "dc_b": ""}),
        ('export dc_a="b c"\n', {"dc_a": "b c"}),
        ("  dc_a='x'\n#dc_a='y'\n", {"dc_a": "x"}),
        ("dc_a='one\ntwo'\ndc_b=3", {"dc_a": "one\ntwo", "dc_b": "3"}),
        ("dc_a='never closed\ndc_b='x'\n", {"dc_a": "never closed\ndc_b="}),
        ("if true; then\ndc_a='x'\nfi\n", {"dc_a": "x"}),
        ("", {}),
    ],
)
def test_assignments_are_read_as_a_shell_does(text, values):
    assert exim_files.shell_values(text) == values


def test_a_quote_that_is_never_closed_takes_one_line_only():
    assert [entry.key for entry in exim_files.shell_entries("dc_a='x\ndc_b=y\n")] == ["dc_a", "dc_b"]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("A = 1\nA = 2\n", {"A": "1"}),
        ("A = 1\nA == 2\n", {"A": "2"}),
        ("A=\n", {"A": ""}),
        ("A = one \\\n   two\\\n# not this\n  three\nB = x\n", {"A": "one twothree", "B": "x"}),
        ("hold_domains = *\n", {"hold_domains": "*"}),
        (".ifdef A\nB = 1\n.endif\n# C = 1\n", {"B": "1"}),
    ],
)
def test_macros_are_read_as_exim_does(text, values):
    assert exim_files.macro_values(text) == values


# -- our block among somebody else's lines ---------------------------------------------------------------------------


def test_lines_that_we_replace_are_muted_and_given_back():
    text = "dc_smarthost='old'\ndc_x='kept'\n"
    ours = exim_files.rewrite(text, "default", {"dc_smarthost": "new"}, exim_files.SHELL)
    assert ours == (
        "#fleetmail.smtp# dc_smarthost='old'\ndc_x='kept'\n"
        "# BEGIN fleetmail.smtp default\ndc_smarthost='new'\n# END fleetmail.smtp default\n"
    )
    assert exim_files.rewrite(ours, "default", {}, exim_files.SHELL) == text


def test_a_later_line_is_a_change_by_hand_and_goes():
    text = exim_files.rewrite("dc_x='kept'\n", "default", {"dc_smarthost": "new"}, exim_files.SHELL)
    assert (
        exim_files.rewrite(text + "dc_smarthost='mine'\n", "default", {"dc_smarthost": "new"}, exim_files.SHELL) == text
    )


def test_several_lines_of_one_setting_stay_together():
    text = "A = one \\\n two \\\nthree\nB = 1\n"
    ours = exim_files.rewrite(text, "default", {"A": "x"}, exim_files.MACROS)
    assert exim_files.macro_values(ours) == {"A": "x", "B": "1"}
    assert exim_files.rewrite(ours, "default", {}, exim_files.MACROS) == text


KEYS = st.sampled_from(["A", "B", "hold_domains", "dc_smarthost", "Z9"])
LINE = st.one_of(
    st.builds("{} = {}".format, KEYS, st.text("abc '\"$", max_size=6)),
    st.builds("{}='{}'".format, KEYS, st.text("abc \n", max_size=6)),
    st.sampled_from(["", "# A = 1", "A = x \\", "  y", "fi", "A='", "é\u2028\x85"]),
)


@given(st.lists(LINE, max_size=12), st.booleans(), st.dictionaries(KEYS, st.just("v"), min_size=1), st.booleans())
@settings(max_examples=150, deadline=None)
def test_taking_us_out_gives_the_file_back_byte_for_byte(lines, ended, wanted, shell):
    how = exim_files.SHELL if shell else exim_files.MACROS
    text = "\n".join(lines) + ("\n" if ended else "")
    ours = exim_files.rewrite(text, "default", wanted, how)
    assert exim_files.rewrite(ours, "default", wanted, how) == ours
    assert exim_files.rewrite(ours, "default", {}, how) == text


# -- passwd.client ---------------------------------------------------------------------------------------------------

PRINTABLE = st.characters(exclude_categories=["Cs", "Cc"])
NASTY = st.text(PRINTABLE | st.sampled_from(" \"'\\#$`%*?:^\t"), min_size=1, max_size=60)


def carried(text: str, option: str) -> bool:
    rules = [rule for rule in Exim.capabilities.rules if rule.option == option]
    return not any(rule.broken_by(text) for rule in rules)


@given(
    NASTY.map(lambda text: text.replace("\t", "x")).filter(lambda text: carried(text, "username")),
    NASTY.filter(lambda text: carried(text, "password")),
    st.sampled_from(["", PASSWD, "old.example:a:b\n", "*:a:b", "^x.*$:u:p\n  more\n", '"::1":u:p\n']),
)
@settings(max_examples=100, deadline=None)
def test_what_is_written_is_what_exim_finds(username, password, text):
    line = exim_files.credential_line("*", username, password)
    ours = exim_files.put_credentials(text, "default", line)
    assert exim_files.credentials(ours, "any.name.example") == (username, password)
    assert marks.drop(ours, "default") == text


@pytest.mark.parametrize(
    ("text", "host", "found"),
    [
        ("relay.example:u:p:w\n", "RELAY.example", ("u", "p:w")),
        ("a.example:u:p\n*.example:v:q\n", "b.example", ("v", "q")),
        ("^.*\\.example$:u:p\n", "b.example", ("u", "p")),
        ('"fd77::25":u:p\n', "fd77::25", ("u", "p")),
        ("# *:u:p\n\n", "x", None),
        ("^(:u:p\n*:v:q\n", "x", ("v", "q")),
        ("x u:p\n", "x", ("u", "p")),
    ],
)
def test_the_first_line_that_matches_counts(text, host, found):
    assert exim_files.credentials(text, host) == found


def test_a_line_before_ours_does_not_win():
    ours = exim_files.put_credentials("", "default", "*:u:p\n")
    again = exim_files.put_credentials("*:by:hand\n" + ours, "default", "*:u:p\n")
    assert exim_files.credentials(again, "x") == ("u", "p")
    assert exim_files.put_credentials(again, "default", "*:u:p\n") == again


# -- the transport, the route, the generated file --------------------------------------------------------------------


def test_our_options_go_right_behind_the_driver():
    ours = exim_files.put_in_transport(TEMPLATE, "default", "  tls_sni = x\n")
    assert ours is not None
    assert "  driver = smtp\n# BEGIN fleetmail.smtp default\n  tls_sni = x\n# END" in ours
    assert exim_files.put_in_transport(ours, "default", "  tls_sni = x\n") == ours
    assert marks.drop(ours, "default") == TEMPLATE


@pytest.mark.parametrize("template", ["", BEFORE + AFTER, TEMPLATE.replace("driver = smtp\n", "driver = lmtp\n")])
def test_a_template_without_the_transport_is_left_alone(template):
    assert exim_files.put_in_transport(template, "default", "  x = 1\n") is None
    host = installed()
    host.put(exim.TEMPLATE, template)
    told = [option for option, _ in problems_of(service(**LOGIN), host)]
    assert told == (["backend_options.edit_template"] if template else [])


@given(st.ip_addresses().map(str) | st.sampled_from(["relay.example.com", "x_1.example."]), st.integers(1, 65535))
def test_a_route_is_read_back(host, port):
    assert exim_files.split_route(f"* {exim_files.smarthost(host, port)} byname", 25) == (host, port)


@pytest.mark.parametrize(
    ("route", "port", "found"),
    [
        ("* relay.example byname", 25, ("relay.example", 25)),
        ("* relay.example byname", 465, ("relay.example", 465)),
        ("* a::25:b::25 byname", 25, ("* a::25:b::25 byname", 25)),
        ("*  byname", 25, ("*  byname", 25)),
    ],
)
def test_what_is_not_one_host_is_shown_as_it_stands(route, port, found):
    assert exim_files.split_route(route, port) == found


def generated(sources: str) -> str:
    debconf = "#" * 46 + "\n# the following macro definitions were created\n# dynamically\n.ifndef X\nX=1\n.endif\n"
    lines = [line for line in sources.split("\n") if not line.lstrip().startswith("#")]
    mark = "UPEX4CmacrosUPEX4C = 1"
    return "# WARNING\n" + "\n".join(lines).replace(mark, mark + "\n" + debconf + "#" * 46)


@pytest.mark.parametrize("conf", [CONF, SPLIT])
def test_the_generated_file_is_compared_with_its_sources(conf):
    host, split = installed(conf), conf is SPLIT
    host.put(exim.ETC + "/conf.d/main/01_x", "UPEX4CmacrosUPEX4C = 1\n# a comment\n")
    host.put(exim.ETC + "/conf.d/main/ignored.dpkg-old", "bad = 1\n")
    whole = exim_generated._joined(host, split)
    assert exim_generated.fault(host, split) == "(absent)"
    host.put(exim.GENERATED, generated(whole))
    assert exim_generated.fault(host, split) == ""
    host.put(exim.GENERATED, generated(whole).replace("X=1", "X=2"))  # what the answers make is judged by its effect
    assert exim_generated.fault(host, split) == ""
    for edited in (generated(whole) + "message_size_limit = 1\n", generated(whole).replace("  driver = smtp\n", "")):
        host.put(exim.GENERATED, edited)
        assert exim_generated.fault(host, split) == "(stale or edited)"


def test_a_file_with_the_ending_rul_stands_for_its_namesake():
    host = installed(SPLIT)
    host.put(exim.TRANSPORT_FILE + ".rul", TRANSPORT + "  tls_sni = mine\n")
    assert "tls_sni = mine" in exim_generated._joined(host, True)
    assert TRANSPORT + "\n" not in exim_generated._joined(host, True)
    assert Exim(host).wanted_form(service()).get("tls_sni") is None  # the transport sets it by itself


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


@given(services(), st.binary(max_size=300), st.sampled_from([exim.CONF, exim.CREDENTIALS, exim.MONOLITHIC_MACROS]))
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
    host.put(exim.CONF, host.text(exim.CONF).replace("config='false'", "config='true'"))
    deploy(host, service(**LOGIN))
    assert plan_of(host, service(**LOGIN)).empty
    assert exim.MONOLITHIC_MACROS not in host.files
    assert host.text(exim.TEMPLATE) == TEMPLATE
    assert "hosts_require_auth" in host.text(exim.CONTINUED)


def test_a_file_that_was_there_stays_when_we_go():
    host = installed(**{exim.MONOLITHIC_MACROS: ""})
    deploy(host, service())
    deploy(host, None)
    assert host.text(exim.MONOLITHIC_MACROS) == ""


def test_edits_made_elsewhere_meanwhile_are_kept():
    host = installed()
    deploy(host, service(**LOGIN))
    host.put(exim.MONOLITHIC_MACROS, host.text(exim.MONOLITHIC_MACROS) + "MINE = 1\n")
    host.put(exim.CONF, "dc_new='x'\n" + host.text(exim.CONF))
    deploy(host, None)
    assert host.text(exim.MONOLITHIC_MACROS) == "MINE = 1\n"
    assert host.text(exim.CONF) == "dc_new='x'\n" + CONF


def test_a_bare_host_gets_a_plan():
    host = FakeHost({}, live=True)
    plan = plan_of(host, service(**LOGIN))
    assert {drift.field for drift in plan.drift} >= {"host", "password", "running"}
    assert {change.wanted.path for change in plan.changes} == {exim.CREDENTIALS, exim.MONOLITHIC_MACROS, exim.CONF}


def test_a_tree_without_exim_gets_files_that_the_package_will_keep():
    host = FakeHost({}, live=False)
    deploy(host, service(**LOGIN))
    assert plan_of(host, service(**LOGIN)).empty
    assert exim_files.shell_values(host.text(exim.CONF))["dc_local_interfaces"] == "127.0.0.1 ; ::1"
    assert host.files[exim.CREDENTIALS].mode == 0o600
    deploy(host, None)
    assert not host.files


# -- what is written -------------------------------------------------------------------------------------------------


def test_without_a_login_nobody_elses_is_found_and_it_comes_back():
    host = installed()
    host.put(exim.CREDENTIALS, "relay.example.com:by:hand\n", 0o640, "root", "Debian-exim")
    assert Exim(host).read("default").secrets == ["hand"]
    deploy(host, service())
    assert exim_files.credentials(host.text(exim.CREDENTIALS), "relay.example.com") is None
    deploy(host, service(**LOGIN))
    assert exim_files.credentials(host.text(exim.CREDENTIALS), "relay.example.com") == ("fleet", "s3cret")
    deploy(host, None)
    assert host.text(exim.CREDENTIALS) == "relay.example.com:by:hand\n"


def test_taking_over_serves_both_relays_until_it_is_switched():
    conf = CONF.replace("'local'", "'satellite'").replace("smarthost=''", "smarthost='old.example::25'")
    host = installed(conf, **{exim.MONOLITHIC_MACROS: "AUTH_CLIENT_ALLOW_NOTLS_PASSWORDS = 1\n"})
    host.put(exim.CREDENTIALS, "*:by:hand\n", 0o640, "root", "Debian-exim")
    backend = Exim(host)
    state = backend.desired(service(**LOGIN), "default", backend.read("default"))[0]
    both = (state.transition or b"").decode()
    assert exim_files.credentials(both, "old.example") == ("by", "hand")
    assert exim_files.credentials(both, "relay.example.com") == ("fleet", "s3cret")
    assert exim_files.credentials(both, "what.the.alias.leads.to") == ("fleet", "s3cret")
    apply(host, backend.desired(service(**LOGIN), "default", backend.read("default")))
    again = backend.desired(
        service(host="third.example", **{**LOGIN, "password": "x"}), "default", backend.read("default")
    )
    assert again[0].transition is None  # a login is mandatory now: what is refused waits


def test_the_types_that_have_one_relay_stay():
    for kind, expected in (("satellite", "satellite"), ("smarthost", "smarthost"), ("internet", "smarthost")):
        host = installed(CONF.replace("'local'", f"'{kind}'"))
        deploy(host, service())
        deploy(host, service())
        assert exim_files.shell_values(host.text(exim.CONF))["dc_eximconfig_configtype"] == expected


def test_the_template_stays_untouched_when_asked():
    host = installed()
    deploy(host, service(**LOGIN), edit_template=False)
    assert host.text(exim.TEMPLATE) == TEMPLATE
    assert plan_of(host, service(**LOGIN), edit_template=False).empty
    assert [drift.field for drift in plan_of(host, service(**LOGIN)).drift] == ["hosts_require_auth", "tls_sni"]


def test_no_name_is_sent_for_an_address():
    for host_name in ("192.0.2.25", "2001:db8::25"):
        assert "tls_sni" not in Exim(installed()).wanted_form(service(host=host_name))


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


def test_a_ca_file_that_exim_cannot_read_is_refused():
    host = installed()
    host.put("/etc/ssl/ca.pem", "x", 0o600)
    assert [option for option, _ in problems_of(service(ca_file="/etc/ssl/ca.pem"), host)] == ["ca_file"]
    host.put("/etc/ssl/ca.pem", "x", 0o640, "root", "Debian-exim")
    assert problems_of(service(ca_file="/etc/ssl/ca.pem"), host) == []


def test_one_service_at_a_time():
    host = installed()
    deploy(host, service(name="one"), "one")
    assert problems_of(service(name="two"), host) == [("name", "'one' already takes all mail of this Exim")]
    assert problems_of(service(name="one"), host) == []


# -- what Exim itself says -------------------------------------------------------------------------------------------

# as exim4 4.96 prints it, without the options that nobody asked for
SAID = """current_directory =
driver = smtp
headers_rewrite = *@* ops@example.com fs
return_path = ${if eq{$return_path}{}{}{ops@example.com}}
hosts_avoid_tls =
hosts_require_auth = *
hosts_require_tls = *
protocol = smtp
tls_sni = relay.example.com
tls_verify_cert_hostnames = *
tls_verify_certificates = /etc/ssl/ca.pem
tls_verify_hosts = *
driver = manualroute
route_list = * relay.example.com::587 byname
hold_domains =
macro AUTH_CLIENT_ALLOW_NOTLS_PASSWORDS not found
"""


def running(said: str = SAID, **files: str) -> FakeHost:
    """A live host with a daemon, whose Exim answers so."""
    host = installed(live=True, **files)
    host.programs.update(
        {"exim4": Completed(0, said, ""), "update-exim4.conf": Completed(0, "", ""), "sh": Completed(0, "", "")}
    )
    host.put("/run/exim4/exim.pid", "77\n")
    host.put("/proc/77/comm", "exim4\n")
    host.put(exim.GENERATED, generated(TEMPLATE))
    return host


def test_the_effective_state_is_asked_of_exim_in_one_call():
    host = running()
    host.put(exim.CREDENTIALS, "*:fleet:s3cret\n")
    found = Exim(host).read("default")
    wanted = Exim(host).wanted_form(service(ca_file="/etc/ssl/ca.pem", from_address="ops@example.com", **LOGIN))
    assert {key: found.form[key] for key in wanted} == wanted
    assert (found.running, found.faults, found.overrides, found.warnings) == (True, [], [], [])
    assert len(host.calls) == 1


@pytest.mark.parametrize(
    ("old", "new", "field", "value"),
    [
        ("hosts_require_tls = *", "hosts_require_tls =", "security", "opportunistic"),
        ("hosts_avoid_tls =", "hosts_avoid_tls = *", "security", "none"),
        ("protocol = smtp", "protocol = smtps", "security", "tls"),
        ("tls_verify_hosts = *", "tls_verify_hosts =", "validate_certs", False),
        ("tls_verify_hosts = *", "tls_verify_hosts = some.example", "validate_certs", None),
        ("tls_verify_cert_hostnames = *", "tls_verify_cert_hostnames =", "validate_certs", None),
        ("/etc/ssl/ca.pem", "system", "ca_file", ""),
        ("{ops@example.com}}", "{other@example.com}}", "from_address", ""),
        ("hold_domains =", "hold_domains = ! +local_domains", "enabled", False),
        ("hold_domains =", "hold_domains = one.example", "enabled", True),
        ("::587 byname", " byname", "port", 25),
        ("route_list = * relay.example.com::587 byname\n", "router smarthost not found\n", "host", ""),
    ],
)
def test_each_deviation_is_told_in_the_forms_words(old, new, field, value):
    assert Exim(running(SAID.replace(old, new, 1))).read("default").form[field] == value


def test_no_password_goes_out_without_tls_unless_allowed():
    plain = SAID.replace("hosts_avoid_tls =", "hosts_avoid_tls = *")
    for said, auth_type in ((plain, "none"), (plain + "AUTH_CLIENT_ALLOW_NOTLS_PASSWORDS=1\n", "password")):
        host = running(said)
        host.put(exim.CREDENTIALS, "*:fleet:s3cret\n")
        assert Exim(host).read("default").form["auth_type"] == auth_type


def test_a_configuration_that_exim_refuses_is_told_and_replaced():
    host = running()
    host.programs["exim4"] = Completed(1, "", "Exim configuration error in line 9: option unknown")
    found = Exim(host).read("default")
    assert found.form == {}
    assert "line 9" in found.warnings[0]


def test_a_configuration_of_its_own_is_reported():
    found = Exim(running(**{exim.WHOLE: "primary_hostname = x\n"})).read("default")
    assert [one.option for one in found.overrides] == [exim.WHOLE]
    assert exim.WHOLE in found.warnings[0]


def test_a_redefined_macro_is_found():
    host = running(SAID.replace("hosts_require_tls = *", "hosts_require_tls ="))
    deploy(host, service())
    host.put(exim.TEMPLATE, "REMOTE_SMTP_SMARTHOST_HOSTS_REQUIRE_TLS ==\n" + TEMPLATE)
    overrides = Exim(host).read("default").overrides
    assert [(one.option, one.problem) for one in overrides] == [
        (exim.TEMPLATE, "redefines REMOTE_SMTP_SMARTHOST_HOSTS_REQUIRE_TLS after us")
    ]


@pytest.mark.parametrize(
    ("path", "content", "expected"),
    [
        ("/proc/77/comm", "exim4\n", True),
        ("/proc/77/comm", "bash\n", False),
        ("/run/exim4/exim.pid", "", False),
        ("/etc/default/exim4", "QUEUERUNNER='nodaemon'\n", None),
        ("/etc/inetd.conf", "smtp stream tcp nowait Debian-exim /usr/sbin/exim4 exim4 -bs\n", None),
        ("/etc/inetd.conf", "#smtp stream tcp nowait x y\n", True),
    ],
)
def test_whether_the_daemon_runs_is_seen_without_a_process(path, content, expected):
    host = running()
    host.put(path, content)
    assert Exim(host).read("default").running is expected


# -- making it so ----------------------------------------------------------------------------------------------------


def test_it_is_switched_and_the_daemon_told():
    host = running()
    backend = Exim(host)
    before = backend.read("default")
    backend.activate(before, service())
    backend.settle(before, service())
    assert backend.actions == [
        "update-exim4.conf", "sh -c kill -HUP 77", "sh -c exim4 -qf </dev/null >/dev/null 2>&1 &",
    ]  # fmt: skip


def test_it_is_started_when_it_does_not_run():
    host = running()
    host.remove("/run/exim4/exim.pid")
    backend = Exim(host)
    backend.activate(backend.read("default"), service())
    assert host.served == [("start", "exim4")]


def test_nothing_is_started_where_no_daemon_is_wanted_or_nothing_is_left_to_do():
    for files, wanted in (({"/etc/default/exim4": "QUEUERUNNER=nodaemon\n"}, service()), ({}, None)):
        host = running(**files)
        host.remove("/run/exim4/exim.pid")
        backend = Exim(host)
        backend.activate(backend.read("default"), wanted)
        assert host.served == []


def test_held_mail_is_let_go_only_when_enabled():
    backend = Exim(running())
    backend.settle(Observed({}), service(enabled=False))
    backend.settle(Observed({}), None)
    assert backend.actions == []


def test_a_roll_back_gives_back_the_very_configuration():
    host = running()
    host.groups.add("Debian-exim")
    host.put(exim.GENERATED, "edited = by hand\n", 0o644, "root", "Debian-exim")
    backend = Exim(host)
    backend.activate(backend.read("default"), service())
    host.put(exim.GENERATED, "the new one\n")
    backend.restore(True)
    assert host.text(exim.GENERATED) == "edited = by hand\n"
    assert backend.actions[-1] == "sh -c kill -HUP 77"


@pytest.mark.parametrize(("was", "now", "served"), [(True, False, "start"), (False, True, "stop"), (True, True, "")])
def test_a_roll_back_after_a_crash_makes_the_configuration_anew(was, now, served):
    host = running()
    if not now:
        host.remove("/run/exim4/exim.pid")
    backend = Exim(host)
    backend.restore(was)
    assert backend.actions[0] == "update-exim4.conf"
    assert host.served == ([(served, "exim4")] if served else [])


def test_exim_judges_candidates_beside_the_live_files():
    seen: list[Call] = []
    host = running()
    place = "/var/lib/fleetmail/smtp/candidate-exim"
    host.programs["cp"] = Completed(0, "", "")

    def update(call: Call) -> Completed:
        seen.append(call)
        assert host.text(place + "/update-exim4.conf.conf") == "new conf"
        assert host.text(place + "/exim4.conf.template") == "macros\n" + TEMPLATE  # update-exim4.conf -d forgets them
        return Completed(0, "", "")

    host.programs["update-exim4.conf"] = update
    host.put("/staged/conf", "new conf")
    host.put("/staged/macros", "macros\n")
    staged = {exim.CONF: "/staged/conf", exim.MONOLITHIC_MACROS: "/staged/macros"}
    assert Exim(host).check(staged) == []
    assert seen[0].argv == ["update-exim4.conf", "-d", place, "-o", place + "/generated"]
    assert host.calls[-1].argv == ["exim4", "-C", place + "/generated", "-bV"]
    assert not host.exists(place)
    host.programs["exim4"] = Completed(1, "", "error in line 3")
    with pytest.raises(StepFailed, match="line 3"):
        Exim(host).check(staged)


def test_a_tree_without_exim_is_judged_by_our_rules_alone():
    assert "this collection's rules alone" in Exim(FakeHost({}, live=False)).check({})[0]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("2026-11-23 19:16:50 Exim configuration error in line 959 of x:", True),
        ("1xVZLM-00004v-2v == a@b R=smarthost defer (-48): x: failed to open /etc/exim4/passwd.client for", True),
        ("1xVZLM-00004v-2v remote host address is the local host: example.org", True),
        ("1xVZLM-00004v-2v == a@b R=smarthost T=remote_smtp_smarthost defer (-37): TLS session", False),
    ],
)
def test_complaints_are_those_about_the_configuration(line, told):
    assert bool(Exim(installed()).complaints(f"x\n{line}\ny")) is told


# -- a mail on its way -----------------------------------------------------------------------------------------------

ID, NEW_ID = "1xVZIx-00004D-1C", "1xVZXP-0000000004E-0Ko3"
MAIL = b"From: a@b.example\nMessage-ID: <m.1@b.example>\n\nhi\n"
CAME = "2026-11-23 19:02:19 {0} <= a@b.example U=root P=local S=333 id=m.1@b.example\n"
ROUTE = "R=smarthost T=remote_smtp_smarthost"
GONE = "2026-11-23 19:02:19 {0} => x@example.org " + ROUTE + ' H=r [10.0.0.1] C="250 2.0.0 Queued \\"as\\" 1"\n'
DONE = "2026-11-23 19:02:19 {0} Completed\n"


def followed(*lines: str, timeout: float = 0.0, queue_id: str = ID) -> tuple[bool, str, str]:
    host = running()

    def take(call: Call) -> Completed:
        host.log_text += (
            "".join(lines).format(queue_id) if "-i" in call.argv else GONE.format(queue_id) + DONE.format(queue_id)
        )
        return Completed(0, "", "")

    host.programs["exim4"] = take
    return tuple(Exim(host).submit(MAIL, "a@b.example", ["x@example.org"], timeout))


@pytest.mark.parametrize("queue_id", [ID, NEW_ID])
def test_the_relays_reply_is_found(queue_id):
    found = followed(CAME, GONE, DONE, queue_id=queue_id)
    assert found == (True, '250 2.0.0 Queued \\"as\\" 1', queue_id)


@pytest.mark.parametrize(
    ("lines", "reply"),
    [
        ([CAME], "still in the queue"),
        (["{0} <= other id=another@b.example\n"], "Exim's main log never named it"),
        (
            [CAME, f"{{0}} ** x@example.org {ROUTE} H=r [1]: 550 5.1.1 no such user\n", DONE],
            "H=r [1]: 550 5.1.1 no such user",
        ),
        ([CAME, "{0} ** x@example.org: Unrouteable address\n", DONE], "x@example.org: Unrouteable address"),
        ([CAME, f"{{0}} == x@example.org {ROUTE} defer (-37): TLS session\n"], "TLS session"),
        (
            [CAME, "{0} => u <u@b.example> R=local_user T=mail_spool\n", DONE],
            "delivered on this host, not by the relay",
        ),
        ([CAME, GONE], "still in the queue"),
    ],
)
def test_it_is_told_why_it_did_not_arrive(lines, reply):
    sent, words, _ = followed(*lines)
    assert not sent
    assert words.startswith(reply)


def test_an_earlier_failure_of_the_relay_does_not_keep_it_waiting():
    waiting = f"{{0}} == x@example.org {ROUTE} defer (-53): retry time not reached for any host for 'example.org'\n"
    assert followed(CAME, waiting, timeout=2.0)[0]


def test_a_mail_that_exim_does_not_take_is_told():
    host = running()
    host.programs["exim4"] = Completed(1, "", "exim: permission denied")
    assert Exim(host).submit(MAIL, "", ["x@example.org"], 1) == (False, "exim: permission denied", "")
