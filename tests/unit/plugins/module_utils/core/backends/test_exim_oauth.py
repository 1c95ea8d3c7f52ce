# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Exim's login with an access token: render and read back, its place in both layouts, no credentials of others."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from unit.exim_host import LOGIN, RELAY, SAID, SPLIT, TEMPLATE, contents, deploy, installed, plan_of, running, service
from unit.fake_host import FakeHost

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends import exim_files, exim_oauth
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends.exim import Exim
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.service import Service

OAUTH = {
    "auth_type": "oauth",
    "username": "fleet@example.com",
    "client_id": "c",
    "token_url": "https://login.example/token",
    "authorization_url": "https://login.example/authorize",
}
TOKEN_FILE = "/var/lib/fleetmail/tokens/default.exim"
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)


@settings(max_examples=50)
@example(",", "xoauth2", "none", True)
@example("a,=:<b,", "xoauth2", "tls", False)
@example("=2C,", "oauthbearer", "starttls", True)
@given(NAMES, st.sampled_from(["xoauth2", "oauthbearer"]), st.sampled_from(["none", "starttls", "tls"]), st.booleans())
def test_what_is_rendered_is_read_back(username, mechanism, security, split):
    wanted = service(**{**OAUTH, "username": username, "security": security, "allow_cleartext_auth": True})
    host = installed(SPLIT if split else exim_files_conf())
    assume(not list(Exim(host, {"oauth_mechanism": mechanism}).problems(wanted)))
    deploy(host, wanted, oauth_mechanism=mechanism)
    form = Exim(host, {"oauth_mechanism": mechanism}).read("default").form
    assert (form["auth_type"], form["username"], form["password"]) == ("oauth", username, None)
    assert plan_of(host, wanted, oauth_mechanism=mechanism).empty


def test_what_exim_prints_in_octal_is_read() -> None:
    said = exim_oauth.client_send("XOAUTH2", "ä@x.example", "h.example", 587, TOKEN_FILE)
    values = {
        "public_name": "XOAUTH2",
        "client_send": said.replace("ä", "\\303\\244"),
        "client_condition": exim_oauth.SECURE,
    }
    assert exim_oauth.username(values, "h.example", 587, "tls", TOKEN_FILE) == "ä@x.example"


def exim_files_conf() -> str:
    return SPLIT.replace("config='true'", "config='false'")


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("mechanism", ["xoauth2", "oauthbearer"])
def test_the_authenticator_stands_before_all_others_and_goes_again(split, mechanism):
    host = installed(SPLIT if split else exim_files_conf())
    before = contents(host)
    deploy(host, service(**OAUTH), oauth_mechanism=mechanism)
    text = host.text(exim_files.AUTHENTICATOR if split else exim_files.TEMPLATE)
    assert f"public_name = {mechanism.upper()}\n" in text
    assert f"${{readfile{{{TOKEN_FILE}}}" in text
    if split:
        assert exim_files.AUTHENTICATOR.rsplit("/", 1)[1] < "30_exim4-config_examples"
    else:
        assert "begin authenticators\n# BEGIN fleetmail.smtp _oauth\nfleetmail_oauth:\n" in text
        assert exim_files.AUTHENTICATOR not in host.files
    deploy(host, None)
    assert contents(host) == before


def test_no_other_mechanism_finds_a_password():
    host = installed()
    host.put(exim_files.CREDENTIALS, "# mine\n*.example.com:me:mine\n", 0o640, "root", "Debian-exim")
    deploy(host, service(**OAUTH))
    assert not list(exim_files.credential_entries(host.text(exim_files.CREDENTIALS)))
    deploy(host, None)
    assert host.text(exim_files.CREDENTIALS) == "# mine\n*.example.com:me:mine\n"


def transition(before: dict[str, object], after: dict[str, object]) -> str:
    """What passwd.client holds between the two services, until Exim has the new configuration."""
    said = SAID.replace("\nprotocol = smtp", "\npublic_name = \nprotocol = smtp")
    host = running(said)
    deploy(host, service(**before))
    backend = Exim(host)
    observed = backend.read("default")
    observed.form.update(auth_type=before["auth_type"], host=RELAY["host"])
    states = backend.desired(service(**after), "default", observed)
    (state,) = [one for one in states if one.path == exim_files.CREDENTIALS]
    assert state.content is not None
    return (state.content if state.transition is None else state.transition).decode()


def test_the_password_logs_in_until_exim_has_the_authenticator():
    assert "*:fleet:s3cret" in transition(LOGIN, OAUTH)


def test_the_password_is_never_for_another_relay():
    kept = list(exim_files.credential_entries(transition(LOGIN, {**OAUTH, "host": "other.example.com"})))
    assert kept == [("relay.example.com", "fleet", "s3cret")]


def test_a_new_password_is_not_for_the_relay_of_the_token():
    host = running(SAID)
    backend = Exim(host)
    observed = backend.read("default")
    observed.form.update(auth_type="oauth", host=RELAY["host"])
    states = backend.desired(service(**{**LOGIN, "host": "other.example.com"}), "default", observed)
    (state,) = [one for one in states if one.path == exim_files.CREDENTIALS]
    assert list(exim_files.credential_entries(state.transition.decode())) == [("other.example.com", "fleet", "s3cret")]


AUTHENTICATOR = exim_oauth.authenticator(service(**OAUTH), "XOAUTH2", TOKEN_FILE)
EFFECTIVE = SAID + AUTHENTICATOR.replace("  driver = plaintext\n", "").replace("  ", "")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", ""),
        ("default.exim", "stolen"),
        ("fleet@", "somebody@"),
        ("fail}", "}"),
        ("Bearer ", "Bearer x"),
        ("XOAUTH2", "PLAIN"),
    ],
)
def test_the_effective_authenticator_is_what_counts(old, new):
    host = running(EFFECTIVE.replace(old, new))
    form = Exim(host).read("default").form
    if old == "":
        assert (form["auth_type"], form["username"]) == ("oauth", "fleet@example.com")
    elif old == "fleet@":
        assert form["username"] == "somebody@example.com"
    else:
        assert form["auth_type"] == "none"


def test_a_token_that_would_leave_without_tls_is_not_what_is_wanted():
    host = running(EFFECTIVE.replace("client_condition = ${if !eq{$tls_out_cipher}{}}", "client_condition ="))
    assert Exim(host).read("default").form["auth_type"] == "none"


def named(host: FakeHost, wanted: Service, **options: object) -> list[str]:
    return [problem.option for problem in Exim(host, options).problems(wanted)]


def test_what_has_no_place_for_the_authenticator_is_refused():
    wanted = service(**OAUTH)
    assert named(installed(), wanted) == []
    assert named(installed(), wanted, edit_template=False) == ["backend_options.edit_template"]
    assert named(installed(SPLIT), wanted, edit_template=False) == []
    bare = installed()
    bare.put(exim_files.TEMPLATE, TEMPLATE.replace("begin authenticators\n", ""))
    assert named(bare, wanted) == ["auth_type"]
    bare.remove(exim_files.TEMPLATE)
    assert named(bare, wanted) == ["auth_type"]
    assert named(FakeHost(), wanted) == []  # a host where Exim is still to be installed


@pytest.mark.parametrize("username", ["a$b", "a b", "a;b", "a^b", "a\\b", "a{b", "a}b"])
def test_a_user_name_that_exim_would_interpret_is_refused(username):
    assert "username" in named(installed(), service(**{**OAUTH, "username": username}))


def test_what_waits_is_sent_when_the_token_is_there():
    consumer = Exim(installed(live=True)).consumer(service(**OAUTH))
    assert (consumer.owner, consumer.group, consumer.mode) == ("root", "Debian-exim", 0o640)
    assert consumer.wake[-1].startswith("exim4 -qf ")
    assert consumer.path == TOKEN_FILE
