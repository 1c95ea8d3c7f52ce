# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""smtp_oauth_token and smtp_oauth_token_info against a real authorization server, by real plays."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from driver.environments import Unavailable, ansible_environment
from lab.canary import Cage, Canary, Sighting
from lab.oauth_server import MICROSOFT_SCOPE, OAuthServer, why_unavailable
from lab.playbook import PLUGINS, Played, play

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.inspect import inspect
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.manage import manage
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.store import Store
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.posix_host import PosixHost

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "the server is there")

USER, OTHER = "fleet@example.test", "other@example.test"
SCOPE = f"{MICROSOFT_SCOPE} offline_access"
MODULE, INFO = "fleetmail.smtp.smtp_oauth_token", "fleetmail.smtp.smtp_oauth_token_info"
NOTHING = "127.0.0.1:1"
Result = dict[str, Any]


@pytest.fixture(scope="module")
def server() -> Iterator[OAuthServer]:
    with OAuthServer() as one:
        yield one


class Desk:
    """One store, and the module on it: by a play, or its core in this process where Ansible adds nothing."""

    def __init__(self, folder: Path, server: OAuthServer) -> None:
        self.folder, self.server = folder, server
        self.store = str(folder / "store")

    def client(self, **more: Any) -> dict[str, Any]:
        """The registration of a client that a person authorizes."""
        server = self.server
        urls = {name: getattr(server, name) for name in URLS}
        return {**urls, "client_id": server.public.client_id, "scope": SCOPE, "username": USER, **more}

    def service(self, **more: Any) -> dict[str, Any]:
        """That of one which needs nobody."""
        secret = {"client_id": self.server.service.client_id, "client_secret": self.server.service.client_secret}
        return self.client(oauth_grant="client_credentials", scope="smtp", **secret, **more)

    def call(self, check: bool = False, **options: Any) -> Result:
        """The core's answer; JSON takes it, and it holds no secret of the store."""
        result = manage({"name": "default", "store": self.store, **options}, PosixHost(), check)
        self.assert_clean(json.dumps(result))
        return result

    def good(self, **options: Any) -> Result:
        result = self.call(**options)
        assert "failed" not in result, result
        return result

    def info(self, **options: Any) -> Result:
        return inspect({"store": self.store, **options}, PosixHost())

    def secrets(self) -> list[str]:
        """Everything secret that the store has now."""
        found: list[str] = []
        for path in Path(self.store).rglob("*.json"):
            with contextlib.suppress(ValueError):  # damaged on purpose
                found += secret_texts(json.loads(path.read_text()))
        return found

    def assert_clean(self, text: str) -> None:
        for secret in self.secrets():
            assert secret not in text

    def files(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in Path(self.store).rglob("*") if path.is_file()}

    def planned(self, **options: Any) -> Result:
        """Check mode: it writes nothing and asks nobody."""
        before, asked = self.files(), len(self.server.exchanges())
        result = self.call(check=True, **options)
        assert self.files() == before
        assert len(self.server.exchanges()) == asked
        return result

    def play(self, *tasks: dict[str, Any], arguments: tuple[str, ...] = (), **how: Any) -> Played:
        return play(self.folder / "play", list(tasks), arguments=arguments, **how)

    def task(self, title: str, **options: Any) -> dict[str, Any]:
        return {"name": title, MODULE: {"store": self.store, **options}, "register": "told"}

    def access_token(self, name: str = "default") -> str:
        access = Store(PosixHost(), self.store).read(name).access
        assert access
        return access.token.reveal()

    def authorized(self, **options: Any) -> Result:
        """A grant, by a pasted address."""
        begun = self.good(state="authorized", **self.client(**options))
        back = self.server.authorize(begun["authorization"]["url"], USER)
        return self.good(state="authorized", authorization_response=back)


def usable(server: OAuthServer, token: str) -> bool:
    """What the server itself thinks of a token; one that it has forgotten is of no use."""
    found = server.look(token)
    return bool(found and found["usable"])


URLS = ("authorization_url", "token_url", "device_authorization_url", "revocation_url", "introspection_url")
SECRET_KEYS = {"token", "refresh_token", "access_token", "client_secret", "verifier", "code_verifier", "device_code"}


def secret_texts(value: Any) -> list[str]:
    if isinstance(value, list):
        return [text for item in value for text in secret_texts(item)]
    if not isinstance(value, dict):
        return []
    own = [item for key, item in value.items() if key in SECRET_KEYS and isinstance(item, str) and item]
    return own + [text for item in value.values() for text in secret_texts(item)]


@pytest.fixture
def desk(tmp_path: Path, server: OAuthServer) -> Desk:
    return Desk(tmp_path, server)


# -- a person


def test_check_real_check_real_with_a_pasted_address(desk: Desk, server: OAuthServer) -> None:
    options = desk.client()
    planned = desk.planned(state="authorized", **options)
    assert planned["changed"]
    assert planned["actions"] == ["write the registration", "begin an authorization"]
    assert planned["token"]["status"] == "unauthorized"
    assert "client_id: fleet-public" in planned["diff"]["after"]

    begun = desk.good(state="authorized", **options)
    assert (begun["changed"], begun["token"]["status"]) == (True, "pending")
    assert begun["actions"] == planned["actions"]
    assert {one["field"] for one in begun["drift"]} == {one["field"] for one in planned["drift"]}
    told = begun["authorization"]
    assert (told["flow"], told["user_code"]) == ("authorization_code", "")
    assert told["url"] in told["instructions"] or "this address" in told["instructions"]

    planned = desk.planned(state="authorized", **options)
    assert (planned["changed"], planned["authorization"]) == (False, told)
    again = desk.good(state="authorized")
    assert (again["changed"], again["authorization"]) == (False, told), "a second begin keeps the first"

    back = server.authorize(told["url"], USER)
    planned = desk.planned(state="authorized", authorization_response=back)
    assert planned["actions"] == ["complete the authorization"]
    done = desk.good(state="authorized", authorization_response=back)
    assert done["changed"]
    assert "authorization" not in done
    token = done["token"]
    assert (token["status"], token["authorized_user"], token["authorized_user_verified"]) == ("authorized", USER, True)
    assert token["missing_scope"] == []
    assert token["days_left"] >= 89
    assert usable(server, desk.access_token())

    for state in ("present", "authorized"):
        assert not desk.planned(state=state, **options)["changed"]
        assert not desk.good(state=state, **options)["changed"]


def test_device_code_in_two_tasks_and_in_two_plays(desk: Desk, server: OAuthServer) -> None:
    options = desk.client(oauth_grant="device_code", name="alerts", client_id=server.device.client_id)
    first = desk.play(desk.task("begin", state="authorized", **options))
    assert first.code == 0, first.out + first.err
    told = first.of("begin")["authorization"]
    assert told["flow"] == "device_code"
    assert told["user_code"] in told["instructions"]

    waiting = desk.play(desk.task("poll", name="alerts", state="authorized"))
    assert waiting.code == 0, waiting.out
    assert waiting.of("poll")["token"]["status"] == "pending"
    assert not waiting.of("poll")["changed"]

    person = threading.Timer(2, server.approve_device, [told["user_code"], USER])
    person.start()
    done = desk.play(desk.task("wait", name="alerts", state="authorized", wait=60), desk.task("present", name="alerts"))
    person.join()
    assert done.code == 0, done.out + done.err
    assert (done.of("wait")["changed"], done.of("wait")["token"]["status"]) == (True, "authorized")
    assert not done.of("present")["changed"]


def test_a_person_who_says_no_is_told_with_the_token(desk: Desk, server: OAuthServer) -> None:
    options = desk.client(oauth_grant="device_code")
    begun = desk.good(state="authorized", **options)
    server.deny_device(begun["authorization"]["user_code"], USER)
    refused = desk.call(state="authorized", wait=30)
    assert refused["failed"]
    assert refused["token"]["name"] == "default"
    assert "authorization" not in refused
    again = desk.good(state="authorized")
    assert again["authorization"]["user_code"] != begun["authorization"]["user_code"]


def test_another_person_is_an_error_and_nothing_is_kept(desk: Desk, server: OAuthServer) -> None:
    begun = desk.good(state="authorized", **desk.client())
    back = server.authorize(begun["authorization"]["url"], OTHER)
    refused = desk.call(state="authorized", authorization_response=back)
    assert refused["failed"]
    assert OTHER in refused["msg"]
    assert refused["problems"][0]["option"] == "username"
    assert Store(PosixHost(), desk.store).read("default").grant is None


def test_a_shared_mailbox_is_reached_by_a_persons_token(desk: Desk, server: OAuthServer) -> None:
    shared = "support@example.test"
    begun = desk.good(state="authorized", **desk.client(username=shared, authorized_user=USER))["authorization"]
    assert f"sign in as {USER}" in begun["instructions"]
    refused = desk.call(state="authorized", authorization_response=server.authorize(begun["url"], OTHER))
    assert refused["problems"][0]["option"] == "authorized_user"
    url = desk.good(state="authorized")["authorization"]["url"]
    done = desk.good(state="authorized", authorization_response=server.authorize(url, USER))
    assert (done["token"]["status"], done["token"]["authorized_user"]) == ("authorized", USER)
    assert done["token"]["authorized_user_verified"]
    registration = Store(PosixHost(), desk.store).read("default").registration
    assert registration
    assert (registration.username, registration.authorized_user) == (shared, USER)
    gone = desk.call(authorized_user="")
    assert (gone["failed"], gone["token"]["cause"]) == (True, "other_person")


def test_the_address_of_another_authorization_is_refused_and_the_pending_one_stays(desk: Desk) -> None:
    told = desk.good(state="authorized", **desk.client())["authorization"]
    answers = ["http://127.0.0.1:1/?code=abc&state=of-another", "http://127.0.0.1:1/?error=access_denied&state=x"]
    for answer in answers:
        refused = desk.call(state="authorized", authorization_response=answer)
        assert refused["failed"]
        assert refused["authorization"] == told
        assert "abc" not in json.dumps(refused)


def test_the_browser_comes_back_to_the_listener(desk: Desk, server: OAuthServer) -> None:
    begun = desk.good(state="authorized", listen="127.0.0.1", **desk.client())
    url = begun["authorization"]["url"]
    back = server.authorize(url, USER)
    assert back.startswith("http://127.0.0.1:")
    pages: list[str] = []

    def browse() -> None:
        for _try in range(100):
            try:
                with urllib.request.urlopen(back, timeout=5) as page:
                    pages.append(page.read().decode())
                    return
            except OSError:
                time.sleep(0.05)

    browser = threading.Thread(target=browse)
    browser.start()
    done = desk.good(state="authorized", listen="127.0.0.1", wait=30)
    browser.join()
    assert done["token"]["status"] == "authorized"
    assert pages
    desk.assert_clean("".join(pages))
    with socket.socket() as probe:
        port = int(back.split(":")[2].split("/")[0].split("?")[0])
        assert probe.connect_ex(("127.0.0.1", port)) != 0, "the listener is still there"


def test_present_never_asks_a_person(desk: Desk) -> None:
    planned = desk.planned(**desk.client())
    refused = desk.call(**desk.client())
    for told in (planned, refused):
        assert told["failed"]
        assert told["token"]["status"] == "unauthorized"
        assert "state: authorized" in told["problems"][0]["hint"]
        assert "authorization" not in told


# -- what keeps it alive


def test_present_refreshes_once_when_it_must(desk: Desk, server: OAuthServer) -> None:
    desk.authorized()
    age(desk, left=900)
    before, asked = desk.access_token(), len(server.refreshes())
    assert not desk.planned()["changed"]
    assert not desk.good()["changed"]
    planned = desk.planned(min_validity="20m")
    assert planned["actions"] == ["write the registration", "refresh the access token"]
    assert planned["drift"] == [{"field": "min_validity", "before": 600, "after": 1200}]
    assert desk.good(min_validity="20m")["actions"] == planned["actions"]
    assert desk.access_token() != before
    assert len(server.refreshes()) == asked + 1
    assert not desk.good(min_validity=1200)["changed"]


def age(desk: Desk, left: int) -> None:
    """As if the access token had been there for a while: so many seconds are left of it."""
    path = Path(desk.store, "default/token.json")
    record = json.loads(path.read_text())
    record["access"]["obtained_at"] = int(time.time()) - 3600 + left
    record["access"]["expires_at"] = int(time.time()) + left
    path.write_text(json.dumps(record))


def test_revoked_is_told_with_what_to_do_and_authorized_begins_anew(desk: Desk, server: OAuthServer) -> None:
    desk.authorized()
    server.revoke(user=USER)
    age(desk, left=60)
    refused = desk.call()
    assert refused["failed"]
    assert refused["token"]["status"] == "revoked"
    assert refused["token"]["error"] == "invalid_grant"
    assert refused["token"]["authorized_user"] == USER
    assert "authorize" in refused["token"]["next_step"]
    begun = desk.good(state="authorized")
    assert begun["authorization"]["url"]
    back = server.authorize(begun["authorization"]["url"], USER)
    assert desk.good(state="authorized", authorization_response=back)["token"]["status"] == "authorized"


def test_an_unreachable_server_fails_only_without_a_valid_token(desk: Desk, server: OAuthServer) -> None:
    desk.authorized()
    age(desk, left=120)
    server.refuse_connections()
    try:
        tolerated = desk.call(timeout=2)
        age(desk, left=-1)
        refused = desk.call(timeout=2)
    finally:
        server.up()
    assert not tolerated.get("failed"), tolerated
    assert any("still valid" in warning for warning in tolerated["warnings"])
    assert refused["failed"]
    assert refused["token"]["status"] == "unreachable"
    assert desk.good()["token"]["status"] == "authorized"


# -- nobody has to be asked


def test_client_credentials_and_absent_revokes(desk: Desk, server: OAuthServer) -> None:
    options = desk.service()
    planned = desk.planned(**options)
    assert planned["actions"] == ["write the registration", "refresh the access token"]
    assert {"field": "client_secret", "before": "(unset)", "after": "(set)"} in planned["drift"]
    done = desk.good(**options)
    assert done["token"]["status"] == "authorized"
    assert not desk.planned(**options)["changed"]
    assert not desk.good(**options)["changed"]
    token = desk.access_token()
    assert usable(server, token)

    planned = desk.planned(state="absent")
    assert planned["actions"] == ["revoke the grant at the server", f"remove {desk.store}/default"]
    gone = desk.good(state="absent")
    assert gone["actions"] == planned["actions"]
    assert not usable(server, token)
    assert not Path(desk.store, "default").exists()
    assert not desk.planned(state="absent")["changed"]
    assert not desk.good(state="absent")["changed"]


def test_absent_revokes_a_persons_grant(desk: Desk, server: OAuthServer) -> None:
    desk.authorized()
    grant = Store(PosixHost(), desk.store).read("default").grant
    assert grant
    assert grant.refresh_token
    token = desk.access_token()
    desk.good(state="absent")
    assert not usable(server, grant.refresh_token.reveal())
    assert not usable(server, token)


def test_absent_loses_nothing_when_the_server_cannot_be_asked(desk: Desk, server: OAuthServer) -> None:
    desk.authorized()
    before = desk.files()
    server.refuse_connections()
    try:
        refused = desk.call(state="absent", timeout=2)
    finally:
        server.up()
    assert refused["failed"]
    assert refused["token"]["status"] == "authorized"
    assert desk.files() == before
    kept = desk.good(state="absent", revoke=False)
    assert any("not revoked" in warning for warning in kept["warnings"])
    assert not Path(desk.store, "default").exists()


def test_a_server_without_revocation_is_told(desk: Desk) -> None:
    desk.authorized(revocation_url="")
    gone = desk.good(state="absent")
    assert gone["warnings"]
    assert not Path(desk.store, "default").exists()


# -- drift, and what is wrong


def test_two_clients_of_one_name_are_told_and_not_merged(desk: Desk, server: OAuthServer) -> None:
    desk.authorized()
    other = desk.client(client_id=server.confidential.client_id, client_secret=server.confidential.client_secret)
    planned = desk.planned(state="authorized", **other)
    assert {"field": "client_id", "before": "fleet-public", "after": "fleet-confidential"} in planned["drift"]
    assert any("another client" in warning for warning in planned["warnings"])
    begun = desk.good(state="authorized", **other)
    assert begun["authorization"]
    back = desk.good(**desk.client())
    assert back["token"]["status"] == "authorized", "its grant came back with its client"


def test_every_problem_at_once(desk: Desk) -> None:
    refused = desk.call(
        token_url="http://login.example.test/token",
        redirect_uri="http://127.0.0.1/#x",
        scope="smtp smtp",
        oauth_provider="acme",
        keepalive="soon",
        listen="0.0.0.0:80",
        wait=-1,
        timeout=0,
        authorization_response="a\nb",
        jwt_key_file="key.pem",
    )
    named = {problem["option"] for problem in refused["problems"]}
    expected = {"token_url", "redirect_uri", "scope", "oauth_provider", "keepalive", "listen", "wait", "timeout"}
    assert expected | {"authorization_response", "jwt_key_file"} <= named
    assert not Path(desk.store).exists()
    assert desk.call(name="../etc")["problems"][0]["option"] == "name"
    assert desk.call()["problems"][0]["option"] == "name"
    assert "failed" not in desk.call(check=True)


def test_a_store_that_is_a_file_and_a_damaged_one_are_kept(desk: Desk) -> None:
    Path(desk.store).write_text("mine")
    assert desk.call(**desk.service())["failed"]
    assert Path(desk.store).read_text() == "mine"
    Path(desk.store).unlink()
    desk.good(**desk.service())
    path = Path(desk.store, "default/token.json")
    path.write_text("{")
    refused = desk.call()
    assert refused["failed"]
    assert str(path) in refused["msg"]
    assert path.read_text() == "{"
    assert "token" not in refused


# -- telling of it


def test_info_tells_from_the_store_alone_and_introspects_on_demand(desk: Desk, server: OAuthServer) -> None:
    assert desk.info() == {"changed": False, "tokens": []}
    desk.good(**desk.service(name="app"))
    desk.good(state="authorized", **desk.client(name="person"))
    asked = len(server.exchanges())
    tokens = desk.info()["tokens"]
    assert [one["name"] for one in tokens] == ["app", "person"]
    assert tokens[1]["authorization"]["url"]
    assert len(server.exchanges()) == asked
    desk.assert_clean(json.dumps(tokens))

    seen = desk.info(name="app", introspect=True)["tokens"][0]["introspection"]
    assert (seen["active"], seen["scope"]) == (True, ["smtp"])
    assert desk.info(name="no-such")["problems"][0]["option"] == "name"

    Path(desk.store, "person/token.json").write_text("[]")
    told = desk.info()
    assert told["failed"]
    assert [one["name"] for one in told["tokens"]] == ["app"]


def test_modes_of_the_store(desk: Desk) -> None:
    desk.good(**desk.service())
    assert stat.S_IMODE(os.stat(desk.store).st_mode) == 0o700
    for path in Path(desk.store).rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


# -- leaks, in every version of Ansible

WRONG = Canary("a wrong client secret", "Falschclient5B7m~Dohlenschrei1N9c")
ANSWER = Canary("a pasted code", "Einmalcode4K2v-Bachstelze9X1q")
PROXY = Canary("a proxy's password", "Stellvertreter8D3r")


def environment_of(version: str) -> Path:
    try:
        return ansible_environment(version)
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("version", ["2.18", "2.21", "2.22"])
def test_nothing_leaks(desk: Desk, server: OAuthServer, version: str) -> None:
    ansible = environment_of(version)
    pasted = f"http://127.0.0.1:9/?code={ANSWER.text}&state=elsewhere"
    story = [
        desk.task("begin", state="authorized", name="person", **desk.client(), proxy=""),
        desk.task("foreign", state="authorized", name="person", authorization_response=pasted),
        desk.task("app", name="app", **desk.service()),
        desk.task("again", name="app", **desk.service()),
        desk.task("refused", name="bad", **{**desk.service(), "client_secret": WRONG.text}),
        desk.task("proxied", name="proxied", **desk.service(), proxy=f"http://u:{PROXY.text}@{NOTHING}", timeout=2),
        desk.task("arguments", name="bad", client_secret={"a": WRONG.text}, scope=7, authorization_response=pasted),
        {"name": "info", INFO: {"store": desk.store, "introspect": True}, "register": "told"},
        {"name": "show", "ansible.builtin.debug": {"var": "told"}},
        desk.task("gone", name="app", state="absent"),
    ]
    for task in story:
        task["ignore_errors"] = True
    output = desk.folder / "play/output"
    output.mkdir(parents=True)
    audit = {"PYTHONPATH": str(PLUGINS / "audit"), "LAB_STARTED": str(output / "started.jsonl")}
    # variables, as in a vault: what stands in the play itself is shown with it
    variables = {"secret": server.service.client_secret, "wrong": WRONG.text, "pasted": pasted, "proxy": PROXY.text}
    hidden = json.dumps(story)
    for name, text in variables.items():
        hidden = hidden.replace(json.dumps(text)[1:-1], "{{ " + name + " }}")
    played = desk.play(
        *json.loads(hidden),
        variables=variables,
        arguments=("-vvvv", "--diff"),
        environment=audit,
        ansible=ansible,
    )
    ends = {one.task: one.status for one in played.results}
    assert [name for name, end in ends.items() if end == "failed"] == ["foreign", "refused", "proxied", "arguments"]
    known = [Canary(f"secret {number}", text) for number, text in enumerate(desk.secrets()) if len(text) > 16]
    assert known
    cage = Cage([WRONG, ANSWER, PROXY, Canary("client secret", server.service.client_secret), *known])
    seen: list[Sighting] = cage.search("output", (played.out + played.err).encode()) + cage.search_folder(output)
    assert not seen, "\n".join(map(str, seen))
