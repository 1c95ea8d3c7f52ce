# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whatever the options are: a result, no exception, no secret in it, and nothing of the host touched when it fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from unit.fake_host import FakeHost

from ansible_collections.fleetmail.smtp.plugins.module_utils.core import enforce as module
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.enforce import enforce
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.host import Completed, Snapshot

CANARY = "kanarienvogel"
PASSWD = "root:x:0:0:root:/root:/bin/sh\n"
PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
ETC = {
    "/etc/passwd": PASSWD,
    "/etc/ssl/relay-ca.pem": PEM,
    "/etc/postfix/main.cf": "myhostname = client.example.test\nrelayhost =\n",
    "/etc/postfix/master.cf": (
        "smtp      unix  -       -       y       -       -       smtp\n"
        "retry     unix  -       -       y       -       -       error\n"
    ),
    "/etc/exim4/update-exim4.conf.conf": (
        "dc_eximconfig_configtype='local'\ndc_other_hostnames='client'\ndc_local_interfaces='127.0.0.1'\n"
        "dc_readhost=''\ndc_relay_domains=''\ndc_minimaldns='false'\ndc_relay_nets=''\ndc_smarthost=''\n"
        "CFILEMODE='644'\ndc_use_split_config='true'\ndc_hide_mailname=''\ndc_mailname_in_oh='true'\n"
        "dc_localdelivery='mail_spool'\n"
    ),
    "/etc/exim4/passwd.client": Snapshot(b"# passwords\n", 0o640, "root", "Debian-exim"),
    "/etc/msmtprc": "account default\nhost old.example.test\nuser old\nauth on\npassword zaunkoenig-alt\n",
}
BACKENDS = ["exim", "msmtp", "postfix"]

PUNCTUATION = st.sampled_from(" '\"\\$%{}#;:,=@/*?!&|<>()[]~`^+-._€ä")
BROKEN = st.sampled_from("\n\r\0\t\x7f\x1b\x85\u2028\ud800\udcff")
LETTERS = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=5)


def joined(*pieces: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(st.one_of(*pieces), max_size=4).map("".join)


ANY = joined(LETTERS, PUNCTUATION, BROKEN)
LINE = joined(LETTERS, PUNCTUATION)
SECRET = LINE.map(lambda text: CANARY + text) | LINE.map(lambda text: text + CANARY)

SOUND: dict[str, st.SearchStrategy[Any]] = {
    "name": st.sampled_from(["default", "invoices", "a.b-c_1"]),
    "state": st.sampled_from(["present", "present", "present", "absent"]),
    "enabled": st.sampled_from([True, True, True, False]),
    "host": st.sampled_from(["relay.example.test", "192.0.2.25", "2001:db8::25"]),
    "port": st.sampled_from([None, 25, 2525]),
    "validate_certs": st.booleans(),
    "allow_cleartext_auth": st.just(True),
    "from_address": st.sampled_from([None, "fleet@example.test"]),
    "senders": st.sampled_from([None, [], ["a@example.test", "b@example.org"]]),
    "timeout": st.sampled_from([5, 30]),
    "backup": st.booleans(),
}
RELAYS = st.fixed_dictionaries({**SOUND, "security": st.sampled_from(["none", "starttls", "tls"])})
LOGINS = (
    st.none()
    | st.fixed_dictionaries(
        {"auth_type": st.just("password"), "username": st.just("fleet") | LINE.filter(bool), "password": SECRET}
    )
    | st.fixed_dictionaries(
        {
            "auth_type": st.just("oauth"),
            "username": st.just("fleet@example.test") | LINE.filter(bool),
            "client_id": st.just("the-client"),
            "client_secret": SECRET,
            "oauth_provider": st.sampled_from(["microsoft365", "google"]),
        }
    )
)
# what Ansible lets through for each option, by its type
ODD: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(["name", "host", "username", "ca_file", "from_address", "token_url", "client_id"], ANY),
    **dict.fromkeys(["authorization_url", "oauth_provider", "oauth_tenant", "verify_recipient", "verify"], ANY),
    **dict.fromkeys(["port", "timeout"], st.integers() | st.booleans()),
    "auth_type": st.sampled_from(["none", "password", "oauth"]),
    "password": SECRET | ANY.map(lambda text: CANARY + text),
    "client_secret": SECRET | ANY.map(lambda text: CANARY + text),
    "senders": st.lists(ANY, max_size=3),
    "scope": st.booleans() | st.integers() | ANY | st.lists(st.none() | ANY),
    "test_send": st.fixed_dictionaries({}, optional={"to": st.lists(ANY), "body": ANY, "timeout": st.integers()}),
    "backend_options": st.dictionaries(ANY, st.none() | st.booleans() | st.integers() | ANY),
}


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    """A sound call, or one with up to two options that may be anything."""
    odd = draw(st.lists(st.sampled_from(sorted(ODD)), max_size=2, unique=True))
    return {**draw(RELAYS), **(draw(LOGINS) or {}), **{name: draw(ODD[name]) for name in odd}}


def host_with(backend: str, live: bool) -> FakeHost:
    """A system with every file; live: with programs that say yes and tell nothing, so that nothing takes hold."""
    host = FakeHost(ETC, live=live)
    host.groups |= {"Debian-exim", "msmtp", "postfix"}
    if live:
        for program in {"exim": ["exim4", "update-exim4.conf"], "postfix": ["postfix", "postconf"]}.get(backend, []):
            host.programs[program] = Completed(0, "", "")
        host.programs[{"exim": "exim4", "msmtp": "msmtp", "postfix": "postfix"}[backend]] = Completed(0, "", "")
    return host


def checked(result: dict[str, Any]) -> None:
    """Plain data that Ansible can carry, no secret in it, and a failure with everything that a failure has."""
    told = json.dumps(result, ensure_ascii=False)
    told.encode()
    assert CANARY not in told
    assert "zaunkoenig" not in told
    assert isinstance(result["changed"], bool)
    if result.get("failed"):
        assert result["changed"] is False
        assert result["msg"].isprintable()
        assert result["problems"]
        assert all(problem["option"] and problem["problem"] for problem in result["problems"])
        assert not [problem for problem in result["problems"] if problem["option"] == "internal error"]


@pytest.fixture(scope="module", autouse=True)
def impatient() -> Iterator[None]:
    """Nothing of a host in memory comes to life a little later."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PATIENCE", 0)
        yield


@pytest.mark.parametrize("live", [False, True], ids=["tree", "live"])
@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(options=calls(), check=st.booleans())
def test_any_options_give_a_result_and_a_failure_changes_nothing(
    backend: str, live: bool, options: dict[str, Any], check: bool
) -> None:
    host = host_with(backend, live)
    before = dict(host.files)
    result = enforce({**options, "backend": backend}, host, check)
    checked(result)
    event("failed" if result.get("failed") else "check" if check else "changed" if result["changed"] else "compliant")
    if result.get("failed") or check:
        assert host.files == before
        return
    again = enforce({**options, "backend": backend}, host, False)
    checked(again)
    assert again["changed"] is False
    assert "failed" not in again
    gone = enforce({"state": "absent", "name": options["name"], "backend": backend}, host, False)
    assert "failed" not in gone
    left = {path for path in host.files if not path.startswith("/var/lib/fleetmail") and not path.endswith("~")}
    assert {path: host.files[path] for path in left} == before


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sound_order_takes_hold_in_a_tree(backend: str) -> None:
    """The property above is not true of failures alone."""
    host = host_with(backend, live=False)
    options = {
        "backend": backend,
        "host": "relay.example.test",
        "security": "starttls",
        "auth_type": "password",
        "username": "fleet",
        "password": CANARY,
    }
    result = enforce(options, host, False)
    checked(result)
    assert result["changed"] is True, result
    assert any(CANARY in file.content.decode() and file.mode & 0o007 == 0 for file in host.files.values())


@pytest.mark.parametrize("password", ["failed", "changed", "problems", "msg", "service", "diff", "true", "present"])
def test_a_password_that_is_a_word_of_ours_does_not_spoil_the_result(password: str) -> None:
    host = host_with("msmtp", live=False)
    login = {"auth_type": "password", "username": "fleet", "password": password}
    result = enforce({"backend": "msmtp", "host": "a b", "security": "tls", **login}, host, False)
    assert result["failed"] is True
    assert result["problems"][0]["option"] == "host"
    assert {"changed", "service", "drift", "files", "actions", "rolled_back", "msg"} <= result.keys()


@pytest.mark.parametrize("check", [True, False])
def test_the_result_tells_whether_it_only_looked(check: bool) -> None:
    for relay in ("relay.example.test", "a b"):
        result = enforce({"backend": "msmtp", "host": relay, "security": "tls"}, host_with("msmtp", live=False), check)
        assert result["check_mode"] is check
