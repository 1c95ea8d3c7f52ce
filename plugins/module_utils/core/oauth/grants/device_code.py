# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""A code that a person types in on any other machine (RFC 8628)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..answers import seconds, token_text
from ..causes import CAUSES
from ..client import Refused
from ..person import named
from ..state import Pending
from .base import Clock, PersonGrant, Reply

if TYPE_CHECKING:
    from ..client import TokenClient
    from ..registration import Registration

INTERVAL = 5  # seconds between polls where the server does not say (RFC 8628 3.2)
SLOWER = 5  # more for all later polls after slow_down (3.5)
LONGEST_INTERVAL = 300
LONGEST_URL, LONGEST_CODE = 2000, 64  # characters
LIFE = 900  # seconds of a code; the server has to say (3.2), and Microsoft's is this


class DeviceCode(PersonGrant):
    name = "device_code"
    type = "urn:ietf:params:oauth:grant-type:device_code"

    def begin(self, registration: Registration, client: TokenClient, now: Clock, redirect_uri: str = "") -> Pending:
        scope = registration.provider_row.scope_separator.join(registration.requested_scope)
        said = client.post("device_authorization_url", {"scope": scope} if scope else {})
        url = said.get("verification_uri") or said.get("verification_url")  # Google's name is older than the RFC
        found = {"verification_uri": _url(url), "user_code": _text(said.get("user_code"))}
        found["device_code"] = token_text(said.get("device_code"))
        missing = [field for field, value in found.items() if not value]
        if missing:
            detail = "the answer has no proper " + " and ".join(missing)
            raise Refused(CAUSES["not_oauth"], "device_authorization_url", detail=detail)
        begun = int(now())
        interval = seconds(said.get("interval"), LONGEST_INTERVAL) or INTERVAL
        data = {
            "url": found["verification_uri"],
            "user_code": found["user_code"],
            "url_complete": _url(said.get("verification_uri_complete")),
            "device_code": found["device_code"],
            "interval": interval,
            "next_poll": begun + interval,
        }
        life = seconds(said.get("expires_in"), 86400) or LIFE
        return Pending(self.name, registration.identity, begun, begun + life, data)

    def finish(
        self, registration: Registration, pending: Pending, answer: str, client: TokenClient, now: Clock
    ) -> Reply | Pending:
        """Ask once, if it is time: whoever asks, and wherever, all of them together keep to the interval."""
        data = pending.data
        if now() >= pending.expires_at:
            raise Refused(CAUSES["expired_token"], "oauth_grant", error="expired_token", sent=False)
        if now() < data["next_poll"]:
            return pending
        client.learn(data["user_code"])
        try:
            said = client.ask({"grant_type": self.type, "device_code": data["device_code"]})
        except Refused as refused:
            slower = _slower(refused)
            if slower is None:
                raise
            return _later(pending, slower, now(), refused)
        return named(Reply.of(said), said, registration, client)


def _slower(refused: Refused) -> int | None:
    """By how many seconds to poll more slowly, None when polling is of no use any more (RFC 8628 3.5)."""
    if refused.error == "authorization_pending":
        return 0
    if refused.error == "slow_down":
        return SLOWER
    return max(SLOWER, refused.retry_after or 0) if refused.cause.status == "unreachable" else None


def _later(pending: Pending, slower: int, now: float, refused: Refused) -> Pending:
    interval = min(pending.data["interval"] + slower, LONGEST_INTERVAL)
    missed = str(refused) if refused.cause.status == "unreachable" and refused.error != "slow_down" else ""
    data: dict[str, Any] = {**pending.data, "interval": interval, "next_poll": int(now) + interval, "missed": missed}
    return pending._replace(data=data)


def _url(value: Any) -> str:
    """An address that a person can be shown, "" for what is none."""
    text = token_text(value)
    return text if text.startswith(("https://", "http://")) and len(text) <= LONGEST_URL else ""


def _text(value: Any) -> str:
    """A code that a person can be shown, "" for what is none."""
    return value.strip() if isinstance(value, str) and value.isprintable() and len(value) <= LONGEST_CODE else ""
