# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import contextlib
import socket
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.fleetmail.smtp.plugins.module_utils.core import dialogue as module
from ansible_collections.fleetmail.smtp.plugins.module_utils.core import tls
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.dialogue import (
    Deadline,
    Dialogue,
    Failure,
    connect,
    parse_capabilities,
)


@contextlib.contextmanager
def said(data: bytes, seconds: float = 5, end: bool = True):
    """A dialogue with a server that has already said ``data`` (and hung up, if ``end``)."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with theirs, Dialogue(ours, Deadline(seconds)) as dialogue:
        theirs.send(data)
        if end:
            theirs.shutdown(socket.SHUT_WR)
        yield dialogue


def failure(data: bytes, **how) -> Failure:
    with said(data, **how) as dialogue, pytest.raises(Failure) as raised:
        dialogue.read_reply("greeting")
    return raised.value


@pytest.mark.parametrize(
    ("data", "code", "text"),
    [
        (b"220 relay ESMTP\r\n", 220, "relay ESMTP"),
        (b"220\r\n", 220, ""),
        (b"220 \r\n", 220, ""),
        (b"220 bare newline\n", 220, "bare newline"),
        (b"250-first\r\n250-second\r\n250 third\r\n", 250, "first second third"),
        (b"535-5.7.8 Username and Password not accepted.\r\n535 5.7.8  see https://x\r\n", 535,
         "5.7.8 Username and Password not accepted. see https://x"),
        (b"220 caf\xc3\xa9 \xff\r\n", 220, "café \N{REPLACEMENT CHARACTER}"),
    ],
)  # fmt: skip
def test_a_reply_is_read(data, code, text):
    with said(data) as dialogue:
        reply = dialogue.read_reply("greeting")
    assert (reply.code, reply.text) == (code, text)


def test_a_reply_may_come_byte_by_byte(relay):
    def slowly(connection):
        for byte in b"220-one\r\n220 two\r\n":
            connection.say(bytes([byte]))

    with connect("127.0.0.1", relay(slowly).port, Deadline(5)) as dialogue:
        assert dialogue.read_reply("greeting").lines == ("one", "two")


def test_control_characters_and_length_are_not_shown():
    with said(b"220 \x1b[31mred\x07" + b"x" * 1000 + b"\r\n") as dialogue:
        words = str(dialogue.read_reply("greeting"))
    assert words.startswith("220 ?[31mred?xxx")
    assert len(words) == module.SHOWN + 1


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"\x00\x01\x02\x03\x04",
        b"\r\n",
        b"620 no such class\r\n",
        b"120 nor this\r\n",
        b"22 short\r\n",
        b"2200 long\r\n",
        b"220x glued\r\n",
        b"220-one code\r\n250 then another\r\n",
        b"220-one code\r\nthen none\r\n",
    ],
)
def test_garbage_is_named_as_such_at_once(data):
    began = time.monotonic()
    found = failure(data, end=False)
    assert found.cause == "garbage"
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("record", [b"\x15\x03\x01\x00\x02\x02\x46", b"\x16\x03\x03\x00\x7a\x02"])
def test_tls_records_are_recognized(record):
    assert failure(record).cause == "tls_first"


@pytest.mark.parametrize(
    "banner",
    [b"220 " + b"x" * 2_000_000, b"220-x\r\n" * 285_715, b"220-" + b"x" * 60_000 + b"\r\n220-" + b"y" * 2_000_000],
)
def test_two_megabytes_of_banner_are_not_read(relay, banner):
    server = relay(lambda connection: connection.say(banner))
    with connect("127.0.0.1", server.port, Deadline(5)) as dialogue:
        with pytest.raises(Failure) as raised:
            dialogue.read_reply("greeting")
        assert raised.value.cause == "flood"
        assert len(dialogue._buffer) <= module.REPLY_LIMIT + 4096


def test_a_reply_has_a_limited_number_of_lines():
    assert failure(b"250-x\r\n" * 300 + b"250 end\r\n").words == "greeting: more than 256 lines in one reply"
    with said(b"250-x\r\n" * 255 + b"250 end\r\n") as dialogue:
        assert len(dialogue.read_reply("greeting").lines) == 256


@pytest.mark.parametrize("data", [b"", b"220", b"220-half a reply\r\n", b"220 no end"])
def test_a_server_that_hangs_up(data):
    assert failure(data).cause == "closed"


def test_a_dripping_server_cannot_outlast_the_deadline(relay):
    def drip(connection):
        while not connection.relay.over.wait(0.05):
            connection.say(b"220-still here\r\n"[:1] if connection.relay.heard else b"220-more\r\n")

    began = time.monotonic()
    with connect("127.0.0.1", relay(drip).port, Deadline(0.2)) as dialogue, pytest.raises(Failure) as raised:
        dialogue.read_reply("greeting")
    assert raised.value.cause == "timeout"
    assert raised.value.words == "greeting: no answer within 0.2 s"
    assert 0.15 < time.monotonic() - began < 0.7


def test_a_server_that_does_not_read_cannot_outlast_the_deadline(relay):
    server = relay(lambda connection: connection.hang())
    began = time.monotonic()
    with connect("127.0.0.1", server.port, Deadline(0.2)) as dialogue, pytest.raises(Failure) as raised:
        dialogue.send_data(b"x" * 50_000_000)
    assert raised.value.cause == "timeout"
    assert time.monotonic() - began < 0.7


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=300) | st.lists(st.sampled_from([b"220", b"-", b" ", b"\r", b"\n", b"x", b"\0"])).map(b"".join)
)
def test_whatever_a_server_says_is_a_reply_or_a_failure(data):
    with said(data) as dialogue, contextlib.suppress(Failure):
        reply = dialogue.read_reply("greeting")
        assert 200 <= reply.code <= 599
        assert str(reply).isprintable()


# Commands


@pytest.mark.parametrize("line", [b"EHLO x\r\nMAIL FROM:<>", b"EHLO x\nQUIT", b"EHLO x\r", b"EHLO \0"])
def test_a_command_cannot_hold_a_second_one(relay, line):
    server = relay()
    with connect("127.0.0.1", server.port, Deadline(5)) as dialogue:
        dialogue.read_reply("greeting")
        with pytest.raises(Failure) as raised:
            dialogue.command(line)
        assert raised.value.cause == "control"
        dialogue.command(b"QUIT")
    assert server.heard == [b"QUIT"]


def test_what_a_server_said_before_it_hung_up_is_heard(relay):
    def leave(connection):
        connection.say(b"220 hello\r\n421 4.3.2 shutting down\r\n")

    with connect("127.0.0.1", relay(leave).port, Deadline(5)) as dialogue:
        dialogue.read_reply("greeting")
        assert str(dialogue.command(b"EHLO x")) == "421 4.3.2 shutting down"
        with pytest.raises(Failure) as raised:
            dialogue.command(b"NOOP")
    assert raised.value.cause == "closed"


def test_ehlo_says_the_given_name_or_our_address(relay):
    server = relay()
    with connect("127.0.0.1", server.port, Deadline(5)) as dialogue:
        dialogue.read_reply("greeting")
        dialogue.ehlo("web1.example.test")
        dialogue.ehlo("")
    assert server.heard[:2] == [b"EHLO web1.example.test", b"EHLO [127.0.0.1]"]


@pytest.mark.parametrize(
    ("lines", "capabilities"),
    [
        ((), {}),
        (("PIPELINING", "size 1024", ""), {"PIPELINING": "", "SIZE": "1024", "": ""}),
        (("AUTH PLAIN LOGIN", "AUTH=PLAIN LOGIN"), {"AUTH": "PLAIN LOGIN PLAIN LOGIN"}),
        (("auth=LOGIN",), {"AUTH": "LOGIN"}),
        (("AUTH",), {"AUTH": ""}),
        (("AUTHORITY x",), {"AUTHORITY": "x"}),
    ],
)
def test_capabilities(lines, capabilities):
    assert parse_capabilities(lines) == capabilities


# TLS

OFFER = b"250-relay\r\n250 STARTTLS\r\n"


def greeted(server) -> Dialogue:
    dialogue = connect("127.0.0.1", server.port, Deadline(5))
    dialogue.read_reply("greeting")
    dialogue.ehlo("x")
    return dialogue


def test_clear_text_behind_the_answer_to_starttls_is_refused(relay, server_context, ca_file):
    server = relay(EHLO=OFFER, STARTTLS=b"220 go\r\n250-relay\r\n250 AUTH PLAIN\r\n", context=server_context)
    with greeted(server) as dialogue:
        with pytest.raises(Failure) as raised:
            dialogue.starttls(tls.context(ca_file, True), "localhost")
        assert raised.value.cause == "injection"
        assert not dialogue.encrypted


def test_clear_text_in_a_packet_of_its_own_breaks_the_handshake(relay, server_context, ca_file):
    def inject(connection, _line):
        connection.say(b"220 go\r\n")
        time.sleep(0.05)
        connection.say(b"250 AUTH PLAIN\r\n")
        connection.begin_tls()

    with greeted(relay(EHLO=OFFER, STARTTLS=inject, context=server_context)) as dialogue:
        with pytest.raises(Failure) as raised:
            dialogue.starttls(tls.context(ca_file, True), "localhost")
        assert raised.value.cause == "tls"
        assert not dialogue.encrypted


def test_tls_makes_us_forget_what_was_offered_in_clear(relay, server_context, ca_file):
    server = relay(EHLO=OFFER, STARTTLS="TLS", EHLO_TLS=b"250 relay\r\n", context=server_context)
    with greeted(server) as dialogue:
        assert dialogue.starttls(tls.context(ca_file, True), "localhost") is None
        assert dialogue.encrypted
        assert dialogue.capabilities == {}
        assert dialogue.ehlo("x").code == 250
        assert dialogue.capabilities == {}


def test_a_refused_starttls_is_returned(relay, ca_file):
    with greeted(relay(EHLO=OFFER, STARTTLS=b"454 4.7.0 TLS not available\r\n")) as dialogue:
        reply = dialogue.starttls(tls.context(ca_file, True), "localhost")
    assert reply is not None
    assert reply.code == 454


@pytest.mark.parametrize("name", ["", ".localhost"])
def test_a_name_that_tls_cannot_express(relay, server_context, ca_file, name):
    with greeted(relay(EHLO=OFFER, STARTTLS="TLS", context=server_context)) as dialogue:
        with pytest.raises(Failure) as raised:
            dialogue.starttls(tls.context(ca_file, True), name)
        assert raised.value.cause == "resolve"


# Secrets


@pytest.mark.parametrize("echo", [str, str.upper, str.lower, lambda text: text[:40], lambda text: text[5:30] + "..."])
def test_an_echoed_line_is_hidden(echo):
    password = "p" + "".join(map(chr, range(33, 100)))
    line = base64.b64encode(f"\0user\0{password}".encode())
    reply = f"500 5.5.2 what is AUTH PLAIN {echo(line.decode())} supposed to be\r\n".encode()
    with said(reply) as dialogue:
        dialogue.conceal(password, [line])
        words = dialogue.read_reply("AUTH").text
    assert words.startswith("5.5.2 what is AUTH PLAIN ********")
    assert not any(line.decode().lower()[at : at + 8] in words.lower() for at in range(len(line) - 8))


@pytest.mark.parametrize("password", ["hunter22", "pässwörd", "a b\tc\\'\"", "%41x y&z"])
def test_an_echoed_password_is_hidden(password):
    with said(f"535-5.7.8 {password}\r\n535 5.7.8 is wrong\r\n".encode()) as dialogue:
        dialogue.conceal(password, [])
        assert dialogue.read_reply("AUTH").text == "5.7.8 ******** is wrong"


def test_ordinary_words_are_left_alone():
    with said(b"535 5.7.8 Authentication credentials invalid\r\n") as dialogue:
        dialogue.conceal("an Authentication of sorts", [b"AGFuIEF1dGhlbnRpY2F0aW9u"])
        assert dialogue.read_reply("AUTH").text == "5.7.8 Authentication credentials invalid"
