# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What one more host costs: ours against ping, a play written by hand, a role, and a mail module."""
