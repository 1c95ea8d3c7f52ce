# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Providers that give up passwords for SMTP, as data: which relays, from when on, what is left."""

from __future__ import annotations

import datetime
from typing import NamedTuple

from .findings import Finding, finding


class Retirement(NamedTuple):
    """One provider. ``last``: the last day with passwords; ``after``: the kind of finding from then on."""

    provider: str
    relays: tuple[str, ...]
    last: str
    detail: str
    after: str = "basic-auth-retired"


RETIREMENTS = (
    # Microsoft 365 message center MC786329, as of 2026-01-27
    Retirement(
        "Exchange Online",
        ("smtp.office365.com", "smtp-legacy.office365.com", "outlook.office365.com", "smtp.outlook.office365.com"),
        "2026-12-31",
        "off by default for existing tenants then (an administrator can turn it on again) and not to be had for new "
        "ones; when it goes for good is to be said in the second half of 2027",
    ),
    # Microsoft Support, "Modern Authentication Methods now needed to continue syncing Outlook Email"
    Retirement(
        "Outlook.com",
        ("smtp-mail.outlook.com", "smtp.live.com", "smtp.hotmail.com"),
        "2024-09-15",
        "personal accounts need OAuth, app passwords do not work either",
    ),
    # Google Workspace Updates, "Winding down Google Sync and Less Secure Apps support"
    Retirement(
        "Google", ("smtp.gmail.com", "smtp.googlemail.com", "smtp-relay.gmail.com"), "2025-04-30", "", "app-password"
    ),
)


def retirement(host: str, today: datetime.date) -> Finding | None:
    """What is to be said of a password for that relay, if anything is."""
    name = host.lower().rstrip(".")
    row = next((row for row in RETIREMENTS if name in row.relays), None)
    if row is None:
        return None
    last = datetime.date.fromisoformat(row.last)
    if today <= last:
        return finding(
            "basic-auth-retiring", field="auth_type", provider=row.provider, date=row.last, detail=row.detail
        )
    since = (last + datetime.timedelta(days=1)).isoformat()
    return finding(row.after, field="auth_type", provider=row.provider, date=since, detail=row.detail)
