# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""What a grant type is: a way to ask the authorization server for an access token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from ...errors import Problem
from ...redaction import Secret

if TYPE_CHECKING:
    from ..client import TokenClient
    from ..registration import Registration
    from ..state import Pending

Clock = Callable[[], float]


class Reply(NamedTuple):
    """What the server granted (RFC 6749 5.1). None is what it did not say; seconds are from now.

    ``user`` is who authorized: ``user_verified`` says whether the server told so. "" where nobody is named, also on a
    refresh that does not repeat it.
    """

    access_token: Secret
    expires_in: int | None = None
    refresh_token: Secret | None = None
    refresh_expires_in: int | None = None
    scope: tuple[str, ...] | None = None
    user: str = ""
    user_verified: bool = False


class GrantType:
    """One way. All of them are stateless: what has to be remembered is in the store."""

    name = ""
    person = False  # does a person have to say yes?

    def problems(self, registration: Registration) -> Iterator[Problem]:
        """Yield what the registration lacks for this way, offline."""
        raise NotImplementedError

    def renew(self, registration: Registration, refresh_token: Secret | None, client: TokenClient) -> Reply:
        """Get a fresh access token. Raises Refused."""
        raise NotImplementedError


class PersonGrant(GrantType):
    """A way in which a person says yes, in two phases with any time between them."""

    person = True

    def begin(self, registration: Registration, client: TokenClient, now: Clock) -> Pending:
        """Start: what the person has to open, and what `finish` has to remember. Raises Refused."""
        raise NotImplementedError

    def finish(
        self, registration: Registration, pending: Pending, answer: str, client: TokenClient, now: Clock
    ) -> Reply | Pending:
        """Complete with the person's answer ("" where there is only a poll); Pending when it is not time yet.

        Raises Refused (the server said no) or Unfinished (the answer is not one to this authorization).
        """
        raise NotImplementedError
