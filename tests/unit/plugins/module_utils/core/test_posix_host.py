# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The host port on real files, in a tree below a temporary folder."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.fleetmail.smtp.plugins.module_utils.core import mail_log
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.errors import HostError
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.host import Snapshot
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.posix_host import PosixHost

ME, MINE = os.getuid(), os.getgid()
as_root = pytest.mark.skipif(ME != 0, reason="only root can give files away")
OUTSIDE = "this is outside of the root"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree whose names are not the machine's: 4711 is postie, and root is whoever runs the tests."""
    root = tmp_path / "image"
    for folder in ("etc", "usr/bin", "var/lib"):
        (root / folder).mkdir(parents=True)
    (root / "etc/passwd").write_text(f"root:x:{ME}:{MINE}::/root:/bin/sh\npostie:x:4711:4712::/:/bin/false\nbad:line\n")
    (root / "etc/group").write_text(f"root:x:{MINE}:\nposties:x:4712:\nagain:x:4712:\n")
    (tmp_path / "secret").write_text(OUTSIDE)
    return root


@pytest.fixture
def host(root: Path) -> PosixHost:
    return PosixHost(str(root))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# -- reading


def test_a_file_as_it_stands(host: PosixHost, root: Path) -> None:
    (root / "etc/x").write_bytes(b"text\xff")
    (root / "etc/x").chmod(0o640)
    assert host.read("/etc/x") == Snapshot(b"text\xff", 0o640, "root", "root")
    assert host.read("/etc/none") is None
    assert host.read("/etc/x/y") is None
    assert host.exists("/etc/x")
    assert host.names_in("/etc") == ["group", "passwd", "x"]
    assert host.names_in("/none") == []
    assert not host.live


@pytest.mark.parametrize("path", ["/etc", "/etc/loop"])
def test_what_cannot_be_read_is_an_error_with_its_path(host: PosixHost, root: Path, path: str) -> None:
    (root / "etc/loop").symlink_to("loop")
    with pytest.raises(HostError) as caught:
        host.read(path)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


@as_root
def test_names_are_those_of_the_tree(host: PosixHost, root: Path) -> None:
    (root / "etc/x").write_text("")
    os.chown(root / "etc/x", 4711, 4712)
    found = host.read("/etc/x")
    assert found is not None
    assert (found.owner, found.group) == ("postie", "posties")
    os.chown(root / "etc/x", 4713, 4714)
    found = host.read("/etc/x")
    assert found is not None
    assert (found.owner, found.group) == ("4713", "4714")


def test_accounts(host: PosixHost) -> None:
    assert host.has_account()
    assert host.has_account("postie", "posties")
    assert host.has_account(group="again")
    assert not host.has_account("nobody")
    assert not host.has_account("postie", "nogroup")
    assert not host.has_account("bad")


def test_programs_are_looked_for_in_the_tree(host: PosixHost, root: Path) -> None:
    assert host.which("sh") is None
    (root / "usr/bin/tool").write_text("")
    assert host.which("tool") is None
    (root / "usr/bin/tool").chmod(0o755)
    assert host.which("tool") == "/usr/bin/tool"


# -- links


@pytest.mark.parametrize(
    "target",
    ["/secret", "../../secret", "../../../../../../../../../secret", "/../secret", "/etc/../../secret", "chain"],
)
def test_no_link_leads_out_of_the_root(host: PosixHost, root: Path, target: str) -> None:
    (root / "etc/chain").symlink_to("../../../secret")
    (root / "etc/link").symlink_to(target)
    (root / "var/etc").symlink_to("/etc")
    before = contents(root.parent)
    for path in ("/etc/link", "/var/etc/link", "/../secret", "/etc/../../secret"):
        assert host.read(path) is None
        assert not host.exists(path)
        assert host.inode(path) is None
    for path in ("/etc/link", "/var/etc/link"):
        staged = host.stage(path, b"ours", 0o600, "root", "root")
        host.rename(staged, path)
        found = host.read(path)
        assert found is not None
        assert found.content == b"ours"
        host.remove(path)
    after = contents(root.parent)
    assert after == before
    assert (root.parent / "secret").read_text() == OUTSIDE


def test_a_link_inside_is_followed_as_the_host_would(host: PosixHost, root: Path) -> None:
    (root / "etc/real").mkdir()
    (root / "etc/real/x").write_text("old")
    (root / "etc/x").symlink_to("/etc/real/x")
    host.rename(host.stage("/etc/x", b"new", 0o644, "root", "root"), "/etc/x")
    assert (root / "etc/x").is_symlink()
    assert (root / "etc/real/x").read_text() == "new"


def test_a_link_that_lies_in_wait_for_the_new_file_is_not_followed(host: PosixHost, root: Path) -> None:
    for name in (host.staged_name("/etc/x"), host.kept_name("/etc/x")):
        (root / name[1:]).symlink_to(root.parent / "secret")
    (root / "etc/x").write_text("old")
    host.rename(host.stage("/etc/x", b"new", 0o600, "root", "root"), "/etc/x")
    host.keep("/etc/x", host.kept_name("/etc/x"))
    assert (root.parent / "secret").read_text() == OUTSIDE
    assert (root / "etc/x").read_text() == "new"


PARTS = st.lists(st.sampled_from(["..", ".", "", "etc", "a", "b", "up", "top", "self", "out"]), max_size=8)


@settings(max_examples=300)
@given(PARTS, st.dictionaries(st.sampled_from(["a", "b", "up", "top", "out"]), PARTS.map("/".join), max_size=4))
def test_however_paths_and_links_wind_they_stay_inside(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str], links: dict[str, str]
) -> None:
    root = tmp_path_factory.mktemp("image")
    (root / "etc").mkdir()
    for name, target in links.items():
        os.symlink(target or ".", root / "etc" / name)
    host = PosixHost(str(root))
    try:
        real = host.real("/etc/" + "/".join(parts))
    except HostError:
        return  # a loop
    assert (real + "/").startswith(str(root) + "/")
    assert real == str(root) or os.path.realpath(os.path.dirname(real)).startswith(str(root))


# -- writing


@pytest.fixture
def opened_modes(monkeypatch: pytest.MonkeyPatch, root: Path) -> Iterator[list[int]]:
    """The mode of the new file at each system call that touches it, seen from outside."""
    seen: list[int] = []

    def spied(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*arguments: Any, **named: Any) -> Any:
            note()
            result = real(*arguments, **named)
            note()
            return result

        return call

    def note() -> None:
        seen.extend(stat.S_IMODE(path.lstat().st_mode) for path in (root / "etc").glob(".*fleetmail*"))

    for name in ("open", "fchmod", "fchown", "fsync", "utime", "rename", "chmod", "chown", "unlink"):
        monkeypatch.setattr(os, name, spied(name))
    yield seen
    monkeypatch.undo()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o400])
def test_a_new_file_is_never_wider_than_its_mode(
    host: PosixHost, root: Path, opened_modes: list[int], mode: int, umask: int
) -> None:
    before = os.umask(umask)
    try:
        staged = host.stage("/etc/x", b"kanarienvogel", mode, "root", "root")
    finally:
        os.umask(before)
    assert opened_modes
    for seen in opened_modes:
        assert seen & ~(mode | 0o600) == 0, f"{seen:04o}"
    found = host.read(staged)
    assert found == Snapshot(b"kanarienvogel", mode, "root", "root")


@as_root
def test_a_new_file_has_its_owner_before_its_mode(host: PosixHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were it the other way round, a group that is not the final one could read it for a moment."""
    calls: list[str] = []
    for name in ("fchown", "fchmod"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, _name=name, _real=real: (calls.append(_name), _real(*a)))
    staged = host.stage("/etc/x", b"", 0o640, "root", "posties")
    assert calls == ["fchown", "fchmod"]
    found = host.read(staged)
    assert found is not None
    assert (found.mode, found.owner, found.group) == (0o640, "root", "posties")


def test_a_new_file_lies_beside_its_target_and_does_not_touch_it(host: PosixHost, root: Path) -> None:
    (root / "etc/x").write_text("old")
    staged = host.stage("/etc/x", b"new", 0o600, "root", "root")
    assert staged == host.staged_name("/etc/x")
    assert os.path.dirname(staged) == "/etc"
    assert (root / "etc/x").read_text() == "old"
    again = host.stage("/etc/x", b"newer", 0o600, "root", "root")
    assert again == staged
    assert (root / staged[1:]).read_bytes() == b"newer"


def test_an_unknown_owner_is_an_error(host: PosixHost) -> None:
    for owner, group in (("nobody", "root"), ("root", "nogroup")):
        with pytest.raises(HostError) as caught:
            host.stage("/etc/x", b"kanarienvogel", 0o600, owner, group)
        assert "not known on the host" in str(caught.value)
        assert "kanarien" not in str(caught.value)


def test_the_old_file_is_kept_as_the_very_file(host: PosixHost, root: Path) -> None:
    (root / "etc/x").write_text("old")
    (root / "etc/x").chmod(0o600)
    os.utime(root / "etc/x", (1000, 1000))
    number = host.inode("/etc/x")
    kept = host.kept_name("/etc/x")
    assert host.keep("/etc/x", kept) is True
    host.rename(host.stage("/etc/x", b"new", 0o644, "root", "root"), "/etc/x")
    assert host.inode("/etc/x") != number
    host.rename(kept, "/etc/x")
    assert host.inode("/etc/x") == number
    found = (root / "etc/x").stat()
    assert (found.st_mtime, stat.S_IMODE(found.st_mode), found.st_nlink) == (1000, 0o600, 1)
    assert host.keep("/etc/none", host.kept_name("/etc/none")) is False


def test_a_rest_of_an_older_run_is_no_obstacle(host: PosixHost, root: Path) -> None:
    (root / "etc/x").write_text("old")
    for name in (host.staged_name("/etc/x"), host.kept_name("/etc/x")):
        (root / name[1:]).write_text("a rest")
    assert host.keep("/etc/x", host.kept_name("/etc/x")) is True
    host.rename(host.stage("/etc/x", b"new", 0o644, "root", "root"), "/etc/x")
    assert (root / host.kept_name("/etc/x")[1:]).read_text() == "old"


def test_directories(host: PosixHost, root: Path) -> None:
    assert host.make_directory("/var/lib/a/b", 0o700, "root", "root") is True
    assert host.make_directory("/var/lib/a/b", 0o755, "root", "root") is False
    assert [stat.S_IMODE((root / path).stat().st_mode) for path in ("var/lib/a", "var/lib/a/b")] == [0o755, 0o700]
    host.remove_directory("/var/lib/a")
    assert (root / "var/lib/a/b").is_dir()
    host.remove_tree("/var/lib/a/b")
    host.remove_directory("/var/lib/a")
    assert not (root / "var/lib/a").exists()


def test_what_is_not_there_is_removed_without_a_word(host: PosixHost) -> None:
    host.remove("/etc/none")
    host.remove_tree("/etc/none")
    host.remove_directory("/etc/none")


def test_a_write_that_does_not_work_is_an_error_with_its_path(host: PosixHost, root: Path) -> None:
    (root / "etc/folder").mkdir()
    (root / "etc/file").write_text("")
    for act in (
        lambda: host.stage("/etc/none/x", b"kanarienvogel", 0o600, "root", "root"),
        lambda: host.stage("/etc/file/x", b"kanarienvogel", 0o600, "root", "root"),
        lambda: host.rename(host.stage("/etc/folder", b"", 0o600, "root", "root"), "/etc/folder"),
        lambda: host.remove("/etc/folder"),
        lambda: host.make_directory("/etc/file/x", 0o700, "root", "root"),
    ):
        with pytest.raises(HostError) as caught:
            act()
        assert "/etc/" in str(caught.value)
        assert "kanarien" not in str(caught.value)


def test_one_run_at_a_time(host: PosixHost) -> None:
    order: list[str] = []
    held, done = threading.Event(), threading.Event()

    def first() -> None:
        with host.locked("/var/lib"):
            held.set()
            done.wait(5)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    held.wait(5)
    with pytest.raises(HostError) as caught, host.locked("/var/lib", patience=0.1):
        pass
    assert "another run" in str(caught.value)
    done.set()
    with host.locked("/var/lib"):
        order.append("second")
    thread.join(5)
    assert order == ["first", "second"]


def test_what_is_locked_may_go_while_another_run_waits_for_it(host: PosixHost, root: Path) -> None:
    held, waiting, order = threading.Event(), threading.Event(), []

    def first() -> None:
        with host.locked("/var/lib/ours"):
            held.set()
            waiting.wait(5)
            time.sleep(0.2)
            order.append("first")
            host.remove_directory("/var/lib/ours")

    thread = threading.Thread(target=first)
    thread.start()
    held.wait(5)
    waiting.set()
    with host.locked("/var/lib/ours"):
        order.append("second")
        assert stat.S_IMODE((root / "var/lib/ours").stat().st_mode) == 0o700
    thread.join(5)
    assert order == ["first", "second"]


# -- running (on the machine itself)


def test_a_program_is_run_in_an_environment_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KANARIENVOGEL", "zaunkoenig")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    said = PosixHost().run(["env"], environment={"MORE": "1"})
    assert said.code == 0
    assert "LC_ALL=C\n" in said.out
    assert "MORE=1\n" in said.out
    assert "KANARIENVOGEL" not in said.out
    assert PosixHost().run(["cat"], b"\xff in").out == "\udcff in"


def test_a_program_that_is_not_there_or_does_not_end() -> None:
    assert PosixHost().run(["no-such-program"]).code == 127
    said = PosixHost().run(["sleep", "5"], timeout=0.1)
    assert said.code == 124
    assert "sleep" in said.words
    assert PosixHost().run(["/etc/passwd"]).code == 126
    assert PosixHost().run(["sh", "-c", "kill -9 $$"]).code == -9


def test_what_a_program_says_last_is_one_short_line() -> None:
    said = PosixHost().run(["sh", "-c", "printf 'out\\n'; printf 'a\\nb  c\\n%2000s' x >&2; exit 3"])
    assert said.code == 3
    assert said.words.startswith("a b c")
    assert len(said.words) <= 600


# -- logs


def test_only_what_was_logged_since_the_mark(host: PosixHost, root: Path) -> None:
    log = root / "var/log/mail.log"
    log.parent.mkdir()
    log.write_text("before\n")
    mark = host.log_mark(["/var/log/own"])
    assert host.log(mark) == ""
    with log.open("a") as file:
        file.write("after\n")
    (root / "var/log/own").write_text("own\n")
    assert host.log(mark) == "after\nown\n"


def test_a_log_that_was_rotated_is_read_from_its_begin(host: PosixHost, root: Path) -> None:
    log = root / "var/log/mail.log"
    log.parent.mkdir()
    log.write_text("before\n")
    mark = host.log_mark()
    log.rename(log.with_suffix(".1"))
    log.write_text("new\n")
    assert host.log(mark) == "new\n"


def test_no_more_than_a_megabyte_of_a_log(host: PosixHost, root: Path) -> None:
    log = root / "var/log/mail.log"
    log.parent.mkdir()
    log.write_text("")
    mark = host.log_mark()
    log.write_text("x" * (mail_log.LOG_LIMIT + 1000) + "end")
    assert len(host.log(mark)) == mail_log.LOG_LIMIT
    assert host.log(mark).endswith("xend")


# -- what the token store needs


def test_a_directory_of_our_own(host: PosixHost, root: Path) -> None:
    assert not host.own_directory("/var/lib/store", repair=False)
    assert not (root / "var/lib/store").exists()
    assert host.own_directory("/var/lib/store")
    assert stat.S_IMODE((root / "var/lib/store").stat().st_mode) == 0o700
    assert not host.own_directory("/var/lib/store")
    (root / "var/lib/store").chmod(0o755)
    assert host.own_directory("/var/lib/store", repair=False)
    assert stat.S_IMODE((root / "var/lib/store").stat().st_mode) == 0o755
    assert host.own_directory("/var/lib/store")
    assert stat.S_IMODE((root / "var/lib/store").stat().st_mode) == 0o700
    with pytest.raises(HostError, match="/etc/passwd: is not a directory"):
        host.own_directory("/etc/passwd")


@as_root
def test_a_directory_of_somebody_elses(host: PosixHost, root: Path) -> None:
    os.chown(root / "var/lib", 4711, 4712)
    with pytest.raises(HostError, match="/var/lib: belongs to postie, not to who runs this"):
        host.own_directory("/var/lib")


def test_a_candidate_is_written_over_where_it_lies(host: PosixHost, root: Path) -> None:
    staged = host.stage("/etc/x", b"n" * 5000, 0o600, "root", "root")
    inode = os.stat(host.real(staged)).st_ino
    host.refill(staged, b"an answer")
    host.sync(staged)
    host.rename(staged, "/etc/x")
    assert (root / "etc/x").read_bytes() == b"an answer"
    assert (root / "etc/x").stat().st_ino == inode
    with pytest.raises(HostError, match="cannot be written"):
        host.refill(staged, b"nobody reserved this")


def test_replacing_follows_no_link(host: PosixHost, root: Path, tmp_path: Path) -> None:
    (root / "etc/link").symlink_to(tmp_path / "secret")
    assert host.is_link("/etc/link")
    host.replace("/etc/link", b"ours", 0o640, "root", "root")
    assert not host.is_link("/etc/link")
    assert (root / "etc/link").read_bytes() == b"ours"
    assert stat.S_IMODE((root / "etc/link").stat().st_mode) == 0o640
    (root / "etc/link").unlink()
    (root / "etc/link").symlink_to(tmp_path / "secret")
    host.replace("/etc/link", None, 0o640, "root", "root")
    assert not os.path.lexists(root / "etc/link")
    assert (tmp_path / "secret").read_text() == OUTSIDE


def test_replacing_what_cannot_be(host: PosixHost, root: Path) -> None:
    (root / "etc/folder").mkdir()
    before = contents(root)
    with pytest.raises(HostError, match="/etc/folder: cannot be written"):
        host.replace("/etc/folder", b"x", 0o644, "root", "root")
    with pytest.raises(HostError, match="/etc/none: cannot be written"):
        host.replace("/etc/none", None, 0o644, "root", "root")
    with pytest.raises(HostError, match="user nobody-there: is not known"):
        host.replace("/etc/passwd", b"x", 0o644, "nobody-there", "root")
    assert contents(root) == before


@as_root
@pytest.mark.parametrize("kind", ["mode", "owner"])
def test_nobody_else_leads_the_way(host: PosixHost, root: Path, kind: str) -> None:
    (root / "var/lib/theirs/tokens").mkdir(parents=True)
    if kind == "mode":
        (root / "var/lib/theirs").chmod(0o777)
    else:
        os.chown(root / "var/lib/theirs", 4711, 4712)
    with pytest.raises(HostError, match="/var/lib/theirs/tokens: can be led elsewhere by who may write to"):
        host.replace("/var/lib/theirs/tokens/x", b"x", 0o644, "root", "root")
    os.chown(root / "var/lib/theirs", ME, MINE)
    (root / "var/lib/theirs").chmod(0o755)
    os.chown(root / "var/lib/theirs/tokens", 4711, 4712)  # the last one may be its reader's
    host.replace("/var/lib/theirs/tokens/x", b"x", 0o600, "postie", "posties")
    assert (root / "var/lib/theirs/tokens/x").stat().st_uid == 4711
