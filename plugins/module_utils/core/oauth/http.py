# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""HTTP as the client of an authorization server needs it: one exchange, its failures by kind. By ``requests``."""

from __future__ import annotations

import io
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlencode, urlsplit

LIMIT = 4 << 20  # bytes of an answer
CONNECT_TIMEOUT = 10  # seconds; the whole exchange has the time that the caller gives

# X509_V_ERR_* of openssl/x509_vfy.h
_CERTIFICATES = {
    2: "certificate_unknown_ca",
    9: "certificate_not_yet",
    10: "certificate_expired",
    18: "certificate_unknown_ca",
    19: "certificate_unknown_ca",
    20: "certificate_unknown_ca",
    21: "certificate_unknown_ca",
    62: "certificate_name",
    64: "certificate_name",
}
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
Result = TypeVar("Result")


class Call(NamedTuple):
    """What is asked. ``form`` None: a GET."""

    url: str
    form: Mapping[str, str] | None = None
    headers: Mapping[str, str] = {}


class Answer(NamedTuple):
    """What came back; the names of headers are in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NoAnswer(Exception):
    """There was none. ``kind`` names the cause, ``sent``: the request may have arrived and been carried out."""

    def __init__(self, kind: str, words: str, sent: bool) -> None:
        super().__init__(words)
        self.kind = kind
        self.words = words
        self.sent = sent


class Requests:
    """Exchanges by the library of that name, which is imported when the first one is made.

    ``proxy`` "": as the environment says (https_proxy, no_proxy). Redirects are never followed, nothing is taken from
    netrc(5), and nothing is asked twice.
    """

    def __init__(self, ca_file: str = "", validate_certs: bool = True, proxy: str = "") -> None:
        self._verify: str | bool = (ca_file or True) if validate_certs else False
        self._proxy = proxy
        if not validate_certs:
            warnings.filterwarnings("ignore", "Unverified HTTPS request")  # urllib3's, at each one; it was asked for

    def __call__(self, call: Call, seconds: float) -> Answer:
        """Raises NoAnswer; within ``seconds``, whatever hangs: the look-up of the name, or a server that drips."""
        form = None if call.form is None else _Form(call.form, time.monotonic() + seconds)
        return within(seconds, lambda: self._exchange(call, form, seconds), lambda: form is None or form.begun)

    def _exchange(self, call: Call, form: _Form | None, seconds: float) -> Answer:
        requests = _library()
        if isinstance(self._verify, str):
            _check_ca_file(self._verify)
        with requests.Session() as session:
            session.trust_env = False
            proxies = {"http": self._proxy, "https": self._proxy} if self._proxy else None
            try:
                with session.request(
                    "GET" if form is None else "POST",
                    call.url,
                    data=form,
                    headers={**_HEADERS, **({} if form is None else _FORM), **call.headers},
                    timeout=(min(CONNECT_TIMEOUT, seconds), seconds),
                    allow_redirects=False,
                    verify=self._verify,
                    proxies=proxies or requests.utils.get_environ_proxies(call.url),
                    stream=True,
                ) as response:
                    headers = {name.lower(): value for name, value in response.headers.items()}
                    return Answer(response.status_code, headers, _body(response))
            except (requests.RequestException, OSError, ValueError) as error:
                raise _no_answer(error, requests) from None


class _Form(io.BytesIO):
    """A form's bytes, which are not handed over after ``end`` (monotonic clock).

    An exchange that was given up may still be looking up a name, or trying one address after the other. What it sent
    then would spend a refresh token whose successor nobody waits for.
    """

    def __init__(self, form: Mapping[str, str], end: float) -> None:
        super().__init__(urlencode(form).encode("ascii"))
        self.end = end
        self.begun = False

    def read(self, size: int | None = -1, /) -> bytes:
        self.begun = True  # first: who looks after the end knows of everything that was handed over before it
        if time.monotonic() >= self.end:
            raise OSError("too late")
        return super().read(size)


def within(seconds: float, work: Callable[[], Result], sent: Callable[[], bool]) -> Result:
    """What ``work`` gives or raises; NoAnswer (timeout, ``sent`` as that says) when it takes longer.

    What hangs is left behind.
    """
    done: list[Result] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:  # handed over to the thread that waits
            raised.append(error)

    worker = threading.Thread(target=run, daemon=True)
    worker.start()
    worker.join(seconds)
    if raised:
        raise raised[0]
    if done:
        return done[0]
    raise NoAnswer("timeout", f"not within {seconds:g} s", sent())


def _check_ca_file(path: str) -> None:
    """What the library says of one that is none differs from version to version."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        raise NoAnswer("ca_file", "it holds no certificate", sent=False) from None
    except OSError as error:
        raise NoAnswer("ca_file", error.strerror or "it cannot be read", sent=False) from None


def _library() -> Any:
    try:
        import requests
    except ImportError:
        raise NoAnswer("library_missing", "requests: the package python3-requests", sent=False) from None
    return requests


def _body(response: Any) -> bytes:
    body = b""
    for chunk in response.iter_content(1 << 14):
        body += chunk
        if len(body) > LIMIT:
            raise NoAnswer("too_large", f"more than {LIMIT} bytes", sent=True)
    return body


def _no_answer(error: BaseException, requests: Any) -> NoAnswer:
    """The failure by its kind. The library's own text is not told: it repeats the whole URL."""
    causes = list(_chain(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            kind = _CERTIFICATES.get(cause.verify_code, "certificate")
            return NoAnswer(kind, cause.verify_message, sent=False)
    names = {type(cause).__name__ for cause in causes}
    if "CertificateError" in names:  # urllib3 1 compares names itself
        return NoAnswer("certificate_name", "the name does not match", sent=False)
    if "InvalidSchema" in names:
        return NoAnswer("library_missing", "PySocks: the package python3-socks", sent=False)
    if "ProxyError" in names or "InvalidProxyURL" in names or "ProxySchemeUnknown" in names:
        return NoAnswer("proxy", _words(causes), sent=False)
    if isinstance(error, requests.exceptions.SSLError) or any(isinstance(cause, ssl.SSLError) for cause in causes):
        return NoAnswer("tls", _words(causes), sent=False)
    return _by_connection(error, causes, names, requests)


def _by_connection(error: BaseException, causes: list[BaseException], names: set[str], requests: Any) -> NoAnswer:
    words = _words(causes)
    if any(isinstance(cause, socket.gaierror) for cause in causes) or "NameResolutionError" in names:
        return NoAnswer("name_unknown", words, sent=False)
    if isinstance(error, ValueError) and not isinstance(error, OSError):
        return NoAnswer("name_unknown", "that is no host name", sent=False)
    if isinstance(error, requests.exceptions.InvalidURL):
        return NoAnswer("name_unknown", "that is no host name", sent=False)
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return NoAnswer("timeout", "no connection", sent=False)
    if "NewConnectionError" in names:
        refused = any(isinstance(cause, ConnectionRefusedError) for cause in causes)
        return NoAnswer("connection_refused" if refused else "no_route", words, sent=False)
    if isinstance(error, requests.exceptions.ReadTimeout):
        return NoAnswer("timeout", "no answer", sent=True)
    return NoAnswer("closed", words, sent=True)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what lies below it: requests and urllib3 put it into arguments, reasons and contexts."""
    seen: list[BaseException] = []
    waiting: list[Any] = [error]
    while waiting and len(seen) < 20:
        one = waiting.pop(0)
        if isinstance(one, BaseException) and not any(one is known for known in seen):
            seen.append(one)
            waiting += [*one.args, getattr(one, "reason", None), one.__cause__, one.__context__]
    return iter(seen)


def _words(causes: list[BaseException]) -> str:
    """The operating system's or OpenSSL's own words, which hold no URL."""
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            return str(cause.reason or "TLS error").replace("_", " ").lower()
        if isinstance(cause, OSError) and cause.strerror and isinstance(cause.strerror, str):
            return cause.strerror
        if isinstance(cause, OSError) and str(cause).startswith("Tunnel connection failed"):  # http.client's
            return str(cause)
    return type(causes[-1]).__name__


def shown_url(url: str) -> str:
    """Scheme, host and path: what an error may show."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "a URL that is none"
    return f"{parts.scheme}://{host}{port}{parts.path}"
