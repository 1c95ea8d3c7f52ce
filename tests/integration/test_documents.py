# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbooks of README and guides as a reader runs them, in their order, and the output that they show."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import documents
import pytest
from integration.reader import Reader, contains, without_blank_lines
from lab.authority import Authority
from lab.layers import why_unavailable
from lab.relay import Relay, listeners
from lab.tree import RELAY_NAME, Tree

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable())

PASSWORDS = {"smtp_password": "pass word of fleet", "smtp_password_invoices": "pass word of invoices"}
SECRETS = "".join(f"{name}: {value}\n" for name, value in PASSWORDS.items())
CA_FILE = "/etc/ssl/relay-ca.pem"
MAIN = "/etc/postfix/main.cf"
DRIFTED = 2


class OneHost(Reader):
    """A reader with one host, whose mail goes through one relay."""

    def __init__(self, folder: Path, host: Tree, relay: Relay) -> None:
        super().__init__(folder, {"servers": [host]}, PASSWORDS)
        self.host, self.relay = host, relay


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[OneHost]:
    authority = Authority(tmp_path / "authority")
    users = {"fleet": PASSWORDS["smtp_password"], "invoices": PASSWORDS["smtp_password_invoices"]}
    relay = Relay(listeners(authority.good(RELAY_NAME)), users=users, auth_required=True)
    folder = tmp_path / "plays"
    folder.mkdir()
    (folder / "relay-ca.pem").write_bytes(authority.ca_file.read_bytes())
    with Tree("postfix", name="web1") as host, relay.start(in_net_of=host):
        host.run(["sh", "-c", "rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin"])  # apt is quick without: all is there
        host.start("postfix")
        yield OneHost(folder, host, relay)


def edit_by_hand(host: Tree) -> None:
    """What the documents say that somebody did."""
    host.run(["postconf", "-e", "smtp_tls_security_level=may"])
    host.run(["chmod", "644", "/etc/postfix/fleetmail-default.a.db"])


def submit(host: Tree) -> None:
    host.run(["sendmail", "-f", "app@web1.example.test", "someone@example.test"], b"Subject: t\n\nhello\n")


def test_the_guide_to_enforcing_a_relay(reader: OneHost) -> None:
    host, relay = reader.host, reader.relay
    before = host.read(MAIN)
    reader.copies("guide_enforce")
    reader.copies("guide_refusals")
    reader.encrypts("group_vars/all/vault.yml")

    reader.plays("site.yml")
    reader.plays("probe.yml")
    reader.plays("drift.yml")

    edit_by_hand(host)
    told = reader.plays("drift.yml", ends=DRIFTED)
    assert "differs in security, validate_certs, mode of" in told
    shown = without_blank_lines(documents.output("guide_enforce", "TASK [Mail goes through"))
    assert contains(without_blank_lines(told), shown), told

    reader.plays("site.yml", "-e", "mail_enabled=false")
    submit(host)
    host.wait_for_log("status=deferred")
    assert not relay.messages()
    reader.plays("site.yml")
    held = relay.wait_for_message()
    assert (held.sender, held.auth_user) == ("fleet@example.test", b"fleet")

    relay.forget()
    assert "250 " in reader.plays("test-send.yml")
    assert relay.messages()[0].email["Subject"] == "Mail from web1"
    reader.plays("invoices.yml")
    assert (relay.messages()[1].sender, relay.messages()[1].auth_user) == ("invoices@example.test", b"invoices")

    reader.plays("absent.yml")
    assert host.read(MAIN) == before


def set_up_by_hand(host: Tree) -> None:
    """As somebody did years ago, after a tutorial."""
    password = PASSWORDS["smtp_password"]
    host.write("/etc/postfix/sasl_passwd", f"[{RELAY_NAME}]:587 fleet:{password}\n", 0o600)
    settings = {
        "relayhost": f"[{RELAY_NAME}]:587", "smtp_tls_security_level": "secure", "smtp_tls_CAfile": CA_FILE,
        "smtp_tls_CApath": "", "smtp_sasl_auth_enable": "yes", "smtp_sasl_security_options": "noanonymous",
        "smtp_sasl_password_maps": "hash:/etc/postfix/sasl_passwd",
    }  # fmt: skip
    host.run(["postmap", "/etc/postfix/sasl_passwd"])
    host.run(["postconf", "-e", *(f"{name}={value}" for name, value in settings.items())])
    host.let_cool()
    host.run(["postfix", "reload"])


def test_the_guide_to_auditing(reader: OneHost) -> None:
    host, relay = reader.host, reader.relay
    host.write(CA_FILE, (reader.folder / "relay-ca.pem").read_bytes())
    set_up_by_hand(host)
    before = host.read(MAIN)
    reader.copies("guide_audit")

    assert "it listens on all interfaces" in reader.plays("audit.yml")
    reader.plays("adopt.yml")
    written = (reader.folder / "host_vars/web1/smtp.yml").read_text()
    assert "password: '{{ vault_smtp_password_fleet_relay_example_test }}'" in written
    vault = reader.folder / "group_vars/all/vault.yml"
    vault.parent.mkdir(parents=True)
    vault.write_text(f"vault_smtp_password_fleet_relay_example_test: {PASSWORDS['smtp_password']}\n")

    told = reader.plays("managed.yml", "--check")
    assert '"msg": []' in told, "there is drift"
    assert "changed=1" in told
    assert host.read(MAIN) == before
    told = reader.plays("managed.yml")
    assert '"msg": []' in told
    assert "changed=1" in told
    assert "changed=0" in reader.plays("managed.yml")
    submit(host)
    assert relay.wait_for_message().auth_user == b"fleet"


def test_the_readme(reader: OneHost) -> None:
    reader.copies("README.md")
    (reader.folder / "vault.yml").write_text(SECRETS)
    reader.host.write(CA_FILE, (reader.folder / "relay-ca.pem").read_bytes())
    before = reader.host.read(MAIN)
    assert "changed=1" in reader.plays("site.yml", "--check", "--diff")
    assert reader.host.read(MAIN) == before
    assert "changed=1" in reader.plays("site.yml")
    edit_by_hand(reader.host)
    told = reader.plays("site.yml", "--check", "--diff")
    assert contains(without_blank_lines(told), without_blank_lines(documents.output("README.md", "TASK"))), told
