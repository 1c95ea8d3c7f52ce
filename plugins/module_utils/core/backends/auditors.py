# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Which backends can be audited. Apart from the registry of backends: what enforces a service is sent without it."""

from __future__ import annotations

from typing import Callable

from .auditing import Auditor


def _exim() -> type[Auditor]:
    from .exim_audit import EximAuditor

    return EximAuditor


def _msmtp() -> type[Auditor]:
    from .msmtp_audit import MsmtpAuditor

    return MsmtpAuditor


def _postfix() -> type[Auditor]:
    from .postfix_audit import PostfixAuditor

    return PostfixAuditor


# name, as in registry.BACKENDS -> how to get the class
AUDITORS: dict[str, Callable[[], type[Auditor]]] = {"exim": _exim, "msmtp": _msmtp, "postfix": _postfix}
