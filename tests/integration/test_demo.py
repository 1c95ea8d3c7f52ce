# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""`make demo` as somebody runs it for the first time, in a copy of the checkout: its story, its end, its traces."""

from __future__ import annotations

import hashlib
import json
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
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from driver.checkout import ROOT
from lab.browser import PROGRAM, why_unavailable

PARTS = ("demo", "plugins", "roles", "meta", "tests/driver", "tests/lab", "galaxy.yml")
REPORT = {"report.html", "report.json", "report.csv", "junit.xml", "fleetmail_report.prom"}
LIMIT = 300  # seconds; it takes about 15 on an idle machine
STEPS = [
    "Roll out:",
    "Run it again:",
    "Somebody edits",
    "Look for drift:",
    "Repair it",
    "Roll out a wrong",
    "Send a test",
    "Read the report:",
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


@pytest.fixture(scope="module")
def output(newcomer: Newcomer) -> str:
    """What a second run in the same checkout says."""
    code, output = newcomer.run()
    assert code == 0, output
    return output


def test_shows_what_matters_and_no_secret(newcomer: Newcomer, output: str) -> None:
    assert "-  validate_certs: false\n" in output
    assert "+  mode of /etc/msmtprc: 0600\n" in output
    assert output.count("rolled_back: true") == 3
    assert re.search(r"\| connection  TLSv1\.[23], .*\n.*\| logged in   fleet\n", output)
    assert "| Subject: Test mail from db1\n" in output
    assert newcomer.password() not in output


def reported(newcomer: Newcomer, name: str) -> dict[str, dict[str, Any]]:
    """A report's hosts by name; all of its files are there, and none has the password in it."""
    folder = newcomer.checkout / ".demo/report" / name
    texts = {file.name: file.read_text() for file in folder.iterdir()}
    assert set(texts) == REPORT
    assert not any(newcomer.password() in text for text in texts.values())
    return {host["name"]: host for host in json.loads(texts["report.json"])["hosts"]}


def test_ends_with_the_report_of_its_hosts(newcomer: Newcomer, output: str) -> None:
    """With both pages that it names, in a path with a space: what the drift check found, and how it is now."""
    pages = re.findall(r"(?m)^  .* (file://\S+)$", output)
    files = [Path(unquote(urlsplit(page).path)) for page in pages]
    names = ["drift-check", "last-run"]
    assert files == [newcomer.checkout / ".demo/report" / name / "report.html" for name in names]
    found, after = (reported(newcomer, name) for name in names)

    assert {host: one["status"] for host, one in found.items()} == {
        "web1": "compliant", "web2": "drifting", "db1": "compliant",
    }  # fmt: skip
    drift = [(one["field"], one["before"], one["after"]) for one in found["web2"]["services"][0]["drift"]]
    assert drift == [("validate_certs", False, True), ("mode of /etc/msmtprc", "0644", "0600")]
    assert "web2  drifting   validate_certs is false, not true\n" in output
    assert "       msg: 'drifting: web2'\n" in output

    assert {one["status"] for one in after.values()} == {"compliant"}
    assert all(one["services"][0]["test_send"]["sent"] for one in after.values())
    assert output.count("login proved, test mail sent, certificate until 20") == len(after)


@pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "there is a browser")
@pytest.mark.usefixtures("output")
def test_its_page_shows_the_drift_in_a_browser(newcomer: Newcomer) -> None:
    from playwright.sync_api import sync_playwright

    page_file = newcomer.checkout / ".demo/report/drift-check/report.html"
    complaints: list[str] = []
    requests: list[str] = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=PROGRAM, chromium_sandbox=False)
        page = browser.new_page()
        page.on("console", lambda said: complaints.append(said.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(page_file.as_uri())
        rows = page.locator("#panel-hosts tbody tr").all_inner_texts()
        title = page.title()
        browser.close()
    assert "the drift check" in title
    assert [row.split("\t")[:2] for row in rows] == [["web2", "drifting"], ["db1", "compliant"], ["web1", "compliant"]]
    assert "mode of /etc/msmtprc: 0644 → 0600" in rows[0]
    assert requests == [page_file.as_uri()]
    assert not complaints


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
