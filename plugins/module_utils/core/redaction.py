# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Secrets never leave: a str that does not show itself, and a last net for whatever other programs said."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

MASK = "********"
LONGEST = 1000  # of a text in a result
SHORTEST = 4  # replacing shorter ones would destroy text and hide nothing that cannot be guessed
BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_=")


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


def raw_bytes(secret: str) -> bytes:
    """Its bytes, also where it is no text: read from a file in another encoding, or halves of characters."""
    try:
        return secret.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return secret.encode("utf-8", "surrogatepass")


def forms(secret: str) -> Iterator[str]:
    """Yield the spellings in which mail software, JSON, URLs, Python and SASL repeat a secret."""
    from urllib.parse import quote, quote_plus

    raw = raw_bytes(secret)
    for text in (secret, " ".join(secret.split())):  # as Completed.words puts all on one line
        yield text
        yield "".join(c if c.isprintable() else "?" for c in text)
    yield secret.strip()
    yield raw.decode("utf-8", "replace")
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    for shown in (repr, ascii):
        yield shown(secret)[1:-1]
        yield shown('"' + secret)[2:-1]  # as where both kinds of quotes are in the whole text
    yield repr(raw)[2:-1]
    yield repr(b'"' + raw)[3:-1]
    yield "".join(c if c.isalnum() else "\\" + c for c in secret)
    for quoted in (quote(raw), quote(raw, safe=""), quote_plus(raw)):
        yield quoted
        yield re.sub("%..", lambda found: found.group().lower(), quoted)


def base64_forms(secret: str) -> Iterator[str]:
    """Yield what a base64 text that has the secret somewhere in it must contain: it starts at one of three phases."""
    import base64

    raw = raw_bytes(secret)
    for lead in range(3):
        first, last = (lead * 8 + 5) // 6, (lead + len(raw)) * 8 // 6  # characters that nothing else has a part in
        for code in (base64.b64encode, base64.urlsafe_b64encode):
            yield code(b"\0" * lead + raw).decode()[first:last]


OUR_WORDS = frozenset(("field", "path", "option", "level", "reached", "state", "backend", "action", "via"))


class Redactor:
    """Replaces every known secret in text and in nested plain data."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._forms: set[str] = set()
        self._base64: set[str] = set()
        for secret in secrets:
            self.learn(secret)

    def learn(self, secret: str) -> None:
        """From now on ``secret`` is masked, in all of its spellings."""
        if len(secret) >= SHORTEST:
            self._forms.update(form for form in forms(secret) if len(form) >= SHORTEST)
            self._base64.update(form for form in base64_forms(secret) if len(form) >= SHORTEST)

    def text(self, text: str) -> str:
        """The text with a mask for each stretch that shows something of a secret."""
        spans = [span for form in self._forms if form in text for span in _places(form, text)]
        spans += [_word(span, text) for form in self._base64 if form in text for span in _places(form, text)]
        done, told = 0, ""
        for start, end in sorted(spans):
            if start >= done:
                told += text[done:start] + MASK
            done = max(done, end)
        return told + text[done:]

    def data(self, value: Any, longest: int = LONGEST) -> Any:
        """The same nested lists and dicts with every string masked, then cut to ``longest``.

        Our own words are left alone: a weak password may be one of them.
        """
        if isinstance(value, str):
            text = self.text(value)
            return text if len(text) <= longest else text[:longest] + "..."
        if isinstance(value, dict):
            return {key: item if key in OUR_WORDS else self.data(item, longest) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.data(item, longest) for item in value]
        return value


def printable(value: Any) -> Any:
    """Bytes that were no UTF-8 travel as surrogates inside the core; outside they are shown as U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if isinstance(value, dict):
        return {key: printable(item) for key, item in value.items()}
    return [printable(item) for item in value] if isinstance(value, list) else value


def _places(form: str, text: str) -> Iterator[tuple[int, int]]:
    start = text.find(form)
    while start >= 0:
        yield start, start + len(form)
        start = text.find(form, start + 1)


def _word(span: tuple[int, int], text: str) -> tuple[int, int]:
    """All of a base64 text, for beside the span it shows parts of the first and last byte."""
    start, end = span
    while start and text[start - 1] in BASE64:
        start -= 1
    while end < len(text) and text[end] in BASE64:
        end += 1
    return start, end
