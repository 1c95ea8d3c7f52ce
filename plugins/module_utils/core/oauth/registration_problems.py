# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""What can be said of a registration without touching anything: every problem at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import Problem

if TYPE_CHECKING:
    from .registration import Registration


def problems_of(registration: Registration) -> Iterator[Problem]:
    """Yield everything that is wrong with it, whoever declared it."""
    yield from registration.provider_row.problems(registration.tenant, registration.grant, registration.scope)
