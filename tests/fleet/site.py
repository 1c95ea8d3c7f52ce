# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nine hosts as a company has them, none of which this collection has set up, and the relay that they shall use."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from lab.authority import Authority
from lab.control import ControlNode, Silent
from lab.forms import CA_FILE, relay_client
from lab.machine import USER, Machine
from lab.network import Network
from lab.playbook import Played
from lab.relay import Relay, listeners
from lab.tree import RELAY_NAME

PASSWORD = "Flt9canaryYhNuJm28"
OLD_PASSWORD = "Old7canaryMkIuTg63"
BECOME_PASSWORD = "bec0me of app1"
FORM = relay_client(PASSWORD, from_address="fleet@example.test")
# name: role, suite, and the size of its disk
MACHINES = {
    "web1": ("fleet-postfix", "bookworm", "512m"),
    "web2": ("fleet-postfix", "trixie", "512m"),
    "app1": ("fleet-exim", "bookworm", "512m"),
    "app2": ("fleet-exim", "trixie", "512m"),
    "box1": ("fleet-msmtp", "bookworm", "512m"),
    "box2": ("fleet-msmtp", "trixie", "512m"),
    "full": ("fleet-postfix", "bookworm", "48m"),
}
LIVE = ("web1", "web2", "app1", "app2", "box1", "box2")
QUEUEING = ("web1", "web2", "app1", "app2")


@dataclass
class Fleet:
    """The machines by name, their relay, and the control node."""

    machines: dict[str, Machine]
    relay: Relay
    control: ControlNode

    def play(self, name: str, *arguments: str, form: Mapping[str, Any] | None = None, **variables: Any) -> Played:
        """Run a playbook of the collection; no password is in what it prints."""
        group = self.control.folder / "input/group_vars/all.yml"
        group.parent.mkdir(parents=True, exist_ok=True)
        group.write_text(yaml.safe_dump({**FORM, **(form or {})}))
        played = self.control.play((), *arguments, book=f"fleetmail.smtp.{name}", **variables)
        for secret in (PASSWORD, OLD_PASSWORD, BECOME_PASSWORD):
            assert secret not in played.out + played.err
        return played

    def report(self) -> dict[str, dict[str, Any]]:
        """Each host's part of the last report."""
        found = json.loads((self.control.folder / "input/fleetmail-report/report.json").read_text())
        return {host["name"]: host for host in found["hosts"]}

    def fates(self) -> dict[str, str]:
        """Each host's status in the last report."""
        return {name: host["status"] for name, host in self.report().items()}

    def send(self, *names: str, subject: str) -> None:
        """An application on each host sends a mail, as applications do."""
        for name in names:
            mail = f"From: app@{name}.example.test\nTo: you@example.org\nSubject: {subject} of {name}\n\nhello\n"
            self.machines[name].run(["/usr/sbin/sendmail", "you@example.org"], input=mail.encode(), user=USER)

    def arrived(self, subject: str, *names: str, sender: str = "fleet@example.test", timeout: float = 60) -> None:
        """Wait until each host's mail with that subject is there, over TLS, by the user, from the sender (unless "").

        Raises TimeoutError with the sessions seen.
        """
        self.relay.wait_for(lambda: self.subjects(subject) >= {f"{subject} of {name}" for name in names}, timeout)
        for mail in self.relay.messages():
            assert mail.tls
            assert mail.auth_user == b"fleet"
            assert sender in ("", mail.sender)

    def subjects(self, start: str) -> set[str]:
        """The subjects of what arrived, those that begin so."""
        lines = (line for mail in self.relay.messages() for line in mail.data.decode(errors="replace").splitlines())
        return {line[9:] for line in lines if line.startswith(f"Subject: {start}")}


@contextmanager
def running(folder: Path) -> Iterator[Fleet]:
    """Boot all of it, on a network of its own."""
    authority = Authority(folder / "authority")
    relay = Relay(listeners(authority.good(RELAY_NAME)), users={"fleet": PASSWORD, "old": OLD_PASSWORD})
    with ExitStack() as stack:
        network = stack.enter_context(Network())
        machines = {
            name: Machine(role, suite, name=name, size=size, network=network)
            for name, (role, suite, size) in MACHINES.items()
        }
        for machine in machines.values():
            machine.begin_host()
            stack.callback(machine.kill)
        for machine in machines.values():
            machine.wait_until_booted()
        stack.enter_context(relay.start(in_net_of=network))
        for machine in machines.values():
            machine.write(CA_FILE, authority.ca_file.read_bytes())
        control = ControlNode(folder / "control", network, list(machines.values()), [Silent("down", "10.77.9.9")])
        stack.callback(control.close)
        secret = control.folder / "input/host_vars/app1.yml"
        secret.parent.mkdir(parents=True)
        secret.write_text(f"ansible_become_password: {BECOME_PASSWORD}\n")
        _as_they_are(machines)
        yield Fleet(machines, relay, control)


def _as_they_are(machines: Mapping[str, Machine]) -> None:
    """What somebody did to them over the years."""
    _of_a_tutorial(machines["web1"])
    _of_the_package(machines["app1"])
    _by_a_developer(machines["box1"])
    machines["app1"].write("/etc/sudoers.d/ops", f"{USER} ALL=(ALL) ALL\n", 0o440)
    machines["app1"].run(["chpasswd"], input=f"{USER}:{BECOME_PASSWORD}\n".encode())
    for name in ("box1", "box2"):
        machines[name].run(["usermod", "--append", "--groups", "msmtp", USER])  # who may read the system's file
    machines["box2"].run(["dpkg", "--remove", "--force-depends", "python3-requests"])
    machines["full"].run(["sh", "-c", "cat /dev/zero > /var/filler || :"])


def _of_a_tutorial(host: Machine) -> None:
    host.write("/etc/postfix/sasl_passwd", f"[{RELAY_NAME}]:587 old:{OLD_PASSWORD}\n", 0o644)
    host.run(["postmap", "/etc/postfix/sasl_passwd"])
    settings = [
        *(f"relayhost=[{RELAY_NAME}]:587", "smtp_sasl_auth_enable=yes", "smtp_tls_security_level=may"),
        *("smtp_sasl_password_maps=hash:/etc/postfix/sasl_passwd", "smtp_sasl_security_options=noanonymous"),
    ]
    host.run(["postconf", "-e", *settings])
    host.run(["systemctl", "reload", "postfix"])


def _of_the_package(host: Machine) -> None:
    answers = (
        "dc_eximconfig_configtype select mail sent by smarthost; no local mail",
        f"dc_smarthost string {RELAY_NAME}::587",
        "dc_other_hostnames string app1.example.test",
        "dc_readhost string example.test",
    )
    seed = "".join(f"exim4-config exim4/{answer}\n" for answer in answers)
    host.run(["debconf-set-selections"], input=seed.encode())
    host.run(["rm", "/etc/exim4/update-exim4.conf.conf"])
    host.run(["dpkg-reconfigure", "--frontend=noninteractive", "exim4-config"])
    host.write("/etc/exim4/passwd.client", f"{RELAY_NAME}:old:{OLD_PASSWORD}\n", 0o640)
    host.run(["chown", "root:Debian-exim", "/etc/exim4/passwd.client"])


def _by_a_developer(host: Machine) -> None:
    text = f"account work\nhost {RELAY_NAME}\nport 587\nauth plain\nuser old\npassword {OLD_PASSWORD}\ntls off\n"
    host.write("/etc/msmtprc", text + "account default : work\n", 0o644)
