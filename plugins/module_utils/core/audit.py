# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Every way in which a host sends mail, in the form's words, with what is wrong with it. Nothing is changed."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Callable

from .backends.auditing import Auditor, Found
from .backends.auditors import AUDITORS
from .backends.registry import BACKENDS
from .errors import FleetmailError, HostError, InvalidService, Problem, unforeseen
from .findings import SEVERITIES, TABLE, Finding, finding
from .order import root_problems, tree_problems
from .redaction import Redactor, printable
from .retirements import retirement
from .service import is_loopback, public_view

if TYPE_CHECKING:
    from .port import Host

WHOLE = 1 << 30
PROBES = ("none", "connect", "tls", "auth")
OLD = 4 * 3600  # seconds after which a mail in the queue has waited for long
FIELDS = (
    "enabled", "host", "port", "security", "auth_type", "username", "password", "ca_file", "validate_certs",
    "from_address", "senders", "timeout",
)  # fmt: skip
USUAL = {465: "TLS from the first byte (security: tls)", 587: "STARTTLS (security: starttls)"}


def offline_problems(options: Mapping[str, Any]) -> list[Problem]:
    """Everything that is wrong with the module's options, whatever the host is."""
    problems = list(root_problems(options.get("root") or "/"))
    probe, timeout, days = options.get("probe") or "none", options.get("timeout"), options.get("certificate_days")
    if probe not in PROBES:
        problems.append(Problem("probe", f"'{probe}' is not known", "one of " + ", ".join(PROBES)))
    if timeout is not None and not 1 <= timeout <= 3600:
        problems.append(Problem("timeout", f"{timeout} is out of range", "1 to 3600 seconds"))
    if days is not None and not 1 <= days <= 3650:
        problems.append(Problem("certificate_days", f"{days} is out of range", "1 to 3650 days"))
    return problems


def audit(options: Mapping[str, Any], host: Host, now: Callable[[], float] = time.time) -> dict[str, Any]:
    """The result of ``smtp_service_info``. ``host`` is read, and its software asked for what it would do.

    What is broken on the host is a finding. A failure (``failed``, ``msg``, ``problems``) is only what is wrong with
    the options themselves.
    """
    problems = offline_problems(options) or list(tree_problems(host))
    if problems:
        invalid = InvalidService(problems)
        told = [problem.as_dict() for problem in problems]
        return {"changed": False, "failed": True, "msg": invalid.message, "problems": told}
    run = Audit(options, host, now)
    for name in sorted(AUDITORS):
        run.look(name)
    return run.result()


class Audit:
    """One call: what was found so far."""

    def __init__(self, options: Mapping[str, Any], host: Host, now: Callable[[], float]) -> None:
        self.options, self.host, self.now = options, host, now
        self.redactor = Redactor()
        self.services: list[dict[str, Any]] = []
        self.findings: list[dict[str, Any]] = []
        self.servers: list[str] = []
        self.probed: dict[tuple[Any, ...], Any] = {}

    def look(self, name: str) -> None:
        """Audit one backend, if there is anything of it."""
        auditor = AUDITORS[name]()(BACKENDS[name]()(self.host), bool(self.options.get("homes")))
        try:
            if not auditor.present():
                return
            auditor.look()
        except Exception as error:  # a configuration that we cannot read is something to be told, not a failure
            auditor.findings.append(_trouble(error))
        if auditor.installed and auditor.software.capabilities.queue:
            self.servers.append(name)
        for secret in [*auditor.secrets, *(text for found in auditor.found for text in found.secrets)]:
            self.redactor.learn(secret)
        _judge_software(auditor, self.now())
        for found in auditor.found:
            self._judge(found, auditor)
            self._tell(found, name)
        self.findings += [{**one.as_dict(), "backend": name, "service": ""} for one in auditor.findings]

    def _judge(self, found: Found, auditor: Auditor) -> None:
        """What the form alone says, whatever the software is."""
        try:
            today = datetime.datetime.fromtimestamp(self.now(), datetime.timezone.utc).date()
            found.findings += _of_form(found, auditor.software.capabilities.queue, today)
            for path in (found.form.get("ca_file") or "").split(" "):
                if path.startswith("/") and not self.host.exists(path):
                    found.tell("ca-missing", path, "ca_file")
            if found.form.get("auth_type") == "oauth" and found.managed:
                found.findings += self._of_grant(found.name)
            self._probe(found)
        except Exception as error:
            found.findings.append(_trouble(error))

    def _of_grant(self, name: str) -> Iterator[Finding]:
        from .oauth.status import view
        from .oauth.store import Store

        told = view(Store(self.host).read(name), self.now())
        step = told["next_step"] or "see smtp_oauth_token_info"
        if told["status"] == "expiring":
            yield finding("oauth-grant-ends", field="auth_type", days=told["days_left"], next_step=step)
        elif told["status"] != "authorized":
            yield finding("oauth-no-grant", field="auth_type", status=told["status"], next_step=step)

    def _probe(self, found: Found) -> None:
        level = self.options.get("probe") or "none"
        if level != "none" and found.form.get("host") and not _is_socket(found.form["host"]):
            from .audit_probe import ask

            ask(found, level, self.options, self.host.root, self.probed)

    def _tell(self, found: Found, backend: str) -> None:
        """Put the service into the result."""
        view = public_view({field: found.form.get(field) for field in FIELDS})
        view["ca_file"], view["senders"] = view["ca_file"] or "", view["senders"] or []
        told = {"backend": backend, "name": found.name, **view, "managed": found.managed, "path": found.path}
        told["user"] = found.user
        ordered = sorted(found.findings, key=lambda one: SEVERITIES.index(TABLE[one.id].severity))
        told["findings"] = [one.as_dict() for one in dict.fromkeys(ordered)]
        if found.verification is not None:
            told["verification"] = found.verification
        if self.options.get("as_task"):
            told.update(self._adoption(found, backend))
        self.services.append(told)
        self.findings += [{**one, "backend": backend, "service": found.name} for one in told["findings"]]

    def _adoption(self, found: Found, backend: str) -> dict[str, Any]:
        from .adoption import adoption

        try:
            made = adoption(found, backend, self.host)
        except Exception as error:
            problem = Problem("internal error", _trouble(error).message)
            return {"task": None, "task_drift": [], "task_problems": [problem.as_dict()], "takes_over": False}
        return {
            "task": made.task,
            "task_drift": made.drift,
            "task_problems": [problem.as_dict() for problem in made.problems],
            "takes_over": made.takes_over,
        }

    def result(self) -> dict[str, Any]:
        """The module's result, without any secret."""
        if len(self.servers) > 1:
            told = finding("several-mtas", names=", ".join(self.servers))
            self.findings.append({**told.as_dict(), "backend": "", "service": ""})
        self.findings.sort(key=lambda one: SEVERITIES.index(one["severity"]))
        result = {"changed": False, "services": self.services, "findings": self.findings}
        leaving: dict[str, Any] = printable(self.redactor.data(result, WHOLE))
        return leaving


def _trouble(error: Exception) -> Finding:
    """An error as a finding; of one that nobody foresaw only where it was."""
    if isinstance(error, HostError) and error.problems:
        return finding("unreadable", error.problems[0].option, detail=error.problems[0].problem)
    if isinstance(error, FleetmailError):
        return finding("config-refused", detail=error.message)
    return finding("not-understood", detail=unforeseen(error).message)


def _judge_software(auditor: Auditor, now: float) -> None:
    """Does it run, and what waits?"""
    try:
        if not auditor.installed:
            if auditor.found and auditor.host.live and not all(found.user for found in auditor.found):
                auditor.tell("not-installed", software=auditor.software.name)
            return
        relays = any(found.form.get("host") for found in auditor.found)
        if relays and auditor.running() is False:
            auditor.tell("not-running", software=auditor.software.name)
        waiting = auditor.queue()
        if waiting and waiting.mails and (not waiting.oldest or now - waiting.oldest > OLD):
            age = f", the oldest for {int((now - waiting.oldest) // 3600)} hours" if waiting.oldest else ""
            auditor.tell("queue-old", how=auditor.lists_queue, count=waiting.mails, age=age)
    except Exception as error:
        auditor.findings.append(_trouble(error))


def _is_socket(host: str) -> bool:
    """Is it a socket in the file system, and no host?"""
    return host.startswith(("/", "unix:"))


def _of_form(found: Found, queues: bool, today: datetime.date) -> Iterator[Finding]:
    form = found.form
    host, security = form.get("host") or "", form.get("security", "none")
    logs_in = form.get("auth_type", "none") != "none"
    if form.get("enabled") is False:
        fate = "waits in the queue" if queues else "is refused for the time being"
        yield finding("disabled", field="enabled", fate=fate)
    if not host:
        return
    if is_loopback(host) or _is_socket(host):
        yield finding("relay-behind-tunnel", field="host", detail=f"{host}, port {form.get('port')}")
        return
    yield from _of_security(found, host, security, logs_in)
    usual = USUAL.get(form.get("port") or 0)
    if usual and form.get("security") != {465: "tls", 587: "starttls"}[form["port"]] and security != "opportunistic":
        yield finding("tls-port", field="port", port=form["port"], usual=usual, security=f"security: {security}")
    retired = retirement(host, today) if form.get("auth_type") == "password" else None
    if retired:
        yield retired


def _of_security(found: Found, host: str, security: str, logs_in: bool) -> Iterator[Finding]:
    if security in ("none", "opportunistic"):
        if logs_in and found.exposed:
            go = "go" if security == "none" else "can go"
            yield finding("cleartext-credentials", field="security", host=host, go=go)
        if security == "opportunistic":
            yield finding("tls-opportunistic", field="security", host=host)
        elif not (logs_in and found.exposed):
            yield finding("tls-none", field="security", host=host)
        return
    if found.form.get("validate_certs") is False:
        yield finding("tls-unverified", field="validate_certs", host=host)
    elif found.form.get("ca_file", "") is None and found.form.get("validate_certs"):
        yield finding("tls-no-trust", field="ca_file", host=host)
