# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""SASL for SMTP (RFC 4954): what each mechanism says, in bytes, and how the exchange is held."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Union

from .dialogue import Failure, Reply, shown
from .target import Bearer, Password

COMMAND_LIMIT = 512  # octets with CRLF, RFC 5321 4.5.3.1.4; RFC 4954 4 forbids longer initial responses
CANCEL = b"*"

Credentials = Union[Password, Bearer]


@dataclass(frozen=True)
class Exchange:
    """What we say: the responses in order, and the answer to a challenge that comes after them.

    ``client_first``: the first response may travel with the command.
    """

    mechanism: str
    responses: tuple[bytes, ...] = field(repr=False)
    client_first: bool = True
    last_word: bytes = CANCEL

    @property
    def lines(self) -> list[bytes]:
        """The responses as they are sent."""
        return [b64encode(response) for response in self.responses]


def plain(password: Password, _host: str, _port: int) -> Exchange:
    """RFC 4616."""
    user, secret = _utf8(password.username, "\0"), _utf8(password.password, "\0")
    return Exchange("PLAIN", (b"\0" + user + b"\0" + secret,))


def login(password: Password, _host: str, _port: int) -> Exchange:
    """The mechanism that was never standardized: the server asks for user name, then password, in its own words."""
    return Exchange("LOGIN", (_utf8(password.username, "\0"), _utf8(password.password, "\0")), client_first=False)


def xoauth2(bearer: Bearer, _host: str, _port: int) -> Exchange:
    """Google's and Microsoft's; the error that comes as a challenge is answered by an empty line."""
    user, token = _utf8(bearer.username, "\0\x01"), _utf8(bearer.token, "\0\x01")
    return Exchange("XOAUTH2", (b"user=" + user + b"\x01auth=Bearer " + token + b"\x01\x01",), last_word=b"")


def oauthbearer(bearer: Bearer, host: str, port: int) -> Exchange:
    """RFC 7628 3.1, user name escaped by RFC 5801 4; the error is answered by a single ^A (3.2.3)."""
    user = _utf8(bearer.username.replace("=", "=3D").replace(",", "=2C"), "\0\x01")
    token = _utf8(bearer.token, "\0\x01")
    place = f"\x01host={host}\x01port={port}".encode()
    return Exchange(
        "OAUTHBEARER",
        (b"n,a=" + user + b"," + place + b"\x01auth=Bearer " + token + b"\x01\x01",),
        last_word=b64encode(b"\x01"),
    )


_PASSWORD = {"PLAIN": plain, "LOGIN": login}
_BEARER = {"XOAUTH2": xoauth2, "OAUTHBEARER": oauthbearer}


def _utf8(text: str, separators: str) -> bytes:
    if any(separator in text for separator in separators):
        raise Failure("control", "a control character in the credentials, which the mechanism uses as a separator")
    return text.encode("utf-8", "surrogateescape")


def choose(auth: Credentials, offered: list[str], host: str, port: int) -> Exchange:
    """The exchange for the first mechanism that both sides know; raises Failure (mechanism)."""
    if isinstance(auth, Password):
        name = _first(tuple(_PASSWORD), offered)
        return _PASSWORD[name](auth, host, port)
    name = _first(auth.mechanisms, offered)
    return _BEARER[name](auth, host, port)


def _first(wanted: tuple[str, ...], offered: list[str]) -> str:
    for name in wanted:
        if name in offered:
            return name
    raise Failure("mechanism", f"offered: {shown(' '.join(offered))}; wanted: {' or '.join(wanted)}")


def authenticate(exchange: Exchange, say: Callable[[bytes], Reply]) -> tuple[Reply, str]:
    """Hold the exchange; ``say`` sends a line and gives the reply.

    Returns the last reply and the server's reason where a bearer mechanism gives one (its JSON, in short).
    """
    command = b"AUTH " + exchange.mechanism.encode()
    lines = exchange.lines
    if exchange.client_first and len(command) + len(lines[0]) + 3 <= COMMAND_LIMIT:
        command += b" " + lines.pop(0)
    reply = say(command)
    for line in lines:
        if reply.code == 334:
            reply = say(line)
    reason = ""
    if reply.code == 334:
        reason = _reason(reply.text)
        reply = say(exchange.last_word)
    return reply, reason


def _reason(challenge: str) -> str:
    """status, scope and so on of the error JSON (RFC 7628 3.2.2) that a server sends as base64."""
    import json

    try:
        told = json.loads(b64decode(challenge))
    except (ValueError, RecursionError):
        return ""
    if not isinstance(told, dict):
        return ""
    return ", ".join(f"{key} {told[key]}" for key in ("status", "schemes", "scope") if key in told)
