# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Programs that are run when a token's status changes. They get no secret."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..errors import FleetmailError
from .keeper_report import Row
from .store import Store

TOLD = ("name", "status", "status_before", "cause", "days_left", "authorized_user", "next_step")  # in the environment
PATIENCE = 30  # s for a hook


def tell(store: Store, row: Row, hooks: Sequence[str], now: int) -> Row:
    """Run the hooks where the status is another one than they were told last; gives the row with what did not work.

    A hook that fails is run again with the next tick. A token that was never anything but authorized is no news.
    """
    if row.view is None:
        return row
    status = str(row.view["status"])
    if status == row.reported:
        return row
    failures = [] if not row.reported and status == "authorized" else _run(store, row, hooks)
    if not failures:
        try:
            _remember(store, row.name, status, now)
        except FleetmailError as error:
            failures = [str(error)]
    return row._replace(warnings=(*row.warnings, *failures))


def _run(store: Store, row: Row, hooks: Sequence[str]) -> list[str]:
    view = {**(row.view or {}), "status_before": row.reported or None}
    environment = {f"FLEETMAIL_{field.upper()}": _plain(view[field]) for field in TOLD}
    failures = []
    for hook in hooks:
        done = store.host.run([hook], json.dumps(view).encode(), PATIENCE, environment)
        if done.code:
            failures.append(f"the hook {hook} ended with {done.code}: {done.words[:200]}")
    return failures


def _plain(value: object) -> str:
    return "" if value is None else str(value).replace("\0", "?")


def _remember(store: Store, name: str, status: str, now: int) -> None:
    with store.locked(name):
        state = store.recovered(name, now)
        store.write(name, state._replace(reported=status))
