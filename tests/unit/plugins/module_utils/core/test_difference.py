# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import time
from typing import Any

from unit.fake_host import FakeHost

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends.base import FileState, Observed
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.difference import difference
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.plan import compare
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.redaction import Secret


def diff_of(wanted: dict[str, Any] | None, found: dict[str, Any], host: FakeHost, *files: FileState) -> dict[str, Any]:
    return difference("service default (postfix)", compare(wanted, Observed(found), files, host))


def test_the_form_before_and_after() -> None:
    wanted = {"port": 587, "validate_certs": True, "senders": ("a", "b"), "from_address": "x@y.test"}
    found = {"port": 25, "validate_certs": False, "senders": (), "from_address": ""}
    shown = diff_of(wanted, found, FakeHost())
    assert shown["before_header"] == shown["after_header"] == "service default (postfix)"
    assert shown["before"].splitlines()[1:] == [
        *("  port: 25", "  validate_certs: false"),
        *("  senders: ", "  from_address: (none)"),
    ]
    assert shown["after"].splitlines()[1:] == [
        *("  port: 587", "  validate_certs: true"),
        *("  senders: a, b", "  from_address: x@y.test"),
    ]


def test_only_the_lines_that_go_and_come() -> None:
    host = FakeHost({"/etc/x": "same\nold\nsame too\n"})
    shown = diff_of({}, {}, host, FileState("/etc/x", b"same\nnew\nand more\nsame too\n"))
    assert shown["before"].splitlines()[2:] == ["file /etc/x (present)", "  old"]
    assert shown["after"].splitlines()[2:] == ["file /etc/x (present)", "  new", "  and more"]


def test_thousands_of_equal_lines_take_no_minutes() -> None:
    host = FakeHost({"/etc/x": "#\n" * 20000 + "old\n" + "#\n" * 20000})
    begun = time.process_time()
    shown = diff_of({}, {}, host, FileState("/etc/x", ("#\n" * 20000 + "new\n" + "#\n" * 20000).encode()))
    assert time.process_time() - begun < 10
    assert shown["before"].splitlines()[2:3] == ["file /etc/x (present)"]
    assert "  new" in shown["after"].splitlines()


def test_a_file_that_comes_or_goes() -> None:
    shown = diff_of({}, {}, FakeHost({"/etc/x": "old\n"}), FileState("/etc/y", b"new\n"), FileState("/etc/x", None))
    assert "file /etc/y (absent)\nfile /etc/x (present)\n  old\n" in shown["before"]
    assert "file /etc/y (present)\n  new\nfile /etc/x (absent)\n" in shown["after"]


def test_a_secret_shows_that_it_changes_and_nothing_of_itself() -> None:
    host = FakeHost({"/etc/secret": "zaunkoenig-alt\n", "/etc/gone": "zaunkoenig-weg\n"})
    files = FileState("/etc/secret", b"kanarienvogel\n", 0o600, secret=True), FileState("/etc/gone", None, secret=True)
    shown = diff_of({"password": Secret("kanarienvogel")}, {"password": Secret("zaunkoenig-alt")}, host, *files)
    assert "kanarien" not in str(shown)
    assert "zaun" not in str(shown)
    assert "  password: (set)" in shown["before"]
    assert "  password: (changed)" in shown["after"]
    assert "file /etc/secret (present, secret)" in shown["after"]
    assert "file /etc/gone (absent, secret)" in shown["after"]


def test_bytes_that_are_no_text_do_no_harm() -> None:
    shown = diff_of({}, {}, FakeHost({"/etc/x": b"\xff\n"}), FileState("/etc/x", "ä\n".encode()))
    assert "  \ufffd" in shown["before"]
    assert "  ä" in shown["after"]
