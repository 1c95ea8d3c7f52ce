# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fleet's way from passwords to OAuth, with what happens on the way: one story, in this order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import machine, oauth_server
from lab.network import AUTH_NAME
from lab.playbook import Played

from fleet.oauth_site import (
    MAILBOX,
    ONCALL,
    Site,
    running,
)

WHY_NOT = machine.why_unavailable() or oauth_server.why_unavailable()
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "machines can run here")

BOOK = Path(__file__).with_name("hub.yml")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("oauth")) as made:
        yield made


def good(played: Played) -> Played:
    assert played.code == 0, played.out + played.err
    return played


def test_explore(site: Site) -> None:
    import time

    def timed(name, *a, **k):
        t = time.monotonic()
        p = site.play(name, *a, **k)
        print("#####", name, p.code, round(time.monotonic() - t, 1))
        print(p.out[-6000:], p.err[-3000:])
        return p

    timed(str(BOOK))
    timed(
        "rollout", rollout_hosts="all:!hub", rollout_canary="mover1", rollout_test_to=ONCALL, rollout_batches=["100%"]
    )
    begun = timed("authorize", authorize_hosts="all:!leaf*")
    urls = re.findall(rf"(https://{AUTH_NAME}[^\s\"',]*/auth\?[^\s\"',]+)", begun.out)
    print(urls)
    answers = [site.server.authorize(url, MAILBOX) for url in dict.fromkeys(urls)]
    timed("authorize", authorize_hosts="all:!leaf*", authorize_responses=answers)
    site.send("x", "leaf1", "leaf2", "mover1", "mover2", "plain")
    try:
        site.all_arrived()
    except TimeoutError as e:
        print("TIMEOUT", e)
        for m in site.machines.values():
            print(m.name, m.log()[-2500:])
    print(site.hands_in("mover1"))
    service = {"username": MAILBOX, **site.client}
    timed(
        "migrate_to_oauth",
        migrate_to_oauth_service=service,
        migrate_to_oauth_test_to=ONCALL,
        migrate_to_oauth_hosts="mover*:plain",
        migrate_to_oauth_batches=[1],
        migrate_to_oauth_canary="mover1",
        migrate_to_oauth_max_fail_percentage=100,
    )
    print(site.status("hub"))
    assert 0
