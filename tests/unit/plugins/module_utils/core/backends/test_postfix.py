# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.fake_host import Call, FakeHost, apply

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends import postfix_running
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends.postfix import (
    ASKED,
    DEFAULTS,
    HELD,
    MAIN,
    MASTER,
    Postfix,
)
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends.postfix_files import FILES, main_cf_values
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.errors import StepFailed
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.host import Completed
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.plan import Plan, compare
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.service import Service

MASTER_CF = (
    "smtp inet n - y - - smtpd\nsmtp unix - - y - - smtp\nrelay unix - - y - - smtp\nretry unix - - y - - error\n"
)
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
PRINTABLE = st.characters(exclude_categories=["C"]) | st.sampled_from("\t \u00a0#\"'\\$:;{}%`^")
NASTY = st.text(PRINTABLE, min_size=1, max_size=40)
LABEL = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=9)
DOMAIN = st.lists(LABEL, min_size=2, max_size=3).map(".".join).filter(lambda name: not name[-1].isdigit())
ADDRESS = st.builds("{}@{}".format, st.text(string.ascii_lowercase + "!#%&'*+/?^_`|~-", min_size=1, max_size=9), DOMAIN)
FILE = st.lists(
    st.sampled_from(
        [
            *("relayhost = [old]\n", "relayhost =\n  [older]\n", "# comment\n", "\n", "smtp_sasl_auth_enable=yes\n"),
            *("smtp_sasl_password_maps = hash:/etc/postfix/sasl\n", "defer_transports = smtp uucp\n", "junk\n"),
            *("sender_canonical_maps = static:a@b.example\n", "  stray\n", "smtp_fallback_relay = x\n", "a = b"),
            *("smtp_tls_security_level = may\r\n", "tls_append_default_CA = yes\n", "transport_maps = hash:/x\n"),
            *("smtp_connect_timeout = nonsense\n", "default_transport = retry:x y\n", "inet_protocols = all\n"),
        ]
    )
    | st.text(max_size=20),
    max_size=8,
).map("".join).filter(lambda text: "fleetmail.smtp" not in text)  # no mark of ours before us  # fmt: skip


@st.composite
def services(draw: st.DrawFn, name: str = "default", by_senders: bool = False) -> Service:
    options: dict[str, Any] = {
        "name": name,
        "enabled": draw(st.booleans()),
        "host": draw(DOMAIN | st.ip_addresses().map(str)),
        "port": draw(st.integers(1, 65535)),
        "security": draw(st.sampled_from(["none", "starttls", "tls"])),
        "validate_certs": draw(st.booleans()),
        "allow_cleartext_auth": True,
        "ca_file": draw(st.sampled_from(["", BUNDLE, "/etc/own#ca.pem", "/etc/ä;'\"\\ca"])),
        "timeout": draw(st.integers(1, 3600)),
    }
    if draw(st.booleans()):
        username = draw(NASTY).replace(":", ";").replace("\t", "x").strip(" ") or "u"
        password = draw(NASTY | st.text(PRINTABLE, min_size=1490, max_size=1500)).rstrip(" \t") or "p"
        options.update(auth_type="password", username=username, password=password)
    if by_senders:
        options["senders"] = draw(st.lists(ADDRESS, min_size=1, max_size=4, unique=True))
    else:
        options["from_address"] = draw(st.just("") | ADDRESS)
    return Service.from_options(options)


def tree(main: str = "", master: str = MASTER_CF) -> FakeHost:
    """An image with Postfix' files and without Postfix."""
    return FakeHost({MAIN: main or "# main.cf\n", MASTER: master, BUNDLE: "certificates"}, live=False)


def deploy(host: FakeHost, service: Service | None, name: str = "default", **options: Any) -> None:
    backend = Postfix(host, options)
    apply(host, backend.desired(service, name, backend.read(name)))


def plan_of(host: FakeHost, service: Service, **options: Any) -> Plan:
    backend = Postfix(host, options)
    observed = backend.read(service.name)
    files = backend.desired(service, service.name, observed)
    return compare(backend.wanted_form(service), observed, files, host)


def service(**options: Any) -> Service:
    return Service.from_options({"host": "relay.example.com", "security": "starttls", **options})


# -- what is written is read back --------------------------------------------------------------------------------------


@given(services(), FILE, st.booleans())
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_back_whatever_was_there(wanted: Service, main: str, null_client: bool) -> None:
    host = tree(main)
    before = dict(host.files)
    backend = Postfix(host)
    assert list(backend.problems(wanted)) == []
    deploy(host, wanted, null_client=null_client)
    form = backend.read("default").form
    assert {key: form[key] for key in backend.wanted_form(wanted)} == backend.wanted_form(wanted)
    plan = plan_of(host, wanted, null_client=null_client)
    assert plan.empty, plan
    for path, file in host.files.items():
        assert file.mode == (0o600 if path.startswith(FILES) else 0o644)
    deploy(host, None)
    assert host.files == before


@given(services("one", by_senders=True), services("two", by_senders=True), services(), FILE, st.permutations([0, 1, 2]))
@settings(max_examples=60, deadline=None)
def test_services_leave_each_other_alone_and_give_back_what_was_there(
    one: Service, two: Service, rest: Service, main: str, order: list[int]
) -> None:
    host = tree(main)
    before = dict(host.files)
    there = []
    for wanted in (one, two, rest):
        if not list(Postfix(host).problems(wanted)):
            deploy(host, wanted, wanted.name)
            there.append(wanted)
    for wanted in there:
        assert plan_of(host, wanted).empty
    for number in order:
        name = ("one", "two", "default")[number]
        deploy(host, None, name)
        there = [wanted for wanted in there if wanted.name != name]
        assert not Postfix(host).read(name).managed
        for wanted in there:
            assert plan_of(host, wanted).empty
    assert host.files == before


@given(services(), services(), FILE)
@settings(max_examples=60, deadline=None)
def test_a_change_leaves_nothing_of_the_old_definition(first: Service, second: Service, main: str) -> None:
    direct, changed = tree(main), tree(main)
    deploy(direct, second)
    for wanted in (first, second):
        deploy(changed, wanted)
    slots = [{path for path in host.files if path.startswith(FILES)} for host in (direct, changed)]
    assert len(slots[0]) == len(slots[1])
    assert changed.text(MAIN).replace("default.b", "default.a") == direct.text(MAIN)
    deploy(changed, None)
    assert changed.files == tree(main).files


@given(FILE, st.binary(max_size=80), st.binary(max_size=80))
@settings(deadline=None)
def test_any_files_are_read_and_nothing_raises(main: str, other: bytes, routes: bytes) -> None:
    host = tree(main + f"\nsender_dependent_default_transport_maps = hash:{FILES}-shared.a\n")
    host.put(MASTER, other)
    host.put(FILES + "-shared.a", routes)
    for name in ("default", "one"):
        observed = Postfix(host).read(name)
        Postfix(host).desired(service(name=name), name, observed)
        list(Postfix(host).own_problems(service(name=name, senders=["a@example.com"])))


# -- reading -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("main", "expected"),
    [
        ("", {"enabled": True, "host": "", "port": 25, "security": "none", "validate_certs": True, "timeout": 30}),
        ("relayhost = [a.example]:587", {"host": "a.example", "port": 587}),
        ("relayhost = a.example", {"host": "MX of a.example"}),
        ("smtp_tls_security_level = may", {"security": "opportunistic", "validate_certs": False}),
        ("smtp_tls_security_level = dane", {"security": "opportunistic"}),
        ("smtp_tls_security_level = encrypt", {"security": "starttls", "validate_certs": False}),
        ("smtp_tls_security_level = verify\nsmtp_tls_wrappermode = yes", {"security": "tls", "validate_certs": True}),
        ("smtp_tls_CAfile = /a.pem", {"ca_file": "/a.pem"}),
        ("smtp_tls_CAfile = " + BUNDLE, {"ca_file": ""}),
        ("smtp_tls_CApath = /etc/ssl/certs", {"ca_file": ""}),
        ("smtp_tls_CApath = /own", {"ca_file": "/own"}),
        ("smtp_tls_CAfile = /a.pem\nsmtp_tls_CApath = /etc/ssl/certs", {"ca_file": "/a.pem /etc/ssl/certs"}),
        ("# neither", {"ca_file": None}),
        ("sender_canonical_maps = static:a@b.example", {"from_address": "a@b.example"}),
        ("sender_canonical_maps = hash:/x, static:a@b.example hash:/y", {"from_address": "a@b.example"}),
        ("sender_canonical_maps = static:a@b\nsender_canonical_classes = envelope_sender", {"from_address": ""}),
        ("default_transport = retry:no", {"enabled": False}),
        ("defer_transports = uucp,smtp", {"enabled": False}),
        ("defer_transports = uucp", {"enabled": True}),
        ("smtp_connect_timeout = 2m", {"timeout": 120}),
        ("smtp_connect_timeout = long", {"timeout": None}),
        ("smtp_sasl_auth_enable = yes", {"auth_type": "password", "username": "", "password": None}),
    ],
)
def test_a_postfix_configured_by_hand_is_read_in_the_forms_words(main: str, expected: dict[str, Any]) -> None:
    host = tree(main + "\n")
    form = Postfix(host).read("default").form
    assert set(form) == set(Postfix.capabilities.fields)
    assert {key: form[key] for key in expected} == expected


@pytest.mark.parametrize("key", ["[relay.example.com]:587", "relay.example.com"])
def test_credentials_by_hand_are_found_and_masked(key: str) -> None:
    host = tree(
        "relayhost = [relay.example.com]:587\nsmtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = hash:/sasl\n"
    )
    host.put("/sasl", f"# mine\n{key}\tme:secret word  \n")
    observed = Postfix(host).read("default")
    assert observed.form["username"] == "me"
    assert observed.form["password"].reveal() == "secret word"
    assert observed.secrets == ["secret word"]
    assert not observed.managed


# -- where Postfix is there --------------------------------------------------------------------------------------------


def live(main: str = "", running: bool = True) -> FakeHost:
    """A host with a Postfix that says of itself what its main.cf says."""
    host = FakeHost({MAIN: main or "# main.cf\n", MASTER: MASTER_CF, BUNDLE: "certificates"})
    if running:
        host.put("/var/spool/postfix/pid/master.pid", " 17\n")
        host.put("/proc/17/comm", "master\n")

    def postconf(call: Call) -> Completed:
        values = {**dict.fromkeys(ASKED, ""), **DEFAULTS, **main_cf_values(host.text(MAIN))}
        return Completed(0, "".join(f"{key} = {values[key]}\n" for key in ASKED), "")

    def postmap(call: Call) -> Completed:
        rows = [line.split(" ", 1) for line in host.text(call.argv[-1].split(":", 1)[1]).splitlines() if line[0] != "#"]
        asked = call.data.decode().split("\n")
        return Completed(0, "".join(f"{key}\t{value}\n" for key, value in rows if key in asked), "")

    host.programs = {"postconf": postconf, "postmap": postmap, "postfix": Completed(0, "", "")}
    host.programs["postqueue"] = Completed(0, "", "")
    return host


def test_a_compliant_host_costs_two_programs() -> None:
    host = live()
    wanted = service(auth_type="password", username="u", password="secret")
    deploy(host, wanted)
    host.put(FILES + "default.a.db", b"", 0o600)
    host.calls.clear()
    assert plan_of(host, wanted).empty
    assert [call.argv[0] for call in host.calls] == ["postconf", "postmap"]
    assert not any("secret" in word for call in host.calls for word in call.argv)


def test_a_main_cf_that_postfix_refuses_is_named() -> None:
    host = live()
    host.programs["postconf"] = Completed(1, "", f"fatal: file {MASTER}: line 3: bad field count")
    with pytest.raises(StepFailed) as raised:
        Postfix(host).read("default")
    assert raised.value.problems[0].option == MASTER


def test_mail_that_could_meet_the_wrong_relay_meanwhile_does_not_bounce() -> None:
    host = live()
    first, second = service(auth_type="password", username="u", password="a"), service(host="other.example.com")
    deploy(host, first)
    backend = Postfix(host)
    observed = backend.read("default")
    (main,) = [state for state in backend.desired(second, "default", observed) if state.path == MAIN]
    assert b"soft_bounce = yes" in (main.transition or b"")
    assert b"soft_bounce" not in (main.content or b"")
    backend.settle(observed, second)
    assert backend.actions == ["postfix reload"]


@pytest.mark.parametrize(
    ("running", "wanted", "after", "actions"),
    [
        (True, service(), "", ["postfix reload"]),
        (True, None, "", ["postfix reload"]),
        (True, service(), "inet_interfaces = loopback-only\n", ["service postfix stop", "service postfix start"]),
        (False, service(), "", ["service postfix start"]),
        (False, None, "", []),
    ],
)
def test_activation(running: bool, wanted: Service | None, after: str, actions: list[str]) -> None:
    host = live(running=running)
    backend = Postfix(host)
    before = backend.read("default")
    host.put(MAIN, after or "# main.cf\n")
    backend.activate(before, wanted)
    assert backend.actions == actions


def test_a_roll_back_stops_and_starts() -> None:
    host = live()
    Postfix(host).restore(True)
    Postfix(host).restore(False)
    assert host.served == [("stop", "postfix"), ("start", "postfix"), ("stop", "postfix")]


# -- problems ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("main", "options", "option"),
    [
        ("", {"auth_type": "password", "username": "u:v", "password": "p"}, "username"),
        ("", {"auth_type": "password", "username": "u ", "password": "p"}, "username"),
        ("", {"auth_type": "password", "username": "u", "password": "p\t"}, "password"),
        ("", {"ca_file": "/a b"}, "ca_file"),
        ("", {"from_address": "a$b@example.com"}, "from_address"),
        ("", {"senders": ["a=b@example.com"]}, "senders"),
        ("", {"senders": ["a@example.com"], "from_address": "b@example.com"}, "from_address"),
        ("inet_protocols = ipv4\n", {"host": "2001:db8::1"}, "host"),
        ("inet_protocols = ipv6\n", {"host": "192.0.2.1"}, "host"),
        ("sender_dependent_default_transport_maps = hash:/x\n", {"senders": ["a@example.com"]}, "senders"),
        ("# BEGIN fleetmail.smtp other\nrelayhost = x\n# END fleetmail.smtp other\n", {}, "senders"),
    ],
)
def test_what_cannot_be_expressed_is_named_with_a_way_out(main: str, options: dict[str, Any], option: str) -> None:
    problems = list(Postfix(tree(main)).problems(service(**options)))
    assert [problem.option for problem in problems] == [option]
    assert problems[0].problem
    assert problems[0].hint


@pytest.mark.parametrize("password", ["a\u00a0", " a", "a:b", "#", "\u2028", "a" * 1500])
def test_passwords_that_postfix_carries(password: str) -> None:
    wanted = service(auth_type="password", username="u", password=password)
    assert list(Postfix(tree()).problems(wanted)) == []


def test_held_mail_needs_the_agent_that_holds_it() -> None:
    master = MASTER_CF.replace("retry ", "retired ")
    (problem,) = Postfix(tree(master=master)).problems(service(enabled=False))
    assert (problem.option, "retry" in problem.hint) == ("enabled", True)
    host = tree()
    deploy(host, service(enabled=False))
    assert main_cf_values(host.text(MAIN))["default_transport"] == HELD


# -- the log -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("Nov 23 host postfix/smtp[1]: fatal: bad string length", "fatal: bad string length"),
        ("2026-11-23T20:00:00 host postfix/fleetmail-x.a/smtp[1]: fatal: x", "fatal: x"),
        ("host postfix/qmgr[1]: panic: y", "panic: y"),
        ("host postfix/master[1]: warning: process smtp exit status 1", ""),
        ("host postfix/master[1]: warning: /x/smtp: bad command startup -- throttling", "warning: /x/smtp: bad"),
        ("host postfix/sendmail[1]: fatal: usage", ""),
        ("host postfix/postqueue[1]: fatal: Queue report unavailable", ""),
        ("host postfix/smtpd[1]: fatal: no certificate", ""),
        ("host dovecot[1]: fatal: x", ""),
        ("", ""),
    ],
)
def test_complaints_of_what_every_mail_goes_through(line: str, found: str) -> None:
    said = postfix_running.complaints(f"host postfix/smtp[3]: connect\n{line}\nmore\n")
    assert said.startswith(found) if found else said == ""


NAMED = "host postfix/cleanup[1]: 4F3A: message-id=<id@host>\nhost postfix/cleanup[1]: 5B: message-id=<other@host>\n"
TO = "host postfix/smtp[2]: {}: to=<{}>, relay=r[1]:25, delay=1, dsn=2.0.0, status={} ({})\n"


@pytest.mark.parametrize(
    ("lines", "sent", "reply", "final"),
    [
        ("", False, "still in the queue", False),
        (TO.format("4F3A", "a@x", "sent", "250 ok (queued)"), False, "still in the queue", False),
        (TO.format("4F3A", "a@x", "sent", "250 (1)") + TO.format("4F3A", "b@x", "sent", "250"), True, "250 (1)", True),
        (TO.format("5B", "a@x", "bounced", "550 no"), False, "still in the queue", False),
        (TO.format("4F3A", "a@x", "deferred", "451 later"), False, "a@x: deferred: 451 later", False),
        (
            TO.format("4F3A", "a@x", "bounced", "550 no") + TO.format("4F3A", "b@x", "sent", "250"),
            *(False, "a@x: bounced: 550 no", True),
        ),
        (
            TO.format("4F3A", "a@x", "SOFTBOUNCE", "550 no") + TO.format("4F3A", "b@x", "bounced", "551 no"),
            *(False, "a@x: SOFTBOUNCE: 550 no; b@x: bounced: 551 no", True),
        ),
        (
            TO.format("4F3A", "a@x", "deferred", "451") + TO.format("4F3A", "a@x", "sent", "250")
            + TO.format("4F3A", "b@x", "sent", "250 b"),
            *(True, "250", True),
        ),
    ],
)  # fmt: skip
def test_a_mail_is_followed_by_its_queue_id(lines: str, sent: bool, reply: str, final: bool) -> None:
    found, ended = postfix_running.followed(NAMED + lines, "<id@host>", ["a@x", "b@x"])
    assert (found.sent, found.reply, found.queue_id, ended) == (sent, reply, "4F3A", final)


def test_a_log_that_never_names_the_mail_is_told() -> None:
    found, ended = postfix_running.followed("", "<id@host>", ["a@x"])
    assert (found.sent, ended) == (False, False)
    assert "mail log" in found.reply


def test_a_mail_that_is_not_delivered_in_time_is_taken_out_of_the_queue() -> None:
    host = live()
    host.log_text = "old\n"

    def sendmail(call: Call) -> Completed:
        host.log_text += NAMED + TO.format("4F3A", "a@x", "deferred", "451 later")
        return Completed(0, "", "")

    host.programs.update({"sendmail": sendmail, "postsuper": Completed(0, "", "")})
    done = Postfix(host).submit(b"Message-ID: <id@host>\n\nx\n", "s@x", ["a@x"], 0.3)
    assert done.reply == "a@x: deferred: 451 later (after 0.3 s)"
    assert [call.argv for call in host.calls if call.argv[0] == "postsuper"] == [["postsuper", "-d", "4F3A"]]
    host.programs["sendmail"] = Completed(75, "", "sendmail: fatal: no")
    assert Postfix(host).submit(b"Message-ID: <id@host>\n\nx\n", "s@x", ["a@x"], 0.3).reply == "sendmail: fatal: no"
