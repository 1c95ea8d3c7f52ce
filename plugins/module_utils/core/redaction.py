# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Secrets never leave: a str that does not show itself, and a last net for whatever other programs said."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote, quote_plus

MASK = "********"
SHORTEST = 4  # replacing shorter ones would destroy text and hide nothing that cannot be guessed


class Secret:
    """A secret value. Printing, formatting or dumping it shows a mask; ``reveal()`` is the only way in."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a secret is not serialized")


def forms(secret: str) -> Iterator[str]:
    """Yield the spellings in which mail software, JSON, URLs and SASL repeat a secret."""
    yield secret
    yield secret.strip()
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield repr(secret)[1:-1]
    yield quote(secret, safe="")
    yield quote_plus(secret)
    yield "".join(c if c.isalnum() else "\\" + c for c in secret)
    raw = secret.encode("utf-8", "surrogateescape")
    yield base64.b64encode(raw).decode()
    yield base64.urlsafe_b64encode(raw).decode()
    for lead in range(3):  # inside a longer base64 text a secret starts at one of three phases
        middle = base64.b64encode(b"\0" * lead + raw).decode()[(lead * 8 + 5) // 6 :]
        yield middle.rstrip("=")[:-1]


class Redactor:
    """Replaces every known secret in text and in nested plain data."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._forms: set[str] = set()
        for secret in secrets:
            self.learn(secret)

    def learn(self, secret: str) -> None:
        """From now on ``secret`` is masked, in all of its spellings."""
        if len(secret) >= SHORTEST:
            self._forms.update(form for form in forms(secret) if len(form) >= SHORTEST)

    def text(self, text: str) -> str:
        for form in sorted(self._forms, key=len, reverse=True):
            if form in text:
                text = text.replace(form, MASK)
        return text

    def data(self, value: Any) -> Any:
        """The same nested lists and dicts with every string (keys too) masked."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.data(key): self.data(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.data(item) for item in value]
        return value
