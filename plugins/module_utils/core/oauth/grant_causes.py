# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""What a cause is, and those that a grant shows by itself: a service tells of them and asks no server."""

from __future__ import annotations

from typing import NamedTuple


class Cause(NamedTuple):
    """One reason. ``status`` is one of the contract's; ``definite``: the refresh token is of no use any more."""

    name: str
    status: str
    definite: bool
    summary: str  # what is so, in one sentence without its full stop
    next_step: str  # what to do, in plain words


_BY = "run the playbook fleetmail.smtp.authorize, or smtp_oauth_token with state: authorized"
AUTHORIZE_FIRST = f"authorize it: {_BY}"
AUTHORIZE = f"authorize again: {_BY}"

# fmt: off
OF_A_GRANT = (
    Cause("other_person", "unauthorized", False,
          "another account authorized than the one that username (or authorized_user) names",
          "sign out in that browser, or open the address in a private window, and sign in as that one; or set username "
          "to the account's own name, or authorized_user where the mailbox is a shared one"),
    Cause("scope_missing", "unauthorized", False,
          "the authorization does not cover all of scope, so mail could not be sent with it",
          AUTHORIZE + ", and leave every box of the consent page ticked; the scope also has to be allowed in the "
          "application's registration"),
    Cause("no_refresh_token", "unauthorized", False,
          "the server gave no refresh token, so the authorization would end within an hour",
          "add the provider's scope for it (mostly offline_access) to scope, and allow refresh tokens in the "
          "application's registration"),
)
# fmt: on
