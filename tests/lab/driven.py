# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible from pytest, behind one fixture: modules and roles by pytest-ansible, playbooks by ansible-playbook.

pytest-ansible ends in December 2026. What takes its place changes this file alone: tests know the fixture ``driven``,
and no other file may name pytest-ansible's modules or fixtures (tests/unit/test_driven.py).

Its host manager drives, in a process of its own for each call, and its plugin for pytest stays off, because the plugin
works inside pytest's process (measured with 26.10 and ansible-core 2.21):

- It imports Ansible before any conftest runs, and Ansible reads its settings once, then. Collections, plugins and
  temporary files are the person's who runs the tests; a connection plugin that a test names later is not found.
- It puts Ansible's importer before Python's for the whole run: a test of what a module prints then sees a controller,
  and fails; every unit test pays for it. Started at a collection's root, it also builds a ``collections`` folder there.
- It forks that process for each host, whatever threads a relay of the tests has in it.

In a process of its own it works with ansible-core 2.18 to 2.22, over the lab's connection, ssh with become, and local.

What it cannot do: it runs one task on all hosts, so a playbook's batches, canary and several plays are for
ansible-playbook. Its own results leave out a host that skipped the task, and keep a role's last task only; so results
come from the journal here as everywhere in the laboratory, and its own account decides the exit code.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .playbook import Host, Played, Task, carried_out, play, prepared
from .space import Space

HERE = Path(sys.executable).parents[1]
OK, FAILED, UNREACHABLE = 0, 2, 4  # as ansible-playbook ends
_TESTS = Path(__file__).parents[1]
_LIBRARY = ("pytest_ansible", "typing_extensions")  # what it needs beside ansible-core


class Lost:
    """A host that does not answer."""

    def inventory_line(self) -> str:
        return "lost ansible_connection=lab lab_pid=999999999 lab_root=/nonexistent"


class NotDriven(Exception):
    """There is no such module, or pytest-ansible broke; the text is what it said."""


class Driven:
    """Ansible, with all that it reads and writes in one folder; by ``driven`` in tests.

    ansible: the virtual environment whose ansible-core runs; network: in which space's, the machine's own unless given;
    environment: settings beside those of the lab, such as ssh's.
    """

    def __init__(
        self,
        folder: Path,
        ansible: Path = HERE,
        network: Space | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder, self.ansible, self.network, self.environment = folder, ansible, network, dict(environment or {})

    def by(self, ansible: Path) -> Driven:
        """The same, with the ansible-core of another environment."""
        return Driven(self.folder, ansible, self.network, self.environment)

    def module(
        self,
        name: str,
        hosts: Sequence[Host] = (),
        arguments: Mapping[str, Any] | None = None,
        *,
        check: bool = False,
        variables: Mapping[str, Any] | None = None,
        timeout: float = 300,
    ) -> Played:
        """Run one module, by its full name, on the hosts (none: on this machine) by pytest-ansible, with diff.

        arguments: plain values, no templates. ``Played.out`` has a line a host: its name and ok, failed or unreachable.
        Raises NotDriven when nothing was run.
        """
        _command, settings = prepared(self.folder, [], hosts, variables, ansible=self.ansible)
        given = self.folder / "input"
        keywords = {"check_mode": check, "diff": True, "vars": dict(variables or {})}
        asked = {"module": name, "arguments": dict(arguments or {}), "keywords": keywords}
        (given / "module.json").write_text(json.dumps({**asked, "inventory": str(given / "hosts")}))
        # What Python would warn of is pytest-ansible's own use of what is to go; Ansible's warnings are in the results.
        command = [str(self.ansible / "bin/python"), "-W", "ignore", "-m", "lab.driven", str(given / "module.json")]
        reaching = self.network.net_command(command) if self.network else command
        search = {"PYTHONPATH": os.pathsep.join([str(_TESTS), *self._library()])}
        played = carried_out(self.folder, reaching, {**settings, **search, **self.environment}, timeout)
        if played.code not in (OK, FAILED, UNREACHABLE):
            raise NotDriven(f"{name}: {played.out}\n{played.err}")
        return played

    def role(self, name: str, hosts: Sequence[Host], variables: Mapping[str, Any], *, check: bool = False) -> Played:
        """Run a role, by its full name, by pytest-ansible: the results of its tasks, in order."""
        include = "ansible.builtin.include_role"
        return self.module(include, hosts, {"name": name}, check=check, variables=variables)

    def play(
        self,
        tasks: Sequence[Task],
        hosts: Sequence[Host],
        variables: Mapping[str, Any] | None = None,
        arguments: Sequence[str] = (),
        *,
        book: str = "",
    ) -> Played:
        """Run tasks by ansible-playbook."""
        return play(
            self.folder,
            tasks,
            hosts,
            variables,
            arguments,
            environment=self.environment,
            ansible=self.ansible,
            book=book,
            network=self.network,
        )

    def book(
        self,
        name: str,
        hosts: Sequence[Host],
        variables: Mapping[str, Any] | None = None,
        arguments: Sequence[str] = (),
    ) -> Played:
        """Run a playbook, by its full name or its file, by ansible-playbook: with its batches, and all of its plays."""
        return self.play([], hosts, variables, arguments, book=name)

    def _library(self) -> list[str]:
        """Where another environment's Python finds pytest-ansible, and nothing else of this one."""
        if self.ansible == HERE:
            return []
        library = self.folder / "output/library"
        library.mkdir(parents=True, exist_ok=True)
        for name in _LIBRARY:
            found = importlib.util.find_spec(name)
            assert found is not None, name
            assert found.origin is not None, name
            origin = Path(found.origin)
            source = origin.parent if found.submodule_search_locations else origin
            link = library / source.name
            link.unlink(missing_ok=True)
            link.symlink_to(source)
        return [str(library)]


# -- the process in which pytest-ansible works


def main(request: Path) -> int:
    """Run what the file asks for, tell of each host, and end as ansible-playbook would."""
    told = _told(json.loads(request.read_text()))
    for host, status in sorted(told.items()):
        print(f"{host}: {status}")
    worst = set(told.values())
    return UNREACHABLE if "unreachable" in worst else FAILED if "failed" in worst else OK


def _told(asked: Mapping[str, Any]) -> dict[str, str]:
    """What pytest-ansible says of each host: ok, failed or unreachable."""
    from ansible.plugins.loader import init_plugin_loader
    from pytest_ansible.errors import AnsibleConnectionFailure
    from pytest_ansible.host_manager.utils import get_host_manager

    init_plugin_loader()  # it looks for the module before it does this itself, and would find none of a collection
    dispatcher = get_host_manager(inventory=asked["inventory"], host_pattern="all")["all"]
    plain = dispatcher._build_play_ds
    # There is no other way in for check mode: its option of that name is never read.
    dispatcher._build_play_ds = lambda arguments: {**plain(arguments), **asked["keywords"]}
    try:
        contacted, lost = getattr(dispatcher, asked["module"])(**asked["arguments"]).contacted, {}
    except AnsibleConnectionFailure as failure:
        contacted, lost = failure.contacted, failure.dark
    results = {host: "failed" if result.get("failed") else "ok" for host, result in contacted.items()}
    return {**results, **dict.fromkeys(lost, "unreachable")}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
