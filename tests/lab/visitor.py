# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A person at the authorization server's pages, without a browser: forms over plain HTTP."""

from __future__ import annotations

import html
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin, urlsplit, urlunsplit

import requests
from requests.adapters import HTTPAdapter

from .space import enter_network

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .space import Space

_Found = TypeVar("_Found")
STEPS = 20
TIMEOUT = 30
_FIELD = re.compile(r"<input\b[^>]*>", re.IGNORECASE)
_ATTRIBUTE = re.compile(r'([\w-]+)(?:="([^"]*)")?')


class Refused(Exception):
    """The server showed a page from which there is no way on; the text is the page's."""


class _Named(HTTPAdapter):
    """TLS for the server's own name, whatever address the connection goes to."""

    def __init__(self, name: str) -> None:
        self._name = name
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, server_hostname=self._name, assert_hostname=self._name, **options)


class Visitor:
    """Somebody with a user name and a password who visits pages of one server.

    origin: the server's, as its addresses begin. address: where it listens. space: in whose network that is.
    """

    def __init__(
        self,
        origin: str,
        address: str,
        user: str,
        password: str,
        ca_file: Path | None = None,
        space: Space | None = None,
    ) -> None:
        self._origin, self._space, self._user, self._password = origin, space, user, password
        parts = urlsplit(origin)
        host = f"[{address}]" if ":" in address else address
        self._place = f"{host}:{parts.port}" if parts.port else host
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["Host"] = parts.netloc
        self._session.verify = str(ca_file) if ca_file else True
        if parts.scheme == "https":
            self._session.mount(f"https://{self._place}", _Named(parts.hostname or ""))

    def authorize(self, url: str, allow: bool = True, scopes: list[str] | None = None) -> str:
        """Log in and decide; return the address of another server that the browser would be sent to.

        scopes: those that are left ticked, all unless told. Raises Refused when there is no such address.
        """
        return self._there(lambda: self._authorize(url, allow, scopes))

    def connect_device(self, url: str, allow: bool = True) -> str:
        """Open a device's address (verification_uri_complete), log in and decide; return the last page's text.

        Raises Refused when the code is not taken.
        """
        return self._there(lambda: self._connect_device(url, allow))

    def post(self, url: str, form: Mapping[str, Any]) -> dict[str, Any]:
        """POST a form, as a client would; return the answer's JSON."""
        return dict(self._there(lambda: self._session.post(self._reachable(url), data=form, timeout=TIMEOUT).json()))

    def _there(self, work: Callable[[], _Found]) -> _Found:
        if self._space is None:
            return work()
        with ThreadPoolExecutor(1) as one_thread:  # setns(2) changes the calling thread alone, and this one ends
            one_thread.submit(enter_network, self._space.pid).result()
            return one_thread.submit(work).result()

    def _authorize(self, url: str, allow: bool, scopes: list[str] | None) -> str:
        page = self._get(url)
        for _step in range(STEPS):
            if isinstance(page, str):
                return page
            page = self._decide(page, allow, scopes)
        raise Refused("the server asks without end")

    def _connect_device(self, url: str, allow: bool) -> str:
        page = self._get(url)
        for _step in range(STEPS):
            if isinstance(page, str):
                raise Refused(f"the server sends a device's user to {page}")
            fields = _fields(page.text)
            if "alert" in page.text:
                raise Refused(_text(page.text))
            if fields.get("user_code"):
                page = self._post(page.url, fields if allow or "confirm" not in fields else {**fields, "abort": "yes"})
            elif "password" in fields or 'name="decision"' in page.text:
                page = self._decide(page, allow, None)
            else:
                return _text(page.text)
        raise Refused("the server asks without end")

    def _decide(self, page: requests.Response, allow: bool, scopes: list[str] | None) -> requests.Response | str:
        fields = _fields(page.text)
        if "password" in fields:
            if "alert" in page.text:
                raise Refused(_text(page.text))
            return self._post(page.url, {"username": self._user, "password": self._password, "decision": "sign-in"})
        if 'name="decision"' not in page.text:
            raise Refused(_text(page.text))
        offered = [_attributes(tag)["value"] for tag in _FIELD.findall(page.text) if 'name="scope"' in tag]
        chosen = offered if scopes is None else scopes
        return self._post(page.url, {"scope": chosen, "decision": "allow" if allow else "deny"})

    def _get(self, url: str) -> requests.Response | str:
        return self._follow(self._session.get(self._reachable(url), allow_redirects=False, timeout=TIMEOUT))

    def _post(self, url: str, fields: Mapping[str, Any]) -> requests.Response | str:
        answer = self._session.post(self._reachable(url), data=fields, allow_redirects=False, timeout=TIMEOUT)
        return self._follow(answer)

    def _follow(self, answer: requests.Response) -> requests.Response | str:
        for _step in range(STEPS):
            if not answer.is_redirect:
                return answer
            target = urljoin(answer.url, answer.headers["Location"])
            if urlsplit(target).netloc not in (self._place, urlsplit(self._origin).netloc):
                return target
            answer = self._session.get(self._reachable(target), allow_redirects=False, timeout=TIMEOUT)
        raise Refused("the server redirects without end")

    def _reachable(self, url: str) -> str:
        return urlunsplit(urlsplit(url)._replace(netloc=self._place))


def _attributes(tag: str) -> dict[str, str]:
    return {name: html.unescape(value) for name, value in _ATTRIBUTE.findall(tag)}


def _fields(page: str) -> dict[str, str]:
    tags = [_attributes(tag) for tag in _FIELD.findall(page)]
    return {tag["name"]: tag.get("value", "") for tag in tags if "name" in tag}


def _text(page: str) -> str:
    body = re.sub(r"<(style|title)>.*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())
