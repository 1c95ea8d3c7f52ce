# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demo: one playbook, three hosts, a relay, and a story in eight steps. Each step is checked as it is told.

Run by `make demo`, or by a Python that has tests/requirements-demo.txt. All that it writes is in .demo.
"""

from __future__ import annotations

import difflib
import json
import os
import secrets
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.dont_write_bytecode = True
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(1, str(ROOT / "tests"))

from driver import checkout  # noqa: E402
from lab.relay import Message, Relay  # noqa: E402
from playing import MODULE, Ansible, Play, trim  # noqa: E402
from screen import BOLD, RED, block, command, heading, lesson, paint, said, say  # noqa: E402
from stage import HOSTS, USER, Busy, Stage, digest  # noqa: E402

WORK = ROOT / ".demo"
EDITED = "web2"
DRIFT = {"validate_certs": (False, True), "mode of /etc/msmtprc": ("0644", "0600")}
REPORTER, FAILED = "localhost", 2  # who writes the report, and what ansible-playbook ends with when a host failed
REPORT = {"report.html", "report.json", "report.csv", "junit.xml", "fleetmail_report.prom"}
SENDER, RECIPIENT = "alerts@fleet.example", "oncall@fleet.example"


class StoryBroke(Exception):
    """A step did not do what the story says."""


class Story:
    """The eight steps, in order."""

    def __init__(self, stage: Stage, relay: Relay, ansible: Ansible, password: str) -> None:
        self.stage, self.relay, self.ansible = stage, relay, ansible
        self.password, self.wrong = password, secrets.token_urlsafe(12)
        self.last = ""

    def tell(self) -> None:
        """Raises StoryBroke at the first step that goes otherwise."""
        steps = (
            (self.roll_out, "Roll out: each host gets its mail settings, proved by a login at the relay"),
            (self.run_again, "Run it again: nothing is left to do"),
            (self.edit_by_hand, f"Somebody edits {EDITED} by hand"),
            (self.look_for_drift, "Look for drift: what differs, and where, without touching anything"),
            (self.repair, "Repair it"),
            (self.roll_out_wrong_password, "Roll out a wrong password by mistake"),
            (self.send_a_test_mail, "Send a test mail from every host"),
            (self.read_the_reports, "Read the report: the whole fleet on one page"),
        )
        for number, (step, title) in enumerate(steps, 1):
            heading(number, title)
            try:
                step()
            except (KeyError, TypeError) as missing:
                raise StoryBroke(f"a result has another form: {missing!r}") from missing
            self._secret()

    # -- the steps

    def roll_out(self) -> None:
        play = self._play()
        self._succeeded(play)
        check(play.changed == set(HOSTS), f"changed on {names(play.changed)}, not on all")
        for host in HOSTS:
            block([self._proof(host, play.results[host])])
        lesson("All three changed; with each the relay, its certificate and the login work.")

    def run_again(self) -> None:
        before = self.stage.trees()
        play = self._play()
        self._succeeded(play)
        check(not play.changed, f"changed on {names(play.changed)} although nothing was to be done")
        check(self.stage.trees() == before, "files were written although nothing was to be done")
        lesson("Nothing changed, no file was written. The logins were proved again.")

    def edit_by_hand(self) -> None:
        file = self.stage.file(EDITED)
        self.original = file.read_bytes(), file.stat().st_mode
        old = file.read_text()
        new = old.replace("tls_certcheck on", "tls_certcheck off")
        check(old != new, "there is no tls_certcheck to edit")
        file.write_text(new)
        file.chmod(0o644)
        changes = difflib.unified_diff(old.splitlines(), new.splitlines(), n=0, lineterm="")
        block(["in /etc/msmtprc:", *list(changes)[3:], "and: chmod 0644 /etc/msmtprc"])
        lesson(
            "Mail still goes out, so nobody notices. But any server can pose as the",
            "relay now, and every user of the host can read the password.",
        )

    def look_for_drift(self) -> None:
        before = self.stage.trees()
        play = self._play("report.yml", "--check", "--diff")
        check(play.code == FAILED and play.failed == {REPORTER}, f"the drift check ended with code {play.code}")
        drifting = play.changed - {REPORTER}
        check(drifting == {EDITED}, f"drift on {names(drifting)}, not on {EDITED} alone")
        found = {one["field"]: (one["before"], one["after"]) for one in play.results[EDITED]["drift"]}
        check(found == DRIFT, f"the drift is {found}")
        check(self.stage.trees() == before, "looking has changed something")
        lesson(
            f"Exactly that, in the words of the form, and only on {EDITED}. The exit code is {FAILED},",
            "so a nightly job in CI fails, and it leaves a report: see step 8.",
        )

    def repair(self) -> None:
        play = self._play()
        self._succeeded(play)
        check(play.changed == {EDITED}, f"changed on {names(play.changed)}, not on {EDITED} alone")
        file = self.stage.file(EDITED)
        check((file.read_bytes(), file.stat().st_mode) == self.original, "the file is not what it was before the edit")
        lesson(f"Only {EDITED} was changed, and its file is again what it was, byte for byte.")

    def roll_out_wrong_password(self) -> None:
        before = self.stage.trees()
        sums = {host: digest(self.stage.file(host)) for host in HOSTS}
        self.relay.forget()
        play = self._play(password=self.wrong, told="RELAY_PASSWORD=(a wrong one) ")
        check(play.code != 0 and play.failed == set(HOSTS), f"with a wrong password failed: {names(play.failed)}")
        for host in HOSTS:
            result = play.results[host]
            check(result["rolled_back"], f"{host} was not rolled back")
            check(result["verification"]["reached"] == "tls", f"{host} did not fail at the login")
        attempts = [attempt for session in self.relay.sessions() for attempt in session.auths]
        tried = [attempt for attempt in attempts if attempt.secret == self.wrong.encode()]
        check(len(tried) >= len(HOSTS) and not any(one.accepted for one in tried), "the relay was not asked")
        check(self.stage.trees() == before, "the hosts are not what they were before")
        for host in HOSTS:
            now = digest(self.stage.file(host))
            block([f"{host:<5} /etc/msmtprc  sha256 before {sums[host][:12]}  after {now[:12]}"])
        lesson(
            f"Caught by the login, and put back. All {self.stage.files()} files of the hosts are what they",
            "were: same bytes, mode, owner and time.",
        )

    def send_a_test_mail(self) -> None:
        self.relay.forget()
        play = self._play("report.yml", "-e", "@test-send.yml")
        self._succeeded(play)
        check(play.changed == {REPORTER}, f"changed on {names(play.changed)}, not the report alone")
        unsent = {host for host in HOSTS if not play.results[host]["test_send"]["sent"]}
        check(not unsent, f"not sent from {names(unsent)}")
        mails = {str(mail.email["subject"]).split()[-1]: mail for mail in self.relay.messages()}
        check(set(mails) == set(HOSTS), f"the relay has mail from {names(set(mails))} only")
        for host in HOSTS:
            mail = mails[host]
            check(mail.tls is not None and mail.auth_user == USER.encode(), f"{host}: no TLS or no login")
            check((mail.sender, mail.recipients) == (SENDER, [RECIPIENT]), f"{host}: another envelope")
            reply = play.results[host]["test_send"]["reply"]
            block([f"{host:<5} the relay said: {reply}"])
        say("   As the relay received the one from db1:")
        block("| " + line for line in received(mails["db1"]))
        lesson("Three mails arrived: encrypted, logged in, from the right sender.")

    def read_the_reports(self) -> None:
        found, after = self._report("drift-check"), self._report("last-run")
        for host in HOSTS:
            status = "drifting" if host == EDITED else "compliant"
            check(found[host]["status"] == status, f"{host} is reported as {found[host]['status']}, not {status}")
            check(after[host]["status"] == "compliant", f"{host} is reported as {after[host]['status']} at the end")
        say("   The drift check of step 4 found:")
        block(line for host in HOSTS for line in told(host, found[host]))
        say("   The last run, step 7, found:")
        block(line for host in HOSTS for line in told(host, after[host]))
        lesson(
            "The page has all of it to be filtered and sorted, each host with its difference,",
            "and when certificates and grants end. It is one file that loads nothing: mail it.",
            "JSON, CSV, JUnit XML for CI and metrics for Prometheus are beside it.",
        )

    # -- what they are made of

    def _play(self, *arguments: str, password: str = "", told: str = "") -> Play:
        command(" ".join((f"{told}ansible-playbook site.yml", *arguments)))
        play = self.ansible.play(password or self.password, *arguments)
        self.last = play.output
        self._secret(play.output)
        block(trim(play.output, (*HOSTS, REPORTER)))
        return play

    def _report(self, name: str) -> dict[str, Any]:
        """The hosts of a report, by name. None of its files may have a password in it."""
        folder = self.stage.report(name)
        files = {file.name: file.read_text() for file in folder.iterdir()}
        check(set(files) == REPORT, f"the report is {', '.join(sorted(files))}")
        for text in files.values():
            self._secret(text)
        hosts = {host["name"]: host for host in json.loads(files["report.json"])["hosts"]}
        check(set(hosts) == set(HOSTS), f"the report has {names(set(hosts))} only")
        return hosts

    def _secret(self, output: str = "") -> None:
        """Neither what Ansible said nor what we showed may have a password in it."""
        for text in (output, *said):
            check(self.password not in text and self.wrong not in text, "a password was shown")

    @staticmethod
    def _succeeded(play: Play) -> None:
        check(play.code == 0 and set(play.results) == set(HOSTS), f"ansible-playbook ended with code {play.code}")

    def _proof(self, host: str, result: dict[str, Any]) -> str:
        proof, service = result["verification"], result["service"]
        check(proof["ok"] and proof["reached"] == "auth", f"{host}: the login was not proved")
        check(self.stage.file(host).stat().st_mode & 0o777 == 0o600, f"{host}: others can read the password")
        tls = proof["tls"]
        certificate = f"certificate verified, {tls['days_left']} days left"
        return f"{host:<5} {service['security']:<8}  {tls['version']}, {certificate}; {service['username']} logged in"


def check(holds: object, otherwise: str) -> None:
    if not holds:
        raise StoryBroke(otherwise)


def names(hosts: set[str]) -> str:
    return ", ".join(sorted(hosts)) or "no host"


def told(host: str, record: dict[str, Any]) -> list[str]:
    """A host of a report, in lines: its status and what differs, or what was proved."""
    (service,) = record["services"]
    proof = service["verification"]
    sent = ", test mail sent" if (service["test_send"] or {}).get("sent") else ""
    proved = f"{service['form']['security']}, login proved{sent}, certificate until {proof['tls']['not_after'][:10]}"
    differs = [f"{one['field']} is {text(one['before'])}, not {text(one['after'])}" for one in service["drift"]]
    first, *others = differs or [proved]
    return [f"{host:<5} {record['status']:<10} {first}", *(f"{'':<16} {line}" for line in others)]


def text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def received(mail: Message) -> list[str]:
    """A mail as the relay has it: connection and envelope, then header and body as they came."""
    tls, user = mail.tls or {}, mail.auth_user or b""
    return [
        f"connection  {tls['version']}, {tls['cipher']}",
        f"logged in   {user.decode()}",
        f"envelope    from <{mail.sender}> to <{', '.join(mail.recipients)}>",
        "",
        *mail.data.decode(errors="replace").rstrip().splitlines(),
    ]


def introduce(relay: Relay) -> None:
    ports = f"STARTTLS on port {relay.port('starttls')}, TLS on port {relay.port('tls')}"
    say("fleetmail.smtp: one playbook, three hosts, one relay", BOLD)
    say()
    say(f"hosts     {', '.join(HOSTS)}: folders in .demo/hosts that stand for machines;")
    say("          msmtp's files are written there, and msmtp itself is not needed")
    say(f"relay     on localhost, {ports},")
    say("          with a certificate of its own CA; it takes no mail without a login")
    say("playbook  demo/site.yml, its variables in demo/inventory; this is the task:")
    say()
    for line in task():
        say(f"   {line}")
    say()
    say("Nothing outside .demo is touched. Ansible's output is trimmed to what matters.")


def task() -> list[str]:
    """The task that matters, from the playbook."""
    lines = (ROOT / "demo/site.yml").read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if MODULE in line)
    return [line[4:] for line in lines[start - 1 :]]


def conclude(seconds: float, stage: Stage) -> None:
    say()
    say(f"Done in {seconds:.0f} s: rolled out and proved, drift found and repaired, a mistake undone,", BOLD)
    say("mail delivered. No password was shown or put on a command line.", BOLD)
    say()
    say("The report of the three hosts, to be opened in a browser:")
    say(f"  with the drift   {stage.page('drift-check').as_uri()}")
    say(f"  as it is now     {stage.page('last-run').as_uri()}")
    say()
    say("Next: README.md and docs/. Copy demo/site.yml, report.yml and inventory to begin with.")
    say("The report stays in .demo/report and the hosts in .demo/hosts, until `make clean`.")


def perform() -> int:
    began = time.monotonic()
    stage = Stage(WORK)
    with stage.ready():
        password = secrets.token_urlsafe(12)
        with stage.relay(password) as relay:
            story = Story(stage, relay, Ansible(ROOT / "demo", WORK, checkout.linked(WORK)), password)
            introduce(relay)
            try:
                story.tell()
            except StoryBroke as problem:
                say()
                say(f"This went otherwise than told: {problem}", RED)
                say("All that Ansible said:")
                print(masked(story.last, story.password, story.wrong))
                return 1
    conclude(time.monotonic() - began, stage)
    return 0


def masked(text: str, *hidden: str) -> str:
    for one in hidden:
        text = text.replace(one, "********")
    return text


def main() -> int:
    """Run the demo. However it is ended, the relay is stopped and what runs is ended with it."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda got, _frame: sys.exit(128 + got))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return perform()
    except KeyboardInterrupt:
        print(paint("\nStopped.", RED))
        return 130
    except Busy:
        print("Another demo runs in this checkout.", file=sys.stderr)
    except PermissionError as problem:
        print(f"{problem}\nWho ran the demo before? Remove .demo, or take a checkout of your own.", file=sys.stderr)
    except BrokenPipeError:  # whoever read this has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


if __name__ == "__main__":
    sys.exit(main())
