# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Six machines on their way from passwords to OAuth, a relay that takes both, and a real authorization server."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from lab.authority import Authority
from lab.control import ControlNode
from lab.machine import Machine
from lab.network import AUTH_ADDRESS, AUTH_NAME, Network
from lab.oauth_server import MICROSOFT_SCOPE, OAuthServer
from lab.playbook import Played
from lab.relay_oauth import OAUTH_RELAY_NAME, OAuthRelay

HUB = "hub.example.test"
MAILBOX = "fleet@example.test"
ONCALL = "oncall@example.test"
PASSWORD = "Oau2canaryPlQwZx58"
TRUSTED = "/etc/ssl/certs/ca-certificates.crt"
STATE = "/var/lib/fleetmail/oauth/default/token.json"
JOURNAL = "/var/lib/fleetmail/smtp/journal.json"
MACHINES = {
    "hub": ("fleet-postfix", "bookworm"),
    "leaf1": ("fleet-postfix", "trixie"),
    "leaf2": ("fleet-exim", "bookworm"),
    "mover1": ("fleet-postfix", "bookworm"),
    "mover2": ("fleet-exim", "trixie"),
    "plain": ("fleet-msmtp", "bookworm"),  # has no requests
}
QUEUEING = ("leaf1", "leaf2", "mover1", "mover2")
FORM: dict[str, Any] = {
    "relay_client_host": OAUTH_RELAY_NAME,
    "relay_client_security": "starttls",
    "relay_client_auth_type": "password",
    "relay_client_username": MAILBOX,
    "relay_client_password": PASSWORD,
    "relay_client_from_address": MAILBOX,
    "relay_client_verify": "auth",
}
LEAF = {"relay_client_host": HUB, "relay_client_auth_type": "none", "relay_client_verify": "none"}
_EMPTY: dict[str, Any] = dict.fromkeys(("username", "password", "from_address"), "")


@dataclass
class Site:
    """The machines by name, what they talk to, the control node, and the subjects of all mail that was handed in."""

    machines: dict[str, Machine]
    server: OAuthServer
    relay: OAuthRelay
    control: ControlNode
    handed_in: set[str] = field(default_factory=set)

    def play(self, name: str, *arguments: str, **variables: Any) -> Played:
        """Run a playbook, by its name in the collection or its path; no secret is in what it prints."""
        book = name if name.endswith(".yml") else f"fleetmail.smtp.{name}"
        played = self.control.play((), *arguments, book=book, **variables)
        for secret in (PASSWORD, self.server.confidential.client_secret):
            if secret in played.out + played.err:
                print("LEAK", played.out[-9000:], played.err[-2000:])
        return played

    def variables(self, name: str, **given: Any) -> None:
        """What the inventory says of a host."""
        path = self.control.folder / f"input/host_vars/{name}.yml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(given))

    @property
    def client(self) -> dict[str, Any]:
        """What a host needs to ask for tokens."""
        client, server = self.server.confidential, self.server
        urls = {"authorization_url": server.authorization_url, "token_url": server.token_url}
        scope = f"{MICROSOFT_SCOPE} offline_access"
        return {"client_id": client.client_id, "client_secret": client.client_secret, "scope": scope, **urls}

    # -- mail

    def send(self, subject: str, *names: str) -> None:
        """An application on each host sends a mail, as applications do."""
        for name in names:
            assert self.sendmail(name, f"{subject} of {name}") == 0
            self.handed_in.add(f"{subject} of {name}")

    def sendmail(self, name: str, subject: str) -> int:
        """Sends a mail; gives the exit status of sendmail."""
        mail = f"From: app@{name}.example.test\nTo: you@example.org\nSubject: {subject}\n\nhello\n"
        return self.machines[name].run(["sendmail", "you@example.org"], mail.encode(), check=False).returncode

    def flush(self, *names: str) -> None:
        """Somebody does not want to wait until the software tries again by itself, which takes minutes."""
        for name in names:
            self.machines[name].run(["exim4", "-qff"] if "exim" in self.machines[name].role else ["postqueue", "-f"])

    def subjects(self) -> set[str]:
        """Of the mail that arrived, all of it over TLS, by a login, from the mailbox."""
        found = set()
        for mail in self.relay.messages():
            assert mail.tls
            assert (mail.sender, mail.auth_user) == (MAILBOX, MAILBOX.encode())
            subject = re.search(rb"^Subject: (.*)$", mail.data, re.M)
            found.add(subject[1].decode() if subject else "")
        return found

    def all_arrived(self, timeout: float = 60) -> None:
        """Wait until every mail that was handed in is there. Raises TimeoutError with those that are not."""
        wait_for(lambda: self.handed_in <= self.subjects(), timeout, lambda: str(self.handed_in - self.subjects()))

    def hands_in(self, source: str) -> tuple[bool, str]:
        """Does the hub take a mail from there? And all that was said."""
        command = ["swaks", "--server", self.machines["hub"].address, "--port", "587", "--tls", "--timeout", "10"]
        whose = ["--from", f"app@{source}.example.test", "--to", "you@example.org"]
        entered = self.machines[source].net_command([*command, *whose])
        done = subprocess.run(entered, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode == 0, done.stdout + done.stderr

    # -- tokens

    def let_pass(self, name: str, seconds: int) -> None:
        """All that the host has written down of its token is so much older, and no access token lives any more."""
        record = json.loads(self.machines[name].read(STATE))
        self.machines[name].write(STATE, json.dumps(_older(record, seconds)), mode=0o600)
        self.server.expire("access_token")

    def status(self, name: str) -> dict[str, Any]:
        """What the keeper on a host says of its token."""
        said = self.machines[name].output(["fleetmail-keeper", "status", "--json"], check=False)
        view: dict[str, Any] = json.loads(said)["tokens"][0]
        return view


def _older(value: Any, seconds: int) -> Any:
    """With every time in it (a number of seconds since the epoch) set back."""
    if isinstance(value, dict):
        return {key: _older(one, seconds) for key, one in value.items()}
    if isinstance(value, list):
        return [_older(one, seconds) for one in value]
    return value - seconds if isinstance(value, int) and value > 1_000_000_000 else value


def wait_for(condition: Callable[[], bool], timeout: float, missing: Callable[[], str], pause: float = 0.1) -> None:
    """Wait until the condition holds. Raises TimeoutError with what is missing."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(missing())
        time.sleep(pause)


@contextmanager
def meanwhile(condition: Callable[[], bool], deed: Callable[[], None]) -> Iterator[None]:
    """Beside the block: as soon as the condition holds, do it. Raises AssertionError when it was never done."""
    done, over = threading.Event(), threading.Event()

    def watch() -> None:
        while not over.is_set():
            if condition():
                deed()
                done.set()
                return
            time.sleep(0.005)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert done.is_set(), "what the deed waited for did not happen"


@contextmanager
def running(folder: Path) -> Iterator[Site]:
    """Boot all of it, on a network of its own."""
    authority = Authority(folder / "authority")
    server = OAuthServer(
        host=AUTH_ADDRESS, name=AUTH_NAME, port=443, certificate=authority.good(AUTH_NAME), ca_file=authority.ca_file
    )
    with ExitStack() as stack:
        network = stack.enter_context(Network())
        machines = {name: Machine(role, suite, name=name, network=network) for name, (role, suite) in MACHINES.items()}
        for machine in machines.values():
            machine.begin_host()
            stack.callback(machine.kill)
        stack.enter_context(server.start(in_net_of=network))
        for machine in machines.values():
            machine.wait_until_booted()
        relay = OAuthRelay(authority.good(OAUTH_RELAY_NAME), network, server, authority.ca_file, {MAILBOX: PASSWORD})
        stack.enter_context(relay)
        for machine in machines.values():
            machine.write(TRUSTED, machine.read(TRUSTED) + authority.ca_file.read_bytes())
        machines["plain"].run(["dpkg", "--remove", "--force-depends", "python3-requests"])
        control = ControlNode(folder / "control", network, list(machines.values()))
        stack.callback(control.close)
        site = Site(machines, server, relay, control)
        _write_inventory(site, authority)
        yield site


def _write_inventory(site: Site, authority: Authority) -> None:
    group = site.control.folder / "input/group_vars/all.yml"
    group.parent.mkdir(parents=True)
    group.write_text(yaml.safe_dump(FORM))
    for name in ("leaf1", "leaf2"):
        site.variables(name, **LEAF, **{f"relay_client_{key}": "" for key in _EMPTY})
    for name in ("mover1", "mover2", "plain"):
        site.variables(name, authorize_tokens=[{"name": "default", "username": MAILBOX, **site.client}])
    own = authority.good(HUB)
    (site.control.folder / "input/hub.pem").write_bytes(own.chain.read_bytes())
    (site.control.folder / "input/hub.key").write_bytes(own.key.read_bytes())
    site.variables(
        "hub",
        relay_hub_service={"host": OAUTH_RELAY_NAME, "username": MAILBOX, "from_address": MAILBOX, **site.client},
        relay_hub_networks=[site.machines[name].address for name in ("leaf1", "leaf2")],
        relay_hub_certificate="/etc/ssl/hub.pem",
        relay_hub_certificate_key="/etc/ssl/private/hub.key",
        token_keeper_interval=1,
        token_keeper_random_delay=0,
    )
