# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from typing import Any

import pytest
from unit.scripted_http import CLIENT

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.registration import Registration
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.redaction import Secret
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.service import Service

MICROSOFT = Registration(provider="microsoft365", client_id="app", username="fleet@example.test")
OPTIONS = {"name": "default", "client_id": "fleet", "token_url": CLIENT.token_url}


def service(**options: Any) -> Service:
    return Service.read({"auth_type": "oauth", "username": "fleet@example.test", **options})


def test_a_record_comes_back_as_it_was_written() -> None:
    record = json.loads(json.dumps(CLIENT.as_record()))
    assert Registration.from_record(record) == CLIENT
    assert Registration.from_record({}) == Registration()
    assert "cl1ent" not in repr(CLIENT)


@pytest.mark.parametrize(
    "wrong",
    [
        {"scope": "smtp"},
        {"scope": [1]},
        {"client_id": 7},
        {"validate_certs": "yes"},
        {"min_validity": "600"},
        {"min_validity": True},
        {"client_secret": ["x"]},
    ],
)
def test_a_record_of_other_types_is_none(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is not a"):
        Registration.from_record(wrong)


def test_options_that_are_not_given_are_as_stored() -> None:
    again = Registration.from_options({"name": "default", "min_validity": 900, "client_secret": None}, CLIENT)
    assert again == CLIENT._replace(min_validity=900)


def test_a_new_secret_of_the_same_client_keeps_the_rest() -> None:
    again = Registration.from_options({**OPTIONS, "client_secret": "new"}, CLIENT)
    assert again == CLIENT._replace(client_secret=Secret("new"))


def test_an_empty_secret_is_none() -> None:
    assert Registration.from_options({"client_secret": ""}, CLIENT).client_secret is None


@pytest.mark.parametrize(
    "options",
    [
        {"client_id": "another"},
        {"token_url": "https://elsewhere.example.test/token"},
        {"oauth_provider": "google"},
    ],
)
def test_two_clients_are_never_mixed(options: dict[str, Any]) -> None:
    other = Registration.from_options(options, CLIENT)
    assert not other.same_client(CLIENT)
    assert other.client_secret is None
    assert other.username == ""
    assert other.identity != CLIENT.identity


def test_a_tenant_makes_another_client() -> None:
    contoso = MICROSOFT._replace(tenant="contoso.example", client_secret=Secret("x"))
    assert Registration.from_options({"oauth_tenant": "CONTOSO.example"}, contoso).client_secret == Secret("x")
    other = Registration.from_options({"oauth_provider": "microsoft365", "oauth_tenant": "other.example"}, contoso)
    assert other.client_secret is None


def test_a_service_declares_its_client_and_leaves_the_rest() -> None:
    stored = CLIENT._replace(issuer="https://login.example.test", proxy="http://proxy:3128", keepalive=86400)
    again = Registration.from_service(service(client_id="fleet", token_url=CLIENT.token_url), stored)
    assert again == stored
    fresh = Registration.from_service(service(client_id="new", token_url=CLIENT.token_url), stored)
    assert fresh.proxy == ""
    assert fresh.client_secret is None


def test_which_way_a_person_says_yes_is_no_matter_of_the_service() -> None:
    stored = CLIENT._replace(grant="device_code")
    assert Registration.from_service(service(client_id="fleet", token_url=CLIENT.token_url), stored) == stored
    app = service(client_id="fleet", token_url=CLIENT.token_url, oauth_grant="client_credentials")
    assert Registration.from_service(app, stored).grant == "client_credentials"


def test_a_grant_stays_with_its_client_when_the_declaration_is_completed() -> None:
    discovered = Registration(client_id="fleet", issuer="https://login.example.test")
    completed = discovered._replace(token_url=CLIENT.token_url)
    assert discovered.identity in completed.identities
    assert MICROSOFT.identity == MICROSOFT._replace(tenant="organizations").identity
    assert MICROSOFT.identity != MICROSOFT._replace(tenant="contoso.example").identity


@pytest.mark.parametrize(
    ("granted", "missing"),
    [
        (None, ()),
        (("https://outlook.office.com/SMTP.Send",), ()),
        (("HTTPS://outlook.office.com/smtp.send", "openid", "email"), ()),
        (("openid", "email", "profile", "offline_access"), ("https://outlook.office.com/SMTP.Send",)),
        ((), ("https://outlook.office.com/SMTP.Send",)),
    ],
)
def test_scope_that_is_missing(granted: tuple[str, ...] | None, missing: tuple[str, ...]) -> None:
    assert MICROSOFT.missing_scope(granted) == missing


def test_the_scope_of_an_application_is_an_administrators_affair() -> None:
    app = MICROSOFT._replace(grant="client_credentials", tenant="contoso.example")
    assert app.effective().scope == ("https://outlook.office365.com/.default",)
    assert app.missing_scope(("SMTP.SendAsApp",)) == ()
    assert app.requested_scope == app.effective().scope


def test_a_person_is_asked_who_that_is() -> None:
    assert MICROSOFT.requested_scope == (
        "https://outlook.office.com/SMTP.Send",
        "offline_access",
        "openid",
        "email",
        "profile",
    )
    assert CLIENT.requested_scope == CLIENT.scope


def test_lifetimes() -> None:
    day = 86400
    assert (MICROSOFT.lifetime, MICROSOFT.keepalive_after) == (90 * day, 45 * day)
    assert Registration(provider="google").lifetime == 180 * day
    assert Registration(refresh_token_lifetime=10 * day).keepalive_after == 5 * day
    assert Registration(keepalive=7 * day).keepalive_after == 7 * day
