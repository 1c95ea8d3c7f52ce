# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from by_hand import PASSWORD
from by_hand.postfix import CASES
from unit.audited import assert_seen, laid_down, looked_at

UNREADABLE_IN_MEMORY = {"a map whose source is gone", "a map that is stale"}  # nobody can read what was compiled


@pytest.mark.parametrize("name", [name for name in CASES if name not in UNREADABLE_IN_MEMORY])
def test_what_people_write_is_understood(name: str) -> None:
    result = looked_at(laid_down(CASES[name]))
    assert_seen(CASES[name], result)
    assert PASSWORD not in json.dumps(result)


@pytest.mark.parametrize("name", sorted(UNREADABLE_IN_MEMORY))
def test_maps_that_are_not_what_they_seem_are_told(name: str) -> None:
    result = looked_at(laid_down(CASES[name]))
    assert CASES[name].findings <= {one["id"] for one in result["findings"]}
