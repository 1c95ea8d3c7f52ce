# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import contextlib
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from lab.hostile import Hostile
from unit.scripted_relay import names, target

from ansible_collections.fleetmail.smtp.plugins.module_utils.core import conversation
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.probe import Password, Target, probe

SECRET = Password("jürgen", "canary-" + "0123456789" * 60)  # long, so that it follows a 334
HOSTILE = {  # step of the server -> step of the probe that has to fail
    "none": dict(banner="connect", ehlo="ehlo", auth="auth", secret="auth", mail="mail", rcpt="rcpt", rset="rset"),
    "starttls": dict(starttls="tls", handshake="tls", ehlo2="tls", mail="mail"),
    "tls": dict(handshake="tls", banner="ehlo", ehlo="ehlo"),
}
CAUSES = {
    "hang": {"step_timeout", "greeting_timeout", "tls_timeout"},
    "drip": {"step_timeout", "greeting_timeout", "tls_timeout"},
    "close": {"closed", "closed_at_once"},
    "close_midway": {"closed", "closed_at_once", "not_smtp"},
    "garbage": {"not_smtp", "tls_failed", "plain_first"},
    "not_a_reply": {"not_smtp", "tls_failed", "plain_first"},
    "flood_line": {"flood", "tls_failed", "plain_first"},
    "flood_lines": {"flood", "tls_failed", "plain_first"},
}
CASES = [(security, step, deed) for security, steps in HOSTILE.items() for step in steps for deed in CAUSES]
CASES += [
    ("starttls", "starttls", "inject"),
    ("none", "auth", "echo"),
    ("none", "secret", "echo"),
    ("none", "mail", "echo"),
]
TIMEOUT = 0.4


@pytest.fixture(scope="module")
def outcomes(authority, ca_file):
    """All cases at once, because hanging takes its time: by case, the report, the seconds and what the server got."""
    certificate = authority.good("localhost")
    servers = [Hostile(step, deed, security, certificate) for security, step, deed in CASES]

    def run(case, server):
        at = target(
            server, security=case[0], ca_file=ca_file, auth=SECRET, timeout=TIMEOUT, recipient="you@example.test"
        )
        began = time.monotonic()
        report = probe(at, "recipient")
        return report, time.monotonic() - began, bytes(server.received)

    with contextlib.ExitStack() as stack, ThreadPoolExecutor(16) as pool:
        started = [stack.enter_context(server.start()) for server in servers]
        return dict(zip(CASES, pool.map(run, CASES, started), strict=True))


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_a_relay_that_misbehaves(outcomes, case):
    security, step, deed = case
    report, seconds, received = outcomes[case]
    assert seconds < TIMEOUT + 0.5
    assert (report.ok, names(report)[-1], report.steps[-1].ok) == (False, HOSTILE[security][step], False)
    assert report.cause in CAUSES.get(deed, {"injection", "credentials_refused", "sender_refused"})
    if "timeout" in report.cause:
        assert f"within {TIMEOUT} s" in report.problem
    assert report.problem.endswith(".")
    assert len(report.problem) < 1000
    shown = repr(report) + json.dumps(report.as_result())
    assert "canary" not in shown
    assert "0123456789" not in shown
    assert not any(
        blob in shown for blob in re.findall("[A-Za-z0-9+/]{16,}", base64.b64encode(SECRET.password.encode()).decode())
    )
    if step in ("banner", "ehlo", "starttls", "handshake", "ehlo2"):
        assert b"AUTH" not in received


@pytest.mark.parametrize("deed", ["hang", "close", "garbage", "drip", "flood_lines"])
def test_nothing_depends_on_quit(monkeypatch, deed):
    monkeypatch.setattr(conversation, "QUIT_WAIT", 0.1)
    began = time.monotonic()
    with Hostile("quit", deed).start() as server:
        report = probe(target(server), "connect")
    assert time.monotonic() - began < 1
    assert (report.ok, report.reached, names(report)[-1]) == (True, "connect", "quit")


def test_the_relay_shuts_down_midway(relay):
    server = relay(MAIL=b"421 4.3.2 Service shutting down\r\n")
    report = probe(target(server, recipient="you@example.test"), "recipient")
    assert (report.ok, names(report)[-1]) == (False, "mail")
    assert "421 4.3.2 Service shutting down" in report.problem


def test_a_hang_while_the_refused_certificate_is_looked_at(relay, server_context):
    def handle(connection):
        if connection.relay.connections == 1:
            connection.begin_tls()
        connection.hang()

    began = time.monotonic()
    report = probe(target(relay(handle, context=server_context), security="tls", timeout=0.3), "tls")
    assert time.monotonic() - began < 0.8
    assert (report.cause, report.tls) == ("certificate_unknown_ca", {})


def test_nothing_listens(relay):
    server = relay()
    server.stop()
    report = probe(target(server), "connect")
    assert (report.ok, report.reached, report.cause) == (False, "none", "refused")


def test_a_name_that_cannot_be():
    report = probe(Target("a..b", 25, timeout=2), "connect")
    assert (report.ok, report.cause) == (False, "name_unknown")
