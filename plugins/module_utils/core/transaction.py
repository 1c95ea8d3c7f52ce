# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""All of a plan or nothing of it, whatever happens in between.

Every new file is staged beside its target and every old one kept under a second name (a hard link: content, mode, owner
and times are those of the very file) before the first rename. The journal says what was begun; a run that finds one
undoes what was not yet kept.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Callable

from .backends.base import ORIGINALS, Backend, FileState, Observed
from .errors import FleetmailError, StepFailed
from .journal import JOURNAL, STATE, Entry, note
from .plan import Change, Plan

if TYPE_CHECKING:
    from .port import Host

OURS = "fleetmail"  # a directory of that name goes with its last file
NEW_FILE = (0o644, "root", "root")


class Transaction:
    """One plan on one host. ``apply`` makes it so or raises with everything put back; ``files`` says what was done."""

    def __init__(self, host: Host, backend: Backend, plan: Plan) -> None:
        self.host = host
        self.backend = backend
        self.plan = plan
        self.entries: list[Entry] = []
        self.warnings: list[str] = []
        self.backups: list[str] = []
        self.staged: dict[str, str] = {}
        self.switched = False
        self.undone = False
        self.made: list[str] = []

    def apply(self, before: Observed, steps: list[Callable[[], None]], backup: bool = False) -> None:
        """Stage, check, switch, then run ``steps`` (activate, re-read, probe, ...); keep it when none of them raises.

        Raises whatever a step raised, with the host put back as it was.
        """
        try:
            self._stage()
            self.warnings += self.backend.check(self.staged)
            self._note("applying", before.running)
            self.switched = True
            for entry in self.entries:
                self.host.rename(entry["new"], entry["path"])
            for step in steps:
                step()
            if backup:
                self._back_up()
            self._note("kept", before.running)
        except BaseException as error:
            self._put_back(before.running, error)
            raise
        try:
            self._finish()
        except FleetmailError as error:  # the journal stays, and the next run finishes
            self.warnings.append(f"done, but not tidied up: {error}")

    # -- staging -----------------------------------------------------------------------------------------------------

    def _stage(self) -> None:
        writes = [change for change in self.plan.changes if self._written_now(change.wanted)]
        self.entries = [entry for change in writes for entry in self._blank_entries(change.wanted)]
        self._note("staging", None)
        self.backend.prepare()
        for change in writes:
            self._stage_one(change)

    @staticmethod
    def _written_now(state: FileState) -> bool:
        return state.content is not None or state.transition is not None

    def _blank_entries(self, state: FileState) -> list[Entry]:
        names = self.host.staged_name(state.path), self.host.kept_name(state.path)
        return [
            dict(path=state.path + end, old=names[1] + end, new=names[0] + end, had=False, was=None, inode=None)
            for end in ([state.built, ""] if state.built else [""])
        ]

    def _stage_one(self, change: Change) -> None:
        state = change.wanted
        content = state.content if state.transition is None else state.transition
        self._make_way(os.path.dirname(state.path))
        staged = self.host.stage(state.path, content or b"", *permissions(change))
        self._built(state, staged)
        self.staged[state.path] = staged
        for entry in self.entries:
            if entry["path"] in (state.path, state.path + state.built):
                entry["was"] = self.host.inode(entry["path"])
                entry["had"] = self.host.keep(entry["path"], entry["old"])
                entry["inode"] = self.host.inode(entry["new"])

    def _make_way(self, directory: str) -> None:
        """Make what is missing above a file, and remember it."""
        if not self.host.exists(directory):
            self._make_way(os.path.dirname(directory))
            self.host.make_directory(directory, 0o755, "root", "root")
            self.made.append(directory)

    def _built(self, state: FileState, staged: str) -> None:
        if state.build:
            self.host.remove(staged + state.built)  # the compiler would keep the mode of an older file
            self.backend.act("build", [*state.build[:-1], state.build[-1] + staged])

    def _note(self, phase: str, running: bool | None) -> None:
        note(self.host, phase, self.backend.name, self.backend.given, running, self.entries)

    # -- keeping -----------------------------------------------------------------------------------------------------

    def _back_up(self) -> None:
        """Copies of the files that were replaced or removed, for the person who asked for them."""
        import time

        stamp = time.strftime("%Y-%m-%d@%H:%M:%S~")
        for change in self.plan.changes:
            if change.now is not None and any(aspect.kind in ("content", "presence") for aspect in change.aspects):
                now = change.now
                copy = f"{change.wanted.path}.{os.getpid()}.{stamp}"
                mode = now.mode & 0o600 if change.wanted.secret else now.mode
                self.host.rename(self.host.stage(copy, now.content, mode, now.owner, now.group), copy)
                self.backups.append(copy)

    def _finish(self) -> None:
        """What may only happen once the new state is known to work: final contents, then removals, last first."""
        for change in self.plan.changes:
            state = change.wanted
            if state.content is not None and state.transition is not None:
                staged = self.host.stage(state.path, state.content, *permissions(change))
                self._built(state, staged)
                if state.built:
                    self.host.rename(staged + state.built, state.path + state.built)
                self.host.rename(staged, state.path)
        for change in self.plan.changes[::-1]:
            if change.wanted.content is None:
                self.host.remove(change.wanted.path)
                if change.wanted.built:
                    self.host.remove(change.wanted.path + change.wanted.built)
                if os.path.dirname(change.wanted.path).endswith("/" + OURS):
                    self.host.remove_directory(os.path.dirname(change.wanted.path))
        self.backend.withdraw()
        clear(self.host, self.entries)

    # -- putting back ------------------------------------------------------------------------------------------------

    def _put_back(self, was_running: bool | None, error: BaseException) -> None:
        """Undo; a failure to undo is told with the failure that led to it, and the journal stays for the next run."""
        try:
            self.warnings += undo(self.host, self.entries)
            if self.switched and self.host.live:
                self.backend.restore(was_running)
            self.backend.withdraw()
            clear(self.host, self.entries)
            for copy in self.backups:
                self.host.remove(copy)
            self.backups = []
            for directory in self.made[::-1]:
                self.host.remove_directory(directory)
            self.undone = True
        except FleetmailError as second:
            problem = f"{error}; putting the host back failed too: {second}"
            raise StepFailed("roll-back", problem, "the next run tries again, from " + JOURNAL) from None


def permissions(change: Change) -> tuple[int, str, str]:
    """Mode, owner and group for the new file: those wanted, else those found, else 0644 root root."""
    state, now = change.wanted, change.now
    found = NEW_FILE if now is None else (now.mode, now.owner, now.group)
    return (
        found[0] if state.mode is None else state.mode,
        state.owner or found[1],
        state.group or found[2],
    )


def undo(host: Host, entries: Sequence[Entry]) -> list[str]:
    """Reverse the renames. A file that somebody changed since is left as it is, and told."""
    told = []
    for entry in entries[::-1]:
        now = host.inode(entry["path"])
        if entry["inode"] is None or now == entry["was"]:
            continue  # never staged, never renamed, or undone already
        if now != entry["inode"]:
            told.append("{} was changed by somebody else meanwhile and left alone".format(entry["path"]))
        elif entry["had"]:
            host.rename(entry["old"], entry["path"])
        else:
            host.remove(entry["path"])
    return told


def clear(host: Host, entries: Sequence[Entry]) -> None:
    """Remove second names, staged files and, last, the journal."""
    for entry in entries:
        host.remove(entry["old"])
        host.remove(entry["new"])
    host.remove(JOURNAL)


def clear_away(host: Host) -> None:
    """Remove what is empty of our own directories. The lock is held."""
    home = os.path.dirname(STATE)
    for directory in (ORIGINALS, home + "/tokens", home + "/oauth", STATE, home):
        host.remove_directory(directory)


def recover(host: Host, record: dict[str, Any], backend: Backend) -> list[str]:
    """Undo what an interrupted run did not get to keep; drop its second names either way. Gives what to tell.

    What a run that was kept had still to tidy up is a difference that the next look at the host finds.
    """
    told = []
    if record["phase"] == "applying":
        told = undo(host, record["files"])
        try:
            if host.live and backend.installed():
                backend.restore(record["running"])
        except FleetmailError as error:  # the files are back; what follows needs the journal out of its way
            told.append(str(error))
    backend.withdraw()
    clear(host, record["files"])
    return ["a run that was interrupted while {} was completed first".format(record["phase"]), *told]
