# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What cannot be had from a real server at will; the rest is in tests/integration/test_oauth_errors.py."""

from __future__ import annotations

import builtins
import socket
import sys
import threading
import time
from typing import Any

import pytest
from lab.error_server import ErrorServer

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.http import (
    Call,
    NoAnswer,
    Requests,
    shown_url,
    within,
)


def test_work_that_is_done_in_time() -> None:
    assert within(5, lambda: 7, bool) == 7
    with pytest.raises(KeyError):
        within(5, lambda: {}["x"], bool)


@pytest.mark.parametrize("sent", [True, False])
def test_work_that_hangs_is_left_behind(sent: bool) -> None:
    began = time.monotonic()
    with pytest.raises(NoAnswer) as missed:
        within(0.1, lambda: time.sleep(20), lambda: sent)
    assert time.monotonic() - began < 15
    assert (missed.value.kind, missed.value.sent) == ("timeout", sent)


def test_the_library_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "requests":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(NoAnswer, match="python3-requests") as missed:
        Requests()(Call("https://login.example.test/token", {}), 5)
    assert (missed.value.kind, missed.value.sent) == ("library_missing", False)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pw@login.example.test:8443/t?code=x#y", "https://login.example.test:8443/t"),
        ("https://login.example.test/t", "https://login.example.test/t"),
        ("https://[::1", "a URL that is none"),
        ("", "://"),
    ],
)
def test_a_url_as_it_is_told(url: str, shown: str) -> None:
    assert shown_url(url).startswith(shown)


def test_a_proxy_that_needs_another_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socks", None)
    with pytest.raises(NoAnswer, match="python3-socks") as missed:
        Requests(proxy="socks5h://127.0.0.1:9")(Call("https://login.example.test/token", {}), 5)
    assert not missed.value.sent


def test_what_was_given_up_sends_nothing_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a refresh token would be spent whose successor nobody waits for."""
    real = socket.getaddrinfo
    looked_up = threading.Event()

    def slow(*arguments: Any, **more: Any) -> Any:
        time.sleep(1.5)
        looked_up.set()
        return real(*arguments, **more)

    with ErrorServer() as server:
        monkeypatch.setattr(socket, "getaddrinfo", slow)
        with pytest.raises(NoAnswer) as missed:
            Requests()(Call(server.token_url, {"grant_type": "refresh_token", "refresh_token": "rt"}), 0.5)
        assert looked_up.wait(10)
        time.sleep(1)
        assert not any(request.body for request in server.requests("token"))
    assert (missed.value.kind, missed.value.sent) == ("timeout", False)
