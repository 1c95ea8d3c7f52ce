# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The EXAMPLES of every module as they stand in its documentation: each in check mode, then for real."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from lab.authority import Authority
from lab.layers import why_unavailable
from lab.playbook import Played, play
from lab.relay import Relay, listeners
from lab.tree import RELAY_NAME, Tree

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "the lab is there")

MODULES = Path(__file__).parents[2] / "plugins/modules"
PASSWORD = "pä ss of fleet"
MAIN = "/etc/postfix/main.cf"
ONCALL = "oncall@example.test"


def documented() -> list[str]:
    return sorted(path.stem for path in MODULES.glob("*.yml"))


def examples(module: str) -> list[dict[str, Any]]:
    text = yaml.safe_load((MODULES / f"{module}.yml").read_text())["EXAMPLES"]
    tasks: list[dict[str, Any]] = yaml.safe_load(text)
    assert tasks
    return tasks


@pytest.fixture
def host(tmp_path: Path) -> Iterator[tuple[Tree, Relay]]:
    """What the examples speak of: the relay with its user, the CA file, and a host with Postfix and msmtp."""
    authority = Authority(tmp_path / "authority")
    relay = Relay(listeners(authority.good(RELAY_NAME)), users={"fleet": PASSWORD}, auth_required=True)
    with Tree("postfix-msmtp", name="postfix") as tree, relay.start(in_net_of=tree):
        tree.write("/etc/ssl/relay-ca.pem", authority.ca_file.read_bytes())
        tree.let_cool()
        tree.start("postfix")
        yield tree, relay


def told(host: Tree, folder: Path, module: str) -> Played:
    """Every example twice: what it would do, then what it does."""
    twice = []
    for task in examples(module):
        twice.append({**task, "name": "check: " + task["name"], "check_mode": True})
        twice.append(task)
    played = play(folder, twice, [host], {"smtp_password": PASSWORD}, ["--diff"])
    assert played.code == 0, played.out + played.err
    assert len([one for one in played.results if one.status == "ok"]) == len(twice), played.out
    assert PASSWORD not in played.out + played.err
    return played


def changes(played: Played) -> tuple[list[bool], list[bool]]:
    """What was said in check mode, and what was done, example for example."""
    results = [one for one in played.results if one.status == "ok"]
    said = [bool(one.result["changed"]) for one in results if one.task.startswith("check: ")]
    return said, [bool(one.result["changed"]) for one in results if not one.task.startswith("check: ")]


def test_every_module_has_documentation_and_examples() -> None:
    modules = sorted(path.stem for path in MODULES.glob("*.py"))
    assert documented() == modules
    assert modules == ["smtp_probe", "smtp_service"], "a new module's examples are to be run here as well"


def test_the_examples_of_smtp_service(host: tuple[Tree, Relay], tmp_path: Path) -> None:
    tree, relay = host
    before = tree.read(MAIN), tree.read("/etc/postfix/master.cf")
    played = told(tree, tmp_path, "smtp_service")
    said, done = changes(played)
    assert said == done, "check mode told something else than what was done"
    assert done[0] is True
    assert done[-1] is True
    message = relay.wait_for_message()
    assert (message.recipients, message.sender) == ([ONCALL], "fleet@example.test")
    assert message.tls
    assert message.auth_user == b"fleet"
    assert len(relay.messages()) == 1, "check mode sent one as well"
    assert (tree.read(MAIN), tree.read("/etc/postfix/master.cf")) == before
    assert not list(tree.path.glob("etc/postfix/*fleetmail*"))


def test_the_examples_of_smtp_probe(host: tuple[Tree, Relay], tmp_path: Path) -> None:
    tree, relay = host
    before = tree.read(MAIN)
    played = told(tree, tmp_path, "smtp_probe")
    assert not any(any(one) for one in changes(played))
    levels = [one.result["verification"]["reached"] for one in played.results]
    assert {"tls", "auth", "recipient"} == set(levels)
    assert relay.wait_for_message().recipients == [ONCALL]
    assert len(relay.messages()) == 1, "check mode sent one as well"
    assert tree.read(MAIN) == before
