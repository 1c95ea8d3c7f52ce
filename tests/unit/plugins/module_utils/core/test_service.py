# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.errors import InvalidService
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.redaction import Secret
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.service import (
    Service,
    is_address,
    is_domain,
    is_loopback,
    public_view,
)

RELAY = {"host": "relay.example.test", "security": "starttls"}
LOGIN = {**RELAY, "auth_type": "password", "username": "fleet", "password": "secret"}
OAUTH = {
    **RELAY,
    "auth_type": "oauth",
    "username": "fleet@example.test",
    "client_id": "app",
    "token_url": "https://login.example.test/token",
    "authorization_url": "https://login.example.test/authorize",
}


def refused(**options: Any) -> list[str]:
    """The options that the definition is refused for."""
    return [problem.option for problem in Service.read(options).problems()]


@pytest.mark.parametrize(
    ("security", "port"),
    [("none", 25), ("starttls", 587), ("tls", 465)],
)
def test_the_port_follows_from_the_security_unless_it_is_given(security: str, port: int) -> None:
    assert Service.read({"host": "r", "security": security}).port == port
    assert Service.read({"host": "r", "security": security, "port": 2525}).port == 2525


@pytest.mark.parametrize(
    "options",
    [
        RELAY,
        LOGIN,
        OAUTH,
        {**OAUTH, "oauth_grant": "jwt_bearer", "client_id": None, "authorization_url": None},
        {"enabled": False},
        {"enabled": False, "auth_type": "password"},
        {"host": "127.0.0.1", "auth_type": "password", "username": "u", "password": "p"},
        {"host": "localhost.", "auth_type": "password", "username": "u", "password": "p"},
        {**LOGIN, "security": "none", "allow_cleartext_auth": True},
        {**RELAY, "host": "192.0.2.25"},
        {**RELAY, "host": "2001:db8::25"},
        {**RELAY, "host": "[2001:db8::25]"},
        {**RELAY, "host": "relay_1.example.test."},
        {**RELAY, "host": "xn--mller-kva.example"},
        {**RELAY, "port": 1},
        {**RELAY, "port": 65535},
        {**RELAY, "timeout": 1},
        {**RELAY, "timeout": 3600},
        {**RELAY, "senders": ["a@example.test", "example.test", "@example.org"]},
        {**RELAY, "from_address": "o'neil+x@example.test"},
        {**LOGIN, "password": " p\t\"'\\ä€𝄞"},
        {**OAUTH, "scope": "https://mail.example/.default offline_access"},
        {**OAUTH, "scope": ["a", "b"], "token_url": "http://127.0.0.1:8080/token"},
        {**OAUTH, "client_secret": "x"},
        {**OAUTH, "token_url": None, "oauth_provider": "google", "authorization_url": None},
    ],
    ids=repr,
)
def test_a_complete_definition_has_no_problem(options: dict[str, Any]) -> None:
    assert list(Service.read(options).problems()) == []


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, ["host"]),
        ({**RELAY, "name": ""}, ["name"]),
        ({**RELAY, "name": "a/b"}, ["name"]),
        ({**RELAY, "name": "-shared"}, ["name"]),
        ({**RELAY, "name": "x" * 64}, ["name"]),
        ({**RELAY, "host": "mail relay"}, ["host"]),
        ({**RELAY, "host": " relay"}, ["host"]),
        ({**RELAY, "host": "smtp://relay.example.test"}, ["host"]),
        ({**RELAY, "host": "relay.example.test:587"}, ["host"]),
        ({**RELAY, "host": "[2001:db8::25]:587"}, ["host"]),
        ({**RELAY, "host": "fe80::1%eth0"}, ["host"]),
        ({**RELAY, "host": "192.0.2"}, ["host"]),
        ({**RELAY, "host": "192.0.2.256"}, ["host"]),
        ({**RELAY, "host": "müller.example"}, ["host"]),
        ({**RELAY, "host": "-a.example"}, ["host"]),
        ({**RELAY, "host": "a..example"}, ["host"]),
        ({**RELAY, "host": "x" * 64 + ".example"}, ["host"]),
        ({**RELAY, "host": "a." * 127 + "example"}, ["host"]),
        ({**RELAY, "port": 0}, ["port"]),
        ({**RELAY, "port": -1}, ["port"]),
        ({**RELAY, "port": 65536}, ["port"]),
        ({**RELAY, "port": True}, ["port"]),
        ({**RELAY, "security": "ssl"}, ["security"]),
        ({**RELAY, "timeout": 0}, ["timeout"]),
        ({**RELAY, "timeout": 3601}, ["timeout"]),
        ({**RELAY, "timeout": True}, ["timeout"]),
        ({**RELAY, "auth_type": "kerberos"}, ["auth_type"]),
        ({**RELAY, "auth_type": "password"}, ["username", "password"]),
        ({**RELAY, "auth_type": "password", "username": "u"}, ["password"]),
        ({**RELAY, "auth_type": "password", "password": "p"}, ["username"]),
        ({"enabled": False, "auth_type": "password", "username": "u"}, ["password"]),
        ({"enabled": False, "auth_type": "password", "password": "p"}, ["username"]),
        ({**RELAY, "username": "u"}, ["username"]),
        ({**RELAY, "password": "p"}, ["password"]),
        ({**LOGIN, "password": ""}, ["password"]),
        ({**LOGIN, "security": "none"}, ["security"]),
        ({**RELAY, "ca_file": "relay.pem"}, ["ca_file"]),
        ({**RELAY, "from_address": "nobody"}, ["from_address"]),
        ({**RELAY, "from_address": "a b@example.test"}, ["from_address"]),
        ({**RELAY, "from_address": "a..b@example.test"}, ["from_address"]),
        ({**RELAY, "from_address": "ä@example.test"}, ["from_address"]),
        ({**RELAY, "senders": ["a@b@c"]}, ["senders"]),
        ({**RELAY, "senders": ["a@example.test", "A@EXAMPLE.TEST"]}, ["senders"]),
        ({**OAUTH, "client_id": None}, ["client_id"]),
        ({**OAUTH, "token_url": None}, ["token_url"]),
        ({**OAUTH, "authorization_url": None}, ["authorization_url"]),
        ({**OAUTH, "token_url": "http://login.example.test/token"}, ["token_url"]),
        ({**OAUTH, "token_url": "https://login.example.test/token#x"}, ["token_url"]),
        ({**OAUTH, "token_url": "/token"}, ["token_url"]),
        ({**OAUTH, "token_url": "https://[::1/token"}, ["token_url"]),
        ({**OAUTH, "password": "p"}, ["password"]),
        ({**OAUTH, "client_secret": ""}, ["client_secret"]),
        ({**OAUTH, "oauth_grant": "password"}, ["oauth_grant"]),
        ({**OAUTH, "scope": "a b a"}, ["scope"]),
        ({**OAUTH, "scope": 'a"b'}, ["scope"]),
        ({**OAUTH, "scope": 5}, ["scope"]),
        ({**OAUTH, "scope": True}, ["scope"]),
        ({**OAUTH, "scope": {"a": 1}}, ["scope"]),
        ({**OAUTH, "scope": [None, ["a"]]}, ["scope"]),
    ],
    ids=repr,
)
def test_what_is_wrong_is_told_by_option(options: dict[str, Any], named: list[str]) -> None:
    assert refused(**options) == named


@pytest.mark.parametrize("broken", ["\n", "\r", "\0", "\x7f", "\x1b", "\ud800"], ids=ascii)
@pytest.mark.parametrize(
    "option",
    [
        *("name", "host", "username", "password", "ca_file", "from_address", "authorization_url", "token_url"),
        *("client_id", "client_secret", "oauth_provider", "oauth_tenant"),
    ],
)
def test_no_line_break_nor_other_control_character_passes_anywhere(option: str, broken: str) -> None:
    options = {**LOGIN, "auth_type": "oauth", "password": None, **OAUTH}
    if option == "password":
        options = dict(LOGIN)
    sound = {"ca_file": "/etc/ssl/a", "from_address": "a@example.test"}.get(option) or options.get(option) or "abcdef"
    for text in (sound + broken, broken + sound, sound[:3] + broken + sound[3:]):
        assert option in refused(**{**options, option: text}), ascii(text)
    assert "senders" in refused(**{**RELAY, "senders": ["a@exa" + broken + "mple.test"]})
    assert broken.isspace() or "scope" in refused(**{**OAUTH, "scope": "a" + broken})


def test_a_tab_is_a_character_of_a_password() -> None:
    assert refused(**{**LOGIN, "password": "a\tb"}) == []
    assert refused(**{**LOGIN, "username": "a\tb"}) == ["username"]


def test_all_problems_come_at_once() -> None:
    options = {
        "name": "a b",
        "host": "smtp://x",
        "port": 0,
        "security": "ssl",
        "auth_type": "password",
        "username": "a\nb",
        "ca_file": "x",
        "from_address": "y",
        "senders": ["!"],
        "timeout": 0,
        "token_url": "z",
    }
    with pytest.raises(InvalidService) as caught:
        Service.from_options(options)
    found = [problem.option for problem in caught.value.problems]
    assert sorted(found) == sorted({*options, "password"} - {"auth_type"})
    assert str(caught.value).endswith(f"(and {len(found) - 1} more)")
    assert all(problem.problem and problem.hint for problem in caught.value.problems)


def test_a_problem_never_holds_a_secret() -> None:
    options = {**LOGIN, "password": "kanarienvogel\n", "client_secret": "zaunkoenig\0", "port": 0}
    told = str([problem.as_dict() for problem in Service.read(options).problems()])
    assert "kanarien" not in told
    assert "zaun" not in told


def test_a_service_shows_no_secret_however_it_is_printed() -> None:
    service = Service.from_options({**LOGIN, "password": "kanarienvogel", "client_secret": "zaunkoenig"})
    for text in (repr(service), str(service), f"{service}", repr(service.oauth), repr(service._asdict())):
        assert "kanarien" not in text
        assert "zaun" not in text
    with pytest.raises(TypeError):
        pickle.dumps(service)
    with pytest.raises(TypeError):
        json.dumps(service.password)


def test_the_public_view_has_only_plain_values() -> None:
    view = public_view({"password": Secret("x"), "client_secret": None, "senders": ("a",), "port": 25})
    assert view == {"password": "(set)", "client_secret": "(unset)", "senders": ["a"], "port": 25}


@pytest.mark.parametrize(
    ("host", "stays_here"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::2", False),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("", False),
    ],
)
def test_loopback(host: str, stays_here: bool) -> None:
    assert is_loopback(host) is stays_here


@given(st.text(st.characters(exclude_categories=())))
def test_what_passes_for_a_name_or_an_address_is_harmless_everywhere(text: str) -> None:
    """Neither can end a line, begin an option, quote, or be expanded by a shell or a configuration file's brackets."""
    if is_domain(text):
        assert set(text.lower()) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.")
        assert not text.startswith("-")
    if is_address(text):
        assert text.isascii()
        assert not set(text) & set(' \t\r\n\0"\\(),:;<>[]')


@given(st.dictionaries(st.sampled_from(["host", "username", "password", "ca_file", "scope", "name"]), st.text()))
def test_judging_never_raises(options: dict[str, Any]) -> None:
    for problem in Service.read({**options, "auth_type": "password"}).problems():
        assert problem.option
        assert str(problem).isprintable()
