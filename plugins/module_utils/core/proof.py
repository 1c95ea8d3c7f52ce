# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Proving a service: the probe of its relay and the test send, as an order asks for them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .backends.base import Backend
from .dialogue import Failure
from .errors import StepFailed
from .message import TestSend, compose, send
from .order import Order
from .probe import probe
from .proof_options import SendOrder
from .service import Service
from .target import Bearer, Target, target_of

if TYPE_CHECKING:
    from .oauth.declared import Token


def verify(order: Order, backend: Backend, root: str, token: Token | None) -> tuple[dict[str, Any], StepFailed | None]:
    """Probe the relay as far as the order says: the contract's ``verification``, and what is wrong, if anything is.

    Where an access token is needed and there is none, it ends at TLS: not ok, with the next step, and no failure.
    """
    missing = token is not None and not token.token and order.verify not in ("connect", "tls")
    target = _target(order.service, backend, root, token, order.verify_recipient)
    report = probe(target, "tls" if missing else order.verify)
    result = report.as_result()
    if token is not None and missing:
        result.update(level=order.verify, ok=False, next_step=token.next_step)
    return result, None if report.ok else report.advice.as_error("verify")


def _target(
    service: Service, backend: Backend, root: str, token: Token | None, recipient: str = "", timeout: int = 0
) -> Target:
    """The conversation; an access token is handed over by the mechanisms that the software itself has."""
    target = target_of(service, root, recipient, timeout, token.token if token else "")
    if isinstance(target.auth, Bearer):
        return replace(target, auth=replace(target.auth, mechanisms=backend.bearer_mechanisms()))
    return target


def test_send(
    service: Service, mail: SendOrder, backend: Backend, root: str, token: Token | None
) -> tuple[dict[str, Any], StepFailed | None]:
    """Send the mail, by the relay or by the host's own software: the contract's ``test_send``, and what is wrong."""
    if token is not None and not token.token:
        return {"sent": False, "via": mail.via, "skipped": f"no valid access token: {token.next_step}"}, None
    target = _target(service, backend, root, token, timeout=mail.timeout)
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
