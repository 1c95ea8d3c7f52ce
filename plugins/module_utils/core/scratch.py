# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Where candidates lie while the software's own checker reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .journal import STATE

if TYPE_CHECKING:
    from .port import Host


class Scratch:
    """A directory for candidates that a checker reads: nobody but root looks in, and nothing is left of it."""

    def __init__(self, host: Host, name: str) -> None:
        self.host = host
        self.path = f"{STATE}/candidate-{name}"

    def __enter__(self) -> Scratch:
        self.host.make_directory(self.path, 0o700, "root", "root")
        return self

    def copy(self, source: str, name: str) -> None:
        """Put the content of ``source`` there; an empty file where there is no source."""
        found = self.host.read(source)
        path = f"{self.path}/{name}"
        self.host.make_directory(path.rsplit("/", 1)[0], 0o700, "root", "root")
        content = b"" if found is None else found.content
        self.host.rename(self.host.stage(path, content, 0o600, "root", "root"), path)

    def __exit__(self, *_error: object) -> None:
        self.host.remove_tree(self.path)
