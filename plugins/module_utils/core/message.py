# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The test send: one real mail, composed (RFC 5322) and handed to a relay in the conversation of the probe."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from typing import Any

from .advice import NONE, Advice, Advised, advise
from .conversation import Conversation, Envelope, Step, plan
from .dialogue import Failure, shown
from .target import Target, wire_address

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # all that str.splitlines() takes for a line break


@dataclass(frozen=True)
class TestSend:
    """What is to be sent; what is empty is filled in. Addresses may have a name: ``Ops <ops@example.com>``."""

    to: tuple[str, ...]
    sender: str = ""
    subject: str = ""
    body: str = ""


@dataclass(frozen=True)
class Message:
    """A composed mail: ``data`` has CRLF line ends and no dot-stuffing."""

    message_id: str
    sender: str
    recipients: tuple[str, ...]
    data: bytes


@dataclass(frozen=True)
class Sent(Advised):
    """What became of it: ``reply`` is the relay's last word, ``problem`` one sentence when it was not taken."""

    sent: bool
    message_id: str = ""
    reply: str = ""
    advice: Advice = NONE
    steps: tuple[Step, ...] = ()

    def as_result(self) -> dict[str, Any]:
        """The ``test_send`` result of the modules."""
        return {"sent": self.sent, "message_id": self.message_id, "reply": self.reply, "via": "relay"}


def compose(mail: TestSend, default_sender: str) -> Message:
    """Build the mail; raises Failure (control, address) for what cannot stand in a header or an envelope."""
    from email import policy, utils
    from email.message import EmailMessage

    _check_text(mail)
    sender, *recipients = [_mailbox(address) for address in (mail.sender or default_sender, *mail.to)]
    envelope = [address.addr_spec for address in (sender, *recipients)]
    utf8 = not all(address.isascii() for address in envelope)
    message = EmailMessage((policy.SMTPUTF8 if utf8 else policy.SMTP).clone(cte_type="7bit"))
    message["From"] = sender
    message["To"] = recipients
    message["Subject"] = mail.subject or f"Test mail from {socket.gethostname()}"
    message["Date"] = utils.format_datetime(utils.localtime())
    message["Message-ID"] = utils.make_msgid(domain=sender.domain)  # without a domain it would ask the DNS
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's vacation notice answers it
    message.set_content(mail.body or f"{socket.gethostname()} can send mail through its relay.\n")
    return Message(str(message["Message-ID"]), envelope[0], tuple(envelope[1:]), message.as_bytes())


def _check_text(mail: TestSend) -> None:
    for what, text in (("sender", mail.sender), ("subject", mail.subject), *(("recipient", to) for to in mail.to)):
        if _CONTROL.search(text):
            raise Failure("control", f"a line break or another control character in the {what}")
    for what, text in (("subject", mail.subject), ("body", mail.body)):
        if "\0" in text or re.search("[\ud800-\udfff]", text):
            raise Failure("control", f"NUL or text that is not UTF-8 in the {what}")
    if not mail.to:
        raise Failure("address", "no recipient")


def _mailbox(text: str) -> Any:
    from email.headerregistry import Address
    from email.utils import getaddresses

    try:
        ((name, address),) = getaddresses([text])
        local, _rest, domain = wire_address(address).rpartition("@")
    except ValueError as error:
        raise Failure("address", f"no mail address in '{shown(text)}'") from error
    return Address(name, local, domain)


def in_wire_form(data: bytes) -> bytes:
    """What follows DATA: only CRLF ends a line (RFC 5321 2.3.8), a leading dot is doubled, and the end (4.5.2)."""
    lines = re.split(rb"\r\n|\r|\n", data[:-2] if data.endswith(b"\r\n") else data)
    return b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines) + b".\r\n"


def send(target: Target, mail: TestSend) -> Sent:
    """Send the mail through the relay; never raises for what the relay does.

    When the relay refuses one recipient, nobody gets the mail and ``problem`` says who was refused.
    """
    try:
        message = compose(mail, target.default_sender)
    except Failure as failure:
        return Sent(False, advice=advise("message", failure, {}))
    talk = Conversation(target, Envelope(message.sender, message.recipients, in_wire_form(message.data)))
    talk.run(plan(target.security, "auth", "mail", "rcpt", "data", "quit"))
    sent = any(step.name == "data" and step.ok for step in talk.steps)
    reply = next(step.detail for step in reversed(talk.steps) if step.name != "quit")
    return Sent(sent, message.message_id if sent else "", reply, talk.advice, tuple(talk.steps))
