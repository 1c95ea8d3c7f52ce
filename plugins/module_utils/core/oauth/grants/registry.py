# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Which grant types there are. Each is imported only when it is used."""

from __future__ import annotations

from typing import Callable

from .base import GrantType


def _authorization_code() -> GrantType:
    from .authorization_code import AuthorizationCode

    return AuthorizationCode()


def _client_credentials() -> GrantType:
    from .client_credentials import ClientCredentials

    return ClientCredentials()


def _device_code() -> GrantType:
    from .device_code import DeviceCode

    return DeviceCode()


def _jwt_bearer() -> GrantType:
    from .jwt_bearer import JwtBearer

    return JwtBearer()


GRANTS: dict[str, Callable[[], GrantType]] = {
    "authorization_code": _authorization_code,
    "client_credentials": _client_credentials,
    "device_code": _device_code,
    "jwt_bearer": _jwt_bearer,
}


def grant_type(name: str) -> GrantType:
    """The grant type of that name, which `Registration.problems` has checked."""
    return GRANTS[name]()
