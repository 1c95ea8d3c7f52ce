# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes the checkout importable as ansible_collections.fleetmail.smtp, however pytest is started.

The fixture by which tests drive Ansible, and the order in which files of tests begin.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hypothesis
import pytest
from driver import checkout
from lab.driven import Driven

COLLECTIONS = str(checkout.linked())
sys.path.insert(0, COLLECTIONS)
os.environ["ANSIBLE_COLLECTIONS_PATH"] = COLLECTIONS
hypothesis.settings.register_profile("busy", deadline=None)  # machines are shared: no example is judged by the clock
hypothesis.settings.load_profile("busy")

# They take longest. Begun first, none of them is what the others have ended long before.
LONGEST = (
    *("test_fleet", "test_fleet_oauth", "test_oauth_guides", "test_fleet_playbooks", "test_leaks", "test_scale_out"),
    *("test_token_keeper_role", "test_crash", "test_relay_hub", "test_authorize_playbook", "test_migrate_playbook"),
    *("test_audit", "test_process_server_guide", "test_relay_client", "test_documents", "test_examples", "test_demo"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; the rest stays as it is."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture
def driven(tmp_path: Path) -> Driven:
    """Modules, roles, plays and playbooks on hosts of the lab, with what Ansible reads and writes in a folder."""
    return Driven(tmp_path / "driven")
