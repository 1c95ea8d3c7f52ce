# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the test command is made of: Pythons, environments, Debian packages, the checkout, and the parts it runs."""
