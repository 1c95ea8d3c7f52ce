# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What cannot be had from a real server at will; the rest is in tests/integration/test_oauth_errors.py."""

from __future__ import annotations

import builtins
import sys
import time
from typing import Any

import pytest

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.http import (
    Call,
    NoAnswer,
    Requests,
    shown_url,
    within,
)


def test_work_that_is_done_in_time() -> None:
    assert within(5, lambda: 7) == 7
    with pytest.raises(KeyError):
        within(5, lambda: {}["x"])


def test_work_that_hangs_is_left_behind() -> None:
    began = time.monotonic()
    with pytest.raises(NoAnswer) as missed:
        within(0.1, lambda: time.sleep(20))
    assert time.monotonic() - began < 15
    assert (missed.value.kind, missed.value.sent) == ("timeout", True)


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
