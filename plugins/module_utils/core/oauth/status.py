# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""What a token's state means, in the contract's words. No I/O: a status spends nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .state import TokenState

STATUSES = (
    "authorized",
    "expiring",
    "pending",
    "unauthorized",
    "expired",
    "revoked",
    "misconfigured",
    "blocked",
    "unreachable",
)


def view(state: TokenState, now: float) -> dict[str, Any]:
    """The contract's ``token``: no secret in it, times in ISO 8601 UTC or None."""
    raise NotImplementedError
