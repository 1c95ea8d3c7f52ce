# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The mail log of a host: where it ends now, and what was written to it since."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence

from .host import LogMark
from .posix_host import PosixHost, decoded

MAIL_LOGS = ("/var/log/mail.log", "/var/log/maillog", "/var/log/syslog", "/var/log/messages")
LOG_LIMIT = 1 << 20


def mark(host: PosixHost, files: Sequence[str]) -> LogMark:
    """See ``port.Host.log_mark``."""
    ends: LogMark = {}
    for path in (*MAIL_LOGS, *files):
        with contextlib.suppress(OSError):
            found = os.stat(host.real(path))
            ends[path] = (found.st_ino, found.st_size)
    if host.exists("/run/systemd/journal/socket"):
        ends["journal"] = (int(time.time()), 0)
    ends.update({path: (0, 0) for path in files if path not in ends})
    return ends


def since(host: PosixHost, ends: LogMark) -> str:
    """See ``port.Host.log``."""
    parts = [_tail(host.real(path), *place) for path, place in ends.items() if path != "journal"]
    if "journal" in ends and not any(parts):
        started = "--since=@{}".format(ends["journal"][0])
        parts.append(host.run(["journalctl", "-q", "--no-pager", "SYSLOG_FACILITY=2", started]).out)
    return "".join(parts)[-LOG_LIMIT:]


def _tail(real: str, inode: int, size: int) -> str:
    try:
        with open(real, "rb") as file:
            found = os.fstat(file.fileno())
            rotated = found.st_ino != inode or found.st_size < size
            file.seek(max(0 if rotated else size, found.st_size - LOG_LIMIT))
            return decoded(file.read())
    except OSError:
        return ""
