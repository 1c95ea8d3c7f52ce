# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import ipaddress
import json

import pytest
from unit.scripted_relay import AUTH, PLAIN_AUTH, target

from ansible_collections.fleetmail.smtp.plugins.module_utils.core import conversation
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.probe import Bearer, Password, probe

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
