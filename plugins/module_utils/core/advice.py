# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""What went wrong with a relay and what to do about it, as one table: the first row that fits speaks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from .dialogue import Failure
from .errors import StepFailed


class Cause(NamedTuple):
    """One row: its name, the Failure's cause, the step and the words (regular expressions, "" is any), the sentence.

    The sentence may use {host} {port} {security} {timeout} {helo} {sender} {recipient} {username} {words} and, of
    the certificate, {names} {not_after} {issuer}.
    """

    key: str
    cause: str
    step: str
    words: str
    advice: str


# fmt: off
TABLE = (
    # Getting there
    Cause("name_server_silent", "resolve", "", "emporary failure|try again",
          "No name server answered for {host}: check the host's DNS settings, then try again."),
    Cause("name_unknown", "resolve", "", "",
          "The name {host} does not resolve on this host: check the spelling and the DNS."),
    Cause("refused", "refused", "", "",
          "Nothing listens at {host} port {port}, or a firewall rejects the connection: check host and port (25 for "
          "relays in the house, 587 with security: starttls, 465 with security: tls)."),
    Cause("unreachable", "unreachable", "", "",
          "There is no way from this host to {host} ({words}): check the network, the routing and the firewall."),
    Cause("connect_timeout", "timeout", "connect", "^(connection|look-up)",
          "{host} port {port} did not answer within {timeout} s: a firewall drops the connection (many networks block "
          "port 25) or the address is wrong."),
    Cause("tls_first", "tls_first", "", "",
          "{host} port {port} speaks TLS from the first byte: set security: tls (this is security: {security})."),
    Cause("greeting_timeout", "timeout", "connect", "",
          "{host} port {port} takes the connection but never greets (within {timeout} s): it is no SMTP server, or so "
          "busy that timeout has to be longer."),
    Cause("tls_timeout", "timeout", "tls", "^TLS handshake:",
          "{host} port {port} did not answer the TLS handshake within {timeout} s: if it is a port for STARTTLS (587, "
          "25), set security: starttls."),
    Cause("step_timeout", "timeout", "", "",
          "The relay stopped answering ({words}): raise timeout if it is merely slow, else its logs tell why."),
    Cause("closed_at_once", "closed", "connect", "",
          "{host} port {port} hung up without a greeting: it may refuse this host's address; the relay's logs or its "
          "administrator can tell."),
    Cause("closed", "closed", "", "",
          "The relay hung up in the middle of the conversation ({words}): its logs tell why."),
    Cause("not_smtp", "garbage", "", "",
          "{host} port {port} does not speak SMTP ({words}): check host and port."),
    Cause("flood", "flood", "", "",
          "{host} port {port} sends more than any SMTP reply may hold ({words}): check host and port."),
    Cause("control", "control", "", "",
          "Nothing was sent because there is {words}: check username, password and addresses."),
    # TLS
    Cause("plain_first", "tls", "", "^TLS handshake: .*(WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE|PACKET_LENGTH|HTTP)",
          "{host} port {port} answers in plain text where TLS was expected: set security: starttls (its usual port is "
          "587), or use port 465."),
    Cause("tls_versions", "tls", "", "PROTOCOL|NO_SHARED_CIPHER|HANDSHAKE_FAILURE|DH_KEY_TOO_SMALL",
          "The relay and this host have no TLS version or cipher in common ({words}): the relay has to offer TLS 1.2 "
          "or newer."),
    Cause("client_certificate", "tls", "", "CERTIFICATE_REQUIRED|BAD_CERTIFICATE",
          "The relay demands a client certificate, which this collection does not offer ({words})."),
    Cause("tls_failed", "tls", "", "",
          "TLS with {host} failed ({words}): the relay's logs tell its side of it."),
    Cause("starttls_absent", "starttls_absent", "", "",
          "{host} port {port} does not offer STARTTLS: use the port where it does (587), security: tls with port 465 "
          "if the relay has it, or ask who is responsible for it; something between may also be stripping it."),
    Cause("injection", "injection", "", "",
          "The relay, or someone between, sent clear text behind its answer to STARTTLS (CVE-2011-0411), so TLS was "
          "not begun: update the relay's software, or find out who sits between."),
    Cause("ca_file", "ca_file", "", "",
          "The CA file cannot be used ({words}): set ca_file to a readable PEM file on this host."),
    Cause("certificate_name", "certificate", "", r"error (62|64)\)",
          "The certificate is for another name than {host} (it has: {names}): set host to one of its names, or have "
          "the relay's certificate renewed with this one."),
    Cause("certificate_expired", "certificate", "", r"error 10\)",
          "A certificate of {host} has expired (the relay's own is valid until {not_after}): it has to be renewed on "
          "the relay; if that date is to come, check this host's clock and the CA's certificate."),
    Cause("certificate_not_yet", "certificate", "", r"error 9\)",
          "The certificate of {host} is not valid yet: check the clock of this host and of the relay."),
    Cause("certificate_self_signed", "certificate", "", r"error 18\)",
          "The certificate of {host} is signed by itself: set ca_file to a copy of it, or have the relay use one that "
          "a CA signed."),
    Cause("certificate_unknown_ca", "certificate", "", r"error (2|19|20|21)\)",
          "The certificate of {host} was signed by a CA that this host does not trust ({issuer}): set ca_file to that "
          "CA's certificate; if the CA is a public one, the relay does not send its intermediate certificate."),
    Cause("certificate_refused", "certificate", "", "",
          "The certificate of {host} was not accepted ({words}): it has to be replaced on the relay."),
    Cause("starttls_refused", "reply", "tls", "",
          "The relay offers STARTTLS but does not begin it: its TLS is out of order, which its logs explain."),
    # Before we have said anything
    Cause("busy", "reply", "connect|ehlo", "^4",
          "The relay takes no connections at the moment: try again later; if it stays so, it limits or distrusts this "
          "host's address."),
    Cause("host_rejected", "reply", "connect", "",
          "The relay does not want connections from this host's address: its administrator has to allow it, or a "
          "block list holds it."),
    Cause("helo_rejected", "reply", "ehlo", "",
          "The relay does not accept the greeting of this host ({helo}): give the host a full name that resolves."),
    # AUTH
    Cause("cleartext", "cleartext", "", "",
          "The credentials were not sent because the connection to {host} is not encrypted: set security to starttls "
          "or tls, or allow_cleartext_auth: true if you accept that anyone on the way reads them."),
    Cause("auth_needs_tls", "auth_needs_tls", "", "",
          "The relay offers AUTH only after STARTTLS: set security: starttls."),
    Cause("auth_absent", "auth_absent", "", "",
          "{host} port {port} offers no authentication: use its port for submission (587 or 465), or auth_type: none "
          "if it knows this host by its address."),
    Cause("auth_only_oauth", "mechanism", "", "^offered: .*(XOAUTH2|OAUTHBEARER).* wanted: PLAIN",
          "The relay no longer takes passwords ({words}): use auth_type: oauth."),
    Cause("auth_only_password", "mechanism", "", "^offered: .*(PLAIN|LOGIN).* wanted: .*OAUTH",
          "The relay does not take OAuth tokens ({words}): use auth_type: password."),
    Cause("auth_mismatch", "mechanism", "", "",
          "The relay and this collection have no way of authentication in common ({words}): PLAIN or LOGIN has to be "
          "switched on at the relay."),
    Cause("m365_tenant", "reply", "auth", "disabled for the Tenant",
          "SMTP AUTH is switched off for the whole Microsoft 365 tenant: an Exchange administrator has to switch it "
          "on for {username} (Set-CASMailbox -SmtpClientAuthenticationDisabled $false); that is for passwords and "
          "tokens alike."),
    Cause("m365_mailbox", "reply", "auth", "disabled for the Mailbox",
          "SMTP AUTH is switched off for the mailbox {username}: an Exchange administrator has to switch it on "
          "(Set-CASMailbox -SmtpClientAuthenticationDisabled $false); that is for passwords and tokens alike."),
    Cause("m365_security_defaults", "reply", "auth", "security defaults",
          "The security defaults of the Microsoft Entra tenant turn SMTP AUTH off, for passwords and tokens alike: its "
          "administrator has to have conditional access rules take their place that let {username} in."),
    Cause("m365_policy", "reply", "auth", r"5\.7\.139 .*(criteria|conditional|blocked|policy)",
          "A policy of the Microsoft 365 tenant keeps {username} from signing in over SMTP: its administrator finds "
          "the reason in the sign-in logs of Entra."),
    Cause("m365_basic_auth_retired", "reply", "", r"5\.7\.30|basic authentication is (disabled|not supported)",
          "Microsoft 365 no longer takes passwords here: use auth_type: oauth, High Volume Email or another relay."),
    Cause("m365_token_short", "reply", "", r"5\.5\.127|token will expire soon",
          "The access token has too little time left for this relay, which wants at least 600 s: set min_validity of "
          "the token higher and refresh it."),
    Cause("m365_token", "reply", "auth", r"^535 5\.7\.3\b",
          "Exchange refused the sign-in of {username}: password or token is wrong, the token lacks SMTP.Send (or "
          "SMTP.SendAsApp and mailbox rights for an application), or SMTP AUTH is off for the mailbox."),
    Cause("google_app_password", "reply", "auth", "application-specific password|InvalidSecondFactor",
          "Google wants an app password for {username} because of its two-step verification: create one and use it as "
          "password, or use auth_type: oauth."),
    Cause("google_web_login", "reply", "auth", r"^534.*(web ?browser|5\.7\.14)",
          "Google wants {username} to sign in with a web browser first: do that, then use an app password or "
          "auth_type: oauth."),
    Cause("google_credentials", "reply", "auth", "^535.*BadCredentials",
          "Google refused user name, password or token of {username}: it takes app passwords and OAuth tokens only, "
          "not the account's password."),
    Cause("auth_too_often", "reply", "auth", r"^4.*(too many|\brate\b|login attempts)",
          "The relay has seen too many sign-ins by {username}: wait, then see to it that fewer hosts sign in at once."),
    Cause("auth_temporary", "reply", "auth", "^4",
          "The relay cannot check credentials at the moment, so they are neither right nor wrong: try again later; "
          "its logs tell why."),
    Cause("auth_encryption", "reply", "auth", "^(538|530).*(TLS|encrypt)|^538",
          "The relay takes credentials over TLS only: set security to starttls or tls."),
    Cause("auth_mechanism_refused", "reply", "auth", "^(504|534|500|502|503)",
          "The relay does not take this way of authentication from {username}: its policy may want OAuth or another "
          "mechanism."),
    Cause("token_refused", "reply", "auth", "the relay's reason: ",
          "The relay refused the access token of {username}: it is expired, lacks the scope for mail, or belongs to "
          "another mailbox; refresh or authorize it again."),
    Cause("credentials_refused", "reply", "auth", "",
          "The relay refused user name or password of {username}: correct username and password."),
    # The envelope and the message
    Cause("send_as_denied", "reply", "mail|rcpt|data", r"5\.7\.60|SendAsDenied|send as this sender|not owned by",
          "{username} may not send as {sender}: set from_address to an address of that mailbox, or have the right to "
          "send as granted."),
    Cause("tls_required", "reply", "mail|rcpt|data", "starttls|TLS (is )?required",
          "The relay wants TLS: set security: starttls, or tls with port 465."),
    Cause("auth_required", "reply", "mail|rcpt|data",
          r"^530|^550 5\.7\.1 .*authenticat|5\.7\.57|authentication (is )?required|not authenticated",
          "The relay wants authentication: set auth_type and its credentials (now: {username})."),
    Cause("greylisted", "reply", "mail|rcpt|data",
          "^4.*(gr[ea]y ?list|try again|5 minutes|temporarily (deferred|rejected))",
          "The relay puts mail of this host off for now (greylisting): try again in some minutes; a relay that knows "
          "its hosts should not greylist them."),
    Cause("limit", "reply", "mail|rcpt|data",
          r"5\.4\.5|quota|(sending|rate) limit|limit exceeded|too many (messages|recipients)",
          "A limit of the relay is reached: wait until it allows more, or have it raised."),
    Cause("sender_temporary", "reply", "mail", "^4",
          "The relay cannot take mail from {sender} at the moment: try again later; its logs tell why."),
    Cause("sender_refused", "reply", "mail", "",
          "The relay refuses the sender {sender}: set from_address to an address that it accepts."),
    Cause("relay_denied", "reply", "rcpt", "relay(ing)? (access )?(denied|not|prohibited|forbidden)"
          r"|(unable|(permitted|allowed)) to relay|5\.7\.54|access denied|client host rejected",
          "The relay does not take mail from this host for others: it has to know the host's address, or the service "
          "needs auth_type and credentials (now: {username})."),
    Cause("recipient_temporary", "reply", "rcpt", "^4",
          "The relay cannot take mail for {recipient} at the moment: try again later."),
    Cause("recipient_refused", "reply", "rcpt", "",
          "The relay refuses the recipient {recipient}: check the address."),
    Cause("recipient_missing", "recipient_missing", "", "",
          "Level recipient needs an address to try: set verify_recipient."),
    Cause("address", "address", "", "",
          "There is {words}: correct it."),
    Cause("smtputf8", "smtputf8", "", "",
          "{words} is not ASCII before the @, and the relay cannot carry that (no SMTPUTF8): use an ASCII address."),
    Cause("message_temporary", "reply", "data", "^4",
          "The relay could not take the message at the moment: try again later."),
    Cause("message_refused", "reply", "data", "",
          "The relay refused the message itself: its words say which rule it broke."),
    # What nobody thought of
    Cause("unexpected", "", "", "",
          "The relay answered what this step does not allow ({words}): its logs tell why."),
)
# fmt: on


class Advice(NamedTuple):
    """The name of a cause; one sentence of what is wrong and what to do; and the end of it that says what to do."""

    key: str = ""
    sentence: str = ""
    way_out: str = ""

    @property
    def what(self) -> str:
        """The part of the sentence that says what is wrong."""
        return self.sentence[: -len(self.way_out) - 2] if self.way_out else self.sentence

    def as_error(self, option: str) -> StepFailed:
        """The relay's no, told of an option."""
        return StepFailed(option, self.what, self.way_out)


NONE = Advice()


class Advised:
    """What ends well, or with advice."""

    advice: Advice

    @property
    def problem(self) -> str:
        """One sentence about the step that failed, what is wrong and what to do; empty when none did."""
        return self.advice.sentence

    @property
    def cause(self) -> str:
        """The name of the cause; empty when nothing failed."""
        return self.advice.key


def advise(step: str, failure: Failure, facts: Mapping[str, Any]) -> Advice:
    """What to make of a failed step, with the relay's own words if it had any."""
    row = next(row for row in TABLE if _fits(row, step, failure))
    what, colon, way_out = (part.format_map({**facts, "words": failure.words}) for part in row.advice.partition(": "))
    if failure.cause == "reply":
        way_out = f'{way_out[:-1]} (the relay said: "{failure.words}").'
    return Advice(row.key, what + colon + way_out, way_out)


def _fits(row: Cause, step: str, failure: Failure) -> bool:
    return (
        row.cause in (failure.cause, "")
        and bool(re.match(f"({row.step or '.*'})$", step))
        and bool(re.search(row.words, failure.words, re.IGNORECASE))
    )
