# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes the checkout importable as ansible_collections.fleetmail.smtp, however pytest is started.

And the fixture by which tests drive Ansible.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from driver import checkout
from lab.driven import Driven

COLLECTIONS = str(checkout.linked())
sys.path.insert(0, COLLECTIONS)
os.environ["ANSIBLE_COLLECTIONS_PATH"] = COLLECTIONS


@pytest.fixture
def driven(tmp_path: Path) -> Driven:
    """Modules, roles, plays and playbooks on hosts of the lab, with what Ansible reads and writes in a folder."""
    return Driven(tmp_path / "driven")
