# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
import socket
import ssl
import time

import pytest
import trustme
from unit.scripted_relay import AUTH, OUTSIDE, PLAIN_AUTH, context_of, names, secured, target

from ansible_collections.fleetmail.smtp.plugins.module_utils.core import conversation, tls
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.probe import probe

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
