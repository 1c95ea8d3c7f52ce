# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import email
import email.policy
import email.utils
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab.hostile import Hostile
from lab.relay import Relay, listeners

from ansible_collections.fleetmail.smtp.plugins.module_utils.core import message as module
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.dialogue import Failure
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.target import Password, Target

ME = "me@example.test"


def parsed(data: bytes):
    return email.message_from_bytes(data, policy=email.policy.default)


def test_what_a_test_mail_is_made_of():
    made = module.compose(
        module.TestSend(("you@example.test", "Jürgen <j@example.test>"), ME, "Grüße", "hällo\n"), "x@y"
    )
    mail = parsed(made.data)
    assert (made.sender, made.recipients) == (ME, ("you@example.test", "j@example.test"))
    assert (mail["From"], mail["Subject"], mail["Auto-Submitted"]) == (ME, "Grüße", "auto-generated")
    assert [(address.display_name, address.addr_spec) for address in mail["To"].addresses] == [
        ("", "you@example.test"),
        ("Jürgen", "j@example.test"),
    ]
    assert mail["Message-ID"] == made.message_id
    assert made.message_id.endswith("@example.test>")
    assert abs(time.time() - email.utils.parsedate_to_datetime(mail["Date"]).timestamp()) < 5
    assert mail.get_content() == "hällo\r\n"
    assert made.data.isascii()


def test_what_is_empty_is_filled_in(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "web1")
    mail = parsed(module.compose(module.TestSend(("you@example.test",)), "root@web1").data)
    assert (mail["From"], mail["Subject"]) == ("root@web1", "Test mail from web1")
    assert "web1" in mail.get_content()


@pytest.mark.parametrize(
    "mail",
    [
        module.TestSend(("you@example.test",), ME, "a\r\nBcc: evil@example.test"),
        module.TestSend(("you@example.test",), ME, "a\nb"),
        module.TestSend(("you@example.test",), ME, "a\0b"),
        module.TestSend(("you@example.test",), ME, "a\x85b"),
        module.TestSend(("you@example.test",), ME, "a\u2028b"),
        module.TestSend(("you@example.test",), ME, "a\udcff"),
        module.TestSend(("you@example.test",), ME, "s", "nul \0"),
        module.TestSend(("you@example.test",), ME, "s", "\udcff"),
        module.TestSend(("you@example.test\r\nBcc: evil@example.test",), ME),
        module.TestSend(("A\r\nB <you@example.test>",), ME),
        module.TestSend(("you@example.test",), f"{ME}\nX: y"),
    ],
)
def test_headers_cannot_be_injected(mail):
    with pytest.raises(Failure) as raised:
        module.compose(mail, ME)
    assert raised.value.cause == "control"


@pytest.mark.parametrize("address", ["", "nobody", "a@b@c d", "a@b, c@d", "<>", "a b@c", "@x", "x@"])
def test_addresses_that_are_none(address):
    with pytest.raises(Failure) as raised:
        module.compose(module.TestSend((address,), ME), ME)
    assert raised.value.cause == "address"


def test_somebody_has_to_get_it():
    with pytest.raises(Failure):
        module.compose(module.TestSend((), ME), ME)


def undone(wire: bytes) -> bytes:
    """What a server makes of the octets behind DATA (RFC 5321 4.5.2)."""
    lines = wire.split(b"\r\n")
    assert lines[-2:] == [b".", b""]
    assert b"." not in lines[:-2]
    return b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines[:-2]) + b"\r\n"


@pytest.mark.parametrize(
    ("data", "wire"),
    [
        (b"a\r\n", b"a\r\n.\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b".\r\n..\r\n.a\r\n", b"..\r\n...\r\n..a\r\n.\r\n"),
        # what other servers might take for the end (SMTP smuggling)
        (b"a\n.\nMAIL FROM:<>\r\n", b"a\r\n..\r\nMAIL FROM:<>\r\n.\r\n"),
        (b"a\r.\r\nb\r\n", b"a\r\n..\r\nb\r\n.\r\n"),
        (b"a\n.\r\nb\r\n", b"a\r\n..\r\nb\r\n.\r\n"),
    ],
)
def test_the_wire_form(data, wire):
    assert module.in_wire_form(data) == wire


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])) | st.text(".\r\n a"))
def test_any_body_survives_the_wire(body):
    made = module.compose(module.TestSend(("you@example.test",), ME, "s", body or "x"), ME)
    assert b"\r" not in made.data.replace(b"\r\n", b"")
    assert b"\n" not in made.data.replace(b"\r\n", b"")
    assert max(map(len, made.data.split(b"\r\n"))) <= 998
    assert undone(module.in_wire_form(made.data)) == made.data


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
def test_no_subject_or_name_adds_a_header(subject, name):
    try:
        made = module.compose(module.TestSend((f"{name} <you@example.test>",), ME, subject or "x"), ME)
    except Failure:
        return
    assert set(parsed(made.data).keys()) == {
        "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "Content-Type",
        "Content-Transfer-Encoding", "MIME-Version",
    }  # fmt: skip
    assert made.recipients == ("you@example.test",)


# Sending


def target(server, **changes) -> Target:
    return Target(**{"host": "localhost", "port": server.port, "timeout": 3, **changes})


def test_a_mail_is_sent(relay):
    server = relay()
    sent = module.send(
        target(server, auth=Password("box", "x")), module.TestSend(("a@b.test", "c@d.test"), ME, "s", ".\n..x\n")
    )
    assert sent.sent
    assert sent.as_result() == {
        "sent": True,
        "message_id": sent.message_id,
        "reply": "250 2.0.0 Ok: queued as 4F3A",
        "via": "relay",
    }
    assert json.dumps(sent.as_result())
    heard = server.heard
    assert [line for line in heard if line[:5] in (b"MAIL ", b"RCPT ")] == [
        b"MAIL FROM:<me@example.test>", b"RCPT TO:<a@b.test>", b"RCPT TO:<c@d.test>",
    ]  # fmt: skip
    assert heard[heard.index(b"") + 1 :] == [b"..", b"...x", b".", b"QUIT"]
    assert f"Message-ID: {sent.message_id}".encode() in heard


@pytest.mark.parametrize("security", ["none", "starttls", "tls"])
def test_a_mail_arrives_at_a_real_server(authority, ca_file, security):
    at_localhost = listeners(authority.good("localhost"), "127.0.0.1", 0, 0, 0)
    with Relay(at_localhost, users={"jürgen": "pä ß"}, auth_required=True).start() as relay:
        at = Target("localhost", relay.port(security), security, ca_file, timeout=5, auth=Password("jürgen", "pä ß"))
        sent = module.send(at, module.TestSend(("Ops <you@example.test>", "c@d.test"), ME, "Grüße", ".\n..\nhällo\n"))
        assert (sent.sent, sent.problem) == (True, "")
        mail = relay.wait_for_message()
    assert (mail.sender, mail.recipients, mail.auth_user) == (ME, ["you@example.test", "c@d.test"], "jürgen".encode())
    assert bool(mail.tls) is (security != "none")
    assert (mail.email["Message-ID"], mail.email["Subject"]) == (sent.message_id, "Grüße")
    assert mail.email.get_content().splitlines() == [".", "..", "hällo"]


def test_when_one_recipient_is_refused_nobody_gets_it(relay):
    server = relay(RCPT=[b"250 ok\r\n", b"550 5.1.1 no such user\r\n", b"550 5.1.1 nor this\r\n"])
    sent = module.send(target(server), module.TestSend(("a@b.test", "bad@b.test", "worse@b.test"), ME))
    assert (sent.sent, sent.cause, sent.message_id) == (False, "recipient_refused", "")
    assert "refuses the recipient bad@b.test, worse@b.test" in sent.problem
    assert "550 5.1.1 no such user [bad@b.test]; 550 5.1.1 nor this [worse@b.test]" in sent.reply
    assert b"DATA" not in server.heard


@pytest.mark.parametrize(
    ("replies", "cause"),
    [
        ({"DATA": b"554 5.5.1 no\r\n"}, "message_refused"),
        ({".": b"550 5.7.1 spam\r\n"}, "message_refused"),
        ({".": b"451 4.3.0 disk full\r\n"}, "message_temporary"),
    ],
)
def test_a_mail_that_is_refused(relay, replies, cause):
    sent = module.send(target(relay(**replies)), module.TestSend(("a@b.test",), ME))
    assert (sent.sent, sent.cause) == (False, cause)
    assert next(iter(replies.values())).decode().strip() == sent.reply


@pytest.mark.parametrize("step", ["data", "body"])
@pytest.mark.parametrize(
    ("deed", "cause"), [("hang", "step_timeout"), ("close_midway", "closed"), ("garbage", "not_smtp")]
)
def test_a_relay_that_misbehaves(step, deed, cause):
    with Hostile(step, deed).start() as server:
        began = time.monotonic()
        sent = module.send(target(server, timeout=0.2), module.TestSend(("a@b.test",), ME))
    assert time.monotonic() - began < 0.7
    assert (sent.sent, sent.cause, sent.steps[-1].name) == (False, cause, "data")
    assert sent.problem


@pytest.mark.parametrize("quit_reply", ["CLOSE", b"500 no\r\n"])
def test_a_mail_that_was_taken_is_sent_however_the_relay_parts(relay, quit_reply):
    assert module.send(target(relay(QUIT=quit_reply)), module.TestSend(("a@b.test",), ME)).sent


def test_a_mail_that_cannot_be_composed_is_not_begun(relay):
    server = relay()
    sent = module.send(target(server), module.TestSend(("nobody",), ME))
    assert (sent.sent, sent.cause, server.connections) == (False, "address", 0)


def test_international_addresses(relay):
    server = relay(EHLO=b"250-r\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n")
    assert module.send(target(server), module.TestSend(("jürgen@bücher.test",), ME, "Grüße")).sent
    assert "RCPT TO:<jürgen@xn--bcher-kva.test>".encode() in server.heard
    assert b"MAIL FROM:<me@example.test> BODY=8BITMIME SMTPUTF8" in server.heard
    assert "To: jürgen@xn--bcher-kva.test".encode() in server.heard
    server = relay()
    assert module.send(target(server), module.TestSend(("ops@bücher.test",), ME)).sent
    assert b"MAIL FROM:<me@example.test>" in server.heard
    assert module.send(target(server), module.TestSend(("jürgen@example.test",), ME)).cause == "smtputf8"
