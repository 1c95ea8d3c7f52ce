# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ansible's way into a tree of the test laboratory."""

from __future__ import annotations

DOCUMENTATION = """
name: lab
author: fleetmail.smtp contributors
short_description: Run tasks inside a tree of the test laboratory
description:
  - Enters the namespaces of a running tree with C(nsenter), as root. The controller must be root on the same machine.
  - Pipelining is supported. C(lab.tree.Tree.inventory_line()) gives the inventory line, which looks like
    C(client ansible_connection=lab lab_pid=4711 lab_root=/run/fleetmail-lab/client-1/root ansible_pipelining=true).
  - Ansible finds this plugin with C(ANSIBLE_CONNECTION_PLUGINS) or C(connection_plugins) set to its folder.
options:
  pid:
    description: Process 1 of the tree, as the machine numbers it.
    type: int
    required: true
    vars:
      - name: lab_pid
  root:
    description: Where the tree is mounted. The process must have this root, so that a reused number is never entered.
    type: path
    required: true
    vars:
      - name: lab_root
  pipelining:
    description: Feed modules to Python's standard input instead of copying them.
    type: bool
    default: true
    vars:
      - name: ansible_pipelining
"""

import os  # noqa: E402
import shlex  # noqa: E402
import subprocess  # noqa: E402

from ansible.errors import AnsibleConnectionFailure  # noqa: E402
from ansible.plugins.connection import ConnectionBase  # noqa: E402

_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
}


class Connection(ConnectionBase):
    """nsenter into a tree."""

    transport = "lab"
    has_pipelining = True

    def _connect(self):
        root = self.get_option("root")
        try:
            same = os.path.samestat(os.stat(f"/proc/{self.get_option('pid')}/root/"), os.stat(root))
        except OSError:
            same = False
        if not same:
            raise AnsibleConnectionFailure(f"the tree at {root} does not run")
        self._connected = True
        return self

    def _run(self, command, stdin):
        self._connect()
        enter = ["nsenter", f"--target={self.get_option('pid')}", "--mount", "--uts", "--ipc", "--net", "--pid", "--"]
        done = subprocess.run(
            [*enter, "/bin/sh", "-c", command], input=stdin, capture_output=True, env=_ENVIRONMENT, check=False
        )
        return done.returncode, done.stdout, done.stderr

    def exec_command(self, cmd, in_data=None, sudoable=True):
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        return self._run(cmd, in_data if in_data is not None else b"")

    def put_file(self, in_path, out_path):
        super().put_file(in_path, out_path)
        with open(in_path, "rb") as source:
            self._checked(f"cat > {shlex.quote(out_path)}", source.read())

    def fetch_file(self, in_path, out_path):
        super().fetch_file(in_path, out_path)
        content = self._checked(f"cat < {shlex.quote(in_path)}", b"")
        with open(out_path, "wb") as target:
            target.write(content)

    def _checked(self, command, stdin):
        code, out, err = self._run(command, stdin)
        if code:
            raise AnsibleConnectionFailure(f"{command}: {err.decode(errors='replace')}")
        return out

    def close(self):
        self._connected = False
