# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Postfix with an access token: by the SASL plugin sasl-xoauth2 where that is installed, else by msmtp behind a pipe.

Postfix itself has no OAuth. Imported for a service that wants it and where an agent of ours is a pipe, never else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .. import marks
from ..errors import Problem
from ..oauth.token_files import Consumer
from .base import text_of
from .msmtp_file import LONGEST_BEARER
from .postfix import MAIN, MASTER
from .postfix_files import CONF, main_cf_values, transports
from .postfix_pipe import Pipe, is_pipe, mechanism_of
from .postfix_pipe import problems as pipe_problems
from .postfix_xoauth2 import Plugin, library, rejected

if TYPE_CHECKING:
    from ..service import Service
    from .postfix import Postfix

PIPE, PLUGIN = "pipe", "sasl-xoauth2"
WAKE = ("postqueue", "-f")  # what waited for a token goes out


def chosen(backend: Postfix) -> str:
    """``pipe`` or ``sasl-xoauth2``: as the option says, by itself the plugin where its library is."""
    option: str = backend.option("oauth")
    if option != "auto":
        return option
    return PLUGIN if library(backend.host) else PIPE


def way(backend: Postfix, service: Service) -> Pipe | Plugin:
    """How the service's mail leaves with a token."""
    path = backend.token_path(service.name)
    if chosen(backend) == PLUGIN:
        return Plugin(backend.host, service, backend.values(text_of(backend.host, MAIN)), path)
    return Pipe(service, backend.option("oauth_mechanism"), path, backend.option("oauth_connections"))


def ways(backend: Postfix, service: Service) -> tuple[Pipe | None, Plugin | None]:
    """The same, each in its place."""
    found = way(backend, service)
    return (found, None) if isinstance(found, Pipe) else (None, found)


def longest_bearer(backend: Postfix) -> int:
    """The pipe has msmtp's limit."""
    return LONGEST_BEARER if chosen(backend) == PIPE else 0


def consumer(backend: Postfix, service: Service) -> Consumer:
    """Which file with an access token is read, and by whom."""
    found = way(backend, service)
    readers = ("root", found.group, 0o640)
    return Consumer(service.name, backend.name, found.format, found.token_path, *readers, service.username, WAKE)


def options(backend: Postfix, name: str) -> dict[str, Any]:
    """The backend's options by which a service of ours stays what it is."""
    host = backend.host
    agent = next(transports(marks.get(text_of(host, MASTER), name) or ""), None)
    shared = main_cf_values(marks.get(text_of(host, MAIN), name) or "")  # where it has no agent of its own
    limit = agent.maxproc if agent else shared.get("smtp_destination_concurrency_limit", "")
    found: dict[str, Any] = {"oauth_connections": int(limit)} if limit.isdigit() else {}
    if agent and is_pipe(agent):
        found.update(oauth_mechanism=mechanism_of(host, agent), oauth=PIPE if library(host) else "auto")
    return {key: value for key, value in found.items() if value != backend.options[key].default}


def problems(backend: Postfix, service: Service) -> Iterator[Problem]:
    """What the chosen way cannot do of the service."""
    if chosen(backend) == PIPE:
        yield from pipe_problems(backend.host, service, backend.option("oauth_mechanism"))
        return
    if backend.option("oauth_mechanism") != "xoauth2":
        told = f"{backend.option('oauth_mechanism')} is not known to {PLUGIN}"
        yield Problem("backend_options.oauth_mechanism", told, f"leave it out, or set oauth: {PIPE}")
    why = rejected(backend.host)
    if why:
        yield Problem("auth_type", f"{CONF} {why}", "mend it, or move it away")


def not_installed(backend: Postfix) -> Iterator[Problem]:
    """What the chosen way needs and the host has not."""
    if chosen(backend) == PLUGIN and not library(backend.host):
        way_out = f"install it (Fedora and EPEL have it), or take {PIPE}, which needs msmtp only"
        yield Problem("backend_options.oauth", f"{PLUGIN} is not installed", way_out)
    if chosen(backend) == PIPE and backend.host.which("msmtp") is None:
        way_out = "install the package msmtp (1.8.13 or later); sasl-xoauth2 is used where it is installed instead"
        yield Problem("auth_type", "oauth on Postfix needs msmtp, which is not installed", way_out)
