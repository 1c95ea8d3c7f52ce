# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""smtp_oauth_token and its info module below Ansible: what is told, and what is never done in check mode."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab.error_server import ErrorServer
from unit.token_store import DAY, NAME, Held

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth import manage as module
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.inspect import inspect
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.manage import manage
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.registration import Registration
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.token_report import drift_between
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.redaction import Secret

CANARY = "kanarienvogel-geheim"


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    with ErrorServer() as server:
        yield Held(tmp_path, server, authorization_url=f"{server.issuer}/authorize")


def call(held: Held, check: bool = False, **options: Any) -> dict[str, Any]:
    given = {"name": NAME, "store": held.store.directory, "timeout": 3, **options}
    result = manage(given, held.host, check, held.clock)
    for secret in (CANARY, "first-access-token", "first-refresh-token"):
        assert secret not in json.dumps(result)
    return result


def planned(held: Held, **options: Any) -> dict[str, Any]:
    """Check mode, which asks nobody and writes nothing."""
    assert held.server
    before = {path: path.read_bytes() for path in held.directory.rglob("*.json")}
    asked = len(held.server.requests("token"))
    result = call(held, check=True, **options)
    assert {path: path.read_bytes() for path in held.directory.rglob("*.json")} == before
    assert len(held.server.requests("token")) == asked
    return result


def test_a_good_token_is_left_alone(held: Held) -> None:
    held.authorize()
    for result in (planned(held), call(held), planned(held, state="authorized"), call(held, state="authorized")):
        assert "failed" not in result
        assert (result["changed"], result["drift"], result["actions"]) == (False, [], [])
        assert result["token"]["status"] == "authorized"
        assert "diff" not in result


def test_check_mode_says_that_it_would_refresh_and_then_it_does(held: Held) -> None:
    held.authorize()
    held.wait(seconds=3500)
    told = planned(held)
    assert (told["changed"], told["actions"]) == (True, ["refresh the access token"])
    assert "would refresh the access token" in told["diff"]["after"]
    done = call(held)
    assert (done["changed"], done["actions"]) == (True, ["refresh the access token"])
    assert held.refreshes() == 1


def test_an_idle_grant_is_used_before_it_dies(held: Held) -> None:
    held.authorize()
    held.wait(days=46)
    assert "refresh the access token" in planned(held)["actions"]
    assert call(held)["token"]["days_left"] == 90


def test_registration_and_grant_of_another_client(held: Held) -> None:
    held.authorize()
    urls = {name: getattr(held.registration, name) for name in ("authorization_url", "token_url")}
    told = planned(held, client_id="other", client_secret=CANARY, **urls)
    fields = {one["field"]: (one["before"], one["after"]) for one in told["drift"]}
    assert fields["client_id"] == ("fleet", "other")
    assert fields["client_secret"] == ("(unset)", "(set)")
    assert "another client" in told["warnings"][0]
    assert told["failed"], "present asks nobody, and the other client has no grant"


def test_two_tasks_at_once_lose_neither_option(held: Held) -> None:
    held.authorize()
    options = {
        "revocation_url": "https://auth.example.test/revoke",
        "introspection_url": "https://auth.example.test/look",
    }
    results: list[dict[str, Any]] = []
    tasks = [
        threading.Thread(target=lambda one=one: results.append(call(held, **dict([one])))) for one in options.items()
    ]
    with held.store.locked(NAME):
        for task in tasks:
            task.start()
        time.sleep(0.3)  # both have read what is registered, and wait
    for task in tasks:
        task.join()
    registered = held.state.registration
    assert registered
    assert {option: getattr(registered, option) for option in options} == options
    assert sorted(one["field"] for result in results for one in result["drift"]) == sorted(options)
    assert all(result["changed"] for result in results)
    assert not call(held, **options)["changed"]


def test_the_same_task_twice_at_once_changes_once(held: Held) -> None:
    held.authorize()
    results: list[dict[str, Any]] = []
    tasks = [threading.Thread(target=lambda: results.append(call(held, warn_before="7d"))) for _number in range(2)]
    with held.store.locked(NAME):
        for task in tasks:
            task.start()
        time.sleep(0.3)
    for task in tasks:
        task.join()
    assert sorted(result["changed"] for result in results) == [False, True]


def test_a_changed_secret_is_told_and_not_shown(held: Held) -> None:
    held.declare(client_secret=Secret("an older " + CANARY))
    held.authorize()
    told = planned(held, client_secret=CANARY, proxy=f"http://u:{CANARY}@127.0.0.1:1")
    fields = {one["field"]: (one["before"], one["after"]) for one in told["drift"]}
    assert fields == {"client_secret": ("(set)", "(changed)"), "proxy": ("(unset)", "(set)")}


def test_a_secret_that_is_left_out_stays_and_an_empty_one_takes_it_away(held: Held) -> None:
    held.declare(client_secret=Secret(CANARY))
    held.authorize()
    assert not call(held, client_id="fleet")["changed"]
    assert held.state.registration
    assert held.state.registration.client_secret == Secret(CANARY)
    assert call(held, client_secret="")["drift"] == [{"field": "client_secret", "before": "(set)", "after": "(unset)"}]
    assert held.state.registration.client_secret is None
    assert not call(held, client_secret="")["changed"]


def test_a_refusal_has_the_token_the_problem_and_the_way_out(held: Held) -> None:
    from lab.error_replies import aadsts

    held.authorize()
    held.wait(seconds=3700)
    assert held.server
    held.server.script(aadsts(7000222))
    result = call(held)
    assert result["failed"]
    assert result["token"]["status"] == "misconfigured"
    assert result["token"]["next_step"] == result["problems"][0]["hint"]
    assert "AADSTS7000222" in result["msg"]
    assert held.state.grant is not None, "the grant is kept"
    assert call(held)["token"]["status"] == "authorized"


def test_status_expiring_is_no_failure(held: Held) -> None:
    held.declare(refresh_token_lifetime=20 * DAY, keepalive=19 * DAY)
    held.authorize(expires_in=18 * DAY)
    held.wait(days=11)
    result = call(held)
    assert "failed" not in result
    assert result["token"]["status"] == "expiring"


def test_what_nobody_foresaw_shows_no_text(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    held.authorize()

    def falls_over(*_arguments: object) -> Any:
        raise RuntimeError(CANARY)

    monkeypatch.setattr(module, "need", falls_over)
    result = call(held)
    assert result["failed"]
    assert "RuntimeError at" in result["msg"]


def test_the_host_in_a_hurry_is_told_as_a_file(held: Held) -> None:
    held.authorize()
    held.file.write_text("not ours")
    result = call(held)
    assert (result["failed"], "token" in result) == (True, False)
    assert result["problems"][0]["option"] == str(held.file)
    assert held.file.read_text() == "not ours"


def test_absent_in_check_mode_and_without_a_revocation_endpoint(held: Held) -> None:
    held.authorize()
    told = planned(held, state="absent", revoke=False)
    assert told["actions"] == [f"remove {held.store.path(NAME)}"]
    gone = call(held, state="absent", revoke=False)
    assert any("not revoked" in warning for warning in gone["warnings"])
    assert gone["token"]["status"] == "unauthorized"
    assert not call(held, state="absent")["changed"]


def test_drift_is_told_in_the_options_words() -> None:
    stored = Registration(client_id="a", provider="google", scope=("x",))
    wanted = stored._replace(grant="jwt_bearer", scope=("x", "y"))
    assert drift_between(stored, wanted) == [
        {"field": "oauth_grant", "before": "authorization_code", "after": "jwt_bearer"},
        {"field": "scope", "before": ["x"], "after": ["x", "y"]},
    ]
    assert drift_between(stored, stored) == []


def test_info_names_what_cannot_be_read_and_tells_of_the_rest(held: Held) -> None:
    held.authorize()
    options = {"store": held.store.directory}
    assert [one["name"] for one in inspect(options, held.host, held.clock)["tokens"]] == [NAME]
    other = Path(held.store.directory, "other")
    other.mkdir(mode=0o700)
    (other / "token.json").write_text("{")
    told = inspect(options, held.host, held.clock)
    assert (told["failed"], [one["name"] for one in told["tokens"]]) == (True, [NAME])
    assert told["problems"][0]["option"] == str(other / "token.json")
    assert "first-access-token" not in json.dumps(told)
    wrong = inspect({"store": "here", "name": "../x", "timeout": 0}, held.host)
    assert {one["option"] for one in wrong["problems"]} == {"store", "name", "timeout"}
    nobody = inspect({**options, "name": "nobody"}, held.host)
    assert nobody["problems"][0]["option"] == "name"


def test_introspection_tells_no_server_of_another_ones_token(held: Held) -> None:
    """The registration is another server's by now; what the old one gave is none of its business."""
    held.authorize()
    with ErrorServer() as other:
        held.declare(client_id="another", token_url=other.token_url, introspection_url=other.url("introspect"))
        told = inspect({"store": held.store.directory, "introspect": True}, held.host, held.clock)["tokens"][0]
        assert told["introspection"]["problem"] == "there is no access token to ask about"
        assert other.requests("introspect") == []
