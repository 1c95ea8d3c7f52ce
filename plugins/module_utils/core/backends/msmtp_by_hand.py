# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""msmtp accounts that somebody else set up: which of them a service would be, and the password that they lead to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from .. import marks
from ..errors import HostError
from ..redaction import Secret
from . import msmtp_file
from .base import text_of
from .msmtp import MAIN

if TYPE_CHECKING:
    from ..port import Host
    from ..service import Service
    from .base import Observed
    from .msmtp import Msmtp
    from .msmtp_file import Account

SYSTEM_NETRC = "/etc/netrc"
_CAT = re.compile(r"(?:/usr)?(?:/bin/)?cat\s+(\"?)(/[^\s\"'`$;|&<>*?\\]+)\1\Z")


def read(backend: Msmtp, service: Service, observed: Observed) -> None:
    """Put into ``observed`` the account that the service's mail goes through without us, if there is one."""
    text = text_of(backend.host, MAIN)
    if service.name in marks.tidy(text)[1] or not text.strip():
        return
    account = chosen(msmtp_file.accounts(text), service.senders)
    if account is None or not account.settings().get("host") or "eval" in account.settings():
        return
    secret = password(backend.host, account, SYSTEM_NETRC)
    observed.secrets += [secret] if secret else []
    if service.senders:
        observed.form = msmtp_file.form_of(account.settings(), secret, msmtp_file.canonical(service.senders))
    elif observed.form.get("auth_type") == "password" and secret:
        observed.form["password"] = Secret(secret)
    observed.theirs = bool(observed.form)


def chosen(found: Sequence[Account], senders: Sequence[str]) -> Account | None:
    """The account of all of these senders; without senders the default one. None: there is none, or several."""
    if not senders:
        return next((one for one in found if one.name == "default"), None)
    matching = [
        next((one for one in found if one.settings().get("from", "").lower() == each), None) for each in senders
    ]
    different = {None if one is None else tuple(_without_sender(one)) for one in matching}
    return matching[0] if len(different) == 1 else None


def _without_sender(account: Account) -> Iterator[tuple[str, str]]:
    return iter(sorted(item for item in account.settings().items() if item[0] != "from"))


def password(host: Host, account: Account, netrc: str, owner: str = "") -> str | None:
    """The account's password: in the file, by a plain ``cat`` of another one, or in a netrc(5) file.

    None where that cannot be known. No command is run. ``owner``: whose files are taken, empty for anybody's: what root
    reads in a user's name, or sends to a relay of that user's choice, must be that user's own.
    """
    settings = account.settings()
    if settings["auth"] == "off":
        return None
    if settings.get("password"):
        return settings["password"]
    command = settings.get("passwordeval", "")
    if command:
        path = secret_file(command)
        return (_text(host, path, owner).split("\n")[0] or None) if path else None
    return _in_netrc(_text(host, netrc, owner), settings.get("host", ""), settings.get("user", ""))


def _text(host: Host, path: str, owner: str) -> str:
    """A file that holds a secret; empty where it is no file, cannot be read, or is somebody else's."""
    try:
        now = host.read(path)
    except HostError:
        return ""
    return "" if now is None or owner not in ("", now.owner) else now.content.decode("utf-8", "surrogateescape")


def secret_file(command: str) -> str:
    """The file that a passwordeval prints; empty for any other command."""
    plain = _CAT.match(command.strip())
    return plain.group(2) if plain else ""


def _in_netrc(text: str, host: str, user: str) -> str | None:
    """The password of a machine for a user (msmtp(1), AUTHENTICATION)."""
    words = text.split()
    machine = login = ""
    for key, value in zip(words, words[1:]):
        if key == "machine":
            machine, login = value, ""
        elif key in ("login", "user"):
            login = value
        elif key == "password" and machine == host and login in ("", user):
            return value
    return None
