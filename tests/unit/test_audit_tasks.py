# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The file of tasks that the playbook audit writes of what a host said. It is run on the control node, later."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import yaml
from driver.checkout import ROOT

TEMPLATE = ROOT / "playbooks/templates/audit_tasks.yml.j2"
# in a process of its own: who has imported the controller's half of Ansible cannot test a module's any more
RENDER = """
import json, sys
from ansible.plugins.filter.core import FilterModule
from ansible.plugins.test.core import TestModule
from jinja2 import Environment

environment = Environment(trim_blocks=True)
environment.filters.update(FilterModule().filters())
environment.tests.update(TestModule().tests())
services = json.load(sys.stdin)
text = open(sys.argv[1]).read()
print(environment.from_string(text).render(inventory_hostname="web1", smtp_service_info={"services": services}))
"""
GOOD = {"name": "default", "backend": "postfix", "password": "{{ vault_smtp_password_fleet_relay_example_test }}"}
EVIL = "{{ lookup('pipe', 'id') }}"


def written(*services: dict[str, Any]) -> tuple[str, Any]:
    """The file's text, and what YAML makes of it."""
    command = [sys.executable, "-c", RENDER, str(TEMPLATE)]
    text = subprocess.run(command, input=json.dumps(services), capture_output=True, text=True, check=True).stdout
    return text, yaml.safe_load(text)


def said(**task: Any) -> dict[str, Any]:
    """A service as a host says it."""
    drift = [{"field": "host", "before": "a\nb", "after": "c"}]
    problem = {"option": "x", "problem": "y\n- debug: z", "hint": ""}
    return {"name": "d", "backend": "postfix", "task": task, "task_drift": drift, "task_problems": [problem]}


def test_the_names_of_secrets_are_expressions() -> None:
    text, tasks = written(said(**GOOD))
    assert tasks == [{"name": "The service default of postfix", "fleetmail.smtp.smtp_service": GOOD}]
    assert '# postfix d: host becomes "c", it is "a\\nb"' in text


@pytest.mark.parametrize(
    "more",
    [
        {"username": EVIL},
        {"senders": ["a@b.example", EVIL]},
        {"backend_options": {"logfile": "{% x %}"}},
        {EVIL: "x"},
        {"password": "{{ vault_smtp_x }}" + EVIL},
    ],
)
def test_nothing_else_of_a_host_is(more: dict[str, Any]) -> None:
    text, tasks = written(said(**{**GOOD, **more}), said(**GOOD))
    assert [task["fleetmail.smtp.smtp_service"] for task in tasks] == [GOOD]
    assert EVIL not in text


def test_no_name_begins_a_task_of_its_own() -> None:
    service = {**said(**GOOD), "name": f"{EVIL}\n- ansible.builtin.command: id\n#", "backend": "x\ny"}
    tasks = written(service)[1]
    assert [set(task) for task in tasks] == [{"name", "fleetmail.smtp.smtp_service"}]
    assert EVIL not in yaml.safe_dump(tasks)
