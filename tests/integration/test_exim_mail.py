# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mail through real Exim: over the security and with the login that were asked for, or not at all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from integration.exim_machine import CREDENTIALS, LAYOUTS, LOGIN, PASSWORD, PORTS, Machine, form, machine
from lab.authority import Authority, Certificate
from lab.layers import why_unavailable
from lab.network import RELAY6_ADDRESS, RELAY6_NAME, RELAY_ADDRESS
from lab.relay import Relay, listeners
from lab.relay_postfix import POSTFIX_RELAY_NAME, PostfixRelay
from lab.tree import RELAY_NAME

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends import exim_files
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends.exim import Exim

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "the lab is there")

ENVELOPE = "hosts@example.test"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module", params=LAYOUTS[:1])
def started(request: pytest.FixtureRequest, authority: Authority) -> Iterator[Machine]:
    with machine(authority, request.param) as found:
        yield found


@pytest.fixture
def host(started: Machine) -> Machine:
    return started.reset()


OTHER_PORTS = {"none": 1025, "starttls": 1587, "tls": 1465}


def other_relay(host: Machine, certificate: Certificate, address: str = RELAY_ADDRESS) -> Relay:
    """One more relay beside the usual one, on OTHER_PORTS."""
    relay = Relay(listeners(certificate, address, *OTHER_PORTS.values()), users={"fleet": PASSWORD}, auth_required=True)
    return relay.start(in_net_of=host.tree)


# -- the matrix ------------------------------------------------------------------------------------------------------

MATRIX = [("monolithic", security, offered) for security in PORTS for offered in ("", "PLAIN", "LOGIN")]
MATRIX += [("split", security, "PLAIN") for security in PORTS]


@pytest.mark.parametrize(("started", "security", "offered"), MATRIX, indirect=["started"])
def test_mail_arrives_over_the_security_and_with_the_login_that_were_asked_for(
    host: Machine, security: str, offered: str
) -> None:
    host.relay.change(mechanisms=[offered or "PLAIN"], auth_required=bool(offered))
    host.applied(form(security, from_address=ENVELOPE, **(LOGIN if offered else {})))
    host.send()
    message = host.relay.wait_for_message()
    assert message.sender == ENVELOPE
    assert message.email["From"] == f"Someone <{ENVELOPE}>"
    assert message.data.endswith(b"hello\r\n.dot\r\n")
    assert (message.tls is None) == (security == "none")
    (session,) = host.relay.sessions()
    assert session.listener.startswith(security)
    assert session.tls is None or session.tls["server_name"] == RELAY_NAME
    attempts = [(attempt.user, attempt.secret, attempt.tls) for attempt in session.auths]
    assert attempts == ([(b"fleet", PASSWORD.encode(), security != "none")] if offered else [])


@pytest.mark.parametrize("security", PORTS)
@pytest.mark.parametrize("login", [{}, {**LOGIN, "password": "plain words"}], ids=["none", "password"])
def test_mail_arrives_at_postfix_and_dovecot(
    host: Machine, authority: Authority, security: str, login: dict[str, str]
) -> None:
    certificate = authority.good(POSTFIX_RELAY_NAME)
    users = {"fleet": "plain words"}
    with PostfixRelay(certificate, host.tree.network, users, auth_required=bool(login)) as relay:
        host.applied(form(security, host=POSTFIX_RELAY_NAME, from_address=ENVELOPE, **login))
        host.send()
        message = relay.wait_for_message()
        assert message.sender == ENVELOPE
        assert (message.tls is None) == (security == "none")
        assert message.auth_user == (b"fleet" if login else None)


@pytest.mark.parametrize("fault", ["wrong_name", "expired", "from_unknown_ca"])
def test_a_bad_certificate_is_refused_and_no_credential_sent(host: Machine, authority: Authority, fault: str) -> None:
    bad = authority.wrong_name() if fault == "wrong_name" else getattr(authority, fault)(RELAY_NAME)
    with other_relay(host, bad) as relay:
        for security in ("starttls", "tls"):
            service = form(security, port=OTHER_PORTS[security], **LOGIN)
            host.applied(service)
            host.send()
            assert "certificate verification failed" in host.tree.log()
            (session,) = relay.sessions()
            assert not session.saw_credentials
            assert not session.messages
            host.applied({**service, "validate_certs": False})
            assert relay.wait_for_message().tls
            host.wait_for_empty_queue()
            host.shell("rm -f /var/log/exim4/*")
            relay.forget()


def test_a_stripped_starttls_is_refused_and_no_credential_sent(host: Machine) -> None:
    host.applied(form("starttls", port=PORTS["none"], **LOGIN))
    host.send()
    assert "TLS" in host.tree.log()
    (session,) = host.relay.sessions()
    assert not session.saw_credentials
    assert not session.messages


def test_the_systems_certificates_are_used_without_a_ca_file(host: Machine, authority: Authority) -> None:
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    distributed = host.tree.read(bundle)
    host.applied({**form(), "ca_file": ""})
    host.send()
    assert "certificate verification failed" in host.tree.log()
    host.tree.write(bundle, distributed + authority.ca_file.read_bytes())
    host.shell("exim4 -qf")
    assert host.relay.wait_for_message().tls
    host.tree.write(bundle, distributed)


# -- the name of the relay -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_dns", [False, True])
def test_a_relay_that_is_an_alias_gets_the_login_and_is_judged_by_the_name_that_was_given(
    host: Machine, authority: Authority, by_dns: bool
) -> None:
    """As smtp.office365.com is: Exim then looks for the login of the name that the alias leads to."""
    real = "relay-17.cloud.example.net"
    host.relay.change(auth_required=True)
    if by_dns:
        host.shell("sed -i /relay.example.test/d /etc/hosts")
        answer = f"--cname={RELAY_NAME},{real} --host-record={real},{RELAY_ADDRESS}"
        host.shell("kill $(cat /run/dnsmasq.pid); while pgrep -x dnsmasq; do sleep 0.01; done")
        host.shell(f"dnsmasq --user=root --conf-file=/dev/null --pid-file=/run/dnsmasq.pid --no-resolv {answer}")
    else:
        host.shell(f"sed -i 's/^.*relay.example.test/{RELAY_ADDRESS} {real} {RELAY_NAME}/' /etc/hosts")
    assert host.shell(f"getent ahosts {RELAY_NAME}").split()[2] == real
    try:
        host.applied(form(**LOGIN))
        host.send()
        assert host.relay.wait_for_message().auth_user == b"fleet"
        assert host.drift(form(**LOGIN)) == {}
    finally:
        host.tree.add_name(RELAY_NAME, RELAY_ADDRESS)


@pytest.mark.parametrize("address", [RELAY_ADDRESS, RELAY6_ADDRESS])
def test_a_relay_may_be_given_by_its_address(host: Machine, authority: Authority, address: str) -> None:
    with other_relay(host, authority.good(RELAY6_NAME, address), address) as relay:
        service = form(host=address, port=OTHER_PORTS["starttls"], **LOGIN)
        host.applied(service)
        host.send()
        assert relay.wait_for_message().auth_user == b"fleet"
        assert host.drift(service) == {}


# -- a refused login -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("started", LAYOUTS, indirect=True)
def test_a_refused_or_missing_login_waits_instead_of_bouncing(host: Machine) -> None:
    host.relay.change(auth_required=True, users={"fleet": "another one"})
    host.applied(form(**LOGIN))
    for spoil in ("true", f"chmod 600 {CREDENTIALS}", f"sed -i '/^[*]:/d' {CREDENTIALS}", f"rm {CREDENTIALS}"):
        host.shell(f"{spoil}; rm -f /var/spool/exim4/db/*")
        host.send()
    assert host.queue() == 4
    assert "** " not in host.tree.log()
    host.relay.change(auth_required=True, users={"fleet": PASSWORD})
    host.applied(form(**LOGIN))
    host.relay.wait_for_message(count=4)
    host.wait_for_empty_queue()


# -- passwords -------------------------------------------------------------------------------------------------------

ASCII = "".join(chr(code) for code in range(32, 127))
WORDS = {
    "all of ASCII": ASCII,
    "backwards": ASCII[:0:-1],
    "UTF-8": "pässwörd€𝄞\u2028\u00a0\u0085x",
    "tabs": "\tin\tand out",
    "quotes around": '"quoted"',
    "a backslash last": "pass\\",
    "like an expansion": "${lookup{x}lsearch{/etc/passwd}}$tod_log\\N$1\\x41",
    "like our marks": "# END fleetmail.smtp default",
    "carets": "a^b^^c^^^",
    "colons": ":a::b:",
    "1,500 of everything": ("x \\\"'" + ASCII + "\tö") * 15 + ".",
}


def _around(option: str, character: str) -> str:
    """A text with the character in it, and at its ends where the backend does not refuse it there."""
    one, two = character, character * 2
    texts = (f"{one}a{two}b{one}", f"{one}a{two}b", f"a{two}b{one}", f"a{two}b")
    return next((text for text in texts if carried(option, text)), "")


def carried(option: str, text: str) -> bool:
    return not any(rule.broken_by(text) for rule in Exim.capabilities.rules if rule.option == option)


@pytest.mark.parametrize(
    ("mechanism", "names"), [("PLAIN", list(WORDS)), ("LOGIN", ["all of ASCII", "carets", "colons"])]
)
def test_the_relay_sees_the_very_bytes(host: Machine, mechanism: str, names: list[str]) -> None:
    for name, password in ((name, WORDS[name]) for name in names):
        options = form(auth_type="password", username="fleet", password=password)
        host.relay.change(users={"fleet": password}, mechanisms=[mechanism], auth_required=True)
        host.relay.forget()
        result = host.applied(options)
        host.send()
        host.relay.wait_for_message()
        (attempt,) = host.relay.sessions()[-1].auths
        assert (name, attempt.user, attempt.secret) == (name, b"fleet", password.encode())
        assert host.drift(options) == {}, name
        assert password not in str(result), name


def test_every_printable_character_anywhere_in_name_and_password_or_a_refusal(host: Machine) -> None:
    host.relay.change(auth_reply="235 2.7.0 whoever you are")
    host.applied(form("none", **LOGIN))
    text = host.tree.read(CREDENTIALS).decode()
    pairs = [(_around("username", c), _around("password", c)) for c in ASCII + "öß€\u00a0"]
    pairs = [(user, password) for user, password in pairs if user]  # a colon fits no name
    assert len(pairs) == len(ASCII) + 3
    for user, password in pairs:
        login = exim_files.put_credentials(text, "default", exim_files.credential_line("*", user, password))
        host.tree.inside(CREDENTIALS).write_text(login, newline="")  # the very file: its mode and owner stay
        host.tree.run(["exim4", "-odf", "-i", "x@example.org"], b"\nhi\n")
    seen = [(attempt.user, attempt.secret) for session in host.relay.sessions() for attempt in session.auths]
    assert seen == [(user.encode(), password.encode()) for user, password in pairs]


@pytest.mark.parametrize(
    "login",
    [
        {"username": "a:b"},
        {"username": "^a"},
        {"username": " a"},
        {"password": "^a"},
        {"password": "a "},
        {"password": "a\t"},
    ],
    ids=str,
)
def test_what_is_refused_would_really_have_gone_wrong(host: Machine, login: dict[str, str]) -> None:
    (option,) = login
    assert [one["option"] for one in host.enforced(form(**{**LOGIN, **login}))["problems"]] == [option]
    host.relay.change(auth_reply="235 2.7.0 whoever you are")
    host.applied(form("none", **LOGIN))
    user, password = {"username": "u", "password": "p", **login}.values()
    line = exim_files.credential_line("*", user, password)
    host.tree.inside(CREDENTIALS).write_text(line)
    host.tree.run(["exim4", "-odf", "-i", "x@example.org"], b"\nhi\n")
    attempts = [(one.user, one.secret) for session in host.relay.sessions() for one in session.auths]
    assert attempts != [(user.encode(), password.encode())]


# -- the test send through the host's own software -------------------------------------------------------------------


def test_a_test_send_is_followed_to_the_relays_answer(host: Machine) -> None:
    mail = {"to": ["x@example.org", "y@example.org"], "via": "mta", "timeout": 10}
    sent = host.applied(form(**LOGIN, test_send=mail))["test_send"]
    assert sent["sent"]
    assert sent["reply"].startswith("250 2.0.0 Queued as")
    assert host.relay.wait_for_message().recipients == ["x@example.org", "y@example.org"]
    host.relay.change(users={"fleet": PASSWORD}, rcpt_replies={"y@example.org": "550 5.1.1 no such user"})
    refused = host.enforced(form("tls", **LOGIN, test_send=mail))
    assert refused["rolled_back"]
    assert "550 5.1.1 no such user" in refused["msg"]
    host.relay.change(users={"fleet": PASSWORD})
    here = host.enforced(form("tls", **LOGIN, test_send={**mail, "to": ["user@client.example.test"]}))
    assert "not by the relay" in here["msg"]


def test_an_earlier_failure_does_not_delay_the_test_send(host: Machine) -> None:
    """Exim remembers for a quarter of an hour that the relay could not be used."""
    host.relay.change(auth_required=True)
    host.applied(form(**{**LOGIN, "password": "wrong"}))
    host.send()
    assert "authentication required but" in host.tree.log()
    mail = {"to": ["x@example.org"], "via": "mta", "timeout": 10}
    assert host.applied(form(**LOGIN, test_send=mail))["test_send"]["sent"]


def test_a_loopback_relay_is_refused_because_exim_freezes_its_mail(host: Machine) -> None:
    (problem,) = host.enforced(form("none", host="127.0.0.1", port=2525))["problems"]
    assert problem["option"] == "host"
    host.applied(form("none"))
    host.shell("sed -i s/relay.example.test::25/127.0.0.1::2525/ /etc/exim4/update-exim4.conf.conf; update-exim4.conf")
    host.send()
    assert "Frozen" in host.tree.log()
