# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""What is ordered beside the service itself: on which backend, how far to prove it, whether to send a mail."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from .backends.base import Backend
from .backends.registry import choose
from .errors import HostError, InvalidService, Problem
from .service import NOT_ONE_LINE, Service, is_address, is_one_line

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


class Order(NamedTuple):
    """One call of ``smtp_service``, read and validated as far as it can be without the host."""

    service: Service
    state: str = "present"
    backend: str = "auto"
    verify: str = "none"
    verify_recipient: str = ""
    test_send: SendOrder | None = None
    backup: bool = False
    backend_options: Mapping[str, Any] = {}
    root: str = "/"

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Order:
        """Read a module's options. Nothing is raised yet: the host's backend has its say first (``settle``)."""
        present = options.get("state", "present") != "absent"
        send = options.get("test_send") if present else None
        return cls(
            service=Service.read(options),
            state="present" if present else "absent",
            backend=options.get("backend") or "auto",
            verify=(options.get("verify") or "none") if present else "none",
            verify_recipient=options.get("verify_recipient") or "",
            test_send=SendOrder.from_options(send) if send else None,
            backup=bool(options.get("backup")),
            backend_options=options.get("backend_options") or {},
            root=options.get("root") or "/",
        )

    @property
    def present(self) -> bool:
        return self.state == "present"

    def offline(self) -> list[Problem]:
        """Everything that is wrong with the order, whatever the host is."""
        return list(self._offline())

    def settle(self, host: Host, check: bool) -> Backend:
        """The backend that the order goes to. Raises InvalidService with every problem of the whole order."""
        problems = self.offline() + list(_tree_problems(host))
        try:
            backend = choose(self.backend, host)(host, self.backend_options)
        except InvalidService as error:
            raise InvalidService(problems + error.problems) from None
        problems += backend.option_problems()
        if self.present:
            problems += backend.problems(self.service)
            problems += self._on_host(host, backend, check)
        if problems:
            raise InvalidService(_once(problems))
        return backend

    def _offline(self) -> Iterator[Problem]:
        yield from root_problems(self.root)
        if not self.present:
            yield from (problem for problem in self.service.problems() if problem.option == "name")
            return
        yield from self.service.problems()
        if self.verify not in LEVELS:
            yield Problem("verify", f"'{self.verify}' is not known", "one of " + ", ".join(LEVELS))
        if self.verify != "none" and not self.service.host:
            yield Problem("verify", "there is no host to probe", "give host, or verify: none")
        if self.verify == "recipient" and not self.verify_recipient:
            yield Problem("verify_recipient", "is required with verify: recipient", "an address that the relay takes")
        if self.verify_recipient and not is_address(self.verify_recipient):
            yield Problem("verify_recipient", f"'{self.verify_recipient}' is not a mail address")
        if self.test_send is not None:
            yield from self.test_send.problems()

    def _on_host(self, host: Host, backend: Backend, check: bool) -> Iterator[Problem]:
        installed = not host.live or backend.installed()
        if not installed and not check:
            yield Problem("backend", f"{backend.name} is not installed", "install " + backend.packages)
        if not check or host.exists(self.service.ca_file):  # in check mode an earlier task has not brought it yet
            yield from ca_problems(self.service.ca_file, host)
        if self.test_send is not None and self.test_send.via == "mta" and not host.live:
            yield Problem("test_send.via", "nothing runs in the tree that could send", "use via: relay")


def offline_problems(options: Mapping[str, Any]) -> list[Problem]:
    """Everything that is wrong with a module's options, whatever the host is."""
    return Order.from_options(options).offline()


def root_problems(root: str) -> Iterator[Problem]:
    if not is_one_line(root):
        yield Problem("root", NOT_ONE_LINE, "remove it")
    elif not root.startswith("/"):
        yield Problem("root", f"'{root}' is not an absolute path", "the directory of an image or chroot")


def _tree_problems(host: Host) -> Iterator[Problem]:
    """Nothing is to be written into what is only a slip of the pen."""
    if not host.live and host.read("/etc/passwd") is None:
        yield Problem("root", f"{host.root} has no /etc/passwd", "give the root of a system, as it will be booted")


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


def _once(problems: list[Problem]) -> list[Problem]:
    kept: dict[Problem, None] = dict.fromkeys(problems)
    return list(kept)
