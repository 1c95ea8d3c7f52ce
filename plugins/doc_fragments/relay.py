# -*- coding: utf-8 -*-

# Copyright: fleetmail.smtp contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options that say where a relay is, how the way to it is secured and who we are."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  host:
    description:
      - DNS name or IP address (IPv4 or IPv6) of the relay. The name is used as it is, without an MX look-up.
    type: str
  port:
    description:
      - TCP port of the relay.
      - When it is not given it follows from O(security), V(25) for V(none), V(587) for V(starttls) and V(465) for V(tls).
    type: int
  security:
    description:
      - V(none) is clear text.
      - V(starttls) begins in clear text and must be upgraded before anything else is said. It is mandatory, never opportunistic.
      - V(tls) is TLS from the first byte (implicit TLS).
    type: str
    choices: [none, starttls, tls]
    default: none
  auth_type:
    description:
      - V(none) for a relay that knows the host by its address, V(password) for SASL PLAIN or LOGIN, V(oauth) for an access token
        by SASL XOAUTH2 or OAUTHBEARER.
    type: str
    choices: [none, password, oauth]
    default: none
  username:
    description:
      - SASL user name, with OAuth the mailbox that mail is sent as.
    type: str
  password:
    description:
      - SASL password, any UTF-8 text without line breaks. What a mail software cannot carry is refused.
      - It is never shown, in no result, diff, argument list or log.
    type: str
  ca_file:
    description:
      - File on the managed host with the CA certificates (PEM) that the relay's certificate must come from.
      - The system's own store is used when it is not given.
    type: path
  validate_certs:
    description:
      - Whether the relay's certificate must be valid, from a trusted CA and for the name O(host).
      - V(true) is the default because a credential given to an unverified relay is given to anybody.
    type: bool
    default: true
  allow_cleartext_auth:
    description:
      - Whether credentials may cross a network in clear text. Without it O(security=none) with credentials is an error, except
        to a loopback address.
    type: bool
    default: false
  timeout:
    description:
      - Seconds to wait for the relay. 30 is what mail software commonly waits for a connection.
    type: int
    default: 30
"""
