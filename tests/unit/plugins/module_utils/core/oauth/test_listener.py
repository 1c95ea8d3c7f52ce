# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPResponse

import pytest

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.errors import HostError
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.causes import CAUSES
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.landing import Ending
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.listener import Listener


def free_port(family: socket.AddressFamily = socket.AF_INET) -> int:
    with socket.socket(family) as probe:
        probe.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        return int(probe.getsockname()[1])


class Flow:
    """A listener at work, and what it was brought."""

    def __init__(self, host: str = "127.0.0.1", path: str = "/back", seconds: float = 20) -> None:
        self.port = free_port()
        self.taken: list[str] = []
        self.ending: Ending | None = None
        self.redirect = f"http://{host}:{self.port}{path}"
        self.listener = Listener(self.redirect, "fleet@example.test")
        self.seconds = seconds
        self.thread = threading.Thread(target=self._serve)

    def answer(self, address: str) -> Ending | None:
        self.taken.append(address)
        return self.ending

    def _serve(self) -> None:
        self.listener.serve(self.answer, self.seconds, lambda: bool(self.taken) and self.ending is None)

    @contextlib.contextmanager
    def running(self) -> Iterator[Flow]:
        with self.listener:
            self.thread.start()
            yield self
            self.thread.join(10)
            assert not self.thread.is_alive()

    def get(
        self, target: str, method: str = "GET", host: str = "", address: str = "127.0.0.1"
    ) -> tuple[HTTPResponse, str]:
        connection = HTTPConnection(address, self.port, timeout=5)
        connection.request(method, target, headers={"Host": host or f"127.0.0.1:{self.port}"})
        response = connection.getresponse()
        return response, response.read().decode()


def test_the_browser_comes_back_and_its_address_is_cleaned() -> None:
    with Flow().running() as flow:
        response, page = flow.get("/back?code=c0de&state=st8")
        assert (response.status, page) == (303, "")
        assert response.headers["Location"] == f"http://127.0.0.1:{flow.port}/done"
        shown, page = flow.get("/done")
        assert shown.status == 200
        assert "Mail can be sent now" in page
        assert "fleet@example.test" in page
        for answer in (response, shown):
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert answer.headers["Cache-Control"] == "no-store"
            assert "Python" not in str(answer.headers)
        assert "c0de" not in page + str(shown.headers)
    assert flow.taken == [flow.redirect + "?code=c0de&state=st8"]


def test_after_an_error_it_goes_on_listening() -> None:
    with Flow().running() as flow:
        flow.ending = Ending(CAUSES["other_authorization"])
        assert flow.get("/back?code=wrong&state=x")[0].status == 303
        assert "still waiting" in flow.get("/done")[1]
        flow.ending = None
        flow.get("/back?code=right&state=y")
        assert "Mail can be sent now" in flow.get("/done")[1]
    assert len(flow.taken) == 2


def test_it_ends_when_nobody_comes() -> None:
    began = time.monotonic()
    with Flow(seconds=0.3).running() as flow:
        pass
    assert time.monotonic() - began < 15
    assert flow.taken == []


@pytest.mark.parametrize(
    ("target", "status"),
    [("/", 404), ("/back", 404), ("/favicon.ico", 404), ("/other?code=x&state=y", 404), ("/done", 200)],
)
def test_other_addresses(target: str, status: int) -> None:
    with Flow(seconds=0.05).running() as flow:
        response, page = flow.get(target)
        assert response.status == status
        assert "There is nothing here" in page
    assert flow.taken == []


@pytest.mark.parametrize("method", ["POST", "PUT", "OPTIONS", "HEAD"])
def test_nothing_but_a_browsers_get(method: str) -> None:
    with Flow(seconds=0.05).running() as flow:
        assert flow.get("/back?code=x&state=y", method)[0].status in (405, 501)
    assert flow.taken == []


@pytest.mark.parametrize("host", ["evil.test", "evil.test:80", "127.0.0.1.evil.test", "[", ""])
def test_a_name_that_leads_here_by_somebodys_will(host: str) -> None:
    with Flow(seconds=0.05).running() as flow:
        connection = HTTPConnection("127.0.0.1", flow.port, timeout=5)
        connection.putrequest("GET", "/back?code=x&state=y", skip_host=True)
        if host:
            connection.putheader("Host", host)
        connection.endheaders()
        assert connection.getresponse().status == 400
    assert flow.taken == []


def test_a_connection_that_says_nothing_holds_nobody_up() -> None:
    """Browsers open some in advance."""
    with Flow().running() as flow, socket.create_connection(("127.0.0.1", flow.port)):
        flow.get("/back?code=x&state=y")
        assert flow.get("/done")[0].status == 200


def test_many_connections_hold_nobody_up() -> None:
    with Flow().running() as flow, contextlib.ExitStack() as held:
        slowest = 0.0
        for _each in range(60):
            began = time.monotonic()
            held.enter_context(socket.create_connection(("127.0.0.1", flow.port)))
            slowest = max(slowest, time.monotonic() - began)
        flow.get("/back?code=x&state=y")
        assert flow.get("/done")[0].status == 200
    assert slowest < 0.9, "a connection that finds the queue full is tried again after a second"


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    with Flow().running() as flow:
        flow.get("/back?code=c0de&state=y")
        with socket.create_connection(("127.0.0.1", flow.port)) as rude:
            rude.sendall(b"\x16\x03\x01 nonsense c0de\r\n\r\n")
            rude.recv(1000)
        flow.get("/done")
    assert capfd.readouterr() == ("", "")


def test_localhost_is_both_its_addresses_and_no_other() -> None:
    with Flow("localhost", "").running() as flow:
        assert flow.get("/done", address="::1")[0].status == 200
        bound = {server.socket.getsockname()[0] for server in flow.listener._servers}
        assert bound == {"127.0.0.1", "::1"}
        response, _page = flow.get("/?code=x&state=y", host=f"localhost:{flow.port}")
        assert response.headers["Location"] == f"http://localhost:{flow.port}/done"
        flow.get("/done")
    assert flow.taken == [f"http://localhost:{flow.port}/?code=x&state=y"]


def test_ipv6() -> None:
    with Flow("[::1]").running() as flow:
        flow.get("/back?code=x&state=y", address="::1", host=f"[::1]:{flow.port}")
        flow.get("/done", address="::1")
    assert flow.taken == [f"http://[::1]:{flow.port}/back?code=x&state=y"]


@pytest.mark.parametrize(
    "redirect",
    [
        "https://127.0.0.1:8400/",
        "http://mail.example.test:8400/",
        "http://127.0.0.1/",
        "http://0.0.0.0:8400/",
        "urn:ietf:wg:oauth:2.0:oob",
    ],
)
def test_where_it_does_not_listen(redirect: str) -> None:
    with pytest.raises(HostError, match="no loopback address"):
        Listener(redirect)


def test_a_port_that_is_taken() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(HostError, match="cannot be listened at"), Listener(f"http://127.0.0.1:{port}/"):
            pass


def test_the_port_is_free_afterwards() -> None:
    with Flow(seconds=0.1).running() as flow:
        pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", flow.port))


def test_the_page_waits_for_the_exchange() -> None:
    def slow(real: Callable[[str], Ending | None]) -> Callable[[str], Ending | None]:
        def answer(address: str) -> Ending | None:
            time.sleep(0.5)
            return real(address)

        return answer

    flow = Flow()
    flow.answer = slow(flow.answer)  # type: ignore[method-assign]
    with flow.running():
        flow.get("/back?code=x&state=y")
        assert "Mail can be sent now" in flow.get("/done")[1]


def test_an_answer_that_came_at_the_last_moment_is_seen_through() -> None:
    """The code in it is spent already: who waits must not end while the server is being asked."""
    flow = Flow(seconds=0.3)
    done: list[str] = []

    def slow(address: str) -> None:
        time.sleep(1.5)
        done.append(address)

    flow.answer = slow  # type: ignore[assignment,method-assign]
    pages: list[str] = []

    def browse() -> None:
        flow.get("/back?code=x&state=y")
        pages.append(flow.get("/done")[1])

    browser = threading.Thread(target=browse)
    with flow.listener:
        flow.thread.start()
        browser.start()
        flow.thread.join(10)
        assert not flow.thread.is_alive()
        assert done
        browser.join(10)
    assert "Mail can be sent now" in pages[0]


def test_it_ends_when_somebody_else_had_the_answer() -> None:
    """As where it was pasted into another task."""
    flow = Flow(seconds=30)
    with flow.listener:
        flow.thread.start()
        time.sleep(0.2)
        flow.taken.append("pasted elsewhere")
        began = time.monotonic()
        flow.thread.join(10)
        assert time.monotonic() - began < 4
