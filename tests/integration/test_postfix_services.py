# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Postfix with held mail, with several services side by side, after them, and in a tree where nothing runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from integration.postfix_machine import LOGIN, MAIN, MASTER, OWN, PASSWORD, Machine, form, machine
from lab import core
from lab.authority import Authority
from lab.layers import why_unavailable
from lab.tree import RELAY_NAME, Tree

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.enforce import enforce
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.posix_host import PosixHost

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "the lab is there")

SERVICE = form(**LOGIN, from_address=OWN)
SHOP = {
    **form("tls", **{**LOGIN, "username": "shop", "password": "shop's"}),
    "name": "shop",
    "senders": ["shop@example.com", "Orders@example.com"],
}
NEWS = {**form("none"), "name": "news", "senders": ["news.example.com"]}


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with machine(Authority(tmp_path_factory.mktemp("authority"))) as found:
        yield found


@pytest.fixture
def host(started: Machine) -> Machine:
    started.reset()
    started.relay.change(users={"fleet": PASSWORD, "shop": "shop's"})
    return started


def arrived(host: Machine, *senders: str) -> dict[str, tuple[str, str, bytes | None]]:
    """Send a mail from each; the sender given -> the sender that arrived, at which listener, as which user."""
    host.relay.forget()
    for sender in senders:
        host.send(sender)
    host.relay.wait_for_message(count=len(senders))
    found = {}
    for session in host.relay.sessions():
        for message in session.messages:
            given = message.email["From"].split("<")[1].rstrip(">")
            found[given] = (message.sender, session.listener.split()[0], message.auth_user)
    return found


# -- held mail -------------------------------------------------------------------------------------------------------


def test_a_disabled_service_holds_mail_and_an_enabled_one_lets_it_go(host: Machine) -> None:
    host.enforce(SERVICE)
    assert host.drift({**SERVICE, "enabled": False}) == {"enabled": (True, False)}
    host.enforce({**SERVICE, "enabled": False})
    host.send()
    host.wait(lambda: host.tree.log().count("status=deferred (fleetmail.smtp holds mail)") == 1)
    host.shell("postqueue -f")
    host.wait(lambda: host.tree.log().count("status=deferred (fleetmail.smtp holds mail)") == 2)
    assert len(host.queue()) == 1
    assert host.relay.sessions() == []
    assert not host.enforce({**SERVICE, "enabled": False})["changed"]
    result = host.enforce(SERVICE)
    assert result["actions"][-1] == "postqueue -f"
    assert host.relay.wait_for_message(timeout=5).auth_user == b"fleet"
    host.wait(lambda: host.queue() == [])


def test_an_incomplete_disabled_service_holds_mail_on_a_host_that_was_configured_by_hand(host: Machine) -> None:
    by_hand = {"relayhost": f"[{RELAY_NAME}]:25", "defer_transports": "uucp", "default_transport": "relay"}
    host.tree.run(["postconf", "-e", *(f"{key}={value}" for key, value in by_hand.items())])
    before = host.tree.read(MAIN)
    host.tree.let_cool()
    held = {"enabled": False}
    assert host.drift(held) == {"enabled": (True, False)}
    host.enforce(held)
    assert host.parameters(*by_hand) == {
        "relayhost": by_hand["relayhost"],
        "defer_transports": "uucp",
        "default_transport": "retry:4.3.2 fleetmail.smtp holds mail",
    }
    host.refused("fleetmail.smtp holds mail")
    assert not host.enforce(held)["changed"]
    assert host.relay.sessions() == []
    host.enforce(SERVICE)
    host.relay.wait_for_message(timeout=5)
    assert host.parameters("defer_transports") == {"defer_transports": "uucp"}
    host.enforce({"state": "absent"})
    assert host.tree.read(MAIN) == before


def test_a_hand_that_holds_mail_is_told_and_overruled(host: Machine) -> None:
    host.enforce(SERVICE)
    host.shell("postconf -e defer_transports=smtp; postfix reload")
    host.send()
    host.wait(host.queue)
    host.tree.let_cool()
    assert host.drift(SERVICE) == {"enabled": (False, True)}
    host.enforce(SERVICE)
    assert not host.enforce(SERVICE)["changed"]
    host.relay.wait_for_message(timeout=5)


# -- several services ------------------------------------------------------------------------------------------------


def test_each_sender_goes_its_own_way(host: Machine) -> None:
    host.enforce({**SERVICE, "from_address": ""})
    for options in (SHOP, NEWS):
        planned = host.enforce(options, check=True)
        assert host.enforce(options)["drift"] == planned["drift"]
        assert host.drift(options) == {}
    for options in ({**SERVICE, "from_address": ""}, SHOP, NEWS):
        assert not host.enforce(options)["changed"]
    assert arrived(host, "app@x.example", "shop@example.com", "orders@example.com", "a@news.example.com") == {
        "app@x.example": ("app@x.example", "starttls", b"fleet"),
        "shop@example.com": ("shop@example.com", "tls", b"shop"),
        "orders@example.com": ("orders@example.com", "tls", b"shop"),
        "a@news.example.com": ("a@news.example.com", "none", None),
    }
    agent = host.tree.output(["postmap", "-q", "shop@example.com", routes(host)])
    assert agent == f"fleetmail-shop.a:[{RELAY_NAME}]:465"
    assert host.shell("postconf -P fleetmail-shop.a/unix/smtp_tls_wrappermode").endswith("= yes")
    changed = {**SHOP, "port": 587, "security": "starttls", "senders": ["shop@example.com"]}
    told = host.enforce(changed)["drift"]
    assert [one["field"] for one in told] == ["port", "security", "senders"]
    assert told[2]["before"] == ["orders@example.com", "shop@example.com"]
    host.enforce({"name": "news", "state": "absent"})
    assert arrived(host, "shop@example.com", "a@news.example.com") == {
        "shop@example.com": ("shop@example.com", "starttls", b"shop"),
        "a@news.example.com": ("a@news.example.com", "starttls", b"fleet"),
    }
    assert not host.enforce(changed)["changed"]


def routes(host: Machine) -> str:
    return host.parameters("sender_dependent_default_transport_maps")["sender_dependent_default_transport_maps"]


def test_rewriting_leaves_the_senders_of_others_alone(host: Machine) -> None:
    host.enforce(SERVICE)
    host.enforce(SHOP)
    assert arrived(host, "app@x.example", "shop@example.com") == {
        OWN: (OWN, "starttls", b"fleet"),
        "shop@example.com": ("shop@example.com", "tls", b"shop"),
    }
    host.enforce({"name": "never-there", "state": "absent"})
    assert host.drift(SERVICE) == {}
    host.enforce({"name": "shop", "state": "absent"})
    assert host.drift(SERVICE) == {}
    assert arrived(host, "shop@example.com") == {OWN: (OWN, "starttls", b"fleet")}
    master = host.tree.read(MASTER)
    assert b"fleetmail" not in master


def test_one_service_holds_its_mail_while_the_others_send(host: Machine) -> None:
    for options in (SERVICE, {**SHOP, "enabled": False}):
        host.enforce(options)
    host.send("shop@example.com")
    assert arrived(host, "app@x.example") == {OWN: (OWN, "starttls", b"fleet")}
    assert [mail["sender"] for mail in host.queue()] == ["shop@example.com"]
    host.enforce({**SERVICE, "enabled": False})
    host.relay.forget()
    host.enforce(SHOP)
    assert host.relay.wait_for_message(timeout=5).auth_user == b"shop"
    assert not host.enforce({**SERVICE, "enabled": False})["changed"]
    host.enforce({**SERVICE, "state": "absent"})
    assert host.parameters("defer_transports") == {"defer_transports": ""}


FAULTS: dict[str, dict[str, tuple[Any, Any]]] = {
    f"sed -i '/^# BEGIN fleetmail.smtp shop/,/^# END fleetmail.smtp shop/d' {MASTER}": {
        f"delivery agent fleetmail-shop.a in {MASTER}": ("missing", "there"),
        "port": (465, 465),
    },
    "postconf -P fleetmail-shop.a/unix/smtp_tls_wrappermode=no": {"security": ("starttls", "tls")},
    "postconf -P fleetmail-shop.b/unix/smtp_helo_timeout=1s": {"smtp_helo_timeout": ("1s", "30s")},
    "rm /etc/postfix/fleetmail--shared.?": {"senders": ([], ["orders@example.com", "shop@example.com"])},
    "rm /etc/postfix/fleetmail--shared.?.db": {"senders": ([], ["orders@example.com", "shop@example.com"])},
    "cd /etc/postfix; sed -i /orders/d fleetmail--shared.?; postmap fleetmail--shared.?": {
        "senders": (["shop@example.com"], ["orders@example.com", "shop@example.com"])
    },
}


def test_meddling_with_a_service_by_senders_is_told_and_repaired(host: Machine) -> None:
    host.enforce(SERVICE)
    for options in ({**SHOP, "name": "books", "senders": ["books@example.com"]}, SHOP):
        host.enforce(options)
    for deed, expected in FAULTS.items():
        host.shell(deed)
        host.tree.let_cool()
        told = host.drift(SHOP)
        assert {field: told.get(field, expected[field]) for field in expected} == expected, (deed, told)
        host.enforce(SHOP)
        assert host.drift(SHOP) == {}, deed
    assert arrived(host, "shop@example.com", "orders@example.com", "books@example.com") == {
        name: (name, "tls", b"shop") for name in ("shop@example.com", "orders@example.com", "books@example.com")
    }


def test_services_that_would_get_into_each_others_mail_are_refused(host: Machine) -> None:
    host.enforce(SERVICE)
    host.enforce(SHOP)
    conflicts = {
        "'default' already takes all mail": {**form(), "name": "second"},
        "shop@example.com goes through service 'shop' already": {**NEWS, "senders": ["Shop@example.com"]},
        "would be rewritten to": NEWS,
        "this service takes some senders' mail only": {**SHOP, "senders": []},
        "this service takes all mail of the host": {**SERVICE, "senders": ["a@example.com"], "from_address": ""},
        "their mail keeps their address": {**SHOP, "from_address": "x@example.com"},
        f"the rewritten sender {OWN} is one of the senders": {**NEWS, "senders": [OWN]},
        "the rewritten sender shop@example.com is one of": {**SERVICE, "from_address": "shop@example.com"},
    }
    for words, options in conflicts.items():
        result = core.enforce(host.tree, options, check=True)
        found = [one for one in result.get("problems", []) if words in one["problem"]]
        assert found, (words, result)
        assert found[0]["hint"]
        assert found[0]["option"] in ("senders", "from_address")


# -- absent ----------------------------------------------------------------------------------------------------------

BY_HAND = (
    b"# by hand\n  # indented\n\nrelayhost = [old.example.test]\nmyhostname = client.example.test\n"
    b"relayhost =\n# why\n\n\t[twice.example.test]\n\t:2525\nsmtp_sasl_auth_enable=no\n"
    b"sender_canonical_maps = inline:{ {a@x=b@y} }\ninet_interfaces = all\r\nsmtp_tls_wrappermode = no"
)


def test_absent_gives_back_the_very_files_and_what_was_edited_meanwhile(host: Machine) -> None:
    host.tree.write(MAIN, BY_HAND, mode=0o640)
    host.shell(f"chgrp postfix {MAIN}; printf '# no newline' >> {MASTER}; chmod 600 {MASTER}")
    host.tree.let_cool()
    before = {path: facts[:-2] + facts[-1:] for path, facts in host.snapshot().items()}
    options = {**SERVICE, "backend_options": {"null_client": True}}
    host.enforce(options)
    host.enforce(SHOP)
    host.tree.write(MAIN, host.tree.read(MAIN).replace(b"# by hand", b"# edited by hand") + b"bounce_size_limit = 9\n")
    host.tree.let_cool()
    assert not host.enforce(options)["changed"]
    assert host.parameters("bounce_size_limit") == {"bounce_size_limit": "9"}
    for name in ("default", "shop"):
        assert host.enforce({"name": name, "state": "absent"})["changed"]
        assert not host.enforce({"name": name, "state": "absent"})["changed"]
    edited = BY_HAND.replace(b"# by hand", b"# edited by hand") + b"\nbounce_size_limit = 9\n"
    assert host.tree.read(MAIN) == edited
    assert host.running()
    host.tree.write(MAIN, BY_HAND, mode=0o640)
    after = {path: facts[:-2] + facts[-1:] for path, facts in host.snapshot().items()}
    assert after == before


def test_absent_on_a_bare_host_and_on_one_without_us_changes_nothing(host: Machine) -> None:
    before = host.snapshot()
    for name in ("default", "other"):
        assert not host.enforce({"name": name, "state": "absent"})["changed"]
    assert host.snapshot() == before
    with Tree("bare") as bare:
        options = {"backend": "postfix", "state": "absent"}
        for check in (True, False):
            result = core.enforce(bare, options, check)
            assert "failed" not in result
            assert not result["changed"]
        assert not bare.exists("/etc/postfix")


# -- a tree where nothing runs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["postfix", "bare"])
def test_an_image_is_enforced_from_outside(role: str) -> None:
    with Tree(role) as tree:
        place = PosixHost(str(tree.path))
        ours = {**SERVICE, "ca_file": "", "backend": "postfix", "root": str(tree.path)}
        before = tree.read(MAIN) if role == "postfix" else None
        planned = enforce(ours, place, check=True)
        assert "failed" not in planned, planned
        real = enforce(ours, place, check=False)
        assert "failed" not in real, real
        assert real["drift"] == planned["drift"]
        assert bool(real["warnings"]) == (role == "bare")
        assert not any("reload" in action or "start" in action for action in real["actions"])
        assert not enforce(ours, place, check=True)["changed"]
        assert not enforce(ours, place, check=False)["changed"]
        name = "fleetmail-default.a"
        assert tree.inside(f"/etc/postfix/{name}").stat().st_mode & 0o777 == 0o600
        assert tree.exists(f"/etc/postfix/{name}.db") == (role == "postfix")
        gone = enforce({**ours, "state": "absent"}, place, check=False)
        assert gone["changed"]
        assert (tree.read(MAIN) if tree.exists(MAIN) else None) == before
        assert not enforce({**ours, "state": "absent"}, place, check=False)["changed"]
        assert not tree.exists(f"/etc/postfix/{name}")


def test_services_by_senders_in_an_image_need_its_master_cf() -> None:
    with Tree("bare") as tree:
        options = {**SHOP, "ca_file": "", "backend": "postfix", "root": str(tree.path)}
        result = enforce(options, PosixHost(str(tree.path)), check=True)
        assert [one["option"] for one in result["problems"]] == ["senders"]
        assert MASTER in result["msg"]
