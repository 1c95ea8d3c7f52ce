# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ansible_collections.fleetmail.smtp.plugins.module_utils.core import advice
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.dialogue import Failure
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.target import Target

FACTS = {
    "host": "relay.example.test",
    "port": 587,
    "security": "starttls",
    "timeout": "30",
    "helo": "its address",
    "sender": "me@example.test",
    "recipient": "you@example.test",
    "username": "box@example.test",
    "names": "other.example.test",
    "not_after": "2026-01-01T00:00:00Z",
    "issuer": "CN=Some CA",
}

# row of the table: the step and the words that lead to it; replies as the providers send them
SAMPLES = {
    "name_server_silent": ("connect", "look-up of x: Temporary failure in name resolution"),
    "name_unknown": ("connect", "look-up of x: Name or service not known"),
    "refused": ("connect", "connection to 192.0.2.1 port 587: Connection refused"),
    "unreachable": ("connect", "connection to 192.0.2.1 port 587: No route to host"),
    "connect_timeout": ("connect", "connection to 192.0.2.1 port 587: no answer within 30 s"),
    "tls_first": ("connect", "the server answered with a TLS record"),
    "greeting_timeout": ("connect", "greeting: no answer within 30 s"),
    "tls_timeout": ("tls", "TLS handshake: no answer within 30 s"),
    "step_timeout": ("tls", "TLS handshake after STARTTLS: no answer within 30 s"),
    "closed_at_once": ("connect", "greeting: the server closed the connection"),
    "closed": ("auth", "AUTH: the server closed the connection"),
    "not_smtp": ("connect", 'not an SMTP reply: "HTTP/1.1 400 Bad Request"'),
    "flood": ("ehlo", "EHLO: more than 65536 bytes in one reply"),
    "control": ("auth", "a line break or NUL in what is to be sent"),
    "plain_first": ("tls", "TLS handshake: WRONG_VERSION_NUMBER"),
    "tls_versions": ("tls", "TLS handshake: TLSV1_ALERT_PROTOCOL_VERSION"),
    "client_certificate": ("ehlo", "greeting: TLSV13_ALERT_CERTIFICATE_REQUIRED"),
    "tls_failed": ("tls", "TLS handshake after STARTTLS: WRONG_VERSION_NUMBER"),
    "starttls_absent": ("tls", "STARTTLS is not among what the relay offers"),
    "injection": ("tls", "the server sent more in clear text behind its answer to STARTTLS"),
    "ca_file": ("tls", "/etc/ca.pem: No such file or directory"),
    "certificate_name": (
        "tls",
        "Hostname mismatch, certificate is not valid for 'relay.example.test'. (X509 error 62)",
    ),
    "certificate_expired": ("tls", "certificate has expired (X509 error 10)"),
    "certificate_not_yet": ("tls", "certificate is not yet valid (X509 error 9)"),
    "certificate_self_signed": ("tls", "self-signed certificate (X509 error 18)"),
    "certificate_unknown_ca": ("tls", "unable to get local issuer certificate (X509 error 20)"),
    "certificate_refused": ("tls", "EE certificate key too weak (X509 error 66)"),
    "starttls_refused": ("tls", "454 4.7.0 TLS not available due to local problem"),
    "busy": ("connect", "421 4.7.0 relay.example.test Error: too many connections from 192.0.2.7"),
    "host_rejected": ("connect", "554 5.7.1 Service unavailable; Client host [192.0.2.7] blocked using a block list"),
    "helo_rejected": ("ehlo", "504 5.5.2 <web1>: Helo command rejected: need fully-qualified hostname"),
    "cleartext": ("auth", "credentials were not sent in clear text"),
    "auth_needs_tls": ("auth", "AUTH is not offered before STARTTLS"),
    "auth_absent": ("auth", "AUTH is not among what the relay offers"),
    "auth_only_oauth": ("auth", "offered: XOAUTH2 OAUTHBEARER; wanted: PLAIN or LOGIN"),
    "auth_only_password": ("auth", "offered: PLAIN LOGIN; wanted: XOAUTH2 or OAUTHBEARER"),
    "auth_mismatch": ("auth", "offered: NTLM GSSAPI; wanted: PLAIN or LOGIN"),
    "m365_tenant": (
        "auth",
        "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit "
        "https://aka.ms/smtp_auth_disabled for more information. [FR3P281CA0001.DEUP281.PROD.OUTLOOK.COM]",
    ),
    "m365_mailbox": (
        "auth",
        "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox. Visit "
        "https://aka.ms/smtp_auth_disabled for more information.",
    ),
    "m365_security_defaults": (
        "auth",
        "535 5.7.139 Authentication unsuccessful, user is locked by your organization's security defaults policy. "
        "Contact your administrator.",
    ),
    "m365_policy": (
        "auth",
        "535 5.7.139 Authentication unsuccessful, the request did not meet the criteria to be authenticated "
        "successfully. Contact your administrator.",
    ),
    "m365_basic_auth_retired": ("auth", "550 5.7.30 Basic authentication is not supported for Client Submission."),
    "m365_token_short": ("auth", "501 5.5.127 Token will expire soon"),
    "m365_token": ("auth", "535 5.7.3 Authentication unsuccessful [AM0PR01CA0001.eurprd01.prod.exchangelabs.com]"),
    "google_app_password": (
        "auth",
        "534 5.7.9 Application-specific password required. For more information, go to "
        "https://support.google.com/mail/?p=InvalidSecondFactor x-20 - gsmtp",
    ),
    "google_web_login": ("auth", "534 5.7.14 Please log in with your web browser and then try again. x-20 - gsmtp"),
    "google_credentials": (
        "auth",
        "535 5.7.8 Username and Password not accepted. For more information, go to "
        "https://support.google.com/mail/?p=BadCredentials x-20 - gsmtp",
    ),
    "auth_too_often": ("auth", "454 4.7.0 Too many login attempts, please try again later. x-20 - gsmtp"),
    "auth_temporary": ("auth", "454 4.7.0 Temporary authentication failure: Connection lost to authentication server"),
    "auth_encryption": ("auth", "538 5.7.11 Encryption required for requested authentication mechanism"),
    "auth_mechanism_refused": ("auth", "504 5.5.4 Unrecognized authentication type"),
    "token_refused": ("auth", "535 5.7.8 Error: authentication failed; the relay's reason: status invalid_token"),
    "credentials_refused": ("auth", "535 5.7.8 Error: authentication failed: (reason unavailable)"),
    "send_as_denied": (
        "mail",
        "553 5.7.1 <me@example.test>: Sender address rejected: not owned by user box@example.test",
    ),
    "tls_required": ("mail", "530 5.7.0 Must issue a STARTTLS command first"),
    "auth_required": ("mail", "530 5.7.57 Client not authenticated to send mail."),
    "greylisted": ("rcpt", "450 4.2.0 <you@example.test>: Recipient address rejected: Greylisted, see x.test/help"),
    "limit": ("data", "550 5.4.5 Daily user sending limit exceeded. x-20 - gsmtp"),
    "sender_temporary": ("mail", "450 4.1.8 <me@example.test>: Sender address rejected: Domain not found"),
    "sender_refused": ("mail", "501 Invalid MAIL FROM address provided"),
    "relay_denied": ("rcpt", "454 4.7.1 <you@example.test>: Relay access denied [you@example.test]"),
    "recipient_temporary": ("rcpt", "451 4.3.0 <you@example.test>: Temporary lookup failure [you@example.test]"),
    "recipient_refused": ("rcpt", "550 5.1.1 <you@example.test>: User unknown in relay recipient table"),
    "recipient_missing": ("rcpt", "no recipient is set, so only the sender was tried"),
    "address": ("mail", "no mail address in 'nobody'"),
    "smtputf8": ("mail", "jürgen@example.test"),
    "message_temporary": ("data", "451 4.3.0 Error: queue file write error"),
    "message_refused": ("data", "554 5.6.0 Message content rejected"),
    "unexpected": ("rset", "500 5.5.2 what"),
}
ROWS = {row.key: row for row in advice.TABLE}


def test_every_row_has_a_sample_and_a_name_of_its_own():
    assert list(SAMPLES) == [row.key for row in advice.TABLE]


@pytest.mark.parametrize("key", SAMPLES)
def test_the_row_speaks(key):
    step, words = SAMPLES[key]
    found, sentence, _way_out = advice.advise(step, Failure(ROWS[key].cause or "reply", words), FACTS)
    assert found == key
    assert sentence.endswith(".")
    assert sentence[0].isupper() or sentence.startswith(tuple(FACTS[name] for name in ("host", "username")) + (words,))
    assert not re.search(r"[{}]", sentence)
    if (ROWS[key].cause or "reply") == "reply":
        assert sentence.endswith(f'(the relay said: "{words}").')


@pytest.mark.parametrize(
    ("step", "words", "key"),
    [
        (
            "auth",
            "535 5.7.139 Authentication unsuccessful, basic authentication is disabled.",
            "m365_basic_auth_retired",
        ),
        (
            "auth",
            "535 5.7.139 Authentication unsuccessful, the user credentials were incorrect.",
            "credentials_refused",
        ),
        ("auth", "535 5.7.8 Authentication credentials invalid", "credentials_refused"),
        ("auth", "535 5.7.30 no", "m365_basic_auth_retired"),
        ("auth", "530 5.7.0 Must issue a STARTTLS command first", "auth_encryption"),
        ("auth", "534 5.7.9 Authentication mechanism is too weak", "auth_mechanism_refused"),
        ("auth", "432 4.7.12 A password transition is needed", "auth_temporary"),
        ("data", "554 5.2.252 SendAsDenied; box@example.test not allowed to send as me@example.test", "send_as_denied"),
        ("mail", "550 5.7.60 SMTP; Client does not have permissions to send as this sender", "send_as_denied"),
        ("rcpt", "550 relay not permitted", "relay_denied"),
        ("rcpt", "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain", "relay_denied"),
        ("rcpt", "451 4.7.1 Greylisting in action, please come back later", "greylisted"),
        ("rcpt", "550 5.7.1 Client was not authenticated", "auth_required"),
        ("rcpt", "452 4.5.3 Error: too many recipients", "limit"),
        ("rcpt", "554 5.7.1 <you@example.test>: Recipient address rejected: Access denied", "relay_denied"),
        ("tls", "501 5.5.4 Syntax error", "starttls_refused"),
    ],
)
def test_other_spellings(step, words, key):
    assert advice.advise(step, Failure("reply", words), FACTS)[0] == key


def test_what_nobody_thought_of_has_a_sentence_too():
    assert advice.advise("auth", Failure("brand new", "words"), FACTS)[0] == "unexpected"


def test_a_reply_cannot_use_the_table_against_us():
    sentence = advice.advise("mail", Failure("reply", "550 {host.__class__} {}"), FACTS)[1]
    assert "{host.__class__} {}" in sentence


def test_every_failure_in_the_code_has_a_row():
    code = "".join(path.read_text() for path in Path(advice.__file__).parent.glob("*.py"))
    causes = set(re.findall(r'Failure\(\s*"(\w+)"', code)) | set(re.findall(r'Error, "(\w+)"\)', code))
    assert {"timeout", "resolve", "certificate", "reply"} <= causes
    assert causes <= {row.cause for row in advice.TABLE}


def test_a_target_shows_no_secret():
    assert "timeout" in repr(Target("h", 25))
