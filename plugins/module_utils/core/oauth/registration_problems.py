# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""What can be said of a registration without touching anything: every problem at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from ..errors import Problem
from ..service import GRANTS, NOT_ONE_LINE, is_loopback, is_one_line, name_problems, scope_problems, url_problems
from .providers import DAY, PROVIDERS

if TYPE_CHECKING:
    from .registration import Registration

Problems = Iterator[Problem]

_REGISTERED = "from the application's registration"
_ENDPOINT = "from the server's documentation, or give issuer, where that describes itself (RFC 8414)"


class Need(NamedTuple):
    """What a grant cannot do without: the option, or one of several."""

    options: tuple[str, ...]
    hint: str


NEEDS: dict[str, tuple[Need, ...]] = {
    "authorization_code": (Need(("client_id",), _REGISTERED), Need(("authorization_url", "issuer"), _ENDPOINT)),
    "client_credentials": (
        Need(("client_id",), _REGISTERED),
        Need(("client_secret", "jwt_key_file"), "the application's secret, or its private key"),
    ),
    "device_code": (Need(("client_id",), _REGISTERED), Need(("device_authorization_url", "issuer"), _ENDPOINT)),
    "jwt_bearer": (
        Need(("jwt_key_file",), "the private key, or the JSON file that Google made for the service account"),
        Need(("jwt_subject", "username"), "the mailbox that mail is sent as"),
    ),
}
# option -> the least and the most seconds; 0 stands for the default where the least is 0
LIMITS = {
    "refresh_token_lifetime": (0, 3650 * DAY),
    "min_validity": (0, DAY),
    "keepalive": (0, 3650 * DAY),
    "warn_before": (0, 3650 * DAY),
}
_TEXTS = ("client_id", "username", "authorized_user", "jwt_subject", "jwt_key_file", "ca_file", "proxy", "redirect_uri")
_PROXIES = ("http", "https", "socks5", "socks5h")


def problems_of(registration: Registration) -> Problems:
    """Yield everything that is wrong with it, whoever declared it."""
    for check in (_texts, _provider, _needs, _client, _urls, _redirect, _files, _proxy, _times):
        yield from check(registration)


def _texts(registration: Registration) -> Problems:
    yield from name_problems(registration.name)
    for option in _TEXTS:
        if not is_one_line(getattr(registration, option)):
            yield Problem(option, NOT_ONE_LINE, "remove it")


def _provider(registration: Registration) -> Problems:
    if registration.provider not in PROVIDERS:
        known = ", ".join(sorted(PROVIDERS))
        yield Problem("oauth_provider", f"'{registration.provider}' is not known", "one of " + known)
    elif registration.grant not in GRANTS:
        yield Problem("oauth_grant", f"'{registration.grant}' is not known", "one of " + ", ".join(GRANTS))
    else:
        yield from registration.provider_row.problems(registration.tenant, registration.grant, registration.scope)
    yield from scope_problems(registration.scope)


def _needs(registration: Registration) -> Problems:
    known = registration.effective()
    needs = (Need(("token_url", "issuer"), _ENDPOINT), *NEEDS.get(registration.grant, ()))
    if registration.provider in PROVIDERS and not registration.provider_row.offers(registration.grant):
        return
    for need in needs:
        if not any(getattr(known, option) for option in need.options):
            others = " (or {})".format(" or ".join(need.options[1:])) if need.options[1:] else ""
            yield Problem(need.options[0], f"is required with oauth_grant: {registration.grant}{others}", need.hint)


def _client(registration: Registration) -> Problems:
    secret = registration.client_secret
    if secret is None:
        return
    if not secret.reveal():
        yield Problem("client_secret", "is empty", "is the variable that it comes from defined?")
    elif not is_one_line(secret.reveal().replace("\t", "")):
        yield Problem("client_secret", NOT_ONE_LINE, "often a file's last newline: trim it")
    if registration.jwt_key_file and registration.grant != "jwt_bearer":
        yield Problem("jwt_key_file", "is given beside client_secret", "one of them says who the client is")


def _urls(registration: Registration) -> Problems:
    from .registration import URLS

    for option in URLS:
        if getattr(registration, option):
            yield from url_problems(option, getattr(registration, option))
    if registration.issuer:
        wrong = list(url_problems("issuer", registration.issuer))
        yield from wrong
        if not wrong and "?" in registration.issuer:
            yield Problem("issuer", "must not have a query", "drop what follows '?' (RFC 8414 2)")


def _redirect(registration: Registration) -> Problems:
    uri = registration.redirect_uri
    if not uri or not is_one_line(uri):
        return
    try:
        parts = urlsplit(uri)
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        yield Problem("redirect_uri", "is not an absolute URI", "for example http://127.0.0.1:8400/")
        return
    if not parts.scheme or not (host or parts.path) or " " in uri:
        yield Problem("redirect_uri", "is not an absolute URI", "for example http://127.0.0.1:8400/")
    elif "#" in uri:
        yield Problem("redirect_uri", "must not have a fragment", "drop what follows '#' (RFC 6749 3.1.2)")
    elif parts.scheme == "http" and not is_loopback(host):
        yield Problem("redirect_uri", "must be on a loopback address or begin with https://", "RFC 8252 8.3")


def _files(registration: Registration) -> Problems:
    for option in ("ca_file", "jwt_key_file"):
        path = getattr(registration, option)
        if path and not path.startswith("/") and is_one_line(path):
            yield Problem(option, f"'{path}' is not an absolute path", "a path on the host")


def _proxy(registration: Registration) -> Problems:
    proxy = registration.proxy
    if not proxy or not is_one_line(proxy):
        return
    try:
        parts = urlsplit(proxy)
        fine = parts.scheme in _PROXIES and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fine = False
    if not fine:  # not repeated: it may hold a password
        yield Problem("proxy", "is not a proxy's URL", "http://HOST:PORT or socks5h://HOST:PORT")


def _times(registration: Registration) -> Problems:
    wrong = False
    for option, (least, most) in LIMITS.items():
        value = getattr(registration, option)
        if isinstance(value, bool) or not least <= value <= most:
            wrong = True
            yield Problem(option, f"{value} is out of range", f"{least} to {most} seconds")
    if wrong:
        return
    if registration.keepalive >= registration.lifetime:
        problem = "is not shorter than the life of the refresh token"
        yield Problem("keepalive", problem, "half of refresh_token_lifetime is the default")
    if registration.warn_before >= registration.lifetime:
        yield Problem("warn_before", "is not shorter than the life of the refresh token", "14 days is the default")
