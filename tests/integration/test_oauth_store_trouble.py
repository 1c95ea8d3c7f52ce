# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A disk that is full, a file system that is read-only, at once or while the server is asked: no refresh token is spent
without a place to keep the answer.

The store lies on a small file system of its own.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.oauth_server import OAuthServer, why_unavailable
from lab.token_host import TokenHost

pytestmark = [
    pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "the server is there"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system"),
]

PAGE = os.sysconf("SC_PAGE_SIZE")


class SmallDisk:
    """A file system in memory at a folder."""

    def __init__(self, folder: Path, size: str = "1m", inodes: int = 100) -> None:
        self.folder = folder
        folder.mkdir()
        options = f"size={size},nr_inodes={inodes},mode=0755"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)

    def __enter__(self) -> SmallDisk:
        return self

    def __exit__(self, *_exception: object) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    def remount(self, how: str) -> None:
        """ro or rw."""
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.folder)], check=True)

    def fill(self, left: int = 0) -> None:
        """Leave so many pages free."""
        with open(self.folder / "filling", "wb", buffering=0) as filling:
            for size in (1 << 16, PAGE):
                with contextlib.suppress(OSError):
                    while True:
                        filling.write(bytes(size))
            filling.truncate(max(0, filling.tell() - left * PAGE))

    def empty(self) -> None:
        (self.folder / "filling").unlink()

    def take_names(self, left: int = 0) -> None:
        """Leave so many inodes free."""
        names = []
        with contextlib.suppress(OSError):
            while True:
                name = self.folder / f"name-{len(names)}"
                name.touch()
                names.append(name)
        for name in names[len(names) - left :]:
            name.unlink()


class Desk:
    """A token on a small disk, its reader's file on the machine's own."""

    def __init__(self, disk: SmallDisk, server: OAuthServer) -> None:
        self.disk, self.server = disk, server
        self.host = TokenHost(disk.folder, server)
        self.host.tokens = disk.folder.parent / "tokens"
        self.reader = self.host.consumer()
        self.host.authorize(age=4000)
        self.first = self.host.refresh_token()
        server.forget()

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = self.host.command(*words)
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={"LC_ALL": "C"})

    def keeper(self, *words: str) -> tuple[int, str]:
        process = self.start(*words)
        out, errors = process.communicate(timeout=60)
        assert "Traceback" not in errors
        return process.returncode, out + errors

    def nothing_was_spent(self) -> None:
        assert self.server.refreshes() == []
        assert self.host.refresh_token() == self.first

    def goes_on(self) -> None:
        """The grant lives, and the next tick uses it."""
        code, said = self.keeper("tick")
        assert code == 0, said
        assert self.host.status()["status"] == "authorized"
        known = self.server.look(self.host.refresh_token())
        assert known
        assert known["usable"]
        assert self.reader.read_text() == self.host.access_token() + "\n"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with SmallDisk(tmp_path / "disk") as disk, OAuthServer() as server:
        yield Desk(disk, server)


def test_a_full_disk(desk: Desk) -> None:
    """However little is left: either nothing is asked, or the answer is kept."""
    refused = 0
    for left in (0, 1, 2, 5, 16, 17, 18, 19, 25):
        desk.disk.fill(left)
        before = len(desk.server.refreshes())
        code, said = desk.keeper("refresh", "default")
        asked = len(desk.server.refreshes()) - before
        if code:
            refused += 1
            assert asked == 0, f"{left} pages left: {said}"
            assert code == 3
            assert "No space left" in said
            assert "make room" in said
        else:
            assert asked == 1
        known = desk.server.look(desk.host.refresh_token())
        assert known
        assert known["usable"], f"{left} pages left"
        assert desk.host.state().lost_answer_at == 0
        desk.disk.empty()
    assert 3 <= refused <= 8, "the test did not meet both"
    desk.goes_on()


def test_no_inode_left(desk: Desk) -> None:
    desk.disk.take_names()
    code, said = desk.keeper("tick")
    assert code == 3
    assert "No space left" in said
    desk.nothing_was_spent()


def test_a_disk_that_others_fill_while_the_server_is_asked(desk: Desk) -> None:
    """The room for the answer was taken before."""
    desk.server.change(delay_ms=1500)
    process = desk.start("tick")
    desk.server.wait_for(lambda: bool(desk.server.refreshes()))
    desk.disk.fill()
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, out + errors
    assert desk.host.refresh_token() != desk.first
    assert desk.reader.read_text() == desk.host.access_token() + "\n"
    desk.disk.empty()
    desk.server.change(delay_ms=0)
    assert desk.keeper("refresh", "default")[0] == 0


def test_a_read_only_store(desk: Desk) -> None:
    desk.disk.remount("ro")
    code, said = desk.keeper("tick")
    assert code == 3
    assert "Read-only file system" in said
    assert "mount it writable" in said
    desk.nothing_was_spent()
    assert desk.keeper("status")[0] == 0, "a status needs no writing"
    desk.disk.remount("rw")
    desk.goes_on()


def test_a_read_only_store_is_no_trouble_while_the_token_is_good(desk: Desk) -> None:
    desk.host.authorize()
    desk.disk.remount("ro")
    assert desk.keeper("tick", "--quiet") == (0, "")
    assert desk.keeper("token", "default") == (0, desk.host.access_token() + "\n")


def test_a_store_that_is_read_only_for_a_moment(desk: Desk) -> None:
    """It turns so while the server is asked, as it does when a disk has an error, and somebody helps in time."""
    desk.server.change(delay_ms=1000)
    process = desk.start("tick")
    desk.server.wait_for(lambda: bool(desk.server.refreshes()))
    desk.disk.remount("ro")
    time.sleep(1.8)
    desk.disk.remount("rw")
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, out + errors
    desk.server.change(delay_ms=0)
    assert desk.keeper("refresh", "default")[0] == 0


def test_a_store_that_stays_read_only_is_told(desk: Desk) -> None:
    """Nothing can be done for the answer then; what became of the grant is said by the next run that can write."""
    desk.server.change(delay_ms=1000)
    process = desk.start("tick")
    desk.server.wait_for(lambda: bool(desk.server.refreshes()))
    desk.disk.remount("ro")
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "Read-only file system" in out + errors
    assert "a new refresh token is lost" in errors + out
    assert "Traceback" not in errors
    desk.disk.remount("rw")
    desk.server.change(delay_ms=0)
    assert desk.keeper("tick")[0] == 2
    status = desk.host.status()
    assert status["status"] == "revoked"
    assert "interrupted" in status["next_step"]


def test_a_full_disk_of_a_reader_is_told_and_the_grant_is_kept(tmp_path: Path) -> None:
    with SmallDisk(tmp_path / "disk") as disk, OAuthServer() as server:
        host = TokenHost(tmp_path, server)
        full = host.consumer(format="plain", path=str(disk.folder / "tokens" / "default"))
        other = host.consumer(format="exim")
        host.authorize(age=4000)
        disk.fill()
        said = host.keeper("tick")
        assert said.returncode == 1
        assert "No space left" in said.stdout
        assert other.read_text() == f"access_token={host.access_token()}\n"
        disk.empty()
        said = host.keeper("tick")
        assert said.returncode == 0, said
        assert full.read_text() == host.access_token() + "\n"
        assert len(server.refreshes()) == 1
