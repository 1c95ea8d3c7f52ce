# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whatever fails on the way, Postfix is put back to the byte; and mail that is followed until the relay has spoken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from integration.postfix_machine import LOGIN, MAIN, MASTER, OWN, PASSWORD, STATE, Machine, form, machine
from lab import core
from lab.authority import Authority
from lab.layers import why_unavailable
from lab.tree import RELAY_NAME

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "the lab is there")

# nobody listens at that port: mail waits
BEFORE = form("tls", **{**LOGIN, "username": "old", "password": "0ld secret"}, port=2)
AFTER = form(**LOGIN, from_address=OWN, backend_options={"null_client": True})
SHOP = {**AFTER, "name": "shop", "from_address": "", "senders": ["shop@example.com"]}
GOOD = "/opt/postfix-good"
REFUSING_WRAPPER = """#!/bin/sh
case "$*" in *{0}) echo "no {0} today" >&2; exit 1;; esac
exec /usr/sbin/postfix.real "$@"
"""
Send = dict[str, Any]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with machine(Authority(tmp_path_factory.mktemp("authority"))) as found:
        found.reset()
        found.enforce(BEFORE)
        found.shell(f"cp -a /etc/postfix {GOOD}")
        yield found


@pytest.fixture
def host(started: Machine) -> Machine:
    """A service that cannot deliver, one mail in its queue, and a relay with its ordinary manners."""
    started.reset()
    started.shell(f"rm -rf /etc/postfix; cp -a {GOOD} /etc/postfix; mkdir -p {STATE}/smtp; postfix reload")
    started.send("waiting@elsewhere.example")
    started.wait(lambda: [mail for mail in started.queue() if mail["queue_name"] == "deferred"])
    return started


def rolled_back(host: Machine, options: dict[str, Any]) -> dict[str, Any]:
    """It fails, all is as it was, and the mail that waited still waits; gives the result."""
    waiting = [(mail["queue_id"], mail["sender"]) for mail in host.queue()]
    assert [sender for _rest, sender in waiting] == ["waiting@elsewhere.example"]
    result = host.failure(options)
    assert result["rolled_back"]
    assert [(mail["queue_id"], mail["sender"]) for mail in host.queue()] == waiting
    assert result["drift"]
    assert host.tree.output(["postconf", "-h", "relayhost"]) == f"[{RELAY_NAME}]:2"
    text = str(result)
    assert not any(secret in text for secret in (PASSWORD, "0ld secret"))
    return result


@contextmanager
def refusing(host: Machine, command: str) -> Iterator[None]:
    """In a tree whose postfix(1) has no such command."""
    host.tree.run(["mv", "/usr/sbin/postfix", "/usr/sbin/postfix.real"])
    host.tree.write("/usr/sbin/postfix", REFUSING_WRAPPER.format(command), mode=0o755)
    try:
        yield
    finally:
        host.tree.run(["mv", "/usr/sbin/postfix.real", "/usr/sbin/postfix"])


def test_a_checker_that_refuses(host: Machine) -> None:
    with refusing(host, "check"):
        result = rolled_back(host, AFTER)
    assert result["problems"][0]["option"] == "check"
    assert "postfix check says: no check today" in result["msg"]


@pytest.mark.parametrize("options", [{**AFTER, "backend_options": {}}, SHOP], ids=["for all mail", "by senders"])
def test_a_reload_that_fails(host: Machine, options: dict[str, Any]) -> None:
    with refusing(host, "reload"):
        result = rolled_back(host, options)
    assert "'postfix reload' failed: no reload today" in result["msg"]


def test_files_that_postfix_cannot_read_are_told_and_left_alone(host: Machine) -> None:
    for path, line in ((MAIN, "relayhost [x]"), (MASTER, "one two three")):
        host.shell(f"echo '{line}' >> {path}")
        host.tree.let_cool()
        result = host.failure(AFTER)
        assert [one["option"] for one in result["problems"]] == [path]
        assert "Postfix cannot read it" in result["msg"]
        host.shell(f"sed -i '$d' {path}")


def test_a_probe_that_fails(host: Machine) -> None:
    host.relay.change(auth_reply="535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled")
    result = rolled_back(host, {**AFTER, "verify": "auth"})
    assert result["problems"][0]["option"] in ("verify", "auth_type", "password", "username")
    assert "disabled" in str(result["problems"])
    assert not result["verification"]["ok"]


def test_a_stopped_postfix_stays_stopped(host: Machine) -> None:
    host.tree.stop("postfix")
    result = host.failure({**AFTER, "port": 3, "verify": "connect"})
    assert result["rolled_back"]
    assert {"field": "running", "before": False, "after": True} in result["drift"]
    host.tree.start("postfix")


def test_a_test_send_that_the_relay_refuses(host: Machine) -> None:
    host.relay.change(users={"fleet": PASSWORD}, rcpt_replies={"*": "550 5.1.1 nobody of that name"})
    result = rolled_back(host, {**AFTER, "test_send": {"to": ["r@example.org"]}})
    assert "550 5.1.1 nobody of that name" in result["msg"]
    assert not result["test_send"]["sent"]


@pytest.mark.parametrize("options", [AFTER, SHOP], ids=["for all mail", "by senders"])
def test_a_test_send_through_postfix_that_the_relay_refuses(host: Machine, options: dict[str, Any]) -> None:
    host.relay.change(users={"fleet": PASSWORD}, rcpt_replies={"bad@example.org": "550 5.1.1 nobody of that name"})
    send = {"to": ["good@example.org", "bad@example.org"], "sender": "shop@example.com", "via": "mta", "timeout": 20}
    result = rolled_back(host, {**options, "test_send": send})
    assert "bad@example.org" in result["msg"]
    assert "550 5.1.1 nobody of that name" in result["msg"]
    assert "good@example.org" not in result["msg"]
    assert [message.recipients for message in host.relay.messages()] == [["good@example.org"]]


def test_a_test_send_through_postfix_that_stays_in_the_queue(host: Machine) -> None:
    host.relay.change(users={"fleet": PASSWORD}, rcpt_replies={"*": "451 4.7.1 later perhaps"})
    send = {"to": ["r@example.org"], "via": "mta", "timeout": 2}
    result = rolled_back(host, {**AFTER, "test_send": send})
    assert "451 4.7.1 later perhaps" in result["msg"]
    assert "2 s" in result["msg"]


def test_sends_through_postfix_when_nothing_else_is_to_do(host: Machine) -> None:
    host.relay.change(users={"fleet": PASSWORD}, rcpt_replies={"bad@example.org": "550 5.1.1 nobody of that name"})
    send: Send = {"to": ["r@example.org", "s@example.org"], "via": "mta", "when": "always", "timeout": 20}
    result = host.enforce({**AFTER, "test_send": send})
    assert result["test_send"]["sent"]
    assert result["test_send"]["via"] == "mta"
    assert "Queued as" in result["test_send"]["reply"]
    message = next(one for one in host.relay.messages() if "waiting" not in str(one.data))
    assert message.email["Message-ID"] == result["test_send"]["message_id"]
    assert message.sender == OWN
    assert sorted(message.recipients) == ["r@example.org", "s@example.org"]
    refused = core.enforce(host.tree, {**AFTER, "test_send": {**send, "to": ["bad@example.org"]}})
    assert refused["failed"]
    assert not refused["rolled_back"]
    assert "550 5.1.1 nobody of that name" in refused["msg"]
    skipped = host.enforce({**AFTER, "test_send": {**send, "when": "changed"}})
    assert skipped["test_send"]["skipped"]


def test_a_mail_that_stays_on_the_host_proves_no_relay(host: Machine) -> None:
    send = {"to": ["root@client.example.test"], "via": "mta", "timeout": 20}
    result = rolled_back(host, {**AFTER, "backend_options": {}, "test_send": send})
    assert "delivered on this host, not by the relay" in result["msg"]


# -- file systems ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["/etc", "/var/lib"])
def test_a_read_only_file_system_is_told_and_nothing_changes(host: Machine, place: str) -> None:
    host.shell(f"mount --bind {place} {place}; mount -o remount,ro,bind {place}")
    try:
        assert host.drift(AFTER)
        result = host.failure(AFTER)
    finally:
        host.tree.run(["umount", place])
    assert "Read-only file system" in result["msg"]
    assert result["problems"][0]["hint"] == "mount it writable"


def test_a_full_file_system_is_told_and_nothing_changes(tmp_path_factory: pytest.TempPathFactory) -> None:
    with machine(Authority(tmp_path_factory.mktemp("authority")), size="12m") as host:
        host.enforce(BEFORE)
        host.shell("cat /dev/zero > /var/filler 2>/dev/null", check=False)
        for options in (AFTER, SHOP, {**BEFORE, "password": "another"}):
            result = host.failure(options)
            assert "No space left on device" in str(result["problems"]), result
        host.shell("rm /var/filler")
        result = host.enforce(AFTER)
        assert result["changed"]
