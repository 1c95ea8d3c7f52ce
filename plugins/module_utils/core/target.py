# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""What a conversation with a relay needs to know: where it is, how it is secured, who we are."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, field

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
