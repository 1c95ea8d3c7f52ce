# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The proof of leaks is worth what its search can find."""

from __future__ import annotations

import base64
import json
import urllib.parse
from pathlib import Path

import pytest
from lab.canary import Cage, Canary

SECRET = "Neuvogel2R8z \"q\\w' ä%20 Gimpelhahn4T6y"


@pytest.mark.parametrize("part", [SECRET, "Neuvogel2R8z", SECRET[20:]])
@pytest.mark.parametrize("lead", ["", "x", "xy", "xyz", "\0user\0"])
def test_a_canary_is_found_in_every_spelling_and_in_part(part: str, lead: str) -> None:
    cage = Cage([Canary("new", SECRET), Canary("other", "Dohlenschrei8J4d")])
    raw = (lead + part).encode()
    for text in (
        raw,
        raw.upper(),
        raw.hex().encode(),
        base64.b64encode(raw),
        base64.urlsafe_b64encode(raw + b"??>>"),
        json.dumps(lead + part).encode(),
        repr(lead + part).encode(),
        urllib.parse.quote(raw).encode(),
    ):
        assert [one.canary for one in cage.search("here", b"before " + text + b" after")] == ["new"], text


def test_what_is_no_canary_is_not_found() -> None:
    assert Cage([Canary("new", SECRET)]).search("here", b"Neuvogel Gimpelhahn ******** " + bytes(range(256))) == []


def test_files_and_their_names_are_searched(tmp_path: Path) -> None:
    cage = Cage([Canary("new", SECRET)])
    (tmp_path / "a").mkdir()
    (tmp_path / "a/content").write_text(SECRET)
    (tmp_path / "a/Neuvogel2R8z").write_text("")
    (tmp_path / "a/link").symlink_to("content")
    assert sorted(one.place for one in cage.search_folder(tmp_path)) == ["/a/Neuvogel2R8z", "/a/content"]
