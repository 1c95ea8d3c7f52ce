# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role relay_hub against real hosts: leaves without secrets are served, and nobody else."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from integration.oauth_machine import authorize
from lab.authority import Authority
from lab.layers import why_unavailable
from lab.network import Network
from lab.playbook import Played, play, prepared
from lab.relay import Relay, listeners
from lab.space import listen
from lab.tree import RELAY_NAME, Tree

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "the lab is there")

PASSWORD = "pa ss of the hub"
MECHANISMS = ["PLAIN", "LOGIN", "XOAUTH2"]
CA = "/etc/ssl/relay-ca.pem"
CERTIFICATE, KEY, LEAF_CA = "/etc/ssl/hub.pem", "/etc/ssl/hub.key", "/etc/ssl/leaf-ca.pem"
MASTER, MAIN = "/etc/postfix/master.cf", "/etc/postfix/main.cf"
KEPT = "/var/lib/fleetmail/hub"
ROLE = {"name": "hub", "ansible.builtin.include_role": {"name": "fleetmail.smtp.relay_hub"}}
HUB = "hub.example.test"
MAILBOX = "fleet@example.test"
TOKEN = "ya29.the-token-of-the-hub_" + "x" * 1200
SERVICE = {
    "host": RELAY_NAME,
    "security": "starttls",
    "auth_type": "password",
    "username": "fleet",
    "password": PASSWORD,
    "ca_file": CA,
    "from_address": MAILBOX,
    "timeout": 30,
}


class Hub:
    """The hub, one leaf, one host that is none, the relay behind the hub, and certificates for all."""

    def __init__(self, folder: Path, authority: Authority, hosts: list[Tree], relay: Relay) -> None:
        self.folder, self.authority, self.relay = folder, authority, relay
        self.host, self.leaf, self.stranger = hosts
        self.certificates = {name: certificate(folder, name) for name in ("web1", "web2", "mallory")}
        self.pristine = self.host.read(MASTER), self.host.read(MAIN)
        self._now = ""

    def variables(self, **more: Any) -> dict[str, Any]:
        here = {"ansible_package_use": "apt", "relay_hub_packages": [], "relay_hub_service": SERVICE}
        tls = {"relay_hub_certificate": CERTIFICATE, "relay_hub_certificate_key": KEY}
        return {**here, **tls, "relay_hub_networks": [self.leaf.address], **more}

    def play(self, *arguments: str, **variables: Any) -> Played:
        return play(self.folder, [ROLE], [self.host], self.variables(**variables), arguments)

    def made(self, **variables: Any) -> None:
        """It is so afterwards. What already is so costs no play; whatever fails leaves it as it was."""
        wanted = json.dumps(variables)
        if wanted != self._now:
            played = self.play(**variables)
            assert played.code == 0, played.out + played.err + self.host.log()[-3000:]
            self._now = wanted

    def swaks(self, source: Tree, *words: str, to: str = "you@example.org") -> tuple[bool, str]:
        """Hand in a mail from a host, as whoever sits there would; was it taken, and all that was said."""
        given = ["swaks", "--server", self.host.address, "--port", "587", "--from", "app@web1.example.test"]
        tls = [] if "--no-tls" in words else ["--tls"]
        command = [*given, "--to", to, "--timeout", "10", *tls, *(word for word in words if word != "--no-tls")]
        done = subprocess.run(source.net_command(command), capture_output=True, text=True, timeout=60, check=False)
        return done.returncode == 0, done.stdout + done.stderr

    def with_certificate(self, name: str) -> list[str]:
        chain, key = self.certificates[name]
        return ["--tls-cert", str(chain), "--tls-key", str(key)]

    def fingerprint(self, name: str) -> str:
        command = ["openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in", str(self.certificates[name][0])]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().partition("=")[2]


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed one, as a leaf makes it."""
    chain, key = folder / f"{name}.pem", folder / f"{name}.key"
    subject = ["-subj", f"/CN={name}", "-days", "30", "-nodes"]
    made = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-keyout", str(key), "-out", str(chain)]
    subprocess.run(["openssl", "req", "-x509", *made, *subject], capture_output=True, check=True)
    return chain, key


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("hub")
    authority = Authority(folder / "authority")
    known = {"users": {"fleet": PASSWORD}, "tokens": {MAILBOX: TOKEN}, "auth_required": True}
    relay = Relay(listeners(authority.good(RELAY_NAME)), mechanisms=MECHANISMS, **known)
    with (
        Network() as network,
        Tree("postfix-msmtp", name="hub", network=network) as host,
        Tree("postfix", name="web1", network=network) as leaf,
        Tree("bare", name="mallory", network=network) as stranger,
        relay.start(in_net_of=host),
    ):
        own = authority.good(HUB)
        for tree in (host, leaf):
            tree.write(CA, authority.ca_file.read_bytes())
            tree.let_cool()
        host.write(CERTIFICATE, own.chain.read_bytes())
        host.write(KEY, own.key.read_bytes(), mode=0o600)
        host.start("postfix")
        yield Hub(folder, authority, [host, leaf, stranger], relay)


def served(hub: Hub, source: Tree, *words: str) -> None:
    hub.relay.forget()
    taken, said = hub.swaks(source, *words)
    assert taken, said
    mail = hub.relay.wait_for_message()
    assert (mail.sender, mail.recipients, mail.auth_user) == (MAILBOX, ["you@example.org"], b"fleet")


def refused(hub: Hub, source: Tree, *words: str, to: str = "you@example.org") -> str:
    """Nothing is handed in; gives what was said."""
    taken, said = hub.swaks(source, *words, to=to)
    assert not taken, said
    assert "queued as" not in said
    return said


def test_check_real_check_real_and_the_leaf_is_served(hub: Hub) -> None:
    planned = hub.play("--check", "--diff", relay_hub_packages=["postfix"])
    assert planned.code == 0, planned.out + planned.err
    assert planned.of("fleetmail.smtp.relay_hub : The hub's entry")["changed"]
    assert (hub.host.read(MASTER), hub.host.read(MAIN)) == hub.pristine

    hub.made()
    for arguments in (("--check",), ()):
        again = hub.play(*arguments)
        assert again.code == 0, again.out + again.err
        assert not [one.task for one in again.results if one.result.get("changed")], again.out
    served(hub, hub.leaf)
    restrictions = hub.host.output(["postconf", "-P", "0.0.0.0:587/inet/smtpd_relay_restrictions"])
    assert restrictions.endswith("= permit_mynetworks,reject")
    assert hub.host.output(["postconf", "-h", "smtpd_tls_cert_file"]), (
        "Debian's own, which the entry is not to speak of"
    )
    assert "legacy" not in hub.host.log()
    assert not list(hub.host.path.glob("etc/postfix/*~"))


def test_nobody_else_is_served(hub: Hub) -> None:
    hub.made()
    hub.relay.forget()
    for to in (
        "you@example.org",
        "root@hub.example.test",
        "root@localhost",
        "postmaster",
        "you%example.org@hub.example.test",
        "@hub.example.test:you@example.org",
        "you@[127.0.0.1]",
        f"you@[{hub.host.address}]",
        '"you@example.org"@hub.example.test',
        "hub.example.test!you@example.org",
    ):
        assert "Access denied" in refused(hub, hub.stranger, to=to), to
    for words in (
        ("--no-tls",),
        ("--auth", "PLAIN", "--auth-user", "fleet", "--auth-password", PASSWORD),
        ("--xclient-addr", hub.leaf.address),
        ("--proxy-version", "1", "--proxy-family", "TCP4", "--proxy-source", hub.leaf.address, "--proxy-source-port",
         "4711", "--proxy-dest", hub.host.address, "--proxy-dest-port", "587"),
        hub.with_certificate("web1"),
        ("--from", MAILBOX),
        ("--helo", "web1.example.test"),
    ):  # fmt: skip
        refused(hub, hub.stranger, *words)
    assert "Access denied" in refused(hub, hub.host), "the hub's own loopback is none of the leaves"
    assert "STARTTLS" in refused(hub, hub.leaf, "--no-tls")
    assert hub.relay.messages() == []


def test_certificates_by_fingerprint(hub: Hub) -> None:
    clients = [{"name": "web1", "fingerprint": hub.fingerprint("web1")}]
    hub.made(relay_hub_networks=[], relay_hub_clients=clients)
    served(hub, hub.stranger, *hub.with_certificate("web1"))
    hub.relay.forget()
    refused(hub, hub.stranger)
    refused(hub, hub.stranger, *hub.with_certificate("mallory"))
    refused(hub, hub.leaf)

    hub.made(relay_hub_clients=clients)
    served(hub, hub.leaf, *hub.with_certificate("web1"))
    hub.relay.forget()
    refused(hub, hub.stranger, *hub.with_certificate("web1"))
    refused(hub, hub.leaf, *hub.with_certificate("web2"))


def test_certificates_by_their_authority(hub: Hub) -> None:
    leaves, others = Authority(hub.folder / "leaves"), Authority(hub.folder / "others")
    hub.host.write(LEAF_CA, leaves.ca_file.read_bytes())
    good, bad = leaves.good("web1.example.test"), others.good("web1.example.test")
    hub.made(relay_hub_networks=[], relay_hub_client_ca=LEAF_CA)
    served(hub, hub.leaf, "--tls-cert", str(good.chain), "--tls-key", str(good.key))
    refused(hub, hub.leaf, "--tls-cert", str(bad.chain), "--tls-key", str(bad.key))
    refused(hub, hub.leaf, *hub.with_certificate("web1"))
    refused(hub, hub.leaf)


def test_a_real_leaf_without_any_secret(hub: Hub) -> None:
    hub.made()
    hub.relay.forget()
    hub.leaf.start("postfix")
    options = {"backend": "postfix", "host": HUB, "security": "starttls", "ca_file": CA, "verify": "tls"}
    task = {"name": "leaf", "fleetmail.smtp.smtp_service": options}
    played = play(hub.folder / "leaf", [task], [hub.leaf])
    assert played.code == 0, played.out + played.err
    hub.leaf.run(["sendmail", "-f", "app@web1.example.test", "you@example.org"], b"Subject: leaf\n\nhello\n")
    mail = hub.relay.wait_for_message()
    assert (mail.sender, mail.auth_user) == (MAILBOX, b"fleet")


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"relay_hub_networks": ["0.0.0.0/0"], "relay_hub_listen": ["0.0.0.0:25"]}, "too wide"),
        ({"relay_hub_service": {**SERVICE, "password": "wrong", "verify": "auth"}}, "refused user name or password"),
    ],
)
def test_what_is_refused_changes_nothing(hub: Hub, variables: dict[str, Any], told: str) -> None:
    hub.made()
    before = hub.host.read(MASTER), hub.host.read(MAIN)
    played = hub.play(**variables)
    assert played.code != 0
    assert told in played.out, played.out
    assert (hub.host.read(MASTER), hub.host.read(MAIN)) == before
    assert hub.host.run(["postfix", "status"], check=False).returncode == 0


@contextlib.contextmanager
def killed_before_the_reload(hub: Hub, **variables: Any) -> Iterator[None]:
    """A run that ends where Postfix is told to read what was written: by SIGKILL, as in a power cut."""
    stopped = "/var/tmp/reloading"
    hub.host.run(["mv", "/usr/sbin/postfix", "/usr/sbin/postfix.away"])
    script = (
        f'#!/bin/sh\n[ "$1" != reload ] || {{ touch {stopped}; sleep 3; exit 1; }}\nexec /usr/sbin/postfix.away "$@"\n'
    )
    hub.host.write("/usr/sbin/postfix", script, 0o755)
    folder = hub.folder / "killed"
    command, settings = prepared(folder, [ROLE], [hub.host], hub.variables(**variables))
    try:
        with subprocess.Popen(command, cwd=folder / "input", env=settings, stdout=subprocess.DEVNULL) as process:
            end = time.monotonic() + 60
            while not hub.host.exists(stopped):
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.05)
            process.kill()
        yield
    finally:
        hub.host.run(["sh", "-c", f"mv /usr/sbin/postfix.away /usr/sbin/postfix; rm -f {stopped}"])


def test_what_a_killed_run_left_half_done_the_next_one_completes(hub: Hub) -> None:
    hub.made()
    elsewhere = {"relay_hub_listen": ["0.0.0.0:587", "0.0.0.0:2587"]}
    with killed_before_the_reload(hub, **elsewhere):
        assert "2587" in hub.host.read(MASTER).decode()
    hub.made(**elsewhere)
    served(hub, hub.leaf, "--port", "2587")
    assert not hub.host.exists(KEPT)


def test_what_a_killed_run_began_and_the_next_one_cannot_do_is_put_back(hub: Hub) -> None:
    hub.made()
    before = hub.host.read(MASTER)
    with killed_before_the_reload(hub, relay_hub_listen=["0.0.0.0:2588"]):
        assert hub.host.read(MASTER) != before
    with listen("0.0.0.0", 2588, hub.host):
        played = hub.play(relay_hub_listen=["0.0.0.0:2588"])
    assert played.code != 0
    assert "what was there before is back" in played.out
    assert hub.host.read(MASTER) == before
    assert not hub.host.exists(KEPT)
    assert hub.host.run(["postfix", "status"], check=False).returncode == 0
    served(hub, hub.leaf)


def test_what_could_not_be_put_back_is_kept_for_the_next_run(hub: Hub) -> None:
    hub.made()
    before = hub.host.read(MASTER)
    hub.host.run(["mv", "/usr/sbin/postfix", "/usr/sbin/postfix.away"])
    script = '#!/bin/sh\ncase $1 in reload | start) exit 1 ;; esac\nexec /usr/sbin/postfix.away "$@"\n'
    hub.host.write("/usr/sbin/postfix", script, 0o755)
    try:
        played = hub.play(relay_hub_listen=["0.0.0.0:2589"])
    finally:
        hub.host.run(["mv", "/usr/sbin/postfix.away", "/usr/sbin/postfix"])
    assert played.code != 0
    assert hub.host.read(f"{KEPT}/master.cf") == before
    assert hub.play().code == 0
    assert hub.host.read(MASTER) == before
    assert not hub.host.exists(KEPT)
    served(hub, hub.leaf)


def test_a_key_that_does_not_fit_is_put_back(hub: Hub) -> None:
    hub.made()
    before = hub.host.read(MASTER)
    other = hub.authority.good("other.example.test")
    hub.host.write("/etc/ssl/other.key", other.key.read_bytes(), mode=0o600)
    played = hub.play(relay_hub_certificate_key="/etc/ssl/other.key")
    assert played.code != 0
    assert "what was there before is back" in played.out, played.out
    assert hub.host.read(MASTER) == before
    served(hub, hub.leaf)


def test_the_hub_holds_the_grant_and_the_leaves_mail_until_it_is_given(hub: Hub) -> None:
    oauth = {"auth_type": "oauth", "username": MAILBOX, "client_id": "hub", "oauth_provider": "google"}
    kept = {name: SERVICE[name] for name in ("host", "security", "ca_file", "from_address")}
    hub.made(relay_hub_service={**kept, **oauth})
    hub.relay.forget()
    taken, said = hub.swaks(hub.leaf)
    assert taken, said
    hub.host.wait_for_log("status=deferred")
    assert hub.relay.messages() == []
    authorize(hub.host, TOKEN)
    mail = hub.relay.wait_for_message()
    assert (mail.sender, mail.auth_user) == (MAILBOX, MAILBOX.encode())
    assert TOKEN not in hub.host.log()


def test_absent_gives_back_what_was_there(hub: Hub) -> None:
    hub.made()
    for arguments, changes in ((("--check",), True), ((), True), ((), False)):
        played = hub.play(*arguments, relay_hub_state="absent")
        assert played.code == 0, played.out + played.err
        assert bool([one.task for one in played.results if one.result.get("changed")]) is changes, played.out
    assert (hub.host.read(MASTER), hub.host.read(MAIN)) == hub.pristine
    refused(hub, hub.leaf)


def test_a_bare_host_in_check_mode(hub: Hub) -> None:
    with Tree("bare", name="bare") as tree:
        played = play(hub.folder / "bare", [ROLE], [tree], hub.variables(relay_hub_packages=["postfix"]), ["--check"])
    assert played.code == 0, played.out + played.err
    assert [one.task for one in played.results if one.result.get("changed")]
