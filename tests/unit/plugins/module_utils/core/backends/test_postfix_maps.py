# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from unit.fake_host import Call, FakeHost

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends.postfix_maps import (
    look_up,
    routes,
    source_of,
)
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.host import Completed

PLACE = "/etc/postfix/fleetmail--shared.a"
BLOCK = "# BEGIN fleetmail.smtp shop\na@shop.example {}\n@shop.example {}\n# END fleetmail.smtp shop\n"
WAY = "fleetmail-shop.b:[relay.example]:587"


def host(**files: str) -> FakeHost:
    return FakeHost({f"/{name}": text for name, text in files.items()}, live=False)


def test_a_source_is_read_as_postmap_does() -> None:
    found = source_of(host(map="# a comment\n[h]:25  u:p w \n\nalone\nk\tv\tw\n"), "/map")
    assert found == {"[h]:25": "u:p w", "k": "v\tw"}
    assert source_of(host(), "/none") == {}


def test_of_several_maps_the_first_one_wins() -> None:
    there = host(one="k 1\n", two="k 2\nl 2\n")
    assert look_up(there, "hash:/one, texthash:/two inline:{ m = 3 }", ["k", "l", "m"]) == {"k": "1", "l": "2"}
    assert look_up(there, "hash:/one", []) == {}


def test_postfix_itself_is_asked_where_it_is_there() -> None:
    live = FakeHost({"/one": "k stale\n"}, live=True)

    def postmap(call: Call) -> Completed:
        assert (call.argv[1:], call.data) == (["-q", "-", "hash:/one"], b"k\nl\n")
        return Completed(0, "k\tcompiled\n", "")

    live.programs["postmap"] = postmap
    assert look_up(live, "hash:/one", ["k", "l"]) == {"k": "compiled"}


@pytest.mark.parametrize("held", [False, True])
def test_routes_of_a_service(held: bool) -> None:
    way = ("retry:4.3.2 fleetmail.smtp holds mail " if held else "") + WAY
    there = FakeHost({PLACE: BLOCK.format(way, way)}, live=False)
    found = routes(there, f"texthash:{PLACE}", "shop")
    assert found == (("a@shop.example", "shop.example"), "fleetmail-shop.b", "[relay.example]:587", held)
    assert routes(there, f"texthash:{PLACE}", "other") == ((), "", "", False)
    assert routes(there, "", "shop") == ((), "", "", False)


def test_a_sender_that_goes_another_way_is_none_of_the_services() -> None:
    there = FakeHost({PLACE: BLOCK.format(WAY, "smtp:[elsewhere.example]")}, live=False)
    assert routes(there, f"texthash:{PLACE}", "shop")[0] == ("a@shop.example",)
