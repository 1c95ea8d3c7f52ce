#!/usr/bin/python

# Copyright: fleetmail.smtp contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# DOCUMENTATION, EXAMPLES and RETURN are beside this file, in smtp_probe.yml: what is sent to every host stays small.

from __future__ import annotations

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
