# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The store: what is written is read, what is not ours is told and kept, and nothing is wider than it should be."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.token_store import NAME, NOW, Held

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.errors import FleetmailError, HostError
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth import document
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.records import LATEST, kept_in, record_of
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.state import (
    Access,
    Event,
    HeldGrant,
    Pending,
    SetAside,
    TokenState,
    Trouble,
)
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.status import view
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.store import Store, is_name
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.posix_host import PosixHost
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.redaction import Secret

text = st.text(max_size=20)
times = st.integers(0, LATEST)
texts = st.lists(text, max_size=3).map(tuple)
secrets = st.builds(Secret, text)
data = st.dictionaries(text, st.one_of(text, st.integers(), st.booleans(), st.none(), st.lists(text)), max_size=3)
held = st.builds(
    HeldGrant, text, text, st.none() | secrets, times, text, st.booleans(), times, times, times, st.none() | texts
)
troubles = st.builds(
    Trouble, text, text, st.booleans(), text, text, texts, text, text, times, times, st.integers(0, 10**9), times
)
states = st.builds(
    TokenState,
    st.just(NAME),
    grant=st.none() | held,
    access=st.none() | st.builds(Access, secrets, times, times, st.booleans(), text),
    pending=st.none() | st.builds(Pending, text, text, times, times, data),
    trouble=st.none() | troubles,
    aside=st.lists(st.builds(SetAside, held, text, times), max_size=3).map(tuple),
    history=st.lists(st.builds(Event, times, text, text), max_size=3).map(tuple),
    lost_answer_at=times,
    clock_off=st.integers(),
    woken_at=times,
    reported=text,
    serial=st.integers(0, 10**9),
)


GRANT = HeldGrant("fleet at x", "device_code", Secret("rt"), NOW, "user", True, NOW, NOW, 9, ("smtp",))
FULL = TokenState(
    NAME,
    grant=GRANT,
    access=Access(Secret("at"), NOW, NOW),
    pending=Pending("device_code", "fleet at x", NOW, NOW, {"device_code": "secret"}),
    trouble=Trouble("policy", "blocked", codes=("53003",)),
    aside=(SetAside(GRANT, "expired", NOW),),
    history=(Event(NOW, "authorized"),),
    serial=3,
)


@settings(deadline=None)  # the first one imports what the others have, and a busy machine takes its time over that
@given(states)
def test_what_is_written_is_read(state: TokenState) -> None:
    content = document.written(record_of(state))
    assert TokenState(NAME, **kept_in(document.understood("x", content))) == state
    assert view(state, NOW)["name"] == NAME


@pytest.fixture
def one(tmp_path: Path) -> Held:
    one = Held(tmp_path)
    one.authorize()
    return one


def mode_of(path: str | Path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


def test_nothing_in_it_can_be_read_by_others(one: Held) -> None:
    one.consumer()
    for folder, folders, files in os.walk(one.store.directory):
        assert mode_of(folder) == 0o700
        assert all(mode_of(os.path.join(folder, name)) == 0o600 for name in files)
        assert folders or files


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=200))
def test_bytes_that_are_not_ours_are_kept(one: Held, content: bytes) -> None:
    one.file.write_bytes(content)
    refused_everywhere(one, one.file)
    assert one.file.read_bytes() == content


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(place=st.data())
def test_a_record_that_was_tampered_with_is_kept(one: Held, place: Any) -> None:
    """Any value in it replaced by another type's: told, or still a state."""
    record = json.loads(document.written(record_of(FULL)))
    holder, key = place.draw(st.sampled_from(_places(record)))
    holder[key] = place.draw(st.sampled_from([None, True, -1, 1 << 70, 1.5, "x", [], [1], {}, {"a": 1}]))
    content = json.dumps(record).encode()
    one.file.write_bytes(content)
    with contextlib.suppress(HostError):
        assert view(one.state, NOW)["name"] == NAME
    assert one.file.read_bytes() == content


def _places(value: Any) -> list[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(value, key) for key, _item in items] + [place for _key, item in items for place in _places(item)]


def refused_everywhere(one: Held, path: Path) -> None:
    """No way to use the token does anything but tell the file."""
    ways: list[Callable[[], Any]] = [lambda: one.state, one.ensure, one.authorize, lambda: one.remove(False)]
    for way in ways:
        with pytest.raises(FleetmailError) as caught:
            way()
        assert str(path) in str(caught.value)
        assert caught.value.problems[0].hint


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is damaged"),
        (b"{", "is damaged"),
        (b"\xff\xfe", "is damaged"),
        (b"[" * 100_000, "is damaged"),
        (b"[]", "is not a file of the token store"),
        (b"{}", "is not a file of the token store"),
        (b'{"version": "1"}', "is not a file of the token store"),
        (b'{"version": true}', "is not a file of the token store"),
        (b'{"version": 2, "grant": "unknown"}', "newer release (version 2, known here: 1)"),
        (b'{"version": 1}', "fields"),
        (b'{"version": 1, "serial": 1, "extra": 1}', "fields"),
    ],
)
@pytest.mark.parametrize("file", ["token.json", "registration.json", "consumers/default.plain.json"])
def test_a_file_that_is_not_ours_is_told_and_kept(one: Held, file: str, content: bytes, words: str) -> None:
    if file == "registration.json" and "fields" in words:
        return  # a registration has a default for each of its fields
    one.consumer()
    path = Path(one.store.path(NAME), file)
    path.write_bytes(content)
    refused_everywhere(one, path)
    with pytest.raises(HostError, match=words.replace("(", r"\(").replace(")", r"\)")):
        one.store.read(NAME)
    assert path.read_bytes() == content


def test_a_registration_that_is_not_ours_is_not_overwritten(one: Held) -> None:
    path = Path(one.store.registration_path(NAME))
    path.write_bytes(b"precious")
    with one.store.locked("other"), pytest.raises(HostError, match="is damaged"):
        one.store.write_registration(NAME, one.registration)
    assert path.read_bytes() == b"precious"


def test_a_registration_with_a_value_of_another_type(one: Held) -> None:
    path = Path(one.store.registration_path(NAME))
    path.write_bytes(document.written({**one.registration.as_record(), "min_validity": "600"}))
    refused_everywhere(one, path)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", ".x", "a b", "a\n", "ä", "x" * 64])
def test_a_name_is_no_way_out_of_the_store(one: Held, name: str) -> None:
    assert not is_name(name)
    with pytest.raises(HostError):
        one.store.read(name)


def test_names(one: Held, tmp_path: Path) -> None:
    for other in ("later", "alpha"):
        Path(one.store.path(other)).mkdir(mode=0o700)
    Path(one.store.path("alpha"), "registration.json").write_bytes(b"{}")
    Path(one.store.directory, ".hidden").mkdir()
    assert one.store.names() == ["alpha", "default"]
    assert Store(PosixHost(), str(tmp_path / "nothing")).names() == []


def test_a_store_that_is_a_file(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("mine")
    store = Store(PosixHost(), str(place))
    with pytest.raises(HostError, match=f"{place}: is not a directory"):
        store.names()
    with pytest.raises(HostError, match="is not a directory"), store.locked(NAME):
        pass
    assert place.read_text() == "mine"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_somebody_elses_store_is_left_alone(one: Held) -> None:
    os.chown(one.store.directory, 65534, 65534)
    with pytest.raises(HostError, match="belongs to nobody"):
        one.store.names()
    with pytest.raises(HostError, match="belongs to nobody"), one.store.locked(NAME):
        pass
    assert os.stat(one.store.directory).st_uid == 65534


def test_what_others_could_read_is_told_and_repaired(one: Held) -> None:
    os.chmod(one.store.directory, 0o755)
    os.chmod(one.store.path(NAME), 0o755)
    one.file.chmod(0o644)
    Path(one.store.registration_path(NAME)).chmod(0o640)
    assert len(one.state.wide) == 2
    outcome = one.ensure()
    assert outcome.changed
    assert sum("could be read by others" in warning for warning in outcome.warnings) == 2
    assert not one.ensure().changed
    test_nothing_in_it_can_be_read_by_others(one)


def test_the_lock_keeps_others_out(one: Held) -> None:
    again = one.store.locked(NAME, patience=0.1)
    with one.store.locked(NAME), pytest.raises(HostError, match="another run holds its lock"), again:
        pytest.fail("two hold it")


def test_who_waited_for_a_directory_that_was_removed_locks_the_new_one(one: Held) -> None:
    """Else two would hold it: one on the old directory's inode, one on the new one's."""
    from concurrent.futures import ThreadPoolExecutor

    def wait_and_look() -> int:
        with one.store.locked(NAME):
            return os.stat(one.store.path(NAME)).st_ino

    with ThreadPoolExecutor(1) as pool:
        with one.store.locked(NAME):
            waiting = pool.submit(wait_and_look)
            one.store.remove(NAME)
            os.mkdir(one.store.path(NAME), 0o700)
            new = os.stat(one.store.path(NAME)).st_ino
        assert waiting.result(10) == new


# -- what an interrupted run leaves


def reserved(one: Held) -> Path:
    """Begin a request and be killed: gives the candidate that is left."""
    with one.store.locked(NAME):
        one.store.reserve(NAME, NOW + 5)
    one.store._reserved.clear()
    return Path(one.store._candidate(NAME))


def test_room_is_really_taken(one: Held) -> None:
    candidate = reserved(one)
    found = os.stat(candidate)
    assert found.st_size > 64 * 1024
    assert found.st_blocks * 512 >= found.st_size
    assert mode_of(candidate) == 0o600
    assert view(one.state, NOW)["status"] == "authorized"


def test_the_answer_lies_where_the_room_was_taken(one: Held) -> None:
    with one.store.locked(NAME):
        one.store.reserve(NAME, NOW)
        inode = os.stat(one.store._candidate(NAME)).st_ino
        one.store.write(NAME, one.state)
    assert os.stat(one.file).st_ino == inode
    assert one.file.stat().st_size < 4096
    assert (
        os.listdir(one.store.path(NAME)) == ["registration.json", "token.json"]
        or len(os.listdir(one.store.path(NAME))) == 2
    )


def test_an_answer_that_never_came_is_told(one: Held) -> None:
    reserved(one)
    with one.store.locked(NAME):
        state = one.store.recovered(NAME, NOW + 60)
    assert state.lost_answer_at == NOW + 5
    assert view(state, NOW)["cause"] == "answer_lost"


def test_half_an_answer_is_none(one: Held) -> None:
    candidate = reserved(one)
    whole = document.written(record_of(one.state._replace(serial=2)))
    for length in (*range(0, len(whole), 29), *range(len(whole) - 4, len(whole))):
        candidate.write_bytes(whole[:length] + b" " * 70_000)
        with one.store.locked(NAME):
            state = one.store.recovered(NAME, NOW + 60)
        if state.serial == 2:  # all but the white space at its end
            assert length >= len(whole) - 1
            break
        assert state.lost_answer_at == NOW + 60


def test_a_whole_answer_is_taken_up(one: Held) -> None:
    candidate = reserved(one)
    newer = one.state._replace(serial=2, reported="taken up")
    candidate.write_bytes(document.written(record_of(newer)).ljust(70_000))
    with one.store.locked(NAME):
        assert one.store.recovered(NAME, NOW + 60) == newer
    assert not candidate.exists()
    assert one.state == newer


@pytest.mark.parametrize("serial", [0, 1, 3])
def test_the_rest_of_another_time_is_not_taken_up(one: Held, serial: int) -> None:
    candidate = reserved(one)
    candidate.write_bytes(document.written(record_of(one.state._replace(serial=serial, reported="old"))))
    with one.store.locked(NAME):
        assert one.store.recovered(NAME, NOW) == one.state
