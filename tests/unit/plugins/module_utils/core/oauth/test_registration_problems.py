# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from unit.scripted_http import CLIENT

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.registration import Registration
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.redaction import Secret

GOOGLE = Registration(provider="google", client_id="app", username="fleet@example.test")
ROBOT = GOOGLE._replace(grant="jwt_bearer", jwt_key_file="/etc/key.json", client_id="")
MICROSOFT = Registration(provider="microsoft365", client_id="app", username="fleet@example.test")


@pytest.mark.parametrize("fine", [CLIENT, GOOGLE, ROBOT, MICROSOFT, MICROSOFT._replace(grant="device_code")])
def test_nothing_is_wrong(fine: Registration) -> None:
    assert list(fine.problems()) == []


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({"name": "../x"}, ["name"]),
        ({"name": ""}, ["name"]),
        ({"provider": "hotmail"}, ["oauth_provider"]),
        ({"grant": "password"}, ["oauth_grant"]),
        ({"client_id": ""}, ["client_id"]),
        ({"client_id": "a\nb"}, ["client_id"]),
        ({"username": "a\x00b"}, ["username"]),
        ({"token_url": ""}, ["token_url"]),
        ({"token_url": "", "issuer": "https://login.example.test"}, []),
        ({"authorization_url": ""}, ["authorization_url"]),
        ({"authorization_url": "", "issuer": "https://login.example.test"}, []),
        ({"grant": "device_code", "device_authorization_url": ""}, ["device_authorization_url"]),
        ({"grant": "client_credentials", "client_secret": None}, ["client_secret"]),
        ({"grant": "client_credentials", "client_secret": None, "jwt_key_file": "/k.pem"}, []),
        ({"grant": "client_credentials", "jwt_key_file": "/k.pem"}, ["jwt_key_file"]),
        ({"grant": "jwt_bearer"}, ["jwt_key_file"]),
        ({"grant": "jwt_bearer", "jwt_key_file": "/k", "username": ""}, ["jwt_subject"]),
        ({"jwt_key_file": "relative.pem", "client_secret": None}, ["jwt_key_file"]),
        ({"client_secret": Secret("x\n")}, ["client_secret"]),
        ({"client_secret": Secret("")}, ["client_secret"]),
        ({"scope": ("smtp", "smtp")}, ["scope"]),
        ({"scope": ("",)}, ["scope"]),
        ({"scope": ('a"b',)}, ["scope"]),
        ({"token_url": "http://login.example.test/token"}, ["token_url"]),
        ({"token_url": "http://127.0.0.1:8080/token"}, []),
        ({"token_url": "http://[::1]:8080/token"}, []),
        ({"token_url": "https://login.example.test/token#x"}, ["token_url"]),
        ({"token_url": "https://[::1/token"}, ["token_url"]),
        ({"revocation_url": "ftp://login.example.test"}, ["revocation_url"]),
        ({"introspection_url": "login.example.test"}, ["introspection_url"]),
        ({"issuer": "http://login.example.test"}, ["issuer"]),
        ({"issuer": "https://login.example.test?x=1"}, ["issuer"]),
        ({"redirect_uri": "http://127.0.0.1:8400/#x"}, ["redirect_uri"]),
        ({"redirect_uri": "http://127.0.0.1:8400/#"}, ["redirect_uri"]),
        ({"redirect_uri": "http://mail.example.test/back"}, ["redirect_uri"]),
        ({"redirect_uri": "https://mail.example.test/back"}, []),
        ({"redirect_uri": "urn:ietf:wg:oauth:2.0:oob"}, []),
        ({"redirect_uri": "not a uri"}, ["redirect_uri"]),
        ({"redirect_uri": "http://127.0.0.1:99999/"}, ["redirect_uri"]),
        ({"ca_file": "ca.pem"}, ["ca_file"]),
        ({"proxy": "proxy.example.test:3128"}, ["proxy"]),
        ({"proxy": "http://user:pa55@proxy.example.test:x/"}, ["proxy"]),
        ({"proxy": "http://user:pa55@proxy.example.test:3128"}, []),
        ({"min_validity": -1}, ["min_validity"]),
        ({"min_validity": 10**9}, ["min_validity"]),
        ({"refresh_token_lifetime": -5}, ["refresh_token_lifetime"]),
        ({"keepalive": 100 * 86400}, ["keepalive"]),
        ({"warn_before": 90 * 86400}, ["warn_before"]),
        ({"name": "a b", "client_id": "", "scope": ("x", "x"), "token_url": "http://x/"}, None),
    ],
)
def test_each_problem_names_its_option(changes: dict[str, Any], options: list[str] | None) -> None:
    found = list(CLIENT._replace(**changes).problems())
    named = [problem.option for problem in found]
    assert named == (options if options is not None else ["name", "scope", "client_id", "token_url"])
    assert all(problem.problem and problem.hint for problem in found)
    assert "pa55" not in str(found)


def test_a_certificate_file_is_never_looked_at_offline() -> None:
    assert list(ROBOT._replace(jwt_key_file="/does/not/exist").problems()) == []
