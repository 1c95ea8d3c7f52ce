# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Six machines on their way from passwords to OAuth, a relay that takes both, and a real authorization server."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from lab.authority import Authority
from lab.control import ControlNode
from lab.forms import relay_client
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
LEAVES = ("leaf1", "leaf2")
QUEUEING = (*LEAVES, "mover1", "mover2")
FORM = {
    **relay_client(PASSWORD, host=OAUTH_RELAY_NAME, username=MAILBOX, from_address=MAILBOX, ca_file=""),
    "ansible_python_interpreter": "/usr/bin/python3",
}
LEAF = {"relay_client_host": HUB, "relay_client_auth_type": "none", "relay_client_verify": "recipient"}
_NO_LOGIN = dict.fromkeys(("relay_client_username", "relay_client_password", "relay_client_from_address"), "")
_CONFIGURATION = (
    "find /etc/exim4 /etc/msmtprc -type f -exec sha256sum {} + 2> /dev/null | sort; exim4 -bP transports 2>&1"
)


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
            assert secret not in played.out + played.err
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

    def fates(self) -> dict[str, str]:
        """Each host's status in the last report."""
        found = json.loads((self.control.folder / "input/fleetmail-report/report.json").read_text())
        return {host["name"]: host["status"] for host in found["hosts"]}

    def configuration(self, name: str) -> str:
        """How a host without Postfix sends: its files, and what Exim makes of them."""
        return self.machines[name].output(["sh", "-c", _CONFIGURATION], check=False)

    # -- mail

    def send(self, subject: str, *names: str, arguments: Sequence[str] = ()) -> None:
        """An application on each host sends a mail, as applications do."""
        for name in names:
            assert self.sendmail(name, f"{subject} of {name}", arguments) == 0
            self.handed_in.add(f"{subject} of {name}")

    def sendmail(self, name: str, subject: str, arguments: Sequence[str] = ()) -> int:
        """Sends a mail; gives the exit status of sendmail."""
        mail = f"From: app@{name}.example.test\nTo: you@example.org\nSubject: {subject}\n\nhello\n"
        command = ["sendmail", *arguments, "you@example.org"]
        return self.machines[name].run(command, mail.encode(), check=False).returncode

    def queued(self, name: str) -> int:
        """How many mails wait on a host."""
        if self._has_exim(name):
            return int(self.machines[name].output(["exim4", "-bpc"]))
        return len(self.machines[name].output(["postqueue", "-j"]).splitlines())

    def flush(self, *names: str) -> None:
        """Somebody does not want to wait until the software tries again by itself, which takes minutes."""
        for name in names:
            self.machines[name].run(["exim4", "-qff"] if self._has_exim(name) else ["postqueue", "-f"])

    def _has_exim(self, name: str) -> bool:
        return self.machines[name].role == "fleet-exim"

    def proofs(self) -> int:
        """How many test mails of the playbooks arrived."""
        return len([mail for mail in self.relay.messages() if mail.recipients == [ONCALL]])

    def subjects(self) -> set[str]:
        """Of the mail that arrived, all of it over TLS, by a login, from the mailbox."""
        found = set()
        for mail in self.relay.messages():
            assert mail.tls
            assert (mail.sender, mail.auth_user) == (MAILBOX, MAILBOX.encode())
            subject = re.search(rb"^Subject: (.*)$", mail.data, re.M)
            found.add(subject[1].decode() if subject else "")
        return found

    def all_arrived(self, *names: str, timeout: float = 60) -> None:
        """Wait until every mail that was handed in (on those hosts) is there. Raises TimeoutError with what is not."""
        wanted = {subject for subject in self.handed_in if not names or subject.split()[-1] in names}
        wait_for(lambda: wanted <= self.subjects(), timeout, lambda: str(wanted - self.subjects()))

    def login(self, name: str) -> str:
        """How a host logged in to the relay for its last mail, as the relay tells it."""
        pattern = rf"client=\S*\[{re.escape(self.machines[name].address)}\], sasl_method=(\S+),"
        return re.findall(pattern, self.relay.log())[-1]

    def hands_in(self, source: str) -> tuple[bool, str]:
        """Does the hub take a mail from there? And all that was said."""
        command = ["swaks", "--server", self.machines["hub"].address, "--port", "587", "--tls", "--timeout", "10"]
        whose = ["--from", f"app@{source}.example.test", "--to", "you@example.org"]
        entered = self.machines[source].net_command([*command, *whose])
        done = subprocess.run(entered, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode == 0, done.stdout + done.stderr

    # -- tokens

    def let_pass(self, name: str, seconds: int) -> None:
        """All that the host has written down of its token is so much older, and its access token lives no more."""
        record = json.loads(self.machines[name].read(STATE))
        self.machines[name].write(STATE, json.dumps(_older(record, seconds)), mode=0o600)
        self.server.expire(value=record["access"]["token"])

    def status(self, name: str) -> dict[str, Any]:
        """What the keeper on a host says of its token."""
        said = self.machines[name].output(["fleetmail-keeper", "status", "--json"], check=False)
        view: dict[str, Any] = json.loads(said)["tokens"][0]
        return view

    def refresh_token(self, name: str) -> str:
        """The one that a host holds."""
        return str(json.loads(self.machines[name].read(STATE))["grant"]["refresh_token"])

    def secrets(self) -> list[str]:
        """Those that are of use to somebody now."""
        holders = ("hub", "mover1", "mover2")
        access = [json.loads(self.machines[name].read(STATE))["access"]["token"] for name in holders]
        client_secret = self.server.confidential.client_secret
        return [PASSWORD, client_secret, *access, *(self.refresh_token(name) for name in holders)]


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
    # as Microsoft's: a used refresh token stays good, so that an answer which was lost is no end
    whose: dict[str, Any] = {"certificate": authority.good(AUTH_NAME), "ca_file": authority.ca_file}
    server = OAuthServer(host=AUTH_ADDRESS, name=AUTH_NAME, port=443, reuse_detection=False, **whose)
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
        machines["plain"].write("/etc/apt/apt.conf.d/impatient", 'Acquire::Retries "0";\n')  # it reaches no archive
        control = ControlNode(folder / "control", network, list(machines.values()))
        stack.callback(control.close)
        site = Site(machines, server, relay, control)
        _write_inventory(site, authority)
        yield site


def _write_inventory(site: Site, authority: Authority) -> None:
    group = site.control.folder / "input/group_vars/all.yml"
    group.parent.mkdir(parents=True)
    group.write_text(yaml.safe_dump(FORM))
    for name in LEAVES:
        site.variables(name, **LEAF, **_NO_LOGIN, relay_client_verify_recipient=ONCALL)
    for name in ("mover1", "mover2", "plain"):
        site.variables(name, authorize_tokens=[{"name": "default", "username": MAILBOX, **site.client}])
    own = authority.good(HUB)
    (site.control.folder / "input/hub.pem").write_bytes(own.chain.read_bytes())
    (site.control.folder / "input/hub.key").write_bytes(own.key.read_bytes())
    site.variables(
        "hub",
        relay_hub_service={"host": OAUTH_RELAY_NAME, "username": MAILBOX, "from_address": MAILBOX, **site.client},
        relay_hub_networks=[site.machines[name].address for name in LEAVES],
        relay_hub_certificate="/etc/ssl/hub.pem",
        relay_hub_certificate_key="/etc/ssl/private/hub.key",
        token_keeper_interval=1,
        token_keeper_random_delay=0,
    )
