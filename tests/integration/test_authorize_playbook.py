# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbooks authorize and token_status: a person at a terminal, a job without one, many services in one run."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from lab.oauth_server import MICROSOFT_SCOPE, OAuthServer, why_unavailable
from lab.playbook import LOCAL, Played, play, prepared
from lab.terminal import watch

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "the server is there")

USER = "fleet@example.test"
AUTHORIZE, STATUS = "fleetmail.smtp.authorize", "fleetmail.smtp.token_status"
BROWSER = re.compile(r"(http://127\.0\.0\.1:\d+/auth\?[^\s\"',]+)")


@pytest.fixture(scope="module")
def server() -> Iterator[OAuthServer]:
    with OAuthServer() as one:
        yield one


class Desk:
    """A control node and one host, which is itself."""

    def __init__(self, folder: Path, server: OAuthServer) -> None:
        self.folder, self.server = folder, server
        self.store = str(folder / "store")
        self.variables = {"authorize_store": self.store, "authorize_become": False}
        self.status = {"token_status_store": self.store, "token_status_become": False}

    def token(self, name: str, grant: str = "authorization_code", **more: Any) -> dict[str, Any]:
        server = self.server
        names = ("authorization_url", "token_url", "device_authorization_url", "revocation_url")
        urls = {one: getattr(server, one) for one in names}
        client = server.public if grant == "authorization_code" else server.device
        scope = f"{MICROSOFT_SCOPE} offline_access"
        own = {"oauth_grant": grant, "client_id": client.client_id, "scope": scope, "username": USER}
        return {"name": name, **urls, **own, **more}

    def play(self, book: str, *arguments: str, **variables: Any) -> Played:
        given = {**self.variables, **self.status, **variables}
        return play(self.folder / "play", [], variables=given, arguments=arguments, book=book)

    def begun(self, *tokens: dict[str, Any]) -> None:
        """They are registered on the host, as smtp_service does it."""
        tasks = [
            {"name": "begin", "fleetmail.smtp.smtp_oauth_token": {"store": self.store, "state": "authorized", **one}}
            for one in tokens
        ]
        assert play(self.folder / "before", tasks).code == 0

    def statuses(self) -> dict[str, str]:
        file = self.folder / "status.json"
        self.play(STATUS, token_status_json=str(file))
        return {one["name"]: one["status"] for one in json.loads(file.read_text())["here"]["tokens"]}

    def watched(self, act: Callable[[str], str | None], terminal: bool, **variables: Any) -> tuple[int, str]:
        """Run authorize beside a person: ``act`` sees all that was shown, and may say something."""
        given = {**self.variables, **variables}
        command, settings = prepared(self.folder / "play", [], variables=given, book=AUTHORIZE)
        environment = {**settings, "ANSIBLE_FORCE_COLOR": "0", "TERM": "dumb"}
        return watch(command, self.folder / "play/input", environment, act, terminal)


@pytest.fixture
def desk(tmp_path: Path, server: OAuthServer) -> Desk:
    return Desk(tmp_path, server)


def test_a_person_at_a_terminal(desk: Desk, server: OAuthServer) -> None:
    desk.begun(desk.token("default"), desk.token("invoices"))
    pasted: list[str] = []

    def paste(shown: str) -> str | None:
        prompts = shown.split("Paste the address")
        if len(prompts) - 1 <= len(pasted) or ":" not in prompts[-1]:
            return None
        url = BROWSER.findall(prompts[-2])[-1]
        pasted.append(server.authorize(url, USER))
        return pasted[-1]

    code, shown = desk.watched(paste, terminal=True)
    assert code == 0, shown
    assert len(pasted) == 2
    assert desk.statuses() == {"default": "authorized", "invoices": "authorized"}
    assert not [one for one in pasted if re.search(r"code=([^&]+)", one).group(1) in shown]  # type: ignore[union-attr]

    again = desk.play(AUTHORIZE)
    assert again.code == 0, again.out
    assert not [one.task for one in again.results if one.result.get("changed")]


def test_a_job_without_a_terminal_shows_codes_and_waits(desk: Desk, server: OAuthServer) -> None:
    tokens = [desk.token("default", "device_code"), desk.token("alerts", "device_code")]
    done: set[str] = set()

    def type_in(shown: str) -> None:
        for code in re.findall(r"code: ([A-Z0-9]{4}-[A-Z0-9]{4})\"", shown):
            if code not in done:
                done.add(code)
                server.approve_device(code, USER)

    code, shown = desk.watched(type_in, terminal=False, authorize_tokens=tokens, authorize_wait=60)
    assert code == 0, shown
    assert len(done) == 2
    assert desk.statuses() == {"default": "authorized", "alerts": "authorized"}


def test_addresses_as_variables_in_any_order(desk: Desk, server: OAuthServer) -> None:
    """As a survey of AWX gives them: a text with lines. The first run ends and says what to do."""
    tokens = [desk.token("default"), desk.token("invoices")]
    planned = desk.play(AUTHORIZE, "--check", authorize_tokens=tokens)
    assert planned.code == 0, planned.out
    assert not Path(desk.store).exists()

    first = desk.play(AUTHORIZE, authorize_tokens=tokens)
    assert first.code != 0
    assert "authorize_responses" in first.out
    answers = [server.authorize(url, USER) for url in dict.fromkeys(BROWSER.findall(first.out))]
    assert len(answers) == 2
    second = desk.play(AUTHORIZE, authorize_responses="\n".join(reversed(answers)))
    assert second.code == 0, second.out + second.err
    assert desk.statuses() == {"default": "authorized", "invoices": "authorized"}


class Named(NamedTuple):
    """One of several hosts that are this machine, each with a store of its own."""

    name: str
    store: str

    def inventory_line(self) -> str:
        return f"{LOCAL.replace('here', self.name)} authorize_store={self.store}"


def test_what_fails_on_one_host_is_told_without_secrets_and_hinders_no_other(desk: Desk, server: OAuthServer) -> None:
    client, stores = server.confidential, {name: str(desk.folder / name) for name in ("web1", "web2", "web3")}
    own = {"client_id": client.client_id, "client_secret": client.client_secret}
    variables = {"authorize_become": False, "authorize_tokens": [desk.token("default", **own)]}

    def run(**more: Any) -> Played:
        hosts: list[Any] = [Named(*one) for one in stores.items()]
        return play(desk.folder / "play", [], hosts, {**variables, **more}, book=AUTHORIZE)

    shown = run().out
    urls = {name: BROWSER.findall(shown.partition(f"default on {name}: ")[2])[0] for name in stores}
    answers = {name: server.authorize(url, USER) for name, url in urls.items()}
    answers["web1"] = re.sub(r"code=[^&]+", "code=wrong", answers["web1"])  # the first one
    ended = run(authorize_responses=list(answers.values()))
    assert ended.code != 0
    assert client.client_secret not in ended.out + ended.err
    (refused,) = (one for one in ended.results if one.task == "All of them are authorized" and one.status == "failed")
    assert refused.host == "web1"
    assert refused.result["msg"].startswith("token_url: the server does not accept the authorization code")
    assert "authorize again" in refused.result["msg"]
    held = {name: json.loads(Path(store, "default/token.json").read_text())["grant"] for name, store in stores.items()}
    assert [name for name, grant in held.items() if not grant] == ["web1"]


def test_only_the_named_token(desk: Desk, server: OAuthServer) -> None:
    desk.begun(desk.token("default"), desk.token("invoices"))
    first = desk.play(AUTHORIZE, authorize_names="invoices")
    urls = list(dict.fromkeys(BROWSER.findall(first.out)))
    assert len(urls) == 1
    second = desk.play(AUTHORIZE, authorize_names="invoices", authorize_responses=[server.authorize(urls[0], USER)])
    assert second.code == 0, second.out + second.err
    assert desk.statuses() == {"default": "pending", "invoices": "authorized"}


def test_the_fleets_table_its_exit_code_and_its_file(desk: Desk) -> None:
    empty = desk.play(STATUS)
    assert empty.code == 0, empty.out
    desk.begun(desk.token("default"))
    file = desk.folder / "told.json"
    bad = desk.play(STATUS, token_status_json=str(file))
    assert bad.code != 0
    table = bad.of("The tokens")["msg"]
    assert table[0].split() == ["HOST", "TOKEN", "STATUS", "CAUSE", "DAYS", "ACCESS", "TOKEN", "UNTIL", "USER"]
    assert table[1].split()[:3] == ["here", "default", "pending"]
    assert "here, default: pending" in bad.out
    assert json.loads(file.read_text())["here"]["tokens"][0]["status"] == "pending"
    assert desk.play(STATUS, token_status_fail_on=["expired", "revoked"]).code == 0
    Path(desk.store, "default/token.json").write_text("{")
    damaged = desk.play(STATUS, token_status_fail_on=["expired"])
    assert damaged.code != 0
    assert "is damaged" in damaged.out


def test_a_host_that_does_not_answer_is_a_line_of_the_table(desk: Desk) -> None:
    command, settings = prepared(desk.folder / "play", [], variables=desk.status, book=STATUS)
    hosts = f"{LOCAL}\nlost ansible_connection=ssh ansible_host=127.0.0.1 ansible_port=1\n"
    (desk.folder / "play/input/hosts").write_text(hosts)
    done = subprocess.run(
        command, cwd=desk.folder / "play/input", env=settings, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode != 0
    assert re.search(r"lost +- +no answer", done.stdout), done.stdout
    assert "lost: no answer" in done.stdout
