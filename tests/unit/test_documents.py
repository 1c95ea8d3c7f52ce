# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Guides and module documentation say what the code says: sentences, options, defaults, fields."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import documents
import pytest
import yaml
from driver.checkout import ROOT

from ansible_collections.fleetmail.smtp.plugins.module_utils.core import advice, findings
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends.base import Option
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends.registry import BACKENDS
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.dialogue import Failure
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.declared import WORDS

SENTENCES = [
    (guide, name, sentence)
    for guide in ("guide_refusals", "guide_microsoft365", "guide_google")
    for name, sentence in documents.sentences(guide).items()
]
ROWS = {row.key: row for row in advice.TABLE}
SAID = re.compile(r' \(the relay said: "(.*)"\)\.\Z')
FACTS = dict.fromkeys(re.findall(r"\{(\w+)\}", " ".join(row.advice for row in advice.TABLE)), "something")
SERVICE: dict[str, Any] = yaml.safe_load((ROOT / "plugins/modules/smtp_service.yml").read_text())
INFO: dict[str, Any] = yaml.safe_load((ROOT / "plugins/modules/smtp_service_info.yml").read_text())
PROBE: dict[str, Any] = yaml.safe_load((ROOT / "plugins/modules/smtp_probe.yml").read_text())


class Anything(dict[str, str]):
    """Every placeholder of a sentence as a pattern."""

    def __missing__(self, _name: str) -> str:
        return "(.+)"


def pattern(sentence: str) -> str:
    """A sentence of the table as a pattern."""
    plain = re.sub(r"\\([{}])", r"\1", re.escape(sentence))
    return plain.format_map(Anything())


@pytest.mark.parametrize(("guide", "name", "sentence"), SENTENCES, ids=[" ".join(one[:2]) for one in SENTENCES])
def test_a_refusal_is_told_in_the_words_of_the_table(guide: str, name: str, sentence: str) -> None:
    row = ROWS[name]
    said = SAID.search(sentence)
    assert (row.cause == "reply") == bool(said)
    if said:
        sentence = sentence[: said.start()] + "."
        step = row.step.split("|")[0]
        assert advice.advise(step, Failure("reply", said.group(1)), FACTS).key == name
    assert re.fullmatch(pattern(row.advice), sentence)


def options() -> dict[str, Mapping[str, Option]]:
    return {name: backend().options for name, backend in BACKENDS.items()}


@pytest.mark.parametrize(("backend", "key"), [(name, key) for name, known in options().items() for key in known])
def test_every_option_of_a_backend_is_documented_with_its_default(backend: str, key: str) -> None:
    known = options()[backend][key]
    told = SERVICE["DOCUMENTATION"]["options"]["backend_options"]["description"]
    (sentence,) = (one for one in told if one.startswith(f"{backend}, C({key}) ({known.kind.__name__}"))
    default = str(known.default).lower() if known.kind is bool else known.default
    if default:
        assert f"({known.kind.__name__}, default V({default})" in sentence
    else:
        assert "By default" in sentence


def test_no_option_of_a_backend_is_documented_that_is_not_there() -> None:
    told = SERVICE["DOCUMENTATION"]["options"]["backend_options"]["description"]
    named = {found.groups() for one in told if (found := re.match(r"(\w+), C\((\w+)\)", one))}
    assert named == {(name, key) for name, known in options().items() for key in known}


def test_the_glance_at_the_backends_is_right() -> None:
    """Its rows are read from the guide: yes or no in the backends' order."""
    table = (documents.GUIDES / "guide_backends.rst").read_text()
    rows = re.findall(r"^   \* - (.*)\n     - (.*)\n     - (.*)\n     - (.*)$", table, re.M)
    told = {row[0]: dict(zip(("postfix", "exim", "msmtp"), row[1:], strict=True)) for row in rows}
    for name, backend in BACKENDS.items():
        can = backend().capabilities
        said = {what: columns[name].startswith("yes") for what, columns in told.items()}
        assert said["``senders`` (several services)"] == ("senders" in can.fields)
        assert said["``timeout``"] == ("timeout" in can.fields)
        assert said["``ca_file``"] == ("ca_file" in can.fields)
        assert said["``auth_type: oauth``"] == ("oauth" in can.auth_types)
        assert sorted(re.findall(r"``(\w+)``", told["``backend_options``"][name])) == sorted(backend().options)


def test_every_field_of_a_service_is_documented() -> None:
    fields = {field for backend in BACKENDS.values() for field in backend().capabilities.fields}
    assert set(SERVICE["RETURN"]["service"]["contains"]) == fields | {"name", "backend", "state", *WORDS}


def test_every_guide_is_listed() -> None:
    listed = yaml.safe_load((ROOT / "docs/docsite/extra-docs.yml").read_text())["sections"]
    assert sorted(guide for section in listed for guide in section["toctree"]) == sorted(
        path.stem for path in documents.GUIDES.glob("*.rst")
    )


@pytest.mark.parametrize("module", [SERVICE, PROBE])
def test_examples_are_tasks_of_their_own(module: dict[str, Any]) -> None:
    for task in yaml.safe_load(module["EXAMPLES"]):
        assert any(key.startswith("fleetmail.smtp.") for key in task)


def test_every_finding_is_in_the_guide() -> None:
    guide = (documents.GUIDES / "guide_audit.rst").read_text()
    rows = re.findall(r"^   \* - ``([\w-]+)``\n     - (\w+)\n     - (.*)$", guide, re.M)
    assert rows == [(kind, row.severity, row.reason) for kind, row in findings.TABLE.items()]


def test_the_documented_findings_are_of_the_table() -> None:
    told = INFO["RETURN"]["findings"]["sample"] + INFO["RETURN"]["services"]["sample"][0]["findings"]
    for one in told:
        row = findings.TABLE[one["id"]]
        assert (one["severity"], one["hint"]) == (row.severity, row.hint)
        assert re.fullmatch(pattern(row.message), one["message"])
