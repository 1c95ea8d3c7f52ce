# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is wrong with what a report was asked of."""

from __future__ import annotations

from collections.abc import Iterable

from ...module_utils.core.errors import FleetmailError, Problem


class NoReport(FleetmailError):
    """There can be no report; ``problems`` says all that is wrong."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        found = list(problems)
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        super().__init__(f"{found[0]}{more}", found)
