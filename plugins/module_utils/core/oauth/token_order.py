# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""What is ordered of a token: the options of ``smtp_oauth_token``, read, and judged without touching anything."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import Problem
from ..redaction import Secret
from ..service import NOT_ONE_LINE, is_loopback, is_one_line, name_problems
from .registration import OPTIONS, Registration

if TYPE_CHECKING:
    from .registration_problems import Problems

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
# the unit of a number without one
DURATIONS = {"min_validity": "s", "keepalive": "d", "refresh_token_lifetime": "d", "warn_before": "d"}
LONGEST_WAIT, LONGEST_TIMEOUT = 3600, 600
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*([a-z]*)")
_SPELLINGS = {"sec": "s", "second": "s", "min": "m", "minute": "m", "hour": "h", "day": "d", "week": "w"}


class TokenOrder(NamedTuple):
    """One call of ``smtp_oauth_token``."""

    name: str = "default"
    state: str = "present"
    store: str = "/"
    declared: Mapping[str, Any] = {}  # the registration's options, as far as they are given, durations in seconds
    listen: str = ""
    answer: Secret | None = None
    wait: int = 0
    timeout: int = 20
    revoke: bool = True
    unread: tuple[Problem, ...] = ()  # what is no duration, no scope

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> TokenOrder:
        """Read a module's options; nothing is raised for what is wrong with them."""
        declared, unread = _declared(options)
        answer = options.get("authorization_response")
        return cls(
            name=options.get("name") or "",
            state=options.get("state") or "present",
            store=options.get("store") or "/",
            declared=declared,
            listen=options.get("listen") or "",
            answer=None if answer is None else Secret(str(answer).strip()),
            wait=options.get("wait") or 0,
            timeout=20 if options.get("timeout") is None else options["timeout"],
            revoke=options.get("revoke") is not False,
            unread=tuple(unread),
        )

    @property
    def given(self) -> bool:
        """Is anything of the client declared, beside what an authorization needs?"""
        return bool(self.declared)

    def registration(self, stored: Registration | None) -> Registration:
        """What is to be registered: what is declared, the rest as it is stored."""
        return Registration.from_options({**self.declared, "name": self.name}, stored)

    def problems(self) -> Iterator[Problem]:
        """Yield everything that is wrong, whatever the store has: what is not given is not missed."""
        yield from self.unread
        yield from name_problems(self.name)
        yield from self._text_problems()
        yield from self._number_problems()
        if self.listen and not is_listen(self.listen):
            yield Problem("listen", f"'{self.listen}' is not a loopback address", "127.0.0.1:8400 or [::1]:8400")
        if self.state != "absent":
            given = {option for option, value in self.declared.items() if value != ""}
            yield from (one for one in self.registration(None).problems() if one.option in given)

    def _text_problems(self) -> Problems:
        if not is_one_line(self.store) or not self.store.startswith("/"):
            yield Problem("store", "is not an absolute path", "a directory on the host")
        if self.answer is not None and not is_one_line(self.answer.reveal()):
            yield Problem("authorization_response", NOT_ONE_LINE, "one address or code, as the browser has it")
        if self.answer is not None and not self.answer.reveal():
            yield Problem("authorization_response", "is empty", "is the variable that it comes from defined?")
        if self.answer is not None and self.state != "authorized":
            yield Problem("authorization_response", f"is given but state is {self.state}", "set state: authorized")

    def _number_problems(self) -> Problems:
        for option, value, least, most in (
            ("wait", self.wait, 0, LONGEST_WAIT),
            ("timeout", self.timeout, 1, LONGEST_TIMEOUT),
        ):
            if not least <= value <= most:
                yield Problem(option, f"{value} is out of range", f"{least} to {most} seconds")


def offline_problems(options: Mapping[str, Any]) -> list[Problem]:
    """Everything that is wrong with a module's options, whatever the host has."""
    return list(TokenOrder.from_options(options).problems())


def _declared(options: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    declared: dict[str, Any] = {}
    unread = []
    for field, default in Registration._field_defaults.items():
        option = OPTIONS.get(field, field)
        value = options.get(option)
        if option == "name" or value is None:
            continue
        try:
            declared[option] = _read(option, value, default)
        except ValueError as error:
            unread.append(Problem(option, str(error), _hint(option)))
    return declared, unread


def _read(option: str, value: Any, default: Any) -> Any:
    if option in DURATIONS:
        return seconds(value, DURATIONS[option]) if value != "" else default
    if option == "scope":
        words = value.split() if isinstance(value, str) else value
        if not isinstance(words, (list, tuple)) or not all(isinstance(word, str) for word in words):
            raise ValueError("is neither a text nor a list of texts")
        return tuple(words)
    return value


def seconds(text: Any, unit: str) -> int:
    """A duration: a number in ``unit`` (s, m, h, d, w), or with a unit of its own. ValueError: it is none."""
    found = _DURATION.fullmatch(str(text).strip().lower())
    if found is None:
        raise ValueError(f"'{text}' is not a duration")
    word = found.group(2)
    letter = word if word in UNITS else _SPELLINGS.get(word.rstrip("s"), "") if word else unit
    if letter not in UNITS:
        raise ValueError(f"'{text}' is not a duration")
    return round(float(found.group(1)) * UNITS[letter])


def _hint(option: str) -> str:
    if option == "scope":
        return "words of printable ASCII"
    unit = {"s": "seconds", "d": "days"}[DURATIONS[option]]
    return f"a number of {unit}, or with a unit: 90s, 15m, 36h, 14d, 2w"


def is_listen(text: str) -> bool:
    """Is it a loopback address literal, with or without a port?"""
    bare = re.fullmatch(r"(?:\[([0-9A-Fa-f:]+)\]|([0-9.]+))(?::(\d{1,5}))?", text)
    if bare is None:
        return False
    return is_loopback(bare.group(1) or bare.group(2)) and int(bare.group(3) or 0) < 65536
