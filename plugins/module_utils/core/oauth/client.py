# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The conversation with an authorization server: forms in, JSON out, every failure by its cause."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import FleetmailError, Problem
from .causes import Cause

if TYPE_CHECKING:
    from ..port import Host
    from .registration import Registration


class Refused(FleetmailError):
    """The server said no, could not be asked, or said nothing that makes sense. Nothing in it is secret.

    ``subject`` is the option (or file) it is about. ``sent``: the request may have reached the server, which may have
    acted on it. ``retry_after``: seconds that the server asks to be left alone, None when it did not say.
    """

    def __init__(
        self,
        cause: Cause,
        subject: str,
        *,
        detail: str = "",
        error: str = "",
        suberror: str = "",
        description: str = "",
        codes: tuple[str, ...] = (),
        http_status: int = 0,
        retry_after: int | None = None,
        sent: bool = True,
    ) -> None:
        words = detail or description
        found = Problem(subject, cause.summary + (f" ({words})" if words else ""), cause.next_step)
        super().__init__(str(found), [found])
        self.cause = cause
        self.error = error
        self.suberror = suberror
        self.description = description or detail
        self.codes = codes
        self.http_status = http_status
        self.retry_after = retry_after
        self.sent = sent


class TokenClient:
    """One client of one authorization server.

    ``clock_off``: seconds that this host's clock is ahead of the server's, by the last answer; None before there was
    one.
    """

    clock_off: int | None = None

    def __init__(self, registration: Registration, host: Host) -> None:
        self.registration = registration
        self.host = host

    def ask(self, form: Mapping[str, str]) -> dict[str, Any]:
        """POST to the token endpoint as this client; gives the answer, which has an access token. Raises Refused."""
        raise NotImplementedError

    def revoke(self, token: str, hint: str) -> bool:
        """Revoke a token (RFC 7009); False when the server has no place for that. Raises Refused."""
        raise NotImplementedError

    def introspect(self, token: str) -> dict[str, Any] | None:
        """What the server says of a token (RFC 7662), None when it does not offer that. Raises Refused."""
        raise NotImplementedError
