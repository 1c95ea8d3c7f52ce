# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes the checkout importable as ansible_collections.fleetmail.smtp, however pytest is started."""

from __future__ import annotations

import os
import sys

from driver import checkout

COLLECTIONS = str(checkout.linked())
sys.path.insert(0, COLLECTIONS)
os.environ["ANSIBLE_COLLECTIONS_PATH"] = COLLECTIONS
