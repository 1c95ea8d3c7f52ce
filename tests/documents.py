# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What README and guides show: playbooks, output and sentences, so that the tests can hold them against the truth."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

from driver.checkout import ROOT

README = ROOT / "README.md"
GUIDES = ROOT / "docs/docsite/rst"

_MARKDOWN = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_REST = re.compile(r"^\.\. code-block:: (\w+)\n\n((?:(?: {3,}.*)?\n)+)", re.M)
_ADVICE = re.compile(r"^\.\. advice: (\w+)\n\n::\n\n((?: {3}.*\n)+)", re.M)


def blocks(document: str) -> Iterator[tuple[str, str]]:
    """Yield language and text of each block of code in a document ("README.md", or a guide's name)."""
    if document == README.name:
        for language, text in _MARKDOWN.findall(README.read_text()):
            yield language, text
        return
    for language, text in _REST.findall(_guide(document)):
        yield language, textwrap.dedent(text).strip("\n") + "\n"


def files(document: str) -> dict[str, str]:
    """The files that a document shows: YAML or INI that begins with its name (``# site.yml``)."""
    shown = (text for language, text in blocks(document) if language in ("yaml", "ini"))
    named = ((re.match(r"# (\S*[./]\S+)\n", text), text) for text in shown)
    return {found.group(1): text for found, text in named if found}


def commands(document: str) -> list[str]:
    """The command lines that a guide shows (``$ ansible-playbook ...``), in their order."""
    return [text[2:].rstrip("\n") for language, text in blocks(document) if language == "console"]


def output(document: str, beginning: str) -> str:
    """The block that begins so. Raises StopIteration when there is none."""
    return next(text for _language, text in blocks(document) if text.startswith(beginning))


def sentences(document: str) -> dict[str, str]:
    """Name of a cause (``.. advice: NAME``) -> the sentence that the guide says is told then."""
    return {name: " ".join(text.split()) for name, text in _ADVICE.findall(_guide(document))}


def _guide(name: str) -> str:
    return (GUIDES / f"{name}.rst").read_text()
