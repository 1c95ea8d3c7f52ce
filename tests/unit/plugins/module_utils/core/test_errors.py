# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.errors import (
    FleetmailError,
    HostError,
    InvalidService,
    Problem,
    StepFailed,
)


def test_one_problem_is_one_sentence() -> None:
    error = InvalidService([Problem("port", "0 is not a TCP port", "1 to 65535")])
    assert str(error) == error.message == "port: 0 is not a TCP port (1 to 65535)"


def test_several_problems_are_counted_and_all_there() -> None:
    problems = [Problem("port", "a"), Problem("host", "b"), Problem("name", "c")]
    error = InvalidService(problems)
    assert str(error) == "port: a (and 2 more)"
    assert error.problems == problems


@pytest.mark.parametrize(
    ("error", "option", "message"),
    [
        (HostError("/etc/x", "cannot be read", "why?"), "/etc/x", "/etc/x: cannot be read (why?)"),
        (StepFailed("check", "no", "mend it"), "check", "check: no (mend it)"),
        (StepFailed("verify", "no", option="host"), "host", "host: no"),
    ],
)
def test_every_error_carries_its_problem(error: FleetmailError, option: str, message: str) -> None:
    assert isinstance(error, FleetmailError)
    assert str(error) == message
    assert [problem.option for problem in error.problems] == [option]
    assert error.problems[0].as_dict().keys() == {"option", "problem", "hint"}


def test_a_failed_step_says_which() -> None:
    assert StepFailed("activate", "no").step == "activate"


def test_what_is_quoted_stays_on_one_line() -> None:
    problem = Problem("host", "'a\nb\0\x1b[31m\ud800'")
    for text in (str(problem), *problem.as_dict().values()):
        assert text.isprintable()
        text.encode()
