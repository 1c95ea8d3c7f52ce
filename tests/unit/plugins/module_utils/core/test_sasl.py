# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from base64 import b64decode, b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.fleetmail.smtp.plugins.module_utils.core import sasl
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.dialogue import Failure, Reply
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.target import Bearer, Password

OK = Reply(235, ("2.7.0 Authentication successful",))
GO_ON = Reply(334, ("",))
WRONG = Reply(535, ("5.7.8 Authentication credentials invalid",))


def complaint(**error) -> Reply:
    return Reply(334, (b64encode(json.dumps(error).encode()).decode(),))


class Server:
    """Answers in turn and remembers what it was told."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)
        self.heard: list[bytes] = []

    def __call__(self, line: bytes) -> Reply:
        self.heard.append(line)
        return self.replies.pop(0)


@pytest.mark.parametrize(
    ("exchange", "responses"),
    [
        # RFC 4616 section 4
        (sasl.plain(Password("tim", "tanstaaftanstaaf"), "h", 25), (b"\0tim\0tanstaaftanstaaf",)),
        (sasl.plain(Password("jürgen", "pä ß\t€"), "h", 25), ("\0jürgen\0pä ß\t€".encode(),)),
        (sasl.login(Password("jürgen", " x "), "h", 25), ("jürgen".encode(), b" x ")),
        (
            sasl.xoauth2(Bearer("someuser@example.com", "ya29.vF9"), "h", 25),
            (b"user=someuser@example.com\x01auth=Bearer ya29.vF9\x01\x01",),
        ),
        # RFC 7628 section 4.1
        (
            sasl.oauthbearer(
                Bearer("user@example.com", "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="), "server.example.com", 143
            ),
            (
                b"n,a=user@example.com,\x01host=server.example.com\x01port=143\x01"
                b"auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01",
            ),
        ),
        (
            sasl.oauthbearer(Bearer("a,b=c=2C", "t"), "h", 587),
            (b"n,a=a=2Cb=3Dc=3D2C,\x01host=h\x01port=587\x01auth=Bearer t\x01\x01",),
        ),
    ],
)
def test_what_each_mechanism_says(exchange, responses):
    assert exchange.responses == responses


without_nul = st.characters(min_codepoint=1, exclude_categories=["Cs"])


@settings(max_examples=60, deadline=None)
@given(st.text(without_nul), st.text(without_nul) | st.text(without_nul, max_size=100).map(lambda text: text * 20))
def test_plain_carries_any_user_name_and_password(username, password):
    heard = []

    def say(line):
        heard.append(line)
        return GO_ON if line == b"AUTH PLAIN" else OK

    reply, _rest = sasl.authenticate(sasl.plain(Password(username, password), "h", 25), say)
    assert reply is OK
    assert b64decode(heard[-1].split(b" ")[-1]).decode() == f"\0{username}\0{password}"
    assert all(len(line) + 2 <= 512 for line in heard if line.startswith(b"AUTH"))


@pytest.mark.parametrize(
    "auth",
    [
        Password("a\0b", "x"),
        Password("a", "x\0y"),
        Bearer("a\x01b", "t"),
        Bearer("a", "t\x01auth=x"),
        Bearer("a\0", "t"),
    ],
)
def test_separators_in_credentials_are_refused(auth):
    for offered in (["PLAIN"], ["LOGIN"]) if isinstance(auth, Password) else (["XOAUTH2"], ["OAUTHBEARER"]):
        with pytest.raises(Failure) as raised:
            sasl.choose(auth, offered, "h", 25)
        assert raised.value.cause == "control"


@pytest.mark.parametrize(
    ("auth", "offered", "chosen"),
    [
        (Password("u", "p"), ["LOGIN", "PLAIN"], "PLAIN"),
        (Password("u", "p"), ["XOAUTH2", "LOGIN"], "LOGIN"),
        (Password("u", "p"), ["CRAM-MD5", "XOAUTH2"], None),
        (Bearer("u", "t"), ["PLAIN", "OAUTHBEARER", "XOAUTH2"], "XOAUTH2"),
        (Bearer("u", "t", ("OAUTHBEARER",)), ["XOAUTH2", "OAUTHBEARER"], "OAUTHBEARER"),
        (Bearer("u", "t"), ["PLAIN", "LOGIN"], None),
    ],
)
def test_the_choice(auth, offered, chosen):
    if chosen:
        assert sasl.choose(auth, offered, "h", 25).mechanism == chosen
        return
    with pytest.raises(Failure) as raised:
        sasl.choose(auth, offered, "h", 25)
    assert raised.value.cause == "mechanism"
    assert " ".join(offered) in raised.value.words


def test_plain_with_the_command():
    server = Server(OK)
    reply, reason = sasl.authenticate(sasl.plain(Password("tim", "tanstaaftanstaaf"), "h", 25), server)
    assert (reply, reason) == (OK, "")
    assert server.heard == [b"AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm"]


def test_login_waits_to_be_asked():
    server = Server(Reply(334, ("VXNlcm5hbWU6",)), Reply(334, ("UGFzc3dvcmQ6",)), OK)
    assert sasl.authenticate(sasl.login(Password("jürgen", "pä ß"), "h", 25), server)[0] is OK
    assert server.heard == [b"AUTH LOGIN", b64encode("jürgen".encode()), b64encode("pä ß".encode())]


def test_login_stops_when_the_server_does():
    server = Server(GO_ON, WRONG)
    assert sasl.authenticate(sasl.login(Password("u", "secret"), "h", 25), server)[0] is WRONG
    assert server.heard == [b"AUTH LOGIN", b64encode(b"u")]


@pytest.mark.parametrize("octets", [511, 512, 513, 514, 515, 516])
def test_an_initial_response_only_within_the_command_line(octets):
    overhead = len(b"AUTH XOAUTH2 \r\n")
    blob = (octets - overhead) // 4 * 3
    exchange = sasl.Exchange("XOAUTH2", (b"x" * blob,), last_word=b"")
    server = Server(GO_ON, OK)
    sasl.authenticate(exchange, server)
    line = len(server.heard[0]) + 2
    length = overhead + len(exchange.lines[0])
    assert line == (length if length <= 512 else len(b"AUTH XOAUTH2\r\n"))
    assert line <= 512


def test_a_long_token_goes_alone():
    server = Server(GO_ON, OK)
    exchange = sasl.oauthbearer(Bearer("u", "t" * 3000), "h", 25)
    assert sasl.authenticate(exchange, server)[0] is OK
    assert server.heard == [b"AUTH OAUTHBEARER", b64encode(exchange.responses[0])]


@pytest.mark.parametrize(
    ("mechanism", "answer"), [(sasl.xoauth2, b""), (sasl.oauthbearer, b"AQ==")], ids=["xoauth2", "oauthbearer"]
)
@pytest.mark.parametrize("token", ["short", "t" * 2000])
def test_the_error_of_a_bearer_mechanism_is_read_and_answered(mechanism, answer, token):
    before = [] if token == "short" else [GO_ON]
    server = Server(*before, complaint(status="401", schemes="bearer", scope="https://mail.google.com/"), WRONG)
    reply, reason = sasl.authenticate(mechanism(Bearer("u", token), "h", 25), server)
    assert reply is WRONG
    assert reason == "status 401, schemes bearer, scope https://mail.google.com/"
    assert server.heard[-1] == answer


@pytest.mark.parametrize(
    "challenge", ["", "%%%", "aGVsbG8=", b64encode(b"[1]").decode(), b64encode(b"[" * 40_000).decode(), "ä"]
)
def test_an_error_that_is_no_json_is_answered_all_the_same(challenge):
    server = Server(Reply(334, (challenge,)), WRONG)
    assert sasl.authenticate(sasl.xoauth2(Bearer("u", "t"), "h", 25), server) == (WRONG, "")
    assert server.heard[-1] == b""


def test_a_server_that_keeps_asking_is_cancelled():
    server = Server(GO_ON, Reply(501, ("cancelled",)))
    assert sasl.authenticate(sasl.plain(Password("u", "p"), "h", 25), server)[0].code == 501
    assert server.heard[-1] == b"*"


def test_a_server_that_never_stops_asking_is_left():
    server = Server(*[GO_ON] * 10)
    assert sasl.authenticate(sasl.login(Password("u", "p"), "h", 25), server)[0].code == 334
    assert len(server.heard) == 4


def test_nothing_shows_a_secret():
    exchange = sasl.xoauth2(Bearer("u", "canary"), "h", 25)
    for shown in (repr(exchange), repr(Bearer("u", "canary")), repr(Password("u", "canary"))):
        assert "canary" not in shown
