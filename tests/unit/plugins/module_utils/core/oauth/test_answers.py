# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.scripted_http import NOW

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth import answers
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.answers import YEAR, Complaint, complaint


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (3600, 3600),
        ("3600", 3600),
        (" 3600 ", 3600),
        (3599.9, 3599),
        ("3599.9", 3599),
        (None, None),
        ("", None),
        ("soon", None),
        (0, None),
        ("0", None),
        (-1, None),
        (0.5, None),
        (True, None),
        ([3600], None),
        (float("nan"), None),
        (float("inf"), YEAR),
        (10**18, YEAR),
        (10**400, YEAR),
        (-(10**400), None),
        ("1e400", YEAR),
        ("9" * 5000, YEAR),
    ],
)
def test_life_times(value: Any, found: int | None) -> None:
    assert answers.seconds(value) == found


@settings(deadline=None)
@given(st.one_of(st.integers(), st.floats(), st.text(), st.booleans(), st.none(), st.binary()))
def test_no_life_time_breaks_anything(value: Any) -> None:
    found = answers.seconds(value)
    assert found is None or 1 <= found <= YEAR


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("2", 2),
        (" 2 ", 2),
        ("0", 0),
        ("999999999", 86400),
        (formatdate(NOW + 30, usegmt=True), 30),
        (formatdate(NOW - 30, usegmt=True), 0),
        ("", None),
        ("-5", None),
        ("soon", None),
        ("Tue, 99 Nov 2026 99:99:99 GMT", None),
    ],
)
def test_retry_after(value: str, found: int | None) -> None:
    assert answers.retry_after({"retry-after": value}, NOW) == found
    assert answers.retry_after({}, NOW) is None


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"a": 1}', {"a": 1}),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b"", None),
        (b"[1]", None),
        (b"null", None),
        (b'"x"', None),
        (b"<html>", None),
        (b'{"a": "\xff"}', None),
        (b'{"access_token": "x", "expi', None),
        (b"[" * 100_000, None),
    ],
)
def test_what_is_a_json_object(body: bytes, found: dict[str, Any] | None) -> None:
    assert answers.json_object(body) == found


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"access_token": "x"}, None),
        ({"error": ""}, None),
        ({"error": "invalid_grant"}, Complaint("invalid_grant")),
        (
            {"error": "invalid_grant", "suberror": "bad_token", "error_description": "two\r\nlines\x00 here"},
            Complaint("invalid_grant", "bad_token", "two lines here"),
        ),
        (
            {
                "error": "invalid_client",
                "error_description": "AADSTS7000222: The secret is expired. Trace ID: 1 Correlation ID: 2 Timestamp: 3",
                "error_codes": [7000222],
            },
            Complaint("invalid_client", "", "AADSTS7000222: The secret is expired.", ("7000222",)),
        ),
        (
            {"error": "x", "error_description": "AADSTS50076: a. AADSTS50079: b.", "error_codes": ["50076", None, {}]},
            Complaint("x", "", "AADSTS50076: a. AADSTS50079: b.", ("50076", "50079")),
        ),
        ({"error": "invalid_grant", "error_subtype": "invalid_rapt"}, Complaint("invalid_grant", "invalid_rapt")),
        ({"error": 17}, Complaint("17")),
        (
            {"error": {"code": 403, "message": "denied", "status": "PERMISSION_DENIED"}},
            Complaint("PERMISSION_DENIED", "", "denied"),
        ),
        ({"error": {"localizedMessage": "no", "errorId": "INVALID"}}, Complaint("INVALID", "", "no")),
        ({"error": ["x"]}, Complaint("")),
    ],
)
def test_complaints(said: dict[str, Any], found: Complaint | None) -> None:
    assert complaint(said) == found


def test_what_is_told_is_short_and_without_tokens() -> None:
    assert answers.short("x" * 1000) == "x" * 300 + "..."
    jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln"
    assert answers.short(f"the token {jwt} is bad") == "the token ******** is bad"


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("a b", ("a", "b")),
        (" a  b a ", ("a", "b")),
        ("a,b", ("a", "b")),
        (["a", "b", 3], ("a", "b")),
        ("", None),
        (None, None),
        (7, None),
    ],
)
def test_scope(value: Any, found: tuple[str, ...] | None) -> None:
    assert answers.scope_words(value) == found


@pytest.mark.parametrize("value", ["", None, 7, ["x"], "a b", "a\r\nRCPT TO:<x>", "tok\u00e9n", "a\x7f"])
def test_what_is_no_token(value: Any) -> None:
    assert answers.token_text(value) == ""
    assert answers.token_text("ya29.a-b_c~+/=") == "ya29.a-b_c~+/="
