# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

from __future__ import annotations

from .base import GrantType


class JwtBearer(GrantType):
    name = "jwt_bearer"
