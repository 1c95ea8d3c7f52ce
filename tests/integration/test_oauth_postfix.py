# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Postfix with OAuth: through the pipe to msmtp with real relays, and what is written for the plugin sasl-xoauth2."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from integration.oauth_machine import authorize
from integration.postfix_machine import CA_FILE, LOGIN, OWN, PASSWORD, Machine, machine
from integration.postfix_machine import form as form_of
from lab import core
from lab.authority import Authority
from lab.layers import why_unavailable
from lab.network import AUTH_ADDRESS, AUTH_NAME, Network
from lab.oauth_server import MICROSOFT_SCOPE, OAuthServer
from lab.oauth_server import why_unavailable as why_no_server
from lab.relay_oauth import OAUTH_RELAY_NAME, OAuthRelay
from lab.tree import RELAY_NAME, Tree
from lab.watch import Watch

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.enforce import enforce
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.posix_host import PosixHost

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "the lab is there")

USER = "fleet@example.test"
TOKEN = "t0ken" + "Abcdefghij0123456789" * 100  # 2,005 characters, as real ones have
OAUTH = {
    "auth_type": "oauth",
    "username": USER,
    "client_id": "client",
    "token_url": "https://auth.example.test/token",
    "authorization_url": "https://auth.example.test/authorize",
}


def form(security: str = "starttls", **more: Any) -> dict[str, Any]:
    """The backend has a name here: where msmtp is installed too, there are two to choose from."""
    return {**form_of(security, **more), "backend": "postfix"}


SERVICE = {**form("starttls", **OAUTH), "backend_options": {"oauth": "pipe"}}
ACCOUNT = "fleetmail-msmtp"
TOKEN_FILE = "/var/lib/fleetmail/tokens/default.postfix"
WRAPPER = "/usr/local/lib/fleetmail/postfix-msmtp"
CONFIG = "/etc/postfix/fleetmail-default.a.msmtprc"
ACCOUNTS = ("/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow")
PARTS = ("etc/postfix", "var/lib/fleetmail", "usr/local/lib/fleetmail")
LIBRARY = "/usr/lib/x86_64-linux-gnu/sasl2/libsasl-xoauth2.so"

TICK = f"""
import sys
sys.path.insert(0, "{core.PLACE}")
from core.oauth.keeper import main
sys.exit(main(["tick"]))
"""


def give(tree: Tree, token: str, name: str = "default") -> None:
    """Authorize: the store has a grant, its consumers' files are written and their mail is woken."""
    assert authorize(tree, token, name=name) == ""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def started(authority: Authority) -> Iterator[Machine]:
    with machine(authority, role="postfix-msmtp") as found:
        yield found


def clean(host: Machine) -> None:
    host.reset()
    host.shell(f"userdel {ACCOUNT} 2>/dev/null; rm -f {LIBRARY}", check=False)
    host.relay.change(tokens={USER: [TOKEN]}, mechanisms=["XOAUTH2", "OAUTHBEARER"], auth_required=True)


@pytest.fixture
def host(started: Machine) -> Machine:
    clean(started)
    return started


@pytest.fixture(scope="module")
def enforced(started: Machine) -> Machine:
    """The service in force and a token that the relay takes, kept aside to be had again."""
    clean(started)
    started.enforce(SERVICE)
    give(started.tree, TOKEN)
    started.shell(f"mkdir /opt/piped && cd / && cp -a --parents {' '.join(PARTS)} /opt/piped")
    return started


@pytest.fixture
def piped(enforced: Machine) -> Machine:
    """The same, whatever another test did."""
    clean(enforced)
    login = f"useradd --system --user-group --no-create-home --shell /usr/sbin/nologin {ACCOUNT}"
    enforced.shell(f"cd / && rm -rf {' '.join(PARTS)} && cp -a /opt/piped/* / && {login} && postfix reload")
    return enforced


def everything(host: Machine) -> str:
    """All of /etc and /usr/local but for the copies that useradd(8) makes: content, mode, owner."""
    names = "find etc usr/local ! -name '*-' -printf '%p %y %m %U %G %l\\n' | sort"
    return host.shell(f"cd /; {names}; find etc usr/local -type f ! -name '*-' -exec sha256sum {{}} + | sort")


def reasons(host: Machine) -> list[str]:
    """Why mail waits."""
    return [to.get("delay_reason", "") for mail in host.queue() for to in mail["recipients"]]


def unauthenticated(host: Machine) -> list[str]:
    """What was said to the relay in conversations that had to begin with a login and did not."""
    spoken = [[line for who, line in one.dialogue if who == "C"] for one in host.relay.sessions()]
    return [
        line for lines in spoken for line in lines if line.startswith("MAIL") and not any("AUTH" in x for x in lines)
    ]


# -- the order of things -----------------------------------------------------------------------------------------------


def test_it_is_planned_made_kept_and_taken_back(host: Machine) -> None:
    before = everything(host)
    told = host.drift(SERVICE)
    assert told["auth_type"] == ("none", "oauth")
    assert told["username"] == ("", USER)
    result = host.enforce(SERVICE)
    assert result["actions"][0].startswith("useradd --system")
    assert result["actions"][1:] == ["postfix reload"]
    assert "its mail waits" in result["warnings"][0]
    assert host.drift(SERVICE) == {}
    assert not host.enforce(SERVICE)["changed"]
    pipe = host.shell("postconf -M fleetmail-default.a/unix")
    assert re.search(rf"unix - +n +n +- +3 +pipe flags=q user={ACCOUNT} null_sender= argv=/bin/sh -c ", pipe)
    way = f"fleetmail-default.a:[{RELAY_NAME}]:587"
    expected = {"default_transport": way, "relay_transport": way}
    expected.update({"fleetmail-default.a_destination_recipient_limit": "1", "fleetmail-default.a_time_limit": "2h"})
    assert host.parameters(*expected) == expected
    assert host.shell("postfix check; postconf -n 2>&1 >/dev/null") == ""
    account = host.shell(f"getent passwd {ACCOUNT}").split(":")
    assert account[5:] == ["/nonexistent", "/usr/sbin/nologin"]
    assert host.shell(f"stat -c '%a %U %G' {CONFIG} {WRAPPER}") == f"640 root {ACCOUNT}\n755 root root"
    result = host.enforce({**SERVICE, "state": "absent"})
    assert result["actions"] == ["postfix reload", f"userdel {ACCOUNT}"]
    assert everything(host) == before
    assert not host.tree.exists("/var/lib/fleetmail")
    assert host.running()


@pytest.mark.parametrize(
    ("security", "mechanism"),
    [("starttls", "xoauth2"), ("starttls", "oauthbearer"), ("tls", "xoauth2"), ("none", "oauthbearer")],
)
def test_mail_goes_out_with_the_token(host: Machine, security: str, mechanism: str) -> None:
    options = {"oauth": "pipe", "oauth_mechanism": mechanism}
    host.enforce({**form(security, **OAUTH), "from_address": OWN, "backend_options": options})
    give(host.tree, TOKEN)
    host.relay.change(tokens={USER: [TOKEN]}, mechanisms=[mechanism.upper()], auth_required=True)
    host.send("app@elsewhere.example", "r@example.org")
    mail = host.relay.wait_for_message()
    (session,) = host.relay.sessions()
    assert session.listener.startswith(security)
    assert [(one.mechanism, one.user, one.secret, one.accepted) for one in session.auths] == [
        (mechanism.upper(), USER.encode(), TOKEN.encode(), True)
    ]
    assert (mail.sender, mail.recipients, bool(mail.tls)) == (OWN, ["r@example.org"], security != "none")
    assert mail.email["From"] == f"Somebody <{OWN}>"
    assert ("C", "EHLO client.example.test") in session.dialogue
    host.wait(lambda: host.queue() == [])
    assert re.search(r"relay=fleetmail-default\.a, .*status=sent \(.*\(250 2\.0\.0 Queued as", host.tree.log())


def test_no_token_gets_anywhere_but_to_msmtp(piped: Machine) -> None:
    with Watch(piped.tree) as watch:
        piped.send()
        piped.relay.wait_for_message()
        piped.wait(lambda: piped.queue() == [])
        piped.enforce({**SERVICE, "timeout": 31, "verify": "auth"})
    assert any(b"msmtp\0-C\0" in one.command for one in watch.started)
    secret = TOKEN[:40].encode()
    assert not [one for one in watch.started if secret in one.command + one.environment]
    assert not [one.path for one in watch.written if secret in one.content]
    assert TOKEN[:40] not in piped.tree.log()
    assert piped.shell(f"stat -c '%a %U %G' {TOKEN_FILE}") == f"640 root {ACCOUNT}"
    assert piped.tree.run(["cat", TOKEN_FILE], user="user", check=False).returncode


# -- what waits, and what bounces --------------------------------------------------------------------------------------


def _without_a_token(host: Machine) -> None:
    host.shell(f"rm {TOKEN_FILE}")


def _with_an_empty_token(host: Machine) -> None:
    host.shell(f": > {TOKEN_FILE}")


def _with_an_unreadable_token(host: Machine) -> None:
    host.shell(f"chown root:root {TOKEN_FILE}")


def _with_a_refused_token(host: Machine) -> None:
    host.relay.change(tokens={USER: ["another"]})


def _without_a_relay(host: Machine) -> None:
    host.shell(f"sed -i 's/^port .*/port 599/' {CONFIG}")


def _with_another_ca(host: Machine) -> None:
    host.shell(f"sed -i 's/^tls_trust_file .*/tls_trust_file system/' {CONFIG}")


def _without_configuration(host: Machine) -> None:
    host.shell(f"rm {CONFIG}")


def _without_a_wrapper(host: Machine) -> None:
    host.shell(f"rm {WRAPPER}")


def _without_msmtp(host: Machine) -> None:
    host.shell("mv /usr/bin/msmtp /usr/bin/msmtp.away")


WAITS = {
    "token missing": (_without_a_token, {}, "there is no access token: cat:"),
    "token empty": (_with_an_empty_token, {}, "there is no access token: msmtp: cannot read"),
    "token unreadable": (_with_an_unreadable_token, {}, "Permission denied"),
    "token refused": (_with_a_refused_token, {}, "said: 535 5.7.8 Authentication credentials invalid"),
    "mailbox disabled": (None, {"auth_reply": "535 5.7.139 SmtpClientAuthentication is disabled"}, "5.7.139"),
    "login refused for good": (None, {"auth_reply": "550 5.7.30 Basic authentication is not supported"}, "5.7.30"),
    "login missing": (None, {"mail_reply": "530 5.7.57 Client not authenticated to send mail"}, "5.7.57"),
    "token short": (None, {"mail_reply": "501 5.5.127 Token will expire soon"}, "5.5.127"),
    "no mechanism": (None, {"mechanisms": ["PLAIN"]}, "does not support authentication method XOAUTH2"),
    "connection refused for good": (None, {"greeting": "554 5.3.2 go away"}, "554 5.3.2 go away"),
    "relay busy": (None, {"greeting": "421 4.3.2 busy"}, "421 4.3.2 busy"),
    "later": (None, {"rcpt_replies": {"*": "450 4.2.0 later"}}, "450 4.2.0 later"),
    "relay down": (_without_a_relay, {}, "Connection refused"),
    "another CA": (_with_another_ca, {}, "certificate"),
    "no configuration": (_without_configuration, {}, "No such file"),
    "no wrapper": (_without_a_wrapper, {}, "not found"),
    "no msmtp": (_without_msmtp, {}, "failed to run command 'msmtp'"),
}


@pytest.mark.parametrize("why", WAITS)
def test_what_is_not_the_mails_fault_makes_it_wait(piped: Machine, why: str) -> None:
    broken, behaviour, words = WAITS[why]
    if broken:
        broken(piped)
    piped.relay.change(**behaviour)
    try:
        piped.send()
        piped.wait(lambda: any(words in reason for reason in reasons(piped)))
        assert " status=bounced" not in piped.tree.log().split("reload --")[-1]
        assert len(piped.queue()) == 1
        assert unauthenticated(piped) == []
    finally:
        piped.shell("[ ! -e /usr/bin/msmtp.away ] || mv /usr/bin/msmtp.away /usr/bin/msmtp")
    ordinary = {"tokens": {USER: [TOKEN]}, "mechanisms": ["XOAUTH2"]}
    piped.relay.change(auth_reply="", mail_reply="", greeting="", rcpt_replies={}, **ordinary)
    if broken:
        assert piped.enforce(SERVICE)["changed"] == (why not in ("token refused", "no msmtp"))
    piped.relay.forget()
    piped.shell("postqueue -f")
    piped.relay.wait_for_message()
    piped.wait(lambda: piped.queue() == [])
    assert len(piped.relay.messages()) == 1


def test_a_slow_relay_is_no_reason_to_bounce(piped: Machine) -> None:
    """What pipe(8) itself puts an end to bounces (command_time_limit), so it is not to come to that."""
    slow = "/usr/local/bin/msmtp"
    piped.tree.write(slow, '#!/bin/sh\nsleep 3\nexec /usr/bin/msmtp "$@"\n', 0o755)
    try:
        piped.shell("postconf -e command_time_limit=1s && postfix reload")
        piped.send()
        piped.relay.wait_for_message()
        piped.wait(lambda: piped.queue() == [])
        piped.shell(f"sed -i 's/ 3600 msmtp/ 1 msmtp/' {WRAPPER}")
        piped.send()
        piped.wait(lambda: reasons(piped) == ["msmtp was still at work after an hour"])
    finally:
        piped.shell(f"rm {slow}")
    assert piped.enforce(SERVICE)["changed"]
    piped.shell("postqueue -f")
    piped.relay.wait_for_message(count=2)


def test_no_more_deliveries_are_on_their_way_than_exchange_online_takes(piped: Machine) -> None:
    slow, steps = "/usr/local/bin/msmtp", "/var/tmp/deliveries"
    piped.tree.write(steps, "", 0o666)
    piped.tree.write(
        slow, f'#!/bin/sh\necho 1 >>{steps}\nsleep 0.5\necho -1 >>{steps}\nexec /usr/bin/msmtp "$@"\n', 0o755
    )
    try:
        piped.send("app@elsewhere.example", *(f"r{number}@{number % 2}.example.org" for number in range(8)))
        piped.relay.wait_for_message(count=8)
        assert max(accumulate(map(int, piped.tree.read(steps).split()))) == 3
    finally:
        piped.shell(f"rm {slow} {steps}")


def test_a_mail_that_was_being_tried_when_the_first_token_came_goes_with_the_next_tick(host: Machine) -> None:
    host.enforce(SERVICE)
    slow, began = "/usr/local/bin/msmtp", "/var/tmp/began"
    host.tree.write(began, "", 0o666)
    host.tree.write(slow, f'#!/bin/sh\n/usr/bin/msmtp "$@"; code=$?; echo >>{began}; sleep 2; exit $code\n', 0o755)
    try:
        host.send()
        host.wait(lambda: host.tree.read(began))
        give(host.tree, TOKEN)
        host.wait(lambda: any("there is no access token" in reason for reason in reasons(host)))
    finally:
        host.shell(f"rm {slow} {began}")
    assert len(host.queue()) == 1
    assert host.relay.sessions() == []
    said = host.tree.output(["python3", "-B", "-c", TICK])
    assert said.startswith("default: authorized")
    host.relay.wait_for_message()
    host.wait(lambda: host.queue() == [])


def test_the_relays_words_may_be_any(piped: Machine) -> None:
    for number, words in enumerate(("client host=203.0.113.5 is listed", "it's errormsg='x' exitcode=EX_OK")):
        piped.relay.change(rcpt_replies={"r@example.org": f"550 5.7.1 {words}"})
        piped.send("")
        piped.wait(lambda number=number: piped.tree.log().count("said: 550 5.7.1 ") > number)
        assert re.search(r"dsn=5\.7\.1, status=bounced .*said: 550 5\.7\.1 (client|it.s)", piped.tree.log())


def test_of_several_recipients_each_has_its_own_end(piped: Machine) -> None:
    piped.relay.change(
        rcpt_replies={"bad@example.org": "550 5.1.1 no such user", "later@example.org": "451 4.7.1 later"}
    )
    piped.send("app@elsewhere.example", "good@example.org", "bad@example.org", "later@example.org", "fine@example.org")
    piped.relay.wait_for_message(count=3)
    piped.wait(lambda: len(piped.queue()) == 1)
    arrived = {(mail.sender, *mail.recipients) for mail in piped.relay.messages()}
    sender = "app@elsewhere.example"
    assert arrived == {(sender, "good@example.org"), (sender, "fine@example.org"), ("", sender)}
    (bounce,) = [mail for mail in piped.relay.messages() if not mail.sender]
    assert b"Final-Recipient: rfc822; bad@example.org" in bounce.data
    assert b"Status: 5.1.1" in bounce.data
    assert b"550 5.1.1 no such user" in bounce.data
    assert b"good@example.org" not in bounce.data.split(b"Content-Type: message/delivery-status")[1].split(b"--")[0]
    (waiting,) = piped.queue()
    assert [to["address"] for to in waiting["recipients"]] == ["later@example.org"]


def test_a_mail_that_the_relay_refuses_comes_back(piped: Machine) -> None:
    for reply in ("554 5.6.0 bad content", "552 5.3.4 too big", "550 refused"):
        piped.relay.change(data_reply=reply)
        piped.send("")
        said = f"status=bounced ({RELAY_NAME} said: {reply}"
        piped.wait(lambda said=said: said in piped.tree.log())
    piped.wait(lambda: piped.queue() == [])


def test_mail_arrives_as_it_was_given(piped: Machine) -> None:
    lines = [b"", b".", b"..", b".dot", b"From the start", b"gr\xc3\xbc\xdfe", b"x" * 5000, b"tab\tend ", b"last"]
    body = b"\n".join(lines) + b"\n" + b"y" * 70 + (b"\n" + b"z" * 76) * 20000 + b"\n"
    head = b"From: a@b.example\nTo: r@example.org\nBcc: hidden@example.org\nX-Own: 1\nSubject: t\n\n"
    piped.tree.run(["sendmail", "-i", "-f", "a@b.example", "--", "r@example.org"], head + body)
    mail = piped.relay.wait_for_message()
    assert mail.data.split(b"\r\n\r\n", 1)[1] == body.replace(b"\n", b"\r\n")
    assert mail.email["X-Own"] == "1"
    assert [mail.email[name] for name in ("From", "To")] == ["a@b.example", "r@example.org"]
    names = [name for name, _value in mail.email.items()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("sender", "recipient"),
    [
        ("", "r@example.org"),
        ("-a@b.example", "-r@example.org"),
        ('"we ird"@b.example', "a+b'c=d@example.org"),
        ("o'neil@b.example", "r@[192.0.2.1]"),
    ],
)
def test_envelopes_arrive_as_they_were_given(piped: Machine, sender: str, recipient: str) -> None:
    piped.shell("postconf -e allow_min_user=yes; postfix reload")
    mail = f"From: a@b.example\nTo: r@example.org\n\n{sender}\n".encode()
    piped.tree.run(["sendmail", "-i", "-f", sender, "--", recipient], mail)
    arrived = piped.relay.wait_for_message()
    assert (arrived.sender, arrived.recipients) == (sender, [recipient])


@pytest.mark.parametrize("recipient", ['"a b"@example.org', '"a,c@evil.example"@example.org', '"a;b"@example.org'])
def test_an_address_that_msmtp_would_take_apart_comes_back(piped: Machine, recipient: str) -> None:
    piped.send("app@elsewhere.example", recipient)
    bounce = piped.relay.wait_for_message()
    assert (bounce.sender, bounce.recipients) == ("", ["app@elsewhere.example"])
    assert b"5.1.3" in bounce.data
    assert len(piped.relay.messages()) == 1


# -- switching ---------------------------------------------------------------------------------------------------------


def test_from_password_to_oauth_and_back_nothing_is_lost(host: Machine) -> None:
    password = form("starttls", **LOGIN)
    host.relay.change(
        users={"fleet": PASSWORD}, mechanisms=["PLAIN", "XOAUTH2"], rcpt_replies={"w@example.org": "450 4.2.0 later"}
    )
    host.enforce(password)
    sent = [f"n{number}@sender.example" for number in range(30)]
    host.send("waiting@sender.example", "w@example.org")
    host.wait(lambda: len(reasons(host)) == 1 and reasons(host)[0])
    stream = threading.Thread(target=lambda: [host.send(sender) for sender in sent])
    stream.start()
    host.enforce(SERVICE)
    give(host.tree, TOKEN)
    host.enforce(password)
    host.enforce(SERVICE)
    stream.join()
    assert host.drift(SERVICE) == {}
    host.relay.change(rcpt_replies={})
    host.shell("postqueue -f")
    host.relay.wait_for_message(count=31, timeout=30)
    host.wait(lambda: host.queue() == [])
    assert sorted(mail.sender for mail in host.relay.messages()) == sorted([*sent, "waiting@sender.example"])
    assert unauthenticated(host) == []
    assert {mail.auth_user for mail in host.relay.messages()} <= {b"fleet", USER.encode()}


def test_services_by_senders_have_their_own_tokens(host: Machine) -> None:
    users = {"shop": "shop@example.test", "news": "news@example.test"}
    tokens = {user: [f"token-of-{name}-0123456789"] for name, user in users.items()}
    host.relay.change(tokens=tokens, users={"fleet": PASSWORD}, mechanisms=["PLAIN", "XOAUTH2"])
    services = {
        name: {**SERVICE, "name": name, "username": user, "senders": [f"{name}.example"]}
        for name, user in users.items()
    }
    rest = form("starttls", **LOGIN)
    for name, service in services.items():
        host.enforce(service)
        give(host.tree, tokens[users[name]][0], name)
    host.enforce(rest)
    for service in (*services.values(), rest):
        assert host.drift(service) == {}
    for sender in ("a@shop.example", "b@news.example", "c@else.example"):
        host.send(sender)
    host.relay.wait_for_message(count=3)
    assert {mail.sender: mail.auth_user for mail in host.relay.messages()} == {
        "a@shop.example": b"shop@example.test", "b@news.example": b"news@example.test", "c@else.example": b"fleet",
    }  # fmt: skip
    host.enforce({**services["shop"], "state": "absent"})
    assert host.drift(services["news"]) == {}
    assert host.tree.exists(WRAPPER)
    host.enforce({**services["news"], "state": "absent"})
    assert not host.tree.exists(WRAPPER)
    assert host.drift(rest) == {}


def test_held_mail_goes_when_it_may(piped: Machine) -> None:
    assert piped.drift({**SERVICE, "enabled": False}) == {"enabled": (True, False)}
    piped.enforce({"backend": "postfix", "enabled": False, "backend_options": {"oauth": "pipe"}})
    piped.send()
    piped.wait(lambda: any("holds mail" in reason for reason in reasons(piped)))
    assert piped.relay.sessions() == []
    assert piped.drift({**SERVICE, "enabled": False}) == {}
    assert piped.enforce(SERVICE)["actions"][-1] == "postqueue -f"
    piped.relay.wait_for_message()


# -- proofs and failures -----------------------------------------------------------------------------------------------


def test_a_test_mail_is_followed_through_the_pipe(piped: Machine) -> None:
    test = {"to": ["r@example.org"], "via": "mta", "when": "always", "timeout": 5}
    result = piped.enforce({**SERVICE, "verify": "auth", "test_send": test})
    assert result["verification"]["ok"]
    assert result["test_send"]["reply"].startswith("250 2.0.0 Queued as")
    piped.relay.change(rcpt_replies={"r@example.org": "550 5.1.1 no such user"})
    result = piped.failure({**SERVICE, "test_send": test})
    assert "r@example.org: bounced: relay.example.test said: 550 5.1.1 no such user" in result["msg"]
    piped.relay.change(rcpt_replies={}, tokens={USER: ["another"]})
    result = piped.failure({**SERVICE, "test_send": {**test, "timeout": 1}})
    assert "said: 535 5.7.8" in result["msg"]
    assert piped.queue() == []


def test_a_change_that_fails_its_proof_is_put_back_with_its_account(host: Machine) -> None:
    host.enforce(form("starttls"))
    before = [host.tree.read(path) for path in ACCOUNTS]
    host.enforce({**SERVICE, "enabled": False})
    give(host.tree, "stale-token-0123456789")  # which the relay does not take
    host.enforce(form("starttls"))
    assert [host.tree.read(path) for path in ACCOUNTS] == before
    result = host.failure({**SERVICE, "verify": "auth"})
    assert result["rolled_back"]
    assert "refused the access token" in result["msg"]
    assert [host.tree.read(path) for path in ACCOUNTS] == before
    assert not host.tree.exists(WRAPPER)


def test_a_run_that_was_killed_leaves_no_account_behind(host: Machine) -> None:
    before = [host.tree.read(path) for path in ACCOUNTS]
    steps = core.points(host.tree, SERVICE)
    core.enforce(host.tree, {**SERVICE, "state": "absent"})
    made = next(number for number, (what, words) in enumerate(steps, 1) if "Popen" in what and "useradd" in words)
    for point in (made + 1, made + 4):
        with pytest.raises(core.Killed):
            core.enforce_until(host.tree, SERVICE, point)
        assert [host.tree.read(path) for path in ACCOUNTS] != before
        core.enforce(host.tree, {**SERVICE, "state": "absent"})
        assert [host.tree.read(path) for path in ACCOUNTS] == before
        assert not host.enforce({**SERVICE, "state": "absent"})["changed"]


def test_the_account_comes_and_goes_where_groups_stay(host: Machine) -> None:
    host.shell("sed -i 's/^USERGROUPS_ENAB.*/USERGROUPS_ENAB no/' /etc/login.defs")
    try:
        before = [host.tree.read(path) for path in ACCOUNTS]
        for _again in range(2):
            host.enforce(SERVICE)
            host.enforce({**SERVICE, "state": "absent"})
            assert [host.tree.read(path) for path in ACCOUNTS] == before
        host.shell(f"groupadd --system {ACCOUNT}")
        before = [host.tree.read(path) for path in ACCOUNTS]
        host.enforce(SERVICE)
        give(host.tree, TOKEN)
        host.send()
        host.relay.wait_for_message()
        host.wait(lambda: host.queue() == [])
        host.enforce({**SERVICE, "state": "absent"})
        assert [host.tree.read(path) for path in ACCOUNTS] == before
    finally:
        host.shell(
            f"sed -i 's/^USERGROUPS_ENAB.*/USERGROUPS_ENAB yes/' /etc/login.defs; groupdel {ACCOUNT}", check=False
        )


def test_absent_takes_the_token_away_where_the_store_is_lost(host: Machine) -> None:
    host.enforce(SERVICE)
    give(host.tree, TOKEN)
    host.shell("rm -r /var/lib/fleetmail/oauth")
    host.enforce({"backend": "postfix", "state": "absent"})
    assert not host.tree.exists(TOKEN_FILE)


def test_what_postfix_own_client_would_have_rewritten_is_told(host: Machine) -> None:
    host.shell("postconf -e smtp_generic_maps=static:generic@hosts.example.test")
    for options, sender, told in ((SERVICE, "root@client.localdomain", 1), ({**SERVICE, "from_address": OWN}, OWN, 0)):
        result = host.enforce(options)
        assert len([words for words in result["warnings"] if "smtp_generic_maps has no effect" in words]) == told
        give(host.tree, TOKEN)
        host.relay.forget()
        host.send("root@client.localdomain")
        assert host.relay.wait_for_message().sender == sender


def test_without_msmtp_it_is_planned_but_not_done(authority: Authority) -> None:
    with machine(authority) as bare:
        assert bare.drift(SERVICE)["auth_type"] == ("none", "oauth")
        result = bare.failure({key: value for key, value in SERVICE.items() if key != "backend_options"})
        (problem,) = result["problems"]
        assert problem["option"] == "auth_type"
        assert "install the package msmtp" in problem["hint"]


def test_an_image_gets_account_and_files(authority: Authority) -> None:
    with Tree("postfix-msmtp") as tree:
        tree.write(CA_FILE, authority.ca_file.read_bytes())
        before = [tree.read(path) for path in ACCOUNTS]
        place, options = PosixHost(str(tree.path)), {**SERVICE, "backend": "postfix", "root": str(tree.path)}
        result = enforce(options, place, check=False)
        assert "failed" not in result, result
        assert "judged by this collection's rules alone" not in str(result["warnings"])
        number = int(tree.output(["id", "-g", ACCOUNT]))
        found = tree.inside(CONFIG).stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (0, number, 0o640)
        assert not enforce(options, place, check=True)["changed"]
        enforce({**options, "state": "absent"}, place, check=False)
        assert [tree.read(path) for path in ACCOUNTS] == before


# -- the plugin --------------------------------------------------------------------------------------------------------


def test_the_plugins_files_are_where_its_chrooted_client_finds_them(host: Machine) -> None:
    host.tree.write(LIBRARY, "not a library: what is in no Debian release cannot be tried here")
    before = everything(host)
    service = form("starttls", **OAUTH)
    host.enforce(service)
    give(host.tree, TOKEN)
    assert host.drift(service) == {}
    assert host.parameters("smtp_sasl_mechanism_filter", "default_transport") == {
        "smtp_sasl_mechanism_filter": "xoauth2",
        "default_transport": "smtp",
    }
    maps = host.parameters("smtp_sasl_password_maps")["smtp_sasl_password_maps"]
    user, path = host.shell(f"postmap -q '[{RELAY_NAME}]:587' {maps}").split(":")
    assert user == USER
    outside = host.parameters("queue_directory")["queue_directory"] + path
    seen = host.tree.run(["cat", outside], user="postfix").stdout  # as smtp(8) does, once it is in its chroot
    told = json.loads(seen)
    assert (told["access_token"], told["refresh_token"], told["user"]) == (TOKEN, "", USER)
    assert 3000 < int(told["expiry"]) - time.time() < 3700
    assert host.shell(f"stat -c '%a %U %G' {outside}") == "640 root postfix"
    assert host.tree.run(["touch", outside + ".1.2"], user="postfix", check=False).returncode
    assert json.loads(host.tree.read("/etc/sasl-xoauth2.conf")) == {"client_id": "not used", "client_secret": ""}
    assert host.shell("postfix check 2>&1; postfix reload 2>&1 | grep -v refreshing; true") == ""
    host.send()  # Cyrus SASL finds no mechanism: nothing is sent without a login
    host.wait(lambda: any("no mechanism available" in reason for reason in reasons(host)))
    assert unauthenticated(host) == []
    host.shell("postsuper -d ALL")
    host.enforce({**service, "state": "absent"})
    assert everything(host) == before
    assert not host.tree.exists(str(Path(outside).parent))


# -- a relay that asks the authorization server ------------------------------------------------------------------------


@pytest.mark.skipif(bool(why_no_server()), reason=why_no_server() or "it is there")
def test_revoked_mail_waits_and_authorized_again_it_drains(authority: Authority) -> None:
    files = {"certificate": authority.good(AUTH_NAME), "ca_file": authority.ca_file}
    with (
        Network() as network,
        OAuthServer(host=AUTH_ADDRESS, name=AUTH_NAME, port=443, **files).start(in_net_of=network) as server,
        OAuthRelay(
            authority.good(OAUTH_RELAY_NAME), network, server, authority.ca_file, scope=MICROSOFT_SCOPE
        ) as relay,
        Tree("postfix-msmtp", network=network) as tree,
    ):
        tree.write(CA_FILE, authority.ca_file.read_bytes())
        tree.start("postfix")
        options = {**SERVICE, "backend": "postfix", "host": OAUTH_RELAY_NAME}
        assert "failed" not in core.enforce(tree, options)

        def send(sender: str) -> None:
            tree.run(["sendmail", "-i", "-f", sender, "--", "r@example.org"], b"Subject: t\n\nhello\n")

        def authorize_again() -> None:
            give(tree, server.grant_for(USER, f"{MICROSOFT_SCOPE} offline_access")["access_token"])

        send("early@b.example")  # before anybody authorized
        tree.wait_for_log(r"status=deferred \(there is no access token")
        authorize_again()
        mail = relay.wait_for_message()
        assert (mail.sender, mail.auth_user) == ("early@b.example", USER.encode())
        server.revoke(user=USER)
        for number in range(3):
            send(f"n{number}@b.example")
        tree.wait_for_log(
            r"status=deferred \(oauth-relay\.example\.test said: 535 5\.7\.8 Error: authentication failed"
        )
        assert " status=bounced" not in tree.log()
        assert len(relay.messages()) == 1
        authorize_again()
        relay.wait_for_message(count=4)
        assert sorted(one.sender for one in relay.messages()[1:]) == [f"n{number}@b.example" for number in range(3)]
        tree.wait_for_log(r"removed(?![\s\S]*queue active)")
        assert tree.output(["postqueue", "-j"]) == ""
