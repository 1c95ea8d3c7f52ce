# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""What a backend is: software on a host, read and written in the form's words. It returns data and raises.

The engine calls, in this order: ``problems`` (can it be expressed?), ``read`` (what holds now), ``desired`` (which
files say it), ``check`` (its own checker, on staged candidates), ``activate``; ``restore`` after a roll-back.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from ..errors import HostError, Problem, StepFailed
from ..host import Completed, Host
from ..service import DEFAULT_TIMEOUT, Service

SCRATCH = "/var/lib/fleetmail/smtp"
ORIGINALS = "/var/lib/fleetmail/smtp/originals"


@dataclass(frozen=True)
class Rule:
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


@dataclass(frozen=True)
class Capabilities:
    """What the software can express, as data: the engine refuses the rest by the option's name."""

    fields: tuple[str, ...]  # the form's fields that it can carry (and that drift is judged by)
    auth_types: tuple[str, ...] = ("none", "password")
    securities: tuple[str, ...] = ("none", "starttls", "tls")
    unverified: bool = True  # can it do TLS without verifying?
    queue: bool = True  # does it hold mail while enabled is false?
    several: bool = False  # several services by `senders`
    rules: tuple[Rule, ...] = ()
    ways_out: Mapping[str, str] = field(default_factory=dict)  # option -> what to do instead


@dataclass(frozen=True)
class Option:
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


@dataclass(frozen=True)
class FileState:
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


@dataclass
class Observed:
    """What holds on the host now, for one service. ``form``: the form's fields, those of ``Capabilities.fields``."""

    form: dict[str, Any]
    managed: bool = False  # is there something of ours for this service?
    running: bool | None = None  # None: nothing that runs
    warnings: list[str] = field(default_factory=list)
    faults: list[tuple[str, Any, Any]] = field(default_factory=list)  # what is off beside the form: (what, is, should be)
    overrides: list[Problem] = field(default_factory=list)  # what makes our files ineffective: told when it persists
    secrets: list[str] = field(default_factory=list)  # every secret seen, so that it can be masked
    detail: dict[str, Any] = field(default_factory=dict)  # the backend's own notes from read() to desired()


class Backend:
    """Base of all backends. A subclass is one file and one line in the registry."""

    name: ClassVar[str]
    packages: ClassVar[str]  # what to install, for messages
    program: ClassVar[str]  # its presence is what "installed" means
    capabilities: ClassVar[Capabilities]
    options: ClassVar[Mapping[str, Option]] = {}
    logs: ClassVar[tuple[str, ...]] = ()  # log files of its own, beside the system's mail log

    def __init__(self, host: Host, options: Mapping[str, Any] | None = None) -> None:
        self.host = host
        self.given: dict[str, Any] = dict(options or {})
        self.actions: list[str] = []

    # -- to be written by a backend ------------------------------------------------------------------------------

    def read(self, name: str) -> Observed:
        """The *effective* state of the service, from the software itself where it is there, else from its files."""
        raise NotImplementedError

    def desired(self, service: Service | None, name: str, observed: Observed) -> list[FileState]:
        """The files that say ``service`` (None: nothing of ours), in the order of writing; removals come after."""
        raise NotImplementedError

    def check(self, staged: Mapping[str, str]) -> list[str]:
        """Let the software judge the candidates (path -> path of the staged file); gives its warnings.

        Raises StepFailed("check", its words).
        """
        return []

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

    # -- shared ----------------------------------------------------------------------------------------------------

    def installed(self) -> bool:
        return self.host.which(self.program) is not None

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
            elif type(value) is not known.kind:
                yield Problem(name, f"must be {known.kind.__name__}", known.meaning)
            elif known.pattern and not re.fullmatch(known.pattern, str(value)):
                yield Problem(name, f"'{value}' does not fit", known.meaning)

    def act(self, step: str, argv: Sequence[str]) -> Completed:
        """Run a command that changes something; it is listed in the result. Raises StepFailed when it fails."""
        self.actions.append(" ".join(argv))
        done = self.host.run(argv)
        if done.code:
            raise StepFailed(step, "'{}' failed: {}".format(" ".join(argv), done.words or f"exit code {done.code}"))
        return done

    def act_service(self, step: str, action: str, name: str) -> None:
        """Start, stop, restart or reload the service; listed in the result. Raises StepFailed."""
        self.actions.append(f"service {name} {action}")
        done = self.host.service(action, name)
        if done.code:
            raise StepFailed(step, f"{action} of {name} failed: {done.words or done.code}")

    def keep_original(self, path: str) -> FileState:
        """A record of ``path`` as it is now, for a file that becomes wholly ours; ``original`` gives it back."""
        now = self.host.read(path)
        record: dict[str, Any] = {"path": path, "absent": now is None}
        if now is not None:
            record.update(mode=now.mode, owner=now.owner, group=now.group)
            record["content"] = base64.b64encode(now.content).decode()
        return FileState(self._record(path), json.dumps(record).encode(), 0o600, "root", "root", secret=True)

    def original(self, path: str) -> list[FileState]:
        """What gives ``path`` back as it was before us, and drops the record; without a record the file goes."""
        kept = self.host.read(self._record(path))
        if kept is None:
            return [FileState(path, None)]
        record = json.loads(kept.content)
        gone = FileState(self._record(path), None)
        if record["absent"]:
            return [FileState(path, None), gone]
        content = base64.b64decode(record["content"])
        return [FileState(path, content, record["mode"], record["owner"], record["group"], secret=True), gone]

    def has_original(self, path: str) -> bool:
        return self.host.exists(self._record(path))

    @staticmethod
    def _record(path: str) -> str:
        return "{}/{}".format(ORIGINALS, path.strip("/").replace("/", "_"))


class Scratch:
    """A directory for candidates that a checker reads: nobody but root looks in, and nothing is left of it."""

    def __init__(self, host: Host, name: str) -> None:
        self.host = host
        self.path = f"{SCRATCH}/candidate-{name}"

    def __enter__(self) -> Scratch:
        self.host.make_directory(self.path, 0o700, "root", "root")
        return self

    def copy(self, source: str, name: str) -> None:
        """Put the content of ``source`` there; an empty file where there is no source."""
        found = self.host.read(source)
        path = f"{self.path}/{name}"
        self.host.make_directory(path.rsplit("/", 1)[0], 0o700, "root", "root")
        content = b"" if found is None else found.content
        self.host.rename(self.host.stage(path, content, 0o600, "root", "root"), path)

    def __exit__(self, *_error: object) -> None:
        self.host.remove_tree(self.path)


def text_of(host: Host, path: str) -> str:
    """A text file's content, any bytes kept (surrogateescape); empty when there is none."""
    found = host.read(path)
    return "" if found is None else found.content.decode("utf-8", "surrogateescape")


def raw(text: str) -> bytes:
    """The bytes of a text from ``text_of``, or of a new one."""
    return text.encode("utf-8", "surrogateescape")


__all__ = [
    "Backend",
    "Capabilities",
    "Completed",
    "FileState",
    "HostError",
    "Observed",
    "Option",
    "Rule",
    "Scratch",
    "Submission",
    "raw",
    "text_of",
]
