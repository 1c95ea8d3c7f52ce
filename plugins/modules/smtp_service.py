#!/usr/bin/python
# -*- coding: utf-8 -*-

# Copyright: fleetmail.smtp contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: smtp_service
short_description: Make a host send mail through the right relay, and prove that it does
version_added: 0.1.0
author:
  - fleetmail.smtp contributors (@fleetmail)
description:
  - Enforces one way of sending mail, a I(service), on the mail software of a host. The definition is the form that a person
    would fill in, and drift is told in the form's words.
  - Compared is the I(effective) state, as the software itself sees it. A change by hand, a line that overrides ours, a
    deleted or stale password map, a wrong owner or mode and a service that does not run are all drift.
  - The new state is written, judged by the software's own checker, activated, read back and, if asked for, probed against
    the relay. If any of these steps fails, the host is put back exactly as it was, running service included, and the task
    fails.
  - What the software cannot express is refused by the option's name, never approximated.
  - Mail is not lost on the way. While Postfix or Exim switch from one relay to another, what cannot be delivered is kept in
    the queue.
extends_documentation_fragment:
  - fleetmail.smtp.relay
  - fleetmail.smtp.oauth_client
attributes:
  check_mode:
    support: full
    description: Tells exactly what would be done; on a host without the software, too. O(verify) probes the desired definition.
  diff_mode:
    support: full
    description: The form before and after, and the lines of each file that go and come. Secret files show no content.
options:
  name:
    description:
      - The service's name. Several services may live on one host, told apart by O(senders).
    type: str
    default: default
  state:
    description:
      - V(absent) puts back what the software had without us, byte for byte. The rest of the definition is then not needed.
    type: str
    choices: [present, absent]
    default: present
  enabled:
    description:
      - V(true) needs a complete definition.
      - With V(false) everything may be prepared, but no mail leaves. Postfix and Exim hold it in their queues and lose none;
        msmtp has no queue and refuses with a clear temporary failure.
    type: bool
    default: true
  backend:
    description:
      - The mail software. V(auto) is the one of them that is installed; when none or several are, that is an error.
    type: str
    choices: [auto, exim, msmtp, postfix]
    default: auto
  from_address:
    description:
      - The sender that the host's mail is rewritten to, in the envelope and in the header C(From).
    type: str
  senders:
    description:
      - Mail of these sender addresses or domains alone goes through this service, other mail goes its own way.
      - Postfix and msmtp can do this.
    type: list
    elements: str
  verify:
    description:
      - How far to probe the relay after the new state was activated. Each level includes the ones before it. No mail is sent.
      - V(connect) reads the greeting, V(tls) secures the connection and checks the certificate, V(auth) authenticates,
        V(recipient) asks for O(verify_recipient) by MAIL FROM and RCPT TO, then resets.
      - A probe that fails rolls back. In check mode the desired definition is probed and nothing is changed.
    type: str
    choices: [none, connect, tls, auth, recipient]
    default: none
  verify_recipient:
    description:
      - The recipient that O(verify=recipient) asks for.
    type: str
  test_send:
    description:
      - A real mail to send. Never in check mode and never while O(enabled=false).
      - When it fails after a change, the change is rolled back.
    type: dict
    suboptions:
      to:
        description: The recipients.
        type: list
        elements: str
        required: true
      sender:
        description: The sender. By default O(from_address), else O(username) where it is an address, else C(root) at the host.
        type: str
      subject:
        description: The subject, by default one that names the host.
        type: str
      body:
        description: The text, by default a sentence that names the host.
        type: str
      when:
        description: V(changed) sends when the task changed something, V(always) at every run.
        type: str
        choices: [changed, always]
        default: changed
      via:
        description:
          - V(relay) talks to the relay as the service would.
          - V(mta) hands the mail to the host's own C(sendmail) and follows it until the relay accepted or refused it.
        type: str
        choices: [relay, mta]
        default: relay
      timeout:
        description: Seconds until a mail that is neither accepted nor refused counts as failed.
        type: int
        default: 60
  backup:
    description:
      - Whether to keep a copy of each file that is replaced, beside it, with a time stamp. Copies of secret files are V(0600).
    type: bool
    default: false
  root:
    description:
      - Enforce inside an image or chroot tree. Names and groups are looked up in the tree, no service is touched, and the
        software need not be installed in it. Its own checker is used where it is there.
    type: path
    default: /
  backend_options:
    description:
      - Options of one backend. An unknown key is an error.
      - 'postfix: C(null_client) (bool, default V(false)): the host takes no mail from others and delivers none to itself.'
      - 'msmtp: C(owner), C(group), C(mode) of the configuration file. By default V(0640) and group C(msmtp) where that group
        exists, else V(0600).'
    type: dict
seealso:
  - module: fleetmail.smtp.smtp_probe
"""

EXAMPLES = r"""
- name: Everything that this host sends goes through the relay
  fleetmail.smtp.smtp_service:
    backend: postfix
    host: relay.example.test
    security: starttls
    auth_type: password
    username: fleet
    password: "{{ smtp_password }}"
    ca_file: /etc/ssl/relay-ca.pem
    from_address: fleet@example.test
    verify: auth

- name: The same, proved by a mail that the host's own Postfix has to deliver
  fleetmail.smtp.smtp_service:
    backend: postfix
    host: relay.example.test
    security: starttls
    auth_type: password
    username: fleet
    password: "{{ smtp_password }}"
    ca_file: /etc/ssl/relay-ca.pem
    from_address: fleet@example.test
    test_send:
      to: [oncall@example.test]
      via: mta
      when: always

- name: Invoices go through another account
  fleetmail.smtp.smtp_service:
    name: invoices
    backend: postfix
    host: relay.example.test
    security: tls
    auth_type: password
    username: fleet
    password: "{{ smtp_password }}"
    ca_file: /etc/ssl/relay-ca.pem
    senders: [invoices@example.test]

- name: Hold all mail during the move of the relay
  fleetmail.smtp.smtp_service:
    backend: postfix
    enabled: false

- name: Put back what was there before
  fleetmail.smtp.smtp_service:
    name: "{{ item }}"
    backend: postfix
    state: absent
  loop: [invoices, default]
"""

RETURN = r"""
service:
  description: The service as it now is on the host, in the form's words. A secret is V((set\)) or V((unset\)).
  returned: always
  type: dict
drift:
  description: What differed. In check mode, what differs.
  returned: always
  type: list
  elements: dict
  contains:
    field:
      description: The form's field, or what is wrong with which file, or V(running).
      type: str
    before:
      description: What was found. A password is V((set\)) or V((unset\)).
      type: raw
    after:
      description: What is wanted. A password is V((set\)), V((changed\)) or V((unset\)).
      type: raw
files:
  description: The files that were (or would be) written or removed.
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: The file.
      type: str
    action:
      description: V(created), V(changed), V(permissions) or V(removed).
      type: str
actions:
  description: The commands that were run to change something, in order.
  returned: always
  type: list
  elements: str
verification:
  description: The probe, as in M(fleetmail.smtp.smtp_probe).
  returned: when O(verify) is not V(none)
  type: dict
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
      description: The way it went.
      type: str
    queue_id:
      description: Its queue id on the host, with O(test_send.via=mta).
      type: str
    skipped:
      description: Why it was not sent, when it was not meant to be.
      type: str
rolled_back:
  description: Whether a failed change was undone. The host is then exactly as it was.
  returned: always
  type: bool
backup_files:
  description: The copies that O(backup) asked for.
  returned: always
  type: list
  elements: str
problems:
  description: Everything that is wrong, each with the option (or file) it is about and the way out.
  returned: on failure
  type: list
  elements: dict
  contains:
    option:
      description: The option.
      type: str
    problem:
      description: What is wrong.
      type: str
    hint:
      description: The way out.
      type: str
"""

from ansible_collections.fleetmail.smtp.plugins.module_utils.ansible_host import AnsibleHost
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.enforce import enforce
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.order import offline_problems
from ansible_collections.fleetmail.smtp.plugins.module_utils.form_arguments import (
    LEVELS,
    OAUTH,
    RELAY,
    TEST_SEND_HERE,
    FormModule,
    run,
)


def main() -> None:
    arguments = {
        **RELAY,
        **OAUTH,
        "name": {"type": "str", "default": "default"},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "enabled": {"type": "bool", "default": True},
        "backend": {"type": "str", "choices": ["auto", "exim", "msmtp", "postfix"], "default": "auto"},
        "from_address": {"type": "str"},
        "senders": {"type": "list", "elements": "str"},
        "verify": {"type": "str", "choices": LEVELS, "default": "none"},
        "verify_recipient": {"type": "str"},
        "test_send": {"type": "dict", "options": TEST_SEND_HERE},
        "backup": {"type": "bool", "default": False},
        "root": {"type": "path", "default": "/"},
        "backend_options": {"type": "dict"},
    }
    module = FormModule(argument_spec=arguments, supports_check_mode=True, judge=offline_problems)
    run(module, lambda: enforce(module.params, AnsibleHost(module, module.params["root"]), module.check_mode))


if __name__ == "__main__":
    main()
