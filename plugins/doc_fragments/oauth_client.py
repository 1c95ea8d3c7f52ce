# Copyright: fleetmail.smtp contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options that describe an OAuth client."""

from __future__ import annotations


class ModuleDocFragment:
    # So far these options are checked and nothing more: O(auth_type=oauth) is refused.
    DOCUMENTATION = r"""
options:
  authorization_url:
    description:
      - The authorization server's authorization endpoint. It must begin with V(https://), except on a loopback
        address.
      - This and the other options of the OAuth client are checked and not used in this version, because
        O(auth_type=oauth) is refused. Nothing of them is stored on the host.
    type: str
  token_url:
    description:
      - The authorization server's token endpoint. It must begin with V(https://), except on a loopback address.
    type: str
  client_id:
    description:
      - The client's identifier, from its registration with the provider.
    type: str
  client_secret:
    description:
      - The client's secret, for a confidential client. It is never shown.
    type: str
  scope:
    description:
      - The scopes to ask for, as one string with spaces or as a list. Each is named once.
    type: raw
  oauth_provider:
    description:
      - The name of the provider. V(custom) is the default because the URLs then are those of the options.
    type: str
    default: custom
  oauth_tenant:
    description:
      - The tenant at Microsoft, by its identifier or one of its domains.
    type: str
  oauth_grant:
    description:
      - How access is granted. V(authorization_code) is the default because it is what a person does in a browser.
    type: str
    choices: [authorization_code, device_code, client_credentials, jwt_bearer]
    default: authorization_code
"""
