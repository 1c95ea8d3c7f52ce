# Copyright: fleetmail.smtp contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The token keeper as one file. DOCUMENTATION, EXAMPLES and RETURN are beside this file, in keeper_zipapp.yml."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

from ansible_collections.fleetmail.smtp.plugins.plugin_utils.keeper_program import PYTHON, program


class LookupModule(LookupBase):
    def run(self, terms: list[str], variables: Any = None, **options: Any) -> list[str]:
        python = str(options.pop("python", PYTHON))
        if terms or options:
            raise AnsibleError("keeper_zipapp takes no terms, and no option but python")
        content = program(python)
        path = Path(constants.DEFAULT_LOCAL_TMP) / f"keeper-{hashlib.sha256(content).hexdigest()}"
        if not path.exists():  # the workers of one run share it
            _write(path, content)
        return [str(path)]


def _write(path: Path, content: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)
    with open(descriptor, "wb") as file:
        file.write(content)
    os.replace(temporary, path)
