# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A person with a real browser: logs in, agrees, and ends at the page that the loopback listener shows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from lab import browser, oauth_server
from lab.browser import Browser, Page
from lab.oauth_server import GOOGLE_SCOPE, MICROSOFT_SCOPE, OAuthServer, fingerprint

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth import authorization
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.client import Refused, TokenClient
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.registration import Registration
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.status import view
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.store import Store
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.posix_host import PosixHost

WHY = browser.why_unavailable() or oauth_server.why_unavailable()
pytestmark = pytest.mark.skipif(bool(WHY), reason=WHY)

USER, OTHER = "fleet@example.test", "other@example.test"


@pytest.fixture(scope="module")
def server() -> Iterator[OAuthServer]:
    with OAuthServer() as running:
        yield running


class Task:
    """A task that waits for the browser, in a thread as if it ran on the host."""

    def __init__(self, folder: Path, server: OAuthServer, **declared: Any) -> None:
        known = Registration(
            client_id=server.public.client_id,
            authorization_url=server.authorization_url,
            token_url=server.token_url,
            device_authorization_url=server.device_authorization_url,
            scope=(MICROSOFT_SCOPE, "offline_access", "openid", "email"),
            username=USER,
        )
        self.registration = known._replace(**declared)
        self.store = Store(PosixHost(), str(folder / "store"))
        with self.store.locked("default"):
            self.store.write_registration("default", self.registration)
        self.ended: list[Any] = []
        self.thread: threading.Thread | None = None

    def client(self, registration: Registration) -> TokenClient:
        return TokenClient(registration, PosixHost())

    def begin(self, listen: str = "127.0.0.1") -> dict[str, Any]:
        uri = authorization.redirect_for(self.registration, listen)
        pending = authorization.begin(self.store, "default", self.client, redirect_uri=uri).state.pending
        assert pending
        return authorization.shown(pending, self.registration)

    def listening(self) -> str:
        """Begin, and start to wait; the address to open."""
        url = str(self.begin()["url"])
        self.start(lambda: authorization.listen(self.store, "default", self.client, 60))
        return url

    def start(self, wait: Callable[[], Any]) -> None:
        def run() -> None:
            try:
                self.ended.append(wait())
            except Exception as error:  # the test looks at it
                self.ended.append(error)

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def end(self) -> Any:
        """What the waiting ended with."""
        assert self.thread
        self.thread.join(20)
        assert not self.thread.is_alive()
        return self.ended[0]

    @property
    def status(self) -> str:
        return str(view(self.store.read("default"), time.time())["status"])


@pytest.fixture
def task(tmp_path: Path, server: OAuthServer) -> Task:
    server.forget()
    return Task(tmp_path, server)


@pytest.fixture
def person(tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path / "pages") as person:
        yield person


def is_clean(page: Page, person: Browser) -> None:
    """No code is left in the bar, in the page or in what was told to others."""
    codes = [code for visit in person.visits for code in parse_qs(urlsplit(visit.url).query).get("code", [])]
    assert urlsplit(page.address).path == "/done"
    assert urlsplit(page.address).query == ""
    for code in codes:
        assert code not in page.html
        assert not [visit for visit in person.visits if code in visit.referer]
    ours = [visit for visit in person.visits if "/done" in visit.url]
    assert [visit.status for visit in ours] == [200], "one page, and nothing that it loads"
    assert ours[0].referer == ""


def test_authorize(task: Task, person: Browser, server: OAuthServer) -> None:
    page = person.authorize(task.listening(), USER, server.users[USER])
    assert task.end().refreshed
    assert page.title.startswith("Mail can be sent now")
    assert USER in page.text
    assert "What to do next" in page.text
    assert task.status == "authorized"
    is_clean(page, person)
    code = next(
        parse_qs(urlsplit(visit.url).query)["code"][0]
        for visit in person.visits
        if "code=" in urlsplit(visit.url).query
    )
    assert server.exchanges("token")[-1].fields["code"] == fingerprint(code)
    assert not server.look(code) or server.look(code)["consumed"]  # type: ignore[index]


def test_a_person_who_declines(task: Task, person: Browser, server: OAuthServer) -> None:
    page = person.authorize(task.listening(), USER, server.users[USER], allow=False)
    error = task.end()
    assert isinstance(error, Refused)
    assert error.cause.name == "access_denied"
    assert "declined" in page.title
    assert "What to do next" in page.text
    assert task.status == "unauthorized"
    is_clean(page, person)


def test_another_person(task: Task, person: Browser, server: OAuthServer) -> None:
    page = person.authorize(task.listening(), OTHER, server.users[OTHER])
    error = task.end()
    assert isinstance(error, Refused)
    assert error.cause.name == "other_person"
    assert page.title.startswith("Another account signed in")
    assert f"{OTHER} instead of {USER}".capitalize() in page.text
    assert "private window" in page.text
    assert task.store.read("default").grant is None


def test_a_box_that_was_not_ticked(tmp_path: Path, person: Browser, server: OAuthServer) -> None:
    task = Task(tmp_path, server, scope=(MICROSOFT_SCOPE, GOOGLE_SCOPE, "offline_access"))
    page = person.authorize(task.listening(), USER, server.users[USER], scopes=[MICROSOFT_SCOPE, "offline_access"])
    assert task.end().cause.name == "scope_missing"
    assert GOOGLE_SCOPE in page.text
    assert "every box" in page.text


def test_the_answer_to_another_authorization(tmp_path: Path, task: Task, person: Browser, server: OAuthServer) -> None:
    """An old tab: the page says so, and the task goes on waiting for the right one."""
    url = task.listening()
    port = urlsplit(parse_qs(urlsplit(url).query)["redirect_uri"][0]).port
    other = Task(tmp_path / "other", server)
    page = person.authorize(other.begin(f"127.0.0.1:{port}")["url"], USER, server.users[USER])
    assert page.title.startswith("This is not the authorization")
    assert "still waiting" in page.text
    is_clean(page, person)
    assert task.status == "pending"
    page = person.open(url)
    assert page.title.startswith("Mail can be sent now") or "allow" in page.html.lower()
    if not page.title.startswith("Mail"):
        page = person.authorize(url, USER, server.users[USER])
    assert task.end().refreshed


def test_a_page_that_nobody_serves_is_pasted(task: Task, person: Browser, server: OAuthServer) -> None:
    """The browser is on another machine than the host: its address bar has all that is needed."""
    page = person.authorize(task.begin()["url"], USER, server.users[USER])
    assert "code=" in page.address
    assert authorization.finish(task.store, "default", page.address, task.client).refreshed
    assert task.status == "authorized"


def test_a_device(tmp_path: Path, person: Browser, server: OAuthServer) -> None:
    task = Task(tmp_path, server, grant="device_code")
    begun = task.begin("")
    task.start(lambda: authorization.wait(task.store, "default", task.client, 60))
    page = person.connect_device(begun["url"], begun["user_code"], USER, server.users[USER])
    assert page.text
    assert task.end().refreshed
    assert task.status == "authorized"
