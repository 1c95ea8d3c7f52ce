# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from by_hand import PASSWORD
from by_hand.msmtp import CASES, HOME, MAIN
from unit.audited import assert_seen, laid_down, looked_at

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.audit import audit
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends import msmtp_by_hand
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.posix_host import PosixHost


@pytest.mark.parametrize("name", CASES)
def test_what_people_write_is_understood(name: str) -> None:
    result = looked_at(laid_down(CASES[name]), homes=True)
    assert_seen(CASES[name], result)
    assert PASSWORD not in json.dumps(result)


def test_homes_are_looked_into_only_when_that_is_asked() -> None:
    result = looked_at(laid_down(CASES["users with files of their own"]))
    assert [one["name"] for one in result["services"]] == ["default"]
    assert [one["path"] for one in result["findings"] if one["id"] == "user-file"] == [HOME]


def test_of_a_users_two_files_the_one_that_msmtp_reads_is_shown() -> None:
    host = laid_down(CASES["users with files of their own"])
    other = "/home/user/.config/msmtp/config"
    host.remove(HOME)
    for path in (other, HOME):
        host.put(path, f"account default\nhost relay.example.test\nuser {path}\n", 0o600, "user")
        result = looked_at(host, homes=True)
        assert [one["username"] or one["path"] for one in result["services"] if one["user"]] == [path]
        assert [one["path"] for one in result["findings"] if one["id"] == "user-file"] == [path]


def test_a_socket_is_no_relay_to_be_asked_and_a_pinned_certificate_is_not_verified() -> None:
    base = CASES["users with files of their own"]
    host = laid_down(base._replace(files={MAIN: "account default\nhost x.example\nsocket /run/relay\nport 25\n"}))
    result = looked_at(host, probe="connect")
    assert [one["id"] for one in result["findings"]] == ["relay-behind-tunnel"]
    assert "verification" not in result["services"][0]
    pinned = "account default\nhost 127.0.0.1\nport 9\ntls on\ntls_fingerprint " + ":".join(["AB"] * 32) + "\n"
    host = laid_down(base._replace(files={MAIN: pinned}))
    assert looked_at(host)["services"][0]["validate_certs"] is None


def test_an_eval_behind_a_service_of_ours_is_told() -> None:
    """What holds cannot be known without its command, and a service with nothing in it would say that all is well."""
    ours = "# BEGIN fleetmail.smtp default\naccount default\nhost relay.example.test\n# END fleetmail.smtp default\n"
    base = CASES["users with files of their own"]
    result = looked_at(laid_down(base._replace(files={MAIN: ours + "eval echo tls off\n"})))
    assert [(one["name"], one["managed"], one["host"]) for one in result["services"]] == [("default", True, None)]
    told = [one["message"] for one in result["findings"] if one["id"] == "not-understood"]
    assert len(told) == 1
    assert "an eval" in told[0]


def test_what_a_user_names_is_read_only_where_it_is_that_users_own() -> None:
    """Else a relay of the user's choice would get root's secrets, when probing is asked for."""
    host = laid_down(CASES["users with files of their own"])
    account = "account default\nhost relay.example.test\ntls on\nauth on\nuser someone\n"
    mine = f"{account}passwordeval cat /home/user/.secret\n"
    for owner, password in (("user", "(set)"), ("root", "(unset)")):
        host.put("/home/user/.secret", "of-somebody", 0o600, owner)
        host.put(HOME, mine, 0o600, "user")
        (found,) = [one for one in looked_at(host, homes=True)["services"] if one["user"]]
        assert found["password"] == password
    host.put(HOME, account, 0o600, "user")
    for owner, password in (("user", "(set)"), ("root", "(unset)")):
        host.put("/home/user/.netrc", "machine relay.example.test login someone password of-somebody", 0o600, owner)
        (found,) = [one for one in looked_at(host, homes=True)["services"] if one["user"]]
        assert found["password"] == password


def test_one_users_odd_file_hides_nobody_elses(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    users = ("first", "second", "third")
    for user in users:
        home = tmp_path / "home" / user
        home.mkdir(parents=True)
        (home / ".msmtprc").write_text(f"account default\nhost relay.example.test\nuser {user}\n")
    (tmp_path / "home/first/.msmtprc").unlink()
    (tmp_path / "home/first/.msmtprc").mkdir()
    (tmp_path / "home/second/.msmtprc").unlink()
    with (tmp_path / "home/second/.msmtprc").open("wb") as sparse:
        sparse.truncate(1 << 40)
    (tmp_path / "etc/msmtprc").mkdir()
    result = audit({"homes": True}, PosixHost(str(tmp_path)))
    assert [one["user"] for one in result["services"]] == ["third"]
    assert sorted(one["path"] for one in result["findings"] if one["id"] == "unreadable") == [
        "/etc/msmtprc",
        "/home/first/.msmtprc",
        "/home/second/.msmtprc",
    ]


def test_a_file_of_the_kernel_that_would_wait_is_empty() -> None:
    """/proc/kmsg is a regular file, and reading it without waiting gives nothing."""
    now = PosixHost("/").read("/proc/kmsg") if os.geteuid() == 0 else None
    assert now is None or isinstance(now.content, bytes)


@pytest.mark.parametrize(
    ("command", "path"),
    [
        ("cat /etc/x", "/etc/x"),
        ('cat "/etc/x"', "/etc/x"),
        ("/bin/cat /etc/x", "/etc/x"),
        ("/usr/bin/cat  /etc/x ", "/etc/x"),
        ("cat /etc/x | tr -d x", ""),
        ("cat ~/.secret", ""),
        ("cat /etc/$HOST", ""),
        ("gpg -d /etc/x", ""),
        ("cat /etc/x; rm /y", ""),
    ],
)
def test_only_a_plain_cat_is_followed(command: str, path: str) -> None:
    assert msmtp_by_hand.secret_file(command) == path
