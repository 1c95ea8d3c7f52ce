# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Proving a service: the probe of its relay and the test send, as an order asks for them."""

from __future__ import annotations

from typing import Any

from .backends.base import Backend
from .dialogue import Failure
from .errors import StepFailed
from .message import TestSend, compose, send
from .order import Order
from .probe import probe
from .proof_options import SendOrder
from .service import Service
from .target import target_of


def verify(order: Order, root: str) -> tuple[dict[str, Any], StepFailed | None]:
    """Probe the relay as far as the order says: the contract's ``verification``, and what is wrong, if anything is."""
    report = probe(target_of(order.service, root, order.verify_recipient), order.verify)
    return report.as_result(), None if report.ok else report.advice.as_error("verify")


def test_send(
    service: Service, mail: SendOrder, backend: Backend, root: str
) -> tuple[dict[str, Any], StepFailed | None]:
    """Send the mail, by the relay or by the host's own software: the contract's ``test_send``, and what is wrong."""
    target = target_of(service, root, timeout=mail.timeout)
    what = TestSend(mail.to, mail.sender, mail.subject, mail.body)
    if mail.via == "mta":
        return _through(backend, what, target.default_sender, mail.timeout)
    sent = send(target, what)
    return sent.as_result(), None if sent.sent else sent.advice.as_error("test_send")


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
