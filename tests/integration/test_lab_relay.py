# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The laboratory's embedded relay, its hostile servers and its certificates, with smtplib and openssl as judges."""

from __future__ import annotations

import base64
import json
import smtplib
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import relay as relay_module
from lab.authority import Authority, Certificate
from lab.hostile import DEEDS, FLOOD, STEPS, Hostile
from lab.relay import Listener, Relay, listeners

NAME = "localhost"
LONG = "p" * 1500


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    return authority.good(NAME)


@pytest.fixture
def relay(certificate: Certificate) -> Iterator[Relay]:
    usual = listeners(certificate, "127.0.0.1", 0, 0, 0)
    with Relay(usual, users={"fleet": LONG, "ü": "pä ss"}, tokens={"fleet": "t" * 8000}).start() as running:
        yield running


def connected(authority: Authority, port: int, security: str, timeout: float = 10) -> smtplib.SMTP:
    context = ssl.create_default_context(cafile=str(authority.ca_file))
    if security == "tls":
        return smtplib.SMTP_SSL(NAME, port, context=context, timeout=timeout)
    client = smtplib.SMTP(NAME, port, timeout=timeout)
    if security == "starttls":
        client.starttls(context=context)
    return client


def sasl(client: smtplib.SMTP, mechanism: str, *blobs: bytes, initial: bool = True) -> tuple[int, bytes]:
    """An AUTH by hand, with the bytes given: smtplib cannot send credentials that are not ASCII."""
    client.ehlo()
    texts = [base64.b64encode(blob).decode() for blob in blobs]
    code, reply = client.docmd("AUTH", " ".join([mechanism, *texts[:1]] if initial else [mechanism]))
    for text in texts[1:] if initial else texts:
        assert code == 334
        code, reply = client.docmd(text)
    return code, reply


# -- the relay


@pytest.mark.parametrize("security", ["none", "starttls", "tls"])
def test_a_mail_arrives_as_it_was_sent(authority: Authority, relay: Relay, security: str) -> None:
    with connected(authority, relay.port(security), security) as client:
        client.login("fleet", LONG)
        client.sendmail("from@x.test", ["one@y.test", "two@y.test"], b"Subject: s\r\n\r\n.dot\r\n\xff\r\n")
    mail = relay.wait_for_message()
    assert (mail.sender, mail.recipients) == ("from@x.test", ["one@y.test", "two@y.test"])
    assert mail.data == b"Subject: s\r\n\r\n.dot\r\n\xff\r\n"
    assert (mail.tls is not None) == (security != "none")
    assert mail.tls is None or mail.tls["server_name"] == NAME
    assert relay.sessions()[0].auths[0].secret == LONG.encode()


@pytest.mark.parametrize("initial", [True, False])
def test_mechanisms_with_the_very_bytes(authority: Authority, relay: Relay, initial: bool) -> None:
    relay.change(mechanisms=["PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER"])
    secret, token = "pä ss".encode(), b"t" * 8000
    tries = {
        "PLAIN": [b"\0\xc3\xbc\0" + secret],
        "LOGIN": [b"\xc3\xbc", secret],
        "XOAUTH2": [b"user=fleet\x01auth=Bearer " + token + b"\x01\x01"],
        "OAUTHBEARER": [b"n,a=fleet,\x01host=h\x01auth=Bearer " + token + b"\x01\x01"],
    }
    for mechanism, blobs in tries.items():
        with connected(authority, relay.port("tls"), "tls") as client:
            assert sasl(client, mechanism, *blobs, initial=initial)[0] == 235
    seen = [session.auths[0] for session in relay.sessions()]
    assert [attempt.mechanism for attempt in seen] == list(tries)
    assert [attempt.secret for attempt in seen] == [secret, secret, token, token]
    assert all(attempt.tls and attempt.accepted for attempt in seen)


def test_login_asks_as_clients_expect(authority: Authority, relay: Relay) -> None:
    with connected(authority, relay.port("none"), "none") as client:
        client.ehlo()
        assert base64.b64decode(client.docmd("AUTH", "LOGIN")[1]) == b"Username:"
        assert base64.b64decode(client.docmd("Zmxl")[1]) == b"Password:"
        assert client.docmd("eA==")[0] == 535


@pytest.mark.parametrize(
    ("mechanism", "blob"),
    [
        ("XOAUTH2", b"user=fleet\x01auth=Bearer stale\x01\x01"),
        ("OAUTHBEARER", b"n,a=fleet,\x01auth=Bearer stale\x01\x01"),
    ],
)
def test_a_stale_token_gets_an_error_to_acknowledge(
    authority: Authority, relay: Relay, mechanism: str, blob: bytes
) -> None:
    relay.change(mechanisms=[mechanism])
    with connected(authority, relay.port("starttls"), "starttls") as client:
        code, challenge = sasl(client, mechanism, blob)
        assert (code, json.loads(base64.b64decode(challenge))["status"]) == (334, "401")
        assert client.docmd("AQ==")[0] == 535


def test_malformed_credentials_are_answered_once(authority: Authority, relay: Relay) -> None:
    with connected(authority, relay.port("none"), "none") as client:
        assert sasl(client, "PLAIN", b"only one part") == (501, b"5.5.2 Not three parts (RFC 4616)")
        assert client.docmd("AUTH PLAIN ===")[0] == 501
        assert client.docmd("AUTH LOGIN")[0] == 334
        assert client.docmd("*")[0] == 501
        assert client.docmd("AUTH GSSAPI")[0] == 504
        assert client.noop()[0] == 250


def test_starttls_required_offered_and_stripped(authority: Authority, certificate: Certificate) -> None:
    files = {"chain": str(certificate.chain), "key": str(certificate.key)}
    kinds = [
        Listener(security="starttls", **files),
        Listener(security="starttls", tls_required=False, cleartext_auth=True, **files),
        Listener(),
    ]
    with Relay(kinds, users={"fleet": "secret"}).start() as relay:
        required, offered, stripped = (smtplib.SMTP(NAME, listener.port, timeout=5) for listener in relay.listeners)
        for client in (required, offered, stripped):
            client.ehlo()
        assert [client.has_extn("starttls") for client in (required, offered, stripped)] == [True, True, False]
        assert [client.has_extn("auth") for client in (required, offered, stripped)] == [False, True, True]
        assert required.mail("a@b.test")[0] == 530
        assert required.docmd("AUTH PLAIN AGZsZWV0AHNlY3JldA==")[0] == 530
        assert offered.login("fleet", "secret")[0] == 235
        assert stripped.docmd("STARTTLS")[0] == 503
        for client in (required, offered, stripped):
            client.quit()
        relay.wait_for(lambda: all(session.ended for session in relay.sessions()))
        assert [session.saw_credentials for session in relay.sessions()] == [True, True, False]


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_handshake_that_the_client_breaks_off_is_seen(relay: Relay, security: str) -> None:
    trusting_nobody = ssl.create_default_context()
    with pytest.raises(ssl.SSLCertVerificationError):  # noqa: PT012 - either line may be the one
        if security == "tls":
            smtplib.SMTP_SSL(NAME, relay.port(security), context=trusting_nobody, timeout=5)
        else:
            smtplib.SMTP(NAME, relay.port(security), timeout=5).starttls(context=trusting_nobody)
    relay.wait_for(lambda: all(session.ended for session in relay.sessions()))
    (session,) = relay.sessions()
    assert "unknown ca" in (session.tls_error or "").lower()
    assert not session.saw_credentials


def test_answers_on_demand(authority: Authority, relay: Relay) -> None:
    def attempt() -> list[int]:
        with connected(authority, relay.port("none"), "none") as client:
            codes = [sasl(client, "PLAIN", b"\0fleet\0" + LONG.encode())[0], client.mail("a@b.test")[0]]
            codes += [client.rcpt(address)[0] for address in ("one@x.test", "two@x.test", "one@y.test")]
            return [*codes, client.data(b"Subject: s\r\n\r\n")[0] if 250 in codes[2:] else 0]

    assert attempt() == [235, 250, 250, 250, 250, 250]
    relay.change(rcpt_replies={"one@x.test": "550 5.1.1 no", "@y.test": "450 4.2.0 later"}, data_reply="451 4.3.0 full")
    assert attempt() == [235, 250, 550, 250, 450, 451]
    relay.change(auth_reply="535 5.7.139 disabled", auth_required=True, rcpt_replies={}, data_reply="")
    assert attempt() == [535, 530, 530, 530, 530, 0]
    relay.change(auth_reply="", auth_required=False, mail_reply="421 4.7.0 busy")
    assert attempt()[1] == 421
    relay.change(greeting="554 5.3.2 go away")
    with pytest.raises(smtplib.SMTPConnectError, match="go away"):
        smtplib.SMTP(NAME, relay.port("none"), timeout=5)
    assert len(relay.messages()) == 1
    with pytest.raises(TypeError):
        relay.change(no_such_option=True)
    relay.forget()
    with pytest.raises(TimeoutError):
        relay.wait_for_message(timeout=0.1)


def test_the_journal_is_nobody_elses(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    with Relay([Listener()], journal=journal).start() as relay:
        smtplib.SMTP(NAME, relay.port(), timeout=5).close()
        relay.wait_for(lambda: bool(relay.sessions()))
    assert stat.S_IMODE(journal.stat().st_mode) == 0o600
    assert [json.loads(line)["event"] for line in journal.read_text().splitlines()][:2] == ["listening", "connect"]


def test_the_relay_by_hand(tmp_path: Path) -> None:
    """As a process of its own it takes what config() gives, follows changes of the file and ends with its input."""
    relay = Relay([Listener()], journal=tmp_path / "journal.jsonl")
    config = tmp_path / "config.json"
    config.write_text(json.dumps(relay.config()))
    process = subprocess.Popen(
        [sys.executable, "-m", "lab.relay", "--config", config],
        stdin=subprocess.PIPE,
        cwd=Path(relay_module.__file__).parents[1],
    )
    relay.wait_for(lambda: b"listening" in (tmp_path / "journal.jsonl").read_bytes())
    port = json.loads((tmp_path / "journal.jsonl").read_bytes().splitlines()[0])["ports"][0]
    with smtplib.SMTP(NAME, port, timeout=5) as client:
        client.sendmail("a@x.test", "b@y.test", "Subject: s\r\n\r\n")
    assert relay.wait_for_message().sender == "a@x.test"
    relay.change(mail_reply="451 4.0.0 later")
    config.with_suffix(".new").write_text(json.dumps(relay.config()))
    config.with_suffix(".new").rename(config)
    with smtplib.SMTP(NAME, port, timeout=5) as client:
        client.ehlo()
        assert client.mail("a@x.test")[0] == 451
    assert process.stdin
    process.stdin.close()
    assert process.wait(10) == 0
    relay.stop()


# -- hostile servers


def converse(authority: Authority, server: Hostile, timeout: float) -> None:
    """A client that goes through every step, and takes any reply that is a proper one."""
    with connected(authority, server.port, server.security, timeout) as client:
        client.ehlo_or_helo_if_needed()
        client.user, client.password = "fleet", "secret"
        client.auth("PLAIN", client.auth_plain, initial_response_ok=server.step != "secret")
        for code, reply in (client.mail("a@x.test"), client.rcpt("b@y.test"), client.rset()):
            if code != 250:
                raise smtplib.SMTPResponseException(code, reply)
        client.sendmail("a@x.test", "b@y.test", "Subject: s\r\n\r\n")
        code, reply = client.docmd("QUIT")
        if code != 221:
            raise smtplib.SMTPResponseException(code, reply)
        client.sock = None


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("deed", ["hang", "close", "garbage"])
def test_each_step_can_go_wrong(authority: Authority, certificate: Certificate, step: str, deed: str) -> None:
    with Hostile(step, deed, "starttls", certificate) as server:
        with pytest.raises((smtplib.SMTPException, OSError)):
            converse(authority, server, timeout=0.3)
        assert server.connections == 1
        assert (b"AUTH " in server.received) == (STEPS.index(step) >= STEPS.index("auth"))
        began = time.monotonic()
    assert time.monotonic() - began < 2, "the server could not be stopped"


def test_without_a_deed_at_its_step_the_conversation_is_proper(authority: Authority, certificate: Certificate) -> None:
    with Hostile("secret", "hang", "tls", certificate) as server:
        server.step = "handshake-that-never-comes"
        converse(authority, server, timeout=5)
        assert b"AUTH PLAIN" in server.received


@pytest.mark.parametrize("deed", ["flood_line", "flood_lines"])
def test_floods_are_as_large_as_they_say(deed: str) -> None:
    with Hostile("banner", deed) as server, smtplib.socket.create_connection((NAME, server.port), 5) as client:
        client.settimeout(1)
        taken = 0
        while taken < FLOOD * 0.99:
            taken += len(client.recv(1 << 20))


def test_a_drip_is_one_byte_a_second() -> None:
    with Hostile("banner", "drip") as server, smtplib.socket.create_connection((NAME, server.port), 5) as client:
        client.settimeout(5)
        began = time.monotonic()
        assert client.recv(100) + client.recv(100) == b"22"
        assert 0.9 < time.monotonic() - began < 3


def test_injected_replies_come_in_the_clear_with_the_promise_of_tls(certificate: Certificate) -> None:
    with Hostile("starttls", "inject", "starttls", certificate) as server:
        client = smtplib.SMTP(NAME, server.port, timeout=5)
        client.ehlo()
        assert client.sock
        client.sock.sendall(b"STARTTLS\r\n")
        assert client.sock.recv(4096).split(b"\r\n")[-2:] == [b"250 FORGED", b""]
        client.close()


def test_an_echo_quotes_the_credential_both_ways(authority: Authority, certificate: Certificate) -> None:
    with Hostile("auth", "echo", "tls", certificate) as server:
        client = connected(authority, server.port, "tls")
        code, reply = sasl(client, "PLAIN", b"\0fleet\0canary")
        assert code == 535
        assert b"fleet canary" in reply
        assert base64.b64encode(b"\0fleet\0canary") in reply
        client.close()


def test_every_deed_ends_at_its_limit(authority: Authority, certificate: Certificate) -> None:
    for deed in DEEDS:
        began = time.monotonic()
        with (
            Hostile("handshake", deed, "tls", certificate, limit=0.5) as server,
            pytest.raises((smtplib.SMTPException, OSError)),
        ):
            converse(authority, server, timeout=10)
        assert time.monotonic() - began < 3, deed
    with pytest.raises(ValueError, match="no deed"):
        Hostile("banner", "dance")


# -- certificates


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [
        ("good", "OK"),
        ("expired", "certificate has expired"),
        ("not_yet_valid", "certificate is not yet valid"),
        ("from_unknown_ca", "unable to get local issuer certificate"),
        ("wrong_name", "hostname mismatch"),
    ],
)
def test_openssl_says_what_is_wrong(authority: Authority, kind: str, verdict: str) -> None:
    issued = getattr(authority, kind)(*([] if kind == "wrong_name" else ["relay.example.test", "127.0.0.9"]))
    command = ["openssl", "verify", "-CAfile", authority.ca_file, "-verify_hostname", "relay.example.test"]
    judged = subprocess.run([*command, issued.chain], capture_output=True, text=True, check=False)
    assert verdict.lower() in (judged.stdout + judged.stderr).lower()
    assert stat.S_IMODE(issued.key.stat().st_mode) == 0o600


def test_a_certificate_can_end_soon(authority: Authority) -> None:
    issued = authority.ending(5, "relay.example.test")
    week = ["openssl", "x509", "-noout", "-in", issued.chain, "-checkend", str(7 * 86400)]
    days = [*week[:-1], str(4 * 86400)]
    assert subprocess.run(week, capture_output=True, check=False).returncode == 1
    assert subprocess.run(days, capture_output=True, check=False).returncode == 0
