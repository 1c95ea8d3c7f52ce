# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Consumers' files, read back by readers that were written from what the software's own documentation says."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.token_store import NOW, USER

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.state import Access
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.token_files import FORMATS, Consumer, render
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.redaction import Secret

# RFC 6750 2.1, which all mechanisms for mail carry; RFC 6749 A.12 lets a server use any visible character
bearer = st.text("ABCXYZabcxyz0189-._~+/=", min_size=1, max_size=60)
visible = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=60)


def access(token: str, expires_at: int = NOW + 3600) -> Access:
    return Access(Secret(token), expires_at, NOW)


def exim_extract(text: str, key: str) -> str:
    """What ``${extract{KEY}{TEXT}}`` gives (Exim specification 11.5): white space ends a value, or it is quoted."""
    for name, quoted, plain in re.findall(r'(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|(\S*))', text):
        if name.lower() == key:
            return re.sub(r"\\(.)", r"\1", quoted) if quoted else plain
    return ""


def sasl_xoauth2(content: bytes) -> dict[str, str]:
    """As sasl-xoauth2 0.27 reads a token file: JSON strings; refresh_token has to be there; the expiry is a number in
    a string, of 32 bits."""
    read = json.loads(content)
    found = {key: read[key] for key in ("access_token", "refresh_token", "expiry")}
    for optional in ("user", "client_id", "client_secret", "token_endpoint"):
        if optional in read:
            found[optional] = read[optional]
    assert all(isinstance(value, str) for value in found.values())
    assert set(read) == set(found), "it drops what it does not know when it rewrites the file"
    assert -(2**31) <= int(found["expiry"]) < 2**31
    return found


@given(visible)
def test_plain_is_one_line(token: str) -> None:
    """msmtp's passwordeval takes the first line without its end; a command substitution does the same."""
    content = render("plain", access(token))
    assert content.decode().split("\n") == [token, ""]


@given(bearer)
def test_exim_extracts_what_was_put_in(token: str) -> None:
    content = render("exim", access(token)).decode()
    assert content == f"access_token={token}\n"
    assert exim_extract(content, "access_token") == token


@given(visible.filter(lambda token: token.strip('" ') == token))
def test_exim_extracts_even_what_has_spaces_and_quotes(token: str) -> None:
    assert exim_extract(render("exim", access(token)).decode(), "access_token") == token


@given(bearer, st.integers(0, 253402300799))
def test_sasl_xoauth2(token: str, expires_at: int) -> None:
    found = sasl_xoauth2(render("sasl_xoauth2", access(token, expires_at), USER))
    assert found["access_token"] == token
    assert found["refresh_token"] == "", "so it never spends one"
    assert found["user"] == USER
    assert int(found["expiry"]) == min(expires_at, 2**31 - 1)


def test_without_a_user_name() -> None:
    assert "user" not in sasl_xoauth2(render("sasl_xoauth2", access("x")))


@pytest.mark.parametrize("format", FORMATS)
def test_no_format_has_a_line_too_many(format: str) -> None:  # noqa: A002 - the field's name
    content = render(format, access("t" * 3000), USER)
    assert content.endswith(b"\n")
    assert not content.endswith(b"\n\n")


WHOLE = Consumer("svc", "exim", "exim", "/var/lib/fleetmail/tokens/svc.exim", "root", "mail", 0o640, USER, ("true",))


@pytest.mark.parametrize("consumer", [WHOLE, Consumer("svc", "msmtp", "plain", "/x")])
def test_a_consumer_is_what_was_written(consumer: Consumer) -> None:
    assert Consumer.from_record(json.loads(json.dumps({"version": 1, **consumer.as_record()}))) == consumer


@pytest.mark.parametrize(
    "change",
    [
        *({field: value} for field in WHOLE._fields for value in (None, 1, ["x", 1], {})),
        {"format": "unknown"},
        {"path": "relative"},
        {"path": ""},
        {"mode": "9"},
        {"mode": "0o640"},
        {"extra": "x"},
        {"wake": "true"},
    ],
)
def test_what_is_no_consumer(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".*"):
        Consumer.from_record({**WHOLE.as_record(), **change})


@pytest.mark.parametrize("missing", ["service", "backend", "format", "path"])
def test_what_a_consumer_needs(missing: str) -> None:
    record = {field: value for field, value in WHOLE.as_record().items() if field != missing}
    with pytest.raises(ValueError, match=r".*"):
        Consumer.from_record(record)
