# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The form as an inventory has it: variables of the role relay_client for a relay of the lab."""

from __future__ import annotations

from typing import Any

from .tree import RELAY_NAME

CA_FILE = "/etc/ssl/relay-ca.pem"


def relay_client(password: str, **more: Any) -> dict[str, Any]:
    """A login over STARTTLS that is proved. more: options of smtp_service that are other, or are there besides."""
    form = {
        "host": RELAY_NAME,
        "security": "starttls",
        "auth_type": "password",
        "username": "fleet",
        "password": password,
        "ca_file": CA_FILE,
        "verify": "auth",
    }
    return {f"relay_client_{option}": value for option, value in {**form, **more}.items()}
