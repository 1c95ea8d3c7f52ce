# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.fake_host import Call, FakeHost

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends import postfix_by_hand as by_hand
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends.postfix_tables import (
    Table,
    contents,
    fault,
    found,
    look_up,
    source_entries,
    tables,
)
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.host import Completed

MAP = "/etc/postfix/map"
KEY = "[relay.example.test]:587"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$a", "1"), ("${a}", "1"), ("$(a)", "1"), ("x$a.y", "x1.y"), ("$$a", "$a"), ("$nothing", ""),
        ("${a?yes}", "yes"), ("${a:no}", ""), ("${nothing?yes}", ""), ("${nothing:no}", "no"),
        ("${a?{yes}:{no}}", "yes"), ("${nothing?{yes}:{no}}", "no"), ("${a?$b}", "12"), ("$b", "12"),
        ("no reference", "no reference"),
    ],
)  # fmt: skip
def test_references_are_filled_in(text: str, value: str) -> None:
    assert by_hand.expanded(text, {"a": "1", "b": "${a}2"}) == value


@given(st.text("$ab{}():?", max_size=30))
def test_references_to_themselves_end(text: str) -> None:
    assert len(by_hand.expanded(text, {"a": "$b", "b": "$a"})) <= 100


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("hash:/a, texthash:/b", [("hash", "/a"), ("texthash", "/b")]),
        ("proxy:proxy:btree:/a", [("btree", "/a")]),
        ("inline:{ a=b, { c = d e } } static:x", [("inline", "a=b, { c = d e }"), ("static", "x")]),
        ("static:{u:p w}", [("static", "u:p w")]),
        ("/etc/file nothing", []),
        ("", []),
    ],
)
def test_tables_of_a_parameter(value: str, named: list[tuple[str, str]]) -> None:
    assert [(one.kind, one.target) for one in tables(value)] == named


@pytest.mark.parametrize(
    ("table", "text", "entry"),
    [
        (f"texthash:{MAP}", f"# comment\n{KEY}\n   u:p w  \n", "u:p w"),
        (f"texthash:{MAP}", f"{KEY} u:a\u00a0\u2003b\n", "u:a\u00a0\u2003b"),
        (f"texthash:{MAP}", f"{KEY.upper()} first\n{KEY} second\n", "first"),
        (f"regexp:{MAP}", "/^\\[RELAY\\..*\\]:(\\d+)$/ u:$1\n", "u:587"),
        (f"regexp:{MAP}", "/^\\[RELAY/i u:no\n!/other/ u:yes\n", "u:yes"),
        (f"pcre:{MAP}", "# x\nbroken\n/(/ x\n/relay/ u:${1}p\n", "u:p"),
        (f"inline:{{ {KEY}=u:p }}", "", "u:p"),
        (f"inline:{{ {{ {KEY} = u:p w }} }}", "", "u:p w"),
        ("static:u:p", "", "u:p"),
        (f"unionmap:{{inline:{{{KEY}=a}}, inline:{{{KEY}=b}}}}", "", "a,b"),
        ("ldap:/etc/postfix/ldap.cf", "", None),
        (f"hash:{MAP}", f"{KEY} never compiled\n", None),
    ],
)
def test_what_a_table_says(table: str, text: str, entry: str | None) -> None:
    host = FakeHost({MAP: text}, live=False)
    answer = look_up(host, table, ["nobody", KEY])
    assert (answer[0] if answer else None) == entry


def test_every_table_is_asked_for_a_key_before_the_next_keys_turn() -> None:
    host = FakeHost(live=False)
    answer = look_up(host, "inline:{b=second} inline:{a=first}", ["a", "b"])
    assert answer is not None
    assert answer[0] == "first"


def test_postfix_is_asked_and_no_secret_is_an_argument() -> None:
    def postmap(call: Call) -> Completed:
        assert call.argv == ["postmap", "-q", "-", f"hash:{MAP}"]
        return Completed(0, f"{KEY}\tu:p\n", "") if KEY.encode() in call.data else Completed(1, "", "")

    host = FakeHost({MAP: "", MAP + ".db": "\0"})
    host.programs["postmap"] = postmap
    assert found(host, Table("hash", MAP), ["x", KEY, "with\nline"]) == {KEY: "u:p"}
    assert found(host, Table("static", "u:secret"), [KEY]) == {KEY: "u:secret"}
    assert not any("secret" in " ".join(call.argv) for call in host.calls)


@pytest.mark.parametrize(
    ("files", "dump", "kind"),
    [
        ((), None, "map-missing"),
        ((MAP,), None, "map-missing"),
        ((MAP + ".db",), None, "map-without-source"),
        ((MAP, MAP + ".db"), None, ""),
        ((MAP + ".db", MAP), None, "map-stale"),
        ((MAP + ".db", MAP), "a\tb\n", ""),
        ((MAP, MAP + ".db"), "a\tother\n", "map-stale"),
    ],
)
def test_a_map_and_its_source(files: tuple[str, ...], dump: str | None, kind: str) -> None:
    """In the order in which they were written; ``dump``: what Postfix says that is in the compiled one."""
    host = FakeHost()
    for path in files:
        host.put(path, "a b\n")
    if dump is not None:
        host.programs["postmap"] = Completed(0, dump, "")
    assert fault(host, Table("hash", MAP)) == kind


def test_what_is_in_a_table_can_be_listed() -> None:
    host = FakeHost({MAP: "/a/ x\nb  y\n"}, live=False)
    assert contents(host, Table("regexp", MAP)) == {"/a/": "x"}
    assert contents(host, Table("texthash", MAP)) == {"/a/": "x", "b": "y"}
    assert contents(host, Table("inline", "a=b")) == {"a": "b"}
    assert contents(host, Table("ldap", MAP)) == {}


@given(st.text(max_size=60))
def test_any_source_can_be_read(text: str) -> None:
    assert all(key == key.lower() for key in source_entries(text))


@pytest.mark.parametrize(
    ("settings", "level"),
    [
        ({}, "none"),
        ({"smtp_use_tls": "yes"}, "may"),
        ({"smtp_enforce_tls": "yes", "smtp_tls_enforce_peername": "yes"}, "verify"),
        ({"smtp_enforce_tls": "yes", "smtp_tls_enforce_peername": "no"}, "encrypt"),
        ({"smtp_enforce_tls": "yes", "smtp_tls_security_level": "none"}, "none"),
        ({"smtp_tls_security_level": "may", "smtp_tls_policy_maps": f"inline:{{{KEY}=secure}}"}, "secure"),
        ({"smtp_tls_security_level": "secure", "smtp_tls_policy_maps": "static:none"}, "none"),
        ({"smtp_tls_per_site": "inline:{relay.example.test=MUST_NOPEERMATCH}"}, "encrypt"),
    ],
)
def test_the_level_of_tls(settings: dict[str, str], level: str) -> None:
    values = {**dict.fromkeys(by_hand.NAMES, ""), "default_transport": "smtp", "relayhost": KEY, **settings}
    assert by_hand.tls_level(FakeHost(live=False), by_hand.default_route(values, {})) == level
