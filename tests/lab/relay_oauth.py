# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real relay that takes access tokens: lab.relay_postfix with Dovecot asking the authorization server about each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from .layers import DOMAIN
from .relay_postfix import DOVECOT_CONF, PostfixRelay

if TYPE_CHECKING:
    from .authority import Certificate
    from .network import Network
    from .oauth_server import OAuthServer

OAUTH_RELAY = "oauth-relay"
OAUTH_RELAY_NAME = f"{OAUTH_RELAY}.{DOMAIN}"
_MECHANISMS = "plain login xoauth2 oauthbearer"
_PASSDB = """passdb {
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = /etc/dovecot/oauth2.conf
}
passdb {
  driver = passwd-file
  mechanisms = plain login
"""
# Without the two lines about "active" a token that the server calls inactive is a temporary failure.
_OAUTH2_CONF = """
introspection_url = {url}
introspection_mode = post
force_introspection = yes
username_attribute = username
active_attribute = active
active_value = true
tls_ca_cert_file = {ca_file}
"""


class OAuthRelay(PostfixRelay):
    """A PostfixRelay with XOAUTH2 and OAUTHBEARER. Its name is OAUTH_RELAY_NAME.

    server: runs already, in the same network. ca_file: what the relay trusts when it asks the server, if that has TLS.
    scope: what a token must have, in words with spaces; nothing unless told.
    line_length_limit: of Postfix; 2048 is its own, and cuts an AUTH command with a long initial response.
    """

    def __init__(
        self,
        certificate: Certificate,
        network: Network,
        server: OAuthServer,
        ca_file: Path | None = None,
        users: Mapping[str, str] | None = None,
        auth_required: bool = True,
        scope: str = "",
        line_length_limit: int = 65536,
        name: str = OAUTH_RELAY,
    ) -> None:
        super().__init__(certificate, network, users, auth_required, name)
        self._server, self._ca_file, self._scope, self._line_limit = server, ca_file, scope, line_length_limit

    def _configure_sasl(self) -> None:
        conf = DOVECOT_CONF.replace("auth_mechanisms = plain login", f"auth_mechanisms = {_MECHANISMS}")
        self.write("/etc/dovecot/dovecot.conf", conf.replace("passdb {\n  driver = passwd-file\n", _PASSDB))
        ca_file = self._ca_file.read_bytes() if self._ca_file else b""
        self.write("/etc/dovecot/oauth-ca.pem", ca_file)
        who = f"{quote(self._server.relay.client_id)}:{quote(self._server.relay.client_secret)}@"
        url = self._server.introspection_url.replace("://", f"://{who}")
        text = _OAUTH2_CONF.format(url=url, ca_file="/etc/dovecot/oauth-ca.pem")  # at once: a secret may hold any word
        self.write("/etc/dovecot/oauth2.conf", text + (f"scope = {self._scope}\n" if self._scope else ""), mode=0o600)
        main = self.read("/etc/postfix/main.cf").decode()
        limit = "\nline_length_limit = "  # not the one of SASL responses
        self.write("/etc/postfix/main.cf", main.replace(limit + "65536", f"{limit}{self._line_limit}"))
