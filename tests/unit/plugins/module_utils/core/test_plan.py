# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from unit.fake_host import FakeHost

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends.base import FileState, Observed
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.host import Snapshot
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.plan import Drift, compare
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.redaction import Secret

FORM = {"host": "relay", "port": 25, "password": Secret("p"), "senders": ("a",)}


def drift(wanted: dict[str, Any] | None, found: dict[str, Any], **observed: Any) -> list[Drift]:
    return compare(wanted, Observed(found, **observed), [], FakeHost()).drift


def test_nothing_differs() -> None:
    plan = compare(FORM, Observed(dict(FORM)), [], FakeHost())
    assert plan.empty
    assert plan.drift == plan.changes == []


@pytest.mark.parametrize(
    ("wanted", "found", "told"),
    [
        ({"port": 25}, {"port": 587}, ("port", 587, 25)),
        ({"port": 25}, {}, ("port", None, 25)),
        ({"senders": ("a", "b")}, {"senders": ()}, ("senders", [], ["a", "b"])),
        ({"password": Secret("p")}, {"password": Secret("q")}, ("password", "(set)", "(changed)")),
        ({"password": Secret("p")}, {"password": None}, ("password", "(unset)", "(set)")),
        ({"password": None}, {"password": Secret("q")}, ("password", "(set)", "(unset)")),
        ({"validate_certs": True}, {"validate_certs": 1}, None),
    ],
)
def test_drift_is_told_in_the_words_of_the_form(
    wanted: dict[str, Any], found: dict[str, Any], told: tuple[Any, ...] | None
) -> None:
    assert drift(wanted, found) == ([] if told is None else [told])


def test_what_is_not_a_field_of_the_backend_is_no_drift() -> None:
    assert drift({"port": 25}, {"port": 25, "other": "x"}) == []


def test_a_stopped_service_is_drift_and_to_be_started() -> None:
    plan = compare({}, Observed({}, running=False), [], FakeHost())
    assert plan.drift == [("running", False, True)]
    assert plan.start
    assert not plan.empty
    assert compare({}, Observed({}, running=None), [], FakeHost()).empty


def test_faults_are_drift() -> None:
    observed = Observed({})
    observed.faults.append(("map", "stale", "compiled"))
    assert compare({}, observed, [], FakeHost()).drift == [("map", "stale", "compiled")]


def test_absent_is_drift_where_there_is_something_of_ours() -> None:
    assert drift(None, {"port": 25}) == []
    assert drift(None, {}, managed=True) == [("state", "present", "absent")]
    plan = compare(None, Observed({}), [FileState("/etc/x", None)], FakeHost({"/etc/x": "left over"}))
    assert plan.drift == [("state", "present", "absent")]


@pytest.mark.parametrize(
    ("state", "told", "action"),
    [
        (FileState("/etc/x", b"text"), [], None),
        (FileState("/etc/x", b"text", 0o640, "root", "mail"), [], None),
        (FileState("/etc/x", b"other"), [("content of /etc/x", "(differs)", "(managed)")], "changed"),
        (FileState("/etc/x", b"text", 0o600), [("mode of /etc/x", "0640", "0600")], "permissions"),
        (FileState("/etc/x", b"text", owner="mail"), [("owner of /etc/x", "root", "mail")], "permissions"),
        (FileState("/etc/x", b"text", group="root"), [("group of /etc/x", "mail", "root")], "permissions"),
        (FileState("/etc/x", None), [("presence of /etc/x", True, False)], "removed"),
        (FileState("/etc/y", None), [], None),
        (FileState("/etc/y", b"", 0o600), [("presence of /etc/y", False, True)], "created"),
    ],
)
def test_files(state: FileState, told: list[Drift], action: str | None) -> None:
    host = FakeHost()
    host.put("/etc/x", "text", 0o640, "root", "mail")
    plan = compare({}, Observed({}), [state], host)
    assert plan.drift == told
    assert [change.action for change in plan.changes] == ([] if action is None else [action])


def test_content_is_not_told_twice_but_permissions_are() -> None:
    host = FakeHost()
    host.put("/etc/x", "text", 0o644)
    plan = compare({"port": 25}, Observed({"port": 26}), [FileState("/etc/x", b"new", 0o600)], host)
    assert plan.drift == [("port", 26, 25), ("mode of /etc/x", "0644", "0600")]


def test_a_compiled_file_is_judged_by_its_permissions_too() -> None:
    state = FileState("/etc/map", b"k v\n", 0o600, "root", "root", build=("postmap", "hash:"), built=".db")
    host = FakeHost()
    host.put("/etc/map", "k v\n", 0o600)
    host.put("/etc/map.db", b"\0", 0o644)
    assert compare({}, Observed({}), [state], host).drift == [("mode of /etc/map.db", "0644", "0600")]
    host.remove("/etc/map.db")
    assert compare({}, Observed({}), [state], host).drift == [("presence of /etc/map.db", False, True)]
    host.put("/etc/map.db", b"\0", 0o600)
    assert compare({}, Observed({}), [state], host).empty


@pytest.mark.parametrize(
    ("theirs", "wanted", "mode", "fields", "takes_over"),
    [
        (True, "same", 0o600, [], True),
        (True, "other", 0o600, ["host"], False),
        (True, "same", 0o644, ["mode of /etc/a"], False),
        (False, "same", 0o600, ["content of /etc/a"], False),
    ],
)
def test_what_others_set_up_as_wanted_is_taken_over_and_no_drift(
    theirs: bool, wanted: str, mode: int, fields: list[str], takes_over: bool
) -> None:
    host = FakeHost({"/etc/a": Snapshot(b"by hand", mode, "root", "root")})
    observed = Observed({"host": "same"})
    observed.theirs = theirs
    plan = compare({"host": wanted}, observed, [FileState("/etc/a", b"ours", 0o600)], host)
    assert [drift.field for drift in plan.drift] == fields
    assert plan.takes_over == takes_over
    assert not plan.empty
