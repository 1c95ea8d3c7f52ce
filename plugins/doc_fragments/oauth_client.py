# -*- coding: utf-8 -*-

# Copyright: fleetmail.smtp contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options that describe an OAuth client."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  authorization_url:
    description:
      - The authorization server's authorization endpoint. It must begin with V(https://), except on a loopback address.
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
      - The scopes to ask for, as one string with spaces or as a list.
    type: raw
  oauth_provider:
    description:
      - V(custom) takes the URLs and the scope from the options. Another name fills them in from the table of providers.
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
