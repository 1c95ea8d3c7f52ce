# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes each task's result to the file that DEMO_RECORD names, one JSON object a line, for run.py to check."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: record
type: notification
short_description: Writes results to a file
description: Writes each task's result to the file that the environment variable C(DEMO_RECORD) names, as JSON.
author: fleetmail.smtp contributors
requirements:
  - enabled in the configuration
"""


class CallbackModule(CallbackBase):
    """One line a result: host, action, result."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "record"
    CALLBACK_NEEDS_ENABLED = True

    def v2_runner_on_ok(self, result: Any) -> None:
        self._write(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._write(result, failed=True)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._write(result, failed=True)

    @staticmethod
    def _write(result: Any, failed: bool = False) -> None:
        # ansible-core 2.18 has these names with an underscore only
        names = ("host", "task", "result") if hasattr(result, "result") else ("_host", "_task", "_result")
        host, task, data = (getattr(result, name) for name in names)
        entry = {"host": host.get_name(), "action": task.action, "failed": failed, "result": data}
        line = json.dumps(entry, default=str)
        with open(os.environ["DEMO_RECORD"], "a", encoding="utf-8") as file:
            file.write(line + "\n")
