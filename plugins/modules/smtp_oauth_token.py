#!/usr/bin/python

# Copyright: fleetmail.smtp contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# DOCUMENTATION, EXAMPLES and RETURN are beside this file, in smtp_oauth_token.yml: what is sent to every host stays
# small.

from __future__ import annotations

from ansible_collections.fleetmail.smtp.plugins.module_utils.ansible_host import AnsibleHost
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.manage import manage
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.token_order import offline_problems
from ansible_collections.fleetmail.smtp.plugins.module_utils.form_arguments import FormModule, run
from ansible_collections.fleetmail.smtp.plugins.module_utils.oauth_arguments import (
    AUTHORIZATION,
    NAME,
    REGISTRATION,
    STORE,
)


def main() -> None:
    arguments = {
        **REGISTRATION,
        **AUTHORIZATION,
        "name": NAME,
        "state": {"type": "str", "choices": ["present", "authorized", "absent"], "default": "present"},
        "store": STORE,
    }
    module = FormModule(argument_spec=arguments, supports_check_mode=True, judge=offline_problems)
    run(module, lambda: manage(module.params, AnsibleHost(module), module.check_mode))


if __name__ == "__main__":
    main()
