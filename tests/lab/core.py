# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The core itself, run by the Python of a tree, without Ansible: quick, and killable at every call that matters."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .tree import Tree

CORE = Path(__file__).parents[2] / "plugins" / "module_utils" / "core"
PLACE = "/opt/fleetmail"

# Counts what changes the host (writes, renames, links, permissions, programs that are run) and, at the chosen one,
# kills the process as a power cut would: nothing is flushed, no handler runs.
_RUNNER = """
import json, os, signal, sys
order = json.load(sys.stdin)
sys.path.insert(0, order["place"])
from core.enforce import enforce
from core.posix_host import PosixHost

seen = []
def point(name, what):
    seen.append([name, what])
    if len(seen) == order["crash_at"]:
        os.kill(os.getpid(), signal.SIGKILL)

def hook(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        writes = isinstance(flags, int) and flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR)
        if writes and not str(path).startswith("/dev/"):
            point(event, str(path))
    elif event in WATCHED:
        point(event, " ".join(str(one) for one in arguments[:2]))

WATCHED = {"os.rename", "os.link", "os.remove", "os.chmod", "os.chown", "os.mkdir", "os.rmdir", "subprocess.Popen"}
def watched(name):
    real = getattr(os, name)
    def call(*arguments):
        point("os." + name, "")
        return real(*arguments)
    setattr(os, name, call)

watched("fsync")
watched("fchmod")
watched("fchown")
sys.addaudithook(hook)
if order["audit"]:
    from core.audit import audit
    import time
    result = audit(order["options"], PosixHost(order["root"]), lambda: time.time() + order["audit"] - 1)
else:
    result = enforce(order["options"], PosixHost(order["root"]), order["check"])
print(json.dumps({"result": result, "points": seen if order["crash_at"] is not None else []}))
"""


class Killed(Exception):
    """The run was killed at the point that was asked for."""


def install(host: Tree) -> None:
    """Copy the core into the tree, once."""
    target = host.inside(PLACE) / "core"
    if not target.exists():
        shutil.copytree(CORE, target, ignore=shutil.ignore_patterns("__pycache__"))


def enforce(
    host: Tree, options: Mapping[str, Any], check: bool = False, root: str = "/", env: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run the engine in the tree with a module's options; gives the module's result (``failed`` is in it)."""
    result, _points = _run(host, options, check, root, None, env)
    return result


def audit(host: Tree, options: Mapping[str, Any] | None = None, root: str = "/", ahead: float = 0) -> dict[str, Any]:
    """Run the audit in the tree with smtp_service_info's options, its clock ``ahead`` seconds; gives the result."""
    return _run(host, options or {}, True, root, None, None, audited=ahead + 1)[0]


def points(host: Tree, options: Mapping[str, Any]) -> list[list[str]]:
    """Run it and list, in order, every point at which ``enforce_until`` can kill it."""
    return _run(host, options, False, "/", 0, None)[1]


def enforce_until(host: Tree, options: Mapping[str, Any], point: int) -> dict[str, Any]:
    """Run it and kill it (SIGKILL) just before point number ``point`` (from 1). Raises Killed, or gives the result."""
    return _run(host, options, False, "/", point, None)[0]


def _run(
    host: Tree,
    options: Mapping[str, Any],
    check: bool,
    root: str,
    crash_at: int | None,
    env: Mapping[str, str] | None,
    audited: float = 0,
) -> tuple[dict[str, Any], list[list[str]]]:
    install(host)
    order = {"options": dict(options), "check": check, "root": root, "crash_at": crash_at, "place": PLACE}
    order["audit"] = audited
    done = host.run(["python3", "-B", "-c", _RUNNER], json.dumps(order).encode(), check=False, env=env)
    if done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL):
        raise Killed
    if done.returncode:
        raise AssertionError(f"the engine ended with {done.returncode}: {done.stderr.decode(errors='replace')}")
    answer = json.loads(done.stdout)
    return answer["result"], answer["points"]
