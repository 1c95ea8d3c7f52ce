# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

from __future__ import annotations

from .base import PersonGrant


class DeviceCode(PersonGrant):
    name = "device_code"
