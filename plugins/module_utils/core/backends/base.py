# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""What a backend is: software on a host, read and written in the form's words. It returns data and raises.

The engine calls, in this order: ``problems`` (can it be expressed?), ``read`` (what holds now), ``desired`` (which
files say it), ``check`` (its own checker, on staged candidates), ``activate``; ``restore`` after a roll-back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from ..errors import Problem, StepFailed
from ..service import DEFAULT_TIMEOUT, NOT_ONE_LINE, Service, is_one_line

if TYPE_CHECKING:
    from ..host import Completed
    from ..oauth.token_files import Consumer
    from ..port import Host

NOT_THERE = 127  # what the host says of a program or a service manager that is not there
ORIGINALS = "/var/lib/fleetmail/smtp/originals"


class Rule(NamedTuple):
    """A text that the software cannot carry: ``pattern`` (re.search) or more than ``longest`` bytes."""

    option: str
    problem: str
    hint: str
    pattern: str = ""
    longest: int = 0

    def broken_by(self, text: str) -> bool:
        import re

        if self.longest and len(text.encode("utf-8", "surrogateescape")) > self.longest:
            return True
        return bool(self.pattern and re.search(self.pattern, text))


class Capabilities(NamedTuple):
    """What the software can express, as data: the engine refuses the rest by the option's name."""

    fields: tuple[str, ...]  # the form's fields that it can carry (and that drift is judged by)
    auth_types: tuple[str, ...] = ("none", "password")
    securities: tuple[str, ...] = ("none", "starttls", "tls")
    unverified: bool = True  # can it do TLS without verifying?
    queue: bool = True  # does it hold mail while enabled is false? Else it refuses; the guide's table says so
    several: bool = False  # several services by `senders`
    longest_bearer: int = 0  # bytes of a SASL message with an access token (RFC 7628 3.1) that it can send; 0: any
    rules: tuple[Rule, ...] = ()
    ways_out: Mapping[str, str] = {}  # option -> what to do instead


class Option(NamedTuple):
    """One key of ``backend_options``: its type (bool, int, str), default and meaning."""

    kind: type
    default: Any
    meaning: str
    pattern: str = ""


class Submission(NamedTuple):
    """How a mail that went through the host's own software ended: ``reply`` is the relay's words or the reason."""

    sent: bool
    reply: str
    queue_id: str = ""


class FileState(NamedTuple):
    """A file as it should be. ``content`` None: absent; ``mode``, ``owner``, ``group`` None: as found, or 0644 root."""

    path: str
    content: bytes | None
    mode: int | None = None
    owner: str | None = None
    group: str | None = None
    secret: bool = False
    transition: bytes | None = None  # content until activated: for what must serve old and new at once
    build: tuple[str, ...] = ()  # a command that compiles the file; the staged path is appended to its last word
    built: str = ""  # the suffix of what it makes


class Observed:
    """What holds on the host now, for one service. ``form``: the form's fields, those of ``Capabilities.fields``."""

    def __init__(
        self,
        form: dict[str, Any],
        managed: bool = False,
        running: bool | None = None,
        warnings: list[str] | None = None,
        detail: dict[str, Any] | None = None,
    ) -> None:
        self.form = form
        self.managed = managed  # is there something of ours for this service?
        self.theirs = False  # is it set up by somebody else, and nothing of it by us? See Backend.recognize
        self.running = running  # None: nothing that runs
        self.warnings = warnings or []
        self.faults: list[tuple[str, Any, Any]] = []  # what is off beside the form: what, as it is, as it should be
        self.overrides: list[Problem] = []  # what makes our files ineffective: told when it persists
        self.secrets: list[str] = []  # every secret seen, so that it can be masked
        self.detail = detail or {}  # the backend's own notes from read() to desired()


class Backend:
    """Base of all backends. A subclass is one file and one line in the registry."""

    name: ClassVar[str]
    packages: ClassVar[str]  # what to install, for messages
    program: ClassVar[str]  # its presence is what "installed" means
    capabilities: ClassVar[Capabilities]
    options: ClassVar[Mapping[str, Option]] = {}
    by_hand: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # how it is started and stopped without a service manager
    logs: ClassVar[tuple[str, ...]] = ()  # log files of its own, beside the system's mail log

    def __init__(self, host: Host, options: Mapping[str, Any] | None = None) -> None:
        self.host = host
        self.given: dict[str, Any] = dict(options or {})
        self.actions: list[str] = []

    # -- to be written by a backend ------------------------------------------------------------------------------

    def read(self, name: str) -> Observed:
        """The *effective* state of the service, from the software itself where it is there, else from its files."""
        raise NotImplementedError

    def recognize(self, service: Service, observed: Observed) -> None:
        """See whether somebody else set up what ``service``, which is not ours yet, is to be: correct the observed
        form by what only their ways of saying it show, and note in ``theirs`` that there is such a set-up."""

    def desired(self, service: Service | None, name: str, observed: Observed) -> list[FileState]:
        """The files that say ``service`` (None: nothing of ours), in the order of writing; removals come after."""
        raise NotImplementedError

    def check(self, staged: Mapping[str, str]) -> list[str]:
        """Let the software judge the candidates (path -> path of the staged file); gives its warnings.

        Raises StepFailed("check", its words).
        """
        return []

    def prepare(self) -> None:
        """Before the first file is written: see to the accounts that the drafted files need. Raises StepFailed."""

    def withdraw(self) -> None:
        """At the end, kept or put back: remove accounts that ``prepare`` made and that nothing uses any more."""

    def activate(self, before: Observed, service: Service | None) -> None:
        """Make what was written effective, once. Raises StepFailed("activate", its words)."""

    def restore(self, was_running: bool | None) -> None:
        """After the old files are back: make them effective, the hard way, and leave it running if it was."""

    def settle(self, before: Observed, service: Service | None) -> None:
        """After the new state was kept: let held mail go, when it was held and is no longer."""

    def complaints(self, log: str) -> str:
        """The line of the log that says the software cannot work with its configuration; empty when there is none."""
        return ""

    def submit(self, message: bytes, sender: str, recipients: Sequence[str], timeout: float) -> Submission:
        """Hand a mail to the host's own sendmail and follow it until the relay accepted or refused it."""
        raise NotImplementedError

    def own_problems(self, service: Service) -> Iterator[Problem]:
        """What this software cannot express beside what Capabilities say."""
        return iter(())

    def consumer(self, service: Service) -> Consumer:
        """With "oauth" in Capabilities.auth_types: how it reads an access token, and what sends mail that waited."""
        raise NotImplementedError

    def longest_bearer(self) -> int:
        """Bytes of a SASL message with an access token that it can send as it is set up; 0: any."""
        return self.capabilities.longest_bearer

    def token_path(self, name: str) -> str:
        """Where the access token of a service is for the software to read."""
        from ..oauth.token_files import TOKENS

        return f"{TOKENS}/{name}.{self.name}"

    def bearer_mechanisms(self) -> tuple[str, ...]:
        """The SASL mechanisms that it hands an access token over by."""
        return ("XOAUTH2",)

    # -- shared ----------------------------------------------------------------------------------------------------

    def installed(self) -> bool:
        return self.host.which(self.program) is not None

    def not_installed(self, service: Service) -> Iterator[Problem]:
        """What the host has not and the service needs; asked only where something is to be written."""
        if not self.installed():
            yield Problem("backend", f"{self.name} is not installed", "install " + self.packages)

    def option(self, key: str) -> Any:
        """The value of one of the backend's own options."""
        return self.given.get(key, self.options[key].default)

    def wanted_form(self, service: Service) -> dict[str, Any]:
        """The service's fields that this backend carries and that mean something in this definition."""
        if not service.host:
            return {"enabled": service.enabled}  # disabled and not yet complete
        idle = ("ca_file", "validate_certs") if service.security == "none" else ()
        return {name: getattr(service, name) for name in self.capabilities.fields if name not in idle}

    def problems(self, service: Service) -> Iterator[Problem]:
        """Everything about ``service`` that this backend cannot express, and wrong ``backend_options``."""
        yield from self._unsupported(service)
        for rule in self.capabilities.rules:
            value = getattr(service, rule.option)
            text = value.reveal() if hasattr(value, "reveal") else value or ""
            for one in text if isinstance(text, tuple) else (text,):
                if rule.broken_by(one):
                    yield Problem(rule.option, rule.problem, rule.hint)
        yield from self.own_problems(service)

    def _unsupported(self, service: Service) -> Iterator[Problem]:
        can = self.capabilities
        out = can.ways_out
        if service.auth_type in ("password", "oauth") and service.auth_type not in can.auth_types:
            yield self._cannot("auth_type", service.auth_type, out)
        if service.security in ("none", "starttls", "tls") and service.security not in can.securities:
            yield self._cannot("security", service.security, out)
        if not service.validate_certs and not can.unverified:
            yield self._cannot("validate_certs", "false", out)
        plain = {"ca_file": "", "from_address": "", "senders": (), "timeout": DEFAULT_TIMEOUT}
        for name, default in plain.items():
            if name not in can.fields and getattr(service, name) != default:
                yield self._cannot(name, "", out)

    def _cannot(self, option: str, value: str, ways_out: Mapping[str, str]) -> Problem:
        what = "{} cannot do {}{}".format(self.name, option, ": " + value if value else "")
        return Problem(option, what, ways_out.get(option, "leave it out, or use another backend"))

    def option_problems(self) -> Iterator[Problem]:
        """Unknown keys and wrong types in ``backend_options``."""
        import re

        for key, value in sorted(self.given.items()):
            name = "backend_options." + key
            known = self.options.get(key)
            if known is None:
                accepted = ", ".join(sorted(self.options)) or "none"
                yield Problem(name, f"{self.name} has no such option", "it has: " + accepted)
            elif not isinstance(value, known.kind) or isinstance(value, bool) != (known.kind is bool):
                yield Problem(name, f"must be {known.kind.__name__}", known.meaning)
            elif isinstance(value, str) and not is_one_line(value):
                yield Problem(name, NOT_ONE_LINE, "remove it")
            elif known.pattern and not re.fullmatch(known.pattern, str(value)):
                yield Problem(name, f"'{value}' does not fit", known.meaning)

    def act(self, step: str, argv: Sequence[str]) -> Completed:
        """Run a command that changes something; it is listed in the result. Raises StepFailed when it fails."""
        self.actions.append(" ".join(argv))
        done = self.host.run(argv)
        if done.code:
            raise StepFailed(step, "'{}' failed: {}".format(" ".join(argv), done.words or f"exit code {done.code}"))
        return done

    def service(self, action: str, name: str) -> Completed:
        """Start, stop, restart or reload the service; by the software's own command where nothing manages services."""
        self.actions.append(f"service {name} {action}")
        done = self.host.service(action, name)
        own = self.by_hand.get(action)
        if done.code == NOT_THERE and own:
            self.actions[-1] = " ".join(own)
            done = self.host.run(own)
        return done

    def act_service(self, step: str, action: str, name: str) -> None:
        """Start, stop, restart or reload the service; listed in the result. Raises StepFailed."""
        done = self.service(action, name)
        if done.code:
            raise StepFailed(step, f"{action} of {name} failed: {done.words or done.code}")

    def keep_original(self, path: str) -> FileState:
        """A record of ``path`` as it is now, for a file that becomes wholly ours; ``original`` gives it back."""
        from .originals import record

        return record(self.host, path)

    def original(self, path: str) -> list[FileState]:
        """What gives ``path`` back as it was before us, and drops the record; without a record the file goes."""
        from .originals import given_back

        return given_back(self.host, path)

    def has_original(self, path: str) -> bool:
        return self.host.exists(original_path(path))


def original_path(path: str) -> str:
    """Where the record of a file's original is kept."""
    return "{}/{}".format(ORIGINALS, path.strip("/").replace("/", "_"))


def text_of(host: Host, path: str) -> str:
    """A text file's content, any bytes kept (surrogateescape); empty when there is none."""
    found = host.read(path)
    return "" if found is None else found.content.decode("utf-8", "surrogateescape")


def raw(text: str) -> bytes:
    """The bytes of a text from ``text_of``, or of a new one."""
    return text.encode("utf-8", "surrogateescape")
