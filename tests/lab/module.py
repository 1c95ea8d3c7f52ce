# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules themselves, run by the Python of a tree with Ansible's own argument parsing, many calls in one process.

A play is what users run, and takes half a second for a task; this takes some milliseconds, for tables of arguments.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ansible

from .tree import Tree

PLUGINS = Path(__file__).parents[2] / "plugins"
PLACE = "/opt/module"
_COLLECTION = f"{PLACE}/ansible_collections/fleetmail/smtp/plugins"

# One child for each call, as Ansible's own processes would be; nothing of one call is there for the next.
_RUNNER = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from ansible.module_utils import basic
from ansible_collections.fleetmail.smtp.plugins.modules import smtp_probe, smtp_service
import ansible_collections.fleetmail.smtp.plugins.module_utils.core.enforce

def call(module, arguments):
    out, err = (open(os.memfd_create("said"), "w+b") for _ in range(2))  # there may be no room for a file
    child = os.fork()
    if not child:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        basic._ANSIBLE_ARGS = json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode()
        basic._ANSIBLE_PROFILE = "legacy"
        code = 1
        try:
            {"smtp_probe": smtp_probe, "smtp_service": smtp_service}[module].main()
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            import traceback
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    texts = []
    for file in (out, err):
        file.seek(0)
        texts.append(file.read().decode("utf-8", "backslashreplace"))
    return [code, *texts]

print(json.dumps([call(module, arguments) for module, arguments in json.load(sys.stdin)]))
"""


class Answer(NamedTuple):
    """How a module ended: its exit code, its result ({} when it gave none) and what it printed beside it."""

    code: int
    result: dict[str, Any]
    noise: str


def install(host: Tree) -> None:
    """Copy what a module imports into the tree, once: the collection's plugins and Ansible's module_utils."""
    if host.exists(PLACE):
        return
    source = Path(ansible.__file__).parent
    host.write(f"{PLACE}/ansible/__init__.py", "")
    host.write(f"{PLACE}/ansible/release.py", (source / "release.py").read_bytes())
    pairs = ((source / "module_utils", f"{PLACE}/ansible/module_utils"), (PLUGINS, _COLLECTION))
    for folder, target in pairs:
        shutil.copytree(folder, host.inside(target), ignore=shutil.ignore_patterns("__pycache__"))


def call(host: Tree, calls: Sequence[tuple[str, Mapping[str, Any]]], check: bool = False) -> list[Answer]:
    """Run each (module, arguments) in turn, with Ansible's check mode if told."""
    install(host)
    given = [(module, {**arguments, "_ansible_check_mode": check}) for module, arguments in calls]
    done = host.run(["python3", "-B", "-c", _RUNNER, PLACE], json.dumps(given).encode())
    return [_answer(*one) for one in json.loads(done.stdout)]


def _answer(code: int, out: str, err: str) -> Answer:
    try:
        result = json.loads(out)
    except ValueError:
        return Answer(code, {}, out + err)
    return Answer(code, result, err)
