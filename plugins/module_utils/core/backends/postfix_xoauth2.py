# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""sasl-xoauth2, a plugin of Cyrus SASL for Postfix' smtp(8) (sasl-xoauth2.conf(5)).

Its token file is kept fresh from outside and has no refresh token, so that the plugin never spends one: it has no lock,
and two deliveries at once would lose a refresh token that rotates.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .base import FileState
from .originals import given_back, record
from .postfix_files import CONF, transports

if TYPE_CHECKING:
    from ..port import Host
    from ..service import Service

LIBRARY = "libsasl-xoauth2.so"
MECHANISM = "xoauth2"  # what smtp_sasl_mechanism_filter has where the plugin is to be used
_IN_CHROOT = "/fleetmail"  # below the queue directory
# both have to be there; neither is ever used, for without a refresh token there is nothing to ask a server with
REQUIRED = {"client_id": "not used", "client_secret": ""}


def library(host: Host) -> bool:
    """Is the plugin in a directory that Cyrus SASL looks in?"""
    triplets = [f"/usr/lib/{name}" for name in host.names_in("/usr/lib") if "-linux-" in name]  # Debian's multiarch
    places = ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64", *triplets]
    return any(host.exists(f"{place}/sasl2/{LIBRARY}") for place in places)


class Plugin:
    """One service's mail through smtp(8) with the plugin."""

    format = "sasl_xoauth2"
    group = "postfix"

    def __init__(self, host: Host, service: Service, values: Mapping[str, str], token_path: str) -> None:
        self.host, self.service = host, service
        self.seen_path = self.token_path = token_path
        if chrooted(values, host):
            self.seen_path = f"{_IN_CHROOT}/{service.name}.json"
            self.token_path = values["queue_directory"] + self.seen_path

    @property
    def credentials(self) -> str:
        """The entry of the password map: what stands for the password is where smtp(8) finds the token file."""
        return f"{self.service.username}:{self.seen_path}"

    def states(self) -> Iterator[FileState]:
        """The plugin's own configuration, with what it does not start without; what else is in it stays."""
        now = self.host.read(CONF)
        settings = _settings(now.content) if now else {}
        missing = {key: value for key, value in REQUIRED.items() if not isinstance((settings or {}).get(key), str)}
        if settings is not None and missing:
            if not self.host.exists(record(self.host, CONF).path):
                yield record(self.host, CONF)
            text = json.dumps({**settings, **missing}, indent=2) + "\n"
            yield FileState(CONF, text.encode(), None if now else 0o644)


def left(host: Host) -> list[FileState]:
    """What gives the plugin's configuration back, once no service uses it."""
    return given_back(host, CONF) if host.exists(record(host, CONF).path) else []


def rejected(host: Host) -> str:
    """Why the plugin's configuration cannot be added to; empty when it can."""
    now = host.read(CONF)
    return "is not a JSON object" if now and _settings(now.content) is None else ""


def _settings(content: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(content)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def chrooted(values: Mapping[str, str], host: Host) -> bool:
    """Does smtp(8) run in the queue directory (master(5), chroot)? ``-`` is no, and was yes before Postfix 3.0."""
    from .base import text_of
    from .postfix import MASTER

    smtp = next((agent for agent in transports(text_of(host, MASTER)) if agent.name == "smtp"), None)
    if smtp is None or smtp.chroot != "-":
        return smtp is not None and smtp.chroot == "y"
    level = values["compatibility_level"].split(".")[0]
    return not (level.isdigit() and int(level) > 0)
