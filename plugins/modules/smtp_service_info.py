#!/usr/bin/python

# Copyright: fleetmail.smtp contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# DOCUMENTATION, EXAMPLES and RETURN are beside this file, in smtp_service_info.yml: what is sent to every host stays
# small.

from __future__ import annotations

from ansible_collections.fleetmail.smtp.plugins.module_utils.ansible_host import AnsibleHost
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.audit import audit, offline_problems
from ansible_collections.fleetmail.smtp.plugins.module_utils.form_arguments import FormModule, run


def main() -> None:
    arguments = {
        "as_task": {"type": "bool", "default": False},
        "homes": {"type": "bool", "default": False},
        "probe": {"type": "str", "choices": ["none", "connect", "tls", "auth"], "default": "none"},
        "certificate_days": {"type": "int", "default": 30},
        "timeout": {"type": "int", "default": 10},
        "root": {"type": "path", "default": "/"},
    }
    module = FormModule(argument_spec=arguments, supports_check_mode=True, judge=offline_problems)
    run(module, lambda: audit(module.params, AnsibleHost(module, module.params["root"])))


if __name__ == "__main__":
    main()
