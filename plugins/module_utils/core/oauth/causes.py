# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Why an authorization server said no, and what a person does about it, as one table."""

from __future__ import annotations

from typing import NamedTuple


class Cause(NamedTuple):
    """One reason. ``status`` is one of the contract's; ``definite``: the refresh token is of no use any more."""

    name: str
    status: str
    definite: bool
    summary: str  # what is so, in one sentence
    next_step: str  # what to do, in plain words
