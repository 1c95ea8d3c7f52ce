# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A certificate authority for tests: good certificates, and each way in which one can be bad."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Certificate:
    """Files of a server's certificate: the chain (mode 0644) and the key (mode 0600), both PEM."""

    chain: Path
    key: Path


class Authority:
    """A CA whose own certificate is ca_file; what it issues is written to folder.

    Names may be DNS names or addresses.
    """

    def __init__(self, folder: Path, name: str = "fleetmail test CA") -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._ca = trustme.CA(organization_name=name)
        self.ca_file = _written(self.folder / "ca.pem", self._ca.cert_pem.bytes(), 0o644)

    def good(self, *names: str) -> Certificate:
        """Valid now, for these names."""
        return self._issue("good", names)

    def wrong_name(self) -> Certificate:
        """Valid, but for another host."""
        return self._issue("wrong-name", ("other.example.test",))

    def expired(self, *names: str) -> Certificate:
        """For these names, but it ended yesterday."""
        now = datetime.now(UTC)
        return self._issue("expired", names, now - timedelta(days=30), now - timedelta(days=1))

    def not_yet_valid(self, *names: str) -> Certificate:
        """For these names, from tomorrow on."""
        now = datetime.now(UTC)
        return self._issue("not-yet-valid", names, now + timedelta(days=1), now + timedelta(days=30))

    def ending(self, days: float, *names: str) -> Certificate:
        """Valid, but only so many days longer."""
        return self._issue(f"ending-{days}", names, not_after=datetime.now(UTC) + timedelta(days=days))

    def from_unknown_ca(self, *names: str) -> Certificate:
        """For these names, by a CA that nobody was told of."""
        other = Authority(self.folder / "unknown", "a CA that nobody trusts")
        return other.good(*names)

    def _issue(
        self,
        kind: str,
        names: tuple[str, ...],
        not_before: datetime | None = None,
        not_after: datetime | None = None,
    ) -> Certificate:
        leaf = self._ca.issue_cert(*names, common_name=names[0], not_before=not_before, not_after=not_after)
        stem = self.folder / f"{kind}-{names[0].replace(':', '_').replace('*', 'any')}"
        chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
        return Certificate(
            _written(stem.with_name(stem.name + ".pem"), chain, 0o644),
            _written(stem.with_name(stem.name + ".key"), leaf.private_key_pem.bytes(), 0o600),
        )


def _written(path: Path, data: bytes, mode: int) -> Path:
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
    return path
