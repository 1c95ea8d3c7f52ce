# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role token_keeper on a host with systemd and on one with cron: the keeper really runs, and tokens stay fresh."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from driver.environments import Unavailable, ansible_environment
from lab import groups, layers, oauth_server
from lab.booted import Booted
from lab.oauth_server import OAuthServer
from lab.playbook import Played, play
from lab.tree import RELAY_NAME, Tree

UNAVAILABLE = layers.why_unavailable() or oauth_server.why_unavailable()
pytestmark = pytest.mark.skipif(bool(UNAVAILABLE), reason=UNAVAILABLE or "the lab is there")

KEEPER = "/usr/local/sbin/fleetmail-keeper"
TIMER, SERVICE = "fleetmail-keeper.timer", "fleetmail-keeper.service"
UNITS, CRONTAB = "/etc/systemd/system", "/etc/cron.d/fleetmail-keeper"
STATE, TOKEN_FILE = "/var/lib/fleetmail/oauth/default/token.json", "/var/lib/fleetmail/tokens/default.msmtp"
METRICS, HOOK, HOOKED = "/var/lib/fleetmail.prom", "/usr/local/bin/on-change", "/opt/hooked"
USER = "fleet@example.test"


class Kept:
    """A host whose msmtp sends with OAuth, and the server that gives its tokens."""

    def __init__(self, folder: Path, tree: Tree, server: OAuthServer) -> None:
        self.folder, self.tree, self.server = folder, tree, server

    def play(self, host: Any, tasks: Sequence[dict[str, Any]], *arguments: str, **variables: Any) -> Played:
        given = {"ansible_package_use": "apt", **variables}
        played = play(self.folder, tasks, [host], given, arguments)
        assert played.code == 0, played.out + played.err
        return played

    def role(self, host: Any, *arguments: str, **variables: Any) -> Played:
        task = {"name": "keeper", "ansible.builtin.include_role": {"name": "fleetmail.smtp.token_keeper"}}
        return self.play(host, [task], *arguments, **variables)

    def authorize(self) -> None:
        """A service with client credentials, and its first token."""
        client = {
            "oauth_grant": "client_credentials",
            "client_id": self.server.service.client_id,
            "client_secret": self.server.service.client_secret,
            "token_url": self.server.token_url,
            "scope": "smtp",
            "username": USER,
        }
        service = {"backend": "msmtp", "host": RELAY_NAME, "security": "starttls", "auth_type": "oauth", **client}
        tasks = [
            {"name": "service", "fleetmail.smtp.smtp_service": service},
            {"name": "token", "fleetmail.smtp.smtp_oauth_token": {}},
        ]
        self.play(self.tree, tasks)

    def let_age(self) -> str:
        """As if the access token came to its end; gives what the consumer reads now."""
        record = json.loads(self.tree.read(STATE))
        record["access"]["obtained_at"] -= 3590
        record["access"]["expires_at"] -= 3590
        self.tree.write(STATE, json.dumps(record), mode=0o600)
        return self.tree.read(TOKEN_FILE).decode()

    def secrets(self) -> list[str]:
        access = json.loads(self.tree.read(STATE))["access"]
        return [access["token"], self.server.service.client_secret]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    with Tree("keeper", name="kept") as tree, OAuthServer().start(in_net_of=tree) as server:
        yield Kept(tmp_path, tree, server)


def ran(played: Played) -> list[str]:
    """The tasks of the role that did something on the host."""
    quiet = ("Judge", "Validating", "keeper", "Make it so", "Have the keeper", "Remove the keeper")
    names = [one.task.split(" : ")[-1] for one in played.results if one.status == "ok"]
    return [name for name in names if not name.startswith(quiet)]


def changed(played: Played) -> list[str]:
    return [one.task for one in played.results if one.result.get("changed")]


@pytest.mark.skipif(bool(groups.why_unavailable()), reason=groups.why_unavailable() or "systemd can run here")
def test_with_systemd(kept: Kept) -> None:
    kept.authorize()
    with Booted(kept.tree) as host:
        planned = kept.role(host, "--check", "--diff")
        assert changed(planned)
        assert not kept.tree.exists(KEEPER)
        assert changed(kept.role(host))
        for arguments in (("--check",), ()):
            again = kept.role(host, *arguments)
            assert not changed(again), again.out
            assert ran(again) == ["Look whether it is as it should be"], "a compliant host costs one task"

        found = kept.tree.output(["stat", "-c", "%a %U:%G", KEEPER])
        assert found == "755 root:root"
        verified = [f"{UNITS}/{name}" for name in (SERVICE, TIMER)]
        assert host.run(["sh", "-c", f"systemd-analyze verify {' '.join(verified)} 2>&1"]) == ""
        assert host.run(["systemctl", "is-enabled", TIMER]).strip() == "enabled"
        assert host.run(["systemctl", "show", "-P", "ActiveState", TIMER]).strip() == "active"
        assert "fleetmail-keeper.service" in host.run(["systemctl", "list-timers", "--no-pager", TIMER])

        before = kept.let_age()
        host.run(["systemctl", "start", SERVICE])
        assert host.run(["systemctl", "show", "-P", "Result", SERVICE]).strip() == "success"
        after = kept.tree.read(TOKEN_FILE).decode()
        assert after != before
        assert kept.server.look(after.strip())["usable"]
        journal = host.run(["journalctl", "--no-pager", "-u", SERVICE])
        assert "refreshed" in journal
        assert not [secret for secret in kept.secrets() if secret in journal]

        host.run(["systemctl", "disable", "--now", TIMER])
        kept.tree.write(KEEPER, "#!/bin/sh\n", 0o700)
        repaired = kept.role(host)
        assert {"Bring the program", "Start the timer"} <= {name.split(" : ")[-1] for name in changed(repaired)}

        assert changed(kept.role(host, token_keeper_state="absent"))
        assert not changed(kept.role(host, token_keeper_state="absent"))
        assert not [path for path in (KEEPER, *verified) if kept.tree.exists(path)]
        assert kept.tree.exists(STATE)
        assert host.run(["systemctl", "list-timers", "--all", "--no-pager", TIMER]).count(TIMER) == 0


def test_with_cron_hook_and_metrics(kept: Kept) -> None:
    kept.authorize()
    tree = kept.tree
    tree.write(HOOK, f"#!/bin/sh\n{{ env; cat; }} >> {HOOKED}\n", 0o755)
    more = {"token_keeper_prometheus": METRICS, "token_keeper_hooks": [HOOK], "token_keeper_random_delay": 0}
    assert changed(kept.role(tree, **more))
    assert not changed(kept.role(tree, "--check", **more))
    found = re.search(r"^(\d)-59/5 \* \* \* \* root (.*)$", tree.read(CRONTAB).decode(), re.M)
    assert found
    before = kept.let_age()
    tree.run(["/bin/sh", "-c", found.group(2)], env={"PATH": "/usr/bin:/bin"})
    after = tree.read(TOKEN_FILE).decode()
    assert after != before
    metrics = tree.read(METRICS).decode()
    assert 'fleetmail_token_status{name="default",status="authorized"} 1' in metrics
    assert not tree.exists(HOOKED)

    kept.server.change(down_status=503)
    kept.let_age()
    tree.run(["/bin/sh", "-c", found.group(2)])
    hooked = tree.read(HOOKED).decode()
    assert "FLEETMAIL_STATUS=unreachable" in hooked
    log = tree.read("/var/log/syslog").decode()
    assert "fleetmail-keeper" in log
    assert not [secret for secret in kept.secrets() for text in (hooked, log, metrics) if secret in text]

    assert changed(kept.role(tree, token_keeper_state="absent"))
    assert not tree.exists(CRONTAB)


def test_a_bare_host_in_check_mode(tmp_path: Path) -> None:
    with Tree("bare", name="bare") as tree:
        task = {"name": "keeper", "ansible.builtin.include_role": {"name": "fleetmail.smtp.token_keeper"}}
        played = play(tmp_path, [task], [tree], {"ansible_package_use": "apt"}, ["--check", "--diff"])
        assert played.code == 0, played.out
        assert changed(played)
        assert not tree.exists(KEEPER)


def test_what_cannot_work_is_refused(tmp_path: Path) -> None:
    task = {"name": "keeper", "ansible.builtin.include_role": {"name": "fleetmail.smtp.token_keeper"}}
    wrong = {"token_keeper_hooks": ["/bin/true; rm -rf /"]}
    played = play(tmp_path, [task], [], wrong)
    assert played.code != 0
    assert "they become a command line" in played.out


def test_the_program_is_the_same_bytes_everywhere_and_named_by_its_sum(tmp_path: Path) -> None:
    """Built by two versions of Ansible on two Pythons."""
    show = "{{ lookup('fleetmail.smtp.keeper_zipapp') }}"
    tasks = [
        {"name": "path", "ansible.builtin.debug": {"msg": show}},
        {"name": "sum", "ansible.builtin.stat": {"path": show, "checksum_algorithm": "sha256"}},
        {"name": "other", "ansible.builtin.debug": {"msg": show.replace("') ", "', python='/opt/python3') ")}},
    ]
    names = set()
    for version in ("2.18", "2.21"):
        try:
            ansible = ansible_environment(version)
        except Unavailable as reason:
            pytest.skip(str(reason))
        played = play(tmp_path / version, tasks, ansible=ansible)
        name = Path(played.of("path")["msg"]).name
        assert name == "keeper-" + played.of("sum")["stat"]["checksum"]
        assert name != Path(played.of("other")["msg"]).name
        names.add(name)
    assert len(names) == 1


def test_the_lookup_takes_no_terms(tmp_path: Path) -> None:
    task = {"name": "wrong", "ansible.builtin.debug": {"msg": "{{ lookup('fleetmail.smtp.keeper_zipapp', 'x') }}"}}
    played = play(tmp_path, [task])
    assert played.code != 0
    assert "takes no terms" in played.out + played.err
