# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""A registration: what is declared about one token, as a frozen value. It holds no token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import Problem
from ..redaction import Secret
from .providers import CUSTOM, DAY, IDENTITY_SCOPES, PERSON_GRANTS, Provider, provider_of

if TYPE_CHECKING:
    from ..service import Service

MIN_VALIDITY = 600
WARN_BEFORE = 14 * DAY

# the fields whose options have another name
OPTIONS = {"provider": "oauth_provider", "tenant": "oauth_tenant", "grant": "oauth_grant"}
URLS = (
    "authorization_url",
    "token_url",
    "device_authorization_url",
    "revocation_url",
    "introspection_url",
)


class Registration(NamedTuple):
    """The OAuth client, whom the token is for, and how it is kept. Text that was not given is ``""``; seconds."""

    name: str = "default"
    provider: str = CUSTOM
    tenant: str = ""
    grant: str = "authorization_code"
    client_id: str = ""
    client_secret: Secret | None = None
    scope: tuple[str, ...] = ()
    authorization_url: str = ""
    token_url: str = ""
    device_authorization_url: str = ""
    revocation_url: str = ""
    introspection_url: str = ""
    issuer: str = ""
    jwt_key_file: str = ""
    jwt_subject: str = ""
    username: str = ""
    authorized_user: str = ""  # who must have authorized, where it is not username: of a shared mailbox
    redirect_uri: str = ""
    ca_file: str = ""
    validate_certs: bool = True
    proxy: str = ""
    refresh_token_lifetime: int = 0  # 0: the provider's, else 90 days
    min_validity: int = MIN_VALIDITY
    keepalive: int = 0  # 0: half the lifetime
    warn_before: int = WARN_BEFORE

    # -- where it comes from ---------------------------------------------------------------------------------------

    @classmethod
    def from_service(cls, service: Service, stored: Registration | None = None) -> Registration:
        """What smtp_service declares; the rest as ``stored``, where that is the same client."""
        client = service.oauth
        said: dict[str, Any] = {
            "name": service.name,
            "provider": client.provider,
            "tenant": client.tenant,
            "grant": client.grant,
            "client_id": client.client_id,
            "client_secret": client.client_secret,
            "scope": client.scope,
            "authorization_url": client.authorization_url,
            "token_url": client.token_url,
            "username": service.username,
        }
        if stored is not None and client.grant in PERSON_GRANTS and stored.grant in PERSON_GRANTS:
            del said["grant"]  # it is the same grant, whichever way the person gives it
        return cls._merged({field: value for field, value in said.items() if value not in ("", None, ())}, stored)

    @classmethod
    def from_options(cls, options: Mapping[str, Any], stored: Registration | None = None) -> Registration:
        """What smtp_oauth_token's options declare; what is None or missing as ``stored``, where that is the client."""
        said: dict[str, Any] = {}
        for field in cls._fields:
            value = options.get(OPTIONS.get(field, field))
            if value is not None:
                said[field] = _typed(field, value)
        return cls._merged(said, stored)

    @classmethod
    def _merged(cls, said: Mapping[str, Any], stored: Registration | None) -> Registration:
        """Two clients of one name are never mixed: what was not said of the new one is not taken from the old one."""
        if stored is not None and cls(**said).same_client(stored):
            return stored._replace(**said)
        return cls(**said)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Registration:
        """From the store's JSON. Raises ValueError for a value of another type than `as_record` wrote."""
        said: dict[str, Any] = {}
        for field, default in cls._field_defaults.items():
            if field not in record or record[field] is None:
                continue
            value = record[field]
            kind = list if field == "scope" else str if field == "client_secret" else type(default)
            if not _is(value, kind) or (kind is list and not all(isinstance(word, str) for word in value)):
                raise ValueError(f"{field} is not a {kind.__name__}")
            said[field] = _typed(field, value)
        return cls(**said)

    def as_record(self) -> dict[str, Any]:
        """As JSON, with the secret in clear: for the store's file of mode 0600 and nothing else."""
        record = self._asdict()
        record["client_secret"] = None if self.client_secret is None else self.client_secret.reveal()
        record["scope"] = list(self.scope)
        return record

    # -- what it means ---------------------------------------------------------------------------------------------

    @property
    def provider_row(self) -> Provider:
        return provider_of(self.provider)

    @property
    def person(self) -> bool:
        """Does a person give this grant?"""
        return self.grant in PERSON_GRANTS

    @property
    def expected_user(self) -> str:
        """The person who must have authorized."""
        return (self.authorized_user if self.person else "") or self.username

    def effective(self) -> Registration:
        """With the provider's URLs, scope and lifetimes in place of what was not given."""
        row = self.provider_row
        tenant = self.tenant or row.tenant
        urls = {url: getattr(self, url) or getattr(row, url).replace("{tenant}", tenant) for url in URLS}
        urls["issuer"] = self.issuer or (row.issuer if self.at_provider else "")
        lifetime = self.lifetime
        return self._replace(
            tenant=tenant,
            scope=self.scope or row.scope_of(self.grant),
            refresh_token_lifetime=lifetime,
            keepalive=self.keepalive or lifetime // 2,
            **urls,
        )

    @property
    def at_provider(self) -> bool:
        """Is it the provider's own server that is asked? With other URLs only its habits are taken."""
        return not (self.authorization_url or self.token_url)

    @property
    def lifetime(self) -> int:
        """Seconds that a refresh token lives when the server does not say."""
        return self.refresh_token_lifetime or self.provider_row.refresh_token_lifetime

    @property
    def keepalive_after(self) -> int:
        """The age in seconds at which a refresh token is used although nobody needs an access token."""
        return self.keepalive or self.lifetime // 2

    @property
    def requested_scope(self) -> tuple[str, ...]:
        """What the server is asked for: the scope, and in a person's flow who that is."""
        scope = self.effective().scope
        extra = self.provider_row.identity_scopes if self.person else ()
        return (*scope, *(word for word in extra if word not in scope))

    def missing_scope(self, granted: tuple[str, ...] | None) -> tuple[str, ...]:
        """What was wanted and not granted. ``None``: the server named no scope, so all is granted (RFC 6749 5.1).

        Identity scopes give no right, and servers do not repeat them; ``/.default`` is Microsoft's word for "whatever
        an administrator consented to".
        """
        if granted is None:
            return ()
        have = {word.casefold() for word in granted}
        wanted = (word for word in self.effective().scope if word not in IDENTITY_SCOPES)
        return tuple(word for word in wanted if word.casefold() not in have and not word.endswith("/.default"))

    # -- which client it is ----------------------------------------------------------------------------------------

    @property
    def identities(self) -> tuple[str, ...]:
        """The names under which this client's grants may be kept: by provider, or by token_url and by issuer."""
        if self.provider != CUSTOM:
            tenant = (self.tenant or self.provider_row.tenant).lower()
            places = [f"{self.provider}/{tenant}" if tenant else self.provider]
        else:
            places = [place for place in (self.token_url, self.issuer) if place] or [CUSTOM]
        return tuple(f"{self.client_id} at {place}" for place in places)

    @property
    def identity(self) -> str:
        """The name under which a grant of this client is kept."""
        return self.identities[0]

    def same_client(self, other: Registration) -> bool:
        """Are both the same client of the same server? What one of them does not say is no difference."""
        pairs = [(getattr(self, field), getattr(other, field)) for field in ("client_id", "token_url", "issuer")]
        if self.provider != CUSTOM:
            pairs = [*pairs[:1], (self.tenant.lower(), other.tenant.lower())]
        given = self.provider == CUSTOM and not (self.token_url or self.issuer)  # only a name: whichever provider it is
        return (self.provider == other.provider or given) and all(a == b for a, b in pairs if a and b)

    def problems(self) -> Iterator[Problem]:
        """Yield everything that is wrong with it, offline."""
        from .registration_problems import problems_of

        return problems_of(self)


def _is(value: Any, kind: type) -> bool:
    """Of that very type: to Python, True is a number too."""
    return isinstance(value, kind) and isinstance(value, bool) == (kind is bool)


def _typed(field: str, value: Any) -> Any:
    if field == "scope":
        return tuple(value.split() if isinstance(value, str) else value)
    if field == "client_secret":
        secret = value if isinstance(value, Secret) else Secret(str(value))
        return secret if secret.reveal() else None
    return value
