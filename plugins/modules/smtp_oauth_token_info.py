#!/usr/bin/python

# Copyright: fleetmail.smtp contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# DOCUMENTATION, EXAMPLES and RETURN are beside this file, in smtp_oauth_token_info.yml: what is sent to every host
# stays small.

from __future__ import annotations

from ansible_collections.fleetmail.smtp.plugins.module_utils.ansible_host import AnsibleHost
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.inspect import inspect, offline_problems
from ansible_collections.fleetmail.smtp.plugins.module_utils.form_arguments import FormModule, run
from ansible_collections.fleetmail.smtp.plugins.module_utils.oauth_arguments import STORE, TIMEOUT


def main() -> None:
    arguments = {
        "name": {"type": "str"},
        "store": STORE,
        "introspect": {"type": "bool", "default": False},
        "timeout": TIMEOUT,
    }
    module = FormModule(argument_spec=arguments, supports_check_mode=True, judge=offline_problems)
    run(module, lambda: inspect(module.params, AnsibleHost(module)))


if __name__ == "__main__":
    main()
