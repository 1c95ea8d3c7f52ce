# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""What can go wrong, as data: every error carries all of its problems, each named by option."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Problem(NamedTuple):
    """One thing that is wrong: the option (or file) it is about, what is wrong with it, and the way out."""

    option: str
    problem: str
    hint: str = ""

    def as_dict(self) -> dict[str, str]:
        return {"option": shown(self.option), "problem": shown(self.problem), "hint": shown(self.hint)}

    def __str__(self) -> str:
        return shown("{}: {}{}".format(self.option, self.problem, f" ({self.hint})" if self.hint else ""))


def shown(text: str) -> str:
    """One line, whatever was quoted in it."""
    return "".join(c if c.isprintable() else "?" for c in text)


class FleetmailError(Exception):
    """Base of all errors of the core. ``str(error)`` is one sentence; ``problems`` has every problem."""

    def __init__(self, message: str, problems: Iterable[Problem] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.problems: list[Problem] = list(problems)


class InvalidService(FleetmailError):
    """The definition is wrong or cannot be expressed by the backend; found before anything was touched."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        first = str(problems[0])
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{first}{more}", problems)


class HostError(FleetmailError):
    """The host did not do what it was asked: a file that cannot be written, a program that is not there."""

    def __init__(self, subject: str, problem: str, hint: str = "") -> None:
        found = Problem(subject, problem, hint)
        super().__init__(str(found), [found])


class StepFailed(FleetmailError):
    """A step of an apply said no (check, activate, effective, probe, test send); ``step`` names it."""

    def __init__(self, step: str, problem: str, hint: str = "", option: str | None = None) -> None:
        found = Problem(option or step, problem, hint)
        super().__init__(str(found), [found])
        self.step = step


def unforeseen(error: Exception) -> FleetmailError:
    """A mistake of ours as an error: where it was, never its text, which may hold a secret."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    found = Problem("internal error", f"{type(error).__name__} at {place}", "please report it")
    return FleetmailError(str(found), [found])
