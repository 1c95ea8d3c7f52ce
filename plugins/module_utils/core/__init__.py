# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Everything that this collection knows of mail, without Ansible."""

from .compile_once import install

install()
