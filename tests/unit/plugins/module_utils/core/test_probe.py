# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import time

import pytest
from lab.relay import Relay, listeners
from unit.scripted_relay import AUTH, PLAIN_AUTH, names, secured, target

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.probe import LEVELS, Bearer, Password, Target, probe

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
