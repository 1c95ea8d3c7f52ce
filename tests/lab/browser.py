# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A person with a real browser: headless Chromium (Debian's), driven by playwright."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .space import Space

PROGRAM = "/usr/bin/chromium"
TIMEOUT = 30_000  # milliseconds, as playwright counts
STEPS = 10
# It talks to nobody but the pages that it is sent to.
_OPTIONS = (
    *("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync"),
    *("--disable-component-update", "--disable-dev-shm-usage", "--disable-domain-reliability", "--no-pings"),
)
_NOBODY_ELSE = ("MAP * ~NOTFOUND", *(f"EXCLUDE {host}" for host in ("localhost", "127.*", "10.77.*", "[*")))


class Visit(NamedTuple):
    """A request of the browser. navigation: the page itself, not a part of it. status: 0 when none was got."""

    method: str
    url: str
    referer: str
    navigation: bool
    status: int


class Page(NamedTuple):
    """Where the browser ended. address: of the page, or the one that could not be reached.

    text: as a person reads it. screenshot: a PNG of all of it.
    """

    address: str
    title: str
    text: str
    html: str
    screenshot: Path


def why_unavailable() -> str:
    """Why there is no browser here, in one sentence; empty when there is one."""
    if not os.access(PROGRAM, os.X_OK):
        return "the browser needs Debian's package chromium"
    if importlib.util.find_spec("playwright") is None:
        return "the browser needs the Python package playwright (tests/requirements.txt)"
    return ""


class Browser:
    """A fresh browser, without a past. visits: every request that it made, oldest first.

    folder: where screenshots go. in_net_of: the tree or space whose network it is in; loopback is that one's too.
    names: host -> address, for names that this machine does not resolve (those of the space's network need none).
    Certificates are not judged: that is for the programs under test.
    """

    def __init__(self, folder: Path, in_net_of: Space | None = None, names: Mapping[str, str] | None = None) -> None:
        self.folder = Path(folder)
        self.visits: list[Visit] = []
        self._space = in_net_of
        self._names = dict(getattr(in_net_of, "names", {})) | dict(names or {})
        self._scratch = Path(tempfile.mkdtemp(prefix="browser-"))
        self._count = 0
        self._playwright: Any = None
        self._browser: Any = None
        self._page: Any = None

    def __enter__(self) -> Browser:
        from playwright.sync_api import sync_playwright

        try:
            self._playwright = sync_playwright().start()
            self._browser = self._playwright.chromium.launch(
                executable_path=self._program(), args=self._arguments(), chromium_sandbox=False, timeout=TIMEOUT
            )
            self._page = self._browser.new_context(ignore_https_errors=True).new_page()
        except BaseException:
            self.close()
            raise
        self._page.set_default_timeout(TIMEOUT)
        self._page.on("requestfinished", self._note)
        self._page.on("requestfailed", self._note)
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the browser and forget all of it."""
        if self._browser:
            self._browser.close()
        if self._playwright:
            self._playwright.stop()
        self._browser = self._playwright = None
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _program(self) -> str:
        if self._space is None:
            return PROGRAM
        program = self._scratch / "chromium"
        command = shlex.join(self._space.net_command([PROGRAM]))
        program.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        program.chmod(0o755)
        return str(program)

    def _arguments(self) -> list[str]:
        known = [f"MAP {name} {address}" for name, address in self._names.items() if ":" not in address]
        return [*_OPTIONS, f"--host-resolver-rules={','.join([*known, *_NOBODY_ELSE])}"]

    def _note(self, request: Any) -> None:
        # Nothing may be asked of the browser in here: its answer would come over the same line.
        failed = request.failure is not None
        status = 0 if failed or not request.existing_response else request.existing_response.status
        referer = request.headers.get("referer", "")
        self.visits.append(Visit(request.method, request.url, referer, request.is_navigation_request(), status))

    # -- what a person does

    def open(self, url: str) -> Page:
        """Go to an address; return what is there in the end."""
        with self._led_elsewhere():
            self._page.goto(url)
        return self.look()

    @contextlib.contextmanager
    def _led_elsewhere(self) -> Iterator[None]:
        """Where nobody answers is an end like any other: the browser then shows a page of its own."""
        from playwright.sync_api import Error

        try:
            yield
        except Error as problem:
            if "net::ERR_" not in str(problem):
                raise
            self._page.wait_for_url("chrome-error://**")

    def look(self) -> Page:
        """The page as it is now."""
        self._page.wait_for_load_state()
        self._count += 1
        self.folder.mkdir(parents=True, exist_ok=True)
        shot = self.folder / f"page-{self._count}.png"
        self._page.screenshot(path=shot, full_page=True)
        text = self._page.inner_text("body")
        return Page(self._address(), self._page.title(), text, self._page.content(), shot)

    def authorize(
        self, url: str, user: str, password: str, allow: bool = True, scopes: list[str] | None = None
    ) -> Page:
        """Log in at lab.oauth_server and decide; return the page where that led, mostly the client's landing page.

        scopes: those that are left ticked, all unless told.
        """
        self.open(url)
        return self._decide(user, password, allow, scopes)

    def connect_device(self, url: str, user_code: str, user: str, password: str, allow: bool = True) -> Page:
        """Type a device's code at its address (or open the complete one), log in and decide."""
        self.open(url)
        if "user_code=" in url:
            self._page.wait_for_selector("button[form='op.deviceConfirmForm']")  # that page sends itself on
        if self._shows("input[type=text][name=user_code]"):
            self._page.fill("input[name=user_code]", user_code)
            self._press("button[form='op.deviceInputForm']")
        if self._shows("button[form='op.deviceConfirmForm']"):
            self._press("button[form='op.deviceConfirmForm']:not([name=abort])")
        return self._decide(user, password, allow, None)

    def _decide(self, user: str, password: str, allow: bool, scopes: list[str] | None) -> Page:
        for _step in range(STEPS):
            if self._shows("input[name=password]") and not self._shows("[role=alert]"):
                self._page.fill("input[name=username]", user)
                self._page.fill("input[name=password]", password)
                self._press("button[value=sign-in]")
            elif self._shows("button[value=allow]"):
                self._tick(scopes)
                self._press("button[value=allow]" if allow else "button[value=deny]")
            else:
                return self.look()
        raise RuntimeError(f"the server asks without end: {self.look().text}")

    def _tick(self, scopes: list[str] | None) -> None:
        for box in self._page.query_selector_all("input[name=scope]"):
            box.set_checked(scopes is None or box.get_attribute("value") in scopes)

    def _shows(self, selector: str) -> bool:
        return self._page.query_selector(selector) is not None

    def _press(self, selector: str) -> None:
        """Press a button that leads to another page, which need not be reachable."""
        with self._led_elsewhere(), self._page.expect_navigation():
            self._page.click(selector)

    def _address(self) -> str:
        if not self._page.url.startswith("chrome-error:"):
            return str(self._page.url)
        return next(visit.url for visit in reversed(self.visits) if visit.navigation)
