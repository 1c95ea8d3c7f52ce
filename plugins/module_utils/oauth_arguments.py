# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The argument specs of the modules that manage OAuth grants. Nothing has a default that the store may know better."""

from __future__ import annotations

from typing import Any

from .form_arguments import OAUTH

NAME: dict[str, Any] = {"type": "str", "default": "default"}
STORE: dict[str, Any] = {"type": "path", "default": "/var/lib/fleetmail/oauth"}
TIMEOUT: dict[str, Any] = {"type": "int", "default": 20}

REGISTRATION: dict[str, Any] = {
    **{option: {key: value for key, value in spec.items() if key != "default"} for option, spec in OAUTH.items()},
    "device_authorization_url": {"type": "str"},
    "revocation_url": {"type": "str"},
    "introspection_url": {"type": "str"},
    "issuer": {"type": "str"},
    "jwt_key_file": {"type": "path", "no_log": False},
    "jwt_subject": {"type": "str"},
    "username": {"type": "str"},
    "authorized_user": {"type": "str"},
    "redirect_uri": {"type": "str"},
    "ca_file": {"type": "path"},
    "validate_certs": {"type": "bool"},
    "proxy": {"type": "str", "no_log": True},  # it may have a password in it
    "refresh_token_lifetime": {"type": "str", "no_log": False},
    "min_validity": {"type": "str"},
    "keepalive": {"type": "str"},
    "warn_before": {"type": "str"},
}

AUTHORIZATION: dict[str, Any] = {
    "listen": {"type": "str"},
    "authorization_response": {"type": "str", "no_log": True},
    "wait": {"type": "int", "default": 0},
    "timeout": TIMEOUT,
    "revoke": {"type": "bool", "default": True},
}
