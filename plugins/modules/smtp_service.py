#!/usr/bin/python

# Copyright: fleetmail.smtp contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# DOCUMENTATION, EXAMPLES and RETURN are beside this file, in smtp_service.yml: what is sent to every host stays small.

from __future__ import annotations

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
