# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guide's tables of causes are those of the code, word for word; a failure shows the rows as they have to be."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import pytest
from driver.checkout import ROOT

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.causes import CAUSES
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.refusals import CODES, ERRORS, SUBERRORS

GUIDE = ROOT / "docs/docsite/rst/guide_token_causes.rst"
PLACES = {"the error": ERRORS, "the suberror": SUBERRORS, "an AADSTS number": CODES}


def row(*cells: str) -> str:
    marks = ["   * - ", *["     - "] * (len(cells) - 1)]
    return "".join(_wrapped(mark, cell) for mark, cell in zip(marks, cells, strict=True))


def _wrapped(mark: str, cell: str) -> str:
    lines = textwrap.wrap(cell, 120, initial_indent=mark, subsequent_indent=" " * len(mark), break_on_hyphens=False)
    return "\n".join(lines) + "\n"


def causes(status: str) -> str:
    """The rows of one status."""
    chosen = [cause for cause in CAUSES.values() if cause.status == status]
    return "".join(row(f"``{cause.name}``", cause.summary, cause.next_step) for cause in chosen)


def words(table: Mapping[str, str]) -> str:
    """The rows that lead from what a server says to causes."""
    return "".join(row(f"``{word}``", f"``{cause}``") for word, cause in table.items())


@pytest.mark.parametrize("status", sorted({cause.status for cause in CAUSES.values()}))
def test_every_cause_is_told_in_the_codes_words(status: str) -> None:
    assert causes(status) in GUIDE.read_text()


@pytest.mark.parametrize("place", PLACES)
def test_what_leads_to_them(place: str) -> None:
    assert words(PLACES[place]) in GUIDE.read_text()


def test_there_are_no_other_rows() -> None:
    rows = sum(map(len, PLACES.values())) + len(CAUSES)
    assert GUIDE.read_text().count("   * - ``") == rows
