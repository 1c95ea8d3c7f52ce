# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth import landing
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.causes import CAUSES

PAGES = [
    landing.finished("fleet@example.test"),
    landing.lost(),
    *(landing.failed(landing.Ending(cause, "x < y")) for cause in CAUSES.values()),
]


class Reader(HTMLParser):
    """Checks that what is opened is closed, and collects."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.tags: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "link", "path", "circle"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_whole_and_loads_nothing(page: str) -> None:
    read = Reader(page)
    assert read.open == []
    assert read.tags.count("h1") == 1
    assert ("lang", "en") in read.attributes
    assert not {"script", "img", "iframe", "form", "a"} & set(read.tags)
    links = [value for name, value in read.attributes if name in ("href", "src", "action")]
    assert links == ["data:,"]
    assert not re.search(r"url\(|@import|https?://", page.replace("http://localhost", ""))
    assert "prefers-color-scheme:dark" in page


def test_headers_that_keep_it_to_itself() -> None:
    assert landing.HEADERS["Referrer-Policy"] == "no-referrer"
    assert landing.HEADERS["Cache-Control"] == "no-store"
    assert "default-src 'none'" in landing.HEADERS["Content-Security-Policy"]


def test_a_name_is_shown_as_text() -> None:
    assert "<b>x</b>" not in landing.finished("<b>x</b>@example.test")
    assert "&lt;b&gt;x" in landing.finished("<b>x</b>@example.test")


@pytest.mark.parametrize("name", ["access_denied", "other_authorization", "consent_required", "other_person"])
def test_what_happened_and_what_to_do(name: str) -> None:
    page = landing.failed(landing.Ending(CAUSES[name], "<i>x</i>"))
    assert "&lt;i&gt;x" in page.lower()
    assert "What to do next" in page
    assert ("still waiting" in page) is (CAUSES[name].status == "pending")
