# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Judging a change before anything is switched: the configuration is made beside the one in use, and Exim reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..errors import StepFailed
from ..scratch import Scratch
from .base import raw, text_of
from .exim import CONF, CONTINUED, SPLIT_MACROS
from .exim_generated import ETC, GENERATED, MONOLITHIC_MACROS, TEMPLATE

if TYPE_CHECKING:
    from ..port import Host

COULD_NOT_RUN = (125, 126, 127)  # chroot(1): it failed itself, cannot invoke, not found


def judge(host: Host, staged: Mapping[str, str]) -> list[str]:
    """Make the configuration from the staged files and let Exim read it; gives what to tell.

    Raises StepFailed("check", Exim's words).
    """
    with Scratch(host, "exim") as place:
        _lay_out(host, place, staged)
        made = place.path + "/generated"
        said = host.run(["update-exim4.conf", "-d", place.path, "-o", made])
        if said.code in COULD_NOT_RUN and not host.live:
            return ["Exim cannot be run in the tree: its files were judged by this collection's rules alone"]
        if not said.code:
            said = host.run(["exim4", "-C", made, "-bV"])
        if said.code:
            raise StepFailed("check", f"Exim refuses the new configuration: {said.words}", "see that line")
    if not host.live:
        return [f"{GENERATED} is made anew when Debian's init script starts Exim, not before"]
    return []


def _lay_out(host: Host, place: Scratch, staged: Mapping[str, str]) -> None:
    host.run(["cp", "-rL", ETC + "/conf.d", place.path])
    for path in (CONF, TEMPLATE, MONOLITHIC_MACROS):
        place.copy(staged.get(path, path), path[len(ETC) + 1 :])
    for path in (SPLIT_MACROS, CONTINUED):
        if path in staged:
            place.copy(staged[path], path[len(ETC) + 1 :])
    if not host.exists(MONOLITHIC_MACROS):  # then update-exim4.conf -d does not look for the candidate either
        macros, template = (f"{place.path}/{name}" for name in ("exim4.conf.localmacros", "exim4.conf.template"))
        joined = raw(text_of(host, macros) + text_of(host, template))
        host.rename(host.stage(template, joined, 0o600, "root", "root"), template)
