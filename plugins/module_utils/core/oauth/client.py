# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The conversation with an authorization server: forms in, JSON out, every failure by its cause."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from ..errors import FleetmailError, HostError, Problem
from ..redaction import Redactor, Secret
from ..service import url_problems
from . import answers, authentication, discovery
from .causes import CAUSES, Cause
from .exchange import TIMEOUT, Exchanges, Transport
from .http import Answer, Call, NoAnswer, Requests, shown_url
from .refusals import cause_of

if TYPE_CHECKING:
    from ..port import Host
    from .registration import Registration
    from .signing import SigningKey

REMEMBERED = 60  # seconds that a server's silence about itself is not asked for again

# fields of a form whose values are secrets
SECRET_FIELDS = (
    "client_secret",
    "client_assertion",
    "assertion",
    "code",
    "code_verifier",
    "device_code",
    "refresh_token",
    "token",
)
TOKENS = ("access_token", "refresh_token", "id_token", "device_code")


class Refused(FleetmailError):
    """The server said no, could not be asked, or said nothing that makes sense. Nothing in it is secret.

    ``subject`` is the option (or file) it is about. ``sent``: the request may have reached the server, which may have
    acted on it. ``retry_after``: seconds that the server asks to be left alone, None when it did not say.
    ``refresh_token``: what an answer that is of no use had all the same; the one that was sent may be spent.
    """

    def __init__(
        self,
        cause: Cause,
        subject: str,
        *,
        detail: str = "",
        error: str = "",
        suberror: str = "",
        description: str = "",
        codes: tuple[str, ...] = (),
        http_status: int = 0,
        retry_after: int | None = None,
        sent: bool = True,
        refresh_token: Secret | None = None,
    ) -> None:
        words = ": ".join(part for part in (error, description) if part) or detail
        found = Problem(subject, cause.summary + (f" ({words})" if words else ""), cause.next_step)
        super().__init__(str(found), [found])
        self.cause = cause
        self.error = error
        self.suberror = suberror
        self.description = description or detail
        self.codes = codes
        self.http_status = http_status
        self.retry_after = retry_after
        self.sent = sent
        self.refresh_token = refresh_token


class TokenClient:
    """One client of one authorization server.

    ``timeout``: seconds for one exchange. ``transport``, ``sleep``, ``now`` and ``chance`` (0 to 1) are for tests.
    """

    def __init__(
        self,
        registration: Registration,
        host: Host,
        timeout: int = TIMEOUT,
        transport: Transport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.time,
        chance: Callable[[], float] | None = None,
    ) -> None:
        self.registration = registration
        self.effective = registration.effective()
        self.host = host
        self._now = now
        transport = transport or Requests(registration.ca_file, registration.validate_certs, registration.proxy)
        self._exchanges = Exchanges(transport, timeout, sleep, now, chance)
        self._metadata: dict[str, Any] | None = None
        self._undescribed: tuple[float, Refused] | None = None
        self._key: SigningKey | None = None
        self._basic = False
        self._redactor = Redactor(_known_secrets(registration))

    @property
    def clock_off(self) -> int | None:
        """Seconds that this host's clock is ahead of the server's, by the last answer; None before there was one."""
        return self._exchanges.clock_off

    # -- what grants ask -------------------------------------------------------------------------------------------

    def ask(self, form: Mapping[str, str]) -> dict[str, Any]:
        """POST to the token endpoint as this client; gives the answer, which has an access token. Raises Refused."""
        said = self.post("token_url", form)
        kind, cause, detail = said.get("token_type", "bearer"), "", ""
        if not answers.token_text(said.get("access_token")):
            cause, detail = "not_oauth", "the answer has no access_token"
        elif not isinstance(kind, str) or kind.lower() != "bearer":
            cause, detail = "token_type", f"token_type {kind!r}"[:80]
        if cause:
            new = answers.token_text(said.get("refresh_token"))
            kept = Secret(new) if new else None
            raise Refused(CAUSES[cause], "token_url", detail=detail, http_status=200, refresh_token=kept)
        return said

    def post(self, option: str, form: Mapping[str, str]) -> dict[str, Any]:
        """POST to the endpoint of that option as this client; gives the JSON object. Raises Refused."""
        self._learn(form)
        self._exchanges.begin()
        url = self.endpoint(option)
        answer = self._as_client(option, url, form)
        said = answers.json_object(answer.body)
        if said is not None:
            self._learn(said)
        self._judge(option, answer, said, form.get("grant_type", option))
        if said is None:
            words = "no JSON object" if answer.body else "it is empty"
            raise Refused(CAUSES["not_oauth"], option, detail=words, http_status=answer.status)
        return said

    def revoke(self, token: str, hint: str) -> bool:
        """Revoke a token (RFC 7009); False when the server has no place for that. Raises Refused."""
        if not self._offers("revocation_url"):
            return False
        form = {"token": token, "token_type_hint": hint}
        self._learn(form)
        answer = self._as_client("revocation_url", self.endpoint("revocation_url"), form)
        said = answers.json_object(answer.body) or {}
        told = answers.complaint(said)
        if told and told.error in ("invalid_token", "invalid_grant", "unsupported_token_type"):
            return told.error != "unsupported_token_type"  # else it is dead already, as was wanted
        self._judge("revocation_url", answer, said, "revocation")
        return True

    def introspect(self, token: str) -> dict[str, Any] | None:
        """What the server says of a token (RFC 7662), None when it does not offer that. Raises Refused."""
        if not self._offers("introspection_url"):
            return None
        return self.post("introspection_url", {"token": token})

    def userinfo(self, access_token: str) -> dict[str, Any] | None:
        """What the server says of the person (OpenID Connect Core 5.3), None when it does not. Never raises Refused."""
        self._learn({"access_token": access_token})
        try:
            own = self.registration.provider_row.userinfo_url if self.registration.at_provider else ""
            url = own or discovery.endpoint(self.metadata(), "userinfo_url")
            if not url or list(url_problems("issuer", url)):
                return None
            answer = self._exchange("issuer", Call(url, None, {"Authorization": "Bearer " + access_token}))
        except Refused:
            return None
        return answers.json_object(answer.body) if answer.status == 200 else None

    def signing_key(self) -> SigningKey:
        """The key of jwt_key_file. Raises Refused (key_file, library_missing)."""
        if self._key is None:
            from . import signing

            path = self.registration.jwt_key_file
            try:
                file = self.host.read(path)
                if file is None:
                    raise HostError(path, "is not there", "copy it to the host, mode 0600")
                key = signing.read_key(path, file.content)
                if self.registration.provider_row.certificate and not key.certificate:
                    raise HostError(path, "has no certificate beside the key", "append it: the key is found by it")
                self._key = key
            except HostError as error:
                raise Refused(CAUSES["key_file"], "jwt_key_file", detail=str(error), sent=False) from None
            except signing.LibraryMissing as error:
                raise _missing("jwt_key_file", str(error)) from None
        return self._key

    def assertion(self) -> Secret:
        """A signed statement that the token is for jwt_subject, or for username (RFC 7523 3). Raises Refused."""
        from .signing import sign

        known, key = self.registration, self.signing_key()
        life = known.provider_row.max_assertion
        issuer, subject = known.client_id or key.issuer, known.jwt_subject or known.username
        claims = authentication.assertion_claims(issuer, subject, self.audience(), self._now(), life)
        claims["scope"] = " ".join(known.requested_scope)  # Google wants it here; others take it from the form
        return sign(key, claims)

    def learn(self, secret: str) -> None:
        """From now on the secret is masked in what the server says."""
        self._redactor.learn(secret)

    # -- what the server says of itself ----------------------------------------------------------------------------

    def metadata(self) -> dict[str, Any]:
        """The metadata of the issuer (RFC 8414), {} where none is given or the provider's table has it all.

        Raises Refused, unless the endpoints are given by options.
        """
        if self._undescribed and time.monotonic() < self._undescribed[0] + REMEMBERED:
            raise self._undescribed[1]
        if self._metadata is None:
            try:
                self._metadata = self._discovered()
            except Refused as refused:
                self._undescribed = (time.monotonic(), refused)
                raise
        return self._metadata

    def _discovered(self) -> dict[str, Any]:
        issuer = self.registration.issuer
        try:
            return discovery.described(issuer, self._fetch) if issuer else {}
        except discovery.NotDescribed as error:
            raise self._refused(error.cause, "issuer", str(error)) from None

    def endpoint(self, option: str) -> str:
        """The URL of that option: as given, else by the provider's table, else by discovery. Raises Refused."""
        url = str(getattr(self.effective, option)) or discovery.endpoint(self.metadata(), option)
        if not url:
            raise self._refused("metadata" if self.registration.issuer else "no_endpoint", option, "it is not known")
        for problem in url_problems(option, url):
            raise self._refused("metadata", "issuer", str(problem))
        return url

    @property
    def issuer(self) -> str:
        """Who the server is (RFC 9207): "" where nobody told."""
        return self.effective.issuer

    def _offers(self, option: str) -> bool:
        return bool(getattr(self.effective, option) or discovery.endpoint(self.metadata(), option))

    def _fetch(self, url: str) -> dict[str, Any] | None:
        answer = self._exchange("issuer", Call(url))
        if answer.status == 200:
            return answers.json_object(answer.body)
        if answer.status in (429,) or answer.status >= 500:
            self._judge("issuer", answer, None, "metadata")
        return None

    # -- one exchange ----------------------------------------------------------------------------------------------

    def _as_client(self, option: str, url: str, form: Mapping[str, str]) -> Answer:
        """POST with the client's authentication; once more by Basic where that is what the server wants."""
        fields, headers = self._authenticated(form)
        answer = self._exchange(option, Call(url, fields, headers))
        wants_basic = answer.status == 401 and answer.headers.get("www-authenticate", "").lower().startswith("basic")
        if wants_basic and "client_secret" in fields:
            self._basic = True  # refused as a client: nothing was spent
            fields, headers = self._authenticated(form)
            answer = self._exchange(option, Call(url, fields, headers))
        return answer

    def _authenticated(self, form: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
        method = authentication.BASIC if self._basic else authentication.method_of(self.registration, self._described())
        if method == authentication.BASIC:
            return dict(form), authentication.basic(self.registration)
        if method == authentication.SIGNED:
            return {**form, **self._signed()}, {}
        return {**form, **authentication.posted(self.registration)}, {}

    def _signed(self) -> dict[str, str]:
        accepted = discovery.strings(self._described(), "token_endpoint_auth_signing_alg_values_supported")
        return authentication.signed(self.registration, self.signing_key(), self.audience(), accepted, self._now())

    def audience(self) -> str:
        """Whom an assertion is for: the token endpoint (RFC 7523 3)."""
        return self.endpoint("token_url")

    def _described(self) -> dict[str, Any]:
        """The metadata where they can be had; what is asked needs them for details only."""
        try:
            return self.metadata()
        except Refused:
            return {}

    def _exchange(self, option: str, call: Call) -> Answer:
        try:
            return self._exchanges.send(call)
        except NoAnswer as missed:
            raise self._no_answer(option, call.url, missed) from None

    # -- refusals --------------------------------------------------------------------------------------------------

    def _judge(self, option: str, answer: Answer, said: dict[str, Any] | None, asked: str) -> None:
        """Raise Refused where the answer is one, also with HTTP status 200 (as Zoho's)."""
        told = answers.complaint(said or {})
        if told is None and 200 <= answer.status < 300:
            return
        told = told or answers.Complaint("")
        cause = cause_of(told.error, told.suberror, told.codes, answer.status, asked)
        cause = self._by_provider(self._by_clock(cause))
        raise Refused(
            cause,
            option,
            detail=self._detail(answer),
            error=self.told(told.error),
            suberror=self.told(told.suberror),
            description=self.told(told.description),
            codes=told.codes,
            http_status=answer.status,
            retry_after=answers.retry_after(answer.headers, self._now()),
        )

    def _by_clock(self, cause: Cause) -> Cause:
        """An assertion that was refused while the clocks differ was refused because of that."""
        off = self.clock_off or 0
        if cause.name in ("assertion_refused", "clock") and abs(off) > 60:
            words = f"this host's clock is {abs(off)} s {'ahead' if off > 0 else 'behind'}"
            return CAUSES["clock"]._replace(summary=f"{CAUSES['clock'].summary}: {words}")
        return cause

    def _by_provider(self, cause: Cause) -> Cause:
        """What else may be behind a word that says too little."""
        ends_by = self.registration.provider_row.ends_by
        known = cause.name == "invalid_grant" and ends_by
        return cause._replace(next_step=f"{cause.next_step}; {ends_by}") if known else cause

    def _detail(self, answer: Answer) -> str:
        words = f"HTTP {answer.status}"
        if 300 <= answer.status < 400:
            words += " to " + shown_url(answer.headers.get("location", ""))
        return self.told(words)

    def _no_answer(self, option: str, url: str, missed: NoAnswer) -> Refused:
        if missed.kind == "library_missing":
            return _missing(option, missed.words)
        subject = {"ca_file": "ca_file", "proxy": "proxy"}.get(missed.kind, option)
        return self._refused(missed.kind, subject, f"{shown_url(url)}: {missed.words}", sent=missed.sent)

    def _refused(self, cause: str, subject: str, detail: str, sent: bool = False) -> Refused:
        return Refused(CAUSES[cause], subject, detail=self.told(detail), sent=sent)

    def told(self, text: str) -> str:
        """The server's words, without a secret of ours that it repeats."""
        return answers.short(self._redactor.text(text))

    def _learn(self, said: Mapping[str, Any]) -> None:
        for field in (*SECRET_FIELDS, *TOKENS):
            value = said.get(field)
            if isinstance(value, str):
                self._redactor.learn(value)


def _missing(subject: str, library: str) -> Refused:
    cause = CAUSES["library_missing"]._replace(next_step=f"install {library.split(': ')[-1]} on this host")
    return Refused(cause, subject, detail=library, sent=False)


def _known_secrets(registration: Registration) -> list[str]:
    known = [registration.client_secret.reveal()] if registration.client_secret else []
    password = urlsplit(registration.proxy).password if "@" in registration.proxy else None
    return known + ([password, unquote(password)] if password else [])
