# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The application as itself (RFC 6749 4.4): by its secret, or by a signed assertion (RFC 7523 2.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import GrantType, Reply

if TYPE_CHECKING:
    from ...redaction import Secret
    from ..client import TokenClient
    from ..registration import Registration


class ClientCredentials(GrantType):
    name = "client_credentials"

    def renew(self, registration: Registration, refresh_token: Secret | None, client: TokenClient) -> Reply:
        """A refresh token is neither needed nor used: RFC 6749 4.4.3 says that there should be none."""
        form = {"grant_type": self.name}
        scope = registration.requested_scope
        if scope:
            form["scope"] = registration.provider_row.scope_separator.join(scope)
        return Reply.of(client.ask(form))._replace(refresh_token=None, refresh_expires_in=None)
