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
from lab.driven import Driven
from lab.layers import why_unavailable
from lab.oauth_server import OAuthServer
from lab.oauth_server import why_unavailable as why_no_server
from lab.playbook import Played
from lab.relay import Relay, listeners
from lab.tree import RELAY_ADDRESS, RELAY_NAME, Tree

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


def told(host: Tree, driven: Driven, module: str) -> Played:
    """Every example twice: what it would do, then what it does."""
    tasks = examples(module)
    played = twice(host, driven, tasks, smtp_password=PASSWORD)
    assert len([one for one in played.results if one.status == "ok"]) == 2 * len(tasks), played.out
    assert PASSWORD not in played.out + played.err
    return played


def twice(host: Tree, driven: Driven, tasks: list[dict[str, Any]], **variables: Any) -> Played:
    story = []
    for task in tasks:
        story.append({**task, "name": "check: " + task["name"], "check_mode": True})
        story.append(task)
    played = driven.play(story, [host], variables, ["--diff"])
    assert played.code == 0, played.out + played.err
    return played


def changes(played: Played) -> tuple[list[bool], list[bool]]:
    """What was said in check mode, and what was done, example for example."""
    results = [one for one in played.results if one.status == "ok"]
    said = [bool(one.result["changed"]) for one in results if one.task.startswith("check: ")]
    return said, [bool(one.result["changed"]) for one in results if not one.task.startswith("check: ")]


def test_every_module_has_documentation_and_examples() -> None:
    modules = sorted(path.stem for path in MODULES.glob("*.py"))
    assert documented() == modules
    tested = ["smtp_oauth_token", "smtp_oauth_token_info", "smtp_probe", "smtp_service", "smtp_service_info"]
    elsewhere = ["smtp_fleet_report"]  # in test_fleet_report.py
    assert modules == sorted(tested + elsewhere), "a new module's examples are to be run here as well"


def test_the_examples_of_smtp_service(host: tuple[Tree, Relay], driven: Driven) -> None:
    tree, relay = host
    before = tree.read(MAIN), tree.read("/etc/postfix/master.cf")
    played = told(tree, driven, "smtp_service")
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


def test_the_examples_of_smtp_service_info(host: tuple[Tree, Relay], driven: Driven) -> None:
    tree, relay = host
    tree.write("/home/user/.msmtprc", f"account default\nhost {RELAY_NAME}\n", 0o600)
    tree.run(["postconf", "-e", f"relayhost=[{RELAY_NAME}]:587", "smtp_tls_CAfile=/etc/ssl/relay-ca.pem"])
    tree.let_cool()
    before = tree.read(MAIN)
    played = told(tree, driven, "smtp_service_info")
    assert not any(any(one) for one in changes(played))
    look, *_rest, probed = [one.result for one in played.results if not one.task.startswith("check: ")]
    assert {(one["backend"], one["host"]) for one in look["services"]} == {
        ("postfix", RELAY_NAME),
        ("msmtp", RELAY_NAME),
    }
    assert probed["services"][0]["verification"]["reached"] == "tls"
    assert not relay.messages()
    assert tree.read(MAIN) == before
    task = next(one.result for one in played.results if "by which" in one.task)["services"][0]["task"]
    assert (task["host"], task["security"]) == (RELAY_NAME, "starttls")


def test_the_examples_of_smtp_probe(host: tuple[Tree, Relay], driven: Driven) -> None:
    tree, relay = host
    before = tree.read(MAIN)
    played = told(tree, driven, "smtp_probe")
    assert not any(any(one) for one in changes(played))
    levels = [one.result["verification"]["reached"] for one in played.results]
    assert {"tls", "auth", "recipient"} == set(levels)
    assert relay.wait_for_message().recipients == [ONCALL]
    assert len(relay.messages()) == 1, "check mode sent one as well"
    assert tree.read(MAIN) == before


# -- the grant: what stands between two examples is a person's, who says yes

LOGIN, USER = "login.example.test", "fleet@example.test"


@pytest.mark.skipif(bool(why_no_server()), reason=why_no_server() or "the server is there")
def test_the_examples_of_the_grant(tmp_path: Path, driven: Driven) -> None:
    authority = Authority(tmp_path / "authority")
    where = {"host": RELAY_ADDRESS, "name": LOGIN, "port": 443, "ca_file": authority.ca_file}
    server = OAuthServer(certificate=authority.good(LOGIN), **where)
    with Tree("keeper", name="hub", names={LOGIN: RELAY_ADDRESS}) as tree, server.start(in_net_of=tree):
        tree.write("/etc/ssl/login-ca.pem", authority.ca_file.read_bytes())
        tasks = examples("smtp_oauth_token")
        secret = {"smtp_client_secret": server.service.client_secret}
        assert [task["name"][:8] for task in tasks] == EXPECTED

        begun = twice(tree, driven, tasks[:2])
        assert (changes(begun)[0][0], changes(begun)[1][0]) == (True, True)
        first = begun.of("Begin, with the client that is registered with the provider")
        pasted = {"smtp_authorization_response": server.authorize(first["authorization"]["url"], USER)}

        coded = twice(tree, driven, tasks[2:9], begun=first, **pasted, **secret)
        second = coded.of("Begin on a machine without a browser, by a code")
        assert coded.of(tasks[2]["name"])["token"]["status"] == "authorized"
        server.approve_device(second["authorization"]["user_code"], USER)
        done = driven.play(tasks[9:10], [tree])
        assert done.of("Wait until somebody typed it in")["token"]["status"] == "authorized", done.out

        asked = twice(tree, driven, examples("smtp_oauth_token_info"))
        assert [one["status"] for one in asked.of("How are they?")["tokens"]] == ["authorized"] * 3 + ["pending"]
        seen = asked.of("Does the server agree?")["tokens"][0]["introspection"]
        assert (seen["active"], seen["problem"]) == (True, None)

        gone = twice(tree, driven, tasks[10:])
        assert changes(gone) == ([True], [True])
        assert not list(tree.path.glob("var/lib/fleetmail/oauth/*"))
        refreshable = [one for one in server.exchanges(endpoint="revocation") if one.status == 200]
        assert len(refreshable) == 2, "the device's client has no revocation endpoint, which is a warning"


EXPECTED = [
    *("Begin, w", "Tell the", "Complete", "Every ni", "Fail two", "A client"),
    *("Begin fo", "Begin on", "Tell the", "Wait unt", "Revoke t"),
]
