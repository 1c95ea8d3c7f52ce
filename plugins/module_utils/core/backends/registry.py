# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Which backends there are, and which of them a host has. Each is imported only when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from ..errors import InvalidService, Problem
from .base import Backend

if TYPE_CHECKING:
    from ..port import Host


def _exim() -> type[Backend]:
    from .exim import Exim

    return Exim


def _msmtp() -> type[Backend]:
    from .msmtp import Msmtp

    return Msmtp


def _postfix() -> type[Backend]:
    from .postfix import Postfix

    return Postfix


# name -> how to get the class, and the program whose presence means that it is installed
BACKENDS: dict[str, Callable[[], type[Backend]]] = {"exim": _exim, "msmtp": _msmtp, "postfix": _postfix}
PROGRAMS: dict[str, str] = {"exim": "exim4", "msmtp": "msmtp", "postfix": "postfix"}
CLIENTS = ("msmtp",)  # beside an MTA they are that one's tool, unless it is they that sendmail(8) leads to


def found_on(host: Host) -> list[str]:
    """The names of the backends whose software the host has."""
    return [name for name in sorted(PROGRAMS) if host.which(PROGRAMS[name])]


def _mail_goes_through(host: Host) -> list[str]:
    """Those found, without clients that only serve an MTA."""
    found = found_on(host)
    mtas = [name for name in found if name not in CLIENTS]
    return [name for name in found if name in mtas or _is_sendmail(host, PROGRAMS[name])] if mtas else found


def _is_sendmail(host: Host, program: str) -> bool:
    paths = [host.which(one) for one in ("sendmail", program)]
    inodes = [host.inode(path) for path in paths if path]
    return len(inodes) == 2 and inodes[0] == inodes[1]


def choose(name: str, host: Host) -> type[Backend]:
    """The backend of that name; ``auto``: the one that the host has. Raises InvalidService."""
    if name != "auto":
        if name in BACKENDS:
            return BACKENDS[name]()
        raise InvalidService([Problem("backend", f"'{name}' is not known", "auto, " + ", ".join(BACKENDS))])
    found = _mail_goes_through(host)
    if len(found) == 1:
        return BACKENDS[found[0]]()
    if found:
        problem = "auto found several: {}".format(", ".join(found))
        raise InvalidService([Problem("backend", problem, "name the one that mail goes through")])
    problem = "auto found none of {}".format(", ".join(sorted(PROGRAMS)))
    raise InvalidService([Problem("backend", problem, "install one, or name the one that will be installed")])
