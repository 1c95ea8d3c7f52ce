# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guide to the Process Server's form: its files to the letter, and an application that does what the form says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.reader import Reader
from lab import layers, oauth_server
from lab.authority import Authority
from lab.network import AUTH_ADDRESS, AUTH_NAME, RELAY_NAME, Network
from lab.oauth_server import OAuthServer
from lab.relay import Relay, listeners
from lab.relay_oauth import OAuthRelay
from lab.tree import Tree

pytestmark = pytest.mark.skipif(bool(layers.why_unavailable()), reason=layers.why_unavailable())

GUIDE = "guide_process_server"
PASSWORD = "pass word of fleet"
MAILBOX = "process-server@example.test"
FORM = {"host": "127.0.0.1", "port": 25}
REFUSED = 3

# An application with the form: where to and nothing else. It says EHLO, and STARTTLS where the form asks for it.
APPLICATION = """
import json, smtplib, ssl, sys
form = json.loads(sys.argv[1])
try:
    with smtplib.SMTP(form["host"], form["port"], timeout=10) as server:
        if "ca_file" in form:
            server.starttls(context=ssl.create_default_context(cafile=form["ca_file"]))
        server.sendmail("engine@app.example.test", ["oncall@example.test"], (
            "From: Process engine <engine@app.example.test>\\r\\nTo: oncall@example.test\\r\\n"
            "Subject: Process 4711 is suspended\\r\\n\\r\\nAn uncaught fault.\\r\\n"))
        print("login offered" if server.has_extn("auth") else "no login offered")
except (OSError, smtplib.SMTPException) as refusal:
    print(refusal)
    sys.exit(3)
"""


def application_sends(machine: Tree, ends: int = 0, **form: object) -> str:
    """The application on this host sends a mail, as its form says; what it has to tell."""
    command = ["python3", "-c", APPLICATION, json.dumps({**FORM, **form})]
    done = machine.run(command, user="user", check=False)
    assert done.returncode == ends, done.stdout + done.stderr
    return done.stdout.decode()


def reachable(network: Network, address: str, port: int = 25) -> bool:
    """Whether somebody else in the network can connect there."""
    program = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)"
    command = network.net_command([sys.executable, "-c", program, address, str(port)])
    return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0


class Scene:
    """A network with a relay, a CA, and a reader of the guide who has these hosts."""

    def __init__(self, folder: Path, network: Network, authority: Authority) -> None:
        self.folder, self.network, self.authority = folder, network, authority

    def ready(self, host: Tree) -> Tree:
        host.run(["sh", "-c", "rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin"])  # apt is quick without: all is there
        host.let_cool()
        host.start("postfix")
        return host

    def reader(self, group: str, host: Tree, **secrets: str) -> Reader:
        reader = Reader(self.folder / "plays", {group: [host]}, secrets)
        reader.copies(GUIDE)
        reader.has("relay-ca.pem", self.authority.ca_file.read_bytes())
        reader.encrypts("group_vars/all/vault.yml")
        return reader


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with Network() as network:
        yield Scene(tmp_path, network, Authority(tmp_path / "authority"))


def password_relay(scene: Scene) -> Relay:
    listening = listeners(scene.authority.good(RELAY_NAME))
    return Relay(listening, users={"fleet": PASSWORD}, auth_required=True)


def test_a_form_without_secrets(scene: Scene) -> None:
    relay = password_relay(scene)
    with relay.start(in_net_of=scene.network), Tree("postfix", name="app1", network=scene.network) as host:
        scene.ready(host)
        assert reachable(scene.network, host.address), "as Debian installs it, it listens on the network"
        reader = scene.reader("process_server", host, smtp_password=PASSWORD)
        reader.plays("process-server.yml")
        assert "changed=0" in reader.plays("process-server.yml")

        assert application_sends(host) == "no login offered\n"
        mail = relay.wait_for_message()
        assert mail.tls
        assert (mail.auth_user, mail.sender, mail.recipients) == (b"fleet", MAILBOX, ["oncall@example.test"])
        assert mail.email["From"] == f"Process engine <{MAILBOX}>"
        assert mail.email["Subject"] == "Process 4711 is suspended"

        assert host.output(["postconf", "-h", "inet_interfaces"]).strip() == "loopback-only"
        assert not reachable(scene.network, host.address)

        host.run(["postconf", "-e", "inet_interfaces=all"])
        assert "inet_interfaces" in reader.plays("process-server.yml", "--check", "--diff")
        host.run(["postconf", "-e", "mynetworks=192.0.2.0/24"])
        assert "Relay access denied" in reader.plays("process-server.yml", ends=2)
        assert "Relay access denied" in application_sends(host, ends=REFUSED)
        assert not reachable(scene.network, host.address), "what opened it is put right all the same"


@pytest.mark.skipif(bool(oauth_server.why_unavailable()), reason=oauth_server.why_unavailable() or "it is there")
def test_a_form_without_secrets_and_oauth_behind_it(scene: Scene) -> None:
    authority = scene.authority
    where = {"host": AUTH_ADDRESS, "name": AUTH_NAME, "port": 443, "ca_file": authority.ca_file}
    certificate = authority.good(AUTH_NAME)
    server = OAuthServer(users={MAILBOX: "secret"}, certificate=certificate, **where)
    with server.start(in_net_of=scene.network):
        relay = OAuthRelay(authority.good(RELAY_NAME), scene.network, server, authority.ca_file)
        scene.network.names[RELAY_NAME] = relay.address
        with relay, Tree("postfix-tokens", name="app1", network=scene.network) as host:
            scene.ready(host)
            reader = scene.reader("process_server", host, smtp_client_secret=server.confidential.client_secret)
            reader.plays("process-server-oauth.yml")

            assert application_sends(host) == "no login offered\n"  # before anybody said yes: taken, and it waits
            host.wait_for_log("status=deferred .*there is no access token")
            assert not relay.messages()

            reader.plays_beside(
                lambda shown: paste(server, shown),
                "fleetmail.smtp.authorize",
                *("-e", "authorize_hosts=process_server"),
            )
            mail = relay.wait_for_message()
            assert mail.tls
            assert (mail.auth_user, mail.sender) == (MAILBOX.encode(), MAILBOX)
            assert mail.email["From"] == f"Process engine <{MAILBOX}>"

            assert "changed=0" in reader.plays("process-server-oauth.yml")
            relay.forget()
            application_sends(host)
            assert relay.wait_for_message().auth_user == MAILBOX.encode()
            assert not reachable(scene.network, host.address)


def paste(server: OAuthServer, shown: str) -> str | None:
    """What the person pastes at the prompt, once."""
    before, prompt, after = shown.rpartition("Paste the address")
    if not prompt or ":" not in after or server.exchanges(endpoint="token"):
        return None
    return server.authorize(re.findall(r"^https://\S+$", before, re.M)[-1], MAILBOX)


def test_the_application_on_another_host(scene: Scene) -> None:
    relay, authority, network = password_relay(scene), scene.authority, scene.network
    with (
        relay.start(in_net_of=network),
        Tree("postfix-tokens", name="hub", network=network) as hub,
        Tree("bare", name="app1", network=network) as product,
        Tree("bare", name="app2", network=network) as other,
    ):
        scene.ready(hub)
        certificate = authority.good(hub.full_name)
        hub.write("/etc/ssl/hub.pem", certificate.chain.read_bytes())
        hub.write("/etc/ssl/hub.key", certificate.key.read_bytes(), mode=0o600)
        reader = scene.reader("hub", hub, smtp_password=PASSWORD)
        reader.has("group_vars/all/addresses.yml", json.dumps({"process_server_addresses": [product.address]}))
        reader.plays("process-server-hub.yml")

        for host in (product, other):
            host.write("/etc/ssl/fleet-ca.pem", authority.ca_file.read_bytes())
            host.add_name(hub.full_name, hub.address)
        form = {"host": hub.full_name, "port": 587, "ca_file": "/etc/ssl/fleet-ca.pem"}
        assert "Access denied" in application_sends(other, ends=REFUSED, **form)
        application_sends(product, **form)
        mail = relay.wait_for_message()
        assert (bool(mail.tls), mail.auth_user, mail.sender) == (True, b"fleet", MAILBOX)
        assert not reachable(network, hub.address, 25)
        assert len(relay.messages()) == 1
