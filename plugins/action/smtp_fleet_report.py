# Copyright: fleetmail.smtp contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""One report from the results of all hosts. Runs on the control node, and connects to no host."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.plugins.action import ActionBase

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.errors import Problem
from ansible_collections.fleetmail.smtp.plugins.plugin_utils.report.net import Net
from ansible_collections.fleetmail.smtp.plugins.plugin_utils.report.outputs import NAMES, Output, outputs
from ansible_collections.fleetmail.smtp.plugins.plugin_utils.report.problem import NoReport
from ansible_collections.fleetmail.smtp.plugins.plugin_utils.report.report import Made, Order, make
from ansible_collections.fleetmail.smtp.plugins.plugin_utils.report.results import Play, host_of
from ansible_collections.fleetmail.smtp.plugins.plugin_utils.report.shape import STATUSES

Record = dict[str, Any]
GALAXY = Path(__file__).parents[2] / "galaxy.yml"
MANIFEST = Path(__file__).parents[2] / "MANIFEST.json"
RESULTS = ["smtp_service", "smtp_oauth_token", "smtp_oauth_token_info", "smtp_service_info", "smtp_probe"]
NAMED = 5  # hosts in the message of a failure

ARGUMENTS: dict[str, Any] = {
    "folder": {"type": "path", "required": True},
    "formats": {"type": "list", "elements": "str", "choices": list(NAMES), "default": list(NAMES)},
    "variables": {"type": "list", "elements": "str", "default": RESULTS},
    "hosts": {"type": "list", "elements": "str", "default": []},
    "merge": {"type": "list", "elements": "path", "default": []},
    "title": {"type": "str", "default": "Mail of the fleet"},
    "source": {"type": "str", "default": ""},
    "check_mode": {"type": "str", "choices": ["auto", "checked", "enforced"], "default": "auto"},
    "certificate_days": {"type": "int", "default": 30},
    "max_age": {"type": "int", "default": 3600},
    "secrets": {"type": "list", "elements": "str", "default": [], "no_log": True},
    "fail_on": {"type": "list", "elements": "str", "choices": list(STATUSES), "default": []},
    "template": {"type": "path"},
    "mode": {"type": "str", "default": "0644"},
}


class ActionModule(ActionBase):
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> Record:
        result: Record = super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(argument_spec=ARGUMENTS)
        try:
            result.update(self._report(options, task_vars or {}))
        except NoReport as error:
            result.update(failed=True, msg=error.message, problems=[one.as_dict() for one in error.problems])
        return result

    def _report(self, options: Record, variables: Mapping[str, Any]) -> Record:
        mode = _checked(options)
        net = Net(options["secrets"])
        folder = Path(self._loader.path_dwim(options["folder"]))
        order = Order(
            title=options["title"],
            version=_version(),
            merge=[self._loader.path_dwim(one) for one in options["merge"]],
            max_age=options["max_age"],
            certificate_days=options["certificate_days"],
        )
        now = time.time()
        hosts = _hosts(options, variables, now, net)
        made = make(hosts, order, folder / NAMES["json"], now, net)
        return self._write(made, folder, options, mode)

    def _write(self, made: Made, folder: Path, options: Record, mode: int) -> Record:
        wanted = {kind: name for kind, name in NAMES.items() if kind == "json" or kind in options["formats"]}
        files = _rendered(made.document, folder, wanted, options["template"])
        changed = _replaced(files, mode, self._task.check_mode)
        summary = made.document["summary"]
        result: Record = {
            "changed": bool(changed),
            "files": [_told(one, one in changed) for one in files],
            "summary": summary,
            "hosts": {status: _named(made.document, status) for status in STATUSES if summary["status"][status]},
            "generated_at": made.document["generated_at"],
            "warnings": made.warnings,
        }
        bad = [status for status in reversed(STATUSES) if status in options["fail_on"] and summary["status"][status]]
        if bad:
            result.update(failed=True, msg="; ".join(_sentence(status, result["hosts"][status]) for status in bad))
        return result


def _checked(options: Record) -> int:
    """The files' mode. Raises NoReport with everything that is wrong with the options."""
    problems = []
    try:
        mode = int(options["mode"], 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        problems.append(Problem("mode", f"'{options['mode']}' is no file mode", 'digits in quotes, as "0644"'))
    elif mode & 0o600 != 0o600:  # YAML makes 420 of 0644 without quotes, and that would be r---w----
        why = f"'{options['mode']}' is a mode with which the owner could not read and write the report"
        problems.append(Problem("mode", why, 'digits in quotes, as "0644"'))
    problems += [
        Problem(name, "cannot be less than 0", "seconds" if name == "max_age" else "days")
        for name in ("max_age", "certificate_days")
        if options[name] < 0
    ]
    if problems:
        raise NoReport(problems)
    return mode


def _version() -> str:
    """The version of this collection, from a release or a checkout."""
    if MANIFEST.exists():
        manifest = yaml.safe_load(MANIFEST.read_text("utf-8"))
        return str(manifest["collection_info"]["version"])
    return str(yaml.safe_load(GALAXY.read_text("utf-8"))["version"])


def _hosts(options: Record, variables: Mapping[str, Any], now: float, net: Net) -> Iterator[Record]:
    """Every host that has one of the results, and every one of those that should have."""
    observed = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    check_mode = {"auto": None, "checked": True, "enforced": False}[options["check_mode"]]
    if check_mode is None and variables.get("ansible_check_mode"):
        check_mode = True  # then no task has changed anything
    play = Play(observed, options["source"], check_mode)
    hostvars = variables["hostvars"]
    wanted = dict.fromkeys(options["hosts"])
    for name in dict.fromkeys([*hostvars, *wanted]):
        held = hostvars.raw_get(name) if name in hostvars else {}
        held = held if isinstance(held, Mapping) else {}
        results = {one: _result(hostvars, name, held, one) for one in options["variables"] if one in held}
        if results or name in wanted:
            yield host_of(name, held.get("group_names") or [], _or_why(results, held), play, net)


def _result(hostvars: Any, host: str, held: Mapping[str, Any], variable: str) -> Any:
    """What was registered as it is, never as a template; only what a play defined itself is one."""
    return held[variable] if isinstance(held[variable], Mapping) else hostvars[host][variable]


def _or_why(results: Record, held: Mapping[str, Any]) -> Record:
    """The results; where there are none, the failure that a rescue left behind."""
    failure = held.get("ansible_failed_result")
    if results or not isinstance(failure, Mapping):
        return results
    return {"ansible_failed_result": {**failure, "failed": not failure.get("unreachable")}}


def _rendered(document: Record, folder: Path, names: Mapping[str, str], template: str | None) -> list[Output]:
    if not template:
        return outputs(document, folder, names)
    from jinja2 import TemplateError

    try:
        return outputs(document, folder, names, Path(template))
    except (TemplateError, OSError, UnicodeDecodeError) as error:
        hint = "compare it with page.html.j2 of the collection"
        raise NoReport([Problem("template", f"{template}: {type(error).__name__}: {error}", hint)]) from None


def _replaced(files: list[Output], mode: int, check_mode: bool) -> list[Output]:
    """Write the files that differ (in check mode, find them). Raises NoReport naming each that cannot be."""
    changed, problems = [], []
    for one in files:
        try:
            if one.differs(mode):
                changed.append(one)
                if not check_mode:
                    one.write(mode)
        except OSError as error:
            problems.append(Problem(str(one.path), f"cannot be written: {error.strerror}", "see folder"))
    if problems:
        raise NoReport(problems)
    return changed


def _told(file: Output, changed: bool) -> Record:
    return {"path": str(file.path), "format": file.format, "changed": changed, "size": len(file.content)}


def _named(document: Record, status: str) -> list[str]:
    return [host["name"] for host in document["hosts"] if host["status"] == status]


def _sentence(status: str, hosts: list[str]) -> str:
    more = f" and {len(hosts) - NAMED} more" if len(hosts) > NAMED else ""
    return f"{status}: {', '.join(hosts[:NAMED])}{more}"
