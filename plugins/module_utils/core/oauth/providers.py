# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The providers, as data: where their endpoints are, which scopes mail needs, and what they do differently."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ..errors import Problem

DAY = 86400
DEFAULT_LIFETIME = 90 * DAY  # of a refresh token of which nobody says how long it lives

PERSON_GRANTS = ("authorization_code", "device_code")
# Who signed in (OpenID Connect Core 5.4), and that a refresh token is wanted (11): no server counts them as a right
IDENTITY_SCOPES = ("openid", "email", "profile", "offline_access")


class Provider(NamedTuple):
    """One provider. ``{tenant}`` in a URL stands for the option oauth_tenant; ``scopes`` are by grant, "" for any."""

    name: str
    title: str
    authorization_url: str = ""
    token_url: str = ""
    device_authorization_url: str = ""
    revocation_url: str = ""
    introspection_url: str = ""
    userinfo_url: str = ""
    issuer: str = ""
    scopes: Mapping[str, tuple[str, ...]] = {}
    identity_scopes: tuple[str, ...] = ()  # asked for beside the scope in a person's flow; never missing
    offline_scope: str = ""  # without it a person's grant has no refresh token
    refresh_token_lifetime: int = DEFAULT_LIFETIME  # seconds, from its last use
    authorization_parameters: tuple[tuple[str, str], ...] = ()
    scope_separator: str = " "
    grants: tuple[str, ...] = ("authorization_code", "device_code", "client_credentials", "jwt_bearer")
    tenants: str = ""  # the regular expression of a tenant, "" where there are none
    tenant: str = ""  # when none is given
    tenant_hint: str = ""
    shared_tenants: tuple[str, ...] = ()  # where only people can sign in
    loopback: str = "127.0.0.1"  # the host of a redirect URI that applications can be registered with, on any port
    consent_for_offline: bool = False  # OpenID Connect Core 11: offline_access needs prompt=consent
    certificate: bool = False  # must the file with the signing key hold the certificate too?
    max_assertion: int = 300  # seconds that a signed assertion may live
    ends_by: str = ""  # what else ends a refresh token, where the server does not say which it was

    def offers(self, grant: str) -> bool:
        return grant in self.grants

    def scope_of(self, grant: str) -> tuple[str, ...]:
        """The scope that mail needs with that grant, () when the table does not know."""
        return self.scopes.get(grant, self.scopes.get("", ()))

    def problems(self, tenant: str, grant: str, scope: tuple[str, ...]) -> Iterator[Problem]:
        """Yield what cannot work with this provider."""
        if not self.offers(grant):
            offered = ", ".join(self.grants)
            yield Problem("oauth_grant", f"{self.title} does not offer {grant} for mail", f"one of {offered}")
            return
        yield from self._tenant_problems(tenant, grant)
        if grant in PERSON_GRANTS and self.offline_scope and scope and self.offline_scope not in scope:
            hint = f"add {self.offline_scope}, or leave scope out"
            yield Problem("scope", f"lacks {self.offline_scope}, so there would be no refresh token", hint)
        if not scope and not self.scope_of(grant) and self.name != CUSTOM:
            yield Problem("scope", f"is required with oauth_provider: {self.name}", "the scope that lets a client send")

    def _tenant_problems(self, tenant: str, grant: str) -> Iterator[Problem]:
        if tenant and not self.tenants:
            yield Problem("oauth_tenant", f"is given but {self.title} has none", "leave it out")
        elif tenant and not re.match(self.tenants + r"\Z", tenant):
            yield Problem("oauth_tenant", f"'{tenant}' is not a tenant", self.tenant_hint)
        elif self.shared_tenants and grant not in PERSON_GRANTS and (tenant or self.tenant) in self.shared_tenants:
            yield Problem("oauth_tenant", f"is required with oauth_grant: {grant}", self.tenant_hint)


CUSTOM = "custom"
_TENANT = r"(?i:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}|%s)"
_MICROSOFT_HINT = "the directory (tenant) ID of the app registration's overview page, or a domain of the organization"


def _microsoft(name: str, title: str, login: str, outlook: str) -> Provider:
    """The identity platform's v2.0 endpoints; a national cloud has hosts of its own and no personal accounts."""
    home = f"https://{login}/{{tenant}}/oauth2/v2.0"
    send = (f"https://{outlook}/SMTP.Send", "offline_access")
    app_only = (f"https://{'outlook.office365.com' if outlook == 'outlook.office.com' else outlook}/.default",)
    return Provider(
        name=name,
        title=title,
        authorization_url=home + "/authorize",
        token_url=home + "/token",
        device_authorization_url=home + "/devicecode",
        scopes={"client_credentials": app_only, "": send},
        identity_scopes=("openid", "email", "profile"),
        offline_scope="offline_access",
        grants=("authorization_code", "device_code", "client_credentials"),
        tenants=_TENANT % "organizations|common|consumers",
        tenant="organizations",
        tenant_hint=_MICROSOFT_HINT,
        shared_tenants=("organizations", "common", "consumers"),
        loopback="localhost",  # the portal takes no address
        certificate=True,
    )


PROVIDERS: Mapping[str, Provider] = {
    provider.name: provider
    for provider in (
        Provider(CUSTOM, "the authorization server", consent_for_offline=True),
        Provider(
            "fastmail",
            "Fastmail",
            authorization_url="https://api.fastmail.com/oauth/authorize",
            token_url="https://api.fastmail.com/oauth/refresh",  # noqa: S106 - a URL
            revocation_url="https://api.fastmail.com/oauth/revoke",
            scopes={"": ("https://www.fastmail.com/dev/protocol-smtp", "offline_access")},
            offline_scope="offline_access",
            grants=("authorization_code",),
        ),
        Provider(
            "google",
            "Google",
            authorization_url="https://accounts.google.com/o/oauth2/v2/auth",
            token_url="https://oauth2.googleapis.com/token",  # noqa: S106 - a URL
            device_authorization_url="https://oauth2.googleapis.com/device/code",
            revocation_url="https://oauth2.googleapis.com/revoke",
            userinfo_url="https://openidconnect.googleapis.com/v1/userinfo",
            issuer="https://accounts.google.com",
            scopes={"": ("https://mail.google.com/",)},
            identity_scopes=("openid", "email"),
            refresh_token_lifetime=180 * DAY,  # "six months" unused
            # without both, the second authorization of the same person gives no refresh token
            authorization_parameters=(("access_type", "offline"), ("prompt", "consent")),
            grants=("authorization_code", "jwt_bearer"),
            max_assertion=3600,
            ends_by="Google ends it by a password change, after 7 days while the application's publishing status is "
            "'Testing', and with the 101st authorization of one account",
        ),
        _microsoft("microsoft365", "Microsoft", "login.microsoftonline.com", "outlook.office.com"),
        _microsoft("microsoft365_cn", "Microsoft (21Vianet)", "login.partner.microsoftonline.cn", "partner.outlook.cn"),
        _microsoft("microsoft365_us", "Microsoft (US Government)", "login.microsoftonline.us", "outlook.office365.us"),
        Provider(
            "yahoo",
            "Yahoo",
            authorization_url="https://api.login.yahoo.com/oauth2/request_auth",
            token_url="https://api.login.yahoo.com/oauth2/get_token",  # noqa: S106 - a URL
            revocation_url="https://api.login.yahoo.com/oauth2/revoke",
            scopes={"": ("mail-w",)},
            grants=("authorization_code",),
        ),
        Provider(
            "zoho",
            "Zoho",
            authorization_url="https://accounts.zoho.{tenant}/oauth/v2/auth",
            token_url="https://accounts.zoho.{tenant}/oauth/v2/token",  # noqa: S106 - a URL
            revocation_url="https://accounts.zoho.{tenant}/oauth/v2/token/revoke",
            authorization_parameters=(("access_type", "offline"), ("prompt", "consent")),
            scope_separator=",",
            grants=("authorization_code",),
            tenants=r"(com|eu|in|com\.au|jp|com\.cn|ca|sa|uk)",
            tenant="com",
            tenant_hint="the region of the account, as its address ends: com, eu, in, com.au, jp, com.cn, ca, sa, uk",
        ),
    )
}


def provider_of(name: str) -> Provider:
    """The provider of that name; a name that is not known has nothing filled in, which `problems` tells."""
    return PROVIDERS.get(name, PROVIDERS[CUSTOM])
