# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guides to OAuth, as a reader follows them: their files to the letter, their commands in their order.

Microsoft's and Google's names lead, in a network of the test's own, to the laboratory's authorization server and relay,
whose certificates come from a CA that the hosts trust. Nothing leaves that network.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import documents
import pytest
import yaml
from integration.oauth_machine import authorize
from integration.reader import Reader
from lab import layers, oauth_server
from lab.authority import Authority
from lab.network import AUTH_ADDRESS, AUTH_NAME, RELAY_NAME, Network
from lab.oauth_clients import private_key
from lab.oauth_server import MICROSOFT_SCOPE, Client, OAuthServer
from lab.playbook import play
from lab.relay_oauth import OAuthRelay
from lab.tree import Tree

UNAVAILABLE = layers.why_unavailable() or oauth_server.why_unavailable()
pytestmark = pytest.mark.skipif(bool(UNAVAILABLE), reason=UNAVAILABLE or "the lab is there")

USER = "fleet@example.test"
ONCALL = ["oncall@example.test"]
TRUSTED = "/etc/ssl/certs/ca-certificates.crt"
CRONTAB, METRICS = "/etc/cron.d/fleetmail-keeper", "/var/lib/prometheus/node-exporter/fleetmail.prom"
SYSLOG = "/var/log/syslog"
FAILED = 2
PATIENCE = 60  # seconds; the machine may be busy
KEEPER = "/usr/local/sbin/fleetmail-keeper"
AUTHORIZE, STATUS = "fleetmail.smtp.authorize", "fleetmail.smtp.token_status"


class World:
    """An authorization server, a relay that asks it about tokens, and their network."""

    def __init__(self, authority: Authority, network: Network, server: OAuthServer, relay: OAuthRelay) -> None:
        self.authority, self.network, self.server, self.relay = authority, network, server, relay

    @contextlib.contextmanager
    def host(self, name: str, role: str = "postfix-tokens", address: str = "") -> Iterator[Tree]:
        """A host as its administrator has it: installed, running, trusting the CA of this world."""
        with Tree(role, name=name, network=self.network, address=address) as host:
            trusted = host.read(TRUSTED) + self.authority.ca_file.read_bytes()
            host.write(TRUSTED, trusted)
            host.run(
                ["sh", "-c", "rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin"]
            )  # apt is quick without: all is there
            if role != "bare":
                host.let_cool()
                host.start("postfix")
            yield host

    def person(self, user: str = USER) -> Person:
        return Person(self.server, user)


class Person:
    """Opens what a run shows, says yes, and pastes what the browser ends up on."""

    def __init__(self, server: OAuthServer, user: str) -> None:
        self.server, self.user = server, user
        self.done: list[str] = []

    def pastes(self, shown: str) -> str | None:
        before, prompt, after = shown.rpartition("Paste the address")
        if not prompt or ":" not in after or shown.count(prompt) <= len(self.done):
            return None
        url = re.findall(r"^https://\S+$", before, re.M)[-1]
        self.done.append(self.server.authorize(url, self.user))
        return self.done[-1]

    def types_in(self, shown: str) -> None:
        for code in re.findall(r"code: ([A-Z0-9]{4}-[A-Z0-9]{4})\"", shown):
            if code not in self.done:
                self.done.append(code)
                self.server.approve_device(code, self.user)


@contextlib.contextmanager
def world(
    folder: Path, names: tuple[str, ...], relays: tuple[str, ...], server: Callable[..., OAuthServer]
) -> Iterator[World]:
    """One in which these names are the authorization server's, and those the relay's."""
    authority = Authority(folder / "authority")
    certificate = authority.good(*names)
    with Network() as network:
        network.names.update(dict.fromkeys(names, AUTH_ADDRESS))
        where = {"host": AUTH_ADDRESS, "name": names[0], "port": 443, "ca_file": authority.ca_file}
        with server(certificate=certificate, **where).start(in_net_of=network) as running:
            relay = OAuthRelay(authority.good(*relays), network, running, authority.ca_file)
            network.names.update(dict.fromkeys(relays, relay.address))
            with relay:
                yield World(authority, network, running, relay)


# What the guides' readers have registered, and where Microsoft and Google have their endpoints.
MICROSOFT = "https://login.microsoftonline.com/example.onmicrosoft.com/oauth2/v2.0"
ENDPOINTS = {
    f"{MICROSOFT}/authorize": "/auth",
    f"{MICROSOFT}/token": "/token",
    f"{MICROSOFT}/devicecode": "/device/auth",
    "https://accounts.google.com/o/oauth2/v2/auth": "/auth",
    "https://oauth2.googleapis.com/token": "/token",
    "https://oauth2.googleapis.com/revoke": "/token/revocation",
    "https://openidconnect.googleapis.com/v1/userinfo": "/me",
}
# the first is the issuer, as Google's client expects it
NAMES = (
    *("accounts.google.com", "oauth2.googleapis.com", "openidconnect.googleapis.com"),
    "login.microsoftonline.com",
)
RELAYS = ("smtp.office365.com", "smtp.gmail.com")
ENTRA_CLIENT, GOOGLE_CLIENT = "11111111-2222-3333-4444-555555555555", "1234567890-fleet.apps.googleusercontent.com"
SERVICE_ACCOUNT = "fleet-mail@example.iam.gserviceaccount.com"


@contextlib.contextmanager
def provider(folder: Path, **clients: Client) -> Iterator[World]:
    """A world with Microsoft's and Google's names; clients: those of OAuthServer, as the reader has registered them."""

    def server(**where: Any) -> OAuthServer:
        made = OAuthServer(aliases=ENDPOINTS, **where)
        for kind, client in clients.items():
            setattr(made, kind, client)
        return made

    with world(folder, NAMES, RELAYS, server) as made:
        yield made


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("own"), (AUTH_NAME,), (RELAY_NAME,), OAuthServer) as made:
        yield made


def submit(host: Tree, recipient: str = "someone@example.org") -> None:
    host.run(["sendmail", "-f", f"app@{host.full_name}", recipient], b"Subject: t\n\nhello\n")


def words(text: str) -> str:
    """Without the line ends that a terminal, Ansible's warnings or a guide put between words."""
    return " ".join(text.split())


def proved(made: World, sender: str = USER) -> None:
    """The test mail came, by the mailbox's own login."""
    mail = made.relay.wait_for_message(PATIENCE)
    assert (mail.sender, mail.recipients, mail.auth_user) == (sender, ONCALL, sender.encode())


def test_from_a_password_to_oauth(own: World, tmp_path: Path) -> None:
    own.relay.forget()
    with own.host("web1") as host:
        before = host.read("/etc/postfix/main.cf"), host.read("/etc/postfix/master.cf")
        reader = Reader(tmp_path / "plays", {"mail": [host]}, {})
        reader.copies("guide_oauth")
        reader.has("relay-ca.pem", own.authority.ca_file.read_bytes())

        reader.plays("mail.yml")
        assert (host.read("/etc/postfix/main.cf"), host.read("/etc/postfix/master.cf")) == before
        shown = reader.plays_beside(own.person().pastes, AUTHORIZE)
        assert documents.output("guide_oauth", "Paste the address").strip() in shown
        reader.plays("mail.yml", "-e", "mail_test=always")
        proved(own)

        own.server.revoke()
        host.run([KEEPER, "refresh", "default"], check=False)
        submit(host)
        host.wait_for_log("status=deferred", PATIENCE)
        own.relay.forget()
        reader.plays_beside(own.person().types_in, AUTHORIZE, "-e", "@by-code.yml", terminal=False)
        assert own.relay.wait_for_message(PATIENCE).recipients == ["someone@example.org"]
        told = reader.plays("mail.yml", "--diff")
        assert "changed=0" in told, told + "it is the same grant, whichever way it was given"
        reader.plays("absent.yml")
        assert (host.read("/etc/postfix/main.cf"), host.read("/etc/postfix/master.cf")) == before
        assert not host.exists("/var/lib/fleetmail/oauth/default")


def test_microsoft_365_with_a_persons_yes(tmp_path: Path) -> None:
    with provider(tmp_path, public=Client(ENTRA_CLIENT)) as made, made.host("web1") as host:
        reader = Reader(tmp_path / "plays", {"mail": [host]}, {})
        reader.copies("guide_microsoft365")
        told = reader.plays("mail.yml")
        assert words(documents.output("guide_microsoft365", "default has no valid")) in words(told)
        submit(host)
        host.wait_for_log("status=deferred", PATIENCE)
        reader.plays_beside(made.person().pastes, AUTHORIZE)
        assert made.relay.wait_for_message(PATIENCE).recipients == ["someone@example.org"]
        made.relay.forget()
        reader.plays("mail.yml", "-e", "mail_test=always")
        proved(made)

        made.server.revoke()
        host.run([KEEPER, "refresh", "default"], check=False)
        reader.plays_beside(made.person().types_in, AUTHORIZE, "-e", "@by-code.yml", terminal=False)


def test_microsoft_365_with_a_client_secret(tmp_path: Path) -> None:
    secret = {"smtp_client_secret": "Abc8Q~of the+application/%"}
    client = Client(ENTRA_CLIENT, secret["smtp_client_secret"], subject=USER)
    with provider(tmp_path, service=client) as made, made.host("web1") as host:
        reader = Reader(tmp_path / "plays", {"mail": [host]}, secret)
        reader.copies("guide_microsoft365")
        reader.encrypts("vault.yml")
        reader.plays("app-only.yml")
        proved(made)


def test_microsoft_365_with_a_certificate(tmp_path: Path) -> None:
    key = private_key()
    (tmp_path / "key.pem").write_text(key)
    made_by = ["openssl", "req", "-x509", "-new", "-key", str(tmp_path / "key.pem"), "-subj", "/CN=fleet"]
    certificate = subprocess.run(made_by, capture_output=True, check=True).stdout
    with provider(tmp_path, signing=Client(ENTRA_CLIENT, key=key, subject=USER)) as made, made.host("web1") as host:
        reader = Reader(tmp_path / "plays", {"mail": [host]}, {})
        reader.copies("guide_microsoft365")
        reader.has("fleet-mail.pem", key.encode() + certificate)
        reader.plays("certificate.yml")
        submit(host)
        assert made.relay.wait_for_message(PATIENCE).auth_user == USER.encode()


def test_google_with_a_users_yes(tmp_path: Path) -> None:
    secret = {"smtp_client_secret": "GOCSPX-of the+client/%"}
    client = Client(GOOGLE_CLIENT, secret["smtp_client_secret"])
    with provider(tmp_path, confidential=client) as made, made.host("web1") as host:
        reader = Reader(tmp_path / "plays", {"mail": [host]}, secret)
        reader.copies("guide_google")
        reader.encrypts("vault.yml")
        reader.plays("mail.yml")
        reader.plays_beside(made.person().pastes, AUTHORIZE)
        reader.plays("mail.yml", "-e", "mail_test=always")
        proved(made)


def test_google_with_a_service_account(tmp_path: Path) -> None:
    key = private_key()
    file = {"type": "service_account", "private_key_id": "1", "private_key": key, "client_email": SERVICE_ACCOUNT}
    client = Client(SERVICE_ACCOUNT, key=key, subject=USER)
    with provider(tmp_path, service_account=client) as made, made.host("web1") as host:
        reader = Reader(tmp_path / "plays", {"mail": [host]}, {})
        reader.copies("guide_google")
        reader.has("fleet-mail.json", json.dumps(file))
        reader.plays("service-account.yml")
        proved(made)


def test_the_hub(tmp_path: Path) -> None:
    with (
        provider(tmp_path, public=Client(ENTRA_CLIENT)) as made,
        made.host("hub") as hub,
        made.host("web1", "postfix") as leaf,
        made.host("stranger", "bare", address="10.77.2.5") as stranger,
    ):
        reader = Reader(tmp_path / "plays", {"hub": [hub], "leaves": [leaf], "outsiders": [stranger]}, {})
        reader.copies("guide_hub")
        own, web1 = made.authority.good(hub.full_name), made.authority.good(leaf.full_name)
        for name, source in {
            "fleet-ca.pem": made.authority.ca_file,
            "hub.pem": own.chain,
            "hub.key": own.key,
            "leaves/web1.pem": web1.chain,
            "leaves/web1.key": web1.key,
        }.items():
            reader.has(name, source.read_bytes())

        reader.plays("hub.yml")
        reader.plays("leaves.yml")
        submit(leaf)
        hub.wait_for_log("status=deferred", PATIENCE)
        reader.plays_beside(made.person().pastes, AUTHORIZE, "-e", "authorize_hosts=hub")
        mail = made.relay.wait_for_message(PATIENCE)
        assert (mail.sender, mail.auth_user) == (USER, USER.encode())
        reader.plays("closed.yml")

        made.relay.forget()
        reader.plays("leaf-certificates.yml")
        reader.plays("hub.yml", "-e", "@by-certificate.yml")
        submit(leaf)
        assert b'Client CN "web1.example.test"' in made.relay.wait_for_message(PATIENCE).data


DAY = 86400
DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def undated(text: str) -> str:
    return DATE.sub("DATE", words(text))


def sends_with_a_token(made: World, host: Tree, folder: Path) -> None:
    """As at the end of the guide before this one."""
    host.write("/etc/ssl/relay-ca.pem", made.authority.ca_file.read_bytes())
    (mail,) = yaml.safe_load(documents.files("guide_oauth")["mail.yml"])
    task = next(one for one in mail["tasks"] if "fleetmail.smtp.smtp_service" in one)
    played = play(folder, [{**task, "when": True}], [host])
    assert played.code == 0, played.out


def test_day_89(own: World, tmp_path: Path) -> None:
    own.relay.forget()
    own.server.change(refresh_token_seconds=90 * DAY)
    with own.host("web1") as host:
        reader = Reader(tmp_path / "plays", {"mail": [host]}, {})
        reader.copies("guide_day_89")
        sends_with_a_token(own, host, tmp_path)
        granted = own.server.grant_for(USER, "smtp offline_access")
        authorize(host, granted["access_token"], refresh=granted["refresh_token"], ago=89 * DAY - 3600)
        own.server.pass_time(days=88.95)

        told = reader.plays(STATUS, "-e", "token_status_days=21", ends=FAILED)
        header, row, *rest = documents.output("guide_day_89", "HOST").splitlines()
        for line in (header, row, " ".join(rest)):
            assert undated(line) in undated(told), told

        own.server.forget()
        reader.plays("keeper.yml")
        tick = re.search(r"^\S+ \* \* \* \* root (?:sleep \d+; )?(.*)$", host.read(CRONTAB).decode(), re.M)
        assert tick
        host.run(["/bin/sh", "-c", tick[1]])
        assert len(own.server.refreshes()) == 1
        host.run([KEEPER, "status"])  # ends with 0
        alerts = yaml.safe_load(documents.files("guide_day_89")["alerts.yml"])
        used = {name for rule in alerts["groups"][0]["rules"] for name in re.findall(r"fleetmail_\w+", rule["expr"])}
        assert used <= set(re.findall(r"^(fleetmail_\w+)", host.read(METRICS).decode(), re.M))

        own.server.revoke()
        host.run([KEEPER, "refresh", "default"], check=False)
        host.run(["/bin/sh", "-c", tick[1]], check=False)
        own.relay.forget()
        assert "token-changed: default: revoked (invalid_grant). authorize again" in host.read(SYSLOG).decode()
        submit(host)
        host.wait_for_log("status=deferred", PATIENCE)
        reader.plays_beside(own.person().pastes, AUTHORIZE)
        assert own.relay.wait_for_message(PATIENCE).recipients == ["someone@example.org"]
        assert "bounced" not in host.log()


def test_the_readme(tmp_path: Path) -> None:
    with provider(tmp_path, public=Client(ENTRA_CLIENT)) as made, made.host("web1") as host:
        reader = Reader(tmp_path / "plays", {"mail": [host]}, {})
        reader.copies("README.md")
        reader.plays("oauth.yml")
        submit(host)
        host.wait_for_log("status=deferred", PATIENCE)
        granted = made.server.grant_for(USER, f"{MICROSOFT_SCOPE} offline_access")  # its second command is above
        authorize(host, granted["access_token"], refresh=granted["refresh_token"])
        assert made.relay.wait_for_message(PATIENCE).auth_user == USER.encode()
