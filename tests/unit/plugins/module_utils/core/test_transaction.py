# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""All or nothing, on a host in memory that notes the order of what is done to it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
from unit.fake_host import FakeHost

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends.base import (
    Backend,
    Capabilities,
    FileState,
    Observed,
)
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.errors import HostError, StepFailed
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.host import Completed
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.journal import JOURNAL, interrupted, note
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.plan import compare
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.transaction import Transaction, recover, undo

OLD = {"/etc/main": "old main\n", "/etc/gone": "old gone\n"}
STATES = [
    FileState("/etc/secret", b"new secret\n", 0o600, "root", "root", secret=True),
    FileState("/etc/sub/map", b"k v\n", 0o600, "root", "root", build=("postmap", "hash:"), built=".db"),
    FileState("/etc/main", b"new main\n"),
    FileState("/etc/gone", None),
    FileState("/etc/sub/none", None),
]
TARGETS = ["/etc/secret", "/etc/sub/map.db", "/etc/sub/map", "/etc/main"]  # what is compiled before its source


class NotingHost(FakeHost):
    """Notes what is done, and fails at what it is told to."""

    def __init__(self, files: Mapping[str, str], live: bool = True) -> None:
        super().__init__(files, live=live)
        self.done: list[str] = []
        self.fails_at = ""
        self.programs["postmap"] = lambda call: self._compile(call.argv[-1].partition(":")[2])

    def _compile(self, source: str) -> Completed:
        self._note(f"build {source}")
        self.put(source + ".db", b"compiled " + self.files[source].content, self.files[source].mode)
        return Completed(0, "", "")

    def _note(self, what: str) -> None:
        if self.fails_at and what.startswith(self.fails_at):
            self.fails_at = ""
            raise HostError(what, "does not work")
        self.done.append(what)

    def stage(self, path: str, content: bytes, mode: int, owner: str, group: str) -> str:
        self._note(f"stage {path}")
        return super().stage(path, content, mode, owner, group)

    def keep(self, path: str, kept: str) -> bool:
        self._note(f"keep {path}")
        return super().keep(path, kept)

    def rename(self, source: str, target: str) -> None:
        self._note(f"rename {target}")
        super().rename(source, target)

    def remove(self, path: str) -> None:
        if path in self.files:
            self._note(f"remove {path}")
        super().remove(path)

    def remove_directory(self, path: str) -> None:
        self._note(f"rmdir {path}")


class Software(Backend):
    """A backend whose steps are noted on the host."""

    name = "software"
    packages = program = "software"
    capabilities = Capabilities(())
    logs: ClassVar[tuple[str, ...]] = ()
    host: NotingHost

    def check(self, staged: Mapping[str, str]) -> list[str]:
        self.host.done.append("check " + " ".join(sorted(staged)))
        if self.host.fails_at == "check":
            raise StepFailed("check", "the checker says no")
        return ["the checker warns"]

    def restore(self, was_running: bool | None) -> None:
        self.host.done.append(f"restore {was_running}")


def transaction(host: NotingHost) -> tuple[Transaction, Software]:
    backend = Software(host)
    return Transaction(host, backend, compare({}, Observed({}), STATES, host)), backend


def visible(host: FakeHost) -> dict[str, Any]:
    return dict(host.files)


def applied(host: NotingHost, *steps: Callable[[], None], **how: Any) -> Transaction:
    made, _backend = transaction(host)
    made.apply(Observed({}, running=True), list(steps), **how)
    return made


def without_journal(done: list[str]) -> list[str]:
    return [what for what in done if JOURNAL not in what]


def test_the_order_of_an_apply() -> None:
    host = NotingHost(OLD)
    made = applied(host, lambda: host.done.append("step"))
    done = without_journal(host.done)
    assert done.index("check /etc/main /etc/secret /etc/sub/map") < done.index("rename /etc/secret")
    renames = [what.split()[1] for what in done if what.startswith("rename")]
    assert renames == TARGETS
    staged = [place for place, what in enumerate(done) if what.split()[0] in ("stage", "keep", "build")]
    assert max(staged) < done.index("rename /etc/secret"), "everything is staged before anything is switched"
    assert done.index("step") > done.index("rename /etc/main")
    assert done.index("remove /etc/gone") > done.index("step"), "nothing is removed before it is known to work"
    assert made.warnings == ["the checker warns"]
    assert not made.undone


def test_what_is_left_of_an_apply_is_what_was_wanted() -> None:
    host = NotingHost(OLD)
    applied(host)
    assert {path: file.content for path, file in host.files.items()} == {
        "/etc/secret": b"new secret\n",
        "/etc/sub/map": b"k v\n",
        "/etc/sub/map.db": b"compiled k v\n",
        "/etc/main": b"new main\n",
    }
    assert [host.files[path].mode for path in ("/etc/secret", "/etc/sub/map", "/etc/sub/map.db", "/etc/main")] == [
        *(0o600, 0o600, 0o600, 0o644)
    ]


def test_the_journal_goes_ahead_of_every_phase() -> None:
    host = NotingHost(OLD)
    phases: list[tuple[str, str]] = []

    class Spying(NotingHost):
        def _note(self, what: str) -> None:
            super()._note(what)
            if JOURNAL in self.files:
                phases.append((json.loads(self.files[JOURNAL].content)["phase"], what))

    host = Spying(OLD)
    applied(host)
    assert all(phase == "staging" for phase, what in phases if what in ("stage /etc/secret", "keep /etc/main"))
    assert all(phase == "applying" for phase, what in phases if what.startswith("rename /etc/"))
    assert all(phase == "kept" for phase, what in phases if what == "remove /etc/gone")
    assert host.files.get(JOURNAL) is None


def test_the_journal_holds_no_content() -> None:
    host = NotingHost(OLD)

    def look() -> None:
        text = host.text(JOURNAL)
        assert "new secret" not in text
        assert "old main" not in text
        assert host.files[JOURNAL].mode == 0o600

    applied(host, look)


def failing() -> None:
    raise StepFailed("activate", "it does not start")


@pytest.mark.parametrize(
    "fails_at",
    [
        *(f"stage {path}" for path in ("/etc/secret", "/etc/sub/map", "/etc/main")),
        *(f"keep {path}" for path in TARGETS),
        *(f"rename {path}" for path in TARGETS),
        "build",
        "check",
        "a step",
    ],
)
def test_whatever_fails_everything_is_put_back(fails_at: str) -> None:
    host = NotingHost(OLD)
    before = visible(host)
    host.fails_at = fails_at
    made, _backend = transaction(host)
    with pytest.raises((HostError, StepFailed)):
        made.apply(Observed({}, running=True), [failing])
    assert visible(host) == before
    assert made.undone
    assert made.backups == []


def test_undo_goes_backwards_and_the_service_is_put_back_as_it_ran() -> None:
    host = NotingHost(OLD)
    with pytest.raises(StepFailed):
        applied(host, failing)
    done = without_journal(host.done)
    after = done[done.index("rename /etc/main") + 1 :]
    putting_back = {f"{verb} {path}" for verb in ("rename", "remove") for path in TARGETS}
    assert [what.split()[1] for what in after if what in putting_back] == TARGETS[::-1]
    assert after.index("restore True") > after.index("remove /etc/secret")
    assert "rmdir /etc/sub" in after


def test_nothing_is_restarted_when_nothing_was_switched() -> None:
    host = NotingHost(OLD)
    host.fails_at = "check"
    with pytest.raises(StepFailed):
        applied(host)
    assert not [what for what in host.done if what.startswith(("restore", "rename /etc/"))]


def test_nothing_is_restarted_in_a_tree() -> None:
    host = NotingHost(OLD, live=False)
    with pytest.raises(StepFailed):
        applied(host, failing)
    assert not [what for what in host.done if what.startswith("restore")]


def test_an_interrupt_from_outside_is_undone_too() -> None:
    host = NotingHost(OLD)
    before = visible(host)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        applied(host, interrupt)
    assert visible(host) == before


def test_somebody_elses_edit_meanwhile_is_left_alone_and_told() -> None:
    host = NotingHost(OLD)

    def edit_and_fail() -> None:
        host.put("/etc/main", "edited by hand\n")
        failing()

    made, _backend = transaction(host)
    with pytest.raises(StepFailed):
        made.apply(Observed({}), [edit_and_fail])
    assert host.text("/etc/main") == "edited by hand\n"
    assert any("/etc/main was changed by somebody else" in warning for warning in made.warnings)
    assert "/etc/secret" not in host.files
    assert not [path for path in host.files if "fleetmail" in path]


def test_a_roll_back_that_fails_is_told_and_the_journal_stays() -> None:
    host = NotingHost(OLD)

    def fail_for_good() -> None:
        host.fails_at = "rename /etc/main"
        failing()

    made, _backend = transaction(host)
    with pytest.raises(StepFailed) as caught:
        made.apply(Observed({}, running=True), [fail_for_good])
    assert "it does not start" in str(caught.value)
    assert "putting the host back failed too" in str(caught.value)
    assert not made.undone
    record = interrupted(host)
    assert record is not None
    recover(host, record, Software(host))
    assert {path: file.content.decode() for path, file in host.files.items()} == OLD


def crash_at(point: int) -> NotingHost:
    """A host on which an apply was killed before its ``point``-th act: no handler ran."""

    class Killed(BaseException):
        pass

    class Mortal(NotingHost):
        def _note(self, what: str) -> None:
            if len(self.done) == point:
                raise Killed
            self.done.append(what)

    host = Mortal(OLD)
    made, _backend = transaction(host)
    made._put_back = lambda *_: None  # type: ignore[method-assign]
    with contextlib.suppress(Killed):
        made.apply(Observed({}, running=True), [])
    living = NotingHost({})
    living.files, living.inodes, living.directories = host.files, host.inodes, host.directories
    living.done = ["alive"] if len(host.done) < point else []
    return living


def test_the_next_run_completes_what_a_killed_one_left_at_every_point() -> None:
    ends = set()
    for point in range(200):
        host = crash_at(point)
        record = interrupted(host)
        if record is not None:
            told = recover(host, record, Software(host))
            assert "a run that was interrupted" in told[0]
        found = {path: file.content.decode() for path, file in host.files.items()}
        stray = {path for path in found if "fleetmail" in path}
        assert not stray - {host.staged_name(JOURNAL)}, point  # nothing but a journal that never came to be
        old = {path: text for path, text in found.items() if path not in stray}
        assert old in (OLD, _NEW, {**_NEW, "/etc/gone": "old gone\n"}), point
        ends.add(json.dumps(old, sort_keys=True))
        if host.done == ["alive"]:
            break
    assert point > 20
    assert {json.dumps(OLD, sort_keys=True), json.dumps(_NEW, sort_keys=True)} <= ends


_NEW = {
    "/etc/secret": "new secret\n",
    "/etc/sub/map": "k v\n",
    "/etc/sub/map.db": "compiled k v\n",
    "/etc/main": "new main\n",
}


def test_backups_are_copies_of_what_was_replaced_and_secrets_are_narrow() -> None:
    host = NotingHost(OLD)
    host.put("/etc/secret", "old secret\n", 0o644, "root", "root")
    made = applied(host, backup=True)
    copies = {path.split(".")[0]: host.files[path] for path in made.backups}
    assert {path: copy.content for path, copy in copies.items()} == {
        "/etc/secret": b"old secret\n",
        "/etc/main": b"old main\n",
        "/etc/gone": b"old gone\n",
    }
    assert copies["/etc/secret"].mode == 0o600
    assert copies["/etc/main"].mode == 0o644


def test_what_serves_old_and_new_is_there_until_it_is_known_to_work() -> None:
    host = NotingHost(OLD)
    main = FileState("/etc/main", b"new\n", transition=b"old and new\n")
    gone = FileState("/etc/gone", None, transition=b"-")
    made = Transaction(host, Software(host), compare({}, Observed({}), [main, gone], host))
    seen: list[str] = []
    made.apply(Observed({}), [lambda: seen.extend(host.text(path) for path in ("/etc/main", "/etc/gone"))])
    assert seen == ["old and new\n", "-"]
    assert {path: file.content for path, file in host.files.items()} == {"/etc/main": b"new\n"}


def test_undo_touches_only_what_was_renamed() -> None:
    host = NotingHost(OLD)
    names = {"old": host.kept_name("/etc/main"), "new": host.staged_name("/etc/main")}
    entry = {"path": "/etc/main", "had": True, "inode": None, "was": host.inode("/etc/main"), **names}
    assert undo(host, [entry]) == []
    assert {path: file.content.decode() for path, file in host.files.items()} == OLD
    host.keep("/etc/main", names["old"])
    entry["inode"] = host.inode(host.stage("/etc/main", b"x", 0o644, "root", "root"))
    assert undo(host, [entry]) == []
    assert host.text("/etc/main") == "old main\n"


def test_a_journal_that_is_none_is_not_guessed_at() -> None:
    host = FakeHost()
    assert interrupted(host) is None
    note(host, "applying", "software", {"a": 1}, True, [])
    found = interrupted(host)
    assert found is not None
    assert [found[key] for key in ("phase", "backend", "options", "running", "files")] == [
        *("applying", "software", {"a": 1}, True, [])
    ]
    for text in (b"", b"{", b"[]", b"7", b"{}", b'{"version": 2}', b"\xff"):
        host.put(JOURNAL, text)
        with pytest.raises(HostError) as caught:
            interrupted(host)
        assert JOURNAL in str(caught.value)
