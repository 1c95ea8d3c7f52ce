# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real Postfix sends real mail: securities and logins, every way to be refused, every byte of passwords."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from integration.postfix_machine import CA_FILE, LOGIN, OWN, PASSWORD, Machine, form, machine
from lab.authority import Authority
from lab.layers import why_unavailable
from lab.playbook import Played, play
from lab.relay import Listener, Relay, listeners
from lab.relay_postfix import POSTFIX_RELAY_NAME, PostfixRelay
from lab.tree import RELAY6_ADDRESS, RELAY6_NAME, RELAY_ADDRESS, RELAY_NAME, Tree

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "the lab is there")

LONG_NAME = f"{'long' * 15}.{'x' * 63}.{'y' * 63}.example.test"
BAD_NAME = "bad.example.test"
FAULTS = {
    "wrong name": "not verified",
    "unknown CA": "not verified",
    "expired": "not verified",
    "STARTTLS stripped": "TLS is required, but was not offered",
}
ADDRESSES = {fault: f"10.77.0.{number}" for number, fault in enumerate(FAULTS, 40)}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def started(authority: Authority) -> Iterator[Machine]:
    with machine(authority, tuple(ADDRESSES.values()), names={LONG_NAME: RELAY_ADDRESS}) as found:
        yield found


@pytest.fixture
def host(started: Machine) -> Machine:
    return started.reset()


# -- check, real, check, real; then Postfix is asked -----------------------------------------------------------------


def test_the_sequence_and_what_postfix_says_of_it(host: Machine) -> None:
    options = form(**LOGIN, from_address=OWN, timeout=20)
    before = host.snapshot()
    planned = host.enforce(options, check=True)
    assert host.snapshot() == before
    real = host.enforce(options)
    assert [real[key] for key in ("changed", "drift", "diff")] == [planned[key] for key in ("changed", "drift", "diff")]
    assert {one["field"] for one in real["drift"]} == {
        *("host", "port", "security", "auth_type", "username", "password", "ca_file", "validate_certs", "timeout"),
        "from_address",
    }
    after = host.snapshot()
    assert host.drift(options) == {}
    assert not host.enforce(options)["changed"]
    assert host.snapshot() == after  # times too
    expected = {
        "relayhost": f"[{RELAY_NAME}]:587", "smtp_tls_security_level": "secure", "smtp_tls_wrappermode": "no",
        "smtp_tls_CAfile": CA_FILE, "smtp_sasl_auth_enable": "yes", "smtp_sasl_mechanism_filter": "plain, login",
        "smtp_connect_timeout": "20s", "sender_canonical_maps": f"regexp:{{ {{ /@/ {OWN} }} }}",
    }  # fmt: skip
    assert host.parameters(*expected) == expected
    maps = host.parameters("smtp_sasl_password_maps")["smtp_sasl_password_maps"]
    assert host.tree.output(["postmap", "-q", f"[{RELAY_NAME}]:587", maps]) == f"fleet:{PASSWORD}"
    assert PASSWORD not in str(planned) + str(real)


# -- the matrix ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("auth", ["none", "password"])
@pytest.mark.parametrize("security", ["none", "starttls", "tls"])
def test_mail_arrives_over_the_security_and_with_the_login_that_were_asked_for(
    host: Machine, security: str, auth: str
) -> None:
    host.relay.change(users={"fleet": PASSWORD}, auth_required=auth == "password")
    host.enforce(form(security, from_address=OWN, **(LOGIN if auth == "password" else {})))
    host.send(user="user")
    message = host.relay.wait_for_message()
    assert (message.sender, message.recipients) == (OWN, ["r@example.org"])
    assert message.email["From"] == f"Somebody <{OWN}>"
    assert message.data.endswith(b"hello\r\n")
    (session,) = host.relay.sessions()
    assert session.listener.startswith(security)
    assert (message.tls is None) == (security == "none")
    attempts = [(attempt.user, attempt.secret, attempt.tls) for attempt in session.auths]
    assert attempts == ([(b"fleet", PASSWORD.encode(), security != "none")] if auth == "password" else [])
    assert session.tls is None or session.tls["server_name"] == RELAY_NAME


def test_bounces_keep_their_empty_sender(host: Machine) -> None:
    host.relay.change(users={"fleet": PASSWORD}, rcpt_replies={"bad@example.org": "550 5.1.1 nobody of that name"})
    host.enforce(form(**LOGIN, from_address=OWN))
    host.send("app@elsewhere.example", "bad@example.org")
    message = host.relay.wait_for_message()
    assert (message.sender, message.recipients) == ("", [OWN])
    assert "nobody of that name" in message.data.decode()


def test_a_relay_that_only_etc_hosts_knows(host: Machine) -> None:
    for folder in ("/etc", "/var/spool/postfix/etc"):  # the name server is not told
        host.shell(f"echo {RELAY_ADDRESS} in-hosts.example.test >> {folder}/hosts")
    host.enforce({**form(**LOGIN, validate_certs=False), "host": "in-hosts.example.test"})
    host.send()
    assert host.relay.wait_for_message().auth_user == b"fleet"


def test_a_relay_that_knows_only_login_and_one_that_knows_neither(host: Machine) -> None:
    host.enforce(form(**LOGIN))
    host.relay.change(mechanisms=["LOGIN"], auth_required=True)
    host.send()
    host.relay.wait_for_message()
    assert [attempt.mechanism for attempt in host.relay.sessions()[0].auths] == ["LOGIN"]
    host.relay.forget()
    host.relay.change(mechanisms=["XOAUTH2"])
    host.refused("no compatible authentication mechanisms")
    assert not any(session.saw_credentials for session in host.relay.sessions())


def test_a_wrong_password_keeps_the_mail(host: Machine) -> None:
    host.enforce({**form(**LOGIN), "password": "another"})
    assert "535" in host.refused("SASL authentication failed")


@pytest.fixture(scope="module")
def real_relay(started: Machine, authority: Authority) -> Iterator[PostfixRelay]:
    relay = PostfixRelay(
        authority.good(POSTFIX_RELAY_NAME), started.tree.network, users={"fleet": PASSWORD}, auth_required=True
    )
    with relay as found:
        yield found


@pytest.mark.parametrize(("security", "mechanism"), [("starttls", "plain"), ("tls", "login")])
def test_another_postfix_with_dovecot_takes_it(
    host: Machine, real_relay: PostfixRelay, security: str, mechanism: str
) -> None:
    conf = real_relay.read("/etc/dovecot/dovecot.conf").decode()
    if mechanism == "login":
        conf = conf.replace("auth_mechanisms = plain login", "auth_mechanisms = login")
        real_relay.write("/etc/dovecot/dovecot.conf", conf)
        real_relay.run(["doveadm", "reload"])
    real_relay.forget()
    host.enforce({**form(security, **LOGIN, from_address=OWN), "host": POSTFIX_RELAY_NAME})
    host.send()
    message = real_relay.wait_for_message()
    assert (message.sender, message.auth_user) == (OWN, b"fleet")
    assert message.tls
    assert message.tls["version"] == "TLSv1.3"
    assert f"sasl_method={mechanism.upper()}" in real_relay.log()


# -- refused: no credential leaves, no mail is lost ------------------------------------------------------------------


@pytest.fixture(scope="module")
def bad_relay(started: Machine, authority: Authority) -> Iterator[Relay]:
    """An address for each fault, with the usual ports."""
    made = {
        "wrong name": authority.wrong_name(),
        "unknown CA": authority.from_unknown_ca(BAD_NAME),
        "expired": authority.expired(BAD_NAME),
    }
    places = [place for fault, one in made.items() for place in listeners(one, ADDRESSES[fault])]
    places.append(Listener(ADDRESSES["STARTTLS stripped"], 587, "none"))
    with Relay(places, users={"fleet": PASSWORD}).start(in_net_of=started.tree) as relay:
        yield relay


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_relay_that_is_not_who_it_should_be_gets_nothing(host: Machine, bad_relay: Relay, security: str) -> None:
    options = {**form(security, **LOGIN), "host": BAD_NAME}
    host.enforce(options)
    for fault, why in FAULTS.items():
        if (fault, security) == ("STARTTLS stripped", "tls"):
            continue
        bad_relay.forget()
        host.tree.add_name(BAD_NAME, ADDRESSES[fault])
        host.shell("postsuper -d ALL")
        host.refused(why)
        assert bad_relay.sessions(), fault
        assert not any(session.saw_credentials or session.messages for session in bad_relay.sessions()), fault


def test_without_verification_a_relay_may_have_any_certificate_but_needs_one(host: Machine, bad_relay: Relay) -> None:
    bad_relay.forget()
    host.tree.add_name(BAD_NAME, ADDRESSES["STARTTLS stripped"])
    host.enforce({**form(**LOGIN, validate_certs=False), "host": BAD_NAME})
    host.refused(FAULTS["STARTTLS stripped"])
    assert not any(session.saw_credentials or session.messages for session in bad_relay.sessions())
    host.tree.add_name(BAD_NAME, ADDRESSES["wrong name"])
    host.shell("postqueue -f")
    message = bad_relay.wait_for_message()
    assert message.tls
    assert message.auth_user == b"fleet"


# -- hosts that are no plain names -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other_relay(started: Machine, authority: Authority) -> Iterator[Relay]:
    """Listeners at odd ports, by IPv4, by IPv6 and by a long name, and one whose address is not in its certificate."""
    named = authority.good(RELAY_NAME, RELAY6_NAME, LONG_NAME, RELAY_ADDRESS, RELAY6_ADDRESS)
    unnamed = authority.good(RELAY6_NAME)
    places = [*listeners(named, RELAY6_ADDRESS), *listeners(named, RELAY_ADDRESS, 4025, 4587, 4465)]
    places += listeners(unnamed, RELAY_ADDRESS, 5025, 5587, 5465)
    with Relay(places, users={"fleet": PASSWORD}, auth_required=True).start(in_net_of=started.tree) as relay:
        yield relay


@pytest.mark.parametrize(
    ("where", "security", "port"),
    [
        (RELAY6_ADDRESS, "starttls", None),
        (f"[{RELAY6_ADDRESS}]", "tls", 465),
        (RELAY6_NAME, "tls", None),
        (RELAY_ADDRESS, "starttls", 4587),
        (LONG_NAME, "starttls", 4587),
    ],
)
def test_hosts_by_address_and_by_long_names(
    host: Machine, other_relay: Relay, where: str, security: str, port: int | None
) -> None:
    other_relay.forget()
    options = {**form(security, **LOGIN), "host": where, "port": port}
    host.enforce(options)
    assert host.drift(options) == {}
    host.send()
    message = other_relay.wait_for_message()
    assert message.auth_user == b"fleet"
    (session,) = other_relay.sessions()
    # a server name is never an address (RFC 6066 3)
    assert (message.tls or {})["server_name"] == (where if "example" in where else None)
    assert session.listener.endswith(f":{port or {'starttls': 587, 'tls': 465}[security]}")


def test_an_address_that_is_not_in_the_certificate_is_refused(host: Machine, other_relay: Relay) -> None:
    other_relay.forget()
    host.enforce({**form(**LOGIN), "host": RELAY_ADDRESS, "port": 5587})
    host.refused("not verified")
    assert not any(session.saw_credentials for session in other_relay.sessions())


def test_an_address_that_postfix_may_not_use_is_refused(host: Machine) -> None:
    host.shell("postconf -e inet_protocols=ipv4")
    result = host.failure({**form(), "host": RELAY6_ADDRESS})
    assert result["problems"][0]["option"] == "host"
    assert "inet_protocols = ipv4" in result["msg"]


# -- passwords -------------------------------------------------------------------------------------------------------

ASCII = "".join(chr(code) for code in range(32, 127))
WORDS = (
    f"  {ASCII}\tp\u00e4ss\u20ac\U0001d11e\u2028\u00a0\u0085:$x$$${{y}} # END fleetmail.smtp default\\",
    f"#{ASCII[::-1]}\u00a0",
    ("^" + ASCII + "\t\u00f6") * 15 + "x" * 15,
)


def test_the_relay_sees_the_very_bytes(host: Machine) -> None:
    host.enforce(form(**LOGIN))
    assert len(WORDS[2].encode()) == 1500
    for password in WORDS:
        host.relay.change(users={"fleet": password}, auth_required=True)
        host.relay.forget()
        options = {**form(**LOGIN), "password": password}
        result = host.enforce(options)
        assert [one["field"] for one in result["drift"]] == ["password"]
        assert password not in str(result)
        host.send()
        host.relay.wait_for_message()
        (attempt,) = host.relay.sessions()[0].auths
        assert (attempt.user, attempt.secret) == (b"fleet", password.encode())
        assert host.drift(options) == {}


def test_odd_user_names(host: Machine) -> None:
    name = "fl €et\"'\\#$%&@example.test"
    host.relay.change(users={name: PASSWORD}, auth_required=True)
    host.enforce({**form(**LOGIN), "username": name})
    host.send()
    assert host.relay.wait_for_message().auth_user == name.encode()


@pytest.mark.parametrize(
    ("options", "option", "why"),
    [
        ({"password": "blank at the end "}, "password", "strips"),
        ({"password": "tab at the end\t"}, "password", "strips"),
        ({"password": "two\nlines"}, "password", "line break"),
        ({"username": "a:b"}, "username", "':'"),
        ({"username": " a"}, "username", "white space"),
        ({"username": "a "}, "username", "white space"),
        ({"from_address": "a${x}@example.test"}, "from_address", "$ {"),
        ({"ca_file": "/etc/ssl/own ca.pem"}, "ca_file", "white space"),
    ],
)
def test_what_postfix_cannot_carry_is_refused_by_name(
    host: Machine, options: dict[str, Any], option: str, why: str
) -> None:
    result = host.failure({**form(**LOGIN), **options})
    (problem,) = [one for one in result["problems"] if one["option"] == option and why in one["problem"]]
    assert problem["hint"]


# -- through Ansible -------------------------------------------------------------------------------------------------


def played(folder: Path, tasks: list[dict[str, Any]], tree: Tree, *arguments: str) -> Played:
    (folder / "ansible.cfg").touch()
    return play(folder, tasks, [tree], arguments=arguments, environment={"ANSIBLE_CONFIG": str(folder / "ansible.cfg")})


def test_the_module_in_a_play(host: Machine, tmp_path: Path) -> None:
    options = {**form(**LOGIN, from_address=OWN), "test_send": {"to": ["r@example.org"], "via": "mta"}}
    task = {"name": "smtp", "fleetmail.smtp.smtp_service": {**options, "verify": "auth"}}
    checked = played(tmp_path, [task], host.tree, "--check", "--diff")
    assert checked.code == 0, checked.out
    assert checked.of("smtp")["changed"]
    assert not host.tree.exists("/etc/postfix/fleetmail-default.a")
    real = played(tmp_path, [task, {**task, "name": "again"}], host.tree, "--diff")
    assert real.code == 0, real.out
    first, second = real.of("smtp"), real.of("again")
    assert first["changed"]
    assert first["verification"]["ok"]
    assert first["test_send"]["sent"]
    assert not second["changed"]
    assert second["test_send"]["skipped"]
    assert host.relay.wait_for_message().email["To"] == "r@example.org"
    assert not any(PASSWORD in text for text in (real.out, real.err, checked.out, str(real.results)))


def test_a_bare_host_gives_a_plan_in_check_mode_and_a_problem_otherwise(tmp_path: Path) -> None:
    with Tree("bare") as bare:
        task = {"name": "smtp", "fleetmail.smtp.smtp_service": {**form(**LOGIN), "backend": "postfix"}}
        checked = played(tmp_path, [task], bare, "--check", "--diff")
        assert checked.code == 0, checked.out
        result = checked.of("smtp")
        assert result["changed"]
        drift = {one["field"]: (one["before"], one["after"]) for one in result["drift"]}
        assert drift["host"] == (None, RELAY_NAME)
        assert drift["running"] == (False, True)
        assert {one["action"] for one in result["files"]} == {"created"}
        real = played(tmp_path, [task], bare)
        assert real.code == 2
        assert {one["option"] for one in real.of("smtp")["problems"]} == {"backend", "ca_file"}
        assert "postfix is not installed" in real.of("smtp")["msg"]
        assert not bare.exists("/var/lib/fleetmail")
