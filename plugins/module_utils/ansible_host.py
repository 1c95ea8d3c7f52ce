# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The Host port on AnsibleModule: the machine itself, with what only Ansible knows of it."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule

from .core.posix_host import PosixHost


class AnsibleHost(PosixHost):
    """PosixHost that asks Ansible for a new file's SELinux context."""

    def __init__(self, module: AnsibleModule, root: str = "/") -> None:
        super().__init__(root)
        self._module = module

    def label(self, staged: str, target: str) -> None:
        """Give the staged file the context of its target, or the default one where there is no target yet."""
        if self._module.selinux_enabled():
            context = self._module.selinux_context(target)
            if None in context[:3]:
                context = self._module.selinux_default_context(target)
            self._module.set_context_if_different(staged, context, False)
