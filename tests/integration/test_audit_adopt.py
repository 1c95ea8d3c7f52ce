# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Adopting for real: what others set up becomes ours, mail leaves as before, and what an audit sees then."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import by_hand.exim
import by_hand.msmtp
import by_hand.postfix
import pytest
from by_hand import PASSWORD, Case, File
from driver.environments import Unavailable
from lab import core
from lab.authority import Authority
from lab.canary import Cage, Canary
from lab.layers import why_unavailable
from lab.playbook import PLUGINS, play
from lab.relay import Relay, listeners
from lab.tree import RELAY_NAME, Tree
from lab.watch import Watch

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "the lab is there")

CA_FILE = "/etc/ssl/relay-ca.pem"
NO_SERVICES = "#!/bin/sh\nexit 101\n"  # policy-rc.d(8): a package's scripts start nothing
DAY = 86400
HANDS = 4


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def audited(tree: Tree, **options: Any) -> dict[str, Any]:
    result = core.audit(tree, {"as_task": True, **options})
    assert "failed" not in result, result
    assert PASSWORD not in json.dumps(result)
    return result


def told(result: dict[str, Any]) -> set[str]:
    return {one["id"] for one in result["findings"]}


# -- Debian's debconf, every choice ------------------------------------------------------------------------------------

EXIM_KINDS = {
    "internet site; mail is sent and received directly using SMTP": "",
    "mail sent by smarthost; received via SMTP or fetchmail": RELAY_NAME,
    "mail sent by smarthost; no local mail": RELAY_NAME,
    "local delivery only; not on a network": "",
    "no configuration at this time": "",
}
POSTFIX_KINDS = {
    "No configuration": None,
    "Internet Site": "",
    "Internet with smarthost": RELAY_NAME,
    "Satellite system": RELAY_NAME,
    "Local only": "",
}


def answered_exim(kind: str, split: bool) -> dict[str, Any]:
    answers = {
        "dc_eximconfig_configtype": ("select", kind), "dc_smarthost": ("string", f"{RELAY_NAME}::587"),
        "use_split_config": ("boolean", str(split).lower()), "dc_readhost": ("string", "corp.example"),
        "hide_mailname": ("boolean", "true"),
    }  # fmt: skip
    lines = [f"exim4-config exim4/{name} {kind} {value}\n" for name, (kind, value) in answers.items()]
    with Tree("exim") as tree:
        return reconfigured(tree, "exim4-config", "/etc/exim4/update-exim4.conf.conf", lines)


def answered_postfix(kind: str) -> dict[str, Any]:
    relay = f"[{RELAY_NAME}]:587" if POSTFIX_KINDS[kind] else ""
    answers = {
        "main_mailer_type": ("select", kind),
        "relayhost": ("string", relay),
        "mailname": ("string", "c.example"),
    }
    lines = [f"postfix postfix/{name} {kind} {value}\n" for name, (kind, value) in answers.items()]
    with Tree("postfix") as tree:
        return reconfigured(tree, "postfix", "/etc/postfix/main.cf", lines)


def reconfigured(tree: Tree, package: str, file: str, answers: list[str]) -> dict[str, Any]:
    tree.write("/usr/sbin/policy-rc.d", NO_SERVICES, 0o755)
    tree.run(["rm", "-f", file])  # else what is in it counts more than the answers
    tree.run(["debconf-set-selections"], "".join(answers).encode())
    tree.run(["dpkg-reconfigure", "-f", "noninteractive", package])
    return audited(tree)


def test_debconf_in_every_one_of_its_choices() -> None:
    with ThreadPoolExecutor(HANDS) as hands:
        postfix = {kind: hands.submit(answered_postfix, kind) for kind in POSTFIX_KINDS}
        exim = {
            (kind, split): hands.submit(answered_exim, kind, split)
            for kind, relay in EXIM_KINDS.items()
            for split in ((False, True) if relay else (False,))
        }
    for (kind, split), running in exim.items():
        assert_as_answered(running.result(), EXIM_KINDS[kind], f"{kind}, split: {split}")
    for name, running in postfix.items():
        assert_as_answered(running.result(), POSTFIX_KINDS[name], name)


def assert_as_answered(result: dict[str, Any], relay: str | None, kind: str) -> None:
    if relay is None:
        assert not result["services"], kind
        assert "config-refused" in told(result), kind
        return
    (service,) = result["services"]
    assert (service["host"], service["managed"]) == (relay, False), kind
    assert ("tls-opportunistic" in told(result)) == bool(relay), kind
    assert "not-understood" not in told(result), result["findings"]
    if not relay:
        assert service["task"] is None, kind
        return
    assert (service["port"], service["security"], service["auth_type"]) == (587, "opportunistic", "none"), kind
    drift = {one["field"]: (one["before"], one["after"]) for one in service["task_drift"]}
    assert drift == {"security": ("opportunistic", "starttls"), "running": (False, True)}, kind


# -- adopt, look, do, look, send, leave --------------------------------------------------------------------------------

GOOD: dict[str, Case] = {
    "postfix": by_hand.postfix.CASES["as it should be"],
    "exim": by_hand.exim.CASES["macros of a tutorial, monolithic"],
    "msmtp": by_hand.msmtp.CASES["as it should be"],
}
EXTRA = {
    "postfix": {"senders": ["a@shop.example"], "name": "shop"},
    "msmtp": {"senders": ["shop.example"], "name": "shop"},
}


@pytest.fixture(params=["postfix", "exim", "msmtp"])
def by_others(request: pytest.FixtureRequest, authority: Authority) -> Iterator[tuple[str, Tree, Relay]]:
    """A host that somebody set up well, with its software running, and the relay."""
    backend = request.param
    relay = Relay(listeners(authority.good(RELAY_NAME)), users={"fleet": PASSWORD}, auth_required=True)
    with Tree(backend) as tree, relay.start(in_net_of=tree):
        tree.write(CA_FILE, authority.ca_file.read_bytes())
        for path, file in GOOD[backend].files.items():
            if path != by_hand.postfix.MASTER:
                text, mode, group = file if isinstance(file, File) else (file, 0o644, "root")
                tree.write(path, text, mode)
                tree.run(["chgrp", group, path])
        tree.let_cool() if backend == "postfix" else None
        steps = [f"postmap {table}" for table in GOOD[backend].compiled] + list(GOOD[backend].commands)
        tree.run(["sh", "-c", "; ".join(steps) or "true"])
        if backend != "msmtp":
            tree.start(backend)
        yield backend, tree, relay


def send(tree: Tree, relay: Relay) -> None:
    relay.forget()
    tree.run(["/usr/sbin/sendmail", "-i", "-f", "app@client.example.test", "r@example.org"], b"Subject: t\n\nhello\n")
    mail = relay.wait_for_message()
    assert (mail.auth_user, bool(mail.tls)) == (b"fleet", True)


def files(tree: Tree) -> dict[str, bytes]:
    places = ("etc/postfix", "etc/exim4", "etc/msmtprc")
    found = [path for place in places for path in [tree.path / place, *(tree.path / place).rglob("*")]]
    return {str(path.relative_to(tree.path)): path.read_bytes() for path in found if path.is_file()}


def test_what_was_set_up_by_hand_is_taken_over_without_a_drift(by_others: tuple[str, Tree, Relay]) -> None:
    backend, tree, relay = by_others
    send(tree, relay)
    (service,) = audited(tree)["services"]
    assert (service["managed"], service["task_drift"], service["task_problems"]) == (False, [], [])
    assert service["takes_over"]
    task = {**service["task"], "password": PASSWORD}

    before = files(tree)
    said = core.enforce(tree, task, check=True)
    assert (said["drift"], said["takes_over"], said["changed"]) == ([], True, True)
    assert said["files"]
    assert files(tree) == before
    assert "taken" not in json.dumps(said["diff"])
    done = core.enforce(tree, {**task, "verify": "auth"})
    assert "failed" not in done, done
    assert (done["drift"], done["takes_over"], done["changed"]) == ([], True, True)
    again = core.enforce(tree, task, check=True)
    assert (again["drift"], again["takes_over"], again["changed"]) == ([], False, False)
    send(tree, relay)

    (now,) = audited(tree)["services"]
    assert now["managed"]
    assert now["findings"] == [] or {one["severity"] for one in now["findings"]} == {"info"}
    assert now["task"] == service["task"]
    assert (now["task_drift"], now["takes_over"]) == ([], False)
    gone = core.enforce(tree, {"backend": backend, "state": "absent"})
    assert "failed" not in gone
    assert files(tree) == before
    send(tree, relay)


def test_what_is_left_of_a_block_of_ours_is_no_set_up_of_others(by_others: tuple[str, Tree, Relay]) -> None:
    backend, tree, _relay = by_others
    task = {**audited(tree)["services"][0]["task"], "password": PASSWORD}
    assert core.enforce(tree, task)["changed"]
    main = {"postfix": "/etc/postfix/main.cf", "exim": "/etc/exim4/update-exim4.conf.conf", "msmtp": "/etc/msmtprc"}[
        backend
    ]
    tree.run(["sed", "-i", "/^# END fleetmail/d", main])
    tree.let_cool(main)
    said = core.enforce(tree, task, check=True)
    assert said["changed"]
    assert said["drift"], "a torn block is somebody's doing, and told"
    assert not said["takes_over"]


# -- what a managed host shows -----------------------------------------------------------------------------------------


def test_a_managed_host_is_read_back_and_what_was_done_to_it_is_told(by_others: tuple[str, Tree, Relay]) -> None:
    backend, tree, _relay = by_others
    task = {**audited(tree)["services"][0]["task"], "password": PASSWORD, "from_address": "fleet@hosts.example"}
    assert "failed" not in core.enforce(tree, task)
    if backend in EXTRA:
        more = {**task, **EXTRA[backend], "from_address": "", "backend_options": {}}
        assert "failed" not in core.enforce(tree, more)
    result = audited(tree)
    assert all(one["managed"] for one in result["services"])
    names = sorted(one["name"] for one in result["services"])
    assert names == ["default", *(["shop"] if backend in EXTRA else [])]
    assert [one["task_drift"] for one in result["services"]] == [[]] * len(result["services"])
    assert not any(one["takes_over"] for one in result["services"])

    core.enforce(tree, {**task, "enabled": False})
    assert "disabled" in told(audited(tree))
    core.enforce(tree, task)
    HURT[backend](tree)
    hurt = audited(tree)
    assert {
        "postfix": {"secret-readable", "tls-opportunistic"},
        "exim": {"config-stale"},
        "msmtp": {"secret-readable"},
    }[backend] <= told(hurt)
    assert any(one["task_drift"] for one in hurt["services"])


def hurt_postfix(tree: Tree) -> None:
    tree.run(
        [
            "sh",
            "-c",
            "chmod 644 /etc/postfix/fleetmail-default.?.db; echo smtp_tls_security_level=may >> /etc/postfix/main.cf",
        ]
    )
    tree.let_cool()


def hurt_exim(tree: Tree) -> None:
    tree.run(["sh", "-c", "echo REMOTE_SMTP_SMARTHOST_HOSTS_REQUIRE_TLS == >> /etc/exim4/exim4.conf.localmacros"])


HURT = {"postfix": hurt_postfix, "exim": hurt_exim, "msmtp": lambda tree: tree.run(["chmod", "644", "/etc/msmtprc"])}


def test_a_service_with_oauth_that_nobody_authorized() -> None:
    with Tree("msmtp") as tree:
        options = {
            "host": RELAY_NAME, "security": "starttls", "auth_type": "oauth", "username": "fleet@example.test",
            "oauth_provider": "microsoft365", "client_id": "an-id", "client_secret": PASSWORD,
            "oauth_tenant": "corp.example",
        }  # fmt: skip
        assert "failed" not in core.enforce(tree, options)
        result = audited(tree)
    (service,) = result["services"]
    assert (service["auth_type"], service["username"]) == ("oauth", "fleet@example.test")
    assert "oauth-no-grant" in told(result)
    assert service["task_drift"] == []
    task = service["task"]
    assert (task["oauth_provider"], task["oauth_tenant"], task["client_id"]) == (
        "microsoft365",
        "corp.example",
        "an-id",
    )
    assert task["client_secret"] == "{{ vault_smtp_client_secret_an_id }}"


# -- the host ----------------------------------------------------------------------------------------------------------


def test_two_mail_servers_side_by_side_and_one_without_its_sasl_modules() -> None:
    """dpkg does not want it, people do it."""
    forced = "dpkg --force-all -i /srv/packages/*postfix_*.deb /srv/packages/*libsasl2-modules_*.deb"
    with Tree("bare-repository") as tree:
        tree.write("/usr/sbin/policy-rc.d", NO_SERVICES, 0o755)
        install = "DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install"
        tree.run(["sh", "-c", f"{install} exim4-daemon-light && {install} postfix --download-only"])
        tree.run(["sh", "-c", f"DEBIAN_FRONTEND=noninteractive {forced}"], check=False)
        tree.write("/etc/postfix/main.cf", by_hand.postfix.GOOD)
        tree.write("/etc/postfix/sasl_passwd", by_hand.postfix.ENTRY, 0o600)
        tree.let_cool()
        tree.run(["sh", "-c", "postmap /etc/postfix/sasl_passwd; rm -f /usr/lib/*/sasl2/lib*"])
        result = audited(tree)
    assert [one["backend"] for one in result["services"]] == ["exim", "postfix"]
    both = next(one for one in result["findings"] if one["id"] == "several-mtas")
    assert "exim, postfix" in both["message"]
    assert {"sasl-library-missing", "not-running"} <= told(result)


@pytest.mark.parametrize("backend", ["postfix", "exim"])
def test_mail_that_waits_for_long(backend: str) -> None:
    with Tree(backend) as tree:
        if backend == "postfix":
            tree.run(["postconf", "-e", f"relayhost=[{RELAY_NAME}]:587"])
            tree.let_cool()
        else:
            tree.write(by_hand.exim.CONF, by_hand.exim.answers())
            tree.run(["update-exim4.conf"])
        tree.start(backend)
        for _mail in range(2):
            tree.run(["/usr/sbin/sendmail", "-i", "r@example.org"], b"Subject: t\n\nhello\n")
        tree.wait_for_log("status=deferred|== r@example.org")
        assert "queue-old" not in told(audited(tree))
        later = core.audit(tree, ahead=3 * DAY)
    (finding,) = (one for one in later["findings"] if one["id"] == "queue-old")
    assert (
        "2 mails wait in the queue, the oldest for 72 hours" in finding["message"] or "71 hours" in finding["message"]
    )


# -- asking the relay --------------------------------------------------------------------------------------------------


def test_relays_are_asked_when_that_is_wanted(by_others: tuple[str, Tree, Relay], authority: Authority) -> None:
    _backend, tree, relay = by_others
    quiet = audited(tree)
    assert "verification" not in quiet["services"][0]
    good = audited(tree, probe="auth")
    assert good["services"][0]["verification"]["reached"] == "auth"
    assert not {"relay-unreachable", "certificate-ends", "not-probed"} & told(good)
    relay.change(users={"fleet": "another one"})
    refused = audited(tree, probe="auth")
    assert "relay-unreachable" in told(refused)
    assert refused["services"][0]["verification"]["reached"] == "tls"
    assert not relay.messages()
    relay.stop()
    assert "relay-unreachable" in told(audited(tree, probe="connect", timeout=2))


def test_a_certificate_that_ends_soon_and_one_that_nobody_verifies(authority: Authority) -> None:
    relay = Relay(listeners(authority.ending(20, RELAY_NAME)), users={"fleet": PASSWORD})
    with Tree("msmtp") as tree, relay.start(in_net_of=tree):
        tree.write(CA_FILE, authority.ca_file.read_bytes())
        tree.write(by_hand.msmtp.MAIN, by_hand.msmtp.GOOD)
        assert "certificate-ends" in told(audited(tree, probe="tls"))
        assert "certificate-ends" not in told(audited(tree, probe="tls", certificate_days=10))
        tree.write(by_hand.msmtp.MAIN, by_hand.msmtp.GOOD + "tls_certcheck off\n")
        assert {"tls-unverified", "not-probed", "certificate-ends"} <= told(audited(tree, probe="auth"))
        assert not any(session.saw_credentials for session in relay.sessions())


# -- secrets ----------------------------------------------------------------------------------------------

CANARIES = [
    Canary("in a map", "Blaumeise4K7q Zeisig2M9x"),
    Canary("in main.cf", "Kohlmeise8P3w~Stelze5R1z"),
    Canary("in a home", 'Rotkehl6T2v"Amsel9Y4b'),
    Canary("in netrc", "Turmfalke3D8nKleiber7H6c"),
    Canary("in a pattern", "Haubentaucher2J5k$Kranich"),
]


def careless(tree: Tree) -> None:
    """A host with a password in every place that people put one."""
    in_map, in_main, at_home, netrc, pattern = (one.text for one in CANARIES)
    main = f"""relayhost = [{RELAY_NAME}]:587
smtp_sasl_auth_enable = yes
smtp_sasl_password_maps = hash:/etc/postfix/sasl_passwd, regexp:/etc/postfix/sasl_regexp,
  inline:{{ {{ another = x:{in_main} }} }}
sender_dependent_relayhost_maps = inline:{{ a@b.example=[other.example.test]:587 }}
smtp_sender_dependent_authentication = yes
"""
    home = f"account default\nhost h.example\nauth plain\nuser u\npassword {at_home}\n"
    tree.write("/etc/postfix/sasl_passwd", f"[{RELAY_NAME}]:587 fleet:{in_map}\na@b.example b:{in_map}\n", 0o644)
    tree.write("/etc/postfix/sasl_regexp", f"/other/ c:{pattern}\n", 0o644)
    tree.write("/etc/msmtprc", f"account default\nhost {RELAY_NAME}\nauth on\nuser fleet\n")
    tree.write("/etc/netrc", f"machine {RELAY_NAME} login fleet password {netrc}\n")
    tree.write("/home/user/.msmtprc", home)
    tree.run(["postmap", "/etc/postfix/sasl_passwd"])
    tree.write("/etc/postfix/main.cf", main)
    tree.let_cool()


def test_nothing_leaks_at_the_loudest(tmp_path: Path) -> None:
    """Not in what Ansible shows, logs and keeps, no argument, no environment, no file; also where all is broken."""
    cage = Cage(CANARIES)
    look = {"fleetmail.smtp.smtp_service_info": {"as_task": True, "homes": True, "probe": "auth", "timeout": 1}}
    wrong = {"fleetmail.smtp.smtp_service_info": {"timeout": 0}, "ignore_errors": True}
    with Tree("postfix-msmtp") as tree:
        careless(tree)
        with Watch(tree) as watch:
            tasks = [{"name": "look", **look}, {"name": "refused", **wrong}]
            played = play(tmp_path / "good", tasks, [tree], arguments=["-vvvv", "--diff"])
        assert {"secret-readable", "secret-in-line"} <= told(played.of("look"))
        assert len(played.of("look")["services"]) == 4
        assert any(b"postmap" in program.command for program in watch.started)
        seen = [sight for program in watch.started for sight in cage.search("program", b"".join(program))]
        seen += [sight for file in watch.written for sight in cage.search(file.path, file.content)]
        assert seen + cage.search("log", tree.log().encode()) == []

        tree.write("/etc/postfix/main.cf", tree.read("/etc/postfix/main.cf") + CANARIES[1].text.encode() + b"\n")
        tree.write("/home/user/.msmtprc", tree.read("/home/user/.msmtprc") + CANARIES[2].text.encode() + b"\n")
        tree.let_cool()
        broken = play(tmp_path / "broken", tasks, [tree], arguments=["-vvvv", "--diff"])
        assert "config-refused" in told(broken.of("look"))
    for played_ in (played, broken):
        assert cage.search("output", (played_.out + played_.err).encode()) == []
    assert cage.search_folder(tmp_path / "good/output") + cage.search_folder(tmp_path / "broken/output") == []


# -- a peer's role -----------------------------------------------------------------------------------------------------


@pytest.mark.crash_full
def test_the_postfix_role_of_debops_is_read_and_adopted(tmp_path: Path) -> None:
    """For real, as the bench runs it (long: it fetches the peers and takes a minute)."""
    from bench import fleet, peers
    from driver.checkout import linked

    try:
        ground = peers.ground(linked())
    except Unavailable as reason:
        pytest.skip(str(reason))
    book = Path(peers.__file__).parent / "plays/debops.yml"
    variables = {
        "relay_host": RELAY_NAME, "relay_port": 587, "relay_user": fleet.USER, "relay_password": PASSWORD,
        "bench_folder": str(tmp_path),
    }  # fmt: skip
    with fleet.Fleet("debops", 1) as hosts:
        (tree,) = hosts.hosts
        with hosts.relays() as (relay,):
            relay.change(users={fleet.USER: PASSWORD})
            settings = {
                "ANSIBLE_COLLECTIONS_PATH": ":".join(map(str, ground.collections)),
                "ANSIBLE_CONNECTION_PLUGINS": str(PLUGINS / "connection"),
                "ANSIBLE_HOME": str(tmp_path / "home"),
            }
            done = subprocess.run(
                [ground.playbook, "-i", hosts.inventory, "-e", json.dumps(variables), book],
                env={**os.environ, **settings}, capture_output=True, text=True, timeout=600, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
            (service,) = audited(tree)["services"]
            found = {key: service[key] for key in ("host", "port", "security", "username", "validate_certs", "managed")}
            assert found == {
                "host": RELAY_NAME, "port": 587, "security": "starttls", "username": fleet.USER, "validate_certs": True,
                "managed": False,
            }  # fmt: skip
            assert (service["task_drift"], service["takes_over"]) == ([], True)
            task = {**service["task"], "password": PASSWORD}
            assert core.enforce(tree, task, check=True)["drift"] == []
            assert "failed" not in core.enforce(tree, {**task, "verify": "auth"})
            relay.forget()
            tree.run(["/usr/sbin/sendmail", "-i", "-f", "a@b.example", "r@example.org"], b"Subject: t\n\nhello\n")
            assert relay.wait_for_message().auth_user == fleet.USER.encode()


# -- nonsense ----------------------------------------------------------------------------------------------------------

NONSENSE: dict[str, Any] = {
    "binary": bytes(range(256)) * 40,
    "endless lines": b"relayhost = " + b"x" * 200_000,
    "no line end": b"account default : default\nhost",
    "braces": b"relayhost = ${{{{{{${$$$}\nsmtp_sasl_password_maps = inline:{{{{ , }\n",
    "ourselves": b"# BEGIN fleetmail.smtp x\n# END fleetmail.smtp y\n" * 2 + b"# END fleetmail.smtp x\n",
}


@pytest.mark.parametrize("role", ["postfix", "exim", "msmtp"])
def test_nonsense_is_told_and_raises_nothing(role: str) -> None:
    places = {
        "postfix": ("/etc/postfix/main.cf", "/etc/postfix/master.cf"),
        "exim": ("/etc/exim4/update-exim4.conf.conf", "/etc/exim4/passwd.client", "/etc/exim4/exim4.conf"),
        "msmtp": ("/etc/msmtprc", "/home/user/.msmtprc"),
    }[role]
    with Tree(role) as tree:
        for content in NONSENSE.values():
            for path in places:
                tree.write(path, content)
                tree.let_cool(path)
            result = core.audit(tree, {"as_task": True, "homes": True})
            assert "failed" not in result
            assert not any("internal error" in one["message"] for one in result["findings"]), result["findings"]
        for path, made in zip(places, ("mkdir", "ln -s loop", "mkfifo"), strict=False):
            tree.run(["sh", "-c", f"rm -f {path}; cd $(dirname {path}); ln -sf loop loop; {made} {path}"])
        began = time.monotonic()
        result = core.audit(tree, {"as_task": True, "homes": True})
        assert time.monotonic() - began < 20
    assert "failed" not in result
    assert {"unreadable", "config-refused"} & told(result), result
    assert not any("internal error" in one["message"] for one in result["findings"]), result["findings"]
