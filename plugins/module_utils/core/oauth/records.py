# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""token.json as plain data and back. Strict: what is not exactly ours is not guessed at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from ..redaction import Secret
from .state import Access, Event, HeldGrant, Pending, SetAside, TokenState, Trouble

LATEST = 253402300799  # 9999-12-31T23:59:59Z, the last second that ISO 8601 can tell

Reader = Callable[[Any], Any]


def record_of(state: TokenState) -> dict[str, Any]:
    """What the engine keeps of a state, secrets in clear: for a file of mode 0600 and nothing else."""
    return {field: _plain(getattr(state, field)) for field in _STATE}


def kept_in(record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of TokenState that a record holds. Raises ValueError where it is not one."""
    said = {field: value for field, value in record.items() if field != "version"}
    if set(said) - set(_STATE) or "serial" not in said:
        raise ValueError("not the fields of a token")
    return {field: _STATE[field](value) for field, value in said.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Secret):
        return value.reveal()
    if hasattr(value, "_asdict"):
        return {field: _plain(item) for field, item in value._asdict().items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _of(kind: type) -> Reader:
    def read(value: Any) -> Any:
        if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):  # a truth value is an int, too
            raise ValueError(f"not a {kind.__name__}")
        return value

    return read


def time_in(value: Any) -> int:
    """A time of plain data. Raises ValueError where it is none."""
    number: int = _of(int)(value)
    if not 0 <= number <= LATEST:
        raise ValueError("not a time")
    return number


def _optional(read: Reader) -> Reader:
    return lambda value: None if value is None else read(value)


def _several(read: Reader) -> Reader:
    return lambda value: tuple(read(item) for item in _of(list)(value))


def _secret(value: Any) -> Secret:
    return Secret(_text(value))


def _made(kind: Callable[..., Any], **fields: Reader) -> Reader:
    def read(value: Any) -> Any:
        if set(_of(dict)(value)) != set(fields):
            raise ValueError("not the fields of a record")
        return kind(**{field: fields[field](item) for field, item in value.items()})

    return read


_text, _flag, _whole = _of(str), _of(bool), _of(int)
_texts = _several(_text)
_held = _made(
    HeldGrant,
    identity=_text,
    grant=_text,
    refresh_token=_optional(_secret),
    authorized_at=time_in,
    user=_text,
    user_verified=_flag,
    refreshed_at=time_in,
    refresh_expires_at=time_in,
    refresh_life=time_in,
    scope=_optional(_texts),
)
_access = _made(Access, token=_secret, expires_at=time_in, obtained_at=time_in, assumed=_flag, identity=_text)
_pending = _made(Pending, flow=_text, identity=_text, begun_at=time_in, expires_at=time_in, data=_of(dict))
_trouble = _made(
    Trouble,
    cause=_text,
    status=_text,
    definite=_flag,
    error=_text,
    description=_text,
    codes=_texts,
    next_step=_text,
    registration=_text,
    since=time_in,
    at=time_in,
    attempts=time_in,
    retry_at=time_in,
)
_aside = _made(SetAside, held=_held, reason=_text, at=time_in)
_event = _made(Event, at=time_in, what=_text, detail=_text)
_STATE: dict[str, Reader] = {
    "grant": _optional(_held),
    "access": _optional(_access),
    "pending": _optional(_pending),
    "trouble": _optional(_trouble),
    "aside": _several(_aside),
    "history": _several(_event),
    "lost_answer_at": time_in,
    "clock_off": _whole,
    "woken_at": time_in,
    "reported": _text,
    "serial": time_in,
}
