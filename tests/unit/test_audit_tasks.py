# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The file of tasks that the playbook audit writes of what a host said. It is run on the control node, later."""

from __future__ import annotations

from typing import Any

import jinja2
import pytest
import yaml
from ansible.plugins.filter import core as filters
from ansible.plugins.test import core as tests
from driver.checkout import ROOT

GOOD = {"name": "default", "backend": "postfix", "password": "{{ vault_smtp_password_fleet_relay_example_test }}"}
EVIL = "{{ lookup('pipe', 'id') }}"


def written(*services: dict[str, Any]) -> tuple[str, Any]:
    """The file's text, and what YAML makes of it."""
    environment = jinja2.Environment(trim_blocks=True, autoescape=False)
    environment.filters.update(filters.FilterModule().filters())
    environment.tests.update(tests.TestModule().tests())
    template = environment.from_string((ROOT / "playbooks/templates/audit_tasks.yml.j2").read_text())
    text = template.render(inventory_hostname="web1", smtp_service_info={"services": services})
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
