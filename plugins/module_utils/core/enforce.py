# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The one way from a module's options to its result: read, compare, apply, prove."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Callable

from .backends.base import Backend, FileState, Observed
from .errors import FleetmailError, HostError, InvalidService, StepFailed, unforeseen
from .journal import STATE, interrupted
from .order import Order
from .plan import Drift, Plan, compare
from .redaction import LONGEST, Redactor, printable
from .service import Service, public_view

if TYPE_CHECKING:
    from .oauth.declared import Declared, Token
    from .port import Host

OAUTH = "/var/lib/fleetmail/oauth"  # as oauth/store.py says; where there is none, nothing of oauth/ is imported
WHOLE = 1 << 30
PATIENCE = 5.0  # seconds for a service to come up after it was activated


def enforce(options: Mapping[str, Any], host: Host, check: bool) -> dict[str, Any]:
    """Make the host send mail as ``options`` say; with ``check`` only tell what would be done.

    Gives the contract's result. A failure is a result too: ``failed``, ``msg``, ``problems``, and the host as it was.
    """
    run = Enforcement(options, host, check)
    try:
        run.execute()
    except FleetmailError as error:
        run.failure = error
    except Exception as error:  # a mistake of ours; the host was put back all the same
        run.failure = unforeseen(error)
    return run.result()


class Enforcement:
    """One call: what was ordered, what was found, what was done."""

    def __init__(self, options: Mapping[str, Any], host: Host, check: bool) -> None:
        secrets = [str(options[key]) for key in ("password", "client_secret") if options.get(key)]
        self.redactor = Redactor(secrets)
        self.order = Order.from_options(options)
        self.host = host
        self.check = check
        self.backend: Backend | None = None
        self.oauth: Declared | None = None
        self.observed = Observed({})
        self.wanted: Service | None = None
        self.plan = Plan()
        self.warnings: list[str] = []
        self.backups: list[str] = []
        self.verification: dict[str, Any] | None = None
        self.sent: dict[str, Any] | None = None
        self.failure: FleetmailError | None = None
        self.rolled_back = False
        self.unfinished = False
        self.kept = False

    # -- the order of things -----------------------------------------------------------------------------------------

    def execute(self) -> None:
        """Do it, or raise a FleetmailError; what came of it is in ``result``."""
        backend = self.backend = self.order.settle(self.host, self.check)
        record = interrupted(self.host)
        if record is not None:
            self._tell_or_recover(record)
        self._look(backend)
        self._judge_certificates()
        if self.check:
            self._verify(backend)
            return
        if not self.plan.empty:
            with self._alone():
                self._recover()  # the run that held the lock may have been killed, or have taken what we want
                backend = self.backend = self.order.settle(self.host, self.check)
                self._look(backend)
                if not self.plan.empty:
                    self._apply(backend)
                    return
        self._verify(backend)
        self._send(backend, changed=False)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """No other run changes the host, and the engine gives this service no newer token meanwhile."""
        first = not self.host.exists(STATE)
        with self.host.locked(STATE):
            try:
                with self.oauth.locked() if self.oauth else contextlib.nullcontext():
                    yield
            finally:
                if not self.order.present or (first and self.rolled_back):
                    from .transaction import clear_away

                    clear_away(self.host)  # the last of all: another run may have the lock as soon as it is gone

    def _look(self, backend: Backend) -> None:
        """Read what holds and compare it with what is wanted."""
        self.observed = self._read(backend)
        self.wanted = self._completed(backend) if self.order.present else None
        if self.wanted is not None and self.wanted.host and not self.observed.managed:
            backend.recognize(self.wanted, self.observed)
            self._learn(self.observed)
        files = [*self._declared(), *backend.desired(self.wanted, self.order.service.name, self.observed)]
        self.plan = compare(self._wanted_form(backend), self.observed, files, self.host)
        if not self.host.live:
            self.plan.start = False
        ca_file = self.wanted.ca_file if self.wanted else ""
        if self.check and ca_file and not self.host.exists(ca_file):
            self.plan.drift.append(Drift("ca_file", "(not there)", ca_file))
        if self.unfinished:
            self.plan.drift.insert(0, Drift("interrupted run", "half done", "undone"))

    def _completed(self, backend: Backend) -> Service:
        """What is ordered; ``enabled: false`` alone keeps the definition that the service has."""
        ordered, held = self.order.service, self.observed.form
        if ordered.host or not (self.observed.managed and held.get("host")):
            return ordered
        known = {name: value for name, value in held.items() if name in ordered._fields and value is not None}
        if self.oauth and held.get("auth_type") == "oauth":
            known["oauth"] = self.oauth.client()
        kept = ordered._replace(**{**known, "enabled": False, "allow_cleartext_auth": True})
        return ordered if any(kept.problems()) or any(backend.problems(kept)) else kept

    def _read(self, backend: Backend) -> Observed:
        service = self.order.service
        observed = backend.read(service.name)
        used = observed.managed and observed.form.get("auth_type") == "oauth"
        if used or service.auth_type == "oauth" or self.host.exists(f"{OAUTH}/{service.name}"):
            from .oauth.declared import Declared

            self.oauth = Declared(self.host, backend, service.name)
            self.oauth.show(observed, self.order.present and service.auth_type == "oauth")
        self._learn(observed)
        return observed

    def _learn(self, observed: Observed) -> None:
        for secret in observed.secrets:
            self.redactor.learn(secret)

    def _wanted_form(self, backend: Backend) -> dict[str, Any] | None:
        if self.wanted is None:
            return None
        form = backend.wanted_form(self.wanted)
        if self.oauth and self.wanted.auth_type == "oauth" and self.wanted.host:
            form.update(self.oauth.wanted_form(self.wanted))
        return form

    def _declared(self) -> list[FileState]:
        """The files that OAuth needs beside the software's own. Raises InvalidService."""
        if self.oauth is None:
            return []
        problems = list(self.oauth.problems(self.wanted)) if self.wanted else []
        if problems:
            raise InvalidService(problems)
        return self.oauth.files(self.wanted)

    def _token(self) -> Token | None:
        """The access token that the service's conversations need, if they need one."""
        if self.oauth is None or self.wanted is None or self.wanted.auth_type != "oauth":
            return None
        return self.oauth.token(self.wanted)

    def _judge_certificates(self) -> None:
        if not self.plan.empty and self.wanted is not None:
            from .proof_options import certificate_problems

            problems = list(certificate_problems(self.wanted.ca_file, self.host))
            if problems:
                raise InvalidService(problems)

    def _tell_or_recover(self, record: dict[str, Any]) -> None:
        if not self.check:
            with self.host.locked(STATE):
                self._recover()
            return
        try:
            with self.host.locked(STATE, patience=0):
                self.unfinished = record["phase"] == "applying"
        except HostError:
            self.warnings.append("another run is at work on this host")

    def _recover(self) -> None:
        """Complete what an interrupted run left. The lock is held: it is not a run that goes on."""
        record = interrupted(self.host)
        if record is None:
            return
        from .backends.registry import choose
        from .transaction import recover

        culprit = choose(record["backend"], self.host)(self.host, record["options"])
        self.warnings += recover(self.host, record, culprit)

    # -- applying ----------------------------------------------------------------------------------------------------

    def _apply(self, backend: Backend) -> None:
        from .transaction import Transaction

        transaction = Transaction(self.host, backend, self.plan)
        before = self.observed
        self.warnings += before.warnings
        try:
            transaction.apply(before, self._steps(backend, before), self.order.backup)
        except BaseException:
            self.rolled_back = transaction.undone
            self.kept = transaction.switched and not transaction.undone
            with contextlib.suppress(FleetmailError):  # the failure that led here is the one to tell
                self.observed = self._read(backend)
            raise
        finally:
            self.warnings += transaction.warnings
            self.backups = transaction.backups
        self.kept = True
        try:
            if self.host.live:
                backend.settle(before, self.wanted)
            self.observed = self._read(backend)
        except FleetmailError as error:
            self.warnings.append(f"done, but {error}")

    def _steps(self, backend: Backend, before: Observed) -> list[Callable[[], None]]:
        """What has to succeed for the new state to be kept."""
        prove = [lambda: self._verify(backend), lambda: self._send(backend, changed=True)]
        if not self.host.live:
            return [lambda: self._judge(backend, {}), *prove]
        mark = self.host.log_mark(backend.logs)
        return [lambda: backend.activate(before, self.wanted), lambda: self._judge(backend, mark), *prove]

    def _judge(self, backend: Backend, mark: dict[str, Any]) -> None:
        """Is the effective state what was wanted, does the software live, is its log clean?"""
        self.observed = self._read(backend)
        if self.host.live:
            self._wait_for_life(backend)
            complaint = backend.complaints(self.host.log(mark))
            if complaint:
                raise StepFailed("activate", f"its log says: {complaint}")
        left = compare(self._wanted_form(backend), self.observed, [], self.host)
        if self.wanted is not None and left.drift:
            what = ", ".join(drift.field for drift in left.drift)
            told = "; ".join([f"{what} did not become effective", *map(str, self.observed.overrides)])
            raise StepFailed("effective", told, "find what overrides it", left.drift[0].field)

    def _wait_for_life(self, backend: Backend) -> None:
        import time

        end = time.monotonic() + PATIENCE
        while self.observed.running is False and self.wanted is not None and time.monotonic() < end:
            time.sleep(0.1)
            self.observed = self._read(backend)

    # -- proving -----------------------------------------------------------------------------------------------------

    def _verify(self, backend: Backend) -> None:
        if self.order.verify == "none":
            return
        ca_file = self.order.service.ca_file
        if self.check and ca_file and not self.host.exists(ca_file):
            self.verification = {"level": self.order.verify, "reached": "none", "ok": False, "steps": []}
            self.warnings.append(f"the relay was not probed: {ca_file} is not there yet")
            return
        from .proof import verify

        self.verification, refused = verify(self.order, backend, self.host.root, self._token())
        if refused is not None:
            raise refused

    def _send(self, backend: Backend, changed: bool) -> None:
        order = self.order.test_send
        if order is None:
            return
        if not self.order.service.enabled or (order.when == "changed" and not changed):
            why = "nothing changed" if self.order.service.enabled else "enabled is false: no mail leaves"
            self.sent = {"sent": False, "via": order.via, "skipped": why}
            return
        from .proof import test_send

        self.sent, refused = test_send(self.order.service, order, backend, self.host.root, self._token())
        if refused is not None:
            raise refused

    # -- telling -----------------------------------------------------------------------------------------------------

    @property
    def changed(self) -> bool:
        return not self.plan.empty and (self.check or self.kept)

    def result(self) -> dict[str, Any]:
        """The contract's result, without any secret."""
        result: dict[str, Any] = {
            "changed": self.changed,
            "check_mode": self.check,
            "service": self._service(),
            "drift": [drift._asdict() for drift in self.plan.drift],
            "takes_over": self.plan.takes_over and not self.plan.drift,
            "files": [{"path": one.wanted.path, "action": one.action} for one in self.plan.changes],
            "actions": list(self.backend.actions) if self.backend else [],
            "rolled_back": self.rolled_back,
            "backup_files": self.backups,
            "warnings": self._warnings(),
        }
        if self.verification is not None:
            result["verification"] = self.verification
        if self.order.test_send is not None:
            why = "check mode" if self.check else "not reached"
            result["test_send"] = self.sent or {"sent": False, "via": self.order.test_send.via, "skipped": why}
        if not self.plan.empty:
            from .difference import difference

            result["diff"] = difference(self._head(), self.plan)
        if self.failure is not None:
            result.update(failed=True, changed=self.kept, msg=self.failure.message)
            result["problems"] = [problem.as_dict() for problem in self._problems(self.failure)]
        told = {key: self.redactor.data(value, WHOLE if key == "diff" else LONGEST) for key, value in result.items()}
        leaving: dict[str, Any] = printable(told)
        return leaving

    def _warnings(self) -> list[str]:
        told = self.warnings + self.observed.warnings
        if self.oauth and (self.wanted or not self.order.present):
            told += self.oauth.warnings(self.wanted)
        if self.failure is None and self.plan.drift:
            told += [str(one) for one in self.observed.overrides]
        return list(dict.fromkeys(told))

    def _problems(self, failure: FleetmailError) -> list[Any]:
        overrides = [] if isinstance(failure, InvalidService) else self.observed.overrides
        return failure.problems + [one for one in overrides if one not in failure.problems]

    def _head(self) -> str:
        return "service {} ({})".format(self.order.service.name, self.backend.name if self.backend else "?")

    def _service(self) -> dict[str, Any]:
        view: dict[str, Any] = {"name": self.order.service.name}
        if self.backend is None:
            return view
        view.update(backend=self.backend.name, state="present" if self.observed.managed else "absent")
        return {**view, **public_view(self.observed.form)}
