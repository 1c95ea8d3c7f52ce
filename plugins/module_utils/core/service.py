# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The form: one SMTP service as a frozen value, and what can be said of it without touching anything."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from .errors import InvalidService, Problem
from .redaction import Secret

PORTS = {"none": 25, "starttls": 587, "tls": 465}  # RFC 5321 4.5.4.2, RFC 6409, RFC 8314 3.3
DEFAULT_TIMEOUT = 30
SECURITIES = tuple(PORTS)
AUTH_TYPES = ("none", "password", "oauth")
GRANTS = ("authorization_code", "device_code", "client_credentials", "jwt_bearer")
SELF_NAMED = ("jwt_bearer",)  # what is signed with the key names the client: the key's file may say who it is

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # and halves of characters, which no UTF-8 text has
_HALF = re.compile("[\ud800-\udfff]")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+\Z")  # RFC 6749 3.3
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+\Z")  # RFC 5322 3.2.3, dots checked apart

# auth_type -> what it needs, and where that comes from
_CREDENTIALS = {
    "password": (("username", "password"), "give both or neither"),
    "oauth": (("username",), "the mailbox that mail is sent as"),
}
_REGISTERED = "from the application's registration"
_ENDPOINT = "name the oauth_provider, or take it from the authorization server's documentation"

NOT_ONE_LINE = "contains a line break, NUL or other control character"

Problems = Iterator[Problem]


class OAuthClient(NamedTuple):
    """The OAuth client of a service: what a token's registration consists of."""

    authorization_url: str = ""
    token_url: str = ""
    client_id: str = ""
    client_secret: Secret | None = None
    scope: tuple[str, ...] = ()
    provider: str = "custom"
    tenant: str = ""
    grant: str = "authorization_code"

    @property
    def named(self) -> bool:
        """Is it said which client it is? See SELF_NAMED (RFC 7523 3, ``iss``)."""
        return bool(self.client_id) or self.grant in SELF_NAMED


class Service(NamedTuple):
    """One declared way of sending mail. Text that was not given is ``""``; the port is filled in from ``security``."""

    name: str = "default"
    enabled: bool = True
    host: str = ""
    port: int = 25
    security: str = "none"
    auth_type: str = "none"
    username: str = ""
    password: Secret | None = None
    oauth: OAuthClient = OAuthClient()
    ca_file: str = ""
    validate_certs: bool = True
    allow_cleartext_auth: bool = False
    from_address: str = ""
    senders: tuple[str, ...] = ()
    timeout: int = DEFAULT_TIMEOUT

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Service:
        """Build the service from a module's options.

        Raises InvalidService with every problem that can be seen offline.
        """
        service = cls.read(options)
        problems = list(service.problems())
        if problems:
            raise InvalidService(problems)
        return service

    @classmethod
    def read(cls, options: Mapping[str, Any]) -> Service:
        """Build it without judging it."""
        known = {name: _whole(options[name]) for name in cls._fields if options.get(name) is not None}
        known["security"] = known.get("security", "none")
        known["port"] = known.get("port", PORTS.get(known["security"], 25))
        known["host"] = _bare_host(known.get("host", ""))
        known["senders"] = tuple(_whole(sender).lower() for sender in known.get("senders", ()))
        known["password"] = _secret(options.get("password"))
        known["oauth"] = _oauth_client(options)
        return cls(**known)

    def problems(self) -> Problems:
        """Yield everything that is wrong with the definition by itself, whatever the backend is."""
        for check in (_name, _text, _relay, _credentials, _cleartext, _oauth, _addresses, _limits):
            yield from check(self)

    @property
    def loopback(self) -> bool:
        """Does the conversation stay on this host?"""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def is_address(text: str) -> bool:
    """Is it a mailbox address as an envelope takes it (RFC 5321 4.1.2, without quoted local parts)?"""
    local, at, domain = text.rpartition("@")
    dots_fine = ".." not in local and not local.startswith(".") and not local.endswith(".")
    return bool(at and len(local) <= 64 and _ATOMS.match(local) and dots_fine and is_domain(domain))


def is_one_line(text: str) -> bool:
    """Is it text that can stand in a line: no line break, no NUL, nothing that is not UTF-8?"""
    return not _CONTROL.search(text)


def is_domain(text: str) -> bool:
    """Is it a host or domain name in its ASCII form (RFC 1123 2.1, with the underscore that practice allows)?"""
    name = text[:-1] if text.endswith(".") else text
    return len(name) <= 253 and bool(name) and all(_LABEL.match(label) for label in name.split("."))


def _whole(value: Any) -> Any:
    """Half a character, which no encoding has, becomes a NUL: that is refused everywhere, and breaks nothing before."""
    return _HALF.sub("\0", value) if isinstance(value, str) else value


def _bare_host(host: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1]
    return host[:-1] if host.endswith(".") else host  # mail software takes the final dot for a part of the name


def _secret(value: Any) -> Secret | None:
    if value is None or isinstance(value, Secret):
        return value
    return Secret(_whole(str(value)))


def _oauth_client(options: Mapping[str, Any]) -> OAuthClient:
    return OAuthClient(
        authorization_url=_whole(options.get("authorization_url") or ""),
        token_url=_whole(options.get("token_url") or ""),
        client_id=_whole(options.get("client_id") or ""),
        client_secret=_secret(options.get("client_secret")),
        scope=tuple(_words(options.get("scope") or ())),
        provider=_whole(options.get("oauth_provider") or "custom"),
        tenant=_whole(options.get("oauth_tenant") or ""),
        grant=options.get("oauth_grant") or GRANTS[0],
    )


def _words(scope: Any) -> list[str]:
    """The scopes; "", which is none, for what is no text."""
    if isinstance(scope, str):
        return scope.split()
    return [word if isinstance(word, str) else "" for word in scope] if isinstance(scope, (list, tuple)) else [""]


def _name(service: Service) -> Problems:
    yield from name_problems(service.name)


def name_problems(name: str) -> Problems:
    """Yield why a service or a token cannot be called so."""
    if not _NAME.match(name):
        yield Problem(
            "name", "must be 1 to 63 letters, digits, '.', '_' or '-'", "it becomes part of file and account names"
        )


def _text(service: Service) -> Problems:
    """Control characters would start a new line in somebody's configuration file or SMTP command."""
    client = service.oauth
    texts = {option: getattr(service, option) for option in ("host", "username", "ca_file", "from_address")}
    texts.update(client_id=client.client_id, oauth_provider=client.provider, oauth_tenant=client.tenant)
    for option, text in texts.items():
        if not is_one_line(text):
            yield Problem(option, NOT_ONE_LINE, "remove it")
    secrets = {"password": service.password, "client_secret": client.client_secret}
    for option, secret in secrets.items():
        if secret is not None and not is_one_line(secret.reveal().replace("\t", "")):
            yield Problem(option, NOT_ONE_LINE, "often a file's last newline: trim it")


def _relay(service: Service) -> Problems:
    yield from _choice("security", service.security, SECURITIES)
    if isinstance(service.port, bool) or not 1 <= service.port <= 65535:
        yield Problem("port", f"{service.port} is not a TCP port", "1 to 65535")
    if not service.host:
        if service.enabled:
            yield Problem("host", "is required while enabled is true", "give the relay's DNS name or IP address")
    elif is_one_line(service.host):
        yield from _host(service.host)


def _choice(option: str, value: str, choices: tuple[str, ...]) -> Problems:
    if value not in choices:
        yield Problem(option, f"'{value}' is not known", "one of " + ", ".join(choices))


def _host(host: str) -> Problems:
    if "://" in host:
        yield Problem("host", "has a scheme in it", "give the name alone; TLS is chosen by the option security")
    elif any(c.isspace() for c in host):
        yield Problem("host", "has a space in it", "give one DNS name or IP address")
    elif not (_is_ip(host) or is_domain(host)):
        yield Problem("host", f"'{host}' is not a DNS name or an IP address", _host_hint(host))
    elif re.match(r"[0-9.]+\Z", host) and not _is_ip(host):
        yield Problem("host", f"'{host}' is not an IPv4 address", "four numbers from 0 to 255")


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return "%" not in host


def _host_hint(host: str) -> str:
    if re.search(r"\]?:\d+\Z", host):
        return "give the port by the option port"
    if not host.isascii():
        return "write an international name in its ASCII form (xn--...)"
    return "for example smtp.example.com or 192.0.2.25"


def _credentials(service: Service) -> Problems:
    yield from _choice("auth_type", service.auth_type, AUTH_TYPES)
    given = {"username": bool(service.username), "password": service.password is not None}
    if service.auth_type not in AUTH_TYPES:
        return
    if service.auth_type == "none":
        for option in (name for name, is_given in given.items() if is_given):
            yield Problem(option, "is given but auth_type is none", f"set auth_type, or leave {option} out")
        return
    needed, hint = _CREDENTIALS[service.auth_type]
    partly = any(given[option] for option in needed)
    for option in needed:
        if not given[option] and (service.enabled or partly):
            yield Problem(option, f"is required with auth_type: {service.auth_type}", hint)
    if service.password is not None and not service.password.reveal():
        yield Problem("password", "is empty", "is the variable that it comes from defined?")
    if service.auth_type == "oauth" and given["password"]:
        yield Problem("password", "is given but auth_type is oauth", "leave it out, or set auth_type: password")


def _cleartext(service: Service) -> Problems:
    exposed = service.auth_type != "none" and service.security == "none" and not service.loopback
    if exposed and service.host and not service.allow_cleartext_auth:
        yield Problem(
            "security",
            f"none would send the credentials in clear text to {service.host}",
            "use starttls or tls; allow_cleartext_auth: true if that network is yours alone",
        )


def _oauth(service: Service) -> Problems:
    client = service.oauth
    yield from _choice("oauth_grant", client.grant, GRANTS)
    for option, url in (("authorization_url", client.authorization_url), ("token_url", client.token_url)):
        if url:
            yield from url_problems(option, url)
    if client.client_secret is not None and not client.client_secret.reveal():
        yield Problem("client_secret", "is empty", "is the variable that it comes from defined?")
    yield from scope_problems(client.scope)
    if service.auth_type == "oauth" and service.enabled:
        yield from _oauth_complete(client)


def scope_problems(scope: tuple[str, ...]) -> Problems:
    """Yield what is wrong with a list of scopes."""
    if not all(_SCOPE.match(word) for word in scope):
        yield Problem("scope", "has something that is not a scope", "words of printable ASCII without quotes")
    repeated = sorted({word for word in scope if word and scope.count(word) > 1})
    if repeated:
        yield Problem("scope", "names {} twice".format(", ".join(repeated)), "name each scope once")


def url_problems(option: str, url: str) -> Problems:
    """Yield why an endpoint cannot be at ``url``."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        host = ""
    if not host or not is_one_line(url) or " " in url:
        yield Problem(option, "is not an absolute URL", "for example https://login.example.com/token")
    elif parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        yield Problem(option, "must begin with https://", "secrets travel over it (RFC 6749 3.1, 3.2)")
    elif parts.fragment:
        yield Problem(option, "must not have a fragment", "drop what follows '#' (RFC 6749 3.1, 3.2)")


def _oauth_complete(client: OAuthClient) -> Problems:
    needed = {} if client.named else {"client_id": (client.client_id, _REGISTERED)}
    if client.provider == "custom":
        needed["token_url"] = (client.token_url, _ENDPOINT)
        if client.grant == "authorization_code":
            needed["authorization_url"] = (client.authorization_url, _ENDPOINT)
    for option, (value, hint) in needed.items():
        if not value:
            yield Problem(option, "is required with auth_type: oauth", hint)


def _addresses(service: Service) -> Problems:
    if service.from_address and is_one_line(service.from_address) and not is_address(service.from_address):
        yield Problem("from_address", f"'{service.from_address}' is not a mail address", "name@example.com")
    for sender in service.senders:
        domain = sender[1:] if sender.startswith("@") else sender
        if not (is_address(sender) or is_domain(domain)):
            yield Problem("senders", f"'{sender}' is not a mail address or a domain", "a@example.com, example.com")
    if len(set(service.senders)) < len(service.senders):
        yield Problem("senders", "names a sender twice", "name each one once")


def _limits(service: Service) -> Problems:
    if isinstance(service.timeout, bool) or not 1 <= service.timeout <= 3600:
        yield Problem("timeout", f"{service.timeout} is out of range", "1 to 3600 seconds")
    if service.ca_file and not service.ca_file.startswith("/") and is_one_line(service.ca_file):
        yield Problem("ca_file", f"'{service.ca_file}' is not an absolute path", "a path on the host")


def public_view(form: Mapping[str, Any]) -> dict[str, Any]:
    """The form as it may be shown: a secret becomes ``(set)`` or ``(unset)``."""
    view: dict[str, Any] = {}
    for option, value in form.items():
        if option in ("password", "client_secret"):
            view[option] = "(unset)" if value is None else "(set)"
        else:
            view[option] = list(value) if isinstance(value, tuple) else value
    return view
