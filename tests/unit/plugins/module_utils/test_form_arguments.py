# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The way from Ansible's arguments and to Ansible's result, with a module in this process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from ansible.module_utils import basic

from ansible_collections.fleetmail.smtp.plugins.module_utils import form_arguments as module
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.errors import Problem
from ansible_collections.fleetmail.smtp.plugins.modules import smtp_probe, smtp_service

CANARY, OLD = "kanarienvogel", "zaunkoenig-alt"
Ended = dict[str, Any]


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Run something as a module with these arguments; gives the JSON that it printed."""

    def run(work: Callable[[], None], arguments: dict[str, Any]) -> Ended:
        monkeypatch.setattr(basic, "_ANSIBLE_ARGS", json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode())
        monkeypatch.setattr(basic, "_ANSIBLE_PROFILE", "legacy", raising=False)
        monkeypatch.setattr(sys, "argv", ["module"])
        with pytest.raises(SystemExit):
            work()
        out = capsys.readouterr().out
        assert CANARY not in out
        assert OLD not in out
        told: Ended = json.loads(out)
        return told

    return run


def options_of(told: Ended) -> list[str]:
    return [problem["option"] for problem in told["problems"]]


@pytest.mark.parametrize(
    ("messages", "unknown", "named"),
    [
        (["missing required arguments: host"], [], ["host"]),
        (["missing required arguments: host, port"], [], ["host", "port"]),
        (["missing required arguments: to found in test_send"], [], ["test_send.to"]),
        (["argument 'port' is of type <class 'str'> and we were unable to convert to int: x"], [], ["port"]),
        (["argument 'port' is of type str and we were unable to convert to int: x"], [], ["port"]),
        (["argument 'timeout' is of type str found in 'test_send'. and we were unable"], [], ["test_send.timeout"]),
        (["value of security must be one of: a, b, got: q"], [], ["security"]),
        (["value of when must be one of: x, got: k found in test_send"], [], ["test_send.when"]),
        (["Elements value for option 'senders' is of type dict and we were unable"], [], ["senders"]),
        (["a, test_send.b. Supported parameters include: c."], ["a", ("test_send", "b")], ["a", "test_send.b"]),
        (
            [
                "dictionary requested, could not parse JSON or key=value",
                "argument 'test_send' is of type str and we were unable to convert to dict: dictionary requested",
                "value of 'test_send' must be of type dict or list of dicts",
            ],
            [],
            ["test_send"],
        ),
        (["something that names nothing"], [], ["arguments"]),
    ],
    ids=str,
)
def test_ansibles_sentences_are_told_by_option(messages: list[str], unknown: list[Any], named: list[str]) -> None:
    assert [problem.option for problem in module._refusals(messages, unknown)] == named


def test_several_bad_arguments_of_all_kinds_come_at_once(ended: Callable[..., Ended]) -> None:
    told = ended(
        smtp_service.main,
        {
            "host": "smtp://x",
            "port": "smtp",
            "security": "ssl",
            "username": "u",
            "password": CANARY + "\n",
            "timeout": 0,
            "test_send": {"timeout": "long", "to": ["x"], "via": "air", "no_such": 1},
            "no_such_either": 1,
            "backend_options": "x",
        },
    )
    assert sorted(options_of(told)) == sorted(
        [
            *("host", "port", "security", "username", "timeout", "backend_options", "no_such_either"),
            *("password", "password", "test_send.timeout", "test_send.to", "test_send.via", "test_send.no_such"),
        ]
    )
    assert told["failed"] is True
    assert told["msg"].endswith(f"(and {len(told['problems']) - 1} more)")


@pytest.mark.parametrize("root", ["/a\0b", "/a\nb"])
def test_a_root_that_is_no_path_is_told_with_the_rest(ended: Callable[..., Ended], root: str) -> None:
    assert options_of(ended(smtp_service.main, {"root": root, "host": "a b", "port": 0})) == ["root", "port", "host"]


def test_a_probe_needs_a_host(ended: Callable[..., Ended]) -> None:
    assert options_of(ended(smtp_probe.main, {"timeout": 0})) == ["host", "timeout"]


def form_module() -> module.FormModule:
    arguments = {**module.RELAY, **module.OAUTH, "access_token": {"type": "str", "no_log": True}}
    return module.FormModule(argument_spec=arguments, supports_check_mode=True, judge=lambda _arguments: [])


@pytest.mark.parametrize("display", ["never", "always"])
def test_an_error_that_nobody_foresaw_shows_where_it_was_and_nothing_else(
    ended: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, display: str
) -> None:
    """Ansible shows the pending exception with its text where the person wants tracebacks."""

    def broken() -> dict[str, Any]:
        try:
            raise ValueError(f"the old password is {OLD}")
        except ValueError as error:
            raise KeyError(CANARY) from error

    arguments = {"password": CANARY, "_ansible_tracebacks_for": [] if display == "never" else ["error", "warning"]}
    told = ended(lambda: module.run(form_module(), broken), arguments)
    assert told["failed"] is True
    assert "KeyError" in told["msg"]
    assert "test_form_arguments.py" in told["msg"]


def test_a_result_goes_out_as_it_is_and_its_warnings_where_ansible_has_them(ended: Callable[..., Ended]) -> None:
    result = {"changed": True, "service": {"password": "(set)"}, "warnings": ["mind the gap"]}
    told = ended(lambda: module.run(form_module(), lambda: dict(result)), {"password": CANARY, "client_secret": OLD})
    assert told["changed"] is True
    assert "mind the gap" in str(told["warnings"])
    assert "failed" not in told


def test_a_failure_goes_out_with_all_of_its_result(ended: Callable[..., Ended]) -> None:
    problem = Problem("verify", "no", "mend it").as_dict()
    result = {"failed": True, "changed": False, "msg": "no", "problems": [problem], "rolled_back": True, "warnings": []}
    told = ended(lambda: module.run(form_module(), lambda: dict(result)), {"access_token": CANARY})
    assert [told[key] for key in ("failed", "msg", "problems", "rolled_back")] == [True, "no", [problem], True]


def test_secrets_are_registered_where_ansible_can_do_that(
    ended: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    registered: list[list[str]] = []
    monkeypatch.setattr(module, "_register", registered.append)
    secrets = {"password": CANARY, "client_secret": OLD, "access_token": CANARY + "-token"}
    ended(lambda: module.run(form_module(), lambda: {"changed": False}), secrets)
    assert [sorted(one) for one in registered] == [sorted(secrets.values())]


def test_every_option_that_is_a_secret_is_hidden_by_ansible_and_no_other() -> None:
    specs = {**module.RELAY, **module.OAUTH, **module.TEST_SEND_HERE}
    assert {name for name, spec in specs.items() if spec.get("no_log")} == {"password", "client_secret"}
