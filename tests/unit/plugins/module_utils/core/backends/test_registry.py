# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which backend `auto` takes, on trees with programs and links as packages lay them down."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends.registry import choose
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.errors import InvalidService
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.posix_host import PosixHost

PACKAGES = {
    "postfix": ["usr/sbin/postfix", "usr/sbin/sendmail"],
    "exim4": ["usr/sbin/exim4", ("usr/sbin/sendmail", "exim4")],
    "msmtp": ["usr/bin/msmtp"],
    "msmtp-mta": [("usr/sbin/sendmail", "../bin/msmtp")],
}


def host_with(root: Path, *packages: str) -> PosixHost:
    for package in packages:
        for entry in PACKAGES[package]:
            path = root / (entry if isinstance(entry, str) else entry[0])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            if isinstance(entry, str):
                path.touch(0o755)
            else:
                os.symlink(entry[1], path)
    return PosixHost(str(root))


@pytest.mark.parametrize(
    ("packages", "chosen"),
    [
        (["postfix"], "postfix"),
        (["exim4"], "exim"),
        (["msmtp"], "msmtp"),
        (["msmtp", "msmtp-mta"], "msmtp"),
        (["postfix", "msmtp"], "postfix"),  # as Postfix' OAuth wants it
        (["exim4", "msmtp"], "exim"),
    ],
)
def test_the_software_that_mail_goes_through(packages: list[str], chosen: str, tmp_path: Path) -> None:
    assert choose("auto", host_with(tmp_path, *packages)).name == chosen


@pytest.mark.parametrize(
    ("packages", "told"),
    [
        ([], "none of exim, msmtp, postfix"),
        (["postfix", "exim4"], "several: exim, postfix"),
        (["postfix", "msmtp", "msmtp-mta"], "several: msmtp, postfix"),  # the link was laid over Postfix' own
    ],
)
def test_where_it_cannot_be_told(packages: list[str], told: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidService, match=f"auto found {told}"):
        choose("auto", host_with(tmp_path, *packages))
