# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The options that say how a relay is to be proved: how far, by which mail, against which CA certificates."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import HostError, Problem
from .service import NOT_ONE_LINE, is_address, is_one_line

if TYPE_CHECKING:
    from .port import Host

NO_CERTIFICATE = "holds no certificate in PEM"
LEVELS = ("none", "connect", "tls", "auth", "recipient")


class SendOrder(NamedTuple):
    """The option ``test_send``."""

    to: tuple[str, ...]
    sender: str = ""
    subject: str = ""
    body: str = ""
    when: str = "changed"
    via: str = "relay"
    timeout: int = 60

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> SendOrder:
        known = {key: options[key] for key in cls._fields if options.get(key) is not None}
        return cls(**{**known, "to": tuple(known.get("to", ()))})

    def problems(self) -> Iterator[Problem]:
        if not self.to:
            yield Problem("test_send.to", "is empty", "give at least one address")
        for address in self.to:
            if not is_address(address):
                yield Problem("test_send.to", f"'{address}' is not a mail address", "name@example.com")
        if self.sender and not is_address(self.sender):
            yield Problem("test_send.sender", f"'{self.sender}' is not a mail address", "name@example.com")
        if not is_one_line(self.subject):
            yield Problem("test_send.subject", NOT_ONE_LINE, "remove it")
        if not is_one_line(re.sub(r"[\r\n\t]", "", self.body)):
            yield Problem("test_send.body", "contains NUL or another control character", "remove it")
        if isinstance(self.timeout, bool) or not 1 <= self.timeout <= 3600:
            yield Problem("test_send.timeout", f"{self.timeout} is out of range", "1 to 3600 seconds")


def ca_problems(path: str, host: Host) -> Iterator[Problem]:
    """Is the file there and does it look like certificates in PEM (RFC 7468)? What is no path was told before."""
    if not path.startswith("/") or not is_one_line(path):
        return
    try:
        found = host.read(path)
    except HostError as error:
        yield Problem("ca_file", f"{path} {error.problems[0].problem}", "a file in PEM")
        return
    if found is None:
        yield Problem("ca_file", f"{path} is not there", "copy the CA certificate to the host first")
    elif b"-----BEGIN CERTIFICATE-----" not in found.content:
        yield Problem("ca_file", f"{path} {NO_CERTIFICATE}", "-----BEGIN CERTIFICATE----- ...")


def certificate_problems(path: str, host: Host) -> Iterator[Problem]:
    """Can the certificates be read? Asked only where something is to be done: loading OpenSSL takes its time."""
    import ssl

    found = host.read(path) if path else None
    if found is not None:
        pem = found.content.decode("ascii", "ignore")
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)
        except (ssl.SSLError, ValueError):
            yield Problem("ca_file", f"{path} {NO_CERTIFICATE}", "-----BEGIN CERTIFICATE----- ...")
