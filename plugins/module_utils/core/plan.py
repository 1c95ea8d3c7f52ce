# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""What differs between the host's effective state and the desired one. The only place that knows "differs"."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .backends.base import FileState, Observed

if TYPE_CHECKING:
    from .host import Snapshot
    from .port import Host


class Drift(NamedTuple):
    """One difference, in the form's words."""

    field: str
    before: Any
    after: Any


class Aspect(NamedTuple):
    """One way in which a file is not as it should be: presence, content, mode, owner or group."""

    kind: str
    path: str
    before: Any
    after: Any


class Change(NamedTuple):
    """One file to write or remove, with what is there now and which of its aspects differ."""

    wanted: FileState
    now: Snapshot | None
    aspects: Sequence[Aspect]

    @property
    def action(self) -> str:
        """What the result's ``files`` says of it."""
        if self.wanted.content is None:
            return "removed"
        if self.now is None:
            return "created"
        return "changed" if any(aspect.kind in ("content", "presence") for aspect in self.aspects) else "permissions"


class Plan:
    """The drift that a person reads and the changes that a transaction makes. Empty: the host complies."""

    def __init__(self, changes: Iterable[Change] = ()) -> None:
        self.drift: list[Drift] = []
        self.changes = list(changes)
        self.start = False
        self.takes_over = False  # what somebody else set up is as wanted: only its files become ours

    @property
    def empty(self) -> bool:
        return not (self.drift or self.changes or self.start)


def compare(wanted: Mapping[str, Any] | None, observed: Observed, files: Sequence[FileState], host: Host) -> Plan:
    """The plan that turns ``observed`` into ``wanted`` (None: nothing of ours) by ``files``."""
    plan = Plan(change for change in (_change(state, host) for state in files) if change.aspects)
    if wanted is None:
        if observed.managed or plan.changes:
            plan.drift.append(Drift("state", "present", "absent"))
        return plan
    plan.drift.extend(_form_drift(wanted, observed.form))
    plan.drift.extend(Drift(*fault) for fault in observed.faults)
    content_told = bool(plan.drift) or observed.theirs
    for change in plan.changes:
        plan.drift.extend(_file_drift(change, content_told))
    if observed.running is False:
        plan.start = True
        plan.drift.append(Drift("running", False, True))
    plan.takes_over = observed.theirs and bool(plan.changes) and not plan.drift
    return plan


def _change(state: FileState, host: Host) -> Change:
    now = host.read(state.path)
    aspects = list(_aspects(state, state.path, now))
    if state.built and now is not None and state.content is not None:
        compiled = state.path + state.built
        # what the compiled file says is judged by the backend, which asks the software for it
        aspects += [one for one in _aspects(state, compiled, host.read(compiled)) if one.kind != "content"]
    return Change(state, now, aspects)


def _aspects(state: FileState, path: str, now: Snapshot | None) -> Iterator[Aspect]:
    if state.content is None or now is None:
        if state.content is not None or now is not None:
            yield Aspect("presence", path, now is not None, state.content is not None)
        return
    if state.content != now.content:
        yield Aspect("content", path, "(differs)", "(managed)")
    if state.mode is not None and state.mode != now.mode:
        yield Aspect("mode", path, f"{now.mode:04o}", f"{state.mode:04o}")
    for kind, wanted, found in (("owner", state.owner, now.owner), ("group", state.group, now.group)):
        if wanted is not None and wanted != found:
            yield Aspect(kind, path, found, wanted)


def _form_drift(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[Drift]:
    differing = {name: value for name, value in wanted.items() if found.get(name) != value}
    # on a host where nothing is known yet, what is not asked for is no news
    news = {name: value for name, value in differing.items() if name in found or value not in ("", ())}
    return [Drift(name, *_shown(name, found.get(name), value)) for name, value in news.items()]


def _shown(name: str, before: Any, after: Any) -> Sequence[Any]:
    if name not in ("password", "client_secret"):
        return [list(value) if isinstance(value, tuple) else value for value in (before, after)]
    if after is None:
        return ["(set)", "(unset)"]
    return ["(unset)", "(set)"] if before is None else ["(set)", "(changed)"]


def _file_drift(change: Change, content_told: bool) -> Iterator[Drift]:
    """Permissions always; what is in a file only where no field of the form tells of the difference."""
    for aspect in change.aspects:
        if aspect.kind in ("mode", "owner", "group") or not content_told:
            yield Drift(f"{aspect.kind} of {aspect.path}", aspect.before, aspect.after)
