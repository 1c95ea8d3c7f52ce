# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real msmtp with access tokens: what is sent, how it ends where nothing can be sent, and who may send."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from integration.oauth_machine import CLIENT_SECRET, MECHANISMS, OAUTH, REGISTRATION, USER, authorize
from lab import core
from lab.authority import Authority
from lab.canary import Cage, Canary
from lab.layers import why_unavailable
from lab.relay import Behaviour, Relay, listeners
from lab.tree import RELAY_NAME, Tree
from lab.watch import Watch

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "the lab is there")

MAIN, CA_FILE = "/etc/msmtprc", "/etc/ssl/relay-ca.pem"
TOKEN, NEXT = "ya29.Tokenvogel3X5q_Bachstelze7L2f==", "ya29.Neutoken8P4r~Gebirgsstelze2K6m=="
TOKEN_FILE = "/var/lib/fleetmail/tokens/default.msmtp"
PASSWORD = "Altvogel7Q3x Zaunkoenig5K9w"
LOGIN = {"auth_type": "password", "username": "fleet", "password": PASSWORD}
RELAY = {"backend": "msmtp", "host": RELAY_NAME, "security": "starttls", "ca_file": CA_FILE}
SERVICE = {**RELAY, **OAUTH}
MAIL = b"From: Someone <app@elsewhere.example>\nTo: r@example.org\nSubject: t\n\nhello\n"
OK, NOPERM, CONFIG, DATAERR = 0, 77, 78, 65  # sysexits.h


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def machine(authority: Authority) -> Iterator[Tree]:
    with Tree("msmtp") as tree:
        tree.write(CA_FILE, authority.ca_file.read_bytes())
        yield tree


@pytest.fixture(scope="module")
def listening(machine: Tree, authority: Authority) -> Iterator[Relay]:
    with Relay(listeners(authority.good(RELAY_NAME))).start(in_net_of=machine) as relay:
        yield relay


@pytest.fixture
def host(machine: Tree) -> Tree:
    """The machine as it was installed."""
    machine.run(["sh", "-c", "rm -rf /etc/msmtprc* /var/lib/fleetmail"])
    return machine


@pytest.fixture
def relay(listening: Relay) -> Relay:
    """It takes mail with a good token or password only."""
    listening.behaviour = Behaviour()
    listening.change(users={"fleet": PASSWORD}, tokens={USER: TOKEN}, mechanisms=MECHANISMS, auth_required=True)
    listening.forget()
    return listening


def applied(host: Tree, **options: Any) -> dict[str, Any]:
    """Enforce it; the task must succeed."""
    result = core.enforce(host, {**SERVICE, **options})
    assert "failed" not in result, result["msg"]
    return result


def drift(host: Tree, **options: Any) -> dict[str, tuple[Any, Any]]:
    result = core.enforce(host, {**SERVICE, **options}, check=True)
    assert "failed" not in result, result["msg"]
    assert result["changed"] == bool(result["drift"])
    return {one["field"]: (one["before"], one["after"]) for one in result["drift"]}


def send(host: Tree, user: str | None = None) -> int:
    """msmtp's exit code for one mail."""
    return host.run(["sendmail", "-i", "--", "r@example.org"], MAIL, check=False, user=user).returncode


@pytest.mark.parametrize("mechanism", ["xoauth2", "oauthbearer"])
def test_check_real_check_real_and_msmtp_agrees(host: Tree, relay: Relay, mechanism: str) -> None:
    how = {"backend_options": {"auth": mechanism}}
    assert drift(host, **how)["client_id"] == (None, "fleet-client")
    applied(host, **how)
    assert authorize(host, TOKEN) == ""
    assert drift(host, **how) == {}
    mail = {"to": ["you@example.org"], "when": "always", "via": "mta"}
    result = applied(host, **how, verify="auth", test_send=mail)
    assert not result["changed"]
    assert result["verification"]["reached"] == "auth"
    assert result["test_send"]["sent"]
    said = host.output(["msmtp", "--pretend", "a@b.test"])
    assert f"auth = {mechanism.upper()}\nuser = {USER}\npassword = *\npasswordeval = cat {TOKEN_FILE}\n" in said
    assert TOKEN not in said
    message = relay.wait_for_message()
    assert message.auth_user == USER.encode()
    assert message.tls
    assert {auth.mechanism for one in relay.sessions() for auth in one.auths} == {mechanism.upper()}
    sent = applied(host, **how, test_send={**mail, "via": "relay"})
    assert sent["test_send"]["sent"]


def test_without_a_good_token_nothing_is_sent_and_no_other_login_tried(host: Tree, relay: Relay) -> None:
    applied(host)
    assert send(host) == CONFIG  # no file: msmtp does not even connect
    assert authorize(host, TOKEN) == ""
    host.run(["sh", "-c", f": > {TOKEN_FILE}"])
    assert send(host) == CONFIG
    assert relay.sessions() == []
    relay.change(tokens={USER: NEXT})
    applied(host)  # brings the file back, which holds what this relay no longer takes
    assert send(host) == NOPERM
    relay.change(mechanisms=["PLAIN", "LOGIN"])
    assert send(host) not in (OK, NOPERM)
    assert [auth.mechanism for one in relay.sessions() for auth in one.auths] == ["XOAUTH2"]
    assert relay.messages() == []
    relay.change(mechanisms=MECHANISMS)
    assert authorize(host, NEXT) == ""
    assert send(host) == OK
    assert relay.wait_for_message().auth_user == USER.encode()


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_no_token_leaves_without_the_tls_that_was_asked_for(host: Tree, relay: Relay, security: str) -> None:
    applied(host, security=security, port=25, timeout=5)  # a port without TLS: STARTTLS is stripped
    authorize(host, TOKEN)
    assert send(host) != OK
    assert [auth for one in relay.sessions() for auth in one.auths] == []
    assert relay.messages() == []


def test_a_proof_without_a_token_ends_at_tls_and_says_what_to_do(host: Tree, relay: Relay) -> None:
    result = applied(host, verify="auth", test_send={"to": ["you@example.org"]})
    told = result["verification"]
    assert (told["level"], told["reached"], told["ok"]) == ("auth", "tls", False)
    assert "smtp_oauth_token" in told["next_step"]
    assert told["next_step"] in result["test_send"]["skipped"]
    assert any(told["next_step"] in warning for warning in result["warnings"])
    assert [auth for one in relay.sessions() for auth in one.auths] == []
    refused = core.enforce(host, {**SERVICE, "host": "nowhere.example.test", "verify": "auth"})
    assert refused["failed"]  # what can be proved without a token still has to hold
    assert refused["rolled_back"]


def test_who_may_read_the_token_may_send(host: Tree, relay: Relay) -> None:
    result = applied(host)
    authorize(host, TOKEN)
    assert any("access token" in warning and "'0644'" in warning for warning in result["warnings"])
    assert send(host, user="user") == CONFIG
    host.run(["usermod", "-aG", "msmtp", "user"])
    assert send(host, user="user") == OK
    host.run(["gpasswd", "-d", "user", "msmtp"])
    # a setgid msmtp does not help: its helper has the rights of who called it
    host.run(["sh", "-c", "chgrp msmtp /usr/bin/msmtp && chmod g+s /usr/bin/msmtp"])
    try:
        assert send(host, user="user") == CONFIG
    finally:
        host.run(["sh", "-c", "chmod g-s /usr/bin/msmtp && chgrp root /usr/bin/msmtp"])
    applied(host, backend_options={"mode": "0644"})
    assert send(host, user="user") == OK
    assert len(relay.messages()) == 2


def test_drift_of_what_belongs_to_the_token(host: Tree, relay: Relay) -> None:
    applied(host)
    authorize(host, TOKEN)
    edits = {
        f"sed -i 's/^user .*/user me/' {MAIN}; chmod 0644 {TOKEN_FILE}": {"username", f"mode of {TOKEN_FILE}"},
        f"sed -i 's/^auth .*/auth on/' {MAIN}; sed -i s/fleet-client/x/ {REGISTRATION}": {"auth_type", "client_id"},
        f"sed -i s/xoauth2/oauthbearer/ {MAIN}": {f"content of {MAIN}"},
        f"sed -i 's,^passwordeval.*,passwordeval true,' {MAIN}": {f"content of {MAIN}"},
        f"rm {TOKEN_FILE}; chmod 0644 {REGISTRATION}": {f"presence of {TOKEN_FILE}", f"mode of {REGISTRATION}"},
        f"echo old > {TOKEN_FILE}; chown user {TOKEN_FILE}": {f"content of {TOKEN_FILE}", f"owner of {TOKEN_FILE}"},
    }
    for edit, fields in edits.items():
        host.run(["sh", "-c", edit])
        assert fields <= set(drift(host)), edit
        applied(host)
    assert drift(host) == {}
    assert host.read(TOKEN_FILE) == TOKEN.encode() + b"\n"


def test_from_password_to_oauth_and_back_while_mail_is_sent(host: Tree, relay: Relay) -> None:
    applied(host)
    authorize(host, TOKEN)
    core_login = {**RELAY, **LOGIN}
    assert "failed" not in core.enforce(host, core_login)
    assert not host.exists(TOKEN_FILE)
    stop, codes = threading.Event(), []

    def sending() -> None:
        while not stop.is_set():
            codes.append(send(host))

    thread = threading.Thread(target=sending, daemon=True)
    thread.start()
    try:
        for _turn in range(2):
            applied(host, verify="auth")
            assert "failed" not in core.enforce(host, core_login)
    finally:
        stop.set()
        thread.join(60)
    assert set(codes) == {OK}
    assert len(relay.messages()) == len(codes) > 3
    assert {auth.mechanism for one in relay.sessions() for auth in one.auths} == {"PLAIN", "XOAUTH2"}


def test_a_service_with_a_token_beside_one_with_a_password(host: Tree, relay: Relay) -> None:
    applied(host, name="invoices", senders=["bill@example.test"])
    assert "failed" not in core.enforce(host, {**RELAY, **LOGIN})
    assert authorize(host, TOKEN, name="invoices") == ""
    assert drift(host, name="invoices", senders=["bill@example.test"]) == {}
    assert not core.enforce(host, {**RELAY, **LOGIN}, check=True)["changed"]
    for sender, user in (("bill@example.test", USER), ("root@example.test", "fleet")):
        host.run(["sendmail", "-i", "-f", sender, "--", "r@example.org"], MAIL)
        assert relay.messages()[-1].auth_user == user.encode()
    assert PASSWORD.encode() not in host.read(MAIN).split(b"account invoices", 1)[1].split(b"END", 1)[0]


def test_absent_leaves_the_grant_and_nothing_else(host: Tree, relay: Relay) -> None:
    host.write(MAIN, "account default\nhost mine.example\n", mode=0o640)
    applied(host)
    authorize(host, TOKEN)
    result = applied(host, state="absent")
    assert any("grant of default stays" in warning for warning in result["warnings"])
    assert host.read(MAIN) == b"account default\nhost mine.example\n"
    left = host.output(["find", "/var/lib/fleetmail", "-type", "f"]).split()
    assert sorted(left) == [
        "/var/lib/fleetmail/oauth/default/registration.json",
        "/var/lib/fleetmail/oauth/default/token.json",
    ]
    assert not applied(host, state="absent")["changed"]


def test_an_image_gets_the_same_files(host: Tree, relay: Relay) -> None:
    applied(host)
    authorize(host, TOKEN)
    live = {path: host.read(path) for path in (MAIN, TOKEN_FILE, REGISTRATION)}
    host.run(
        [
            "sh",
            "-c",
            "rm -rf /srv/image; mkdir -p /srv/image/etc/ssl /srv/image/var/lib/fleetmail; cd /srv/image;"
            f" cp /etc/passwd /etc/group etc; cp {CA_FILE} etc/ssl; cp -a /var/lib/fleetmail/oauth var/lib/fleetmail",
        ]
    )
    result = core.enforce(host, SERVICE, root="/srv/image")
    assert "failed" not in result, result["msg"]
    assert {path: host.read("/srv/image" + path) for path in live} == live
    assert not core.enforce(host, SERVICE, root="/srv/image", check=True)["changed"]


def test_no_token_in_any_command_line_log_or_answer(host: Tree, relay: Relay) -> None:
    cage = Cage([Canary("access token", TOKEN), Canary("next", NEXT), Canary("client", CLIENT_SECRET)])
    with Watch(host) as watch:
        results = [applied(host)]
        authorize(host, TOKEN)
        results.append(
            applied(host, verify="auth", test_send={"to": ["you@example.org"], "via": "mta", "when": "always"})
        )
        authorize(host, NEXT)  # the relay does not know it
        send(host)
        results.append(core.enforce(host, {**SERVICE, "verify": "auth"}))
        host.run(["chmod", "0644", TOKEN_FILE])
        results += [core.enforce(host, SERVICE, check=True), applied(host), applied(host, state="absent")]
    seen = [cage.search("result", repr(result).encode()) for result in results]
    seen += [cage.search("command", one.command) + cage.search("environment", one.environment) for one in watch.started]
    seen += [cage.search("log", host.log().encode())]
    assert not [sighting for sightings in seen for sighting in sightings]
    assert not [one for one in watch.written if one.mode & 0o007 and cage.search(one.path, one.content)]


@pytest.mark.parametrize("mechanism", ["xoauth2", "oauthbearer"])
def test_the_longest_token_that_is_accepted_can_be_sent(host: Tree, relay: Relay, mechanism: str) -> None:
    how = {"backend_options": {"auth": mechanism}}
    around = len(f"n,a={USER},\1host={RELAY_NAME}\1port=587\1auth=Bearer \1\1")
    applied(host, **how)
    token = "t" * (3057 - around)
    relay.change(tokens={USER: token})
    authorize(host, token)
    assert applied(host, **how, verify="auth")["verification"]["ok"]
    assert send(host) == OK
    authorize(host, "t" * (3200 - around))
    assert send(host) == DATAERR
    assert "too long" in core.enforce(host, {**SERVICE, **how})["msg"]
