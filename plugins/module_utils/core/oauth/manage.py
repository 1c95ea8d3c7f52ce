# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The one way from the options of ``smtp_oauth_token`` to its result: declare, renew, authorize, revoke."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Callable

from ..errors import FleetmailError, HostError, InvalidService, Problem, unforeseen
from ..redaction import LONGEST, Redactor
from .renewal import is_valid, need, settled
from .state import TokenState
from .status import view
from .store import Store
from .token_order import TokenOrder
from .token_report import drift_between, known_secrets, pending_view, printed, unusable

if TYPE_CHECKING:
    from ..port import Host
    from .client import TokenClient
    from .registration import Registration
    from .tokens import Outcome

Clock = Callable[[], float]
WHOLE = 1 << 30
LONG = ("diff", "authorization")  # an address that is cut is none
HOLDS = ("authorized", "expiring")
BEGINS = ("unauthorized", "pending", "expired", "revoked")  # where only a person can help


def manage(options: Mapping[str, Any], host: Host, check: bool, now: Clock = time.time) -> dict[str, Any]:
    """Make the token what ``options`` say; with ``check`` only tell what would be done, from the store alone.

    Gives the contract's result. A failure is a result too: ``failed``, ``msg``, ``problems``, and ``token`` all the
    same.
    """
    run = Management(options, host, check, now)
    try:
        run.execute()
    except FleetmailError as error:
        run.failure = error
    except Exception as error:  # a mistake of ours
        run.failure = unforeseen(error)
    return run.result()


class Management:
    """One call: what was ordered, what was found, what was done."""

    def __init__(self, options: Mapping[str, Any], host: Host, check: bool, now: Clock) -> None:
        self.order = TokenOrder.from_options(options)
        self.host, self.check, self.now = host, check, now
        self.store = Store(host, self.order.store)
        secrets = [options.get(name) for name in ("client_secret", "authorization_response", "proxy")]
        self.redactor = Redactor(str(secret) for secret in secrets if secret)
        self.found = self.state = TokenState(self.order.name)
        self.known = False  # could the store be read?
        self.drift: list[dict[str, Any]] = []
        self.actions: list[str] = []
        self.warnings: list[str] = []
        self.changed = False
        self.failure: FleetmailError | None = None

    # -- the order of things -----------------------------------------------------------------------------------------

    def execute(self) -> None:
        """Do it, or raise a FleetmailError; what came of it is in ``result``."""
        problems = list(self.order.problems())
        if problems:
            raise InvalidService(problems)
        self.found = self.state = self.store.read(self.order.name)
        self.known = True
        if self.order.state == "absent":
            self._remove(self.found)
            return
        registration = self._declare()
        if registration is None:
            return
        if self.order.state == "authorized" and registration.person:
            self._authorize(registration)
        else:
            self._renew()
        if not self.check:
            self._judge()

    def _wanted(self, found: TokenState) -> Registration | None:
        """What is to be registered; None in check mode where an earlier task has not registered it yet."""
        if found.registration is None and not self.order.given:
            where = self.store.registration_path(self.order.name)
            step = "smtp_service with auth_type: oauth registers a client, or the options of this module do"
            if self.check:
                self.warnings.append(f"nothing is registered yet ({where} is not there): {step}")
                return None
            raise InvalidService([Problem("name", f"nothing is registered as {self.order.name}", step)])
        registration = self.order.registration(found.registration)
        problems = list(registration.problems())
        if self.order.answer is not None and not registration.person:
            problem = f"is given but {registration.grant} needs no person"
            problems.append(Problem("authorization_response", problem, "leave it out"))
        if problems:
            raise InvalidService(problems)
        return registration

    def _declare(self) -> Registration | None:
        """Write the registration where it differs; gives it, as ``_wanted`` does."""
        registration = self._wanted(self.found)
        if registration is None or not drift_between(self.found.registration, registration):
            return registration
        if self.check:
            self._tell(registration)
            self.state = self.found._replace(registration=registration)
            return registration
        with self.store.locked(self.order.name):
            # another task may have declared something meanwhile, and what is not given here is as that one said
            self.found = self.store.read(self.order.name)
            registration = self._wanted(self.found)
            if registration is not None:
                self._tell(registration)
                self.store.write_registration(self.order.name, registration)
        self.state = self.store.read(self.order.name)
        return registration

    def _tell(self, registration: Registration) -> None:
        """What is written of the registration, in the result's words."""
        stored = self.found.registration
        self.drift = drift_between(stored, registration)
        if stored is not None and not registration.same_client(stored):
            self.warnings.append(f"{self.order.name} is another client now: what the old one held is kept aside")
        if self.drift:
            self._done("write the registration")

    # -- access tokens -----------------------------------------------------------------------------------------------

    def _renew(self) -> None:
        """See that there is an access token, as far as that takes no person."""
        at = int(self.now())
        wanted = need(settled(self.state, at), at)
        if self.check:
            if wanted:
                self._done("refresh the access token")
            elif not self._usable(self.state):
                raise unusable(self._view(), self.order.name)
            return
        from .tokens import ensure

        outcome = ensure(self.store, self.order.name, self._client, self.now)
        self._took(outcome, "refresh the access token" if outcome.refreshed else "write the token files")

    def _took(self, outcome: Outcome, action: str) -> None:
        """Take over what the engine did."""
        before, self.state = self.state, outcome.state
        self.warnings += outcome.warnings
        failed = outcome.state.trouble not in (None, before.trouble)
        if outcome.refreshed or (outcome.changed and not failed):
            self._done(action)

    def _done(self, action: str) -> None:
        self.actions.append(action)
        self.changed = True

    def _usable(self, state: TokenState) -> bool:
        """Is there a valid access token, and nothing that a person has to do at once?"""
        told = view(state, self.now())
        kept = told["status"] == "unreachable" or told["status"] in HOLDS
        return kept and is_valid(state.access, int(self.now()))

    def _judge(self) -> None:
        """Raise where the task did not reach what was ordered; an authorization that is under way is no failure."""
        told = self._view()
        if self._usable(self.state):
            if told["status"] == "unreachable":
                self.warnings.append(
                    f"not refreshed, but still valid: {told['error_description']}: {told['next_step']}"
                )
            return
        if self.order.state == "authorized" and self._pending() is not None:
            return
        raise unusable(told, self.order.name)

    # -- a person's authorization ------------------------------------------------------------------------------------

    def _authorize(self, registration: Registration) -> None:
        """Renew what can be renewed; else begin an authorization, or go on with the one that is pending."""
        answer = self.order.answer
        if answer is not None and not self.check:
            self._complete(answer.reveal())
            return
        if answer is not None:
            self._done("complete the authorization")
            return
        if self.check and self._needs_person():
            if self._pending() is None:
                self._done("begin an authorization")
            return
        self._renew()
        if self.check or not self._needs_person():
            return
        if self._pending() is None:
            self._begin(registration)
        elif self.order.listen and self.order.wait:
            self._listen()
        elif self._pending_flow() == "device_code":
            self._poll()

    def _needs_person(self) -> bool:
        """Would an authorization help? So the causes say."""
        from .causes import AUTHORIZE

        at = int(self.now())
        if self.check and need(settled(self.state, at), at):
            return False
        told = self._view()
        return told["status"] in BEGINS or AUTHORIZE in (told["next_step"] or "")

    def _pending(self) -> dict[str, Any] | None:
        """The contract's ``authorization``, while one is pending that can be completed."""
        return pending_view(self.state, self.now())

    def _pending_flow(self) -> str:
        return self.state.pending.flow if self.state.pending else ""

    def _begin(self, registration: Registration) -> None:
        from .authorization import begin, redirect_for

        redirect = redirect_for(registration, self.order.listen) if self.order.listen else ""
        outcome = begin(self.store, self.order.name, self._client, self.now, redirect)
        self.state = outcome.state
        self.warnings += outcome.warnings
        self._done("begin an authorization")

    def _complete(self, answer: str) -> None:
        from .authorization import finish

        self._finished(finish(self.store, self.order.name, answer, self._client, self.now))

    def _poll(self) -> None:
        from .authorization import wait

        self._finished(wait(self.store, self.order.name, self._client, self.order.wait, self.now))

    def _listen(self) -> None:
        from .authorization import listen

        self._finished(listen(self.store, self.order.name, self._client, self.order.wait, self.now))

    def _finished(self, outcome: Outcome) -> None:
        """Take over what came of the person's answer. That it is not there yet changes nothing."""
        self.state = outcome.state
        self.warnings += outcome.warnings
        if outcome.refreshed:
            self._done("complete the authorization")

    # -- the end of it -----------------------------------------------------------------------------------------------

    def _remove(self, found: TokenState) -> None:
        held = found.grant is not None or found.access is not None
        registration = found.registration
        if registration is not None and self.order.given:
            registration = self.order.registration(registration)
        asked = held and self.order.revoke and registration is not None
        if self.check:
            if asked:
                self._done("revoke the grant at the server")
            if found.serial or (registration is not None and not found.consumers):
                self._done(f"remove {self.store.path(self.order.name)}")
            return
        from .tokens import remove

        client = self._client(registration) if asked and registration is not None else None
        outcome = remove(self.store, self.order.name, client, self.now)
        self.warnings += outcome.warnings
        if held and not asked:
            self.warnings.append("the grant was removed here and not revoked at the server")
        if asked and not outcome.warnings:
            self._done("revoke the grant at the server")
        if outcome.changed:
            self._done(f"remove {self.store.path(self.order.name)}")
        self.state = outcome.state

    def _client(self, registration: Registration) -> TokenClient:
        from .client import TokenClient

        return TokenClient(registration, self.host, self.order.timeout)

    # -- telling -----------------------------------------------------------------------------------------------------

    def _view(self) -> dict[str, Any]:
        return view(self.state, self.now())

    def result(self) -> dict[str, Any]:
        """The contract's result, without any secret."""
        result: dict[str, Any] = {"changed": self.changed, "drift": self.drift, "actions": self.actions}
        if self.failure is not None:
            self._look_again()
            result.update(failed=True, msg=self.failure.message)
            result["problems"] = [problem.as_dict() for problem in self.failure.problems]
        if self.known:
            self._learn(self.found, self.state)
            result["token"] = self._view()
            pending = self._pending()
            if pending is not None:
                result["authorization"] = pending
            before, after = (printed(state, self.now()) for state in (self.found, self.state))
            if self.check and self.changed:
                after += "".join(f"would {action}\n" for action in self.actions)
            if before != after and self.changed:
                head = f"token {self.order.name}"
                result["diff"] = {"before": before, "after": after, "before_header": head, "after_header": head}
        result["warnings"] = list(dict.fromkeys(self.warnings))
        return {key: self.redactor.data(value, WHOLE if key in LONG else LONGEST) for key, value in result.items()}

    def _look_again(self) -> None:
        """What was refused is noted in the store."""
        if self.known and not self.check:
            with contextlib.suppress(HostError):
                self.state = self.store.read(self.order.name)

    def _learn(self, *states: TokenState) -> None:
        for state in states:
            for secret in known_secrets(state):
                self.redactor.learn(secret)
