# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A person who reads a guide: copies its files, and runs its commands at a control node."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import documents
from lab.terminal import watch
from lab.tree import Tree

BIN = Path(sys.executable).parent
PLUGINS = Path(__file__).parents[1] / "lab/plugins/connection"


class Reader:
    """Somebody with these hosts, by the groups of their inventory, and with secrets: names of variables -> values."""

    def __init__(self, folder: Path, groups: Mapping[str, Sequence[Tree]], secrets: Mapping[str, str]) -> None:
        self.folder, self.secrets = folder, dict(secrets)
        folder.mkdir(exist_ok=True)
        # whose rights a task has is the lab's matter: it enters the host as root
        everyone = "[all:vars]\nansible_become=false\nansible_package_use=apt\n"
        lines = {name: "".join(host.inventory_line() + "\n" for host in hosts) for name, hosts in groups.items()}
        (folder / "hosts").write_text("".join(f"[{name}]\n{text}" for name, text in lines.items()) + everyone)
        (folder / "ansible.cfg").write_text("[defaults]\n")
        (folder / "vault-password").write_text("of the vault")

    def copies(self, document: str) -> None:
        for name, text in documents.files(document).items():
            self.has(name, text)

    def has(self, path: str, content: str | bytes) -> None:
        """A file of the reader's own, such as a certificate."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    def encrypts(self, path: str) -> None:
        """The secrets, in a vault."""
        self.has(path, "".join(f"{name}: {value!r}\n" for name, value in self.secrets.items()))
        done = self._run("ansible-vault", "encrypt", path)
        assert done.returncode == 0, done.stderr

    def plays(self, name: str, *arguments: str, ends: int = 0) -> str:
        """Run a playbook; all that it says, warnings last. Raises AssertionError when it ends otherwise."""
        done = self._run("ansible-playbook", "-i", "hosts", name, *arguments)
        assert done.returncode == ends, done.stdout + done.stderr
        self._tells_no_secret(done.stdout + done.stderr)
        return done.stdout + done.stderr

    def plays_beside(
        self, act: Callable[[str], str | None], name: str, *arguments: str, terminal: bool = True, ends: int = 0
    ) -> str:
        """As plays, while ``act`` sees what is shown, and may answer."""
        command = self._command("ansible-playbook", "-i", "hosts", name, *arguments)
        code, shown = watch(command, self.folder, {**self._environment(), "TERM": "dumb"}, act, terminal)
        assert code == ends, shown
        self._tells_no_secret(shown)
        return shown

    def _tells_no_secret(self, shown: str) -> None:
        assert not any(secret in shown for secret in self.secrets.values())

    def _command(self, program: str, *arguments: str) -> list[str | Path]:
        return [BIN / program, *arguments, "--vault-password-file", "vault-password"]

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"),
            "ANSIBLE_HOME": str(self.folder / "home"),
            "ANSIBLE_CONNECTION_PLUGINS": str(PLUGINS),
            "ANSIBLE_NOCOLOR": "1",
        }

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(program, *arguments),
            cwd=self.folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def without_blank_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


def contains(whole: Sequence[str], part: Sequence[str]) -> bool:
    """Do these lines stand in the whole, in one piece?"""
    return any(list(whole[start : start + len(part)]) == list(part) for start in range(len(whole)))
