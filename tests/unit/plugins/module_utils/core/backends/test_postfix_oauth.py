# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.audited import looked_at
from unit.fake_host import Call, FakeHost, apply

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends import (
    postfix_oauth,
    postfix_pipe,
    postfix_running,
)
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends.base import FileState
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends.postfix import (
    ACCOUNT,
    ASKED,
    DEFAULTS,
    HELD,
    MAIN,
    MASTER,
    Postfix,
)
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends.postfix_files import (
    CONF,
    CONFIG,
    FILES,
    WRAPPER,
    main_cf_values,
    transports,
)
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.enforce import enforce
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.errors import StepFailed
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.host import Completed
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.registration import Registration
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.state import Access
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.store import Store
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.token_files import render
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.plan import Plan, compare
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.posix_host import PosixHost
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.redaction import Secret
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.service import Service

MASTER_CF = (
    "smtp inet n - y - - smtpd\nsmtp unix - - y - - smtp\nrelay unix - - y - - smtp\nretry unix - - y - - error\n"
)
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
LIBRARY = "/usr/lib/x86_64-linux-gnu/sasl2/libsasl-xoauth2.so"
CLIENT = {
    "auth_type": "oauth",
    "username": "fleet@example.com",
    "client_id": "client",
    "token_url": "https://login.example.com/token",
    "authorization_url": "https://login.example.com/authorize",
}
PASSWORD = {"auth_type": "password", "username": "fleet", "password": "secret word"}
BOTH = pytest.mark.parametrize("way", ["pipe", "sasl-xoauth2"])
NASTY = st.text(
    st.characters(exclude_categories=["C", "Z"]) | st.sampled_from("#\"'\\$;{}%`^"), min_size=1, max_size=40
)
DOMAIN = st.sampled_from(["a.example", "b.example.com", "mail-1.example.org"])


@st.composite
def services(draw: st.DrawFn, name: str = "default", senders: tuple[str, ...] = ()) -> Service:
    options: dict[str, Any] = {
        **CLIENT,
        "name": name,
        "senders": senders,
        "enabled": draw(st.booleans()),
        "host": draw(DOMAIN | st.ip_addresses().map(str)),
        "port": draw(st.integers(1, 65535)),
        "security": draw(st.sampled_from(["none", "starttls", "tls"])),
        "validate_certs": draw(st.booleans()),
        "allow_cleartext_auth": True,
        "ca_file": draw(st.sampled_from(["", BUNDLE, "/etc/own#ca.pem", "/etc/ä;'\"\\ca"])),
        "timeout": draw(st.integers(1, 3600)),
        "username": draw(NASTY).replace(":", ";").strip('"') or "u",
    }
    if not senders:
        options["from_address"] = draw(st.sampled_from(["", "own@example.net"]))
    kind = draw(st.sampled_from(["oauth", "oauth", "password", "none"]))
    if kind != "oauth":
        options = {key: value for key, value in options.items() if key not in CLIENT}
        options.update(PASSWORD if kind == "password" else {})
    return Service.from_options(options)


def tree(main: str = "# main.cf\n", master: str = MASTER_CF, live: bool = False) -> FakeHost:
    host = FakeHost({MAIN: main, MASTER: master, BUNDLE: "certificates"}, live=live)
    host.users |= {ACCOUNT, "postfix"}
    host.groups |= {ACCOUNT, "postfix"}
    return host


def live(main: str = "# main.cf\n", running: bool = True) -> FakeHost:
    """A host with a Postfix that says of itself what its main.cf says, and an msmtp that says what it was given."""
    host = tree(main, live=True)
    if running:
        host.put("/var/spool/postfix/pid/master.pid", " 17\n")
        host.put("/proc/17/comm", "master\n")

    def postconf(_call: Call) -> Completed:
        values = {**dict.fromkeys(ASKED, ""), **DEFAULTS, **main_cf_values(host.text(MAIN))}
        return Completed(0, "".join(f"{key} = {values[key]}\n" for key in ASKED), "")

    def msmtp(call: Call) -> Completed:
        lines = [line.split(" ", 1) for line in host.text(call.argv[2]).splitlines() if line[0] != "#"]
        said = {key: value.strip('"') for key, value in lines}
        said.update(auth=said["auth"].upper(), timeout=said["timeout"] + " seconds")
        return Completed(0, "".join(f"{key} = {value}\n" for key, value in said.items()), "")

    ok = Completed(0, "", "")
    host.programs = {"postconf": postconf, "msmtp": msmtp, "postfix": ok, "postqueue": ok, "useradd": ok, "userdel": ok}
    return host


def service(**options: Any) -> Service:
    return Service.from_options({"host": "relay.example.com", "security": "starttls", **CLIENT, **options})


def other(**options: Any) -> Service:
    return Service.from_options({"host": "relay.example.com", "security": "starttls", **options})


def deploy(host: FakeHost, wanted: Service | None, name: str = "default", **options: Any) -> list[FileState]:
    backend = Postfix(host, options)
    states = backend.desired(wanted, name, backend.read(name))
    apply(host, states)
    return states


def plan_of(host: FakeHost, wanted: Service, **options: Any) -> Plan:
    backend = Postfix(host, options)
    observed = backend.read(wanted.name)
    files = backend.desired(wanted, wanted.name, observed)
    return compare(backend.wanted_form(wanted), observed, files, host)


def drift(host: FakeHost, wanted: Service, **options: Any) -> dict[str, tuple[Any, Any]]:
    return {one.field: (one.before, one.after) for one in plan_of(host, wanted, **options).drift}


# -- what is written is read back --------------------------------------------------------------------------------------


@BOTH
@given(st.lists(services(), min_size=1, max_size=3), st.sampled_from(["xoauth2", "oauthbearer"]))
@settings(max_examples=25, deadline=None)
def test_what_is_written_is_read_back_and_gives_back_what_was_there(
    way: str, steps: list[Service], mechanism: str
) -> None:
    host = tree("relayhost = [old]\nsmtp_sasl_auth_enable=yes\ndefault_transport = relay\n")
    before = dict(host.files)
    options = {"oauth": way, "oauth_mechanism": mechanism if way == "pipe" else "xoauth2"}
    for wanted in steps:
        deploy(host, wanted, **options)
        backend = Postfix(host, options)
        form = backend.read("default").form
        assert {key: form[key] for key in backend.wanted_form(wanted)} == backend.wanted_form(wanted)
        assert plan_of(host, wanted, **options).empty
        piped = wanted.auth_type == "oauth" and way == "pipe"
        assert (WRAPPER in host.files) == piped
        assert (CONF in host.files) == (wanted.auth_type == "oauth" and not piped)
        assert len([path for path in host.files if path.startswith(FILES)]) == (wanted.auth_type != "none")
    deploy(host, None)
    assert host.files == before


@BOTH
@given(
    services("one", ("a@x.example", "y.example")), services("two", ("b@x.example",)), services(),
    st.permutations([0, 1, 2]),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_services_leave_each_other_alone(way: str, one: Service, two: Service, rest: Service, order: list[int]) -> None:
    host = tree()
    before = dict(host.files)
    there = [one, two, rest]
    for wanted in there:
        deploy(host, wanted, wanted.name, oauth=way)
    for wanted in there:
        assert plan_of(host, wanted, oauth=way).empty
    limits = [key for key in main_cf_values(host.text(MAIN)) if key.endswith("_destination_recipient_limit")]
    pipes = [agent.name for agent in transports(host.text(MASTER)) if agent.command.startswith("pipe ")]
    assert limits == [name + "_destination_recipient_limit" for name in pipes]
    for number in order:
        name = ("one", "two", "default")[number]
        deploy(host, None, name, oauth=way)
        there = [wanted for wanted in there if wanted.name != name]
        assert not Postfix(host).read(name).managed
        for wanted in there:
            assert plan_of(host, wanted, oauth=way).empty
    assert host.files == before


@given(st.binary(max_size=80), st.binary(max_size=80))
@settings(deadline=None)
def test_any_files_are_read_and_nothing_raises(master: bytes, config: bytes) -> None:
    host = tree()
    deploy(host, service())
    host.put(MASTER, host.files[MASTER].content + master)
    host.put(f"{FILES}default.a{CONFIG}", config)
    observed = Postfix(host).read("default")
    Postfix(host).desired(service(), "default", observed)


# -- the pipe ----------------------------------------------------------------------------------------------------------


def test_all_mail_goes_through_the_pipe_and_the_client_is_left_as_it_was() -> None:
    host = tree("relayhost = [old]\nsmtp_sasl_auth_enable = yes\n")
    deploy(host, service())
    values = main_cf_values(host.text(MAIN))
    way = "fleetmail-default.a:[relay.example.com]:587"
    assert values == {
        "relayhost": "[old]",
        "smtp_sasl_auth_enable": "yes",
        "default_transport": way,
        "relay_transport": way,
        "fleetmail-default.a_destination_recipient_limit": "1",
        "fleetmail-default.a_time_limit": "2h",
    }
    agent = next(agent for agent in transports(host.text(MASTER)) if agent.name == "fleetmail-default.a")
    assert (agent.chroot, agent.maxproc) == ("n", "3")
    assert agent.command.startswith(f"pipe flags=q user={ACCOUNT} null_sender= argv=/bin/sh -c {{")
    assert agent.command.endswith(f"}} {WRAPPER} {FILES}default.a{CONFIG} ${{sender}} ${{recipient}}")
    assert tuple(host.files[WRAPPER])[1:] == (0o755, "root", "root")
    assert tuple(host.files[f"{FILES}default.a{CONFIG}"])[1:] == (0o640, "root", ACCOUNT)


@BOTH
@pytest.mark.parametrize("senders", [[], ["shop@example.com"]])
def test_connections_are_counted_wherever_a_token_goes_out(way: str, senders: list[str]) -> None:
    host, wanted = tree("smtp_destination_concurrency_limit = 50\n"), service(senders=senders)
    before = dict(host.files)
    deploy(host, wanted, oauth=way)
    for number in (3, 2):
        deploy(host, wanted, oauth=way, oauth_connections=number)
        agents = [agent for agent in transports(host.text(MASTER)) if agent.name.startswith("fleetmail-")]
        if way == "pipe" or senders:
            assert [agent.maxproc for agent in agents] == [str(number)]
            assert drift(host, wanted, oauth=way, oauth_connections=9) == {
                f"maxproc of {agents[0].name}": (str(number), "9")
            }
        else:
            limit = "smtp_destination_concurrency_limit"
            assert (agents, main_cf_values(host.text(MAIN))[limit]) == ([], str(number))
            assert drift(host, wanted, oauth=way, oauth_connections=9) == {limit: (str(number), "9")}
    deploy(host, None)
    assert host.files == before


def adopted(host: FakeHost) -> tuple[dict[str, Any], list[str]]:
    """The backend's options of the task by which what is there is adopted, and what of Postfix it would change."""
    host.put("/etc/passwd", "root:x:0:0::/root:/bin/sh\n")
    client = {key: CLIENT[key] for key in ("client_id", "token_url", "authorization_url", "username")}
    Store(host).write_registration("default", Registration("default", **client))
    (found,) = [one for one in looked_at(host, as_task=True)["services"] if one["managed"]]
    assert found["task"], found["task_problems"]
    changed = [one["field"] for one in found["task_drift"] if "/oauth/" not in one["field"]]  # the store was not set up
    return found["task"].get("backend_options", {}), changed


@BOTH
@pytest.mark.parametrize("senders", [[], ["shop@example.com"]])
def test_what_is_adopted_keeps_its_options(way: str, senders: list[str]) -> None:
    host, wanted = tree(), service(senders=senders)
    if way == "sasl-xoauth2":
        host.put(LIBRARY, "")
    deploy(host, wanted, oauth=way)
    assert adopted(host) == ({}, [])
    options = {"oauth_connections": 7, **({"oauth_mechanism": "oauthbearer"} if way == "pipe" else {})}
    deploy(host, wanted, oauth=way, **options)
    assert adopted(host) == (options, [])


def test_a_pipe_that_is_adopted_stays_one_where_the_plugin_is_installed() -> None:
    host = tree()
    host.put(LIBRARY, "")
    deploy(host, service(), oauth="pipe")
    assert adopted(host) == ({"oauth": "pipe"}, [])


def test_a_disabled_service_is_prepared_and_holds_its_mail() -> None:
    host = tree()
    deploy(host, service(enabled=False))
    assert main_cf_values(host.text(MAIN))["default_transport"] == HELD
    form = Postfix(host).read("default").form
    assert (form["enabled"], form["host"], form["auth_type"]) == (False, "relay.example.com", "oauth")


HANDS: dict[str, tuple[Callable[[FakeHost], None], dict[str, tuple[Any, Any]]]] = {
    "host": (
        lambda host: edit(host, f"{FILES}default.a{CONFIG}", "host relay", "host other"),
        {"host": ("other.example.com", "relay.example.com")},
    ),
    "certificates": (
        lambda host: edit(host, f"{FILES}default.a{CONFIG}", "tls_certcheck on", "tls_certcheck off"),
        {"validate_certs": (False, True)},
    ),
    "a password": (
        lambda host: edit(host, f"{FILES}default.a{CONFIG}", "auth xoauth2", "auth plain"),
        {"auth_type": ("password", "oauth")},
    ),
    "a header": (
        lambda host: edit(host, f"{FILES}default.a{CONFIG}", "remove_bcc_headers off", "remove_bcc_headers on"),
        {f"content of {FILES}default.a{CONFIG}": ("(differs)", "(managed)")},
    ),
    "no configuration": (
        lambda host: host.remove(f"{FILES}default.a{CONFIG}"),
        {"host": ("", "relay.example.com"), "auth_type": ("none", "oauth"), "username": ("", "fleet@example.com")},
    ),
    "no wrapper": (lambda host: host.remove(WRAPPER), {f"presence of {WRAPPER}": (False, True)}),
    "another wrapper": (
        lambda host: edit(host, WRAPPER, "exit $exit", "exit 0"),
        {f"content of {WRAPPER}": ("(differs)", "(managed)")},
    ),
    "a wide configuration": (
        lambda host: host.put(f"{FILES}default.a{CONFIG}", host.files[f"{FILES}default.a{CONFIG}"].content, 0o644),
        {
            f"mode of {FILES}default.a{CONFIG}": ("0644", "0640"),
            f"group of {FILES}default.a{CONFIG}": ("root", ACCOUNT),
        },
    ),
    "a wrapper that others can write": (
        lambda host: host.put(WRAPPER, host.files[WRAPPER].content, 0o777),
        {f"mode of {WRAPPER}": ("0777", "0755")},
    ),
    "no user": (lambda host: host.users.discard(ACCOUNT), {f"user {ACCOUNT}": ("missing", "there")}),
    "past the pipe": (
        lambda host: edit(host, MAIN, "default_transport = fleetmail-default.a:", "default_transport = smtp:"),
        {
            "host": ("", "relay.example.com"), "port": (25, 587), "security": ("none", "starttls"),
            "auth_type": ("none", "oauth"), "username": ("", "fleet@example.com"), "ca_file": (None, ""),
        },
    ),
    "some mail past the pipe": (
        lambda host: edit(host, MAIN, "relay_transport = fleetmail-default.a:", "relay_transport = smtp:"),
        {f"content of {MAIN}": ("(differs)", "(managed)")},
    ),
    "held": (
        lambda host: host.put(MAIN, host.text(MAIN) + "defer_transports = fleetmail-default.a\n"),
        {"enabled": (False, True)},
    ),
    "no agent": (
        lambda host: host.put(MASTER, MASTER_CF),
        {f"delivery agent fleetmail-default.a in {MASTER}": ("missing", "there")},
    ),
    "another user": (
        lambda host: edit(host, MASTER, f"user={ACCOUNT}", "user=nobody"),
        {"user nobody": ("missing", "there")},
    ),
    "more at once": (
        lambda host: edit(host, MASTER, "unix - n n - 3 pipe", "unix - n n - 20 pipe"),
        {"maxproc of fleetmail-default.a": ("20", "3")},
    ),
    "more recipients": (
        lambda host: edit(host, MAIN, "recipient_limit = 1", "recipient_limit = 50"),
        {f"content of {MAIN}": ("(differs)", "(managed)")},
    ),
}  # fmt: skip


def edit(host: FakeHost, path: str, old: str, new: str) -> None:
    assert host.text(path).count(old) == 1
    now = host.files[path]
    host.put(path, now.content.replace(old.encode(), new.encode()), *now[1:])


@pytest.mark.parametrize("hand", HANDS)
def test_a_change_by_hand_is_told_and_undone(hand: str) -> None:
    host, wanted = tree(), service()
    deploy(host, wanted)
    change, expected = HANDS[hand]
    change(host)
    told = drift(host, wanted)
    assert {field: told.get(field) for field in expected} == expected
    assert ("default_transport" in told) == (hand == "past the pipe")
    host.users.add(ACCOUNT)
    deploy(host, wanted)
    left = drift(host, wanted)
    assert left == ({"enabled": (False, True)} if hand == "held" else {})


def test_a_compliant_host_costs_two_programs_and_no_token_is_read() -> None:
    host, wanted = live(), service()
    deploy(host, wanted)
    host.calls.clear()
    assert plan_of(host, wanted).empty
    assert [call.argv[0] for call in host.calls] == ["postconf", "msmtp"]
    assert host.calls[1].argv[-1] == "--passwordeval="
    assert host.calls[1].environment["HOME"] == "/nonexistent"


def test_a_configuration_that_msmtp_refuses_is_told() -> None:
    host, wanted = live(), service()
    deploy(host, wanted)
    host.programs["msmtp"] = Completed(78, "", f"msmtp: {FILES}default.a{CONFIG}: line 4: unknown command sesame\n")
    observed = Postfix(host).read("default")
    assert observed.form["host"] == ""
    assert observed.warnings == [f"msmtp refuses {FILES}default.a{CONFIG}: line 4: unknown command"]


def test_msmtp_that_was_taken_away_is_told() -> None:
    host, wanted = live(), service()
    deploy(host, wanted)
    del host.programs["msmtp"]
    assert drift(host, wanted) == {"msmtp": ("not installed", "installed")}


# -- switching: nothing is lost meanwhile ------------------------------------------------------------------------------


def states_of(host: FakeHost, wanted: Service | None, **options: Any) -> dict[str, FileState]:
    backend = Postfix(host, options)
    return {state.path: state for state in backend.desired(wanted, "default", backend.read("default"))}


def test_from_a_password_to_the_pipe_clients_keep_their_login_until_the_reload() -> None:
    host = live()
    deploy(host, other(**PASSWORD))
    host.programs["postmap"] = Completed(0, "[relay.example.com]:587\tfleet:secret word\n", "")
    backend = Postfix(host)
    observed = backend.read("default")
    states = {state.path: state for state in backend.desired(service(), "default", observed)}
    meanwhile = main_cf_values((states[MAIN].transition or b"").decode())
    assert meanwhile["smtp_sasl_auth_enable"] == "yes"
    assert meanwhile["relayhost"] == "[relay.example.com]:587"
    assert meanwhile["default_transport"].startswith("fleetmail-default.")
    assert "smtp_sasl" not in (states[MAIN].content or b"").decode()
    assert states[f"{FILES}default.a"].content is None
    backend.settle(observed, service())
    assert backend.actions == ["postfix reload"]


def test_from_the_pipe_to_a_password_the_pipe_stays_until_the_reload() -> None:
    host = live()
    deploy(host, service())
    states = states_of(host, other(**PASSWORD))
    assert b"fleetmail-default.a" in (states[MASTER].transition or b"")
    assert (states[MASTER].content or b"").decode() == MASTER_CF
    assert main_cf_values((states[MAIN].content or b"").decode())["default_transport"] == "smtp"
    assert states[WRAPPER].content is None


def test_another_relay_is_another_pipe_beside_the_one_in_use() -> None:
    host = live()
    deploy(host, service())
    states = states_of(host, service(host="other.example.com"))
    assert (states[MASTER].transition or b"").count(b" pipe\n") == 2
    assert (states[MASTER].content or b"").count(b" pipe\n") == 1
    assert b"default_transport = fleetmail-default.b:" in (states[MAIN].content or b"")
    assert states[f"{FILES}default.a{CONFIG}"].content is None


@pytest.mark.parametrize("senders", [[], ["shop@example.com"]])
def test_the_plugin_takes_over_when_it_is_installed_and_the_pipe_when_it_is_gone(senders: list[str]) -> None:
    host, wanted = tree(), service(senders=senders)
    before = dict(host.files)
    deploy(host, wanted)
    host.put(LIBRARY, b"\x7fELF")
    assert not plan_of(host, wanted).empty
    deploy(host, wanted)
    assert plan_of(host, wanted).empty
    assert WRAPPER not in host.files
    assert CONF in host.files
    host.remove(LIBRARY)
    deploy(host, wanted)
    assert plan_of(host, wanted).empty
    assert CONF not in host.files
    deploy(host, None)
    assert host.files == before


# -- the wrapper and its guard, as sh runs them ------------------------------------------------------------------------

LOG = "Nov 24 08:14:15 host=relay.example.com tls=on auth=on user=u from=s@x recipients=r@x"
RCPT = "recipient address r@x not accepted by the server"
FROM = "envelope from address s@x not accepted by the server"
DATA = "the server did not accept the mail"
AUTH = "authentication failed (method XOAUTH2)"
# exit code, smtpmsg, errormsg of msmtp -> exit code of the wrapper and how its words begin
OUTCOMES = [
    (0, "250 2.0.0 queued as 1", "", 0, "250 2.0.0 queued as 1"),
    (65, "550 5.1.1 no such user", RCPT, 69, "5.1.1 relay.example.com said: 550 5.1.1 no such user (recipient"),
    (65, r"550-5.1.1 no\n550 5.1.1 such", RCPT, 69, "5.1.1 relay.example.com said: 550-5.1.1 no 550 5.1.1 such ("),
    (0, r"250-2.0.0 yes\n250 2.0.0 \0041", "", 0, r"250-2.0.0 yes 250 2.0.0 \0041"),
    (65, "550 no such user", RCPT, 69, "5.0.0 relay.example.com said: 550 no such user"),
    (65, "550 4.1.1 strange", RCPT, 69, "5.0.0 "),
    (65, "550 5.7.60 send as denied", FROM, 69, "5.7.60 "),
    (69, "554 5.6.0 bad content", DATA, 69, "5.6.0 "),
    (69, "552 5.3.4 too big", "the server does not accept mail data", 69, "5.3.4 "),
    (69, "450 4.2.0 later", RCPT, 75, "4.2.0 relay.example.com said: 450 4.2.0 later"),
    (69, "451 later", DATA, 75, "4.3.0 "),
    (69, "421 4.4.2 bye", DATA, 75, "4.4.2 "),
    (65, "530 5.7.57 not authenticated", FROM, 75, "4.3.0 "),
    (65, "501 5.5.127 Token will expire soon", FROM, 75, "4.3.0 "),
    (77, "535 5.7.8 bad token", AUTH, 75, "4.7.0 relay.example.com said: 535 5.7.8 bad token (authentication failed"),
    (77, "550 5.7.30 basic auth", AUTH, 75, "4.7.0 "),
    (77, "454 4.7.0 later", AUTH, 75, "4.7.0 "),
    (76, "554 5.3.2 go away", "cannot get initial OK message from server", 75, "4.4.1 "),
    (69, "", "the server does not support authentication method XOAUTH2", 75, "4.3.0 the server does not support"),
    (69, "", "TLS certificate verification failed: not trusted", 75, "4.3.0 TLS certificate"),
    (69, "", "the server does not support TLS via the STARTTLS command", 75, "4.3.0 "),
    (66, "", "cannot set X509 trust file /ca", 75, "4.3.5 cannot set"),
    (68, "", "cannot locate host relay", 75, "4.4.1 cannot locate"),
    (75, "", "cannot connect to relay, port 587: Connection refused", 75, "4.4.1 cannot connect"),
    (65, "", "Cannot send command because it is longer than 4094 characters.", 75, "4.3.0 Cannot send"),
    (1, "550 5.1.1 in no known place", "something new", 75, "4.3.0 "),
    *[
        (65, f"550 5.7.1 {words}", RCPT, 69, f"5.7.1 relay.example.com said: 550 5.7.1 {words} ({RCPT})")
        for words in (
            "client host=203.0.113.5 is listed",
            'it\'s "listed"',
            "' errormsg='x' exitcode=EX_OK",
            "' smtpmsg='250 ok",
            "$(id) `id` \\0041",
        )
    ],
    (
        77,
        "535 5.7.8 host=x errormsg='recipient address r@x' smtpmsg='550 5.1.1 no",
        AUTH,
        75,
        "4.7.0 relay.example.com",
    ),
]


class Shell:
    """The wrapper with programs of our own in its PATH."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.wrapper = place / "postfix-msmtp"
        self.programs = place / "bin"
        self.programs.mkdir()
        text = postfix_pipe.SCRIPT.replace("PATH=/usr/local/bin:", f"PATH={self.programs}:/usr/local/bin:")
        assert str(self.programs) in text
        self._write(self.wrapper, text)
        self.program("postconf", 'echo "client.example.com"')

    @staticmethod
    def _write(path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)

    def program(self, name: str, body: str) -> None:
        self._write(self.programs / name, f"#!/bin/sh\n{body}\n")

    def msmtp(self, code: int, smtpmsg: str, errormsg: str) -> None:
        """An msmtp that says what the real one does, in its order."""
        words = "".join(f" {key}='{value}'" for key, value in (("smtpmsg", smtpmsg), ("errormsg", errormsg)) if value)
        line = f"{LOG} smtpstatus={smtpmsg[:3]}{words} exitcode=EX_{code or 'OK'}"
        (self.place / "line").write_text(line + "\n")
        self.program(
            "msmtp",
            f'echo "$@" > {self.place}/argv; cat > {self.place}/mail\n'
            f"[ {code} = 0 ] || echo \"msmtp: host=evil smtpmsg='250 ok' exitcode=EX_OK\" >&2\n"
            f"cat {self.place}/line; exit {code}",
        )

    def run(self, *argv: str, mail: bytes = b"From: x\n\n.\nbody\n") -> tuple[int, str]:
        done = subprocess.run([*argv], input=mail, capture_output=True, check=False)
        return done.returncode, (done.stdout + done.stderr).decode().strip()

    def wrap(self, sender: str = "s@x", recipient: str = "r@x") -> tuple[int, str]:
        return self.run(str(self.wrapper), "/etc/config", sender, recipient)

    def guard(self) -> tuple[int, str]:
        """As pipe(8) runs it, by what stands in master.cf."""
        pipe = postfix_pipe.Pipe(service(), "xoauth2", "/token", 3)
        guard = pipe.entry("x", "a").split("/bin/sh -c {")[1].split("}\n")[0].replace("$$", "$")
        return self.run("/bin/sh", "-c", guard, str(self.wrapper), "/etc/config", "s@x", "r@x")


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.mark.parametrize(("code", "smtpmsg", "errormsg", "exits", "says"), OUTCOMES)
def test_only_the_relays_own_refusal_bounces(
    shell: Shell, code: int, smtpmsg: str, errormsg: str, exits: int, says: str
) -> None:
    shell.msmtp(code, smtpmsg, errormsg)
    found = shell.wrap()
    assert (found[0], found[1][: len(says)]) == (exits, says)
    assert "\n" not in found[1]
    assert shell.guard() == found


def test_the_mail_and_its_envelope_go_in_as_they_are(shell: Shell) -> None:
    shell.msmtp(0, "250 ok", "")
    shell.wrap("-a'b c@x", "-r@x")
    options = "-C /etc/config -a default --logfile=- --domain=client.example.com"
    assert (shell.place / "argv").read_text() == f"{options} -f -a'b c@x -- -r@x\n"
    assert (shell.place / "mail").read_bytes() == b"From: x\n\n.\nbody\n"
    shell.program("postconf", "exit 1")
    shell.wrap("")
    assert (shell.place / "argv").read_text() == "-C /etc/config -a default --logfile=- -f  -- r@x\n"


@pytest.mark.parametrize(
    "recipient", ['"a b"@x', "a,b@x", "a;b@x", "a(b)@x", "<a@x", "a>@x", "g:a@x", "a\\b@x", "a b@x"]
)
def test_what_msmtp_would_read_as_another_address_is_never_given_to_it(shell: Shell, recipient: str) -> None:
    shell.msmtp(0, "250 ok", "")
    assert shell.wrap(recipient=recipient) == (69, f"5.1.3 msmtp cannot send to the address {recipient}")
    assert not (shell.place / "argv").exists()


@pytest.mark.parametrize(
    "recipient", ["a+b@x", "a'b@x", "ä@x", "a=b/c?d@x", "a@[192.0.2.1]", "a&b|c~d@x", "a%b!c@x", "*@x"]
)
def test_other_addresses_go_out(shell: Shell, recipient: str) -> None:
    shell.msmtp(0, "250 ok", "")
    assert shell.wrap(recipient=recipient) == (0, "250 ok")
    assert (shell.place / "argv").read_text().endswith(f" -- {recipient}\n")


def test_a_token_that_is_not_there_is_told_in_plain_words(shell: Shell) -> None:
    shell.program("msmtp", "echo \"cat: /t: No such file\nmsmtp: cannot read output of 'cat /t'\" >&2; exit 78")
    code, says = shell.wrap()
    assert code == 75
    assert says.startswith("4.7.0 there is no access token: cat: /t: No such file")


@pytest.mark.parametrize(
    ("msmtp", "says"),
    [
        ("kill -9 $$", "4.3.0 "),
        ("exit 3", "4.3.0 msmtp ended with status 3"),
        ("echo 'msmtp: /etc/config: Permission denied' >&2; exit 74", "4.4.1 msmtp: /etc/config: Permission"),
        ("echo 'msmtp: /etc/config: line 3: unknown command x' >&2; exit 78", "4.3.5 msmtp: /etc/config: line 3"),
    ],
)
def test_an_msmtp_that_fails_by_itself_makes_mail_wait(shell: Shell, msmtp: str, says: str) -> None:
    shell.program("msmtp", msmtp)
    code, said = shell.guard()
    assert code == 75
    assert said.startswith(says)


def test_an_msmtp_that_does_not_end_is_ended_before_pipe_would_bounce_the_mail(shell: Shell) -> None:
    text = shell.wrapper.read_text()
    hours = int(text.split("timeout -k 10 ")[1].split()[0]) / 3600
    assert f"{hours + 1:.0f}h" == postfix_pipe.TIME_LIMIT
    shell.wrapper.write_text(text.replace("3600 msmtp", "0.2 msmtp"))
    shell.program("msmtp", "sleep 60 & wait")
    began = time.monotonic()
    assert shell.guard() == (75, "4.3.0 msmtp was still at work after an hour")
    assert time.monotonic() - began < 30


def test_no_msmtp_makes_mail_wait(shell: Shell) -> None:
    text = shell.wrapper.read_text()
    path = next(line for line in text.split("\n") if "PATH=" in line)
    for tool in ("sh", "timeout"):
        (shell.programs / tool).symlink_to(shutil.which(tool) or tool)
    shell.wrapper.write_text(text.replace(path, f"PATH={shell.programs}"))
    code, said = shell.guard()
    assert code == 75
    assert "timeout: failed to run command " in said


@pytest.mark.parametrize("what", ["missing", "not executable", "a directory", "no program", "killed", "odd status"])
def test_a_wrapper_that_fails_makes_mail_wait(shell: Shell, what: str) -> None:
    shell.wrapper.unlink()
    if what == "a directory":
        shell.wrapper.mkdir()
    elif what != "missing":
        body = {"killed": "kill -9 $$", "odd status": "exit 3"}.get(what, "exit 0")
        interpreter = "/nonexistent" if what == "no program" else "/bin/sh"
        shell.wrapper.write_text(f"#!{interpreter}\n{body}\n")
        shell.wrapper.chmod(0o644 if what == "not executable" else 0o755)
    assert shell.guard()[0] == 75


def test_a_signal_meant_for_the_wrapper_does_not_bounce_what_was_sent(shell: Shell) -> None:
    shell.wrapper.write_text(f"#!/bin/sh\nkill -{signal.SIGTERM.value} $PPID\nsleep 0.1\necho 250 ok\n")
    assert shell.guard() == (0, "250 ok")


# -- its account -------------------------------------------------------------------------------------------------------


def prepared(host: FakeHost, wanted: Service | None) -> Postfix:
    backend = Postfix(host)
    backend.desired(wanted, "default", backend.read("default"))
    backend.prepare()
    return backend


def test_the_account_is_made_for_a_pipe_alone_and_once() -> None:
    host = live()
    assert prepared(host, service()).actions == []
    host.users.discard(ACCOUNT)
    host.groups.discard(ACCOUNT)
    assert prepared(host, other(**PASSWORD)).actions == []
    assert prepared(host, None).actions == []
    (made,) = prepared(host, service()).actions
    assert made.startswith("useradd --system --user-group --no-create-home")
    assert made.endswith(" " + ACCOUNT)
    host.programs["useradd"] = Completed(1, "", "useradd: cannot lock /etc/passwd")
    with pytest.raises(StepFailed) as raised:
        prepared(host, service())
    assert "cannot lock /etc/passwd" in raised.value.message
    assert ACCOUNT in raised.value.problems[0].hint


def test_the_account_is_made_in_a_group_of_its_name() -> None:
    host = live()
    host.users.discard(ACCOUNT)
    (made,) = prepared(host, service()).actions
    assert made.startswith(f"useradd --system --gid {ACCOUNT} ")
    assert postfix_pipe.COMMENT + postfix_pipe.IN_A_GROUP in made


@pytest.mark.parametrize(
    ("passwd", "deployed", "dropped"),
    [
        (f"{ACCOUNT}:x:998:998:{postfix_pipe.COMMENT}{postfix_pipe.IN_A_GROUP}:/nonexistent:/nologin", False, True),
        (f"{ACCOUNT}:x:998:998:{postfix_pipe.COMMENT}:/nonexistent:/usr/sbin/nologin", False, True),
        (f"{ACCOUNT}:x:998:998:{postfix_pipe.COMMENT}:/nonexistent:/usr/sbin/nologin", True, False),
        (f"{ACCOUNT}:x:998:998:Made by somebody else:/nonexistent:/usr/sbin/nologin", False, False),
    ],
)
def test_the_account_goes_when_it_is_ours_and_nothing_uses_it(passwd: str, deployed: bool, dropped: bool) -> None:
    host = live()
    host.put("/etc/passwd", f"root:x:0:0::/root:/bin/sh\n{passwd}\n")
    if deployed:
        deploy(host, service())
    backend = Postfix(host)
    backend.withdraw()
    assert backend.actions == ([f"userdel {ACCOUNT}"] if dropped else [])
    deleted = [call.argv for call in host.calls if call.argv[0] == "groupdel"]  # the FakeHost's groups stay
    assert deleted == ([["groupdel", ACCOUNT]] if dropped and postfix_pipe.IN_A_GROUP not in passwd else [])
    host.programs["userdel"] = Completed(8, "", "user is currently used by process 1")
    backend = Postfix(host)
    backend.withdraw()
    assert backend.actions == []


# -- the plugin --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "library", [LIBRARY, "/usr/lib64/sasl2/libsasl-xoauth2.so", "/usr/local/lib/sasl2/libsasl-xoauth2.so", ""]
)
def test_by_itself_the_plugin_is_taken_where_it_is(library: str) -> None:
    host = tree()
    if library:
        host.put(library, b"\x7fELF")
    assert postfix_oauth.chosen(Postfix(host)) == ("sasl-xoauth2" if library else "pipe")
    assert postfix_oauth.chosen(Postfix(host, {"oauth": "pipe"})) == "pipe"
    assert postfix_oauth.chosen(Postfix(host, {"oauth": "sasl-xoauth2"})) == "sasl-xoauth2"


def read_token_file(text: str) -> tuple[str, str, int, str]:
    """As sasl-xoauth2 reads it: JSON strings, the expiry a number in a string, of 32 bits."""
    found = json.loads(text)
    assert all(isinstance(value, str) for value in found.values())
    expiry = int(found["expiry"])
    assert expiry < 2**31
    return found["access_token"], found["refresh_token"], expiry, found.get("user", "")


@pytest.mark.parametrize(
    ("chroot", "level", "seen"),
    [
        ("y", "", "/fleetmail/default.json"),
        ("n", "", "/var/lib/fleetmail/tokens/default.postfix"),
        ("-", "3.6", "/var/lib/fleetmail/tokens/default.postfix"),
        ("-", "0", "/fleetmail/default.json"),
        ("-", "", "/fleetmail/default.json"),
    ],
)
@pytest.mark.parametrize("senders", [[], ["shop@example.com"]])
def test_the_plugin_finds_the_token_file_where_smtp_sees_it(
    chroot: str, level: str, seen: str, senders: list[str]
) -> None:
    main = f"compatibility_level = {level}\nqueue_directory = /spool\n"
    host = tree(main, MASTER_CF.replace("smtp unix - - y", f"smtp unix - - {chroot}"))
    wanted = service(senders=senders)
    deploy(host, wanted, oauth="sasl-xoauth2")
    entry = "[relay.example.com]:587 fleet@example.com:" + seen + "\n"
    assert entry in [host.text(path) for path in host.files if path.startswith(FILES)]
    text = host.text(MASTER if senders else MAIN)
    assert "smtp_sasl_mechanism_filter = xoauth2" in text
    consumer = Postfix(host, {"oauth": "sasl-xoauth2"}).consumer(wanted)
    assert consumer.path == ("/spool" + seen if seen.startswith("/fleetmail") else seen)
    assert (consumer.format, consumer.owner, consumer.group, consumer.mode) == (
        "sasl_xoauth2",
        "root",
        "postfix",
        0o640,
    )
    expires = int(time.time()) + 3600
    text = render(consumer.format, Access(Secret("the token"), expires, 0), consumer.username).decode()
    assert read_token_file(text) == ("the token", "", expires, "fleet@example.com")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, {"client_id": "not used", "client_secret": ""}),
        ('{"client_id": "theirs", "client_secret": "s"}', {"client_id": "theirs", "client_secret": "s"}),
        ('{"client_id": "theirs"}', {"client_id": "theirs", "client_secret": ""}),
        ('{"log_to_syslog_on_failure": "no"}', {"log_to_syslog_on_failure": "no", "client_id": "not used",
                                                "client_secret": ""}),
    ],
)  # fmt: skip
def test_the_plugins_configuration_has_what_it_needs_and_comes_back(before: str | None, after: dict[str, str]) -> None:
    host = tree()
    if before is not None:
        host.put(CONF, before, 0o640, "root", "postfix")
    files = dict(host.files)
    deploy(host, service(), oauth="sasl-xoauth2")
    assert json.loads(host.text(CONF)) == after
    if before is not None:
        assert tuple(host.files[CONF])[1:] == (0o640, "root", "postfix")
    assert plan_of(host, service(), oauth="sasl-xoauth2").empty
    host.put(CONF, "{}", *host.files[CONF][1:])
    assert drift(host, service(), oauth="sasl-xoauth2")[f"content of {CONF}"] == ("(differs)", "(managed)")
    deploy(host, service(), oauth="sasl-xoauth2")
    if before != '{"client_id": "theirs", "client_secret": "s"}':  # else it was never ours
        deploy(host, None)
        assert host.files == files


@pytest.mark.parametrize(("entry", "auth_type"), [("u:/tokens/u", "oauth"), ("u:secret word", "password")])
def test_a_plugin_set_up_by_hand_is_read_and_a_password_is_not_taken_for_it(entry: str, auth_type: str) -> None:
    host = tree(
        "relayhost = [a.example]:587\nsmtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = hash:/sasl\n"
        "smtp_sasl_mechanism_filter = XOAUTH2\n"
    )
    host.put("/sasl", f"[a.example]:587 {entry}\n")
    observed = Postfix(host).read("default")
    assert (observed.form["auth_type"], observed.form["username"]) == (auth_type, "u")
    assert (observed.secrets == ["secret word"]) == (auth_type == "password")


# -- what cannot be ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "form", "files", "option"),
    [
        ({"oauth": "plugin"}, {}, {}, "backend_options.oauth"),
        ({"oauth_mechanism": "plain"}, {}, {}, "backend_options.oauth_mechanism"),
        ({"oauth_connections": 0}, {}, {}, "backend_options.oauth_connections"),
        ({"oauth_connections": "3"}, {}, {}, "backend_options.oauth_connections"),
        ({"oauth": "sasl-xoauth2", "oauth_mechanism": "oauthbearer"}, {}, {}, "backend_options.oauth_mechanism"),
        ({"oauth": "sasl-xoauth2"}, {}, {CONF: "client_id = x"}, "auth_type"),
        ({"oauth": "sasl-xoauth2"}, {}, {CONF: "[]"}, "auth_type"),
        ({"oauth": "pipe"}, {"username": "u" * 493}, {}, "username"),
        ({"oauth": "pipe", "oauth_mechanism": "oauthbearer"}, {"username": "a=b"}, {}, "username"),
        ({"oauth": "pipe"}, {"ca_file": "/" + "a" * 490}, {}, "ca_file"),
        ({}, {"username": "u:v"}, {}, "username"),
    ],
)
def test_what_cannot_be_expressed_is_named_with_a_way_out(
    options: dict[str, Any], form: dict[str, Any], files: dict[str, str], option: str
) -> None:
    host = tree()
    for path, text in files.items():
        host.put(path, text)
    backend = Postfix(host, options)
    problems = [*backend.option_problems(), *backend.problems(service(**form))]
    assert [problem.option for problem in problems] == [option]
    assert problems[0].hint


def test_a_ca_file_that_msmtps_user_cannot_read_is_refused() -> None:
    host = tree()
    host.put("/ca.pem", "certificate", 0o640)
    (problem,) = Postfix(host).problems(service(ca_file="/ca.pem"))
    assert (problem.option, ACCOUNT in problem.problem) == ("ca_file", True)
    assert list(Postfix(host, {"oauth": "sasl-xoauth2"}).problems(service(ca_file="/ca.pem"))) == []


def test_a_ca_file_that_is_no_file_is_told_with_everything_else(tmp_path: Path) -> None:
    (tmp_path / "etc" / "ssl").mkdir(parents=True)
    (tmp_path / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    form = {**CLIENT, "host": "relay.example.com", "security": "tls", "port": 99999, "ca_file": "/etc/ssl"}
    place = {"backend": "postfix", "root": str(tmp_path)}
    result = enforce({**form, **place, "backend_options": {"oauth": "pipe"}}, PosixHost(str(tmp_path)), check=True)
    assert {"port", "ca_file"} <= {problem["option"] for problem in result["problems"]}


def test_what_postfix_own_client_would_have_rewritten_is_told() -> None:
    host = live("smtp_generic_maps = hash:/etc/postfix/generic\n")
    for wanted, told in ((service(), True), (service(from_address="own@example.net"), False), (other(), False)):
        backend = Postfix(host)
        observed = backend.read("default")
        backend.desired(wanted, "default", observed)
        assert any("smtp_generic_maps" in warning for warning in observed.warnings) == told


@pytest.mark.parametrize(
    ("options", "there", "named"),
    [
        ({}, ["msmtp"], ""),
        ({}, [], "msmtp"),
        ({"oauth": "pipe"}, ["library"], "msmtp"),
        ({}, ["library"], ""),
        ({"oauth": "sasl-xoauth2"}, ["msmtp"], "sasl-xoauth2"),
    ],
)
def test_what_is_not_installed_is_named(options: dict[str, Any], there: list[str], named: str) -> None:
    host = live()
    if "msmtp" not in there:
        del host.programs["msmtp"]
    if "library" in there:
        host.put(LIBRARY, b"\x7fELF")
    problems = list(Postfix(host, options).not_installed(service()))
    assert [named in problem.problem for problem in problems] == ([True] if named else [])
    assert list(Postfix(host, options).not_installed(other(**PASSWORD))) == []


def test_a_token_longer_than_msmtp_can_send_is_known() -> None:
    host = tree()
    assert Postfix(host).longest_bearer() == 3057
    host.put(LIBRARY, b"\x7fELF")
    assert Postfix(host).longest_bearer() == 0


# -- judging and following ---------------------------------------------------------------------------------------------


def test_msmtp_judges_its_candidate() -> None:
    host = live()
    path = f"{FILES}default.a{CONFIG}"
    deploy(host, service())
    host.put("/staged", host.files[path])
    assert postfix_running.check(Postfix(host), {path: "/staged"}) == []
    host.put("/sys/kernel/security/apparmor/profiles", "msmtp//helpers (enforce)\nmsmtp (enforce)\n")
    (caution,) = postfix_running.check(Postfix(host), {path: "/staged"})
    assert f"{FILES}*{CONFIG} r," in caution
    host.programs["msmtp"] = Completed(78, "", "msmtp: /staged: line 9: invalid argument xoauth2 for command auth\n")
    with pytest.raises(StepFailed, match=r"msmtp refuses the new .*: line 9: invalid argument"):
        postfix_running.check(Postfix(host), {path: "/staged"})
    del host.programs["msmtp"]
    (caution,) = postfix_running.check(Postfix(host), {path: "/staged"})
    assert "not in the tree" in caution


PIPE = "fleetmail-default.a"
NAMED = "host postfix/cleanup[1]: 4F3A: message-id=<id@host>\n"
TO = "host postfix/pipe[2]: 4F3A: to=<a@x>, relay={}, delay=1, dsn=2.0.0, status={} ({})\n"


@pytest.mark.parametrize(
    ("relay", "status", "words", "sent", "reply"),
    [
        (PIPE, "sent", f"delivered via {PIPE} service (250 2.0.0 queued )", True, "250 2.0.0 queued"),
        (PIPE, "deferred", "r said: 535 5.7.8 no (auth)", False, "a@x: deferred: r said: 535 5.7.8 no (auth)"),
        (PIPE, "bounced", "r said: 550 no", False, "a@x: bounced: r said: 550 no"),
        ("maildrop", "sent", "delivered via maildrop service", False, "a@x: delivered on this host, not by the relay"),
    ],
)  # fmt: skip
def test_a_mail_is_followed_through_the_pipe(relay: str, status: str, words: str, sent: bool, reply: str) -> None:
    found, _ended = postfix_running.followed(NAMED + TO.format(relay, status, words), "<id@host>", ["a@x"])
    assert (found.sent, found.reply[: len(reply)]) == (sent, reply)


def test_a_pipe_that_cannot_start_is_a_complaint() -> None:
    line = f"host postfix/pipe[1]: fatal: get_service_attr: unknown username: {ACCOUNT}"
    assert postfix_running.complaints(line) == line.split(": ", 1)[1]
