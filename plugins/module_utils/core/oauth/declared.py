# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""What a service with OAuth declares beside its mail software's files: its client, who reads the token, the token.

All of it becomes files of the service's one transaction. Nothing here talks to an authorization server or renews
anything: that is the engine's (tokens.py), which gives a file of a service a newer token whenever it has one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from ..backends.base import FileState
from ..errors import Problem
from ..service import OAuthClient, name_problems
from . import document
from .registration import Registration
from .renewal import is_valid, settled
from .store import Store
from .token_files import render

if TYPE_CHECKING:
    from ..backends.base import Backend, Observed
    from ..port import Host
    from ..service import Service
    from .state import TokenState
    from .token_files import Consumer

WORDS = {  # the form's word -> the registration's
    "oauth_provider": "provider",
    "oauth_tenant": "tenant",
    "oauth_grant": "grant",
    **{word: word for word in ("client_id", "client_secret", "scope", "authorization_url", "token_url")},
}


class Token(NamedTuple):
    """The access token that the relay can be talked to with, empty where there is none; one of status.STATUSES."""

    token: str = ""
    status: str = ""
    next_step: str = ""


def problems(service: Service) -> Iterator[Problem]:
    """Everything that is wrong with the client, as far as the form has an option for it, offline.

    Whether a client without a secret has a key only the host can tell: ``problems_on``.
    """
    if service.oauth.named:
        for problem in Registration.from_service(service).problems():
            if problem.option in WORDS and not (problem.option == "client_secret" and _without_secret(service)):
                yield problem


def problems_on(host: Host, service: Service, check: bool) -> Iterator[Problem]:
    """A client that sends for itself has a secret, or a key that smtp_oauth_token has registered on the host."""
    if not _without_secret(service) or service.oauth.grant != "client_credentials" or any(name_problems(service.name)):
        return
    stored = Store(host).read(service.name).registration
    if stored is None and check:  # an earlier task has not registered it yet
        return
    for problem in Registration.from_service(service, stored).problems():
        if problem.option == "client_secret":
            yield problem._replace(hint="the application's secret; or its key, by smtp_oauth_token before this")


def _without_secret(service: Service) -> bool:
    return service.oauth.client_secret is None


class Declared:
    """The store's part of one service on one backend, as it was read last."""

    def __init__(self, host: Host, backend: Backend, name: str, now: Callable[[], float] = time.time) -> None:
        """Raises HostError where the store holds something that is not understood."""
        self.host, self.backend, self.name, self.now = host, backend, name, now
        self.store = Store(host)
        self.state: TokenState = self.store.read(name)
        self.path = self.store.consumer_path(name, f"{name}.{backend.name}")

    # -- what holds --------------------------------------------------------------------------------------------------

    def show(self, observed: Observed, ordered: bool) -> None:
        """Put the client into what was observed, in the form's words, where the service uses it or is to use it."""
        observed.secrets += self._secrets()
        if ordered or observed.form.get("auth_type") == "oauth":
            observed.form.update(_form(self.state.registration))

    def _secrets(self) -> list[str]:
        state = self.state
        held = [one for one in (state.grant, *(aside.held for aside in state.aside)) if one is not None]
        found = [one.refresh_token for one in held]
        found.append(state.access.token if state.access else None)
        found.append(state.registration.client_secret if state.registration else None)
        return [secret.reveal() for secret in found if secret is not None]

    def client(self) -> OAuthClient:
        """The client that is registered, as the form has it."""
        known = self.state.registration or Registration()
        same = {field: getattr(known, field) for field in OAuthClient._fields}
        return OAuthClient(**same)

    # -- what is wanted ----------------------------------------------------------------------------------------------

    def registration(self, service: Service) -> Registration | None:
        """What is to be registered for the service; as it is where the form is not complete yet."""
        stored = self.state.registration
        return Registration.from_service(service, stored) if service.oauth.named else stored

    def wanted_form(self, service: Service) -> dict[str, Any]:
        """The client that is wanted, in the form's words."""
        return _form(self.registration(service))

    def problems(self, service: Service) -> Iterator[Problem]:
        """What the software cannot do with the very token that there is."""
        longest, token = self.backend.longest_bearer(), self._access(service)
        length = len(_LONGEST.format(service.username, service.host, service.port, token).encode())
        if longest and token and length > longest:
            problem = f"the access token is too long for {self.backend.name} by {length - longest} bytes"
            yield Problem("auth_type", problem, "ask for fewer scopes and claims, or relay through a host that can")

    def files(self, service: Service | None) -> list[FileState]:
        """To be written before the software's own files, and removed after them: its token is there while it runs."""
        if service is None or service.auth_type != "oauth" or not service.host:
            return [FileState(self.path, None), *self._gone(), *self._unread()]
        consumer = self.backend.consumer(service)
        registration = self.registration(service)
        record = None if registration is None else document.written(registration.as_record())
        return [
            _private(self.store.registration_path(self.name), record, secret=True),
            _private(self.path, document.written(consumer.as_record())),
            *(state for state in self._unread() if state.path != consumer.path),
            self._token_file(service, consumer),
        ]

    def _token_file(self, service: Service, consumer: Consumer) -> FileState:
        """What the store has. A token that is no longer valid is not written anew, and what is there is left to be."""
        access = self._settled(service).access
        content = render(consumer.format, access, consumer.username) if access else None
        if content is not None and not self._access(service):
            now = self.host.read(consumer.path)
            content = content if now and now.content == content else None
        return FileState(consumer.path, content, consumer.mode, consumer.owner, consumer.group, secret=True)

    def _unread(self) -> list[FileState]:
        """Token files of this service that nobody reads any more."""
        paths = {one.path for one in self.state.consumers if (one.service, one.backend) == self._key}
        paths.add(self.backend.token_path(self.name))
        return [FileState(path, None, secret=True) for path in sorted(paths)]

    @property
    def _key(self) -> tuple[str, str]:
        return self.name, self.backend.name

    def _gone(self) -> list[FileState]:
        """The registration, when neither a grant nor another consumer needs it; then there is nothing else either."""
        state = self.state
        readers = [(one.service, one.backend) for one in state.consumers]
        if readers != [self._key] or state.grant or state.aside or state.pending:
            return []
        paths = [self.store.token_path(self.name), self.store.registration_path(self.name)]
        return [FileState(path, None, secret=True) for path in paths]

    # -- the token ---------------------------------------------------------------------------------------------------

    def _settled(self, service: Service) -> TokenState:
        """The state with the client that the service names, and without the grant of another one."""
        return settled(self.state._replace(registration=self.registration(service)), int(self.now()))

    def _access(self, service: Service) -> str:
        """The access token, while it is valid."""
        access = self._settled(service).access
        return access.token.reveal() if access and is_valid(access, int(self.now())) else ""

    def token(self, service: Service) -> Token:
        """The token to prove the service with, how its grant stands, and what has to be done, if anything has."""
        from .status import view

        token, told = self._access(service), view(self._settled(service), self.now())
        return Token(token, str(told["status"]), str(told["next_step"] or ("" if token else _ASK.format(self.name))))

    def warnings(self, service: Service | None) -> Iterator[str]:
        """What a person has to know: mail waits for a token, or what nobody uses stays in the store."""
        if service is None or service.auth_type != "oauth":
            if self.state.grant is not None:
                yield f"the grant of {self.name} stays in the store: smtp_oauth_token with state: absent revokes it"
            elif self.state.pending is not None:
                yield f"the authorization of {self.name} that was begun stays in the store: {_GIVE_UP}"
            return
        if not service.host:
            return
        token = self.token(service)
        if not token.token:
            fate = "its mail waits" if self.backend.capabilities.queue else "sends nothing for now"
            yield f"{self.name} has no valid access token ({token.status}) and {fate}: {token.next_step}"
        elif token.status != "authorized":
            yield f"the grant of {self.name} is {token.status}, its access token is still good: {token.next_step}"
        held = self.state.grant
        if held is not None and self._settled(service).grant != held:
            yield f"the grant of {self.name} was given to another client ({held.identity}): it is kept and not used"

    # -- the lock ----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep the engine from giving this service a newer token while its files are changed; leave nothing empty."""
        with self.store.locked(self.name):
            inside = self.store.path(self.name)
            self.host.make_directory(inside + "/consumers", 0o700, "root", "root")
            try:
                yield
            finally:
                self.host.remove_directory(inside + "/consumers")
                self.host.remove_directory(inside)


_LONGEST = "n,a={},\1host={}\1port={}\1auth=Bearer {}\1\1"  # RFC 7628 3.1; what XOAUTH2 says is shorter
_GIVE_UP = "smtp_oauth_token with state: absent gives it up"
_ASK = "renew it with smtp_oauth_token, name: {}, or let the keeper do so"


def _private(path: str, content: bytes | None, secret: bool = False) -> FileState:
    return FileState(path, content, 0o600, "root", "root", secret=secret)


def _form(registration: Registration | None) -> dict[str, Any]:
    if registration is None:
        return {}
    known = registration.effective()
    return {word: getattr(known, field) for word, field in WORDS.items()}
