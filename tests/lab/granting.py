# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An authorization without the person and the server: the engine keeps an answer as it keeps a real one."""

from __future__ import annotations

import time
from collections.abc import Callable

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.answered import authorized
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.grants.base import Reply
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.store import Store, TokenState
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.tokens import Outcome, step


def accept(store: Store, name: str, reply: Reply, now: Callable[[], float] = time.time) -> Outcome:
    """Keep what a finished authorization gave, and give consumers their files. The client must be declared."""

    def kept(state: TokenState, at: int) -> TokenState:
        assert state.registration, "declare the client first"
        return authorized(state, state.registration, reply, at)

    return step(store, name, kept, now)
