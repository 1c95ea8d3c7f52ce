# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a report has, as data: only what a shape names comes in, and it always comes out in the shape's types.

Results of modules and documents of other runs go through the same door, so nothing unforeseen gets into a report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Callable, NamedTuple, Union

Text = Callable[[str], str]

LONGEST = 2000  # characters of an ordinary text
LONGEST_DIFF = 100_000


class Maybe(NamedTuple):
    """A value that may be missing (None): a number, or a record."""

    kind: Any


class Cut(NamedTuple):
    """A text of at most so many characters."""

    longest: int


class OneOf(NamedTuple):
    """One of these words, else the first one."""

    words: tuple[str, ...]


class Form(NamedTuple):
    """Fields of the form with whatever plain value they have."""


class Word(NamedTuple):
    """A plain value: text, number, truth or a list of texts."""


Shape = Union[type, Maybe, Cut, OneOf, Form, Word, "list[Any]", "dict[str, Any]"]

HIDDEN = ("password", "client_secret", "access_token", "refresh_token")
SHOWN = ("(set)", "(changed)", "(unset)", "")  # what the collection's modules say of a secret
MASK = "********"


def take(value: Any, shape: Shape, text: Text) -> Any:
    """The value as the shape wants it: unknown keys are dropped, a wrong type gives the shape's empty value.

    text: what every text goes through, keys of the form included.
    """
    if isinstance(shape, dict):
        given = value if isinstance(value, Mapping) else {}
        return {key: take(given.get(key), inner, text) for key, inner in shape.items()}
    if isinstance(shape, list):
        return [take(one, shape[0], text) for one in value] if isinstance(value, (list, tuple)) else []
    if isinstance(shape, Maybe) and isinstance(shape.kind, dict):
        return take(value, shape.kind, text) if isinstance(value, Mapping) and value else None
    if isinstance(shape, Form):
        return dict(_fields(value, text)) if isinstance(value, Mapping) else {}
    return _plain(value, shape, text)


def _plain(value: Any, shape: Shape, text: Text) -> Any:
    if isinstance(shape, Word):
        return word(value, text)
    if isinstance(shape, Cut):
        return _text(value, text, shape.longest)
    if isinstance(shape, OneOf):
        return shape.words[shape.words.index(value)] if value in shape.words else shape.words[0]
    if isinstance(shape, Maybe):
        return _plain(value, shape.kind, text) if _fits(value, shape.kind) else None
    if shape is str:
        return _text(value, text, LONGEST)
    return shape(value) if _fits(value, shape) else shape()  # type: ignore[operator]


def _fits(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and (kind is not int or not isinstance(value, bool))


def _text(value: Any, text: Text, longest: int) -> str:
    if value is None or isinstance(value, (Mapping, list, tuple)):
        return ""
    # str.__str__ sheds what Ansible's own kinds of text have beside it; lone surrogates are no text anywhere else
    plain = str.__str__(value) if isinstance(value, str) else str(value)
    plain = text(plain.encode("utf-8", "replace").decode("utf-8"))
    return plain if len(plain) <= longest else plain[:longest] + "..."


def word(value: Any, text: Text) -> Any:
    """A plain value of the form: text, whole number, truth, None or a list of texts."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, (list, tuple)):
        return [_text(one, text, LONGEST) for one in value]
    return _text(value, text, LONGEST)


def _fields(given: Mapping[Any, Any], text: Text) -> Iterator[tuple[str, Any]]:
    for key, value in given.items():
        name = _text(key, text, LONGEST)
        yield name, hidden(name, word(value, text))


def hidden(field: str, value: Any) -> Any:
    """The value of a field; of a secret only that there is one, whoever forgot to say just that."""
    if field in HIDDEN and value is not None and value not in SHOWN:
        return MASK
    return value


# -- what a report has ----------------------------------------------------------------------------------------------

STATUSES = ("unknown", "audited", "compliant", "changed", "drifting", "failed", "unreachable")  # ever worse
SEVERITIES = ("critical", "warning", "info")  # those of smtp_service_info
TOKEN_STATUSES = (
    "authorized", "expiring", "pending", "unauthorized", "expired",
    "revoked", "misconfigured", "blocked", "unreachable",
)  # fmt: skip

TLS = {
    "version": str,
    "cipher": str,
    "subject": str,
    "issuer": str,
    "names": [str],
    "not_after": str,
    "days_left": Maybe(int),
}
VERIFICATION = {
    "level": str,
    "reached": str,
    "ok": bool,
    "steps": [{"name": str, "ok": bool, "detail": str, "ms": Maybe(int)}],
    "tls": Maybe(TLS),
    "capabilities": [str],
    "auth_mechanisms": [str],
    "next_step": str,
}
TEST_SEND = {"sent": bool, "message_id": str, "reply": str, "via": str, "queue_id": str, "skipped": str}
DRIFT = {"field": str, "before": Word(), "after": Word()}
SERVICE = {
    "name": str,
    "backend": str,
    "status": OneOf(STATUSES),
    "form": Form(),
    "drift": [DRIFT],
    "files": [{"path": str, "action": str}],
    "actions": [str],
    "diff": Cut(LONGEST_DIFF),
    "verification": Maybe(VERIFICATION),
    "test_send": Maybe(TEST_SEND),
    "rolled_back": bool,
    "warnings": [str],
}
TOKEN = {
    "name": str,
    "status": OneOf(("unknown", *TOKEN_STATUSES)),
    "cause": str,
    "authorized_user": str,
    "authorized_user_verified": bool,
    "authorized_at": str,
    "refreshed_at": str,
    "expires_at": str,
    "refresh_expires_at": str,
    "days_left": Maybe(int),
    "scope": [str],
    "missing_scope": [str],
    "grant": str,
    "provider": str,
    "error": str,
    "error_description": str,
    "next_step": str,
}
FINDING = {
    "severity": OneOf(("warning", "critical", "info")),
    "name": str,
    "finding": str,
    "hint": str,
    "where": str,
    "field": str,
    "origin": OneOf(("audit", "certificate", "token")),
}
CONSUMER = {
    "name": str,
    "backend": str,
    "path": str,
    "user": str,
    "managed": bool,
    "form": Form(),
    "verification": Maybe(VERIFICATION),
}
HOST = {
    "name": str,
    "groups": [str],
    "status": OneOf(STATUSES),
    "observed_at": str,
    "source": str,
    "problems": [{"task": str, "option": str, "problem": str, "hint": str}],
    "services": [SERVICE],
    "tokens": [TOKEN],
    "consumers": [CONSUMER],
    "probes": [{"target": str, "ok": bool, "verification": VERIFICATION, "test_send": Maybe(TEST_SEND)}],
    "findings": [FINDING],
}
