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
      - DNS name or IP address (IPv4 or IPv6) of the relay, without scheme and port. The name is used as it is, its MX
        records are not looked up. An international name is written in its ASCII form (C(xn--)).
      - Needed for everything but a service that is disabled or absent.
    type: str
  port:
    description:
      - TCP port of the relay.
      - When it is not given it follows from O(security), V(25) for V(none), V(587) for V(starttls) and V(465) for
        V(tls).
    type: int
  security:
    description:
      - V(none) is clear text. It is the default because it goes with V(auth_type=none), a relay in the house that
        knows its hosts by their addresses. With credentials see O(allow_cleartext_auth).
      - V(starttls) begins in clear text and must be upgraded before anything else is said. It is mandatory, never
        opportunistic. Where the relay does not offer it, no mail and no credential is sent.
      - V(tls) is TLS from the first byte (implicit TLS).
    type: str
    choices: [none, starttls, tls]
    default: none
  auth_type:
    description:
      - V(none) is for a relay that knows the host by its address. It is the default because there are no credentials
        by default.
      - V(password) is SASL PLAIN or LOGIN. It needs O(username) and O(password).
      - V(oauth) is an access token by SASL XOAUTH2 or OAUTHBEARER. It needs O(username). M(fleetmail.smtp.smtp_probe)
        takes the token, M(fleetmail.smtp.smtp_service) has the software read the one of the store.
    type: str
    choices: [none, password, oauth]
    default: none
  username:
    description:
      - SASL user name, with OAuth the mailbox that mail is sent as. It is an error without O(auth_type).
    type: str
  password:
    description:
      - SASL password, any UTF-8 text without line breaks and control characters (a tab is allowed). It is an error
        without O(auth_type=password). What a mail software cannot carry is refused.
      - It is never shown, in no result, difference, argument list or log.
    type: str
  ca_file:
    description:
      - Absolute path of a file on the host, with the CA certificates (PEM) that the relay's certificate must come
        from. Only these are trusted then.
      - The system's own certificates are used when it is not given.
    type: path
  validate_certs:
    description:
      - Whether the relay's certificate must be valid, from a trusted CA and for the name in O(host).
      - V(true) is the default because a credential given to an unverified relay is given to anybody.
    type: bool
    default: true
  allow_cleartext_auth:
    description:
      - Whether credentials may cross a network in clear text. Without it O(security=none) with credentials is an
        error, except to a loopback address.
      - V(false) is the default because anybody on the way can read them.
    type: bool
    default: false
  timeout:
    description:
      - Seconds to wait for the relay in each step of a conversation, 1 to 3600. 30 is what Postfix waits for a
        connection unless told otherwise.
      - Postfix and msmtp are set to it, too. Exim as Debian packages it has no setting for it and refuses another
        value.
    type: int
    default: 30
"""
