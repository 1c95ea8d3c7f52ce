# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.fleetmail.smtp.plugins.module_utils.core import marks
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends import postfix_files as files

NAMES = ("relayhost", "smtp_tls_CAfile", "default_transport", "mydestination")
LINE = st.sampled_from(
    [
        *("relayhost = a\n", "relayhost=\n", "relayhost =\n\tb\n", "  c\n", "# comment\n", "\n", "  # indented\n"),
        *("smtp_tls_CAfile = /x\n", "mydestination = $x,\n# between\n\n  y\n", "relayhost_x = 1\n", "junk\n", "\r\n"),
        *("default_transport = x\r\n", "\x0b\n", "\u2028relayhost = u\n", "a = b\x85relayhost = c\n", "relayhost = z"),
    ]
)
FILE = (
    st.lists(LINE, max_size=10).map("".join)
    | st.text(max_size=60)
    | st.binary(max_size=60).map(lambda data: data.decode("utf-8", "surrogateescape"))
)
WANTED = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["", "one", "two words", "[h]:25"]), min_size=1)
OURS = "# BEGIN fleetmail.smtp default\n{}# END fleetmail.smtp default\n"


@given(FILE, WANTED)
@settings(max_examples=300)
def test_put_and_taken_out_main_cf_is_the_very_text(text: str, wanted: dict[str, str]) -> None:
    put = files.rewrite_main_cf(text, "default", wanted)
    assert files.main_cf_values(marks.get(put, "default") or "") == wanted
    assert {**files.main_cf_values(put), **wanted} == files.main_cf_values(put)
    assert files.rewrite_main_cf(put, "default", wanted) == put
    assert files.rewrite_main_cf(put, "default", {}) == text


@given(FILE, WANTED, WANTED, st.booleans())
def test_a_change_and_a_second_block_give_back_the_very_text(
    text: str, first: dict[str, str], second: dict[str, str], other_first: bool
) -> None:
    put = files.rewrite_main_cf(files.rewrite_main_cf(text, "default", first), "default", second)
    assert put == files.rewrite_main_cf(text, "default", second)
    shared = {"smtp_x": "1", "a": "2"}
    both = files.rewrite_main_cf(put, files.SHARED, shared)
    assert {**files.main_cf_values(both), **second, **shared} == files.main_cf_values(both)
    for block in ("default", files.SHARED)[:: -1 if other_first else 1]:
        both = files.rewrite_main_cf(both, block, {})
    assert both == text


@given(FILE, WANTED, st.sampled_from(["bounce_size_limit = 1\n", "relayhost = by hand\n", "# c\nrelayhost =\n  d\n"]))
def test_lines_that_a_hand_adds_are_kept_for_later(text: str, wanted: dict[str, str], added: str) -> None:
    by_hand = files.rewrite_main_cf(text, "default", wanted) + added
    mended = files.rewrite_main_cf(by_hand, "default", wanted)
    assert {**files.main_cf_values(mended), **wanted} == files.main_cf_values(mended)
    assert files.rewrite_main_cf(mended, "default", wanted) == mended
    missing = "\n" if text and not text.endswith("\n") else ""
    # what was overruled before need not be kept twice
    assert files.rewrite_main_cf(mended, "default", {}) in (text + missing + added, text, text + "\n")


@given(FILE)
def test_nothing_raises_and_every_line_has_its_place(text: str) -> None:
    lines = marks.lines(text)
    last = 0
    for entry in files.entries(text):
        assert last <= entry.start < entry.stop <= len(lines)
        last = entry.stop
    assert all(files.parameter(name + " = x") == name for name in files.main_cf_values(text))
    list(files.transports(text))
    files.tidy(text)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a = 1\na=2\n", {"a": "2"}),
        ("a =\n  1,\n# c\n\n\t2\nb = 3", {"a": "1, 2", "b": "3"}),
        ("a = two  blanks \n", {"a": "two  blanks"}),
        ("  a = 1\n", {"a": "1"}),
        ("#a = 1\n # b = 2\nnothing\n= 3\na-b = 4\n", {"a-b": "4"}),
        ("a = b = c\r\n", {"a": "b = c"}),
    ],
)
def test_main_cf_is_read_as_postfix_does(text: str, values: dict[str, str]) -> None:
    assert files.main_cf_values(text) == values


def test_what_a_torn_block_leaves_is_ours() -> None:
    before = "relayhost = old\n"
    put = files.rewrite_main_cf(before, "default", {"relayhost": "new", "smtp_tls_CAfile": "/x"})
    for mark in ("# BEGIN fleetmail.smtp default\n", "# END fleetmail.smtp default\n"):
        mended = files.rewrite_main_cf(put.replace(mark, ""), "default", {"relayhost": "new", "smtp_tls_CAfile": "/x"})
        assert mended == put
        assert files.rewrite_main_cf(mended, "default", {}) == before


def test_a_line_with_a_map_of_ours_is_never_kept_for_later() -> None:
    stripped = f"smtp_sasl_password_maps = hash:{files.FILES}default.a\nrelayhost = x\n"
    wanted = {"smtp_sasl_password_maps": f"hash:{files.FILES}default.b", "relayhost": "x"}
    put = files.rewrite_main_cf(stripped, "default", wanted)
    assert files.rewrite_main_cf(put, "default", {}) == "relayhost = x\n"


def test_lines_that_would_continue_a_block_go() -> None:
    put = files.rewrite_main_cf("a = 1\n", "default", {"relayhost": "x"})
    mended = files.rewrite_main_cf(put + "# c\n\n  stray\n\tstray\nb = 2\n  kept\n", "default", {"relayhost": "x"})
    assert mended == put + "# c\n\nb = 2\n  kept\n"


SETTINGS = st.dictionaries(
    st.sampled_from(NAMES), st.sampled_from(["", "x", "two words", "a=b", "inline:{ {a = b}, {c = d} }"]), min_size=1
)


@given(SETTINGS, st.sampled_from("yn-"))
def test_an_agent_is_read_back(wanted: dict[str, str], chroot: str) -> None:
    entry = files.transport_entry("fleetmail-x.a", chroot, "3", wanted)
    (agent,) = files.transports("smtp inet n - y - - smtpd\n" + entry + "# c\n")
    assert (agent.name, agent.chroot) == ("fleetmail-x.a", chroot)
    assert agent.settings == {"syslog_name": "postfix/$service_name", **wanted}


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("smtp unix - - y - - smtp -o a=b -o { c = d e }", {"a": "b", "c": "d e"}),
        ("smtp unix - - y - - smtp\n  -oa=b\n# x\n  -o {c=}\n", {"a": "b", "c": ""}),
        ("smtp unix - - y - - smtp -o a=inline:{x=y} -v", {"a": "inline:{x=y}"}),
        ("smtp unix - - y - - smtp -v", {}),
        ("smtp unix - - y - -", None),
        ("smtp inet - - y - - smtpd -o a=b", None),
    ],
)
def test_options_of_agents(line: str, wanted: dict[str, str] | None) -> None:
    found = [agent.settings for agent in files.transports(line)]
    assert found == ([] if wanted is None else [wanted])


@given(st.sampled_from(["relay.example.com", "192.0.2.1", "2001:db8::1", "a_b"]), st.integers(1, 65535))
def test_a_next_hop_is_read_back(host: str, port: int) -> None:
    assert files.split_nexthop(files.nexthop(host, port)) == (host, port)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[a.example]", ("a.example", 25)),
        ("[a.example]:submission", ("a.example", 587)),
        ("[a.example]:submissions", ("a.example", 465)),
        ("[a.example]:unknown", ("a.example", 0)),
        ("a.example", ("MX of a.example", 25)),
        ("a.example:26", ("MX of a.example", 26)),
        ("[a.example", ("[a.example", 25)),
        ("", ("", 25)),
    ],
)
def test_next_hops_by_hand(text: str, found: tuple[str, int]) -> None:
    assert files.split_nexthop(text) == found


@pytest.mark.parametrize(("text", "found"), [("30s", 30), ("5", 5), ("2m", 120), ("1h", 3600), ("x", None), ("", None)])
def test_times(text: str, found: int | None) -> None:
    assert files.seconds(text) == found
