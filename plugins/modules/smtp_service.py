#!/usr/bin/python
# -*- coding: utf-8 -*-

# Copyright: fleetmail.smtp contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: smtp_service
"""

from ansible_collections.fleetmail.smtp.plugins.module_utils.ansible_host import AnsibleHost
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.enforce import enforce
from ansible_collections.fleetmail.smtp.plugins.module_utils.form_arguments import (
    LEVELS,
    OAUTH,
    RELAY,
    TEST_SEND,
    FormModule,
    run,
)


def main() -> None:
    module = FormModule(
        argument_spec=dict(
            name=dict(type="str", default="default"),
            state=dict(type="str", choices=["present", "absent"], default="present"),
            enabled=dict(type="bool", default=True),
            backend=dict(type="str", choices=["auto", "exim", "msmtp", "postfix"], default="auto"),
            from_address=dict(type="str"),
            senders=dict(type="list", elements="str"),
            verify=dict(type="str", choices=LEVELS, default="none"),
            verify_recipient=dict(type="str"),
            test_send=dict(
                type="dict",
                options=dict(when=dict(type="str", choices=["changed", "always"], default="changed"), **TEST_SEND),
            ),
            backup=dict(type="bool", default=False),
            root=dict(type="path", default="/"),
            backend_options=dict(type="dict"),
            **RELAY,
            **OAUTH,
        ),
        supports_check_mode=True,
    )
    host = AnsibleHost(module, module.params["root"])
    run(module, lambda: enforce(module.params, host, module.check_mode))


if __name__ == "__main__":
    main()
