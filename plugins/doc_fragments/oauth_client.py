# Copyright: fleetmail.smtp contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options that describe an OAuth client, and where its grant is kept."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  authorization_url:
    description:
      - The authorization server's authorization endpoint, where a person says yes in a browser. It must begin with
        V(https://), except on a loopback address.
      - Filled in by O(oauth_provider) where that is not V(custom).
    type: str
  token_url:
    description:
      - The authorization server's token endpoint. It must begin with V(https://), except on a loopback address.
      - Filled in by O(oauth_provider) where that is not V(custom).
    type: str
  client_id:
    description:
      - The client's identifier, from its registration with the provider. With O(oauth_grant=jwt_bearer) that in the
        key's file holds where none is given.
    type: str
  client_secret:
    description:
      - The client's secret, for a confidential client. A public client has none, and neither has one with a key
        (O(fleetmail.smtp.smtp_oauth_token#module:jwt_key_file)).
      - It is kept on the host in the store, in a file that root alone can read. It is never shown.
      - Left out, a secret that is registered stays registered, so that it can come from one task, once. An empty one
        given to M(fleetmail.smtp.smtp_oauth_token) takes it out of the store.
    type: str
  scope:
    description:
      - The scopes to ask for, as one string with spaces or as a list. Each is named once.
      - By default those that the provider wants for sending mail by O(oauth_grant).
    type: raw
  oauth_tenant:
    description:
      - The tenant at Microsoft, by its identifier (a GUID) or one of its domains. At Zoho the region, as V(eu).
    type: str
"""

    # not where what is not given is as it is registered
    DEFAULTS = r"""
options:
  oauth_provider:
    description:
      - Whose URLs, scopes, lifetimes and habits to take, V(microsoft365), V(microsoft365_us), V(microsoft365_cn),
        V(google), V(yahoo), V(fastmail), V(zoho) or V(custom).
      - V(custom) is the default because the URLs then are those of the options.
    type: str
    default: custom
  oauth_grant:
    description:
      - How access is granted.
      - V(authorization_code) asks a person in a browser. It is the default because every provider has it.
      - V(device_code) asks a person too, by a code that is typed in on any other machine.
      - V(client_credentials) asks nobody, an administrator allowed the client itself to send. V(jwt_bearer) is the
        same with a signed assertion, as service accounts of Google have it.
    type: str
    choices: [authorization_code, device_code, client_credentials, jwt_bearer]
    default: authorization_code
"""

    STORE = r"""
options:
  store:
    description:
      - The directory on the host that owns registrations, grants and their history. It is made with mode C(0700).
      - It is the default of every part of the collection. With another one, the token keeper has to be told.
    type: path
    default: /var/lib/fleetmail/oauth
"""
