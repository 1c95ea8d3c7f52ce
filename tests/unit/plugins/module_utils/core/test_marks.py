# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fleetmail.smtp.plugins.module_utils.core import marks

TEXT = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("\n\r\t #\x0b\x0c\x1c\x85\u2028"), max_size=60
)
# any bytes of a file, as they travel in the core
FILE = TEXT | st.binary(max_size=60).map(lambda data: data.decode("utf-8", "surrogateescape"))
NAME = st.sampled_from(["default", "a", "a.b", "-shared", "A_1"])
INSIDE = st.lists(st.text("abc =#\t", max_size=8), max_size=4).map(lambda rows: "".join(row + "\n" for row in rows))


@given(FILE, NAME, INSIDE, st.booleans())
def test_a_block_is_there_once_put_and_leaves_nothing(text: str, name: str, inside: str, first: bool) -> None:
    put = marks.put(text, name, inside, first)
    assert marks.get(put, name) == inside
    assert marks.names(put) == [name]
    assert marks.put(put, name, inside, first) == put
    assert marks.drop(put, name) == text
    assert marks.outside(put) == text
    assert marks.tidy(put) == (put, set())


@given(FILE, INSIDE, INSIDE, st.permutations(["one", "two", "three"]), st.permutations(["one", "two", "three"]))
def test_blocks_go_in_any_order(text: str, inside: str, other: str, come: list[str], go: list[str]) -> None:
    put = text
    for name in come:
        put = marks.put(put, name, inside)
    assert marks.names(put) == come
    put = marks.put(put, "two", other)
    assert marks.get(put, "two") == other
    for name in go:
        put = marks.drop(put, name)
    assert put == text


@given(FILE, INSIDE, st.sampled_from(["added\n", "added", "\n"]))
def test_what_is_added_after_the_block_stays_a_line_of_its_own(text: str, inside: str, added: str) -> None:
    put = marks.put(text, "x", inside) + added
    missing = "\n" if text and not text.endswith("\n") else ""
    assert marks.drop(put, "x") == text + missing + added


@given(FILE, FILE)
def test_what_is_edited_before_the_block_stays_edited(text: str, other: str) -> None:
    whole_lines = not text or text.endswith("\n")
    edited = other + ("\n" if whole_lines and other else "") + marks.put(text, "x", "inside\n")[len(text) :]
    assert marks.get(edited, "x") == "inside\n"
    assert marks.drop(edited, "x") == other + ("\n" if whole_lines and other else "")


@given(FILE)
def test_lines_end_at_line_feeds_alone(text: str) -> None:
    found = marks.lines(text)
    assert "".join(found) == text
    assert all(line.endswith("\n") for line in found[:-1])
    assert not any("\n" in line[:-1] or not line for line in found)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["", "  more\n", "# why\n\n\tmore\n"])), max_size=6))
def test_muted_lines_come_back_with_their_continuations(entries: list[tuple[str, str]]) -> None:
    whole = [f"{name} = 1\n{rest}" for name, rest in entries]
    muted = ["".join(marks.mute(marks.lines(one))) if one.startswith("a") else one for one in whole]
    assert not any(line.startswith("a") for line in marks.lines("".join(muted)))
    assert marks.unmute("".join(muted), lambda line: line.startswith("a")) == "".join(whole)
    assert marks.unmute("".join(muted), lambda line: False) == "".join(muted)


def test_a_file_without_a_last_newline_gets_it_back_however_the_blocks_go() -> None:
    put = marks.put(marks.put("last", "one", "1\n"), "two", "2\n")
    assert marks.drop(put, "one") == "last\n# BEGIN fleetmail.smtp two (joined)\n2\n# END fleetmail.smtp two\n"
    assert marks.drop(marks.drop(put, "one"), "two") == "last"
    assert marks.drop(marks.drop(put, "two"), "one") == "last"


ONE = "# BEGIN fleetmail.smtp x\ninside\n# END fleetmail.smtp x\n"


@pytest.mark.parametrize(
    ("text", "names", "rest", "torn"),
    [
        ("# BEGIN fleetmail.smtp x\nmine\n" + ONE, ["x"], "# BEGIN fleetmail.smtp x\nmine\n", {"x"}),
        (ONE + "mine\n# END fleetmail.smtp x\n", ["x"], "mine\n# END fleetmail.smtp x\n", {"x"}),
        ("# BEGIN fleetmail.smtp y\n" + ONE, ["x"], "# BEGIN fleetmail.smtp y\n", {"y"}),
        ("# END fleetmail.smtp y\nmine\n", [], "# END fleetmail.smtp y\nmine\n", {"y"}),
        (ONE + "mine\n" + ONE, ["x"], "mine\n", set()),
        (ONE.rstrip("\n"), ["x"], "", set()),
        (" " + ONE, [], " " + ONE, {"x"}),
        ("#" + ONE.replace("\n#", "\n #"), [], "#" + ONE.replace("\n#", "\n #"), set()),
    ],
)
def test_torn_and_doubled_marks(text: str, names: list[str], rest: str, torn: set[str]) -> None:
    assert marks.names(text) == names
    assert marks.outside(text) == rest
    tidied, found = marks.tidy(text)
    assert found == torn
    assert marks.tidy(tidied) == (tidied, set())
    assert "mine" not in text or "mine\n" in tidied


def test_a_doubled_block_becomes_one() -> None:
    assert marks.put(ONE + "mine\n" + ONE, "x", "new\n") == ONE.replace("inside", "new") + "mine\n"
