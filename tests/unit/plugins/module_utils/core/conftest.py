# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scripted relays and certificates for the tests of the conversation."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from lab.authority import Authority
from unit.scripted_relay import Scripted, context_of, script


@pytest.fixture
def relay() -> Iterator[Callable[..., Scripted]]:
    """Start relays: ``relay(handler, context=None, implicit=False)``, or ``relay(VERB=reply, …)`` for a script."""
    with contextlib.ExitStack() as stack:

        def start(handler: Any = None, *, context: Any = None, implicit: bool = False, **replies: Any) -> Scripted:
            started = Scripted(handler or script(**replies), context, implicit)
            stack.callback(started.stop)
            return started

        yield start


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def ca_file(authority: Authority) -> str:
    return str(authority.ca_file)


@pytest.fixture(scope="session")
def server_context(authority: Authority) -> ssl.SSLContext:
    """A server's context with a certificate of ``authority`` for localhost and 127.0.0.1."""
    return context_of(authority.good("localhost", "127.0.0.1"))
