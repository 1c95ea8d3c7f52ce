# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The core is tested without Ansible: the checkout is made importable under its collection name."""

from __future__ import annotations

import sys
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

for name, path in (
    ("ansible_collections", []),
    ("ansible_collections.fleetmail", []),
    ("ansible_collections.fleetmail.smtp", [str(ROOT)]),
):
    if name not in sys.modules:
        module = types.ModuleType(name)
        module.__path__ = path  # type: ignore[attr-defined]
        sys.modules[name] = module
