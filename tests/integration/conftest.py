# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fixture by which tests drive Ansible."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab.driven import Driven


@pytest.fixture
def driven(tmp_path: Path) -> Driven:
    """Modules, roles, plays and playbooks on hosts of the lab, with what Ansible reads and writes in a folder."""
    return Driven(tmp_path / "driven")
