# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""What a grant type is: a way to ask the authorization server for an access token.

What a registration must have for it is in ``registration_problems.NEEDS``, so that a host can say that offline without
any of this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ...redaction import Secret
from ..answers import REFRESH_EXPIRY, YEAR, scope_words, seconds, token_text

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

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Reply:
        """From the token endpoint's JSON, which `TokenClient.ask` has seen to hold an access token."""
        refresh = token_text(said.get("refresh_token"))
        lives = [seconds(said.get(field), 10 * YEAR) for field in REFRESH_EXPIRY]
        return cls(
            access_token=Secret(token_text(said.get("access_token"))),
            expires_in=seconds(said.get("expires_in")),
            refresh_token=Secret(refresh) if refresh else None,
            refresh_expires_in=next((life for life in lives if life is not None), None),
            scope=scope_words(said.get("scope")),
        )


class GrantType:
    """One way. All of them are stateless: what has to be remembered is in the store."""

    name = ""
    person = False  # does a person have to say yes?

    def renew(self, registration: Registration, refresh_token: Secret | None, client: TokenClient) -> Reply:
        """Get a fresh access token. Raises Refused."""
        raise NotImplementedError


class PersonGrant(GrantType):
    """A way in which a person says yes, in two phases with any time between them."""

    person = True

    def renew(self, registration: Registration, refresh_token: Secret | None, client: TokenClient) -> Reply:
        """RFC 6749 6, without a scope: that which was granted, never more."""
        if refresh_token is None:
            raise ValueError("a person's grant is renewed by its refresh token")
        return Reply.of(client.ask({"grant_type": "refresh_token", "refresh_token": refresh_token.reveal()}))

    def begin(self, registration: Registration, client: TokenClient, now: Clock, redirect_uri: str = "") -> Pending:
        """Start: what the person has to open, and what `finish` has to remember. Raises Refused.

        ``redirect_uri``: where the browser is sent back to, in a flow that does that.
        """
        raise NotImplementedError

    def finish(
        self, registration: Registration, pending: Pending, answer: str, client: TokenClient, now: Clock
    ) -> Reply | Pending:
        """Complete with the person's answer ("" where there is only a poll); Pending when it is not time yet.

        Raises Refused.
        """
        raise NotImplementedError
