# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The probe and the test send against any relay, without a service on this host: what ``smtp_probe`` does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .errors import FleetmailError, InvalidService, Problem
from .proof_options import LEVELS, SendOrder, ca_problems, certificate_problems
from .redaction import Redactor
from .service import NOT_ONE_LINE, Service, is_address, is_one_line

if TYPE_CHECKING:
    from .port import Host

SECRETS = ("password", "access_token")


def offline_problems(options: Mapping[str, Any]) -> list[Problem]:
    """Everything that is wrong with the options by themselves."""
    service = _service(options)
    problems = [problem for problem in service.problems() if problem.option not in ("client_id", "token_url")]
    problems = [problem for problem in problems if problem.option != "authorization_url"]
    if options.get("verify", "auth") not in LEVELS:
        problems.append(Problem("verify", "is not known", "one of " + ", ".join(LEVELS)))
    problems += _token_problems(service.auth_type, options.get("access_token") or "")
    recipient = options.get("verify_recipient") or ""
    if options.get("verify") == "recipient" and not recipient:
        problems.append(Problem("verify_recipient", "is required with verify: recipient", "an address to ask for"))
    if recipient and not is_address(recipient):
        problems.append(Problem("verify_recipient", f"'{recipient}' is not a mail address", "name@example.com"))
    if options.get("test_send"):
        problems += SendOrder.from_options(options["test_send"]).problems()
    return problems


def _token_problems(auth_type: str, token: str) -> Iterator[Problem]:
    if auth_type == "oauth" and not token:
        yield Problem("access_token", "is required with auth_type: oauth", "an access token for this relay")
    if auth_type != "oauth" and token:
        yield Problem("access_token", f"is given but auth_type is {auth_type}", "set auth_type: oauth, or leave it out")
    if not is_one_line(token):
        yield Problem("access_token", NOT_ONE_LINE, "often a file's last newline: trim it")


def check_relay(options: Mapping[str, Any], host: Host, check: bool) -> dict[str, Any]:
    """Probe the relay, then send the mail that was asked for (never with ``check``): the module's result."""
    redactor = Redactor(str(options[name]) for name in SECRETS if options.get(name))
    result: dict[str, Any] = {"changed": False}
    try:
        _check_relay(options, host, check, result)
    except FleetmailError as error:
        result.update(failed=True, msg=error.message, problems=[problem.as_dict() for problem in error.problems])
    told: dict[str, Any] = redactor.data(result)
    return told


def _service(options: Mapping[str, Any]) -> Service:
    """The form without what only a service on a host has."""
    return Service.read({**options, "name": "probe", "enabled": True})


def _check_relay(options: Mapping[str, Any], host: Host, check: bool, result: dict[str, Any]) -> None:
    service = _service(options)
    problems = offline_problems(options)
    problems += ca_problems(service.ca_file, host)
    problems = problems or list(certificate_problems(service.ca_file, host))
    if problems:
        raise InvalidService(problems)
    from .probe import probe
    from .target import target_of

    target = target_of(
        service, recipient=options.get("verify_recipient") or "", token=options.get("access_token") or ""
    )
    report = probe(target, options.get("verify") or "auth")
    result["verification"] = report.as_result()
    if not report.ok:
        raise report.advice.as_error("verify")
    if options.get("test_send"):
        _send(options, target, check, result)


def _send(options: Mapping[str, Any], target: Any, check: bool, result: dict[str, Any]) -> None:
    from dataclasses import replace

    from .message import TestSend, send

    mail = SendOrder.from_options(options["test_send"])
    if check:
        result["test_send"] = {"sent": False, "via": "relay", "skipped": "check mode"}
        return
    sent = send(replace(target, timeout=mail.timeout), TestSend(mail.to, mail.sender, mail.subject, mail.body))
    result["test_send"] = sent.as_result()
    if not sent.sent:
        raise sent.advice.as_error("test_send")
