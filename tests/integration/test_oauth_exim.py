# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real Exim with access tokens, in both layouts: what leaves, what waits, and that nothing of it bounces."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from integration.exim_machine import CREDENTIALS, LAYOUTS, LOGIN, PASSWORD, TEMPLATE, Machine, form
from integration.exim_machine import machine as exim_machine
from integration.oauth_machine import CLIENT_SECRET, MECHANISMS, OAUTH, REGISTRATION, USER, authorize
from lab.authority import Authority
from lab.canary import Cage, Canary
from lab.layers import why_unavailable
from lab.watch import Watch

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "the lab is there")

TOKEN, NEXT = "ya29.Tokenvogel3X5q_Bachstelze7L2f==", "ya29.Neutoken8P4r^Gebirgsstelze2K6m=="
TOKEN_FILE = "/var/lib/fleetmail/tokens/default.exim"
AUTHENTICATOR = "/etc/exim4/conf.d/auth/20_fleetmail"
SERVICE = form(**OAUTH)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module", params=LAYOUTS)
def running(request: pytest.FixtureRequest, authority: Authority) -> Iterator[Machine]:
    with exim_machine(authority, request.param) as one:
        yield one


@pytest.fixture
def machine(running: Machine) -> Machine:
    """As it was installed, with a relay that takes mail with a good token or password only."""
    return _reset(running)


@pytest.fixture(scope="module")
def running_split(authority: Authority) -> Iterator[Machine]:
    with exim_machine(authority, "split") as one:
        yield one


@pytest.fixture
def split(running_split: Machine) -> Machine:
    """The same in the layout that the tests take where both do the same."""
    return _reset(running_split)


def _reset(one: Machine) -> Machine:
    one.reset()
    one.relay.change(tokens={USER: TOKEN}, mechanisms=MECHANISMS, auth_required=True)
    return one


def prepared(machine: Machine, token: str = "", **options: Any) -> dict[str, Any]:
    """The service, with that token in the store."""
    result = machine.applied({**SERVICE, **options})
    if token:
        assert authorize(machine.tree, token) == ""
    return result


def attempts(machine: Machine) -> list[tuple[str, bytes]]:
    """How clients tried to log in."""
    return [(auth.mechanism, auth.user) for session in machine.relay.sessions() for auth in session.auths]


def assert_nothing_bounced(machine: Machine) -> None:
    assert " ** " not in machine.tree.log()
    assert machine.shell("cat /var/log/exim4/paniclog 2>/dev/null", check=False) == ""


@pytest.mark.parametrize(
    ("security", "mechanism", "user"),
    [("starttls", "xoauth2", USER), ("tls", "oauthbearer", "<,=#\"'%@\u00e4.example,")],
)
def test_check_real_check_real_and_exim_agrees(machine: Machine, security: str, mechanism: str, user: str) -> None:
    options = {**form(security, **OAUTH), "username": user, "backend_options": {"oauth_mechanism": mechanism}}
    machine.relay.change(tokens={user: TOKEN})
    assert machine.drift(options)["client_id"] == (None, "fleet-client")
    machine.applied(options)
    authorize(machine.tree, TOKEN, user=user)
    assert machine.drift(options) == {}
    mail = {"to": ["you@example.org"], "when": "always", "via": "mta"}
    result = machine.applied({**options, "verify": "auth", "test_send": mail})
    assert not result["changed"]
    assert result["verification"]["reached"] == "auth"
    assert result["test_send"]["sent"]
    said = machine.exim("authenticator", "fleetmail_oauth")
    assert said["public_name"] == mechanism.upper()
    assert TOKEN_FILE in said["client_send"]
    assert machine.exim("transport", "remote_smtp_smarthost")["hosts_require_auth"] == "*"
    assert machine.relay.wait_for_message().auth_user == user.encode()
    assert machine.relay.messages()[0].tls
    assert attempts(machine) == [(mechanism.upper(), user.encode())] * 2  # the probe's and Exim's


def empty(machine: Machine) -> None:
    machine.shell(f": > {TOKEN_FILE}")


def unreadable(machine: Machine) -> None:
    machine.shell(f"chmod 0600 {TOKEN_FILE}")


def rejected(machine: Machine) -> None:
    machine.relay.change(tokens={USER: "another"})


def missing(machine: Machine) -> None:
    machine.shell(f"rm -f {TOKEN_FILE}")


def no_mechanism(machine: Machine) -> None:
    machine.relay.change(mechanisms=["PLAIN", "LOGIN"])


def test_without_a_good_token_mail_waits_and_goes_with_one(machine: Machine) -> None:
    machine.shell(f"echo '*:fleet:wrong' >> {CREDENTIALS}")  # somebody's own line, which must stay out of it
    prepared(machine)
    for number, lacking in enumerate((missing, empty, unreadable, rejected, no_mechanism)):
        lacking(machine)
        machine.relay.forget()
        machine.send()
        assert machine.queue() == 1, lacking
        assert {mechanism for mechanism, _user in attempts(machine)} <= {"XOAUTH2"}, lacking
        assert machine.relay.messages() == [], lacking
        token = f"{TOKEN}{number}"
        machine.relay.change(tokens={USER: token}, mechanisms=MECHANISMS)
        assert authorize(machine.tree, token) == ""  # wakes Exim
        machine.wait_for_empty_queue()
        assert machine.relay.wait_for_message().auth_user == USER.encode()
    assert_nothing_bounced(machine)
    assert TOKEN not in machine.tree.log()


def test_a_proof_without_a_token_ends_at_tls_and_says_what_to_do(split: Machine) -> None:
    mail = {"to": ["you@example.org"], "via": "mta"}
    result = split.applied({**SERVICE, "verify": "recipient", "verify_recipient": "you@example.org", "test_send": mail})
    told = result["verification"]
    assert (told["level"], told["reached"], told["ok"]) == ("recipient", "tls", False)
    assert "smtp_oauth_token" in told["next_step"]
    assert not result["test_send"]["sent"]
    assert told["next_step"] in result["test_send"]["skipped"]
    assert any(told["next_step"] in warning for warning in result["warnings"])
    assert attempts(split) == []
    assert split.queue() == 0
    authorize(split.tree, TOKEN, seconds=60, ago=3600)
    expired = split.applied({**SERVICE, "verify": "auth", "test_send": {**mail, "when": "always"}})
    assert not expired["changed"]
    assert expired["verification"]["reached"] == "tls"
    assert "keeper" in expired["verification"]["next_step"]


def test_a_relay_that_does_not_know_the_token_fails_and_everything_is_put_back(split: Machine) -> None:
    prepared(split, TOKEN)
    before = split.snapshot()
    split.relay.change(tokens={USER: "another"})
    result = split.enforced({**SERVICE, "from_address": "fleet@example.test", "verify": "auth"})
    assert result["failed"]
    assert result["rolled_back"]
    assert "535" in result["msg"]
    assert split.snapshot() == before


def test_drift_of_what_belongs_to_the_token(machine: Machine) -> None:
    prepared(machine, TOKEN)
    place = AUTHENTICATOR if machine.layout == "split" else TEMPLATE
    edits = {
        f"sed -i s/user=fleet@/user=root@/ {place}; update-exim4.conf; chmod 0644 {TOKEN_FILE}": {
            "username",
            f"mode of {TOKEN_FILE}",
        },
        f"sed -i s/default.exim/other/ {place}; update-exim4.conf; sed -i s/fleet-client/x/ {REGISTRATION}": {
            "auth_type",
            "client_id",
        },
        f"rm {TOKEN_FILE}; echo '*:me:mine' >> {CREDENTIALS}": {
            f"presence of {TOKEN_FILE}",
            f"content of {CREDENTIALS}",
        },
    }
    for edit, fields in edits.items():
        machine.shell(edit)
        assert fields <= set(machine.drift(SERVICE)), edit
        machine.applied(SERVICE)
        assert machine.drift(SERVICE) == {}, edit
    assert machine.tree.read(TOKEN_FILE) == f"access_token={TOKEN}\n".encode()


def test_from_password_to_oauth_and_back_while_mail_is_sent(split: Machine) -> None:
    prepared(split, TOKEN)
    split.applied(form(**LOGIN))
    stop, sent = threading.Event(), []

    def sending() -> None:
        while not stop.is_set():
            split.send()
            sent.append(1)

    thread = threading.Thread(target=sending, daemon=True)
    thread.start()
    try:
        for _turn in range(2):
            split.applied({**SERVICE, "verify": "auth"})
            split.applied(form(**LOGIN, verify="auth"))
    finally:
        stop.set()
        thread.join(60)
    split.shell("exim4 -qff")
    split.wait_for_empty_queue()
    assert len(split.relay.messages()) == len(sent) > 3
    assert_nothing_bounced(split)
    assert {(auth.mechanism, auth.accepted) for one in split.relay.sessions() for auth in one.auths} <= {
        ("PLAIN", True),
        ("XOAUTH2", True),
    }


def test_disabled_holds_mail_and_absent_gives_everything_back_but_the_grant(machine: Machine) -> None:
    before = machine.snapshot()
    prepared(machine, TOKEN)
    machine.applied({**SERVICE, "enabled": False})
    machine.send()
    assert machine.queue() == 1
    assert attempts(machine) == []
    machine.applied(SERVICE)
    machine.wait_for_empty_queue()
    assert machine.relay.wait_for_message().auth_user == USER.encode()
    result = machine.applied({**SERVICE, "state": "absent"})
    assert any("grant of default stays" in warning for warning in result["warnings"])
    after = {path: held for path, held in machine.snapshot().items() if "fleetmail/oauth" not in path}
    assert {path for path in after if path not in before} <= {"var/lib/fleetmail/smtp", "var/lib/fleetmail/tokens"}
    assert {path: after[path] for path in before} == before
    assert not machine.tree.exists(TOKEN_FILE)


def test_no_token_in_any_command_line_log_or_answer(split: Machine) -> None:
    cage = Cage([Canary("access token", TOKEN), Canary("next", NEXT), Canary("client", CLIENT_SECRET)])
    with Watch(split.tree) as watch:
        results = [prepared(split, TOKEN), split.applied({**SERVICE, "verify": "auth"})]
        split.send()
        authorize(split.tree, NEXT)  # the relay does not know it
        split.send()
        results.append(split.enforced({**SERVICE, "verify": "auth"}))
        split.shell(f"chmod 0644 {TOKEN_FILE}")
        results += [split.enforced(SERVICE, check=True), split.applied(SERVICE)]
        results += [split.applied(form(**LOGIN)), split.applied({**SERVICE, "state": "absent"})]
    seen = [cage.search("result", repr(result).encode()) for result in results]
    seen += [cage.search("command", one.command) + cage.search("environment", one.environment) for one in watch.started]
    seen += [cage.search("exim -bP", split.shell("exim4 -bP config; exim4 -bP authenticators").encode())]
    seen += [cage.search("log", split.tree.log().encode())]
    assert not [sighting for sightings in seen for sighting in sightings]
    wide = [one for one in watch.written if one.mode & 0o007 and cage.search(one.path, one.content)]
    assert not wide
    assert PASSWORD not in split.tree.log()


@pytest.mark.parametrize(("length", "leaves"), [(0, True), (1, False)])
def test_the_longest_token_that_exim_can_send(split: Machine, length: int, leaves: bool) -> None:
    around = len(f"n,a={USER},\1host={SERVICE['host']}\1port=587\1auth=Bearer \1\1")
    token = "t" * (3069 - around + length)
    split.relay.change(tokens={USER: token})
    options = {**SERVICE, "backend_options": {"oauth_mechanism": "oauthbearer"}}
    prepared(split, token, backend_options={"oauth_mechanism": "oauthbearer"})
    split.send()
    assert split.queue() == (0 if leaves else 1)
    result = split.enforced(options)
    assert ("failed" in result) is not leaves
    if not leaves:
        assert "too long" in result["msg"]
