# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every result of a play as Ansible has it, one JSON text a line: nothing that a display would mask is masked."""

from __future__ import annotations

DOCUMENTATION = """
name: journal
author: fleetmail.smtp contributors
type: notification
short_description: Write every result to a file
description: One JSON object a line, with host, task, status and result.
requirements:
  - enabled by C(ANSIBLE_CALLBACKS_ENABLED)
options:
  path:
    description: The file.
    type: path
    required: true
    env:
      - name: LAB_JOURNAL
"""

import json  # noqa: E402

from ansible.plugins.callback import CallbackBase  # noqa: E402


class CallbackModule(CallbackBase):
    """Appends to the file as results come."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "journal"
    CALLBACK_NEEDS_ENABLED = True

    def _note(self, status, result):
        told = {"host": result._host.get_name(), "task": result._task.get_name(), "status": status}
        with open(self.get_option("path"), "a", encoding="utf-8") as file:
            file.write(json.dumps({**told, "result": result._result}, default=str) + "\n")

    def v2_runner_on_ok(self, result):
        self._note("ok", result)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self._note("failed", result)

    def v2_runner_on_unreachable(self, result):
        self._note("unreachable", result)

    def v2_runner_on_skipped(self, result):
        self._note("skipped", result)

    def v2_runner_item_on_ok(self, result):
        self._note("item ok", result)

    def v2_runner_item_on_failed(self, result):
        self._note("item failed", result)
