# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The Host port on AnsibleModule: the machine itself, with what only Ansible knows of it."""

from __future__ import annotations

import contextlib
import os

from ansible.module_utils.basic import AnsibleModule

from .core.posix_host import PosixHost


class AnsibleHost(PosixHost):
    """PosixHost that asks Ansible for a new file's SELinux context."""

    def __init__(self, module: AnsibleModule, root: str = "/") -> None:
        super().__init__(root)
        self._module = module

    def label(self, staged: str, target: str) -> None:
        """Give the staged file the context of its target, or the policy's default where there is no target yet.

        A tree is relabelled when it is first booted: what the policy says of its outer path would be wrong.
        """
        super().label(staged, target)
        if self.live and not os.path.exists(target) and self._module.selinux_enabled():
            context = [part for part in self._module.selinux_default_context(target) if part]
            with contextlib.suppress(OSError):
                os.setxattr(staged, "security.selinux", ":".join(context).encode() + b"\0")
