# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""SIGKILL at every write, rename and command of an apply: the host is old or new, and the next run converges.

The test command takes a sample of the points; ``make crash`` takes every one of them.
"""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest
from integration.oauth_machine import CLIENT_SECRET, MECHANISMS, OAUTH, USER, authorize
from lab.authority import Authority
from lab.core import Killed, enforce, enforce_until, points
from lab.layers import why_unavailable
from lab.relay import Relay, listeners
from lab.tree import RELAY_NAME, Tree

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "the lab is there")

CA = "/etc/ssl/relay-ca.pem"
TOKEN = "gamma-token"
SECRETS = ("alpha secret", "beta secret", TOKEN, CLIENT_SECRET)
STATES: tuple[dict[str, Any], ...] = (
    {"host": RELAY_NAME, "security": "starttls", "username": "alpha", "password": SECRETS[0]},
    {"host": f"other.{RELAY_NAME}", "security": "tls", "username": "beta", "password": SECRETS[1]},
)
SAMPLE = 8  # points a backend in the test command
TOKEN_BACKENDS = ("exim", "msmtp", "postfix")


@dataclass(frozen=True)
class Judge:
    """What another program than ours says of how mail leaves, and how to make the queue move."""

    role: str
    service: str
    effective: tuple[str, ...]
    flush: tuple[str, ...] = ()
    bounced: str = "status=bounced"


# through a pipe nothing depends on what the client would do; slots a and b mean the same
_POSTFIX = """
way=$(postconf -h default_transport)
case $way in
fleetmail-*)
    agent=$(postconf -M "${way%%:*}/unix")
    config=$(echo "$agent" | grep -o '/etc/postfix/[^ ]*msmtprc')
    echo "$way"; echo "$agent"
    msmtp -C "$config" -a default --passwordeval= --pretend -f a@b x@y </dev/null | grep ' = '
    cat /usr/local/lib/fleetmail/postfix-msmtp | md5sum ;;
*)
    postconf -h relayhost smtp_tls_security_level smtp_tls_wrappermode smtp_sasl_auth_enable smtp_sasl_mechanism_filter
    postmap -q "$(postconf -h relayhost)" "$(postconf -h smtp_sasl_password_maps)" ;;
esac 2>&1 | sed 's/default[.][ab]/default.x/g'
postconf -h sender_canonical_maps
"""
JUDGES = {
    "postfix": Judge(
        "postfix-msmtp",
        "postfix",
        (_POSTFIX,),
        ("postqueue", "-f"),
    ),
    "exim": Judge(
        "exim",
        "exim",
        (
            "exim4 -bP transport remote_smtp_smarthost | grep -E 'hosts_require_tls|protocol|tls_verify'",
            "exim4 -bP router smarthost | grep route_list",
            "exim4 -bP authenticator fleetmail_oauth | grep client_send",
        ),
        ("exim4", "-qff"),
        "** ",
    ),
    "msmtp": Judge(
        "msmtp", "", ("msmtp --pretend a@b.test </dev/null | grep -v password", "cat /etc/msmtprc | md5sum")
    ),
}


def order(backend: str, number: int) -> dict[str, Any]:
    return {
        "backend": backend,
        "auth_type": "password",
        "ca_file": CA,
        "from_address": "fleet@example.test",
        **STATES[number],
    }


def with_token(backend: str) -> dict[str, Any]:
    """The first one's relay, by an access token."""
    return {**order(backend, 0), "password": None, **OAUTH}


@contextmanager
def host_of(backend: str, authority: Authority) -> Iterator[tuple[Tree, Relay]]:
    """A host with that backend and a relay that knows both credentials and takes nothing without one."""
    judge = JUDGES[backend]
    relay = Relay(
        listeners(authority.good(RELAY_NAME, f"other.{RELAY_NAME}")),
        users={"alpha": SECRETS[0], "beta": SECRETS[1]},
        tokens={USER: TOKEN},
        mechanisms=MECHANISMS,
        auth_required=True,
    )
    with Tree(judge.role, names={f"other.{RELAY_NAME}": "10.77.0.25"}) as host, relay.start(in_net_of=host):
        host.write(CA, authority.ca_file.read_bytes())
        if judge.service:
            host.start(judge.service)
        yield host, relay


def effective(host: Tree, judge: Judge) -> str:
    said = [host.run(["sh", "-c", command], check=False) for command in judge.effective]
    return "\n".join(one.stdout.decode() for one in said)


def wide_secrets(host: Tree) -> list[str]:
    """Files that hold a secret and that others can read."""
    wide = []
    for folder in ("etc", "var/lib", "tmp"):
        for path, _folders, names in os.walk(host.path / folder):
            for name in names:
                with suppress(OSError):
                    file = os.path.join(path, name)
                    found = os.lstat(file)
                    if stat.S_ISREG(found.st_mode) and found.st_mode & 0o007 and _holds_secret(file):
                        wide.append(file)
    return wide


def _holds_secret(file: str) -> bool:
    with open(file, "rb") as content:
        data = content.read(1 << 20)
    return any(secret.encode() in data for secret in SECRETS)


def leftovers(host: Tree) -> list[str]:
    hidden = [path for folder in ("etc", "var/lib/fleetmail") for path in host.path.glob(f"{folder}/**/.*fleetmail-*")]
    kept = [path for path in host.path.glob("var/lib/fleetmail/smtp/*") if path.name != "originals"]
    return [str(path) for path in hidden + kept]


def submit(host: Tree, number: int) -> None:
    mail = f"From: root\nTo: you@example.test\nSubject: number {number}\n\nA mail that must not be lost.\n"
    host.run(["sendmail", "-i", "you@example.test"], mail.encode(), check=False)


def crash(host: Tree, backend: str, wanted: Mapping[str, Any], point: int, states: set[str]) -> None:
    """One point: kill, look, send a mail, run again."""
    judge = JUDGES[backend]
    with suppress(Killed):
        enforce_until(host, wanted, point)
    assert effective(host, judge) in states, f"point {point}: neither the old nor the new state"
    assert not wide_secrets(host), f"point {point}"
    if judge.flush:
        submit(host, point)
        host.run(list(judge.flush), check=False)
    again = enforce(host, wanted)
    assert "failed" not in again, f"point {point}: {again.get('msg')}"
    assert not enforce(host, wanted, check=True)["changed"], f"point {point}"
    assert not leftovers(host), f"point {point}"


def run_points(backend: str, authority: Authority, sample: int, token: bool = False) -> int:
    """From the first order to the second and back, killed at each of the points; ``token``: the second has one."""
    judge = JUDGES[backend]
    with host_of(backend, authority) as (host, relay):
        orders = [order(backend, 0), with_token(backend) if token else order(backend, 1)]
        fresh = effective(host, judge)
        if token:
            assert "failed" not in enforce(host, orders[1])
            assert authorize(host, TOKEN) == ""
        assert "failed" not in enforce(host, orders[0])
        first = effective(host, judge)
        count = len(points(host, orders[1]))
        second = effective(host, judge)
        assert len({fresh, first, second}) == 3, "the judge cannot tell the states apart"
        chosen = range(1, count + 1)
        if sample:
            seed = int(os.environ.get("FLEETMAIL_CRASH_SEED", "20261123"))
            chosen = sorted(random.Random(seed).sample(chosen, min(sample, count)))
        for turn, point in enumerate(chosen):
            crash(host, backend, orders[turn % 2], point, {first, second})
        sent = len(chosen) if judge.flush else 0
        if sent:
            await_all(host, relay, judge, sent)
            assert judge.bounced not in host.log()
        return len(chosen)


def await_all(host: Tree, relay: Relay, judge: Judge, sent: int) -> None:
    """Every mail that was submitted arrives; what a kill made wait goes with a later run of the queue."""
    for _attempt in range(15):
        host.run(list(judge.flush), check=False)
        with suppress(TimeoutError):
            relay.wait_for(lambda: len(relay.messages()) >= sent, timeout=4)
            return
    pytest.fail(f"{sent - len(relay.messages())} mails did not arrive:\n{host.log()[-5000:]}")


def first_time(backend: str, authority: Authority, sample: int) -> int:
    """The same for a host's very first apply, each on a fresh host."""
    judge = JUDGES[backend]
    with host_of(backend, authority) as (host, _relay):
        fresh = effective(host, judge)
        count = len(points(host, order(backend, 0)))
        states = {fresh, effective(host, judge)}
    chosen = random.Random(1).sample(range(1, count + 1), min(sample, count)) if sample else range(1, count + 1)
    for point in chosen:
        with host_of(backend, authority) as (host, _relay):
            crash(host, backend, order(backend, 0), point, states)
    return len(chosen)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.mark.parametrize("backend", JUDGES)
def test_a_killed_change_leaves_old_or_new(backend: str, authority: Authority) -> None:
    assert run_points(backend, authority, SAMPLE)


@pytest.mark.parametrize("backend", JUDGES)
def test_a_killed_first_apply_leaves_old_or_new(backend: str, authority: Authority) -> None:
    assert first_time(backend, authority, 2)


@pytest.mark.parametrize("backend", TOKEN_BACKENDS)
def test_a_killed_change_between_password_and_token_leaves_old_or_new(backend: str, authority: Authority) -> None:
    assert run_points(backend, authority, SAMPLE // 2, token=True)


@pytest.mark.crash_full
@pytest.mark.parametrize("backend", TOKEN_BACKENDS)
def test_every_point_between_password_and_token(backend: str, authority: Authority) -> None:
    print(f"{backend}: {run_points(backend, authority, 0, token=True)} points")


@pytest.mark.crash_full
@pytest.mark.parametrize("backend", JUDGES)
def test_every_point_of_a_change(backend: str, authority: Authority) -> None:
    print(f"{backend}: {run_points(backend, authority, 0)} points")


@pytest.mark.crash_full
@pytest.mark.parametrize("backend", JUDGES)
def test_every_point_of_a_first_apply(backend: str, authority: Authority) -> None:
    print(f"{backend}: {first_time(backend, authority, 0)} points")
