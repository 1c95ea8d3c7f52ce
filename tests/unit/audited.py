# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""An audit of a tree in memory, as hand-made configurations and their expectations are laid down in by_hand."""

from __future__ import annotations

from typing import Any

from by_hand import Case, File
from unit.fake_host import FakeHost

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.audit import audit
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends.postfix_tables import COMPILED

TODAY = 1795500000.0  # 2026-11-24


def laid_down(case: Case) -> FakeHost:
    """The tree with the case's files; what would have been compiled is there, and newer than its source."""
    host = FakeHost({"/etc/passwd": "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n"}, live=False)
    host.groups |= {"Debian-exim", "msmtp"}
    host.put("/etc/ssl/relay-ca.pem", "-----BEGIN CERTIFICATE-----\n")
    for path, file in case.files.items():
        text, mode, group = file if isinstance(file, File) else (file, 0o644, "root")
        host.put(path, text, mode, "root", group)
    for table in case.compiled:
        kind, path = table.split(":", 1)
        host.put(path + COMPILED[kind], "\0", host.files[path].mode)
    for command in case.commands:
        _done(host, command)
    return host


def _done(host: FakeHost, command: str) -> None:
    """The few commands that a case has, in memory."""
    words = command.split()
    if words[0] == "rm":
        host.remove(words[1])
    elif words[0] == "echo" and words[-2] == ">>":
        now = host.files[words[-1]]
        host.put(words[-1], now.content.decode() + command.split("'")[1] + "\n", now.mode)


def looked_at(host: FakeHost, **options: Any) -> dict[str, Any]:
    """The audit's result, on a day that does not change."""
    return audit(options, host, lambda: TODAY)


def assert_seen(case: Case, result: dict[str, Any], live: bool = False) -> None:
    """The result has what the case says."""
    services = {one["name"]: one for one in result["services"]}
    assert sorted(services) == sorted(case.services), result["findings"]
    for name, fields in case.services.items():
        assert {key: services[name].get(key) for key in fields} == dict(fields)
    told = {one["id"] for one in result["findings"]}
    wanted = case.findings | (case.live if live else frozenset())
    assert wanted <= told, (sorted(wanted - told), result["findings"])
    assert not case.silent & told, result["findings"]
    assert "not-understood" not in told or "not-understood" in wanted, result["findings"]
