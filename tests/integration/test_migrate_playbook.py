# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook migrate_to_oauth: real hosts, a relay that takes passwords and tokens, a real authorization server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from lab import oauth_server
from lab.authority import Authority
from lab.driven import Lost
from lab.forms import CA_FILE, relay_client
from lab.layers import why_unavailable
from lab.network import AUTH_ADDRESS, AUTH_NAME, Network
from lab.oauth_server import GOOGLE_SCOPE, MICROSOFT_SCOPE, OAuthServer
from lab.playbook import Host, Played, play
from lab.relay_oauth import OAUTH_RELAY_NAME, OAuthRelay
from lab.tree import Tree

WHY_NOT = why_unavailable() or oauth_server.why_unavailable()
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "the lab is there")

USER = "fleet@example.test"
PASSWORD = "Mgr5canaryBgTvFr73"
SCOPE = f"{MICROSOFT_SCOPE} offline_access"
FORM = {
    **relay_client(PASSWORD, backend="postfix", host=OAUTH_RELAY_NAME, username=USER, from_address=USER),
    "ansible_become": False,
}
PROVED = re.compile(r"web2: (password|oauth) -> oauth \(proved: 250")
TO = {"migrate_to_oauth_test_to": "oncall@example.test"}


@dataclass
class Site:
    server: OAuthServer
    relay: OAuthRelay
    hosts: dict[str, Tree]
    folder: Path

    def play(self, name: str, *arguments: str, form: Any = None, more: Sequence[Host] = (), **variables: Any) -> Played:
        group = self.folder / "input/group_vars/all.yml"
        group.parent.mkdir(parents=True, exist_ok=True)
        group.write_text(yaml.safe_dump({**FORM, **(form or {})}))
        hosts = [*self.hosts.values(), *more]
        played = play(self.folder, [], hosts, variables, arguments, book=f"fleetmail.smtp.{name}")
        client = self.server.confidential
        assert PASSWORD not in played.out + played.err
        assert client.client_secret not in played.out + played.err
        return played

    def migrate(self, *arguments: str, **variables: Any) -> Played:
        given = {"migrate_to_oauth_service": self.service(), "migrate_to_oauth_canary": "web1", **TO, **variables}
        return self.play("migrate_to_oauth", *arguments, **given)

    def service(self, **more: Any) -> dict[str, Any]:
        client, server = self.server.confidential, self.server
        urls = {"authorization_url": server.authorization_url, "token_url": server.token_url}
        return {"client_id": client.client_id, "client_secret": client.client_secret, "scope": SCOPE, **urls, **more}

    def state(self, name: str) -> str:
        return self.hosts[name].output(["postconf", "-hx", "relayhost", "default_transport", "smtp_sasl_auth_enable"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    server = OAuthServer(
        host=AUTH_ADDRESS, name=AUTH_NAME, port=443, certificate=authority.good(AUTH_NAME), ca_file=authority.ca_file
    )
    certificate, users = authority.good(OAUTH_RELAY_NAME), {USER: PASSWORD}
    with (
        Network() as network,
        server.start(in_net_of=network),
        OAuthRelay(certificate, network, server, authority.ca_file, users) as relay,
        Tree("postfix-tokens", name="web1", network=network) as web1,
        Tree("postfix-tokens", name="web2", network=network) as web2,
    ):
        for host in (web1, web2):
            host.write(CA_FILE, authority.ca_file.read_bytes())
            host.let_cool()
            host.start("postfix")
        made = Site(server, relay, {"web1": web1, "web2": web2}, tmp_path_factory.mktemp("control"))
        done = made.play("rollout")
        assert done.code == 0, done.out + done.err
        yield made


def give(site: Site, name: str) -> None:
    """A person says yes, by the playbook for it, before the host is switched."""
    token = {"name": "default", "username": USER, "ca_file": CA_FILE, **site.service()}
    begun = site.play("authorize", authorize_hosts=name, authorize_tokens=[token])
    found = re.search(rf"(https://{AUTH_NAME}[^\s\"',]*/auth\?[^\s\"',]+)", begun.out)
    assert found, begun.out
    answer = site.server.authorize(found.group(1), USER)
    ended = site.play("authorize", authorize_hosts=name, authorize_responses=[answer])
    assert ended.code == 0, ended.out + ended.err


def web2_alone(**more: Any) -> dict[str, Any]:
    one = {"migrate_to_oauth_hosts": "web2", "migrate_to_oauth_canary": ""}
    return {**one, "migrate_to_oauth_token_ca_file": CA_FILE, **more}


def told(played: Played) -> list[str]:
    lines: list[str] = played.of("What each host had, and has")["msg"]
    return lines


def test_what_is_missing_is_said_before_anything_is_touched(site: Site) -> None:
    before = [site.state(name) for name in site.hosts]
    played = site.migrate(migrate_to_oauth_test_to="")
    assert played.code != 0
    assert "migrate_to_oauth_test_to are needed" in " ".join(played.out.split())
    assert [one.task for one in played.results] == ["No host has a result yet", "All that is needed was said"]
    unknown = site.migrate(form={"relay_client_from_address": "{{ not_there }}"})
    assert unknown.code != 0
    assert re.match("web1: unknown -> password .*not_there.* is (un|not )defined", told(unknown)[0])
    assert [one.task for one in unknown.results if one.status == "ok"][1:4] == [
        "All that is needed was said",
        "The report tells why",
        "What is there now",
    ]
    assert [site.state(name) for name in site.hosts] == before


def test_there_and_back(site: Site) -> None:
    passwords = [site.state(name) for name in site.hosts]
    nobody = site.migrate()
    assert nobody.code != 0
    assert told(nobody) == [
        "web1: password -> password (no usable grant: see fleetmail.smtp.authorize)",
        "web2: unknown -> password (not reached: it stopped before)",
    ]
    assert [site.state(name) for name in site.hosts] == passwords

    give(site, "web1")
    wrong = site.migrate(migrate_to_oauth_service=site.service(host="web2.example.test"))  # which is no relay
    assert wrong.code != 0
    assert told(wrong)[0].startswith("web1: password -> password (put back: ")
    assert "not reached" in told(wrong)[1]
    assert [site.state(name) for name in site.hosts] == passwords

    done = site.migrate()
    assert done.code == 0, done.out + done.err
    first, second = told(done)
    assert first.startswith("web1: password -> oauth (proved: 250")
    assert second == "web2: password -> password (no usable grant: see fleetmail.smtp.authorize)"
    report = json.loads((site.folder / "input/fleetmail-report/report.json").read_text())
    assert {one["name"]: one["status"] for one in report["hosts"]} == {"web1": "changed", "web2": "audited"}
    assert site.state("web1") != passwords[0]
    assert site.state("web2") == passwords[1]
    again = site.migrate(migrate_to_oauth_fail_on_left=True, more=[Lost()])
    assert again.code != 0
    assert told(again)[0] == "web1: oauth -> oauth (nothing changed)"
    assert told(again)[2] == "lost: unknown -> unknown (no answer)"
    lost = [one.task for one in again.results if one.status == "unreachable"]
    assert lost == ["What was there", "What is there now"]  # each costs a time-out

    back = site.play("rollout", rollout_hosts="web1", rollout_test_to="oncall@example.test")
    assert back.code == 0, back.out + back.err
    assert site.state("web1") == passwords[0]


def test_before_anybody_has_said_yes(site: Site) -> None:
    """The host is switched and told of, and its mail waits: see test_oauth_postfix.py."""
    done = site.migrate(**web2_alone(), migrate_to_oauth_without_grant=True)
    assert done.code == 0, done.out + done.err
    assert told(done)[0].startswith("web2: password -> oauth (no valid access token: ")


def test_a_grant_without_a_person(site: Site) -> None:
    """The playbook gets the first token itself."""
    before, client = site.state("web2"), site.server.service
    service = {
        "client_id": client.client_id,
        "client_secret": client.client_secret,
        "token_url": site.server.token_url,
        "oauth_grant": "client_credentials",
        "scope": MICROSOFT_SCOPE,
        "username": USER,
    }
    wrong = {**service, "client_secret": "wr0ng"}
    early = site.migrate(**web2_alone(migrate_to_oauth_service=wrong), migrate_to_oauth_without_grant=True)
    assert early.code == 0, early.out + early.err
    assert re.match(r"web2: (password|oauth) -> oauth \(no valid access token: ", told(early)[0]), told(early)
    before = site.state("web2")
    variables = web2_alone(migrate_to_oauth_service=service)
    planned = site.migrate("--check", **variables)
    assert planned.code == 0, planned.out + planned.err
    assert site.state("web2") == before
    done = site.migrate(**variables)
    assert done.code == 0, done.out + done.err
    assert client.client_secret not in planned.out + done.out
    assert PROVED.match(told(done)[0]), told(done)


def test_a_grant_by_a_signed_assertion(site: Site) -> None:
    """JWT bearer: the key is on the host and says whose it is, and the account stands for the mailbox."""
    account = site.server.service_account
    key = {"client_email": account.client_id, "private_key": account.key}
    site.hosts["web2"].write("/etc/ssl/private/fleet.json", json.dumps(key).encode(), 0o600)
    service = {
        "token_url": site.server.token_url,
        "oauth_grant": "jwt_bearer",
        "jwt_key_file": "/etc/ssl/private/fleet.json",
        "scope": GOOGLE_SCOPE,
        "username": USER,
    }
    done = site.migrate(**web2_alone(migrate_to_oauth_service=service))
    assert done.code == 0, done.out + done.err
    assert PROVED.match(told(done)[0]), told(done)
