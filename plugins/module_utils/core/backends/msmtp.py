# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""msmtp: a sendmail without a queue. /etc/msmtprc is wholly ours while a service is managed (msmtp(1))."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from .. import marks
from ..errors import Problem, StepFailed
from . import msmtp_file
from .base import Backend, Capabilities, FileState, Observed, Option, Rule, Submission, original_path, raw, text_of
from .msmtp_file import LONGEST_BEARER, LONGEST_LINE, NO_HOST_YET, NOWHERE, OAUTH, ROUTE, SYSTEM_ONLY, form_of

if TYPE_CHECKING:
    from ..host import Completed
    from ..oauth.token_files import Consumer
    from ..port import Host
    from ..service import Service
    from .msmtp_file import Account, Settings

MAIN = "/etc/msmtprc"
GROUP = "msmtp"
USER_FILES = (".msmtprc", ".config/msmtp/config")  # the first that there is

DISABLED = NOWHERE + "mail is disabled (service {})"
MECHANISMS = "|".join(("on|plain|login|cram-md5|digest-md5|scram-sha-1|scram-sha-256|ntlm|gssapi", *OAUTH))
NAMED = r"(?!\d+\Z)[\w.-]+\$?"  # the host tells owners by name
ABSOLUTE = r"/[^\x00-\x1f\x7f]{1,400}"
_SUBSTITUTED = r"(?i)%[UHCM]"
_READS_SLOT = re.compile(r"cat /etc/msmtprc\.[A-Za-z0-9_.-]+\.([ab])\Z")
UNCHECKED = "msmtp is not in the tree, or cannot run there: judged by our own rules alone"
_COULD_NOT_RUN = (125, 126, 127)  # chroot(1): it failed itself, cannot invoke, not found


class Msmtp(Backend):
    """One block and account per service; a service with ``senders`` has one more account for each of them."""

    name = "msmtp"
    packages = "msmtp msmtp-mta"
    program = "msmtp"
    capabilities = Capabilities(
        queue=False,
        fields=(
            *("enabled", "host", "port", "security", "auth_type", "username", "password", "ca_file"),
            *("validate_certs", "from_address", "senders", "timeout"),
        ),
        auth_types=("none", "password", "oauth"),
        several=True,
        longest_bearer=LONGEST_BEARER,
        rules=(
            Rule("username", "fits no line of msmtp's", "at most 492 bytes", longest=LONGEST_LINE - 7),
            Rule("ca_file", "fits no line of msmtp's", "a shorter path", longest=LONGEST_LINE - 17),
            Rule("from_address", "msmtp replaces %U, %H, %C and %M", "an address without them", _SUBSTITUTED),
            Rule("senders", "msmtp replaces %U, %H, %C and %M", "an address without them", _SUBSTITUTED),
            Rule("senders", "msmtp takes * and ? for wildcards", "name the domain, or an address without them", "[*?]"),
            Rule("senders", "is too long a domain for a line of msmtp's", "name its addresses", r"\A@?[^@]{123}"),
        ),
    )
    options: ClassVar[Mapping[str, Option]] = {
        "owner": Option(str, "root", "who owns the files with the password: the name of a user of the host", NAMED),
        "group": Option(str, "", "the name of their group; default msmtp where that group is, else root", NAMED),
        "mode": Option(str, "", "mode of the files in quoted octal; the default depends on group", "0?[4-7][0-7]{2}"),
        "auth": Option(
            *(str, "", "AUTH mechanism; default xoauth2 with OAuth, else on (msmtp chooses) with TLS, plain without"),
            MECHANISMS,
        ),
        "syslog": Option(str, "LOG_MAIL", "off or the facility to log to", "off|LOG_(MAIL|USER|LOCAL[0-7])"),
        "logfile": Option(str, "", "a file to log to, an absolute path", ABSOLUTE),
        "aliases": Option(str, "", "the aliases of local recipients, such as /etc/aliases", ABSOLUTE),
        "domain": Option(
            *(str, "localhost", "what EHLO says; %H host name, %C its canonical form", r"[\w.%:\[\]-]{1,255}")
        ),
        "default_from": Option(
            *(str, "%U@%C", "envelope sender where a program names none; %U user, %H host name, %C its canonical form"),
            r"[^\x00-\x20\x7f\"]{1,320}",
        ),
    }

    # -- what it cannot do -------------------------------------------------------------------------------------------

    def own_problems(self, service: Service) -> Iterator[Problem]:
        yield from self._mechanism_problems(service)
        text = text_of(self.host, MAIN)
        others = [name for name in marks.names(text) if name != service.name]
        if service.senders:
            yield from self._shared_senders(service, text, others)
            yield from _rewritten(service)
            return
        for other in others:
            if msmtp_file.takes_the_rest(marks.get(text, other) or ""):
                yield Problem(
                    "senders",
                    f"is empty, but the service {other} already takes what no other service is for",
                    f"give senders to one of the two, or make {other} absent",
                )

    def _mechanism_problems(self, service: Service) -> Iterator[Problem]:
        mechanism, oauth = self.option("auth"), service.auth_type == "oauth"
        if mechanism and service.auth_type != "none" and (mechanism in OAUTH) != oauth:
            problem = f"{mechanism} does not go with auth_type: {service.auth_type}"
            yield Problem("backend_options.auth", problem, " or ".join(OAUTH) if oauth else "leave it out")
        if oauth and mechanism == "oauthbearer" and re.search("[,=]", service.username):
            problem = "has a ',' or '=', which msmtp does not escape in OAUTHBEARER"
            yield Problem("username", problem, "leave backend_options.auth out: xoauth2")

    @staticmethod
    def _shared_senders(service: Service, text: str, others: Sequence[str]) -> Iterator[Problem]:
        found = msmtp_file.accounts(text)
        for other in others:
            theirs = {msmtp_file.sender_of(pattern) for pattern in msmtp_file.routes(found, other)}
            for sender in sorted(theirs.intersection(msmtp_file.canonical(service.senders))):
                problem = f"{sender} already goes through the service {other}"
                yield Problem("senders", problem, "name it in one service only")

    def option_problems(self) -> Iterator[Problem]:
        problems = list(super().option_problems())
        yield from problems
        if problems or not self.installed():
            return
        for key, known in (("owner", {"owner": self.option("owner")}), ("group", {"group": self.option("group")})):
            if not self.host.has_account(**known):
                problem = f"{self.option(key)} is not known on the host"
                yield Problem("backend_options." + key, problem, "create it first")

    def wanted_form(self, service: Service) -> dict[str, Any]:
        return super().wanted_form(service._replace(senders=msmtp_file.canonical(service.senders)))

    def recognize(self, service: Service, observed: Observed) -> None:
        from .msmtp_by_hand import read

        read(self, service, observed)

    def consumer(self, service: Service) -> Consumer:
        from ..oauth.token_files import Consumer

        path, readers = self.token_path(service.name), self._readers()
        return Consumer(service.name, self.name, "plain", path, *readers, service.username)

    def bearer_mechanisms(self) -> tuple[str, ...]:
        return ((self.option("auth") or OAUTH[0]).upper(),)

    # -- what holds --------------------------------------------------------------------------------------------------

    def read(self, name: str) -> Observed:
        text = text_of(self.host, MAIN)
        observed = Observed({}, managed=name in marks.names(text), warnings=list(self._user_files()))
        observed.secrets = list(msmtp_file.secrets(text))
        if not text.strip():
            return observed
        found = msmtp_file.accounts(text)
        theirs = ", ".join(one.name for one in found if one.name != "default") if not marks.names(text) else ""
        if theirs:
            told = f"the accounts {theirs} of {MAIN} are not kept while a service is there; absent gives them back"
            observed.warnings.append(told)
        account = _asked(found, text, name)
        settings = self._effective(account, observed, text)
        if settings and account:
            password = self._password(account)
            observed.secrets += [password] if password else []
            senders = map(msmtp_file.sender_of, msmtp_file.routes(found, name))
            observed.form = form_of(settings, password, msmtp_file.canonical(senders))
        return observed

    def _effective(self, account: Account | None, observed: Observed, text: str) -> Settings:
        """What msmtp itself makes of the file; nothing when it refuses it. Where it cannot run: our own reading."""
        if msmtp_file.runs_a_command(text):
            observed.warnings.append(f"{MAIN} has an eval, whose command is not run here: msmtp was not asked")
            return {}
        if self.host.live:
            done = self._ask(account.name if account else "default")
            if done.code == 0:
                return msmtp_file.pretended(done.out)
            if done.code not in _COULD_NOT_RUN:
                if observed.managed or account:
                    observed.warnings.append(f"msmtp refuses {MAIN}: {_complaint(done)}")
                return {}
        return account.settings() if account else {}

    def _ask(self, account: str, candidate: str = "") -> Completed:
        """``msmtp --pretend`` for an account, without running its helper or looking up the host's name for a sender."""
        chosen = ["-C", candidate] if candidate else []
        argv = ["msmtp", *chosen, "--pretend", "-a", account, "-f", "nobody@localhost", "--passwordeval="]
        return self.host.run(argv, environment=SYSTEM_ONLY)

    def _password(self, account: Account) -> str | None:
        """What msmtp would log in with; None when that cannot be known."""
        settings = account.settings()
        command = settings.get("passwordeval", "")
        if not command:
            return settings.get("password") or None
        if not _READS_SLOT.match(command):
            return None
        return text_of(self.host, command[len("cat ") :]).split("\n")[0] or None

    def _user_files(self) -> Iterator[str]:
        """Files of users that replace the system's, where a user has one."""
        homes: dict[str, str] = {}
        for line in text_of(self.host, "/etc/passwd").split("\n"):
            fields = line.split(":")
            if len(fields) > 5 and fields[5].startswith("/"):
                homes.setdefault(fields[5].rstrip("/"), fields[0])
        for home, user in homes.items():
            path = user_file(self.host, home)
            if path:
                yield f"{path} replaces the accounts of {MAIN} for the user {user}"

    # -- what should hold --------------------------------------------------------------------------------------------

    def desired(self, service: Service | None, name: str, observed: Observed) -> list[FileState]:
        text = text_of(self.host, MAIN)
        blocks = {one: msmtp_file.definition(marks.get(text, one) or "") for one in marks.names(text)}
        found = msmtp_file.accounts(text)
        patterns = {one: msmtp_file.routes(found, one) for one in blocks}
        if service is None:
            return self._without(name, blocks, patterns)
        slot = self._slot(service, _asked(found, text, name))
        blocks[name] = self._block(service, slot)
        patterns[name] = _patterns(service)
        composed = msmtp_file.compose(blocks, patterns)
        original = [] if self.has_original(MAIN) or marks.names(text) else [self.keep_original(MAIN)]
        return [*original, *self._slots(service, slot), self._state(MAIN, composed)]

    def _without(self, name: str, blocks: dict[str, str], patterns: dict[str, list[str]]) -> list[FileState]:
        """Without the service: the other ones stay; after the last one what was there before us comes back.

        Removals are done last first: /etc/msmtprc before what it refers to.
        """
        slots = [FileState(_slot_path(name, letter), None, secret=True) for letter in "ab"]
        if name not in blocks:
            # a record without any block of ours: a run that put the original back was killed before its last step
            return slots if blocks else [FileState(original_path(MAIN), None, secret=True), *slots]
        del blocks[name]
        if blocks:
            return [*slots, self._state(MAIN, msmtp_file.compose(blocks, patterns))]
        main, *record = self.original(MAIN)
        return [*record, *slots, main]

    def _slot(self, service: Service, account: Account | None) -> str:
        """The letter of the file for a password that fits no line; empty when it fits.

        Another letter than now when the password changes, so that renaming /etc/msmtprc switches both at once.
        """
        secret = _secret(service)
        if len(raw(f'password "{secret}"')) <= LONGEST_LINE:
            return ""
        match = _READS_SLOT.match(account.settings().get("passwordeval", "")) if account else None
        now = match.group(1) if match else ""
        if now and text_of(self.host, _slot_path(service.name, now)) == secret + "\n":
            return now
        return "b" if now == "a" else "a"

    def _slots(self, service: Service, slot: str) -> list[FileState]:
        return [
            self._state(_slot_path(service.name, letter), _secret(service) + "\n" if letter == slot else None)
            for letter in "ab"
        ]

    def _state(self, path: str, content: str | None) -> FileState:
        if content is None:
            return FileState(path, None, secret=True)
        secret = path != MAIN or next(msmtp_file.secrets(content), "") != ""
        told = secret or msmtp_file.tells_secrets(text_of(self.host, path))  # what goes must not be shown either
        owner, group, mode = self._readers(secret)
        return FileState(path, raw(content), mode, owner, group, secret=told)

    def _readers(self, secret: bool = True) -> tuple[str, str, int]:
        """Owner, group and mode of a file of ours."""
        group = self.option("group") or (GROUP if secret and self.host.has_account(group=GROUP) else "root")
        mode = self.option("mode") or ("0644" if not secret else "0600" if group == "root" else "0640")
        return self.option("owner"), group, int(mode, 8)

    def _block(self, service: Service, slot: str) -> str:
        lines = ["account " + _account(service)]
        if not service.enabled:
            lines.append(f'socket "{DISABLED.format(service.name)}"')
        lines.append("host " + (service.host or NO_HOST_YET))
        lines += [f"port {service.port}", f"timeout {service.timeout}"]
        lines += [*msmtp_file.tls(service), *self._auth(service, slot), *self._sender(service)]
        for key, silent in (("domain", "localhost"), ("syslog", "off"), ("logfile", ""), ("aliases", "")):
            if self.option(key) != silent:
                lines.append(f'{key} "{self.option(key)}"')
        if not service.senders and service.name != "default":
            lines.append("account default : " + service.name)
            lines += [line for line in lines if line.startswith(msmtp_file.NOT_INHERITED)]
        return "".join(line + "\n" for line in lines)

    def _auth(self, service: Service, slot: str) -> Iterator[str]:
        if service.auth_type == "none":
            yield "auth off"
            return
        if service.auth_type == "oauth":
            yield "auth " + (self.option("auth") or OAUTH[0])
            if service.username:
                yield f'user "{service.username}"'
            yield "passwordeval cat " + self.token_path(service.name)  # Debian's AppArmor profile lets it run cat
            return
        # `auth on` never sends a password in clear text; whether it may go was asked and answered before
        yield "auth " + (self.option("auth") or ("plain" if service.security == "none" else "on"))
        if service.username:
            yield f'user "{service.username}"'
        if slot:
            yield f"passwordeval cat {_slot_path(service.name, slot)}"
        elif service.password is not None:
            yield f'password "{service.password.reveal()}"'

    def _sender(self, service: Service) -> Iterator[str]:
        if not (service.senders or service.from_address):
            yield "from " + self.option("default_from")
        if service.from_address:
            yield "allow_from_override off"  # else `sendmail -f` would decide
            yield "set_from_header on"
            if not service.senders:
                yield "from " + service.from_address

    # -- judging and sending -----------------------------------------------------------------------------------------

    def check(self, staged: Mapping[str, str]) -> list[str]:
        candidate = staged.get(MAIN, "")
        text = text_of(self.host, candidate) if candidate else ""
        if not marks.names(text):
            return []  # what was there before us comes back whatever msmtp says of it
        if not self.installed():
            return [UNCHECKED]
        for account in (one.name for one in msmtp_file.accounts(text) if not ROUTE.search(one.name)):
            done = self._ask(account, candidate)
            if done.code in _COULD_NOT_RUN:
                return [UNCHECKED]
            if done.code and f"{candidate}: " in done.err and "Permission denied" not in done.err:
                raise StepFailed("check", f"msmtp refuses the new {MAIN}: {_complaint(done)}")
        if not self.host.live:
            return []
        from .msmtp_running import cautions

        return list(cautions(self.host, candidate, self._readers()))

    def submit(self, message: bytes, sender: str, recipients: Sequence[str], timeout: float) -> Submission:
        from .msmtp_running import submit

        return submit(self.host, message, sender, recipients, timeout)


def user_file(host: Host, home: str) -> str:
    """A user's own file, as msmtp chooses it; empty when there is none."""
    if not host.exists(home or "/"):
        return ""
    return next((path for path in (f"{home}/{file}" for file in USER_FILES) if host.exists(path)), "")


def _secret(service: Service) -> str:
    return "" if service.password is None else service.password.reveal()


def _patterns(service: Service) -> list[str]:
    if service.senders and service.from_address:
        return [service.from_address]
    return [pattern for sender in msmtp_file.canonical(service.senders) for pattern in msmtp_file.patterns(sender)]


def _slot_path(name: str, letter: str) -> str:
    return f"{MAIN}.{name}.{letter}"


def _complaint(done: Completed) -> str:
    return msmtp_file.complaint(done.err) or f"exit code {done.code}"


def _account(service: Service) -> str:
    """The name of its account; plain `default` would take the mail of all other senders too."""
    return "default/" if service.senders and service.name == "default" else service.name


def _asked(found: Sequence[Account], text: str, name: str) -> Account | None:
    """The account by which the service sends: `default` for one without senders, and for what is not ours."""
    inside = marks.get(text, name)
    asked = "default" if inside is None or msmtp_file.takes_the_rest(inside) else name + "/1"
    return next((one for one in found if one.name == asked), None)


def _rewritten(service: Service) -> Iterator[Problem]:
    senders = msmtp_file.canonical(service.senders)
    if service.from_address and senders != (service.from_address.lower(),):
        yield Problem(
            "from_address",
            "msmtp finds a sender's account by the very line that it would be rewritten with",
            "leave from_address out, or give it as the one sender",
        )
