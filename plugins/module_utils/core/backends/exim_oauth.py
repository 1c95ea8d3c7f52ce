# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Exim's login with an access token: a client authenticator that reads the token's file at each delivery.

Exim knows neither XOAUTH2 nor OAUTHBEARER; its ``plaintext`` driver says what we tell it to (its specification, 34).
The first of the three texts is empty, so that the token never travels with the command, where many servers cut a line
at 2,048 bytes; the last one is what a server that refused the token wants before it says so (RFC 7628 3.2.3). A file
that is missing or empty makes Exim give the login up, and ``hosts_require_auth`` makes it keep the mail then. No other
authenticator of Debian's takes part: they look into passwd.client, where nothing is left for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from .. import marks
from ..errors import Problem
from .base import raw
from .exim_files import AUTHENTICATORS, CONF, TEMPLATE

if TYPE_CHECKING:
    from ..service import Service

NAME = "fleetmail_oauth"
SECURE = "${if !eq{$tls_out_cipher}{}}"
# a caret means NUL to the driver, and two of them a caret
_TOKEN = "${{sg{{${{extract{{access_token}}{{${{readfile{{{}}}{{}}}}}}{{$value}}fail}}}}{{\\N\\^\\N}}{{^^}}}}"  # noqa: S105
_XOAUTH2 = "<; ; user={user}\\x01auth=Bearer {token}\\x01\\x01; ;"
_OAUTHBEARER = "<; ; n,a={user},\\x01host={host}\\x01port={port}\\x01auth=Bearer {token}\\x01\\x01; \\x01"
_USER = re.compile(r"<; ; (?:user=(.*?)|n,a=(.*?),)\\x01")
_BEGIN = re.compile(r"^begin[ \t]+authenticators[ \t]*\n", re.M)
_INTERPRETED = re.compile(r"[\\${};^\x00-\x20\x7f]")


def problems(service: Service, template: str | None, there: bool, edit: bool) -> Iterator[Problem]:
    """What would be taken for something else, and where an authenticator finds no place.

    ``template``: exim4.conf.template, None in the split layout; ``there``: should it be there? ``edit``: edit_template.
    """
    if _INTERPRETED.search(service.username):
        yield Problem("username", "has a blank or a character that Exim interprets", "one without \\ $ { } ; and ^")
    if template is None:
        return
    if not edit:
        told = "false leaves no place for the authenticator that sends an access token"
        yield Problem("backend_options.edit_template", told, f"true, or dc_use_split_config='true' in {CONF}")
    elif not template and there:
        yield Problem("auth_type", f"{TEMPLATE} is not there to put the authenticator into", "restore that file")
    elif template and put(template, "#\n") is None:
        yield Problem("auth_type", f"{TEMPLATE} has no line 'begin authenticators'", "restore that file")


def client_send(mechanism: str, username: str, host: str, port: int, path: str) -> str:
    """The option of that name; ``mechanism`` in capitals."""
    token = _TOKEN.format(path)
    if mechanism == "XOAUTH2":
        return _XOAUTH2.format(user=username, token=token)
    user = username.replace("=", "=3D").replace(",", "=2C")  # RFC 7628 3.1, RFC 5801 4
    return _OAUTHBEARER.format(user=user, host=host, port=port, token=token)


def authenticator(service: Service, mechanism: str, path: str) -> str:
    """Its lines. ``path``: the token's file."""
    condition = "" if service.security == "none" else f"  client_condition = {SECURE}\n"
    return (
        f"{NAME}:\n  driver = plaintext\n  public_name = {mechanism}\n{condition}"
        "  client_ignore_invalid_base64 = true\n"  # the challenge before the token is empty
        f"  client_send = {client_send(mechanism, service.username, service.host.lower(), service.port, path)}\n"
    )


def username(values: Mapping[str, str], host: str, port: int, security: str, path: str) -> str | None:
    """Whose token Exim would send by its effective options; None when it would not, or not as it should."""
    mechanism, said = values.get("public_name", ""), _unprinted(values.get("client_send", ""))
    found = _USER.match(said)
    condition = values.get("client_condition", "")
    if found is None or condition != ("" if security == "none" else SECURE):
        return None
    user = found.group(1) or found.group(2) or ""
    if mechanism == "OAUTHBEARER":
        user = user.replace("=2C", ",").replace("=3D", "=")
    return user if client_send(mechanism, user, host, port, path) == said else None


def _unprinted(text: str) -> str:
    """An option's value from what ``exim4 -bP`` prints of it: bytes that are not ASCII are octal there."""
    return re.sub(rb"\\([0-3][0-7]{2})", lambda found: bytes([int(found.group(1), 8)]), raw(text)).decode(
        "utf-8", "surrogateescape"
    )


def put(template: str, lines: str) -> str | None:
    """The template with our authenticator as the first one (no lines: without it); None: nowhere to put it."""
    template = marks.drop(template, AUTHENTICATORS)
    place = _BEGIN.search(template)
    if not lines:
        return template
    if place is None:
        return None
    return marks.put(template[: place.end()], AUTHENTICATORS, lines) + template[place.end() :]
