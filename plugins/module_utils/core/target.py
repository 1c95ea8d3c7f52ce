# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""What a conversation with a relay needs to know: where it is, how it is secured, who we are."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .service import Service

_ADDRESS = re.compile(r"[^\s<>@\x00-\x1f\x7f]+@[^\s<>@\x00-\x1f\x7f]+\Z")


@dataclass(frozen=True)
class Password:
    """A user name and a password, sent as UTF-8 whatever their characters."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Bearer:
    """A mailbox and an access token. XOAUTH2 comes first because it is what the mail software of hosts speaks."""

    username: str
    token: str = field(repr=False)
    mechanisms: tuple[str, ...] = ("XOAUTH2", "OAUTHBEARER")


@dataclass(frozen=True)
class Target:
    """One relay as a host would use it; ``security`` is none, starttls or tls (from the first byte)."""

    host: str
    port: int
    security: str = "none"
    ca_file: str = ""
    validate_certs: bool = True
    timeout: float = 30
    auth: Password | Bearer | None = None
    allow_cleartext: bool = False
    helo: str = ""
    sender: str = ""
    recipient: str = ""

    @property
    def helo_name(self) -> str:
        """The name for EHLO: the given one or this host's; "" where that is no full name (RFC 5321 4.1.4)."""
        own = socket.gethostname()
        return self.helo or (own if "." in own else "")

    @property
    def default_sender(self) -> str:
        """The sender that the host's own mail would have: the configured one, the mailbox, or root at this host."""
        username = self.auth.username if self.auth else ""
        return self.sender or (username if is_address(username) else f"root@{socket.gethostname()}")


def is_address(text: str) -> bool:
    """Whether ``text`` can stand between the angle brackets of MAIL and RCPT without adding anything to them."""
    return bool(_ADDRESS.match(text))


def wire_address(text: str) -> str:
    """``text`` with its domain in ASCII (IDNA); what stands before the @ may need SMTPUTF8 (RFC 6531).

    Raises ValueError for what is no address.
    """
    if not is_address(text):
        raise ValueError("not a mail address")
    local, _rest, domain = text.rpartition("@")
    return f"{local}@{domain if domain.isascii() else domain.encode('idna').decode()}"


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
