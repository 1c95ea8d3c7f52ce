# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Proving a service: the probe of its relay and the test send, as an order asks for them."""

from __future__ import annotations

from typing import Any

from .advice import Advice
from .backends.base import Backend
from .dialogue import Failure
from .errors import StepFailed
from .message import TestSend, compose, send
from .order import Order, SendOrder
from .probe import probe
from .service import Service
from .target import Bearer, Password, Target


def target_of(service: Service, root: str = "/", recipient: str = "", timeout: int = 0, token: str = "") -> Target:
    """The conversation that the service's mail software would have with the relay."""
    auth: Password | Bearer | None = Bearer(service.username, token) if token else None
    if service.auth_type == "password" and service.password is not None:
        auth = Password(service.username, service.password.reveal())
    return Target(
        host=service.host,
        port=service.port,
        security=service.security,
        ca_file=root.rstrip("/") + service.ca_file if service.ca_file else "",
        validate_certs=service.validate_certs,
        timeout=timeout or service.timeout,
        auth=auth,
        allow_cleartext=service.allow_cleartext_auth or service.loopback,
        sender=service.from_address,
        recipient=recipient,
    )


def verify(order: Order, root: str) -> tuple[dict[str, Any], StepFailed | None]:
    """Probe the relay as far as the order says: the contract's ``verification``, and what is wrong, if anything is."""
    report = probe(target_of(order.service, root, order.verify_recipient), order.verify)
    return report.as_result(), None if report.ok else refused("verify", report.advice)


def test_send(
    service: Service, mail: SendOrder, backend: Backend, root: str
) -> tuple[dict[str, Any], StepFailed | None]:
    """Send the mail, by the relay or by the host's own software: the contract's ``test_send``, and what is wrong."""
    target = target_of(service, root, timeout=mail.timeout)
    what = TestSend(mail.to, mail.sender, mail.subject, mail.body)
    if mail.via == "mta":
        return _through(backend, what, target.default_sender, mail.timeout)
    sent = send(target, what)
    return sent.as_result(), None if sent.sent else refused("test_send", sent.advice)


def refused(option: str, advice: Advice) -> StepFailed:
    """The relay's no as an error."""
    return StepFailed(option, advice.what, advice.way_out)


def _through(
    backend: Backend, mail: TestSend, default_sender: str, timeout: int
) -> tuple[dict[str, Any], StepFailed | None]:
    try:
        message = compose(mail, default_sender)
    except Failure as failure:
        raise StepFailed("test_send", str(failure)) from None
    data = message.data.replace(b"\r\n", b"\n")  # what sendmail(1) reads is local text
    done = backend.submit(data, message.sender, message.recipients, timeout)
    result = {"sent": done.sent, "message_id": message.message_id, "reply": done.reply, "via": "mta"}
    result["queue_id"] = done.queue_id
    return result, None if done.sent else StepFailed("test_send", done.reply)
