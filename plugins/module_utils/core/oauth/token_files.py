# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""What a consumer reads: a file with an access token, in the form that the software wants. Never a refresh token."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

if TYPE_CHECKING:
    from .state import Access

TOKENS = "/var/lib/fleetmail/tokens"  # 0755 root: the usual place of consumers' files
LAST_EXPIRY = 2**31 - 1  # sasl-xoauth2 reads the expiry into 32 bits


class Consumer(NamedTuple):
    """Who reads which file, and who may. ``wake`` is run when mail may have waited for a token."""

    service: str
    backend: str
    format: str
    path: str
    owner: str = "root"
    group: str = "root"
    mode: int = 0o600
    username: str = ""
    wake: tuple[str, ...] = ()

    def as_record(self) -> dict[str, Any]:
        """Plain data, for ``document.written``."""
        return {**self._asdict(), "mode": f"{self.mode:04o}", "wake": list(self.wake)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Consumer:
        """Back from plain data. ValueError: a field is missing, unknown or of the wrong type."""
        fields = {key: value for key, value in record.items() if key != "version"}
        wake, mode = fields.pop("wake", []), fields.pop("mode", "")
        texts = isinstance(wake, list) and all(isinstance(value, str) for value in (mode, *wake, *fields.values()))
        if not texts or not 3 <= len(mode) <= 4 or set(mode) - set("01234567"):
            raise ValueError
        if set(fields) - set(cls._fields) or fields.get("format") not in FORMATS:
            raise ValueError
        if not {"service", "backend", "path"} <= set(fields) or not fields["path"].startswith("/"):
            raise ValueError
        return cls(**fields, mode=int(mode, 8), wake=tuple(wake))


def _plain(access: Access, _username: str) -> str:
    return access.token.reveal()


def _exim(access: Access, _username: str) -> str:
    """A line for ``${extract{access_token}{${readfile{...}}}}``: the Exim specification, 11.5, on ``extract``."""
    token = access.token.reveal()
    if any(c in token for c in '" \\'):
        token = '"{}"'.format(token.replace("\\", "\\\\").replace('"', '\\"'))
    return "access_token=" + token


def _sasl_xoauth2(access: Access, username: str) -> str:
    """As sasl-xoauth2 0.27 reads it. Without a refresh token it never refreshes, and so never spends one."""
    fields = {"access_token": access.token.reveal(), "refresh_token": ""}
    fields["expiry"] = str(min(access.expires_at, LAST_EXPIRY))
    if username:
        fields["user"] = username
    return json.dumps(fields, indent=1)


FORMATS: dict[str, Callable[[Access, str], str]] = {
    "exim": _exim,
    "plain": _plain,
    "sasl_xoauth2": _sasl_xoauth2,
}


def render(format: str, access: Access, username: str = "") -> bytes:  # noqa: A002 - the field's name
    """The file's bytes. ``username`` is the SASL user. KeyError: there is no such format."""
    return (FORMATS[format](access, username) + "\n").encode()
