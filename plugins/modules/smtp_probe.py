#!/usr/bin/python
# -*- coding: utf-8 -*-

# Copyright: fleetmail.smtp contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: smtp_probe
short_description: Ask an SMTP relay whether it would take this host's mail
version_added: 0.1.0
author:
  - fleetmail.smtp contributors (@fleetmail)
description:
  - Holds a conversation with a relay, step by step, from wherever the task runs, and tells of every step what the relay
    said and how long it took. No mail is sent unless O(test_send) asks for one.
  - A failed step fails the task with one sentence that says what is wrong and what to do.
  - It needs no mail software on the host and reads no configuration.
extends_documentation_fragment:
  - fleetmail.smtp.relay
attributes:
  check_mode:
    support: full
    description: The probe runs in check mode too; a test send does not.
  diff_mode:
    support: none
    description: Nothing is changed.
options:
  host:
    required: true
  access_token:
    description:
      - The access token for O(auth_type=oauth). It is never shown.
    type: str
  from_address:
    description:
      - Envelope sender for O(verify=recipient) and for the test send. By default O(username) where it is an address, else
        C(root) at this host.
    type: str
  verify:
    description:
      - How far to go. Each level includes the ones before it.
      - V(connect) reads the greeting, V(tls) secures the connection and checks the certificate, V(auth) authenticates,
        V(recipient) asks for O(verify_recipient) by MAIL FROM and RCPT TO, then resets. Nothing is sent.
    type: str
    choices: [none, connect, tls, auth, recipient]
    default: auth
  verify_recipient:
    description:
      - The recipient that O(verify=recipient) asks for.
    type: str
  test_send:
    description:
      - A mail to send after the probe. Never in check mode.
    type: dict
    suboptions:
      to:
        description: The recipients.
        type: list
        elements: str
        required: true
      sender:
        description: The sender, by default that of O(from_address).
        type: str
      subject:
        description: The subject, by default one that names the host.
        type: str
      body:
        description: The text, by default a sentence that names the host.
        type: str
      timeout:
        description: Seconds that the sending may take.
        type: int
        default: 60
seealso:
  - module: fleetmail.smtp.smtp_service
"""

EXAMPLES = r"""
- name: Does the relay accept what the fleet would say to it?
  fleetmail.smtp.smtp_probe:
    host: relay.example.test
    security: starttls
    auth_type: password
    username: fleet
    password: "{{ smtp_password }}"
    ca_file: /etc/ssl/relay-ca.pem

- name: How many days is the relay's certificate good for?
  fleetmail.smtp.smtp_probe:
    host: relay.example.test
    security: tls
    verify: tls
    ca_file: /etc/ssl/relay-ca.pem
  register: relay

- name: Would it take mail for the on-call mailbox?
  fleetmail.smtp.smtp_probe:
    host: relay.example.test
    security: starttls
    auth_type: password
    username: fleet
    password: "{{ smtp_password }}"
    ca_file: /etc/ssl/relay-ca.pem
    from_address: fleet@example.test
    verify: recipient
    verify_recipient: oncall@example.test

- name: Send one
  fleetmail.smtp.smtp_probe:
    host: relay.example.test
    security: starttls
    auth_type: password
    username: fleet
    password: "{{ smtp_password }}"
    ca_file: /etc/ssl/relay-ca.pem
    test_send:
      to: [oncall@example.test]
      sender: fleet@example.test
"""

RETURN = r"""
verification:
  description: The conversation.
  returned: when the options are valid
  type: dict
  contains:
    level:
      description: The level that was asked for.
      type: str
    reached:
      description: The last level that was reached.
      type: str
    ok:
      description: Whether every step succeeded.
      type: bool
    steps:
      description: The steps in order.
      type: list
      elements: dict
      contains:
        name:
          description: What was done.
          type: str
        ok:
          description: Whether it succeeded.
          type: bool
        detail:
          description: The relay's words, or what went wrong. Never a credential.
          type: str
        ms:
          description: How long it took, in milliseconds.
          type: int
    tls:
      description: The secured connection and the relay's certificate.
      type: dict
      contains:
        version:
          description: The protocol's version.
          type: str
        cipher:
          description: The cipher suite.
          type: str
        subject:
          description: The certificate's subject.
          type: str
        issuer:
          description: The certificate's issuer.
          type: str
        names:
          description: The names that the certificate is for.
          type: list
          elements: str
        not_after:
          description: When it ends (ISO 8601, UTC).
          type: str
        days_left:
          description: Days until then.
          type: int
    capabilities:
      description: What the relay offered by EHLO, after TLS.
      type: list
      elements: str
    auth_mechanisms:
      description: The SASL mechanisms that it offered.
      type: list
      elements: str
test_send:
  description: The mail that was sent.
  returned: when O(test_send) is given
  type: dict
  contains:
    sent:
      description: Whether the relay took it.
      type: bool
    message_id:
      description: Its Message-ID.
      type: str
    reply:
      description: The relay's words.
      type: str
    via:
      description: Always V(relay).
      type: str
    skipped:
      description: Why it was not sent, when it was not meant to be.
      type: str
problems:
  description: Everything that is wrong, each with the option it is about and the way out.
  returned: on failure
  type: list
  elements: dict
"""

from ansible_collections.fleetmail.smtp.plugins.module_utils.ansible_host import AnsibleHost
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.relay_check import check_relay, offline_problems
from ansible_collections.fleetmail.smtp.plugins.module_utils.form_arguments import (
    LEVELS,
    RELAY,
    TEST_SEND,
    FormModule,
    run,
)


def main() -> None:
    arguments = {
        **RELAY,
        "host": {"type": "str", "required": True},
        "access_token": {"type": "str", "no_log": True},
        "from_address": {"type": "str"},
        "verify": {"type": "str", "choices": LEVELS, "default": "auth"},
        "verify_recipient": {"type": "str"},
        "test_send": {"type": "dict", "options": TEST_SEND},
    }
    module = FormModule(argument_spec=arguments, supports_check_mode=True, judge=offline_problems)
    run(module, lambda: check_relay(module.params, AnsibleHost(module), module.check_mode))


if __name__ == "__main__":
    main()
