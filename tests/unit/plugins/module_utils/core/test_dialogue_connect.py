# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.dialogue import (
    Deadline,
    Failure,
    connect,
)


def answering(monkeypatch, *addresses):
    """getaddrinfo() answers with these IPv4 addresses."""

    def look_up(_host, port, **_kwargs):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def test_every_address_is_tried(relay, monkeypatch):
    server = relay()
    answering(monkeypatch, "127.0.0.2", "127.0.0.3", "127.0.0.1")
    with connect("several.example.test", server.port, Deadline(5)) as dialogue:
        assert dialogue.sock.getpeername()[0] == "127.0.0.1"


def test_an_address_that_does_not_answer_takes_only_its_share(relay, monkeypatch):
    with socket.create_server(("127.0.0.2", 0), backlog=0) as full, contextlib.ExitStack() as waiting:
        server = socket.create_server(("127.0.0.1", full.getsockname()[1]))
        waiting.enter_context(server)
        for _rest in range(4):  # the kernel drops what goes beyond the backlog
            filler = waiting.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        answering(monkeypatch, "127.0.0.2", "127.0.0.1")
        began = time.monotonic()
        with connect("several.example.test", full.getsockname()[1], Deadline(0.5)) as dialogue:
            assert dialogue.sock.getpeername()[0] == "127.0.0.1"
        assert 0.2 < time.monotonic() - began < 0.5


def test_when_no_address_works_each_is_told(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    answering(monkeypatch, "127.0.0.2", "127.0.0.3")
    with pytest.raises(Failure) as raised:
        connect("several.example.test", port, Deadline(2))
    assert raised.value.cause == "refused"
    assert "127.0.0.2" in raised.value.words
    assert "127.0.0.3" in raised.value.words


def test_an_address_that_this_host_cannot_use_hides_no_other_reason(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    no_such_family = (99, socket.SOCK_STREAM, 6, "", ("fd77::25", port))
    usable = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_more: [no_such_family, usable, no_such_family])
    with pytest.raises(Failure) as raised:
        connect("several.example.test", port, Deadline(2))
    assert raised.value.cause == "refused"
    assert raised.value.words.count("fd77::25") == 2


def test_ipv6(relay):
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with listener, connect("::1", listener.getsockname()[1], Deadline(2)) as dialogue:
        theirs, _rest = listener.accept()
        with theirs:
            theirs.sendall(b"250 ok\r\n")
            dialogue.ehlo("")
            assert theirs.recv(100) == b"EHLO [IPv6:::1]\r\n"


@pytest.mark.parametrize("name", ["x" * 64 + ".example.test", "a..b", "nul\0byte"])
def test_names_that_cannot_be(name):
    with pytest.raises(Failure) as raised:
        connect(name, 25, Deadline(5))
    assert raised.value.cause == "resolve"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), "Temporary failure"),
    ],
)
def test_names_that_do_not_resolve(monkeypatch, error, words):
    def look_up(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(Failure) as raised:
        connect("nowhere.example.test", 25, Deadline(5))
    assert raised.value.cause == "resolve"
    assert words in raised.value.words


def test_a_name_server_that_does_not_answer_cannot_outlast_the_deadline(monkeypatch):
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_kwargs: over.wait(10) or [])
    began = time.monotonic()
    with pytest.raises(Failure) as raised:
        connect("slow.example.test", 25, Deadline(0.2))
    over.set()
    assert raised.value.cause == "timeout"
    assert time.monotonic() - began < 0.8
