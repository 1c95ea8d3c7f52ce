# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The test laboratory: Debian trees as hosts, real mail software in them, relays to talk to."""
