# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A service with OAuth, from its options to the files of its host, on msmtp and on Exim in a tree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

import pytest
from lab.granting import accept
from unit.exim_host import installed
from unit.fake_host import FakeHost

from ansible_collections.fleetmail.smtp.plugins.module_utils.core import enforce as engine
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends.msmtp import MAIN
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.enforce import enforce
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.errors import HostError
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth import document
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.grants.base import Reply
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.registration import Registration
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.state import Pending
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.store import STORE, Store
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.posix_host import PosixHost
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.redaction import Secret

ACCESS, REFRESH, CLIENT_SECRET, PASSWORD = "canary-access", "canary-refresh", "canary-client", "canary-password"
RELAY = {"host": "relay.example.com", "security": "starttls"}
OAUTH = {
    "auth_type": "oauth",
    "username": "fleet@example.com",
    "client_id": "the-client",
    "client_secret": CLIENT_SECRET,
    "oauth_provider": "microsoft365",
    "oauth_tenant": "contoso.example",
}
LOGIN = {"auth_type": "password", "username": "fleet", "password": PASSWORD}
REGISTRATION = STORE + "/default/registration.json"
KEPT = STORE + "/default/token.json"
TOKENS = {name: f"/var/lib/fleetmail/tokens/default.{name}" for name in ("msmtp", "exim")}
CONTENTS = {"msmtp": ACCESS + "\n", "exim": f"access_token={ACCESS}\n"}
GROUPS = {"msmtp": "msmtp", "exim": "Debian-exim"}


@pytest.fixture(params=["msmtp", "exim"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def host(backend: str) -> FakeHost:
    host = installed() if backend == "exim" else FakeHost(live=False)
    host.put("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
    host.groups |= {"msmtp", "Debian-exim"}
    return host


def enforced(host: FakeHost, backend: str, check: bool = False, **options: Any) -> dict[str, Any]:
    """The result of one call, which must succeed and show no secret."""
    result = enforce({"backend": backend, **RELAY, **options}, host, check)
    told = json.dumps(result)
    assert "failed" not in result, told
    assert "canary" not in told
    return result


def drift(host: FakeHost, backend: str, **options: Any) -> dict[str, tuple[Any, Any]]:
    """What check mode reports; it changes nothing."""
    before = dict(host.files)
    result = enforced(host, backend, check=True, **options)
    assert host.files == before
    return {one["field"]: (one["before"], one["after"]) for one in result["drift"]}


def authorize(host: FakeHost, seconds: int = 3600, access: str = ACCESS, ago: int = 0) -> None:
    """Somebody gave the right, ``ago`` seconds ago, and the engine keeps it."""
    reply = Reply(Secret(access), seconds, Secret(REFRESH), None, None, "", False)
    accept(Store(host), "default", reply, lambda: time.time() - ago)


def test_a_service_is_prepared_before_anybody_authorized_it(host, backend):
    wanted = drift(host, backend, **OAUTH)
    assert wanted["auth_type"][1] == "oauth"
    assert wanted["client_id"] == (None, "the-client")
    assert wanted["client_secret"] == ("(unset)", "(set)")
    assert wanted["token_url"][1] == "https://login.microsoftonline.com/contoso.example/oauth2/v2.0/token"
    result = enforced(host, backend, **OAUTH)
    assert result["changed"]
    assert {"client_id": "the-client", "client_secret": "(set)", "password": "(unset)"}.items() <= result[
        "service"
    ].items()
    assert TOKENS[backend] not in host.files
    assert (host.files[REGISTRATION].mode, host.files[REGISTRATION].owner) == (0o600, "root")
    (warning,) = [one for one in result["warnings"] if "access token" in one]
    assert "unauthorized" in warning
    assert "smtp_oauth_token" in warning
    assert drift(host, backend, **OAUTH) == {}
    assert not enforced(host, backend, **OAUTH)["changed"]


def test_a_client_that_its_key_file_names_needs_no_other_name(host, backend):
    key = {"jwt_key_file": "/etc/ssl/private/fleet-mail.json", "username": "fleet@example.com"}
    store = Store(host)
    google = {"auth_type": "oauth", "username": key["username"], "oauth_provider": "google"}
    signed = {**google, "oauth_grant": "jwt_bearer"}
    store.write_registration("default", Registration(name="default", provider="google", grant="jwt_bearer", **key))
    enforced(host, backend, **signed)
    assert store.read("default").registration.jwt_key_file == key["jwt_key_file"]
    assert drift(host, backend, **signed) == {}
    store.write_registration("default", Registration(name="default", provider="google", grant="device_code", **key))
    assert drift(host, backend, **signed)["oauth_grant"] == ("device_code", "jwt_bearer")


def test_the_engine_finds_its_consumer_and_the_service_complies_afterwards(host, backend):
    enforced(host, backend, **OAUTH)
    authorize(host)
    found = host.files[TOKENS[backend]]
    assert found.content.decode() == CONTENTS[backend]
    assert (found.mode, found.owner, found.group) == (0o640, "root", GROUPS[backend])
    result = enforced(host, backend, **OAUTH)
    assert not result["changed"]
    assert not [one for one in result["warnings"] if "access token" in one]


def test_a_token_that_is_there_already_is_written_with_the_rest(host, backend):
    enforced(host, backend, **OAUTH)
    authorize(host)
    enforced(host, backend, **OAUTH, state="absent")
    assert TOKENS[backend] not in host.files
    result = enforced(host, backend, **OAUTH)
    assert {"path": TOKENS[backend], "action": "created"} in result["files"]
    assert host.text(TOKENS[backend]) == CONTENTS[backend]


@pytest.mark.parametrize(
    ("edit", "field"),
    [
        (lambda host, path: host.remove(path), "presence of {}"),
        (lambda host, path: host.put(path, "stale\n", 0o640, "root", host.files[path].group), "content of {}"),
        (lambda host, path: host.put(path, host.files[path]._replace(mode=0o644)), "mode of {}"),
        (lambda host, path: host.put(path, host.files[path]._replace(owner="nobody")), "owner of {}"),
        (lambda host, path: host.put(path, host.files[path]._replace(group="users")), "group of {}"),
    ],
    ids=["deleted", "stale", "wide", "owner", "group"],
)
def test_a_token_file_that_is_not_as_it_should_be_is_drift(host, backend, edit, field):
    enforced(host, backend, **OAUTH)
    authorize(host)
    edit(host, TOKENS[backend])
    assert list(drift(host, backend, **OAUTH)) == [field.format(TOKENS[backend])]
    enforced(host, backend, **OAUTH)
    assert host.text(TOKENS[backend]) == CONTENTS[backend]
    assert drift(host, backend, **OAUTH) == {}


def test_what_somebody_changed_in_the_registration_is_told_in_the_forms_words(host, backend):
    enforced(host, backend, **OAUTH)
    host.put(REGISTRATION, host.text(REGISTRATION).replace("contoso", "evil"), 0o644)
    found = drift(host, backend, **OAUTH)
    assert found["oauth_tenant"] == ("evil.example", "contoso.example")
    assert found[f"mode of {REGISTRATION}"] == ("0644", "0600")
    enforced(host, backend, **OAUTH)
    assert drift(host, backend, **OAUTH) == {}


def test_an_expired_token_is_no_token_and_its_file_is_left_alone(host, backend):
    enforced(host, backend, **OAUTH)
    authorize(host, seconds=60, ago=0)
    host.put(KEPT, host.text(KEPT).replace(_field(host, "expires_at"), str(int(time.time()) - 5)), 0o600)
    result = enforced(host, backend, **OAUTH)
    assert not result["changed"]
    (warning,) = [one for one in result["warnings"] if "access token" in one]
    assert "expired" in warning
    assert "keeper" in warning
    host.put(TOKENS[backend], "of yesterday\n", 0o640, "root", GROUPS[backend])
    enforced(host, backend, **OAUTH)
    assert TOKENS[backend] not in host.files


def _field(host: FakeHost, name: str) -> str:
    return str(json.loads(host.text(KEPT))["access"][name])


def test_a_grant_that_ends_soon_is_told_while_its_token_is_still_good(host, backend):
    enforced(host, backend, **OAUTH)
    authorize(host, seconds=90 * 86400, ago=80 * 86400)
    result = enforced(host, backend, **OAUTH)
    (warning,) = [one for one in result["warnings"] if "grant of default" in one]
    assert "expiring" in warning
    assert "keeper" in warning


def test_another_client_is_drift_and_never_gets_the_first_ones_token(host, backend):
    enforced(host, backend, **OAUTH)
    authorize(host)
    kept = host.files[KEPT]
    other = {**OAUTH, "client_id": "another-client"}
    assert drift(host, backend, **other)["client_id"] == ("the-client", "another-client")
    result = enforced(host, backend, **other)
    assert TOKENS[backend] not in host.files
    assert host.files[KEPT] == kept
    assert any("another client" in one and "kept" in one for one in result["warnings"])
    enforced(host, backend, **OAUTH)
    assert host.text(TOKENS[backend]) == CONTENTS[backend]


def test_a_new_client_secret_is_told_without_it(host, backend):
    enforced(host, backend, **OAUTH)
    found = drift(host, backend, **{**OAUTH, "client_secret": "canary-new"})
    assert found == {"client_secret": ("(set)", "(changed)")}


def test_from_password_to_oauth_and_back(host, backend):
    enforced(host, backend, **LOGIN)
    enforced(host, backend, **OAUTH)
    authorize(host)
    assert PASSWORD not in "".join(map(host.text, host.files))
    found = drift(host, backend, **LOGIN)
    assert {"auth_type": ("oauth", "password"), "password": ("(unset)", "(set)")}.items() <= found.items()
    result = enforced(host, backend, **LOGIN)
    assert result["service"]["auth_type"] == "password"
    assert "client_id" not in result["service"]
    assert TOKENS[backend] not in host.files
    assert KEPT in host.files
    assert any("stays in the store" in one for one in result["warnings"])
    assert drift(host, backend, **LOGIN) == {}
    enforced(host, backend, **OAUTH)
    assert host.text(TOKENS[backend]) == CONTENTS[backend]


def test_absent_leaves_nothing_but_a_grant(host, backend):
    before = dict(host.files)
    enforced(host, backend, **OAUTH)
    enforced(host, backend, **OAUTH, state="absent")
    assert host.files == before
    assert not [place for place in host.directories if "fleetmail" in place]
    enforced(host, backend, **OAUTH)
    authorize(host)
    result = enforced(host, backend, **OAUTH, state="absent")
    assert set(host.files) - set(before) == {REGISTRATION, KEPT}
    assert any("grant of default stays" in one for one in result["warnings"])
    assert not enforced(host, backend, **OAUTH, state="absent")["changed"]


def test_absent_tells_of_an_authorization_that_was_begun(host, backend):
    enforced(host, backend, **OAUTH)
    store = Store(host)
    with store.locked("default"):
        state = store.read("default")
        store.write("default", state._replace(pending=Pending("device_code", "fleet", 1, 2, {"device_code": "canary"})))
    result = enforced(host, backend, **OAUTH, state="absent")
    assert {REGISTRATION, KEPT} <= set(host.files)
    assert any("that was begun stays in the store" in one for one in result["warnings"])


def test_a_token_that_was_declared_elsewhere_is_not_removed_with_a_service_that_never_used_it(host, backend):
    host.put(REGISTRATION, '{"version": 1, "client_id": "of smtp_oauth_token", "name": "default"}', 0o600)
    enforced(host, backend, **LOGIN)
    enforced(host, backend, **LOGIN, state="absent")
    assert REGISTRATION in host.files


def test_disabling_alone_keeps_the_client(host, backend):
    enforced(host, backend, **OAUTH)
    authorize(host)
    result = enforce({"backend": backend, "enabled": False}, host, False)
    assert [one["field"] for one in result["drift"]] == ["enabled"]
    assert result["service"]["auth_type"] == "oauth"
    assert result["service"]["client_id"] == "the-client"
    assert host.text(TOKENS[backend]) == CONTENTS[backend]
    assert not enforce({"backend": backend, "enabled": False}, host, False)["changed"]
    assert list(drift(host, backend, **OAUTH)) == ["enabled"]


def test_disabled_and_not_yet_complete(host, backend):
    options = {"auth_type": "oauth", "enabled": False}
    enforced(host, backend, **options)
    assert drift(host, backend, **options) == {}
    assert REGISTRATION not in host.files
    enforced(host, backend, **OAUTH)
    assert drift(host, backend, **OAUTH) == {}


def test_all_problems_at_once_and_nothing_touched(host, backend):
    before = dict(host.files)
    options = {"scope": "a b a", "token_url": "http://login.example/t", "oauth_provider": "nobody", "security": "ssl"}
    result = enforce({"backend": backend, **RELAY, **OAUTH, **options, "port": 0}, host, False)
    named = {problem["option"] for problem in result["problems"]}
    assert {"scope", "token_url", "oauth_provider", "security", "port"} <= named
    assert host.files == before


APP = {**OAUTH, "client_secret": None, "oauth_grant": "client_credentials"}


def test_a_client_for_itself_needs_a_secret(host, backend):
    result = enforce({"backend": backend, **RELAY, **APP, "port": 0}, host, False)
    assert {problem["option"] for problem in result["problems"]} == {"port", "client_secret"}
    assert "smtp_oauth_token" in next(one["hint"] for one in result["problems"] if one["option"] == "client_secret")
    assert drift(host, backend, **APP), "in check mode an earlier task has not registered a key yet"


def test_or_a_key_that_is_registered(host, backend):
    key = {"jwt_key_file": "/etc/ssl/private/mail.pem", **{name: value for name, value in APP.items() if value}}
    registration = Registration.from_options(key)
    host.put(STORE + "/default/registration.json", document.written(registration.as_record()).decode(), 0o600)
    assert enforced(host, backend, **APP)["service"]["oauth_grant"] == "client_credentials"
    stored = Store(host).read("default").registration
    assert stored is not None
    assert stored.jwt_key_file == key["jwt_key_file"]


@pytest.mark.parametrize("content", ["{", '{"version": 2}', '{"version": 1, "client_id": 5}', "[]"])
def test_a_store_that_is_not_understood_is_told_and_kept(host, backend, content):
    host.put(REGISTRATION, content, 0o600)
    before = dict(host.files)
    result = enforce({"backend": backend, **RELAY, **OAUTH}, host, False)
    assert result["failed"]
    assert REGISTRATION in result["msg"]
    assert host.files == before


def test_a_token_that_the_software_cannot_carry_is_told(host, backend):
    enforced(host, backend, **OAUTH)
    authorize(host, access="t" * 2900)
    assert drift(host, backend, **OAUTH) == {}
    authorize(host, access="t" * 3100)
    result = enforce({"backend": backend, **RELAY, **OAUTH}, host, False)
    assert [problem["option"] for problem in result["problems"]] == ["auth_type"]
    assert "too long" in result["msg"]


def test_one_name_on_two_backends_is_two_consumers():
    host = installed()
    host.put("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
    host.groups.add("msmtp")
    enforced(host, "exim", **OAUTH)
    enforced(host, "msmtp", **OAUTH)
    authorize(host)
    assert drift(host, "exim", **OAUTH) == drift(host, "msmtp", **OAUTH) == {}
    assert {host.text(path) for path in TOKENS.values()} == set(CONTENTS.values())
    enforced(host, "msmtp", **OAUTH, state="absent")
    assert drift(host, "exim", **OAUTH) == {}


def test_a_failed_step_puts_everything_back(host, backend, monkeypatch):
    enforced(host, backend, **LOGIN)
    before, directories = dict(host.files), set(host.directories)

    def no(*_arguments: Any) -> None:
        raise engine.StepFailed("verify", "no")

    monkeypatch.setattr(engine.Enforcement, "_verify", no)
    result = enforce({"backend": backend, **RELAY, **OAUTH}, host, False)
    assert result["rolled_back"]
    assert result["service"]["auth_type"] == "password"
    assert host.files == before
    assert host.directories <= directories | {STORE}


def test_a_first_run_that_fails_leaves_no_directory_of_ours(host, backend, monkeypatch):
    def no(*_arguments: Any) -> None:
        raise engine.StepFailed("verify", "no")

    monkeypatch.setattr(engine.Enforcement, "_verify", no)
    assert enforce({"backend": backend, **RELAY, **OAUTH}, host, False)["rolled_back"]
    assert not [place for place in host.directories if "fleetmail" in place]


@pytest.mark.skipif(os.geteuid() != 0, reason="root's files are made by root")
def test_the_engine_gives_no_token_while_the_files_are_changed(tmp_path, monkeypatch):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (tmp_path / "etc/group").write_text("root:x:0:\n")
    tried = []

    def authorize_meanwhile(*_arguments: Any) -> None:
        with pytest.raises(HostError, match="lock"), Store(PosixHost(str(tmp_path))).locked("default", patience=0):
            pass
        tried.append(True)

    monkeypatch.setattr(engine.Enforcement, "_verify", authorize_meanwhile)
    result = enforce({"backend": "msmtp", **RELAY, **OAUTH}, PosixHost(str(tmp_path)), False)
    assert "failed" not in result, result
    assert tried == [True]
    with Store(PosixHost(str(tmp_path))).locked("default", patience=0):
        pass


@pytest.mark.parametrize("options", [LOGIN, {}], ids=["password", "none"])
def test_a_service_without_oauth_loads_nothing_of_it(options):
    program = (
        "import json, sys; sys.path[:0] = json.loads(sys.argv[1])\n"
        "from unit.fake_host import FakeHost\n"
        "from ansible_collections.fleetmail.smtp.plugins.module_utils.core.enforce import enforce\n"
        "host = FakeHost({'/etc/passwd': ''}, live=False)\n"
        "assert enforce(json.loads(sys.argv[2]), host, False)['changed']\n"
        "print([name for name in sys.modules if 'oauth' in name or name.endswith('.requests')])\n"
    )
    order = json.dumps({"backend": "msmtp", **RELAY, **options})
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(sys.path), order], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_the_engine_and_the_store_mean_the_same_place():
    assert engine.OAUTH == STORE


def test_msmtp_reads_the_token_by_a_helper_that_apparmor_lets_run():
    host = FakeHost(live=False)
    host.put("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
    enforced(host, "msmtp", **OAUTH)
    assert (
        'auth xoauth2\nuser "fleet@example.com"\npasswordeval cat /var/lib/fleetmail/tokens/default.msmtp\n'
        in host.text(MAIN)
    )
    assert host.files[MAIN].mode == 0o644  # it says where the token is, and nothing more
    authorize(host)
    assert host.files[TOKENS["msmtp"]].mode == 0o600  # no group msmtp here
