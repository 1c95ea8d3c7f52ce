# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts, a real relay and a real authorization server: prepared, authorized, revoked, authorized again, nothing lost.

The relay (Postfix and Dovecot) asks the authorization server (oidc-provider) about every token. Its lines end at 2,048
bytes, as Postfix's own do, and tokens are long.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from integration.oauth_machine import authorize
from lab import core, oauth_server
from lab.authority import Authority
from lab.layers import why_unavailable
from lab.network import AUTH_ADDRESS, AUTH_NAME, Network
from lab.oauth_server import MICROSOFT_SCOPE, OAuthServer
from lab.relay_oauth import OAUTH_RELAY_NAME, OAuthRelay
from lab.tree import Tree

WHY_NOT = why_unavailable() or oauth_server.why_unavailable()
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "the lab is there")

BEARER = {"exim": {"oauth_mechanism": "oauthbearer"}, "msmtp": {"auth": "oauthbearer"}}
USER, CA_FILE = "fleet@example.test", "/etc/ssl/relay-ca.pem"
SCOPE = f"{MICROSOFT_SCOPE} offline_access"
REJECTED = 77  # sysexits.h, EX_NOPERM


@dataclass
class Site:
    server: OAuthServer
    relay: OAuthRelay
    hosts: dict[str, Tree]

    def service(self, backend: str, **more: Any) -> dict[str, Any]:
        """A module's options."""
        client = self.server.confidential
        return {
            "backend": backend,
            "host": OAUTH_RELAY_NAME,
            "security": "starttls",
            "ca_file": CA_FILE,
            "auth_type": "oauth",
            "username": USER,
            "client_id": client.client_id,
            "client_secret": client.client_secret,
            "authorization_url": self.server.authorization_url,
            "token_url": self.server.token_url,
            "scope": SCOPE,
            **more,
        }

    def applied(self, backend: str, **more: Any) -> dict[str, Any]:
        result = core.enforce(self.hosts[backend], self.service(backend, **more))
        assert "failed" not in result, result["msg"]
        return result

    def grant(self) -> None:
        """A person authorizes it, once; both hosts get what came of it, as one that was copied would."""
        answer = self.server.grant_for(USER, SCOPE, self.server.confidential)
        for host in self.hosts.values():
            assert authorize(host, answer["access_token"], refresh=answer["refresh_token"]) == ""

    def send(self, backend: str, subject: str) -> int:
        """Hand in a mail as a program does; gives sendmail's exit code."""
        mail = f"From: app@client.example.test\nTo: you@example.org\nSubject: {subject}\n\nhello\n"
        foreground = ["-odf"] if backend == "exim" else []
        command = ["/usr/sbin/sendmail", *foreground, "-i", "--", "you@example.org"]
        return self.hosts[backend].run(command, mail.encode(), check=False).returncode

    def queue(self) -> int:
        return int(self.hosts["exim"].output(["exim4", "-bpc"]))

    def wait_for_empty_queue(self) -> None:
        deadline = time.monotonic() + 20
        while self.queue():
            assert time.monotonic() < deadline, self.hosts["exim"].log()
            time.sleep(0.1)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    server = OAuthServer(
        host=AUTH_ADDRESS,
        name=AUTH_NAME,
        port=443,
        certificate=authority.good(AUTH_NAME),
        ca_file=authority.ca_file,
        access_token_length=1900,
    )
    certificate = authority.good(OAUTH_RELAY_NAME)
    with (
        Network() as network,
        server.start(in_net_of=network),
        OAuthRelay(
            certificate, network, server, authority.ca_file, scope=MICROSOFT_SCOPE, line_length_limit=2048
        ) as relay,
        Tree("exim", name="exim", network=network) as exim,
        Tree("msmtp", name="msmtp", network=network) as msmtp,
    ):
        for host in (exim, msmtp):
            host.write(CA_FILE, authority.ca_file.read_bytes())
        exim.start("exim")
        yield Site(server, relay, {"exim": exim, "msmtp": msmtp})


def test_from_the_first_day_to_a_revoked_grant_and_back(site: Site) -> None:
    # prepared: the configuration is final, mail waits or is refused for now, the task says what is to be done
    for backend in site.hosts:
        result = site.applied(backend, verify="auth")
        assert result["verification"]["reached"] == "tls"
        assert "smtp_oauth_token" in result["verification"]["next_step"]
        assert not site.applied(backend)["changed"]
    assert site.send("exim", "before") == 0
    assert site.send("msmtp", "refused") != 0
    assert site.queue() == 1

    # authorized: what waited goes, and nothing has to be run again
    site.grant()
    site.wait_for_empty_queue()
    assert b"Subject: before" in site.relay.wait_for_message().data
    mail = {"to": ["you@example.org"], "via": "mta", "when": "always"}
    for backend in site.hosts:
        proof = {"verify": "recipient", "verify_recipient": "you@example.org", "test_send": mail}
        result = site.applied(backend, **proof)
        assert not result["changed"]
        assert (result["verification"]["reached"], result["test_send"]["sent"]) == ("recipient", True)
    messages = site.relay.messages()
    assert len(messages) == 3
    assert {message.auth_user for message in messages} == {USER.encode()}
    assert all(message.tls for message in messages)

    # revoked at the server, behind everybody's back: refused, kept, told, and a change is not made on top of it
    site.server.revoke(user=USER)
    assert site.send("exim", "while revoked") == 0
    assert site.send("msmtp", "refused") == REJECTED
    assert site.queue() == 1
    refused = core.enforce(site.hosts["exim"], site.service("exim", verify="auth", from_address=USER))
    assert refused["failed"]
    assert refused["rolled_back"]
    assert "535" in refused["msg"]

    # authorized again
    site.grant()
    site.wait_for_empty_queue()
    assert site.send("msmtp", "again") == 0
    site.relay.wait_for_message(count=5)
    subjects = b"".join(message.data for message in site.relay.messages())
    for subject in (b"before", b"while revoked", b"again"):
        assert subjects.count(b"Subject: " + subject) == 1
    assert " ** " not in site.hosts["exim"].log()


def test_oauthbearer_on_both(site: Site) -> None:
    # msmtp sends it with the command, where this relay would cut it
    site.server.change(access_token_length=300)
    try:
        for backend in site.hosts:
            site.applied(backend, backend_options=BEARER[backend])
        site.grant()
        site.relay.forget()
        mail = {"to": ["you@example.org"], "via": "mta", "when": "always"}
        for backend in site.hosts:
            result = site.applied(backend, backend_options=BEARER[backend], verify="auth", test_send=mail)
            auth = next(step for step in result["verification"]["steps"] if step["name"] == "auth")
            assert auth["detail"].startswith("OAUTHBEARER: 235")
            assert result["test_send"]["sent"]
        assert [message.auth_user for message in site.relay.messages()] == [USER.encode()] * 2
        assert "sasl_method=OAUTHBEARER" in site.relay.log()
    finally:
        site.server.change(access_token_length=1900)
