# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbooks of README and guides as a reader runs them, in their order, and the output that they show."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import documents
import pytest
from lab.authority import Authority
from lab.layers import why_unavailable
from lab.relay import Relay, listeners
from lab.tree import RELAY_NAME, Tree

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable())

BIN = Path(sys.executable).parent
PLUGINS = Path(__file__).parents[1] / "lab/plugins/connection"
PASSWORDS = {"smtp_password": "pass word of fleet", "smtp_password_invoices": "pass word of invoices"}
SECRETS = "".join(f"{name}: {value}\n" for name, value in PASSWORDS.items())
CA_FILE = "/etc/ssl/relay-ca.pem"
MAIN = "/etc/postfix/main.cf"
DRIFTED = 2


class Reader:
    """A person at a control node with one host, who copies the files of a document and runs them."""

    def __init__(self, folder: Path, host: Tree, relay: Relay) -> None:
        self.folder, self.host, self.relay = folder, host, relay
        # whose rights a task has is the lab's matter: it enters the host as root
        (folder / "hosts").write_text(f"{host.inventory_line()} ansible_become=false ansible_package_use=apt\n")
        (folder / "ansible.cfg").write_text("[defaults]\n")
        (folder / "vault-password").write_text("of the vault")

    def copies(self, document: str) -> None:
        for name, text in documents.files(document).items():
            (self.folder / name).write_text(text)

    def encrypts(self, path: str) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(SECRETS)
        self._run("ansible-vault", "encrypt", path)

    def plays(self, name: str, *arguments: str, ends: int = 0) -> str:
        done = self._run("ansible-playbook", "-i", "hosts", name, *arguments)
        assert done.returncode == ends, done.stdout + done.stderr
        assert not any(secret in done.stdout + done.stderr for secret in PASSWORDS.values())
        return done.stdout

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [BIN / program, *arguments, "--vault-password-file", "vault-password"]
        settings = {
            "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"),
            "ANSIBLE_HOME": str(self.folder / "home"),
            "ANSIBLE_CONNECTION_PLUGINS": str(PLUGINS),
            "ANSIBLE_NOCOLOR": "1",
        }
        environment = {**os.environ, **settings}
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120, check=False
        )


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    authority = Authority(tmp_path / "authority")
    users = {"fleet": PASSWORDS["smtp_password"], "invoices": PASSWORDS["smtp_password_invoices"]}
    relay = Relay(listeners(authority.good(RELAY_NAME)), users=users, auth_required=True)
    folder = tmp_path / "plays"
    folder.mkdir()
    (folder / "relay-ca.pem").write_bytes(authority.ca_file.read_bytes())
    with Tree("postfix", name="web1") as host, relay.start(in_net_of=host):
        host.run(["sh", "-c", "rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin"])  # apt is quick without: all is there
        host.start("postfix")
        yield Reader(folder, host, relay)


def edit_by_hand(host: Tree) -> None:
    """What the documents say that somebody did."""
    host.run(["postconf", "-e", "smtp_tls_security_level=may"])
    host.run(["chmod", "644", "/etc/postfix/fleetmail-default.a.db"])


def submit(host: Tree) -> None:
    host.run(["sendmail", "-f", "app@web1.example.test", "someone@example.test"], b"Subject: t\n\nhello\n")


def without_blank_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


def contains(whole: Sequence[str], part: Sequence[str]) -> bool:
    """Do these lines stand in the whole, in one piece?"""
    return any(list(whole[start : start + len(part)]) == list(part) for start in range(len(whole)))


def test_the_guide_to_enforcing_a_relay(reader: Reader) -> None:
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


def test_the_guide_to_auditing(reader: Reader) -> None:
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


def test_the_readme(reader: Reader) -> None:
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
