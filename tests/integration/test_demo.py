# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""`make demo` as somebody runs it for the first time, in a copy of the checkout: its story, its end, its traces."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from driver.checkout import ROOT

PARTS = ("demo", "plugins", "meta", "tests/driver", "tests/lab", "galaxy.yml")
LIMIT = 300  # seconds; it takes about 15 on an idle machine
STEPS = [
    "Roll out:",
    "Run it again:",
    "Somebody edits",
    "Look for drift:",
    "Repair it",
    "Roll out a wrong",
    "Send a test",
]


class Newcomer:
    """A copy of the checkout, in a path with a space, with a home and a folder for temporary files of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkout = folder / "fleet mail"
        for part in PARTS:
            source, target = ROOT / part, self.checkout / part
            target.parent.mkdir(parents=True, exist_ok=True)
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, target, ignore=ignored) if source.is_dir() else shutil.copy(source, target)
        for name in ("home", "tmp"):
            (folder / name).mkdir()

    @contextmanager
    def demo(self) -> Iterator[subprocess.Popen[str]]:
        """Start the demo; whatever happens, it is not left running."""
        kept = ("PATH", "LD_LIBRARY_PATH")
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        environment |= {"HOME": str(self.folder / "home"), "TMPDIR": str(self.folder / "tmp")}
        command = [sys.executable, str(self.checkout / "demo/run.py")]
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        with subprocess.Popen(command, env=environment, cwd=self.folder, **output) as process:
            try:
                yield process
            finally:
                process.terminate()

    def run(self) -> tuple[int, str]:
        with self.demo() as process:
            output = process.communicate(timeout=LIMIT)[0]
        return process.returncode, output

    def state(self) -> dict[str, tuple[int, str]]:
        """Mode and content of everything but .demo."""
        found = {}
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder)
            if ".demo" not in name.parts:
                content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
                found[str(name)] = (path.lstat().st_mode, content)
        return found

    def password(self) -> str:
        """What the last run rolled out."""
        found = re.search(r'(?m)^password "(.*)"$', (self.checkout / ".demo/hosts/web1/etc/msmtprc").read_text())
        assert found
        return found[1]

    def listening(self) -> list[int]:
        """The relay's ports that somebody still listens on."""
        told = yaml.safe_load((self.checkout / ".demo/relay.yml").read_text())
        ports = told["all"]["vars"]["relay_ports"].values()
        return [port for port in ports if _answers(port)]

    def processes(self) -> list[str]:
        """The command lines that have this checkout in them."""
        lines = [_read(file) for file in Path("/proc").glob("[0-9]*/cmdline")]
        return [line for line in lines if str(self.checkout) in line]


def _answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _read(file: Path) -> str:
    try:
        return file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:  # it has ended
        return ""


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Newcomer:
    return Newcomer(tmp_path_factory.mktemp("newcomer"))


def test_ends_cleanly_when_interrupted(newcomer: Newcomer) -> None:
    with newcomer.demo() as process:
        assert process.stdout
        for line in process.stdout:
            if "$ ansible-playbook" in line:
                break
        time.sleep(1)  # until Ansible has workers of its own
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=30)[0]
    assert process.returncode == 130
    assert "Stopped." in output
    assert not newcomer.listening()
    assert not newcomer.processes()
    assert not (newcomer.checkout / ".demo/tmp").exists()


def test_tells_its_story_to_the_end(newcomer: Newcomer) -> None:
    before = newcomer.state()
    code, output = newcomer.run()
    assert code == 0, output
    headings = re.findall(r"(?m)^\d\. (.*)", output)
    assert [heading.startswith(step) for heading, step in zip(headings, STEPS, strict=True)] == [True] * len(STEPS)
    assert re.search(r"\nDone in \d+ s: ", output)
    assert "\033" not in output
    assert newcomer.state() == before
    assert not newcomer.listening()
    assert not newcomer.processes()


def test_shows_what_matters_and_no_secret(newcomer: Newcomer) -> None:
    """In a second run in the same checkout."""
    code, output = newcomer.run()
    assert code == 0, output
    assert "-  validate_certs: false\n" in output
    assert "+  mode of /etc/msmtprc: 0600\n" in output
    assert output.count("rolled_back: true") == 3
    assert re.search(r"\| connection  TLSv1\.[23], .*\n.*\| logged in   fleet\n", output)
    assert "| Subject: Test mail from db1\n" in output
    assert newcomer.password() not in output


def test_tells_when_a_step_goes_otherwise(newcomer: Newcomer) -> None:
    playbook = newcomer.checkout / "demo/site.yml"
    original = playbook.read_text()
    playbook.write_text(original.replace("verify: auth", "verify: connect"))
    try:
        code, output = newcomer.run()
    finally:
        playbook.write_text(original)
    assert code == 1
    assert "This went otherwise than told: web1: the login was not proved" in output
    assert "Done in" not in output
    assert not newcomer.listening()
