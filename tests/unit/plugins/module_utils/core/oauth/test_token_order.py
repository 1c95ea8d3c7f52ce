# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of smtp_oauth_token, read and judged without touching anything."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.registration import Registration
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.token_order import (
    TokenOrder,
    is_listen,
    offline_problems,
    seconds,
)
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.redaction import Secret

DAY = 86400
STORED = Registration(client_id="app", token_url="https://login.example.test/token", username="fleet@example.test")


def order(**options: Any) -> TokenOrder:
    return TokenOrder.from_options({"name": "default", "store": "/var/lib/fleetmail/oauth", **options})


def named(**options: Any) -> list[str]:
    return [one.option for one in offline_problems({"name": "default", "store": "/s", **options})]


@pytest.mark.parametrize(
    ("text", "unit", "expected"),
    [
        (600, "s", 600),
        ("600", "s", 600),
        ("15m", "s", 900),
        ("36h", "d", 36 * 3600),
        ("14", "d", 14 * DAY),
        ("14 days", "d", 14 * DAY),
        ("2w", "d", 14 * DAY),
        ("1.5h", "d", 5400),
        ("90 seconds", "d", 90),
        ("0", "d", 0),
    ],
)
def test_a_duration(text: Any, unit: str, expected: int) -> None:
    assert seconds(text, unit) == expected


@pytest.mark.parametrize("text", ["soon", "-1", "1y", "1 2", "d", "1e9", "9" * 12, "", "1d2h", None, True])
def test_no_duration(text: Any) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        seconds(text, "d")


def test_bare_numbers_have_the_unit_of_their_option() -> None:
    declared = order(min_validity="900", keepalive=30, refresh_token_lifetime="180", warn_before="20").declared
    expected = {
        "min_validity": 900,
        "keepalive": 30 * DAY,
        "refresh_token_lifetime": 180 * DAY,
        "warn_before": 20 * DAY,
    }
    assert declared == expected


def test_what_is_not_given_is_as_stored_and_an_empty_text_takes_away() -> None:
    stored = STORED._replace(proxy="http://proxy.example.test:3128", min_validity=900, client_secret=Secret("s"))
    assert order().registration(stored) == stored
    assert not order().given
    assert order(proxy="", min_validity="").registration(stored) == stored._replace(proxy="", min_validity=600)
    assert order(client_secret="").registration(stored).client_secret is None
    assert order(oauth_grant="device_code").registration(stored).grant == "device_code"


def test_it_is_judged_without_what_the_store_may_have() -> None:
    assert named(client_id="app") == []
    assert named(scope="smtp offline_access", validate_certs=False) == []
    assert named(oauth_grant="client_credentials") == []


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"name": "../etc"}, "name"),
        ({"name": ""}, "name"),
        ({"store": "here"}, "store"),
        ({"token_url": "http://login.example.test/token"}, "token_url"),
        ({"scope": 7}, "scope"),
        ({"scope": ["smtp", 7]}, "scope"),
        ({"scope": "smtp smtp"}, "scope"),
        ({"oauth_provider": "acme"}, "oauth_provider"),
        ({"oauth_tenant": "a tenant", "oauth_provider": "microsoft365"}, "oauth_tenant"),
        ({"keepalive": "soon"}, "keepalive"),
        ({"keepalive": "9999999"}, "keepalive"),
        ({"warn_before": "100d"}, "warn_before"),
        ({"redirect_uri": "http://127.0.0.1/#fragment"}, "redirect_uri"),
        ({"listen": "0.0.0.0:8400"}, "listen"),
        ({"listen": "localhost:8400"}, "listen"),
        ({"authorization_response": ""}, "authorization_response"),
        ({"authorization_response": "a\nb", "state": "authorized"}, "authorization_response"),
        ({"authorization_response": "code"}, "authorization_response"),
        ({"wait": -1}, "wait"),
        ({"wait": 3601}, "wait"),
        ({"timeout": 0}, "timeout"),
        ({"client_secret": "a\nb"}, "client_secret"),
        ({"ca_file": "ca.pem"}, "ca_file"),
        ({"proxy": "u:p@proxy"}, "proxy"),
    ],
)
def test_what_is_wrong_is_told_by_the_option(options: dict[str, Any], option: str) -> None:
    assert set(named(**options)) == {option}


def test_a_pasted_answer_is_trimmed_and_a_secret() -> None:
    read = order(authorization_response=" http://127.0.0.1:1/?code=x \n", state="authorized")
    assert read.answer == Secret("http://127.0.0.1:1/?code=x")
    assert "code=x" not in repr(read)
    assert named(authorization_response=" http://127.0.0.1:1/?code=x \n", state="authorized") == []


def test_absent_asks_for_nothing_of_the_client() -> None:
    assert named(state="absent", oauth_provider="acme") == []


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:8400", True),
        ("127.9.9.9:1", True),
        ("[::1]", True),
        ("[::1]:8400", True),
        ("::1", False),
        ("10.0.0.1:80", False),
        ("127.0.0.1:99999", False),
        ("127.0.0.1:8400/x", False),
        ("[::]:80", False),
        ("", False),
    ],
)
def test_where_to_listen(text: str, fine: bool) -> None:
    assert is_listen(text) is fine
