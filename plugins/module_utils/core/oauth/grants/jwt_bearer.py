# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""A signed statement about whom the token is for (RFC 7523 2.1), as Google's service accounts make it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import GrantType, Reply

if TYPE_CHECKING:
    from ...redaction import Secret
    from ..client import TokenClient
    from ..registration import Registration


class JwtBearer(GrantType):
    name = "jwt_bearer"
    type = "urn:ietf:params:oauth:grant-type:jwt-bearer"

    def renew(self, registration: Registration, refresh_token: Secret | None, client: TokenClient) -> Reply:
        """Every access token is asked for by an assertion of its own."""
        form = {"grant_type": self.type, "assertion": client.assertion().reveal()}
        scope = " ".join(registration.requested_scope)
        if scope:
            form["scope"] = scope
        return Reply.of(client.ask(form))._replace(refresh_token=None, refresh_expires_in=None)
