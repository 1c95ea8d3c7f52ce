# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The risks that an audit names, as one table: identifiers are stable, severities have a reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .errors import shown

CRITICAL, WARNING, INFO = "critical", "warning", "info"
# critical: a secret or the host is open to others now, or mail is lost or does not leave. warning: it takes an attacker
# on the way, a change or a date for that, or somebody expects otherwise. info: to be known before anything is changed.
SEVERITIES = (CRITICAL, WARNING, INFO)


class Row(NamedTuple):
    """A kind of finding. ``message`` has places for facts in braces; ``reason``: why it is that severe."""

    severity: str
    message: str
    hint: str
    reason: str


class Finding(NamedTuple):
    """One risk: its kind (a key of TABLE), a sentence, and the file and the form's field that it is about.

    ``how``: what the software calls the way out, "" where there is no word for it.
    """

    id: str
    message: str
    path: str = ""
    field: str = ""
    how: str = ""

    def as_dict(self) -> dict[str, str]:
        """The finding as the module's result has it."""
        row = TABLE[self.id]
        hint = f"{row.hint}: {self.how}" if self.how else row.hint
        told = {"id": self.id, "severity": row.severity, "message": shown(self.message), "hint": hint}
        return {**told, "path": shown(self.path), "field": self.field}


def finding(kind: str, path: str = "", field: str = "", how: str = "", **facts: Any) -> Finding:
    """A finding of that kind with its facts filled in; ``path`` is one of them."""
    return Finding(kind, TABLE[kind].message.format(path=path, **facts), path, field, how)


TABLE: Mapping[str, Row] = {
    # -- credentials
    "basic-auth-retired": Row(
        CRITICAL,
        "passwords for SMTP are off at {provider} since {date}: {detail}",
        "move the service to auth_type: oauth",
        "the mail of this service does not leave, or is let through by an exception that will end",
    ),
    "basic-auth-retiring": Row(
        WARNING,
        "{provider} turns passwords for SMTP off after {date}: {detail}",
        "move the service to auth_type: oauth before that day",
        "it works until a known day",
    ),
    "app-password": Row(
        INFO,
        "{provider} has taken no account passwords for SMTP since {date}: this is an app password, or refused",
        "auth_type: oauth does not depend on an app password, which ends with the account's next password",
        "it works where it is an app password",
    ),
    "cleartext-credentials": Row(
        CRITICAL,
        "user name and password {go} to {host} in clear text",
        "security: starttls or tls, where the relay has it",
        "anybody on the way can read them",
    ),
    "credentials-missing": Row(
        CRITICAL,
        "logging in is turned on, but there are no credentials for {host} in {path}",
        "add them for exactly that destination, or turn logging in off",
        "mail goes out without a login, and a relay that wants one refuses it for good: it bounces",
    ),
    "map-key": Row(
        CRITICAL,
        "{path} has credentials for {keys}, but the relay is looked up as {wanted}",
        "name it in the map exactly as in relayhost, brackets and port included",
        "no credentials are found, and a relay that wants some refuses the mail for good: it bounces",
    ),
    "sasl-library-missing": Row(
        CRITICAL,
        "logging in is turned on, but Cyrus SASL has no module for PLAIN or LOGIN",
        "install libsasl2-modules (Debian) or cyrus-sasl-plain (RHEL, SUSE)",
        "no login is possible: mail stays in the queue",
    ),
    "sasl-no-plaintext": Row(
        WARNING,
        "{parameter} has noplaintext: PLAIN and LOGIN are not used, and most relays offer nothing else",
        "set it to noanonymous",
        "mail stays in the queue wherever the relay offers only PLAIN and LOGIN",
    ),
    "secret-readable": Row(
        CRITICAL,
        "{path} ({mode} {owner}:{group}) holds a password and can be read by {readers}",
        "a mode that lets only the mail software read it: 0600, or 0640 with its group",
        "whoever has a login on the host can send in that name",
    ),
    "secret-in-line": Row(
        CRITICAL,
        "{path} itself holds a password, in {parameter}: whoever may read it knows it",
        "put it into a map of its own, mode 0600",
        "configuration files are readable by all and end up in tickets, backups and version control",
    ),
    "secret-unreadable": Row(
        CRITICAL,
        "{path} ({mode} {owner}:{group}) cannot be read by {reader}, which needs it to log in",
        "chgrp it to that group, mode 0640",
        "mail goes out without a login, and a relay that wants one refuses it for good: it bounces",
    ),
    # -- maps
    "map-missing": Row(
        CRITICAL,
        "{path} is named in {parameter} and is not there",
        "make it (postmap), or take it out of the configuration",
        "the mail software gives up each delivery with a table that it cannot open: mail stays in the queue",
    ),
    "map-broken": Row(
        CRITICAL,
        "{path}, named in {parameter}, cannot be opened as the table that it is said to be",
        "make it again (postmap), or take it out of the configuration",
        "the mail software gives up each delivery with a table that it cannot open: mail stays in the queue",
    ),
    "map-stale": Row(
        WARNING,
        "{path} was changed after it was compiled: what is in it now is not in effect",
        "run postmap on it, or undo the change",
        "somebody believes in a setting that is not there",
    ),
    "map-without-source": Row(
        WARNING,
        "{path} is compiled from a file that is no longer there",
        "write its source again: postmap -s shows what it holds",
        "the next postmap would empty it",
    ),
    "map-unread": Row(
        INFO,
        "{parameter} asks {table}, which an audit does not ask",
        "look there by hand",
        "what is behind it is not known",
    ),
    # -- the connection
    "tls-none": Row(
        WARNING,
        "mail goes to {host} in clear text",
        "security: starttls or tls, where the relay has it",
        "anybody on the way can read and change it",
    ),
    "tls-opportunistic": Row(
        WARNING,
        "TLS to {host} is opportunistic: where it is not offered or fails, mail goes in clear text",
        "security: starttls, which is mandatory",
        "somebody on the way has only to take the offer away",
    ),
    "tls-unverified": Row(
        WARNING,
        "the certificate of {host} is not verified",
        "validate_certs: true, with ca_file for a CA of your own",
        "somebody on the way can be the relay, and gets mail and credentials",
    ),
    "tls-no-trust": Row(
        CRITICAL,
        "the certificate of {host} must be valid, but no CA is trusted",
        "name the CA certificates: ca_file, or the system's bundle",
        "no connection succeeds: mail stays in the queue",
    ),
    "ca-missing": Row(
        CRITICAL,
        "{path}, which holds the CA certificates, is not there",
        "bring it back, or name another ca_file",
        "no connection succeeds that has to be verified",
    ),
    "tls-wrapper-level": Row(
        CRITICAL,
        "smtp_tls_wrappermode = yes needs smtp_tls_security_level = encrypt or stronger, and it is {level}",
        "smtp_tls_security_level = secure",
        "Postfix talks to no relay like that: mail stays in the queue",
    ),
    "tls-level-unknown": Row(
        CRITICAL,
        "{level} is no TLS level that Postfix knows",
        "smtp_tls_security_level = secure, for example",
        "postfix check does not notice it, but no mail leaves: it stays in the queue",
    ),
    "tls-port": Row(
        WARNING,
        "port {port} speaks {usual}, but the configuration says {security}",
        "security: tls with port 465, security: starttls with port 587",
        "the two do not understand each other, and mail waits; some relays are set up otherwise",
    ),
    "relay-behind-tunnel": Row(
        INFO,
        "the relay is a port of this host: {detail}",
        "look at what listens there; a relay with TLS can be named directly, with security: tls",
        "what happens behind it is not seen from here",
    ),
    # -- the way
    "relayhost-mx": Row(
        WARNING,
        "{host} is not in brackets: Postfix asks DNS for the mail exchangers of that name",
        "relayhost = [{host}]:{port}, unless its MX records are meant",
        "mail, credentials and certificate may be those of another host",
    ),
    "routes-by-recipient": Row(
        INFO,
        "{parameter} sends mail for some recipients another way ({keys})",
        "a service has no recipients: keep it beside the service, or let the relay decide",
        "that mail does not go through the service",
    ),
    "content-filter": Row(
        INFO,
        "content_filter hands all mail to {filter} first",
        "see that what comes back from it goes by the relay",
        "what happens to mail there is not seen from here",
    ),
    "other-instances": Row(
        WARNING,
        "there are more instances of Postfix: {places}",
        "postmulti -l lists them; look into each by hand",
        "their mail goes ways that an audit does not see",
    ),
    "several-relays": Row(
        INFO,
        "there are more relays than one for the same mail: {hosts}",
        "a service has one host: a name with several addresses, or the first of them",
        "only the first is in the form",
    ),
    "port-as-host": Row(
        CRITICAL,
        "{number} is taken for a second relay, and {host} is asked on port 25",
        "a port follows two colons: dc_smarthost='relay.example.com::587'",
        "mail goes to another port than meant, and where that fails to a host of that number",
    ),
    "rewrites-addresses": Row(
        INFO,
        "{parameter} rewrites addresses in a way that the form cannot say",
        "from_address is one address for all senders: keep the map, or use that",
        "senders may be others than the form says",
    ),
    "overridden": Row(
        WARNING,
        "{detail}",
        "remove it, or make the change there",
        "what the package's own files say has no effect",
    ),
    "override-file": Row(
        WARNING,
        "{path} takes the place of the whole configuration: what is beside it has no effect",
        "move it away, or go on by hand",
        "whoever changes the usual files changes nothing",
    ),
    "user-file": Row(
        INFO,
        "{path} takes the place of {instead} for the user {user}",
        "remove it where the host's service is meant",
        "that user's mail goes another way",
    ),
    "legacy-setting": Row(
        INFO,
        "{parameter} is obsolete: {instead} says it since long",
        "use {instead}",
        "a later version may ignore it",
    ),
    "duplicate-setting": Row(
        INFO,
        "{path} sets {parameter} more than once, and the last one counts",
        "keep one of them",
        "whoever edits the first one changes nothing",
    ),
    "config-stale": Row(
        WARNING,
        "{path} is not what its sources make: {detail}",
        "run update-exim4.conf, or take the edit over into the sources",
        "the next run of it changes how mail leaves",
    ),
    "config-refused": Row(
        CRITICAL,
        "the software refuses its configuration: {detail}",
        "mend what it names",
        "no mail leaves",
    ),
    "unreadable": Row(
        WARNING,
        "{path} {detail}",
        "become: true? A directory in the place of a file?",
        "what is in it is not known",
    ),
    "not-understood": Row(
        INFO,
        "{detail}",
        "look at it by hand",
        "what it does is not known",
    ),
    # -- the host
    "several-mtas": Row(
        WARNING,
        "there are several mail servers on this host: {names}",
        "keep one: the other's queue is forgotten, and sendmail belongs to one of them only",
        "programs may hand mail to the one that nobody looks after",
    ),
    "open-relay": Row(
        CRITICAL,
        "it relays for everybody ({detail}) and listens on {interfaces}",
        "relay for no networks but the house's own, and listen on loopback addresses where the host only sends",
        "it will be found, and used for spam",
    ),
    "relays-for-networks": Row(
        WARNING,
        "it relays for {detail} and listens on {interfaces}",
        "name single hosts, or listen on loopback only",
        "strangers are among them",
    ),
    "listens": Row(
        INFO,
        "it listens on {interfaces}, though it relays for this host only",
        "let it listen on loopback addresses alone",
        "a port that nobody needs",
    ),
    "not-running": Row(
        CRITICAL,
        "{software} does not run",
        "start it",
        "mail stays in the queue",
    ),
    "not-installed": Row(
        INFO,
        "{software} is not installed, but its configuration is there",
        "purge the package; a password in it is still one",
        "nothing is sent by it",
    ),
    "disabled": Row(
        WARNING,
        "the service is disabled: its mail {fate}",
        "enabled: true when the reason is gone",
        "it may have been forgotten",
    ),
    "queue-old": Row(
        WARNING,
        "{count} mails wait in the queue{age}",
        "look at why",
        "mail that is not delivered within days is given back",
    ),
    # -- OAuth
    "oauth-no-grant": Row(
        CRITICAL,
        "no usable access token ({status}): {next_step}",
        "smtp_oauth_token_info tells more",
        "no mail of this service leaves",
    ),
    "oauth-grant-ends": Row(
        WARNING,
        "the grant ends in {days} days: {next_step}",
        "smtp_oauth_token_info tells more",
        "after that day no mail leaves",
    ),
    "oauth-by-hand": Row(
        INFO,
        "it logs in with an access token that this collection does not keep",
        "auth_type: oauth with a registration in the store; the grant has to be given anew",
        "nobody sees its age",
    ),
    # -- the relay, when probing was asked for
    "relay-unreachable": Row(
        CRITICAL,
        "{detail}",
        "smtp_probe shows the conversation, step by step",
        "mail does not leave",
    ),
    "certificate-ends": Row(
        WARNING,
        "the certificate of {host} ends in {days} days, on {date}",
        "tell those who run the relay",
        "after that day mail stays in the queue wherever certificates are verified",
    ),
    "not-probed": Row(
        INFO,
        "{host} was not probed: {detail}",
        "smtp_probe asks it with options of your own",
        "nothing is known of it",
    ),
}
