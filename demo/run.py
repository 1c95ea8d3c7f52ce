# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demo: one playbook, three hosts, a relay, and a story in seven steps. Each step is checked as it is told.

Run by `make demo`, or by a Python that has tests/requirements-demo.txt. All that it writes is in .demo.
"""

from __future__ import annotations

import difflib
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
SENDER, RECIPIENT = "alerts@fleet.example", "oncall@fleet.example"


class StoryBroke(Exception):
    """A step did not do what the story says."""


class Story:
    """The seven steps, in order."""

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
        play = self._play("--check", "--diff")
        self._succeeded(play)
        check(play.changed == {EDITED}, f"drift on {names(play.changed)}, not on {EDITED} alone")
        found = {one["field"]: (one["before"], one["after"]) for one in play.results[EDITED]["drift"]}
        check(found == DRIFT, f"the drift is {found}")
        check(self.stage.trees() == before, "looking has changed something")
        lesson(f"Exactly that, in the words of the form, and only on {EDITED}.")

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
        play = self._play("-e", "@test-send.yml")
        self._succeeded(play)
        check(not play.changed, f"changed on {names(play.changed)}")
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

    # -- what they are made of

    def _play(self, *arguments: str, password: str = "", told: str = "") -> Play:
        command(" ".join((f"{told}ansible-playbook site.yml", *arguments)))
        play = self.ansible.play(password or self.password, *arguments)
        self.last = play.output
        self._secret(play.output)
        block(trim(play.output, HOSTS))
        return play

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


def conclude(seconds: float) -> None:
    say()
    say(f"Done in {seconds:.0f} s: rolled out and proved, drift found and repaired, a mistake undone,", BOLD)
    say("mail delivered. No password was shown or put on a command line.", BOLD)
    say("Next: README.md and docs/. Copy demo/site.yml and demo/inventory to begin with.")
    say("The hosts stay in .demo/hosts to be looked at, until `make clean`.")


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
    conclude(time.monotonic() - began)
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
