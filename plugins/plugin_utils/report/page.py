# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report as one page of HTML that needs nothing beside itself."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import shape
from .pool import pooled

Record = dict[str, Any]
PARTS = Path(__file__).parent / "page_files"  # a folder named page would hide this file from Ansible
TEMPLATE = PARTS / "page.html.j2"
STYLES = ("page.css",)
SCRIPTS = ("data.js", "elements.js", "table.js", "hosts.js", "tokens.js", "findings.js", "detail.js", "page.js")
LIMIT = 5_000_000  # bytes of a page
DIFF_LINES = (2000, 200, 40, 0)  # of each diff: the first number with which the page is small enough
WORST = 300  # hosts that are named where scripts do not run
TO_ESCAPE = {ord(one): f"\\u{ord(one):04x}" for one in "<>&\u2028\u2029"}


def render(document: Record, template: Path = TEMPLATE) -> str:
    """The text of the page.

    template: a Jinja2 template that is given what the collection's own is given.
    Raises jinja2.TemplateError, OSError, UnicodeDecodeError for one of somebody else that does not work.
    """
    text = ""
    for lines in DIFF_LINES:
        text = _rendered(_shortened(document, lines), template)
        if len(text.encode()) <= LIMIT:
            break
    return text


def _rendered(document: Record, template: Path) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    loader = FileSystemLoader([template.parent, PARTS])
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    style, script = (_joined(names) for names in (STYLES, SCRIPTS))
    return environment.get_template(template.name).render(
        document=document,
        statuses=[status for status in reversed(shape.STATUSES) if document["summary"]["status"][status]],
        worst=list(_worst(document)),
        policy=_policy(style, script),
        # Markup: our own files, and JSON in which nothing is left that could end its element
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        data=Markup(data(document)),  # noqa: S704
    )


def _joined(names: tuple[str, ...]) -> str:
    return "\n" + "".join((PARTS / name).read_text("utf-8") for name in names)


def _policy(style: str, script: str) -> str:
    """The Content-Security-Policy: our style and script by their hashes, and nothing else, from nowhere."""
    hashes = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in (style, script)]
    return (
        f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types"
    )


def data(document: Record) -> str:
    """The document as JSON for a script element: pooled, and without any character that HTML gives a meaning."""
    root, pool = pooled(document)
    text = json.dumps({"pool": pool, "document": root}, separators=(",", ":"), ensure_ascii=False)
    return text.translate(TO_ESCAPE)


def _worst(document: Record) -> Iterator[Record]:
    needy = [host for host in document["hosts"] if host["status"] not in ("compliant", "changed", "audited")]
    yield from needy[:WORST]


def _shortened(document: Record, lines: int) -> Record:
    hosts = [{**host, "services": [_short(one, lines) for one in host["services"]]} for host in document["hosts"]]
    return {**document, "hosts": hosts}


def _short(service: Record, lines: int) -> Record:
    found = service["diff"].splitlines(keepends=True)
    if len(found) <= lines:
        return service
    left_out = f"… {len(found) - lines} more lines: the JSON file has them\n"
    return {**service, "diff": "".join(found[:lines]) + left_out}
