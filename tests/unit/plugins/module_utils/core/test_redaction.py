# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import copy
import json
import pickle
import re
import urllib.parse

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.host import Completed
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.redaction import (
    LONGEST,
    MASK,
    SHORTEST,
    Redactor,
    Secret,
)

NASTY = "Käfig \"7\\up' %20$&+/=?ÿþ"
ANY_TEXT = st.text(st.characters(exclude_categories=()))
# a text of nothing but stars looks like the mask, in any spelling
SECRETS = ANY_TEXT.filter(lambda text: len(text.strip()) >= SHORTEST and not set(text) & set("* "))
UNICODE = st.text(st.characters(exclude_categories=("Cs",)))


def spellings(secret: str, around: tuple[str, str]) -> list[str]:
    """Whole texts as other programs would write them, with the secret in them."""
    whole = around[0] + secret + around[1]
    raw = whole.encode("utf-8", "surrogatepass")
    return [
        whole,
        json.dumps(whole),
        json.dumps({"p": whole}, ensure_ascii=False),
        repr(whole),
        ascii(whole),
        repr(raw),
        repr([whole, {"a": whole}]),
        urllib.parse.quote(raw),
        urllib.parse.quote(raw, safe=""),
        urllib.parse.quote_plus(raw),
        re.sub("%..", lambda found: found.group().lower(), urllib.parse.quote(raw, safe="")),
        base64.b64encode(raw).decode(),
        base64.urlsafe_b64encode(raw).decode(),
        base64.b64encode(raw).decode().rstrip("="),
    ]


def readings(text: str) -> list[str]:
    """What anybody can make of a text: itself, and every base64 word in it decoded."""
    found = [text, urllib.parse.unquote_plus(text)]
    for word in "".join(c if c.isalnum() or c in "+/-_" else " " for c in text).split():
        for lead in range(4):
            piece = word[lead:].translate(str.maketrans("-_", "+/"))
            found.append(base64.b64decode(piece[: len(piece) // 4 * 4] + "").decode("utf-8", "surrogateescape"))
    return found


@pytest.mark.parametrize("secret", ["kanarienvogel", NASTY, "0123456789", "it's", 'say "no"', "\\\\srv\\x", "a b+c%d"])
@pytest.mark.parametrize(
    "around", [("", ""), ("\0fleet\0", ""), ("x", "yz"), ("ab", 'c"'), ("it's ", ' "x"')], ids=ascii
)
def test_no_spelling_survives(secret: str, around: tuple[str, str]) -> None:
    redactor = Redactor([secret])
    for text in spellings(secret, around):
        masked = redactor.text(f"reply: {text} .")
        assert MASK in masked, text
        for reading in readings(masked):
            assert secret not in reading, text
        assert masked.startswith("reply: ")
        assert masked.endswith(" .")


@given(SECRETS, UNICODE, UNICODE)
@example("\ud800abc", "", "")
@example("aaaa", "a", "a")
def test_no_form_of_any_secret_survives(secret: str, before: str, after: str) -> None:
    redactor = Redactor([secret])
    for text in spellings(secret, (before, after)):
        masked = redactor.text(text)
        assert secret not in masked
        assert MASK in masked


@given(st.binary(min_size=6), st.binary(max_size=5), st.binary(max_size=5))
def test_a_secret_inside_base64_is_not_left_in_part(secret: bytes, before: bytes, after: bytes) -> None:
    """Neither the whole nor any three bytes of it can be decoded from what is shown."""
    text = "said " + base64.b64encode(before + secret + after).decode()
    masked = Redactor([secret.decode("utf-8", "surrogateescape")]).text(text)
    assert masked == "said " + MASK


@given(SECRETS, SECRETS)
def test_secrets_that_overlap_are_both_gone(first: str, second: str) -> None:
    assume(first[-1] != second[0])
    overlapping = first + second[1:]
    masked = Redactor([first, second, overlapping[len(first) - 2 :]]).text(f"<{overlapping}>")
    assert first not in masked
    assert overlapping[-3:] not in masked


def test_a_mask_covers_what_overlaps() -> None:
    assert Redactor(["abcdef", "defghi"]).text("x abcdefghi y") == f"x {MASK} y"


def test_a_secret_from_a_file_in_another_encoding_is_masked() -> None:
    secret = b"gr\xfc\xdfe an alle".decode("utf-8", "surrogateescape")
    masked = Redactor([secret])
    assert masked.text(f"<{secret}>") == f"<{MASK}>"
    shown = secret.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    assert masked.text(f"<{shown}>") == f"<{MASK}>"


def test_short_texts_are_left_alone() -> None:
    assert Redactor(["", "a", "no"]).text("nobody can say no to a banana") == "nobody can say no to a banana"


@pytest.mark.parametrize("secret", ["kanarien\tvogel", " kanarien  vogel ", "kanarien\u2028vogel\x85", "\xa0kanarien"])
def test_what_is_put_on_one_line_or_made_printable_is_masked(secret: str) -> None:
    shown = "".join(c if c.isprintable() else "?" for c in f"<{secret}>")
    on_one_line = Completed(1, "", f"line 1:\n<{secret}>\n").words
    for text in (shown, on_one_line, "".join(c if c.isprintable() else "?" for c in on_one_line)):
        assert "kanarien" not in Redactor([secret]).text(text), ascii(text)


def test_a_long_text_is_cut_after_it_was_masked() -> None:
    for length in range(LONGEST - 20, LONGEST + 5):
        told = Redactor(["kanarienvogel"]).data("x" * length + "kanarienvogel" + "x" * 5000)
        assert "kana" not in told
        assert len(told) <= LONGEST + 3


def test_nested_data_is_masked_and_its_keys_are_not() -> None:
    data = {"changed": True, "failed": ["failed", ("x failed y", 5, None)], "n": {"password": "failed"}}
    told = Redactor(["failed"]).data(data)
    assert told == {"changed": True, "failed": [MASK, [f"x {MASK} y", 5, None]], "n": {"password": MASK}}


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_what_holds_no_secret_stays_as_it_is(data: object) -> None:
    redactor = Redactor(["kanarienvogel-7f3a"])
    assert redactor.data(data) == data
    assert json.dumps(redactor.data({"x": data}))


def test_a_secret_shows_itself_to_nobody() -> None:
    secret = Secret("kanarienvogel")
    for text in (str(secret), repr(secret), f"{secret}", f"{secret!r}", str([secret]), str({1: secret})):
        assert "kanarien" not in text
    for dump in (pickle.dumps, copy.deepcopy, json.dumps):
        with pytest.raises(TypeError) as caught:
            dump(secret)
        assert "kanarien" not in str(caught.value)
    assert not hasattr(secret, "__dict__")
    assert secret.reveal() == "kanarienvogel"


def test_secrets_are_equal_by_value() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1
