# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Exchanges with a server that is not always there; how a refusal is told is in test_client.py."""

from __future__ import annotations

import pytest
from unit.scripted_http import TOKENS, Script, said

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.exchange import PASSING, Exchanges
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.http import Answer, Call, NoAnswer

CALL = Call("https://login.example.test/token", {"grant_type": "refresh_token"})
BUSY = Answer(429, {"retry-after": "10"}, b"")
GOOD = said(**TOKENS)


def exchanges(script: Script, **more: object) -> Exchanges:
    return Exchanges(script, sleep=script.pauses.append, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", PASSING)
def test_who_was_not_reached_is_asked_again(kind: str) -> None:
    script = Script(NoAnswer(kind, "", False), NoAnswer(kind, "", False), GOOD)
    assert exchanges(script, chance=lambda: 0.0).send(CALL) == GOOD
    assert script.pauses == [1, 3]


@pytest.mark.parametrize(("kind", "sent"), [("timeout", True), ("connection_refused", True), ("tls", False)])
def test_what_may_have_arrived_or_does_not_pass_is_not_asked_twice(kind: str, sent: bool) -> None:
    script = Script(NoAnswer(kind, "", sent), GOOD)
    with pytest.raises(NoAnswer):
        exchanges(script).send(CALL)
    assert (len(script.calls), script.pauses) == (1, [])


def test_the_last_try_gives_what_it_got() -> None:
    script = Script(BUSY, BUSY, BUSY, GOOD)
    assert exchanges(script, chance=lambda: 0.0).send(CALL) == BUSY
    assert script.pauses == [10, 10]


def test_patience_is_for_all_tries_together() -> None:
    script = Script(BUSY, GOOD)
    assert exchanges(script, timeout=5).send(CALL) == BUSY
    assert script.pauses == []


def test_hosts_that_were_sent_away_together_do_not_come_back_together() -> None:
    script = Script(BUSY, BUSY, GOOD)
    exchanges(script, chance=lambda: 0.5).send(CALL)
    assert script.pauses == [12.5, 12.5]
    hosts = [Script(NoAnswer("connection_refused", "", False), GOOD) for _host in range(20)]
    for host in hosts:
        exchanges(host).send(CALL)
    found = {host.pauses[0] for host in hosts}
    assert len(found) > 10
    assert all(1 <= pause <= 1.5 for pause in found)
