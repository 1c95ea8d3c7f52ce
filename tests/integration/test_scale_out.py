# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guide to larger fleets to the letter: slices, AWX's way of making them, ansible-runner, -pull and -builder."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import documents
import pytest
import yaml
from driver.checkout import ROOT, copied
from integration.reader import BIN, PLUGINS, Reader
from lab import machine
from lab.authority import Authority
from lab.layers import why_unavailable
from lab.machine import Machine
from lab.network import RELAY_ADDRESS, RELAY_NAME, Network
from lab.relay import Relay, listeners
from lab.space import Space
from lab.tree import Tree

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "the lab is there")

GUIDE = "guide_scale"
CA_FILE = "/etc/ssl/relay-ca.pem"
PASSWORD, VAULT_PASSWORD = "Sc4leOutYhNuJm28", "Sc4leVaultQwPo91"
WITHOUT_CHECKOUT = {name: value for name, value in os.environ.items() if name != "ANSIBLE_COLLECTIONS_PATH"}
SOFTWARE = {"web1": "postfix", "web2": "exim", "web3": "msmtp"}
ARCHIVE = "fleetmail-smtp-0.1.0.tar.gz"
COMMANDS = {
    "canary": "rollout_hosts=web1",
    "slice 1": "== 1' > slice-1$",
    "slice 2": "== 0' > slice-2$",
    "rollout of slice 1": "rollout --limit @slice-1",
    "drift of slice 1": "drift --limit @slice-1",
    "drift of slice 2": "drift --limit @slice-2",
    "merge": "inventory merge.yml$",
    "build": "^ansible-builder create$",
    "job": "^mkdir .*job",
    "runner": "transmit job .* worker .* process results$",
    "collection": "^ansible-galaxy collection install .* -p collections$",
    "prepare": "prepare_pull.yml$",
    "pull": "^ansible-pull .* drift.yml$",
    "collect": "inventory collect.yml merge.yml$",
}
FILES = {
    *("ansible.cfg", "merge.yml", "drift.yml", "rollout.yml", "slice.yml", "execution-environment.yml"),
    *("job/env/extravars", "worker/.ansible.cfg", "pull.yml", "prepare_pull.yml", "mail-pull.service"),
    *("mail-pull.timer", "collect.yml"),
}
DRIFTED = 2


class ControlNode(Reader):
    """A reader with the inventory of the guide to a fleet, and a shell."""

    def __init__(self, folder: Path, hosts: Sequence[Tree]) -> None:
        super().__init__(folder, {}, {"smtp_password": PASSWORD})
        for guide in ("guide_fleet", GUIDE):
            self.copies(guide)
        for name in ("vault-password", ".vault-password"):
            self.has(name, VAULT_PASSWORD)
        self.encrypts("inventory/group_vars/mail_clients/vault.yml")
        self.reaches(hosts)

    def reaches(self, hosts: Sequence[Tree]) -> None:
        for host in hosts:
            self.has(f"inventory/host_vars/{host.name}.yml", yaml.safe_dump(way_to(host)))

    def runs(self, command: str, ends: int = 0, before: str = "") -> str:
        """A command line of the guide, in a shell; ``before``: what that shell is told first."""
        environment = {**self._environment(), "HOME": str(self.folder), "PATH": f"{self.folder}/bin:{self.path()}"}
        done = subprocess.run(
            ["bash", "-c", f"{before}\n{command}"],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == ends, done.stdout + done.stderr
        self._tells_no_secret(done.stdout + done.stderr)
        return done.stdout + done.stderr

    def _tells_no_secret(self, shown: str) -> None:
        super()._tells_no_secret(shown)
        assert VAULT_PASSWORD not in shown

    @staticmethod
    def path() -> str:
        return f"{BIN}:{os.environ['PATH']}"

    def report(self, folder: str = "fleetmail-report") -> dict[str, dict[str, Any]]:
        """The hosts of a report by their names, each of which is in it once."""
        hosts = json.loads((self.folder / folder / "report.json").read_text())["hosts"]
        named = {host["name"]: host for host in hosts}
        assert len(named) == len(hosts)
        return named

    def fates(self, folder: str = "fleetmail-report") -> dict[str, str]:
        return {name: host["status"] for name, host in self.report(folder).items()}


def way_to(host: Tree) -> dict[str, Any]:
    """The variables by which the laboratory's connection finds a host."""
    pairs = (pair.split("=", 1) for pair in Tree.inventory_line(host).split()[1:])
    return {**dict(pairs), "ansible_become": False, "ansible_package_use": "apt"}


def command(name: str) -> str:
    """The guide's command line of this name."""
    (found,) = (one for one in documents.commands(GUIDE) if re.search(COMMANDS[name], one))
    return found


def test_every_command_and_file_of_the_guide_is_known_here() -> None:
    shown = documents.commands(GUIDE)
    assert sorted(shown) == sorted(command(name) for name in COMMANDS)
    assert set(documents.files(GUIDE)) == FILES


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection as `ansible-galaxy collection build` packs it, out of the tracked files as they are now."""
    folder = tmp_path_factory.mktemp("archive")
    with copied() as collection:
        build = [BIN / "ansible-galaxy", "collection", "build", str(collection), "--output-path", str(folder)]
        subprocess.run(build, check=True, capture_output=True)
    return folder / ARCHIVE


class Fleet(NamedTuple):
    """Three hosts, one of each software, with the inventory's definition, and their control node."""

    hosts: dict[str, Tree]
    relay: Relay
    node: ControlNode


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    relay = Relay(listeners(authority.good(RELAY_NAME)), users={"fleet": PASSWORD}, auth_required=True)
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(Network())
        hosts = {}
        for name, role in SOFTWARE.items():
            hosts[name] = host = stack.enter_context(Tree(role, name=name, network=network))
            host.write(CA_FILE, authority.ca_file.read_bytes())
            if role == "postfix":
                host.let_cool()
            if role != "msmtp":
                host.start(role)
        stack.enter_context(relay.start(in_net_of=network))
        node = ControlNode(tmp_path_factory.mktemp("node"), list(hosts.values()))
        roll_out_in_slices(Fleet(hosts, relay, node))
        yield Fleet(hosts, relay, node)


def roll_out_in_slices(fleet: Fleet) -> None:
    """As the guide has it: the canary by itself, then two slices."""
    node = fleet.node
    node.runs(command("canary"))
    assert node.fates() == {"web1": "changed"}
    assert [mail.recipients for mail in fleet.relay.messages()] == [["oncall@example.test"]]
    assert not fleet.hosts["web3"].exists("/etc/msmtprc")
    for number in (1, 2):
        node.runs(command(f"slice {number}"))
    slices = [(node.folder / f"slice-{number}").read_text().split() for number in (1, 2)]
    assert slices == [["web1", "web3"], ["web2"]]
    first = command("rollout of slice 1")
    node.runs(first)
    node.runs(first.replace("slice-1", "slice-2").replace("slice 1", "slice 2"))
    assert node.fates("reports/slice-1") == {"web1": "compliant", "web3": "changed"}
    assert node.fates("reports/slice-2") == {"web2": "changed"}


def loosen(host: Tree) -> None:
    """Somebody lets everybody read the password of web2."""
    os.chmod(host.inside("/etc/exim4/passwd.client"), 0o644)


def test_slices_of_an_inventory(fleet: Fleet) -> None:
    node = fleet.node
    assert re.search(r"DEFAULT_FORKS.* = 50\n", told := node.runs("ansible-config dump --only-changed"))
    assert re.search(r"PIPELINING.* = True\n", told)
    loosen(fleet.hosts["web2"])
    node.runs(command("drift of slice 1"))
    node.runs(command("drift of slice 2"), ends=DRIFTED)
    assert "drifting: web2" in " ".join(node.runs(command("merge"), ends=DRIFTED).split())
    assert {name: (host["status"], host["source"]) for name, host in node.report().items()} == {
        "web1": ("compliant", "slice 1 of 2"),
        "web2": ("drifting", "slice 2 of 2"),
        "web3": ("compliant", "slice 1 of 2"),
    }
    node.runs("ansible-playbook -i inventory fleetmail.smtp.audit --limit @slice-2 -e audit_report=reports/slice-2")
    assert node.fates("reports/slice-2") == {"web2": "audited"}
    assert "secret-readable" in str(node.report("reports/slice-2"))


class Worker:
    """Another machine's user: a home, a process group, an environment and the installed collection of their own."""

    def __init__(self, folder: Path, archive: Path) -> None:
        self.folder = folder
        self.temporary = folder / "tmp"
        self.temporary.mkdir(parents=True)
        (folder / ".vault-password").write_text(VAULT_PASSWORD)
        settings = documents.files(GUIDE)["worker/.ansible.cfg"]
        (folder / ".ansible.cfg").write_text(f"{settings}connection_plugins = {PLUGINS}\n")
        self.runs(["ansible-galaxy", "collection", "install", str(archive)])

    def command(self) -> list[str]:
        clean = ["env", "-i", f"HOME={self.folder}", f"PATH={ControlNode.path()}", f"TMPDIR={self.temporary}"]
        return ["setsid", "--wait", "env", f"--chdir={self.folder}", *clean]

    def runs(self, argv: Sequence[str], stdin: bytes = b"", ends: int = 0) -> bytes:
        done = subprocess.run([*self.command(), *argv], input=stdin, capture_output=True, timeout=300, check=False)
        assert done.returncode == ends, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def worker(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Worker:
    return Worker(tmp_path_factory.mktemp("worker"), archive)


def holds_no_secret(folder: Path, but: Sequence[str] = ()) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and path.name not in but:
            content = path.read_bytes()
            assert not [one for one in (PASSWORD, VAULT_PASSWORD) if one.encode() in content], path


def members_of(stream: bytes) -> dict[str, bytes]:
    """The files in what transmit sends: a line of arguments, one with the archive's size, and the archive in Base64."""
    _arguments, size, rest = stream.split(b"\n", 2)
    length = -(-json.loads(size)["zipfile"] // 3) * 4
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(rest[:length]))) as files:
        return {name: files.read(name) for name in files.namelist()}


def sliced(number: int, count: int, hosts: dict[str, dict[str, Any]]) -> str:
    """The inventory that a job of AWX gets: a script, with no host but those of its slice."""
    own = {name: hosts[name] for name in sorted(hosts)[number - 1 :: count]}
    groups = {"all": {"children": ["mail_clients"]}, "mail_clients": {"hosts": list(own)}}
    return f"#!/bin/sh\ncat <<'EOF'\n{json.dumps({'_meta': {'hostvars': own}, **groups})}\nEOF\n"


def test_a_job_on_another_machine(fleet: Fleet, worker: Worker) -> None:
    """The guide's command, with an ssh that leads to the worker."""
    node = fleet.node
    node.has("bin/ssh", f'#!/bin/sh\n[ "$1" = worker1 ] && shift && exec {" ".join(worker.command())} "$@"\n')
    (node.folder / "bin/ssh").chmod(0o755)
    loosen(fleet.hosts["web2"])
    node.runs(command("job"))
    shown = node.runs(command("runner"), ends=DRIFTED, before="set -o pipefail")
    assert "drifting: web2" in shown
    artifacts = node.folder / "results/artifacts"
    assert (artifacts / "rc").read_text() == str(DRIFTED)
    fates = {"web1": "compliant", "web2": "drifting", "web3": "compliant"}
    assert node.fates("results/artifacts/fleetmail-report") == fates
    environment = json.loads((artifacts / "command").read_text())["env"]
    assert environment["HOME"] == str(worker.folder)
    assert "ANSIBLE_COLLECTIONS_PATH" not in environment
    holds_no_secret(node.folder / "results")
    assert not list(worker.temporary.iterdir())
    holds_no_secret(worker.folder, but=[".vault-password"])


class Awx:
    """Jobs as AWX runs them: a playbook of the project, a part of the inventory, the variables of the template."""

    def __init__(self, fleet: Fleet, worker: Worker, folder: Path) -> None:
        self.folder, self.worker, self.vault = folder, worker, fleet.node.folder / "inventory/group_vars"
        self.shared = folder / "reports"
        lost = {"ansible_connection": "lab", "lab_pid": 999999999, "lab_root": "/nonexistent"}
        self.hosts = {"lost": lost, **{name: way_to(host) for name, host in fleet.hosts.items()}}

    def runs(self, number: int, playbook: str, ends: int, **more: str) -> str:
        """Slice NUMBER of two, by transmit, worker and process, each seen to tell no secret; what is shown."""
        sent = self._run("transmit", self._job(number, playbook, more), "-p", playbook)
        files = members_of(sent)
        assert files["inventory/group_vars/mail_clients/vault.yml"].startswith(b"$ANSIBLE_VAULT")
        assert not [name for name, text in files.items() if PASSWORD.encode() in text]
        came = self.worker.runs(["ansible-runner", "worker"], sent, ends)
        results = self.folder / f"results-{number}-{playbook}"
        shown = self._run("process", results, given=came)
        assert (results / "artifacts/rc").read_text() == str(ends)
        holds_no_secret(results)
        return " ".join(shown.decode().split())

    def _job(self, number: int, playbook: str, more: dict[str, str]) -> Path:
        job, shown = self.folder / f"job-{number}-{playbook}", documents.files(GUIDE)
        shutil.copytree(self.vault, job / "inventory/group_vars")
        (job / "inventory/hosts").write_text(sliced(number, 2, self.hosts))
        (job / "inventory/hosts").chmod(0o755)
        for name in ("project", "env"):
            (job / name).mkdir()
        (job / "project" / playbook).write_text(shown[playbook])
        template = yaml.safe_load(shown["slice.yml"].replace("/srv/reports", str(self.shared)))
        (job / "env/extravars").write_text(json.dumps({**template, "awx_job_id": str(40 + number), **more}))
        return job

    @staticmethod
    def _run(does: str, folder: Path, *more: str, given: bytes = b"") -> bytes:
        """Ends with 0 whatever the worker has told."""
        return subprocess.run(
            [BIN / "ansible-runner", does, folder, *more], input=given, capture_output=True, check=True
        ).stdout


def test_slices_as_awx_makes_them(fleet: Fleet, worker: Worker, tmp_path: Path) -> None:
    """Each job knows the hosts of its slice alone; one host is lost."""
    awx = Awx(fleet, worker, tmp_path)
    fleet.relay.forget()
    new = {"rollout_test_to": "oncall@example.test", "relay_client_from_address": "fleet@example.test"}
    assert "no host of the inventory is web1" in awx.runs(1, "rollout.yml", DRIFTED, rollout_canary="web1", **new)
    assert not fleet.relay.messages()
    awx.runs(2, "rollout.yml", 0, **new)
    assert [one.recipients for one in fleet.relay.messages()] == [["oncall@example.test"]], "each slice has its canary"
    awx.runs(1, "drift.yml", DRIFTED, **new)
    pattern = json.dumps({"fleet_report_merge": [f"{awx.shared}/*/report.json"]})
    fleet.node.runs(f"{command('merge')} -e '{pattern}'", ends=DRIFTED)
    assert {name: (host["status"], host["source"]) for name, host in fleet.node.report().items()} == {
        "lost": ("unreachable", "job 41"),
        "web1": ("changed", "job 42"),
        "web2": ("drifting", "job 41"),
        "web3": ("changed", "job 42"),
    }
    holds_no_secret(awx.shared)


@contextlib.contextmanager
def git_server(network: Space, folder: Path) -> Iterator[None]:
    """A server for all repositories in a folder, beside the hosts."""
    serve = [f"--listen={RELAY_ADDRESS}", "--reuseaddr", "--export-all", f"--base-path={folder}", str(folder)]
    server = subprocess.Popen(network.net_command(["git", "daemon", *serve]), stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        server.terminate()
        server.wait()


def repository(node: ControlNode, folder: Path) -> None:
    """fleet.git, of what the guide says is in it."""
    for argv in (
        ["init", "--quiet"],
        ["add", "inventory/hosts.yml", "inventory/group_vars", "collections", "pull.yml", "drift.yml"],
        ["-c", "user.name=fleet", "-c", "user.email=fleet@example.test", "commit", "--quiet", "-m", "The fleet"],
        ["clone", "--quiet", "--bare", ".", str(folder / "fleet.git")],
    ):
        subprocess.run(["git", *argv], cwd=node.folder, check=True)


@pytest.mark.skipif(bool(machine.why_unavailable()), reason=machine.why_unavailable() or "machines can run here")
def test_hosts_that_run_themselves(archive: Path, tmp_path: Path) -> None:
    """Two machines with Debian 13, their own Ansible and systemd, and a third that never runs."""
    authority = Authority(tmp_path / "authority")
    relay = Relay(listeners(authority.good(RELAY_NAME)), users={"fleet": PASSWORD}, auth_required=True)
    node = ControlNode(tmp_path / "node", [])
    node.has(ARCHIVE, archive.read_bytes())
    node.runs(f"unset ANSIBLE_COLLECTIONS_PATH; {command('collection')}")
    repository(node, tmp_path)
    with (
        Network() as network,
        Machine("fleet-pull", "trixie", name="web1", network=network) as web1,
        Machine("fleet-pull", "trixie", name="web2", network=network) as web2,
        relay.start(in_net_of=network),
        git_server(network, tmp_path),
    ):
        both = [web1, web2]
        for host in both:
            host.write(CA_FILE, authority.ca_file.read_bytes())
            host.write("/etc/gitconfig", f'[url "git://{RELAY_ADDRESS}/"]\n\tinsteadOf = https://git.example.test/\n')
        node.reaches(both)
        limit = " --limit web1,web2"
        node.runs(command("prepare") + limit + " --diff")
        for host in both:
            assert host.output(["systemctl", "is-active", "mail-pull.timer"]) == "active"
            started = host.run(["systemctl", "start", "mail-pull.service"], check=False, timeout=300)
            assert started.returncode == 0, host.output(["journalctl", "--no-pager", "-u", "mail-pull.service"])
            host.run(["sendmail", "-f", f"app@{host.full_name}", "oncall@example.test"], b"Subject: Hello\n\n")
        relay.wait_for_message(count=len(both))
        assert {mail.auth_user for mail in relay.messages()} == {b"fleet"}

        host = web2
        host.run(["postconf", "-e", "smtp_tls_security_level=may"])
        pull = command("pull")
        done = host.run(["sh", "-c", pull], check=False, timeout=300)
        assert done.returncode == DRIFTED, done.stdout + done.stderr
        (drift,) = json.loads(host.read("/var/lib/mail-pull/drift/report.json"))["hosts"]
        assert (drift["name"], drift["status"]) == ("web2", "drifting")
        assert host.output(["postconf", "-h", "smtp_tls_security_level"]) == "may"

        node.runs(command("collect") + limit + ",localhost", ends=DRIFTED)
        assert node.fates() == {"web1": "changed", "web2": "changed", "web3": "unknown"}
        for host in both:
            journal = host.output(["journalctl", "--no-pager"])
            assert "Mail goes through the relay" in journal
            assert not [one for one in (PASSWORD, VAULT_PASSWORD) if one in journal]
            assert os.stat(host.inside("/etc/mail-pull.vault")).st_mode & 0o777 == 0o600
    holds_no_secret(node.folder / "reports")


def test_execution_environment(archive: Path, tmp_path: Path) -> None:
    """The context that ansible-builder makes; its first step, and what that finds of the collection's needs."""
    folder = tmp_path / "fleet"
    folder.mkdir()
    shown = documents.files(GUIDE)["execution-environment.yml"]
    (folder / "execution-environment.yml").write_text(shown)
    (folder / ARCHIVE).write_bytes(archive.read_bytes())
    assert yaml.safe_load(shown) == yaml.safe_load((ROOT / "docs/execution-environment.yml").read_text())
    assert f"version: {ARCHIVE.split('-')[2].removesuffix('.tar.gz')}\n" in (ROOT / "galaxy.yml").read_text()

    def run(*argv: str, at: Path = folder) -> str:
        command_line = [BIN / argv[0], *argv[1:]]
        done = subprocess.run(command_line, cwd=at, env=WITHOUT_CHECKOUT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "WARNING" not in run(*command("build").split())
    context = folder / "context"
    (recipe,) = (path.read_text() for path in context.iterdir() if path.suffix == "" and path.is_file())
    assert 'ARG EE_BASE_IMAGE="almalinux:10"' in recipe
    assert all(one in recipe for one in ("ansible-core>=2.18", "ansible-runner>=2.4"))
    assert "ansible-galaxy collection install" in recipe
    assert "openssh-clients" in (context / "_build/bindep.txt").read_text()
    build = context / "_build"  # the folder in which the image's build installs the collections
    run(
        "ansible-galaxy", "collection", "install", "-r", "requirements.yml", "-p", str(tmp_path / "installed"), at=build
    )
    found = yaml.safe_load(run("ansible-builder", "introspect", str(tmp_path / "installed")))
    assert [one.split()[0] for one in found["python"]] == ["requests>=2.28"]
