# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.providers import PROVIDERS, provider_of
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.registration import URLS, Registration
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.service import GRANTS, url_problems


@pytest.mark.parametrize("name", [name for name in PROVIDERS if name != "custom"])
def test_a_provider_has_all_that_its_grants_need(name: str) -> None:
    row = PROVIDERS[name]
    for grant in row.grants:
        assert grant in GRANTS
        known = Registration(provider=name, grant=grant, tenant=row.tenant, client_id="c").effective()
        assert known.token_url
        assert grant != "authorization_code" or known.authorization_url
        assert grant != "device_code" or known.device_authorization_url
        urls = [getattr(known, url) for url in (*URLS, "issuer") if getattr(known, url)]
        for url in urls:
            assert "{" not in url
            assert urlsplit(url).scheme == "https"
            assert not list(url_problems("token_url", url))
        assert known.scope or name == "zoho"


def test_national_clouds_never_lead_to_the_worldwide_one() -> None:
    for name, login, outlook in (
        ("microsoft365", "login.microsoftonline.com", "outlook.office"),
        ("microsoft365_us", "login.microsoftonline.us", "outlook.office365.us"),
        ("microsoft365_cn", "login.partner.microsoftonline.cn", "partner.outlook.cn"),
    ):
        known = Registration(provider=name, tenant="contoso.example").effective()
        assert known.token_url == f"https://{login}/contoso.example/oauth2/v2.0/token"
        assert all(outlook in word for word in known.scope if word.startswith("https"))


@pytest.mark.parametrize(
    ("tenant", "grant", "fine"),
    [
        ("contoso.example", "client_credentials", True),
        ("contoso.onmicrosoft.com", "authorization_code", True),
        ("0d1b6b3c-6a3b-4d3e-9c86-0b5f3a0a7d11", "client_credentials", True),
        ("0D1B6B3C-6A3B-4D3E-9C86-0B5F3A0A7D11", "device_code", True),
        ("organizations", "authorization_code", True),
        ("common", "device_code", True),
        ("", "authorization_code", True),
        ("", "client_credentials", False),
        ("organizations", "client_credentials", False),
        ("common", "client_credentials", False),
        ("Contoso Ltd", "authorization_code", False),
        ("contoso", "authorization_code", False),
        ("../evil", "authorization_code", False),
        ("0d1b6b3c-6a3b-4d3e-9c86", "authorization_code", False),
        ("contoso.example/oauth2", "authorization_code", False),
        ("contoso.example\n", "authorization_code", False),
    ],
)
def test_a_tenant_that_is_one(tenant: str, grant: str, fine: bool) -> None:
    found = list(provider_of("microsoft365").problems(tenant, grant, ()))
    assert ([problem.option for problem in found] == []) is fine
    assert {problem.option for problem in found} <= {"oauth_tenant"}


@pytest.mark.parametrize(
    ("provider", "tenant", "grant", "scope", "option"),
    [
        ("google", "contoso.example", "authorization_code", (), "oauth_tenant"),
        ("google", "", "device_code", (), "oauth_grant"),
        ("google", "", "client_credentials", (), "oauth_grant"),
        ("microsoft365", "", "jwt_bearer", (), "oauth_grant"),
        ("fastmail", "", "device_code", (), "oauth_grant"),
        ("zoho", "", "authorization_code", (), "scope"),
        ("zoho", "mars", "authorization_code", ("x",), "oauth_tenant"),
        ("microsoft365", "", "authorization_code", ("https://outlook.office.com/SMTP.Send",), "scope"),
        ("fastmail", "", "authorization_code", ("https://www.fastmail.com/dev/protocol-smtp",), "scope"),
    ],
)
def test_what_cannot_work(provider: str, tenant: str, grant: str, scope: tuple[str, ...], option: str) -> None:
    found = list(provider_of(provider).problems(tenant, grant, scope))
    assert [problem.option for problem in found] == [option]
    assert found[0].hint


def test_microsoft_app_only_needs_no_offline_access() -> None:
    row = provider_of("microsoft365")
    assert not list(row.problems("contoso.example", "client_credentials", ("https://outlook.office365.com/.default",)))
