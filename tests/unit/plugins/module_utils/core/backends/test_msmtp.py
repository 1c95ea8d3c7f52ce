# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import os
import stat
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.fake_host import Call, FakeHost, apply

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends import msmtp_file
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends.base import Observed
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends.msmtp import MAIN, Msmtp
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.enforce import enforce
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.errors import StepFailed
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.host import Completed, Snapshot
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.plan import compare
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.posix_host import PosixHost
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.redaction import Secret
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.service import Service

BY_HAND = (
    "# mine\ndefaults\ntls on\ntimeout 15\naccount isp\nhost mail.isp.example\nauth\nuser  me \n"
    'password "  "quoted" "\nfrom me@isp.example\naccount default : isp\nport 2525'
)
# as msmtp 1.8.23 prints it for that file
PRETENDED = """loaded system configuration file /etc/msmtprc
ignoring user configuration file /nonexistent/.msmtprc: No such file or directory
using account default from /etc/msmtprc
host = mail.isp.example
port = 2525
source ip = (not set)
proxy host = (not set)
proxy port = 0
socket = (not set)
timeout = 15 seconds
protocol = smtp
domain = localhost
auth = choose
user = me
password = *
passwordeval = (not set)
ntlmdomain = (not set)
tls = on
tls_starttls = on
tls_trust_file = system
tls_crl_file = (not set)
tls_fingerprint = (not set)
tls_key_file = (not set)
tls_cert_file = (not set)
tls_certcheck = on
tls_min_dh_prime_bits = (not set)
tls_priorities = (not set)
tls_host_override = (not set)
auto_from = off
maildomain = (not set)
from = nobody@localhost
allow_from_override = on
set_from_header = auto
set_date_header = auto
remove_bcc_headers = on
undisclosed_recipients = off
dsn_notify = (not set)
dsn_return = (not set)
logfile = (not set)
logfile_time_format = (not set)
syslog = (not set)
aliases = (not set)
reading recipients from the command line
"""
NO_HOST = "host disabled.invalid"
RELAY = {"host": "relay.example.com", "port": 587, "security": "starttls"}
LOGIN = {"auth_type": "password", "username": "fleet", "password": "s3cret"}


def service(**options: object) -> Service:
    return Service.from_options({**RELAY, **options})


def tree(**files: str) -> FakeHost:
    return FakeHost(files, live=False)


def deploy(host: FakeHost, wanted: Service | None, name: str = "default", **options: object) -> None:
    backend = Msmtp(host, options)
    apply(host, backend.desired(wanted, name, backend.read(name)))


def plan_of(host: FakeHost, wanted: Service, **options: object):
    backend = Msmtp(host, options)
    observed = backend.read(wanted.name)
    return compare(backend.wanted_form(wanted), observed, backend.desired(wanted, wanted.name, observed), host)


def problems_of(host: FakeHost, wanted: Service) -> list[tuple[str, str]]:
    return [(problem.option, problem.problem) for problem in Msmtp(host).problems(wanted)]


# -- the file, as msmtp reads it -------------------------------------------------------------------------------------


def test_accounts_inherit_and_are_completed_as_msmtp_does():
    isp, default = msmtp_file.accounts(BY_HAND)
    assert (isp.name, default.name) == ("isp", "default")
    assert isp.settings()["port"] == "25"
    assert isp.settings()["user"] == "me"
    ours, its = default.settings(), msmtp_file.pretended(PRETENDED)
    assert ours["password"] == '  "quoted" '
    assert {key: ours[key] for key in msmtp_file.BUILT_IN} == {key: its[key] for key in msmtp_file.BUILT_IN}
    assert [ours[key] for key in ("host", "port", "user")] == [its[key] for key in ("host", "port", "user")]


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        ("host h", ("host", "h")),
        ("\t host \t h \r", ("host", "h")),
        ('user ""', ("user", "")),
        ('user "', ("user", '"')),
        ('user ""a""', ("user", '"a"')),
        ("user a #b", ("user", "a #b")),
        ("tls", ("tls", "")),
        ('password "a\u2028b\x85"', ("password", "a\u2028b\x85")),
    ],
)
def test_a_line_is_taken_apart_as_msmtp_does(line, entry):
    assert list(msmtp_file.entries(f"# comment\n\n  # too\n{line}\n")) == [entry]


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("host h\ntls on\ntls_starttls off", {"port": "465"}),
        ("account default\nhost h\ntls_nocertcheck\ntls_nostarttls\nconnect_timeout 5", {"tls_certcheck": "off"}),
        ("account default\nconnect_timeout 5", {"timeout": "5"}),
        ("account a\nhost one\naccount b\nuser two\naccount default : a , b", {"host": "one", "user": "two"}),
        ("account a\nhost one\ndefaults\ntls on\naccount default : a", {"host": "one", "tls": "on"}),
        ("account a\nallow_from_override off\naccount default : a", {"allow_from_override": "on"}),
        ("defaults\nallow_from_override off\naccount default", {"allow_from_override": "off"}),
    ],
)
def test_words_of_older_versions_and_several_parents(text, settings):
    found = {account.name: account.settings() for account in msmtp_file.accounts(text)}["default"]
    assert settings.items() <= found.items()


def test_passwords_and_commands_that_may_hold_one_are_known():
    text = 'password "top secret"\nof two lines\npasswordeval echo hidden\neval echo x\nhost plain.example\npassword\n'
    assert list(msmtp_file.secrets(text)) == ["top secret", "echo hidden", "echo x"]


@pytest.mark.parametrize(
    ("before", "form", "secret"),
    [
        ("", {}, False),
        ("", LOGIN, True),
        ("account default\nhost x\n", {}, False),
        ('account default\npassword "x"\n', {}, True),
        ('account default\n#password "x\ny"\n', {}, True),
    ],
)
def test_a_diff_shows_no_file_that_holds_or_held_a_secret(before, form, secret):
    host = tree(**{MAIN: before})
    (main,) = (state for state in Msmtp(host).desired(service(**form), "default", Observed({})) if state.path == MAIN)
    assert main.secret == secret
    assert (main.mode == 0o644) == (form == {})


# -- render, read back -----------------------------------------------------------------------------------------------

PRINTABLE = st.characters(exclude_categories=["Cs", "Cc"])
NASTY = st.text(PRINTABLE | st.sampled_from(" \"'\\#$`%*?[]\t"), min_size=1, max_size=60)
LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
DOMAIN = st.lists(LABEL, min_size=1, max_size=4).map(".".join).filter(lambda name: not name.replace(".", "").isdigit())
ADDRESS = st.builds("{}@{}".format, st.from_regex(r"[A-Za-z0-9!#$&'+/=^_`{|}~-]{1,20}", fullmatch=True), DOMAIN)


@st.composite
def services(draw, name: str = "default") -> Service:
    options = {
        "name": name,
        "enabled": draw(st.booleans()),
        "host": draw(DOMAIN | st.ip_addresses().map(str)),
        "port": draw(st.integers(1, 65535)),
        "security": draw(st.sampled_from(["none", "starttls", "tls"])),
        "validate_certs": draw(st.booleans()),
        "allow_cleartext_auth": True,
        "ca_file": draw(st.just("") | NASTY.map(lambda text: "/" + text.replace("\t", "x"))),
        "timeout": draw(st.integers(1, 3600)),
        "from_address": draw(st.just("") | ADDRESS),
    }
    if not options["enabled"] and draw(st.booleans()):
        options["host"] = ""
    if draw(st.booleans()):
        password = draw(NASTY | st.text(PRINTABLE, min_size=400, max_size=520))
        options.update(auth_type="password", username=draw(NASTY).replace("\t", "x"), password=password)
    if not options["from_address"] and draw(st.booleans()):
        options["senders"] = draw(st.lists(ADDRESS | DOMAIN, min_size=1, max_size=4, unique_by=str.lower))
    return Service.from_options(options)


@given(services())
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_back_and_needs_no_second_run(wanted):
    host = FakeHost({}, live=False)
    assert problems_of(host, wanted) == []
    deploy(host, wanted)
    backend = Msmtp(host)
    whole = {field: getattr(wanted, field) for field in backend.capabilities.fields}
    assert backend.read(wanted.name).form == {**whole, "senders": msmtp_file.canonical(wanted.senders)}
    assert plan_of(host, wanted).empty
    assert all(len(line) <= msmtp_file.LONGEST_LINE for line in host.files[MAIN].content.split(b"\n"))


@given(services("one"), services("two"), st.binary(max_size=200), st.sampled_from([0o600, 0o644]))
@settings(max_examples=40, deadline=None)
def test_two_services_leave_each_other_alone_and_give_back_what_was_there(first, second, content, mode):
    original = Snapshot(content, mode, "root", "root")
    host = FakeHost({MAIN: original}, live=False)
    deploy(host, first, "one")
    if list(Msmtp(host).problems(second)):
        return  # both want the mail of all other senders, or they share one
    deploy(host, second, "two")
    assert plan_of(host, first).empty
    assert plan_of(host, second).empty
    deploy(host, None, "one")
    assert plan_of(host, second).empty
    deploy(host, None, "two")
    assert host.files == {MAIN: original}


LINES = st.sampled_from(
    [
        *("# BEGIN fleetmail.smtp default\n", "# END fleetmail.smtp default\n", "# BEGIN fleetmail.smtp b\n"),
        *("# END fleetmail.smtp b\n", "account b\n", "account default\n", "account b/1 : b\n", "account a : b,,\n"),
        *("from x@y\n", "from *\n", "password\n", 'password "\n', "passwordeval cat /etc/msmtprc.b.a\n", "port x\n"),
        *("account\n", "account :\n", "defaults x\n", "tls maybe\n", "timeout -1\n", "\x00\n", "auth nonsense\n"),
    ]
)


@given(st.lists(LINES | st.text(max_size=9), max_size=12).map("".join), services("b"))
@settings(max_examples=80, deadline=None)
def test_whatever_stands_in_the_file_is_read_and_replaced(text, wanted):
    host = FakeHost({MAIN: text}, live=False)
    deploy(host, wanted, "b")
    assert plan_of(host, wanted).empty
    deploy(host, None, "b")
    assert not Msmtp(host).read("b").managed


def test_an_ordinary_user_prepares_a_tree_of_his_own(tmp_path: Path):
    """As in the demo: the tree's own passwd(5) says that its files are root's."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(f"root:x:{os.getuid()}:{os.getgid()}::/root:/bin/sh\n")
    (tmp_path / "etc/group").write_text(f"root:x:{os.getgid()}:\n")
    options = {**RELAY, **LOGIN, "backend": "msmtp"}
    result = enforce(options, PosixHost(str(tmp_path)), check=False)
    assert (result.get("msg"), result["changed"]) == (None, True)
    assert stat.S_IMODE((tmp_path / "etc/msmtprc").stat().st_mode) == 0o600
    assert not enforce(options, PosixHost(str(tmp_path)), check=False)["changed"]


def test_what_goes_is_not_shown(tmp_path: Path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(f"root:x:{os.getuid()}:{os.getgid()}::/root:/bin/sh\n")
    (tmp_path / "etc/group").write_text(f"root:x:{os.getgid()}:\n")
    (tmp_path / "etc/msmtprc").write_text('account default\nhost xy\n#password "c4n"\nc4n again\n')
    there = {**RELAY, **LOGIN, "password": "p3w", "backend": "msmtp"}
    results = [
        enforce({**there, **more}, PosixHost(str(tmp_path)), check=check)
        for more in ({}, {"password": "x" * 600}, {"state": "absent"})
        for check in (True, False)
    ]
    assert all(result["changed"] for result in results)
    shown = str(results)
    for secret in ("c4n", "p3w", base64.b64encode(b'#password "c4n').decode()[:-2]):
        assert secret not in shown


def test_an_absent_file_is_absent_again():
    host = tree()
    deploy(host, service(**LOGIN))
    deploy(host, None)
    assert host.files == {}


def test_absent_touches_nothing_where_nothing_is_ours():
    host = tree(**{MAIN: BY_HAND})
    deploy(host, None)
    assert host.files == {MAIN: Snapshot(BY_HAND.encode(), 0o644, "root", "root")}
    backend = Msmtp(host)
    assert compare(None, backend.read("default"), backend.desired(None, "default", backend.read("default")), host).empty


def test_a_killed_removal_leaves_no_record_behind():
    host = tree(**{MAIN: BY_HAND})
    deploy(host, service())
    host.put(MAIN, BY_HAND)  # the original was back, and then the run was killed
    deploy(host, None)
    assert list(host.files) == [MAIN]


def test_the_first_original_is_kept_when_the_file_is_deleted_by_hand():
    host = tree(**{MAIN: BY_HAND})
    deploy(host, service())
    host.remove(MAIN)
    deploy(host, service())
    deploy(host, None)
    assert host.text(MAIN) == BY_HAND


# -- what is written, word for word ----------------------------------------------------------------------------------


def test_the_file_of_a_plain_service():
    host = tree()
    deploy(host, service(**LOGIN, from_address="hosts@example.com", ca_file="/etc/ssl/own ca.pem", timeout=20))
    assert host.text(MAIN) == (
        "# Managed by fleetmail.smtp: its next run undoes what is changed here by hand.\n"
        "# BEGIN fleetmail.smtp default\n"
        "account default\nhost relay.example.com\nport 587\ntimeout 20\n"
        'tls on\ntls_starttls on\ntls_certcheck on\ntls_trust_file "/etc/ssl/own ca.pem"\n'
        'auth on\nuser "fleet"\npassword "s3cret"\n'
        "allow_from_override off\nset_from_header on\nfrom hosts@example.com\n"
        'syslog "LOG_MAIL"\n'
        "# END fleetmail.smtp default\n"
    )


def test_senders_are_ordered_from_particular_to_general_over_all_services():
    host = tree()
    deploy(host, service(name="rest"), "rest")
    deploy(host, service(name="a", senders=["x.org", "ann@y.org"]), "a")
    deploy(host, service(name="b", senders=["y.org", "bob+x@x.org", "bob@x.org"]), "b")
    lines = host.text(MAIN).splitlines()
    chosen = [
        (account.split()[1], account.split()[3], pattern.split()[1])
        for account, pattern in pairwise(lines)
        if account.startswith("account") and "/" in account
    ]
    assert chosen == [
        ("b/1", "b", "bob+x@x.org"),
        ("a/1", "a", "ann@y.org"),
        ("b/2", "b", "bob@x.org"),
        ("a/2", "a", "*+*@[xX].[oO][rR][gG]"),
        ("a/3", "a", "*@[xX].[oO][rR][gG]"),
        ("b/3", "b", "*+*@[yY].[oO][rR][gG]"),
        ("b/4", "b", "*@[yY].[oO][rR][gG]"),
    ]
    assert lines.index("account rest") > lines.index("account b/4 : b")
    assert lines[lines.index("account rest") :].count("account default : rest") == 1


def test_a_service_named_default_with_senders_does_not_take_all_other_mail():
    host = tree()
    deploy(host, service(senders=["example.org"]))
    assert "default" not in [account.name for account in msmtp_file.accounts(host.text(MAIN))]


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ({"enabled": False}, ['socket "/dev/null/mail is disabled (service default)"', "host relay.example.com"]),
        (
            {"name": "x", "from_address": "a@example.com"},
            ["account default : x\nallow_from_override off\n# END fleetmail.smtp x"],
        ),
        (
            {"name": "x", "from_address": "a@example.com", "senders": ["a@example.com"]},
            ["account x/1 : x\nfrom a@example.com\nallow_from_override off\n"],
        ),
        ({"enabled": False, "host": None}, ['socket "/dev/null/mail is disabled (service default)"', NO_HOST]),
        ({"security": "tls", "port": 465}, ["tls on", "tls_starttls off"]),
        ({"security": "none", "port": 25}, ["tls off"]),
        ({"security": "none", "allow_cleartext_auth": True, **LOGIN}, ["tls off", "auth plain"]),
        ({"validate_certs": False}, ["tls_certcheck off"]),
        ({"auth_type": "none"}, ["auth off", "from %U@%C"]),
    ],
)  # fmt: skip
def test_the_form_in_msmtps_words(options, lines):
    host = tree()
    deploy(host, service(**options), options.get("name", "default"))
    assert [line for line in lines if f"\n{line}" not in host.text(MAIN)] == []


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ({"auth": "login"}, ["auth login"]),
        ({"syslog": "off"}, []),
        ({"logfile": "/var/log/msmtp.log", "aliases": "/etc/aliases"}, ['logfile "/var/log/msmtp.log"']),
        ({"domain": "%H"}, ['domain "%H"']),
        ({"default_from": "%U@example.com"}, ["from %U@example.com"]),
    ],
)
def test_the_backends_own_options(options, lines):
    host = tree()
    assert list(Msmtp(host, options).option_problems()) == []
    deploy(host, service(**LOGIN), **options)
    written = host.text(MAIN).splitlines()
    assert set(lines) <= set(written)
    assert ('syslog "LOG_MAIL"' in written) == ("syslog" not in options)


# -- passwords that fit no line --------------------------------------------------------------------------------------


def secret_files(host: FakeHost) -> list[str]:
    return sorted(path for path in host.files if path.startswith(MAIN + "."))


def test_a_password_of_488_bytes_fits_and_one_more_has_a_file_of_its_own():
    host = tree()
    deploy(host, service(**{**LOGIN, "password": "ü" * 244}))
    assert secret_files(host) == []
    deploy(host, service(**{**LOGIN, "password": "ü" * 244 + "x"}))
    assert secret_files(host) == ["/etc/msmtprc.default.a"]
    assert host.files["/etc/msmtprc.default.a"] == Snapshot(("ü" * 244 + "x\n").encode(), 0o600, "root", "root")
    assert "passwordeval cat /etc/msmtprc.default.a" in host.text(MAIN).splitlines()


def test_another_long_password_goes_to_the_other_file_so_that_one_rename_switches_both():
    host = tree()
    first, second = (service(**{**LOGIN, "password": letter * 1500}) for letter in "xy")
    deploy(host, first)
    backend = Msmtp(host)
    states = backend.desired(second, "default", backend.read("default"))
    assert [(state.path, state.content is None) for state in states] == [
        ("/etc/msmtprc.default.a", True),
        ("/etc/msmtprc.default.b", False),
        (MAIN, False),
    ]
    apply(host, states)
    assert secret_files(host) == ["/etc/msmtprc.default.b"]
    deploy(host, service(**LOGIN))
    assert secret_files(host) == []


def test_a_lost_or_changed_password_file_is_drift():
    host = tree()
    wanted = service(**{**LOGIN, "password": "x" * 1500})
    deploy(host, wanted)
    host.put("/etc/msmtprc.default.a", "other\n", 0o600)
    assert [drift.field for drift in plan_of(host, wanted).drift] == ["password"]
    host.remove("/etc/msmtprc.default.a")
    assert plan_of(host, wanted).drift[0] == ("password", "(unset)", "(set)")
    deploy(host, wanted)
    assert plan_of(host, wanted).empty


# -- owner, group, mode ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("groups", "form", "options", "expected"),
    [
        ({"root"}, LOGIN, {}, (0o600, "root", "root")),
        ({"root", "msmtp"}, LOGIN, {}, (0o640, "root", "msmtp")),
        ({"root", "msmtp"}, {}, {}, (0o644, "root", "root")),
        ({"root", "mail"}, LOGIN, {"group": "mail"}, (0o640, "root", "mail")),
        ({"root", "msmtp"}, LOGIN, {"mode": "0644"}, (0o644, "root", "msmtp")),
        ({"root", "msmtp"}, LOGIN, {"owner": "www", "group": "root", "mode": "400"}, (0o400, "www", "root")),
    ],
)
def test_permissions_follow_the_secret_the_group_and_the_options(groups, form, options, expected):
    host = tree()
    host.users.add("www")
    host.groups = groups
    deploy(host, service(**form), **options)
    assert host.files[MAIN][1:] == expected


@pytest.mark.parametrize(
    ("snapshot", "field"),
    [((0o644, "root", "root"), "mode of /etc/msmtprc"), ((0o600, "www", "root"), "owner of /etc/msmtprc")],
)
def test_a_wide_mode_and_a_wrong_owner_are_drift(snapshot, field):
    host = tree()
    deploy(host, service(**LOGIN))
    host.files[MAIN] = Snapshot(host.files[MAIN].content, *snapshot)
    assert [drift.field for drift in plan_of(host, service(**LOGIN)).drift] == [field]


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"queue": "yes"}, "backend_options.queue"),
        ({"mode": 416}, "backend_options.mode"),
        ({"mode": "0999"}, "backend_options.mode"),
        ({"mode": "0044"}, "backend_options.mode"),
        ({"syslog": "LOG_KERN"}, "backend_options.syslog"),
        ({"logfile": "msmtp.log"}, "backend_options.logfile"),
        ({"logfile": "/a\npassword x"}, "backend_options.logfile"),
        ({"auth": "on\nuser x"}, "backend_options.auth"),
        ({"domain": "a b"}, "backend_options.domain"),
        ({"group": "nobody-knows"}, "backend_options.group"),
        ({"group": "0"}, "backend_options.group"),
        ({"owner": "1000"}, "backend_options.owner"),
        ({"owner": "nobody-knows"}, "backend_options.owner"),
    ],
)
def test_wrong_backend_options_are_named(options, option):
    host = tree()
    host.programs["msmtp"] = Completed(0, "", "")
    assert [problem.option for problem in Msmtp(host, options).option_problems()] == [option]


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({**LOGIN, "username": "u" * 493}, "username"),
        ({"ca_file": "/" + "x" * 482}, "ca_file"),
        ({"from_address": "%U@example.com"}, "from_address"),
        ({"senders": ["%Hx@example.com"]}, "senders"),
        ({"senders": ["a*b@example.com"]}, "senders"),
        ({"senders": [".".join(["x" * 60] * 3)]}, "senders"),
        ({"from_address": "a@example.com", "senders": ["example.com"]}, "from_address"),
        ({"from_address": "a@example.com", "senders": ["a@example.com", "b@example.com"]}, "from_address"),
    ],
)
def test_what_msmtp_cannot_express_is_refused_by_option(options, option):
    assert [named for named, _problem in problems_of(tree(), service(**options))] == [option]


@pytest.mark.parametrize(
    "options",
    [
        {**LOGIN, "username": "u" * 492, "password": " " + '"\\#$`' * 300 + "\t"},
        {"ca_file": "/" + "x" * 481},
        {"from_address": "a*%x?@example.com"},
        {"from_address": "A@example.com", "senders": ["a@example.com"]},
        {"senders": ["@example.com", "b@example.com", "x" * 61 + "." + "x" * 60]},
    ],
)
def test_what_just_fits_is_not_refused(options):
    assert problems_of(tree(), service(**options)) == []


def test_a_second_service_for_all_other_mail_is_refused_naming_the_first():
    host = tree()
    deploy(host, service(name="main"), "main")
    (option, problem) = problems_of(host, service(name="other"))[0]
    assert (option, "main" in problem) == ("senders", True)
    assert problems_of(host, service(name="main")) == []
    assert problems_of(host, service(name="other", senders=["x@example.com"])) == []


def test_a_sender_belongs_to_one_service():
    host = tree()
    deploy(host, service(name="one", senders=["example.com", "a@example.org"]), "one")
    (option, problem) = problems_of(host, service(name="two", senders=["@Example.com"]))[0]
    assert (option, problem) == ("senders", "example.com already goes through the service one")


# -- what holds ------------------------------------------------------------------------------------------------------


def live(main: str, answer: object) -> FakeHost:
    host = FakeHost({MAIN: main}, live=True)
    host.programs.update(msmtp=answer, sendmail=Completed(0, "", ""))
    host.put("/usr/bin/msmtp", b"", 0o755)
    return host


def test_a_bare_host_has_no_form_and_a_full_plan():
    host = FakeHost()
    assert Msmtp(host).read("default").form == {}
    drift = plan_of(host, service(**LOGIN)).drift
    assert {one.field for one in drift} >= {"host", "port", "security", "username", "password"}


def test_the_effective_state_is_what_msmtp_says():
    host = live(BY_HAND, Completed(0, PRETENDED.replace("tls = on", "tls = off"), ""))
    observed = Msmtp(host).read("default")
    assert not observed.managed
    assert observed.form == {
        "enabled": True, "host": "mail.isp.example", "port": 2525, "security": "none", "auth_type": "password",
        "username": "me", "password": Secret('  "quoted" '), "ca_file": "", "validate_certs": True,
        "from_address": "", "senders": (), "timeout": 15,
    }  # fmt: skip
    (call,) = host.calls
    assert call.argv == ["msmtp", "--pretend", "-a", "default", "-f", "nobody@localhost", "--passwordeval="]
    assert call.environment["HOME"] == "/nonexistent"


def test_a_file_that_msmtp_refuses_has_no_effect_and_its_words_stay_hidden():
    said = Completed(78, "", "msmtp: /etc/msmtprc: line 14: unknown command s3cret-tail\n")
    host = live("", Completed(0, PRETENDED, ""))
    deploy(host, service(**LOGIN))
    host.put(MAIN, host.text(MAIN) + "s3cret-tail of it\n")
    host.programs["msmtp"] = said
    observed = Msmtp(host).read("default")
    assert observed.form == {}
    assert "msmtp refuses /etc/msmtprc: line 14: unknown command" in observed.warnings
    assert not any("s3cret" in warning for warning in observed.warnings)
    assert observed.secrets == ["s3cret"]


def test_without_the_program_the_file_is_read():
    host = FakeHost({MAIN: BY_HAND})
    assert Msmtp(host).read("default").form["port"] == 2525


@pytest.mark.parametrize(
    ("settings", "form"),
    [
        ("socket /run/other.sock", {"host": "/run/other.sock", "enabled": True}),
        ("auth off", {"auth_type": "none", "username": "", "password": None}),
        ("auth xoauth2", {"auth_type": "oauth"}),
        ("from x@example.com\nallow_from_override off", {"from_address": ""}),
        ("from x@example.com\nallow_from_override off\nset_from_header on", {"from_address": "x@example.com"}),
        ("timeout off", {"timeout": 0}),
        ("passwordeval gpg -d /etc/pw", {"password": None}),
        ("tls_trust_file", {"ca_file": ""}),
    ],
)
def test_settings_of_others_in_the_forms_words(settings, form):
    host = tree(**{MAIN: f"{BY_HAND}\n{settings}\n"})
    assert form.items() <= Msmtp(host).read("default").form.items()


def test_files_of_users_are_reported():
    passwd = (
        "root:x:0:0::/srv/root:/bin/sh\ndaemon:x:1:1::/usr/sbin:\nbin:x:2:2::/nonexistent:\n"
        "ann:x:1000:1000::/home/ann:/bin/sh\nmany::fields\nodd:x:3:3::/:\n"
    )
    files = ("/srv/root/.msmtprc", "/srv/root/.config/msmtp/config", "/home/ann/.config/msmtp/config")
    host = tree(**{"/etc/passwd": passwd, **dict.fromkeys(files, "")})
    about = [warning.split()[0] for warning in Msmtp(host).read("default").warnings]
    assert about == ["/srv/root/.msmtprc", "/home/ann/.config/msmtp/config"]


def test_accounts_that_a_hand_wrote_are_told_before_they_go():
    text = "defaults\ntls on\naccount gmail\nhost a.test\naccount default\nhost b.test\n"
    (told,) = Msmtp(FakeHost({MAIN: text}, live=False)).read("default").warnings
    assert "gmail" in told
    assert "default" not in told.split(MAIN)[0]


# -- judging and sending ---------------------------------------------------------------------------------------------


def staged(host: FakeHost, wanted: Service) -> dict[str, str]:
    backend = Msmtp(host)
    states = backend.desired(wanted, wanted.name, backend.read(wanted.name))
    main = states[-1]
    return {MAIN: host.stage(MAIN, main.content, main.mode, main.owner, main.group)}


def test_a_refused_candidate_fails_without_its_words():
    answer = Completed(78, "", "msmtp: /etc/.msmtprc.fleetmail-new: line 8: invalid argument s3cret for command port\n")
    host = live("", answer)
    with pytest.raises(StepFailed) as failed:
        Msmtp(host).check(staged(host, service(**LOGIN)))
    assert failed.value.step == "check"
    assert str(failed.value) == "check: msmtp refuses the new /etc/msmtprc: line 8: invalid argument"


def test_a_broken_file_that_is_replaced_is_not_held_against_the_new_one():
    host = live("nonsense", Completed(78, "", "msmtp: /etc/msmtprc: line 1: unknown command nonsense\n"))
    Msmtp(host).check(staged(host, service()))


def test_each_account_is_judged_but_not_each_way_to_it():
    host = live("", Completed(0, PRETENDED, ""))
    files = staged(host, service(name="x", senders=["a@example.com", "example.com"]))
    host.calls.clear()
    assert Msmtp(host).check(files) == []
    assert [call.argv for call in host.calls] == [
        [
            "msmtp",
            "-C",
            "/etc/.msmtprc.fleetmail-new",
            "--pretend",
            "-a",
            "x",
            "-f",
            "nobody@localhost",
            "--passwordeval=",
        ]
    ]


def test_what_comes_back_is_not_judged():
    host = live("", Completed(78, "", "msmtp: x: line 1: unknown command\n"))
    host.put("/etc/.msmtprc.fleetmail-new", "nonsense")
    assert Msmtp(host).check({MAIN: "/etc/.msmtprc.fleetmail-new"}) == []


def test_a_checker_that_cannot_run_in_a_tree_is_told():
    host = tree()
    host.programs["msmtp"] = Completed(125, "", "chroot: cannot change root directory: Operation not permitted")
    assert "our own rules" in Msmtp(host).check(staged(host, service()))[0]


@pytest.mark.parametrize(
    ("program_mode", "form", "told"),
    [
        (0o755, LOGIN, True),
        (0o2755, LOGIN, False),
        (0o2755, {**LOGIN, "password": "x" * 600}, True),
        (0o755, {}, False),
    ],
)
def test_who_cannot_send_is_told(program_mode, form, told):
    host = live("", Completed(0, PRETENDED, ""))
    host.put("/usr/bin/msmtp", b"", program_mode)
    warnings = Msmtp(host).check(staged(host, service(**form)))
    assert any("can send" in warning for warning in warnings) == told


def test_a_missing_sendmail_is_told():
    host = live("", Completed(0, PRETENDED, ""))
    del host.programs["sendmail"]
    assert any("msmtp-mta" in warning for warning in Msmtp(host).check(staged(host, service())))


LOGGED = "Nov 23 19:01:29 host=127.0.0.1 tls=on auth=on user=u from=c@d recipients=r@x "


@pytest.mark.parametrize(
    ("done", "submission"),
    [
        (
            (0, LOGGED + "mailsize=118 smtpstatus=250 smtpmsg='250 2.0.0 queued as XYZ123' exitcode=EX_OK\n", ""),
            (True, "250 2.0.0 queued as XYZ123", "XYZ123"),
        ),
        (
            (
                65,
                LOGGED + "smtpstatus=550 smtpmsg='550 5.1.1 don't know 'r'' "
                "errormsg='recipient address r@x not accepted by the server' exitcode=EX_DATAERR\n",
                "msmtp: could not send mail",
            ),
            (False, "550 5.1.1 don't know 'r'", ""),
        ),
        (
            (69, LOGGED + "errormsg='cannot use a secure authentication method' exitcode=EX_UNAVAILABLE\n", "msmtp: x"),
            (False, "cannot use a secure authentication method", ""),
        ),
        (
            (78, "", "msmtp: account default not found in /etc/msmtprc\n"),
            (False, "account default not found in /etc/msmtprc", ""),
        ),
        ((124, "", "msmtp did not end within 5 s"), (False, "msmtp did not end within 5 s", "")),
        ((78, "", ""), (False, "exit code 78", "")),
    ],
)
def test_the_relays_reply_is_taken_from_the_log_line(done, submission):
    def sendmail(call: Call) -> Completed:
        assert call.argv == ["msmtp", "--logfile=-", "-f", "a@b.example", "--", "r@x.example", "-v"]
        assert call.data == b"Subject: x\n\n"
        return Completed(*done)

    host = live("", sendmail)
    assert Msmtp(host).submit(b"Subject: x\n\n", "a@b.example", ["r@x.example", "-v"], 5) == submission


def test_a_changed_name_is_another_service():
    host = tree()
    deploy(host, service(name="a", senders=["a@example.com"]), "a")
    renamed = service(senders=["b@example.com"])._replace(name="a.b")
    deploy(host, renamed, "a.b")
    assert Msmtp(host).read("a").form["senders"] == ("a@example.com",)
    assert Msmtp(host).read("a.b").form["senders"] == ("b@example.com",)


# -- access tokens ---------------------------------------------------------------------------------------------------

OAUTH = {
    "auth_type": "oauth",
    "username": "fleet@example.com",
    "client_id": "c",
    "oauth_provider": "google",
}


@pytest.mark.parametrize(
    ("options", "how", "refused"),
    [
        (OAUTH, {}, None),
        (OAUTH, {"auth": "oauthbearer"}, None),
        (OAUTH, {"auth": "plain"}, "backend_options.auth"),
        (LOGIN, {"auth": "xoauth2"}, "backend_options.auth"),
        ({**OAUTH, "username": "a=b@example.com"}, {"auth": "oauthbearer"}, "username"),
        ({**OAUTH, "username": "a=b@example.com"}, {}, None),
    ],
)
def test_mechanisms_go_with_what_they_carry(options, how, refused):
    found = [problem.option for problem in Msmtp(tree(), how).problems(service(**options))]
    assert found == ([refused] if refused else [])


@pytest.mark.parametrize("mechanism", ["xoauth2", "oauthbearer"])
def test_a_token_is_read_from_its_file_and_the_configuration_is_no_secret(mechanism):
    host = tree()
    backend = Msmtp(host, {"auth": mechanism})
    apply(host, backend.desired(service(**OAUTH), "default", backend.read("default")))
    assert f"auth {mechanism}\n" in host.text(MAIN)
    assert host.files[MAIN].mode == 0o644
    observed = backend.read("default")
    assert observed.secrets == []
    assert (observed.form["auth_type"], observed.form["username"]) == ("oauth", "fleet@example.com")
    assert backend.bearer_mechanisms() == (mechanism.upper(),)


def test_who_may_read_the_token_is_who_may_read_a_password():
    host = tree()
    host.groups.add("msmtp")
    assert Msmtp(host).consumer(service(**OAUTH))[4:7] == ("root", "msmtp", 0o640)
    chosen = Msmtp(host, {"owner": "www-data", "group": "mailers", "mode": "0440"})
    assert chosen.consumer(service(**OAUTH))[4:7] == ("www-data", "mailers", 0o440)
