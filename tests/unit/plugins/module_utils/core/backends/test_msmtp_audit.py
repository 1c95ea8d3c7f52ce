# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from by_hand import PASSWORD
from by_hand.msmtp import CASES, HOME
from unit.audited import assert_seen, laid_down, looked_at

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends import msmtp_by_hand


@pytest.mark.parametrize("name", CASES)
def test_what_people_write_is_understood(name: str) -> None:
    result = looked_at(laid_down(CASES[name]), homes=True)
    assert_seen(CASES[name], result)
    assert PASSWORD not in json.dumps(result)


def test_homes_are_looked_into_only_when_that_is_asked() -> None:
    result = looked_at(laid_down(CASES["users with files of their own"]))
    assert [one["name"] for one in result["services"]] == ["default"]
    assert [one["path"] for one in result["findings"] if one["id"] == "user-file"] == [HOME]


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
