# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""What is ordered beside the service itself: on which backend, how far to prove it, whether to send a mail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from .backends.base import Backend
from .backends.registry import choose
from .errors import InvalidService, Problem
from .service import NOT_ONE_LINE, Service, is_address, is_one_line

if TYPE_CHECKING:
    from .port import Host
    from .proof_options import SendOrder


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
            test_send=_send_order(send) if send else None,
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
        problems = self.offline() + list(tree_problems(host))
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
        own = list(self.service.problems())
        yield from own
        if self.service.auth_type == "oauth":
            from .oauth.declared import problems

            named = {problem.option for problem in own}
            yield from (problem for problem in problems(self.service) if problem.option not in named)
        if self.verify != "none":
            yield from self._verify_problems()
        if self.verify == "recipient" and not self.verify_recipient:
            yield Problem("verify_recipient", "is required with verify: recipient", "an address that the relay takes")
        if self.verify_recipient and not is_address(self.verify_recipient):
            yield Problem("verify_recipient", f"'{self.verify_recipient}' is not a mail address")
        if self.test_send is not None:
            yield from self.test_send.problems()

    def _verify_problems(self) -> Iterator[Problem]:
        from .proof_options import LEVELS

        if self.verify not in LEVELS:
            yield Problem("verify", f"'{self.verify}' is not known", "one of " + ", ".join(LEVELS))
        if not self.service.host:
            yield Problem("verify", "there is no host to probe", "give host, or verify: none")

    def _on_host(self, host: Host, backend: Backend, check: bool) -> Iterator[Problem]:
        if host.live and not check:
            yield from backend.not_installed(self.service)
        if self.service.auth_type == "oauth":
            from .oauth.declared import problems_on

            yield from problems_on(host, self.service, check)
        path = self.service.ca_file
        # in check mode an earlier task has not brought it yet
        if path and is_one_line(path) and (not check or host.exists(path)):
            from .proof_options import ca_problems

            yield from ca_problems(path, host)
        if self.test_send is not None and self.test_send.via == "mta" and not host.live:
            yield Problem("test_send.via", "nothing runs in the tree that could send", "use via: relay")


def _send_order(options: Mapping[str, Any]) -> SendOrder:
    from .proof_options import SendOrder

    return SendOrder.from_options(options)


def offline_problems(options: Mapping[str, Any]) -> list[Problem]:
    """Everything that is wrong with a module's options, whatever the host is."""
    return Order.from_options(options).offline()


def root_problems(root: str) -> Iterator[Problem]:
    if not is_one_line(root):
        yield Problem("root", NOT_ONE_LINE, "remove it")
    elif not root.startswith("/"):
        yield Problem("root", f"'{root}' is not an absolute path", "the directory of an image or chroot")


def tree_problems(host: Host) -> Iterator[Problem]:
    """Nothing is to be written into what is only a slip of the pen."""
    if not host.live and host.read("/etc/passwd") is None:
        yield Problem("root", f"{host.root} has no /etc/passwd", "give the root of a system, as it will be booted")


def _once(problems: list[Problem]) -> list[Problem]:
    kept: dict[Problem, None] = dict.fromkeys(problems)
    return list(kept)
