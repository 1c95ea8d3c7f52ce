# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real Debian with a real Postfix for the tests of that backend, a relay beside it, and what they ask of both."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lab import core
from lab.authority import Authority
from lab.network import Network
from lab.relay import Behaviour, Relay, listeners
from lab.tree import RELAY6_ADDRESS, RELAY_ADDRESS, RELAY_NAME, Tree

CA_FILE = "/etc/ssl/relay-ca.pem"
PASSWORD = "c4nary-pä ss\"'\\#$`:;word"
LOGIN = {"auth_type": "password", "username": "fleet", "password": PASSWORD}
OWN = "fleet@hosts.example.test"  # what senders are rewritten to
MAIN, MASTER = "/etc/postfix/main.cf", "/etc/postfix/master.cf"
STATE = "/var/lib/fleetmail"
MAIL = "From: Somebody <{0}>\nTo: r@example.org\nSubject: t\n\nhello\n"
_PRISTINE = "/opt/postfix-pristine"
_RESET = f"""
postsuper -d ALL 2>/dev/null
rm -rf /etc/postfix {STATE} /usr/local/lib/fleetmail /var/spool/postfix/fleetmail /etc/sasl-xoauth2.conf
cp -a {_PRISTINE} /etc/postfix
kill -0 $(cat /var/spool/postfix/pid/master.pid) 2>/dev/null || service postfix start
"""

Snapshot = dict[str, tuple[Any, ...]]


class Machine:
    """The host and a relay in its network."""

    def __init__(self, tree: Tree, relay: Relay) -> None:
        self.tree, self.relay = tree, relay
        self.shell(f"cp -a /etc/postfix {_PRISTINE}")

    def reset(self) -> Machine:
        """As the package left it, with Postfix running and nothing queued, and a relay with its ordinary manners.

        What runs reads it with the next reload, which whatever is enforced then brings.
        """
        self.shell(_RESET)
        self.relay.behaviour = Behaviour()
        self.relay.change(users={"fleet": PASSWORD})
        self.relay.forget()
        return self

    def shell(self, command: str, check: bool = True) -> str:
        return self.tree.output(["sh", "-c", command], check=check)

    # -- the engine

    def enforce(self, options: dict[str, Any], check: bool = False) -> dict[str, Any]:
        """Enforce it; the task must succeed."""
        result = core.enforce(self.tree, options, check)
        assert "failed" not in result, result
        assert result["changed"] == bool(result["drift"])
        return result

    def drift(self, options: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
        """What check mode tells, and it changes nothing."""
        before = self.snapshot()
        result = self.enforce(options, check=True)
        assert self.snapshot() == before
        return {one["field"]: (one["before"], one["after"]) for one in result["drift"]}

    def failure(self, options: dict[str, Any]) -> dict[str, Any]:
        """The result of a task that must fail, change nothing and leave Postfix running as it did."""
        before, running = self.snapshot(), self.running()
        result = core.enforce(self.tree, options)
        assert result.get("failed"), result
        assert not result["changed"]
        assert self.snapshot() == before
        assert self.running() == running
        return result

    # -- what holds, as other programs than ours say

    def parameters(self, *names: str) -> dict[str, str]:
        return dict(zip(names, self.tree.output(["postconf", "-hx", *names]).split("\n"), strict=True))

    def running(self) -> bool:
        return self.tree.run(["postfix", "status"], check=False).returncode == 0

    def queue(self) -> list[dict[str, Any]]:
        """What waits (postqueue(1) -j): sender, recipients and why they wait."""
        return [json.loads(line) for line in self.tree.output(["postqueue", "-j"]).splitlines()]

    def snapshot(self) -> Snapshot:
        """All of what could be ours, down to the times; of the state directory what is in it."""
        found: Snapshot = {}
        for folder in ("etc/postfix", STATE[1:] + "/smtp"):
            for place, folders, files in os.walk(self.tree.path / folder):
                for name in folders + files:
                    path = os.path.join(place, name)
                    found[path] = _facts(path)
        return found

    # -- mail

    def send(self, sender: str = "app@elsewhere.example", *recipients: str, user: str | None = None) -> None:
        """Hand a mail to sendmail, as programs do."""
        to = recipients or ("r@example.org",)
        self.tree.run(["sendmail", "-i", "-f", sender, "--", *to], MAIL.format(sender).encode(), user=user)

    def wait(self, condition: Callable[[], Any], timeout: float = 15) -> Any:
        """Wait until it holds; gives what it gave. Raises TimeoutError with the mail log's end."""
        end = time.monotonic() + timeout
        while not (found := condition()):
            if time.monotonic() > end:
                raise TimeoutError(self.tree.log()[-2000:])
            time.sleep(0.05)
        return found

    def refused(self, why: str) -> str:
        """Send a mail that must stay in the queue, its reason having ``why`` in it; gives the reason."""
        self.send()

        def reason() -> str:
            waiting = [to for mail in self.queue() for to in mail["recipients"]]
            return next((to["delay_reason"] for to in waiting if why in to.get("delay_reason", "")), "")

        return str(self.wait(reason))


def _facts(path: str) -> tuple[Any, ...]:
    found = os.lstat(path)
    facts = (oct(found.st_mode), found.st_uid, found.st_gid)
    if os.path.islink(path):
        return (*facts, os.readlink(path))
    if os.path.isdir(path):
        return facts
    with open(path, "rb") as file:
        return (*facts, found.st_mtime_ns, hashlib.sha256(file.read()).hexdigest())


@contextmanager
def machine(
    authority: Authority, addresses: Sequence[str] = (), role: str = "postfix", **tree: Any
) -> Iterator[Machine]:
    """A host with Postfix, started, beside the relay with its three ports; more addresses are for other relays."""
    relay = Relay(listeners(authority.good(RELAY_NAME)), users={"fleet": PASSWORD})
    with (
        Network((RELAY_ADDRESS, RELAY6_ADDRESS, *addresses)) as network,
        Tree(role, network=network, **tree) as host,
        relay.start(in_net_of=host),
    ):
        host.write(CA_FILE, authority.ca_file.read_bytes())
        made = Machine(host, relay)
        host.start("postfix")
        yield made


def form(security: str = "starttls", **more: Any) -> dict[str, Any]:
    """A module's options for the relay."""
    service = {"host": RELAY_NAME, "security": security, "ca_file": CA_FILE, **more}
    if security == "none":
        service["allow_cleartext_auth"] = True
    return service
