# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from unit.scripted_http import CLIENT, GRANTED, TOKENS, Script, said

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.grants.base import PersonGrant, Reply
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.grants.registry import GRANTS, grant_type
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.providers import PERSON_GRANTS
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.registration import Registration
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.oauth.registration_problems import NEEDS
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.redaction import Secret
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.service import GRANTS as FORM_GRANTS


def test_every_grant_of_the_form_is_there() -> None:
    assert set(GRANTS) == set(FORM_GRANTS) == set(NEEDS)
    for name in GRANTS:
        found = grant_type(name)
        assert found.name == name
        assert found.person is isinstance(found, PersonGrant) is (name in PERSON_GRANTS)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, {"expires_in": 3600, "refresh_expires_in": None, "scope": ("smtp", "offline_access")}),
        ({"expires_in": None}, {"expires_in": None}),
        ({"expires_in": "1800"}, {"expires_in": 1800}),
        ({"expires_in": 0}, {"expires_in": None}),
        ({"scope": None}, {"scope": None}),
        ({"refresh_expires_in": 0}, {"refresh_expires_in": None}),
        ({"refresh_expires_in": 1800}, {"refresh_expires_in": 1800}),
        ({"refresh_token_expires_in": "604800"}, {"refresh_expires_in": 604800}),
        ({"refresh_expires_in": 0, "refresh_token_expires_in": 60}, {"refresh_expires_in": 60}),
        ({"refresh_token": None}, {"refresh_token": None}),
        ({"refresh_token": "a\nb"}, {"refresh_token": None}),
    ],
)
def test_what_an_answer_grants(changes: dict[str, Any], wanted: dict[str, Any]) -> None:
    reply = Reply.of({**GRANTED, **changes})
    assert {field: getattr(reply, field) for field in wanted} == wanted
    assert reply.access_token == Secret("the-access-token")
    assert "the-" not in repr(reply)


@pytest.mark.parametrize("name", PERSON_GRANTS)
def test_a_refresh_asks_for_no_scope(name: str) -> None:
    """RFC 6749 6: then it is that which was granted, never more."""
    known = CLIENT._replace(grant=name)
    script = Script(said(**TOKENS))
    reply = grant_type(name).renew(known, Secret("old+rt"), script.client(known))
    assert script.forms[0] == {
        "grant_type": "refresh_token",
        "refresh_token": "old+rt",
        "client_id": "fleet",
        "client_secret": "cl1ent+s3cret",
    }
    assert reply.refresh_token is None


@pytest.mark.parametrize(
    ("registration", "scope"),
    [
        (CLIENT, "smtp offline_access"),
        (CLIENT._replace(scope=()), None),
        (
            Registration(provider="microsoft365", tenant="a.example", client_id="c", client_secret=Secret("s")),
            "https://outlook.office365.com/.default",
        ),
    ],
)
def test_client_credentials(registration: Registration, scope: str | None) -> None:
    known = registration._replace(grant="client_credentials")
    script = Script(said(**GRANTED))
    reply = grant_type("client_credentials").renew(known, None, script.client(known))
    assert script.forms[0]["grant_type"] == "client_credentials"
    assert script.forms[0].get("scope") == scope
    assert (reply.refresh_token, reply.user) == (None, "")
