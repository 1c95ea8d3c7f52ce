# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fleet's way from passwords to OAuth, and what happens to fleets on the way.

A hub that holds a grant and two leaves without secrets; two hosts that are migrated one by one; one that has no
requests for Python. The relay is cut off, machines lose their power, the authorization server is away: every mail
arrives, and everything is told. Real machines with systemd, over ssh as an ordinary user who becomes root. The tests
are one story, in this order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import machine, oauth_server
from lab.network import AUTH_NAME
from lab.playbook import Played, good

from fleet.oauth_site import JOURNAL, LEAVES, MAILBOX, ONCALL, QUEUEING, Site, meanwhile, running, wait_for

WHY_NOT = machine.why_unavailable() or oauth_server.why_unavailable()
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "machines can run here")

HUB_BOOK = Path(__file__).with_name("hub.yml")
KEEPER, TIMER = "fleetmail-keeper.service", "fleetmail-keeper.timer"
TEMPORARY = 75  # EX_TEMPFAIL of sysexits.h: the caller keeps the mail and tries again
HOLDERS = {"authorize_hosts": "all:!leaf*"}
NO_REQUESTS = "python3-requests"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("oauth")) as made:
        yield made


def migrate(site: Site, hosts: str) -> tuple[Played, dict[str, str]]:
    """Migrate hosts one by one, mover1 first; gives what is told of each as well."""
    how: dict[str, Any] = {"hosts": hosts, "canary": "mover1", "batches": [1], "max_fail_percentage": 100}
    what = {"service": {"username": MAILBOX, **site.client}, "test_to": ONCALL}
    played = site.play("migrate_to_oauth", **{f"migrate_to_oauth_{key}": value for key, value in (how | what).items()})
    table = played.of("What each host had, and has")["msg"]
    return played, dict(line.split(": ", 1) for line in table)


def test_a_hub_and_a_rollout_with_passwords(site: Site) -> None:
    good(site.play(str(HUB_BOOK)))
    first = {"rollout_canary": "mover1", "rollout_test_to": ONCALL, "rollout_batches": ["100%"]}
    good(site.play("rollout", rollout_hosts="all:!hub", **first))
    site.send("before anybody said yes", *LEAVES)  # waits on the hub
    site.send("with a password", "mover1", "mover2", "plain")
    wait_for(lambda: site.queued("hub") == 2, 30, site.machines["hub"].log)
    assert not [subject for subject in site.subjects() if "leaf" in subject]


def test_each_holder_of_a_grant_gets_it_and_who_cannot_is_told_why(site: Site) -> None:
    begun = site.play("authorize", **HOLDERS)
    asked = re.findall(rf'"(https://{AUTH_NAME}[^\s"]*/auth\?[^\s"]+)"', begun.out)
    answers = [site.server.authorize(url, MAILBOX) for url in dict.fromkeys(asked)]
    assert len(answers) == 4
    ended = site.play("authorize", **HOLDERS, authorize_responses=answers)
    verdicts = {one.host: one for one in ended.results if one.task == "All of them are authorized"}
    assert {name for name, one in verdicts.items() if one.status == "failed"} == {"plain"}, ended.out
    assert set(verdicts) == {"hub", "mover1", "mover2", "plain"}
    assert f"install the package {NO_REQUESTS} on this host" in verdicts["plain"].result["msg"]
    site.all_arrived()
    taken, said = site.hands_in("mover1")
    assert not taken, "it is no leaf"
    assert "Access denied" in said


def test_the_authorization_server_is_away(site: Site) -> None:
    hub = site.machines["hub"]
    site.server.refuse_connections()
    site.let_pass("hub", 3600)
    hub.run(["systemctl", "start", KEEPER], check=False)
    assert site.status("hub")["status"] == "unreachable"
    site.send("while the authorization server is away", *LEAVES)
    wait_for(lambda: site.queued("hub") == 2, 30, hub.log)
    told = site.play("token_status", token_status_hosts="hub")
    assert told.code != 0
    assert told.of("Nobody has to act")["msg"][0].startswith("hub, default: unreachable; "), told.out


def test_the_hub_loses_its_power_in_the_middle_of_a_refresh(site: Site) -> None:
    """The server has carried it out, and nobody gets the answer. Leaves wait for the hub."""
    hub, server = site.machines["hub"], site.server
    held = site.refresh_token("hub")
    server.forget()
    server.change(answer_delay_ms=5000)
    server.up()
    site.let_pass("hub", 120)  # it would not ask again so soon
    hub.run(["systemctl", "start", "--no-block", KEEPER])
    server.wait_for(lambda: any(one.status == 200 for one in server.refreshes()), timeout=60)
    hub.cut_power()
    server.change(answer_delay_ms=0)
    site.send("while the hub has no power", *LEAVES)
    hub.switch_on()
    assert site.refresh_token("hub") == held
    assert hub.output(["systemctl", "is-enabled", TIMER]) == "enabled"


def test_the_relay_is_cut_off_in_the_middle_of_the_migration(site: Site) -> None:
    """After the canary was proved: the next host is put back, and its mail and everybody's waits."""
    before = {name: site.configuration(name) for name in ("mover2", "plain")}
    proofs = site.proofs()

    def cut_off() -> None:
        site.relay.stop("postfix")
        site.send("while the relay is away", *LEAVES, "mover1")

    with meanwhile(lambda: site.proofs() > proofs, cut_off):
        played, told = migrate(site, "mover*:plain")
    assert played.code != 0
    assert told["mover1"].startswith("password -> oauth (proved: 250"), told
    assert told["mover2"].startswith("password -> password (put back: "), told
    assert told["plain"].startswith(f"password -> password ({NO_REQUESTS} could not be installed"), told
    assert {name: site.configuration(name) for name in before} == before
    site.send("while the relay is still away", "mover2")
    assert site.sendmail("plain", "has no queue") == TEMPORARY
    site.relay.start("postfix")
    site.send("has no queue, and is sent again", "plain")
    site.flush("hub", *QUEUEING)
    site.all_arrived("mover1", "mover2", "plain")  # those of the leaves wait for the hub's token as well


def test_a_host_loses_its_power_in_the_middle_of_its_migration(site: Site) -> None:
    mover2 = site.machines["mover2"]
    site.send("before the power went", "mover2", arguments=["-odq"])  # stays in the queue
    with meanwhile(lambda: mover2.exists(JOURNAL), mover2.cut_power):
        played, told = migrate(site, "mover*")
    assert played.code != 0
    assert told["mover1"] == "oauth -> oauth (nothing changed)"
    assert told["mover2"] == "password -> unknown (no answer)", told
    mover2.switch_on()
    assert mover2.exists(JOURNAL)
    played, told = migrate(site, "mover*")
    assert told["mover2"].startswith("password -> oauth (proved: 250"), played.out
    good(played)
    assert not mover2.exists(JOURNAL)
    site.send("by a token", "mover1", "mover2")
    site.all_arrived("mover1", "mover2")
    assert {site.login(name) for name in ("mover1", "mover2")} <= {"XOAUTH2", "OAUTHBEARER"}
    assert site.login("plain") in ("PLAIN", "LOGIN")


def test_drift_knows_who_is_in_the_inventory_with_oauth(site: Site) -> None:
    its = {"auth_type": "oauth", "password": "", **site.client}
    site.variables("mover1", **{f"relay_client_{key}": value for key, value in its.items()})
    assert site.play("drift", drift_hosts="all:!hub").code != 0
    assert site.fates() == {**dict.fromkeys([*LEAVES, "mover1", "plain"], "compliant"), "mover2": "drifting"}


def test_the_hub_goes_on_by_itself(site: Site) -> None:
    """Since it has its power back its timer ran, its grant is good, and what waited on it went."""
    hub = site.machines["hub"]
    wait_for(lambda: site.status("hub")["status"] == "authorized", 90, lambda: str(site.status("hub")))
    assert "refreshed" in hub.output(["journalctl", "--boot", "--no-pager", "--unit", KEEPER])
    wait_for(lambda: site.queued("hub") == 0, 30, hub.log)
    site.flush(*QUEUEING)
    site.all_arrived()
    good(site.play("token_status", token_status_hosts="hub:mover*"))


def test_no_secret_is_where_it_does_not_belong(site: Site) -> None:
    """Neither in what the control node wrote, nor in a log of a machine; no mail came back, none is left."""
    secrets = [secret.encode() for secret in site.secrets()]
    logs = [site.control.folder / "output", *(Path(one.path, "var/log") for one in site.machines.values())]
    files = [path for log in logs for path in log.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > len(logs)
    assert not [path for path in files if any(secret in path.read_bytes() for secret in secrets)]
    assert {name: site.queued(name) for name in ("hub", *QUEUEING)} == dict.fromkeys(("hub", *QUEUEING), 0)
    assert not [mail for mail in site.relay.messages() if b"MAILER-DAEMON" in mail.data.upper()]
