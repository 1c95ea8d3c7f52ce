# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import contextlib
import ipaddress
import json
import re
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import trustme
from lab.hostile import Hostile
from lab.relay import Relay, listeners

from ansible_collections.fleetmail.smtp.plugins.module_utils.core import conversation, tls
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.probe import LEVELS, Bearer, Password, Target, probe

AUTH = Password("jürgen", "pä ß\t€ wörd")
PLAIN_AUTH = b"AUTH PLAIN " + base64.b64encode("\0jürgen\0pä ß\t€ wörd".encode())
INSIDE = b"250-relay\r\n250-AUTH PLAIN LOGIN\r\n250 8BITMIME\r\n"
OUTSIDE = b"250-relay\r\n250-STARTTLS\r\n250 8BITMIME\r\n"
STARTTLS = {"EHLO": OUTSIDE, "STARTTLS": "TLS", "EHLO_TLS": INSIDE}


def target(server, **changes) -> Target:
    settings = {"host": "localhost", "port": server.port, "timeout": 3, "sender": "me@example.test", **changes}
    return Target(**settings)


def names(report) -> list[str]:
    return [step.name for step in report.steps]


def secured(security, relay, context):
    """A good relay for ``security`` and what a target needs for it."""
    if security == "none":
        return relay()
    if security == "starttls":
        return relay(context=context, **STARTTLS)
    return relay(context=context, implicit=True, EHLO=INSIDE)


# Against a real server


@pytest.fixture(scope="module")
def good_relay(authority):
    users = {"jürgen": "pä ß\t€ wörd", "long": "x" * 1500}
    tokens = {"box@example.test": "ya29." + "t" * 2000}
    certificate = authority.good("localhost", "127.0.0.1")
    with Relay(
        listeners(certificate, "127.0.0.1", 0, 0, 0), users=users, tokens=tokens, auth_required=True
    ).start() as relay:
        yield relay


@pytest.mark.parametrize("security", ["none", "starttls", "tls"])
@pytest.mark.parametrize(
    ("mechanism", "auth"),
    [
        ("PLAIN", AUTH),
        ("LOGIN", AUTH),
        ("PLAIN", Password("long", "x" * 1500)),
        ("XOAUTH2", Bearer("box@example.test", "ya29." + "t" * 2000)),
        ("OAUTHBEARER", Bearer("box@example.test", "ya29." + "t" * 2000)),
    ],
)
def test_a_real_server_takes_the_very_bytes(good_relay, ca_file, security, mechanism, auth):
    good_relay.change(mechanisms=[mechanism])
    good_relay.forget()
    at = Target(
        "localhost", good_relay.port(security), security, ca_file, timeout=5, auth=auth, recipient="you@example.test"
    )
    report = probe(at, "recipient")
    assert (report.ok, report.problem) == (True, "")
    (attempt,) = good_relay.sessions()[-1].auths
    secret = auth.password if isinstance(auth, Password) else auth.token
    assert (attempt.mechanism, attempt.user, attempt.secret) == (mechanism, auth.username.encode(), secret.encode())
    assert (attempt.tls, attempt.accepted) == (security != "none", True)
    assert good_relay.messages() == []


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER"])
def test_a_real_server_refuses(good_relay, ca_file, mechanism):
    good_relay.change(mechanisms=[mechanism])
    auth = Bearer("box@example.test", "stale") if "AUTH" in mechanism else Password("jürgen", "wrong")
    at = Target("localhost", good_relay.port("starttls"), "starttls", ca_file, timeout=5, auth=auth)
    report = probe(at, "auth")
    assert (report.ok, report.reached) == (False, "tls")
    assert report.cause == ("token_refused" if "AUTH" in mechanism else "credentials_refused")


# What each level does


@pytest.mark.parametrize("security", ["none", "starttls", "tls"])
@pytest.mark.parametrize("level", LEVELS)
def test_levels(relay, server_context, ca_file, security, level):
    server = secured(security, relay, server_context)
    report = probe(target(server, security=security, ca_file=ca_file, auth=AUTH, recipient="you@example.test"), level)
    start = {
        "none": ["connect", "ehlo", "tls"],
        "starttls": ["connect", "ehlo", "tls"],
        "tls": ["connect", "tls", "ehlo"],
    }
    steps = {
        "none": [],
        "connect": start["tls"] if security == "tls" else ["connect", "ehlo"],
        "tls": start[security],
        "auth": [*start[security], "auth"],
        "recipient": [*start[security], "auth", "mail", "rcpt", "rset"],
    }[level]
    assert names(report) == (steps and [*steps, "quit"])
    assert (report.ok, report.level, report.reached) == (True, level, level)
    assert (report.problem, report.cause) == ("", "")
    assert all(step.ok and isinstance(step.ms, int) for step in report.steps)
    assert (PLAIN_AUTH in server.heard) == (level in ("auth", "recipient"))
    assert [line for line in server.heard if line[:4] in (b"MAIL", b"RCPT", b"DATA")] == (
        [b"MAIL FROM:<me@example.test>", b"RCPT TO:<you@example.test>"] if level == "recipient" else []
    )


def test_the_result_is_the_contract(relay, server_context, ca_file):
    server = secured("starttls", relay, server_context)
    result = probe(target(server, security="starttls", ca_file=ca_file, auth=AUTH), "auth").as_result()
    assert json.loads(json.dumps(result)) == result
    assert list(result) == ["level", "reached", "ok", "steps", "tls", "capabilities", "auth_mechanisms"]
    assert all(list(step) == ["name", "ok", "detail", "ms"] for step in result["steps"])
    assert {"version", "cipher", "subject", "issuer", "not_after", "days_left"} <= set(result["tls"])
    assert result["tls"]["version"] == "TLSv1.3"
    assert result["capabilities"] == ["AUTH PLAIN LOGIN", "8BITMIME"]
    assert result["auth_mechanisms"] == ["PLAIN", "LOGIN"]


def test_what_is_not_configured_passes_and_says_so(relay):
    server = relay(EHLO=b"250-relay\r\n250 STARTTLS\r\n")
    report = probe(target(server), "auth")
    assert (report.ok, report.reached, report.tls) == (True, "auth", {})
    details = {step.name: step.detail for step in report.steps}
    assert details["tls"] == "not encrypted, as security: none asks for; the relay offers STARTTLS"
    assert details["auth"].startswith("no credentials are set")


def test_level_recipient_wants_a_recipient(relay):
    report = probe(target(relay()), "recipient")
    assert (report.ok, report.reached, report.cause) == (False, "auth", "recipient_missing")
    assert "verify_recipient" in report.problem


@pytest.mark.parametrize(
    ("changes", "sender"),
    [
        ({"sender": "a@b.test"}, b"<a@b.test>"),
        ({"sender": "", "auth": Password("box@b.test", "x")}, b"<box@b.test>"),
        ({"sender": "", "auth": Password("apikey", "x")}, b"<root@web1>"),
        ({"sender": ""}, b"<root@web1>"),
        ({"sender": "x@bücher.test"}, b"<x@xn--bcher-kva.test>"),
    ],
)
def test_the_sender_that_is_tried(relay, monkeypatch, changes, sender):
    monkeypatch.setattr("socket.gethostname", lambda: "web1")
    server = relay()
    assert probe(target(server, recipient="you@example.test", **changes), "recipient").ok
    assert b"MAIL FROM:" + sender in server.heard


@pytest.mark.parametrize(
    ("name", "helo", "said"),
    [("web1", "", "[127.0.0.1]"), ("web1.example.test", "", "web1.example.test"), ("web1", "mx.test", "mx.test")],
)
def test_the_name_that_is_said(relay, monkeypatch, name, helo, said):
    monkeypatch.setattr("socket.gethostname", lambda: name)
    server = relay()
    assert probe(target(server, helo=helo), "connect").ok
    assert server.heard[0] == f"EHLO {said}".encode()


# TLS


def context_of(certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.chain, certificate.key)
    return context


BAD_CERTIFICATES = {
    "certificate_name": (lambda ca: ca.wrong_name(), "other.example.test", "it has: other.example.test"),
    "certificate_expired": (lambda ca: ca.expired("localhost"), "localhost", "valid until 20"),
    "certificate_not_yet": (lambda ca: ca.not_yet_valid("localhost"), "localhost", "clock"),
    "certificate_unknown_ca": (lambda ca: ca.from_unknown_ca("localhost"), "localhost", "a CA that nobody trusts"),
}


@pytest.mark.parametrize("security", ["starttls", "tls"])
@pytest.mark.parametrize("cause", BAD_CERTIFICATES)
def test_a_bad_certificate_is_refused_described_and_no_credential_is_sent(relay, authority, ca_file, security, cause):
    issue, name, words = BAD_CERTIFICATES[cause]
    server = secured(security, relay, context_of(issue(authority)))
    report = probe(target(server, security=security, ca_file=ca_file, auth=AUTH), "auth")
    assert (report.ok, report.cause, report.reached) == (False, cause, "connect")
    assert words in report.problem
    assert names(report)[-1] == "tls"
    assert f"CN={name}" in report.tls["subject"]
    assert report.tls["names"] == [name]
    assert (report.tls["days_left"] < 0) is (cause == "certificate_expired")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", report.tls["not_after"])
    assert not [line for line in server.heard if line.startswith(b"AUTH")]


def test_a_certificate_that_is_signed_by_itself(relay, ca_file):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    alone = trustme.CA()
    with alone.cert_pem.tempfile() as chain, alone.private_key_pem.tempfile() as key:
        context.load_cert_chain(chain, key)
    report = probe(target(secured("tls", relay, context), security="tls", ca_file=ca_file, auth=AUTH), "auth")
    assert (report.ok, report.cause) == (False, "certificate_self_signed")
    assert report.tls["subject"] == report.tls["issuer"]


def test_without_verification_the_certificate_is_still_described(relay, authority):
    server = secured("starttls", relay, context_of(authority.ending(12.5, "nobody.example.test")))
    report = probe(target(server, security="starttls", validate_certs=False, auth=AUTH), "auth")
    assert report.ok
    assert (report.tls["names"], report.tls["days_left"]) == (["nobody.example.test"], 12)
    assert "not verified" in report.steps[2].detail
    assert PLAIN_AUTH in server.heard


def test_where_no_file_can_be_written_only_the_description_is_missing(relay, server_context, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", full)
    server = secured("starttls", relay, server_context)
    report = probe(target(server, security="starttls", validate_certs=False), "tls")
    assert (report.ok, report.tls["version"], report.tls["subject"], report.tls["days_left"]) == (
        True,
        "TLSv1.3",
        None,
        None,
    )


def test_an_address_is_checked_against_the_certificate(relay, server_context, ca_file, authority):
    server = secured("tls", relay, server_context)
    assert probe(target(server, host="127.0.0.1", security="tls", ca_file=ca_file), "tls").ok
    server = secured("tls", relay, context_of(authority.good("localhost")))
    assert probe(target(server, host="127.0.0.1", security="tls", ca_file=ca_file), "tls").cause == "certificate_name"


def test_a_dot_at_the_end_of_the_name(relay, server_context, ca_file, monkeypatch):
    look_up = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *args, **more: look_up(host.rstrip("."), *args, **more))
    server = secured("tls", relay, server_context)
    assert probe(target(server, host="localhost.", security="tls", ca_file=ca_file), "tls").ok


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "No such file"), ("", "no PEM certificate"), ("not a certificate", "no PEM certificate")],
)
def test_a_ca_file_that_is_none(relay, server_context, tmp_path, content, words):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    server = secured("starttls", relay, server_context)
    report = probe(target(server, security="starttls", ca_file=str(path), auth=AUTH), "auth")
    assert (report.ok, report.cause) == (False, "ca_file")
    assert str(path) in report.problem
    assert words in report.problem
    assert b"STARTTLS" not in server.heard


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_old_tls_is_refused(relay, authority, ca_file):
    context = context_of(authority.good("localhost"))
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    report = probe(target(secured("tls", relay, context), security="tls", ca_file=ca_file), "tls")
    assert (report.ok, report.cause) == (False, "tls_versions")
    assert tls.context(ca_file, True).minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_client_certificate_is_wanted(relay, authority, ca_file):
    context = context_of(authority.good("localhost"))
    context.load_verify_locations(ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    report = probe(target(secured("tls", relay, context), security="tls", ca_file=ca_file), "tls")
    assert (report.ok, report.cause) == (False, "client_certificate")


# The wrong kind of port


@pytest.mark.parametrize("security", ["none", "starttls"])
def test_a_port_that_speaks_tls_from_the_first_byte(relay, server_context, ca_file, security):
    server = secured("tls", relay, server_context)
    report = probe(target(server, security=security, ca_file=ca_file, auth=AUTH, timeout=0.5), "auth")
    assert (report.ok, report.cause, names(report)) == (False, "tls_first", ["connect"])
    assert "security: tls" in report.problem
    assert 390 < report.steps[0].ms < 500
    assert server.heard == []


def test_a_port_that_takes_one_silent_connection_only(relay):
    def handle(connection):
        connection.relay.stop_listening()

    assert probe(target(relay(handle)), "connect").cause == "closed_at_once"


def test_on_465_silence_is_understood_soon(relay, server_context, monkeypatch):
    server = secured("tls", relay, server_context)
    monkeypatch.setattr(conversation, "SUBMISSIONS", server.port)
    monkeypatch.setattr(conversation, "SOON", 0.1)
    began = time.monotonic()
    assert probe(target(server, security="starttls", timeout=20), "connect").cause == "tls_first"
    assert time.monotonic() - began < 1


def test_a_slow_greeting_on_465_is_waited_for(relay, monkeypatch):
    def slow(connection, _line):
        if connection.relay.connections == 1:
            connection.relay.over.wait(0.4)
        connection.say(b"220 at last\r\n")

    server = relay(GREETING=slow)
    monkeypatch.setattr(conversation, "SUBMISSIONS", server.port)
    monkeypatch.setattr(conversation, "SOON", 0.1)
    report = probe(target(server, timeout=3), "connect")
    assert (report.ok, server.connections) == (True, 2)
    assert report.steps[0].detail.endswith("220 at last")


def test_a_tls_port_that_hangs_up_on_silence(relay, server_context):
    def handle(connection):
        connection.sock.settimeout(0.1)
        connection.begin_tls()

    assert probe(target(relay(handle, context=server_context)), "connect").cause == "tls_first"


def test_a_port_that_answers_with_a_tls_alert(relay):
    assert probe(target(relay(GREETING=b"\x15\x03\x01\x00\x02\x02\x46")), "connect").cause == "tls_first"


def test_a_plain_port_where_tls_was_expected(relay, ca_file):
    server = relay(EHLO=OUTSIDE)
    report = probe(target(server, security="tls", ca_file=ca_file, auth=AUTH), "auth")
    assert (report.ok, report.cause) == (False, "plain_first")
    assert "security: starttls" in report.problem
    assert not [line for line in server.heard if line.startswith(b"AUTH")]


def test_starttls_stripped(relay, ca_file):
    server = relay(EHLO=b"250-relay\r\n250-XXXXXXXA\r\n250 AUTH PLAIN\r\n")
    report = probe(target(server, security="starttls", ca_file=ca_file, auth=AUTH, allow_cleartext=True), "auth")
    assert (report.ok, report.cause, report.reached) == (False, "starttls_absent", "connect")
    assert {line.split(b" ")[0] for line in server.heard} <= {b"EHLO", b"QUIT"}


def test_starttls_is_offered_but_not_done(relay, ca_file):
    server = relay(EHLO=OUTSIDE, STARTTLS=b"454 4.7.0 TLS not available due to local problem\r\n")
    report = probe(target(server, security="starttls", ca_file=ca_file, auth=AUTH), "auth")
    assert (report.ok, report.cause) == (False, "starttls_refused")
    assert "454 4.7.0 TLS not available" in report.problem


def test_starttls_injection(relay, ca_file):
    server = relay(EHLO=OUTSIDE, STARTTLS=b"220 go\r\n250 AUTH PLAIN\r\n")
    report = probe(target(server, security="starttls", ca_file=ca_file, auth=AUTH), "auth")
    assert (report.ok, report.cause) == (False, "injection")
    assert not [line for line in server.heard if line.startswith(b"AUTH")]


def test_auth_offered_in_clear_only_is_forgotten_in_tls(relay, server_context, ca_file):
    server = relay(
        context=server_context,
        EHLO=b"250-r\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n",
        STARTTLS="TLS",
        EHLO_TLS=b"250 r\r\n",
    )
    report = probe(target(server, security="starttls", ca_file=ca_file, auth=AUTH), "auth")
    assert (report.ok, report.cause, report.auth_mechanisms) == (False, "auth_absent", [])


# Credentials in the clear


@pytest.mark.parametrize(("allowed", "sent"), [(False, False), (True, True)])
def test_credentials_in_clear_text_only_where_they_are_allowed(relay, monkeypatch, allowed, sent):
    # stands for a relay that is not on this host, which a unit test cannot have
    monkeypatch.setattr(conversation, "ip_address", lambda _text: ipaddress.ip_address("192.0.2.25"))
    server = relay()
    report = probe(target(server, auth=AUTH, allow_cleartext=allowed), "auth")
    assert report.ok is sent
    assert report.cause == ("" if sent else "cleartext")
    assert (PLAIN_AUTH in server.heard) is sent


def test_credentials_never_leave_before_the_tls_that_is_wanted(relay):
    server = relay(EHLO=b"250-relay\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n")
    wanted = target(server, security="starttls", auth=AUTH, allow_cleartext=True)
    talk = conversation.Conversation(wanted, conversation.Envelope("", ()))
    assert not talk.run(["connect", "ehlo", "auth"])
    assert talk.cause == "cleartext"
    assert PLAIN_AUTH not in server.heard


def test_loopback_may_have_them(relay):
    assert probe(target(relay(), auth=AUTH), "auth").ok


# AUTH


def test_login_is_used_where_plain_is_not_offered(relay):
    def ask(connection, _line):
        connection.say(b"334 VXNlcm5hbWU6\r\n")
        assert connection.line() == base64.b64encode("jürgen".encode())
        connection.say(b"334 UGFzc3dvcmQ6\r\n")
        assert connection.line() == base64.b64encode("pä ß\t€ wörd".encode())
        connection.say(b"235 ok\r\n")

    report = probe(target(relay(EHLO=b"250-relay\r\n250 AUTH=LOGIN\r\n", AUTH=ask), auth=AUTH), "auth")
    assert (report.ok, report.auth_mechanisms) == (True, ["LOGIN"])
    assert report.steps[3].detail == "LOGIN: 235 ok"


@pytest.mark.parametrize(
    ("offer", "auth", "cause"),
    [
        (b"250-r\r\n250 STARTTLS\r\n", AUTH, "auth_needs_tls"),
        (b"250 r\r\n", AUTH, "auth_absent"),
        (b"250-r\r\n250 AUTH XOAUTH2 OAUTHBEARER\r\n", AUTH, "auth_only_oauth"),
        (b"250-r\r\n250 AUTH PLAIN LOGIN\r\n", Bearer("u", "t"), "auth_only_password"),
        (b"250-r\r\n250 AUTH NTLM GSSAPI\r\n", AUTH, "auth_mismatch"),
    ],
)
def test_no_way_to_authenticate(relay, offer, auth, cause):
    server = relay(EHLO=offer)
    report = probe(target(server, auth=auth), "auth")
    assert (report.ok, report.cause, report.reached) == (False, cause, "tls")
    assert not [line for line in server.heard if line.startswith(b"AUTH")]


@pytest.mark.parametrize("code", [250, 220, 334, 500, 535])
def test_only_235_means_authenticated(relay, code):
    assert not probe(target(relay(AUTH=b"%d x\r\n" % code), auth=AUTH, timeout=1), "auth").ok


def test_the_reason_in_the_json_of_a_refused_token_is_told(relay):
    error = base64.b64encode(b'{"status":"401","schemes":"bearer","scope":"https://mail.google.com/"}')

    def refuse(connection, _line):
        connection.say(b"334 " + error + b"\r\n")
        assert connection.line() == b""
        connection.say(b"535-5.7.8 Username and Password not accepted.\r\n535 5.7.8 bye\r\n")

    server = relay(EHLO=b"250-r\r\n250 AUTH XOAUTH2\r\n", AUTH=refuse)
    report = probe(target(server, auth=Bearer("box@example.test", "ya29.token")), "auth")
    assert report.cause == "token_refused"
    assert "status 401, schemes bearer, scope https://mail.google.com/" in report.steps[-1].detail
    assert "box@example.test" in report.problem


def test_a_long_token_goes_as_a_continuation(relay):
    token = "t" * 3000

    def take(connection, line):
        assert line == b"AUTH OAUTHBEARER"
        connection.say(b"334 \r\n")
        blob = base64.b64decode(connection.line())
        assert (
            blob == f"n,a=u,\x01host=localhost\x01port={connection.relay.port}\x01auth=Bearer {token}\x01\x01".encode()
        )
        connection.say(b"235 ok\r\n")

    server = relay(EHLO=b"250-r\r\n250 AUTH OAUTHBEARER\r\n", AUTH=take)
    assert probe(target(server, auth=Bearer("u", token)), "auth").ok


@pytest.mark.parametrize("auth", [Password("user", "canary-0123456789"), Bearer("user", "canary-0123456789")])
@pytest.mark.parametrize("echo", ["{line}", "{blob}", "{secret}", "{half}", "{upper}"])
@pytest.mark.parametrize("how", ["reply", "garbage", "challenge"])
def test_no_report_ever_holds_a_secret(relay, auth, echo, how):
    secret = "canary-0123456789"

    def tell(connection, line):
        blob = line.split(b" ")[-1].decode()
        words = echo.format(
            line=line.decode(), blob=blob, secret=secret, half=blob[: len(blob) // 2], upper=blob.upper()
        )
        tell.blob = blob
        if how == "challenge":
            told = base64.b64encode(json.dumps({"status": "400", "scope": words}).encode()).decode()
            connection.say(f"334 {told}\r\n".encode())
            connection.line()
            connection.say(f"535 5.7.8 {words}\r\n".encode())
        else:
            connection.say(f"{'500 5.5.2 ' if how == 'reply' else ''}{words}\r\n".encode())

    server = relay(EHLO=b"250-r\r\n250 AUTH PLAIN XOAUTH2\r\n", AUTH=tell)
    report = probe(target(server, auth=auth, recipient="you@example.test"), "recipient")
    assert not report.ok
    shown = (repr(report) + json.dumps(report.as_result())).lower()
    assert secret not in shown
    assert not [at for at in range(len(tell.blob) - 8) if tell.blob[at : at + 8].lower() in shown]


# Leaving


def wait_for(condition):
    until = time.monotonic() + 2
    while not condition() and time.monotonic() < until:
        time.sleep(0.005)
    return condition()


@pytest.mark.parametrize(
    ("replies", "changes", "last"),
    [
        ({"MAIL": b"550 no\r\n"}, {}, b"QUIT"),
        ({"EHLO": b"250 relay\r\n"}, {"auth": AUTH}, b"QUIT"),
        ({"EHLO": b"250 relay\r\n"}, {"security": "starttls"}, b"QUIT"),
        ({"MAIL": b"421 4.3.2 shutting down\r\n"}, {}, b"MAIL FROM:<me@example.test>"),
        ({"MAIL": b"rubbish\r\n"}, {}, b"MAIL FROM:<me@example.test>"),
        ({}, {}, b"QUIT"),
    ],
)
def test_a_relay_that_listens_is_told_that_we_leave(relay, replies, changes, last):
    server = relay(**replies)
    probe(target(server, recipient="you@example.test", **changes), "recipient")
    assert wait_for(lambda: server.ended == 1)
    assert server.heard[-1] == last
    assert server.heard.count(b"QUIT") <= 1


# The envelope


@pytest.mark.parametrize(
    ("reply", "step", "cause"),
    [
        ({"MAIL": b"530 5.7.0 Authentication required\r\n"}, "mail", "auth_required"),
        ({"MAIL": b"553 5.1.8 Sender address rejected: Domain not found\r\n"}, "mail", "sender_refused"),
        ({"RCPT": b"554 5.7.1 <you@example.test>: Relay access denied\r\n"}, "rcpt", "relay_denied"),
        ({"RCPT": b"450 4.2.0 <you@example.test>: Recipient address rejected: Greylisted\r\n"}, "rcpt", "greylisted"),
        ({"RCPT": b"550 5.1.1 User unknown in relay recipient table\r\n"}, "rcpt", "recipient_refused"),
        ({"RSET": b"500 what\r\n"}, "rset", "unexpected"),
    ],
)
def test_a_refused_envelope(relay, reply, step, cause):
    server = relay(**reply)
    report = probe(target(server, recipient="you@example.test"), "recipient")
    assert (report.ok, report.cause, names(report)[-1], report.reached) == (False, cause, step, "auth")
    words = next(iter(reply.values())).decode().strip()
    assert words in report.steps[-1].detail
    assert words in report.problem
    assert b"DATA" not in server.heard


@pytest.mark.parametrize("address", ["a@b> SIZE=1", "a@b\r\nDATA", "a b@c", "nobody", "a@", "a@" + "x" * 64 + "é.test"])
def test_an_address_cannot_add_to_a_command(relay, address):
    for changes in ({"sender": address, "recipient": "a@b.test"}, {"recipient": address}):
        server = relay()
        report = probe(target(server, **changes), "recipient")
        assert (report.ok, report.cause) == (False, "address")
        assert not [line for line in server.heard if b"DATA" in line or b"SIZE" in line]


@pytest.mark.parametrize(("offer", "ok"), [(b"250-r\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n", True), (b"250 r\r\n", False)])
def test_an_address_that_is_not_ascii(relay, offer, ok):
    server = relay(EHLO=offer)
    report = probe(target(server, sender="jürgen@example.test", recipient="you@example.test"), "recipient")
    assert (report.ok, report.cause) == (ok, "" if ok else "smtputf8")
    wanted = "MAIL FROM:<jürgen@example.test> BODY=8BITMIME SMTPUTF8".encode()
    assert (wanted in server.heard) is ok


# Bad relays

SECRET = Password("jürgen", "canary-" + "0123456789" * 60)  # long, so that it follows a 334
HOSTILE = {  # step of the server -> step of the probe that has to fail
    "none": dict(banner="connect", ehlo="ehlo", auth="auth", secret="auth", mail="mail", rcpt="rcpt", rset="rset"),
    "starttls": dict(starttls="tls", handshake="tls", ehlo2="tls", mail="mail"),
    "tls": dict(handshake="tls", banner="ehlo", ehlo="ehlo"),
}
CAUSES = {
    "hang": {"step_timeout", "greeting_timeout", "tls_timeout"},
    "drip": {"step_timeout", "greeting_timeout", "tls_timeout"},
    "close": {"closed", "closed_at_once"},
    "close_midway": {"closed", "closed_at_once", "not_smtp"},
    "garbage": {"not_smtp", "tls_failed", "plain_first"},
    "not_a_reply": {"not_smtp", "tls_failed", "plain_first"},
    "flood_line": {"flood", "tls_failed", "plain_first"},
    "flood_lines": {"flood", "tls_failed", "plain_first"},
}
CASES = [(security, step, deed) for security, steps in HOSTILE.items() for step in steps for deed in CAUSES]
CASES += [
    ("starttls", "starttls", "inject"),
    ("none", "auth", "echo"),
    ("none", "secret", "echo"),
    ("none", "mail", "echo"),
]
TIMEOUT = 0.4


@pytest.fixture(scope="module")
def outcomes(authority, ca_file):
    """All cases at once, because hanging takes its time: by case, the report, the seconds and what the server got."""
    certificate = authority.good("localhost")
    servers = [Hostile(step, deed, security, certificate) for security, step, deed in CASES]

    def run(case, server):
        at = target(
            server, security=case[0], ca_file=ca_file, auth=SECRET, timeout=TIMEOUT, recipient="you@example.test"
        )
        began = time.monotonic()
        report = probe(at, "recipient")
        return report, time.monotonic() - began, bytes(server.received)

    with contextlib.ExitStack() as stack, ThreadPoolExecutor(16) as pool:
        started = [stack.enter_context(server.start()) for server in servers]
        return dict(zip(CASES, pool.map(run, CASES, started), strict=True))


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_a_relay_that_misbehaves(outcomes, case):
    security, step, deed = case
    report, seconds, received = outcomes[case]
    assert seconds < TIMEOUT + 0.5
    assert (report.ok, names(report)[-1], report.steps[-1].ok) == (False, HOSTILE[security][step], False)
    assert report.cause in CAUSES.get(deed, {"injection", "credentials_refused", "sender_refused"})
    if "timeout" in report.cause:
        assert f"within {TIMEOUT} s" in report.problem
    assert report.problem.endswith(".")
    assert len(report.problem) < 1000
    shown = repr(report) + json.dumps(report.as_result())
    assert "canary" not in shown
    assert "0123456789" not in shown
    assert not any(
        blob in shown for blob in re.findall("[A-Za-z0-9+/]{16,}", base64.b64encode(SECRET.password.encode()).decode())
    )
    if step in ("banner", "ehlo", "starttls", "handshake", "ehlo2"):
        assert b"AUTH" not in received


@pytest.mark.parametrize("deed", ["hang", "close", "garbage", "drip", "flood_lines"])
def test_nothing_depends_on_quit(monkeypatch, deed):
    monkeypatch.setattr(conversation, "QUIT_WAIT", 0.1)
    began = time.monotonic()
    with Hostile("quit", deed).start() as server:
        report = probe(target(server), "connect")
    assert time.monotonic() - began < 1
    assert (report.ok, report.reached, names(report)[-1]) == (True, "connect", "quit")


def test_the_relay_shuts_down_midway(relay):
    server = relay(MAIL=b"421 4.3.2 Service shutting down\r\n")
    report = probe(target(server, recipient="you@example.test"), "recipient")
    assert (report.ok, names(report)[-1]) == (False, "mail")
    assert "421 4.3.2 Service shutting down" in report.problem


def test_a_hang_while_the_refused_certificate_is_looked_at(relay, server_context):
    def handle(connection):
        if connection.relay.connections == 1:
            connection.begin_tls()
        connection.hang()

    began = time.monotonic()
    report = probe(target(relay(handle, context=server_context), security="tls", timeout=0.3), "tls")
    assert time.monotonic() - began < 0.8
    assert (report.cause, report.tls) == ("certificate_unknown_ca", {})


def test_nothing_listens(relay):
    server = relay()
    server.stop()
    report = probe(target(server), "connect")
    assert (report.ok, report.reached, report.cause) == (False, "none", "refused")


def test_a_name_that_cannot_be():
    report = probe(Target("a..b", 25, timeout=2), "connect")
    assert (report.ok, report.cause) == (False, "name_unknown")
