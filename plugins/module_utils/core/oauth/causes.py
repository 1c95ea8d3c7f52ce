# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Why an authorization server said no, and what a person does about it, as one table."""

from __future__ import annotations

from collections.abc import Mapping

from .grant_causes import AUTHORIZE, OF_A_GRANT, Cause

__all__ = ["AUTHORIZE", "CAUSES", "Cause", "by_age", "cause_named"]

_WAIT = "nothing: the keeper tries again by itself; if it stays so, look at the provider's status page"
_ENTRA = "in the Entra admin center, App registrations > this application > "

# fmt: off
_TABLE = (
    # The refresh token is dead
    Cause("invalid_grant", "revoked", True,
          "the server does not accept the refresh token any more: it expired unused, was revoked, or was replaced",
          AUTHORIZE),
    Cause("expired", "expired", True,
          "the refresh token has expired because it was not used for too long",
          AUTHORIZE + "; then let the keeper run (role token_keeper), which uses it before it expires"),
    Cause("expired_redirect_type", "expired", True,
          "the refresh token had a fixed life of 24 hours, because the redirect URI is registered for a single-page "
          "application",
          _ENTRA + "Authentication: remove the redirect URI from 'Single-page application' and add it under 'Mobile "
          "and desktop applications'; then " + AUTHORIZE),
    Cause("expired_policy", "expired", True,
          "a sign-in frequency policy of the organization has ended the refresh token",
          "have an administrator take this account out of the policy's sign-in frequency (Entra ID > Conditional "
          "Access), or use the grant client_credentials, which no such policy reaches; then " + AUTHORIZE),
    Cause("revoked", "revoked", True,
          "the grant was revoked, by the person or by an administrator",
          "find out who revoked it and why; then " + AUTHORIZE),
    Cause("password_changed", "revoked", True,
          "the account's password was changed or has expired, which ends its refresh tokens",
          "sign in to the account once in a browser if it wants a new password; then " + AUTHORIZE),
    # It may still be good, but somebody has to do something
    Cause("interaction_required", "blocked", False,
          "the provider wants the person to sign in again, for example with a second factor",
          AUTHORIZE + ", and complete the second factor"),
    Cause("policy", "blocked", False,
          "a policy of the organization (Conditional Access, security defaults) blocks this sign-in",
          "have an administrator look it up in the sign-in log (Entra ID > Monitoring > Sign-in logs; Google: Admin "
          "console > Security > API controls), and allow this account or application from this host's address; sending "
          "goes on by itself after that"),
    Cause("consent_required", "blocked", False,
          "consent to this application is missing or was taken back",
          "have an administrator grant it (Entra admin center > Enterprise applications > this application > "
          "Permissions > Grant admin consent), or " + AUTHORIZE + ", and accept"),
    Cause("account_disabled", "blocked", False,
          "the account is disabled",
          "have an administrator enable it; sending goes on by itself after that"),
    Cause("account_locked", "blocked", False,
          "the account is locked after too many failed sign-ins",
          "wait until the lock ends or have an administrator lift it; sending goes on by itself after that"),
    Cause("account_unknown", "blocked", False,
          "the account does not exist in this organization, or may not use this application",
          "check oauth_tenant and username, and have an administrator assign the account to the application"),
    # The client is declared wrongly, here or at the provider
    Cause("client_secret_wrong", "misconfigured", False,
          "the client secret is wrong",
          "set client_secret to the secret's value (Entra shows it once, when it is made; the 'Secret ID' is another "
          "thing), then run the playbook again; the grant is kept"),
    Cause("client_secret_expired", "misconfigured", False,
          "the client secret has expired",
          _ENTRA + "Certificates & secrets: make a new one, set client_secret to its value, and run the playbook "
          "again; the grant is kept"),
    Cause("client_secret_missing", "misconfigured", False,
          "the server wants a client secret (or a signed assertion) and was given none",
          "set client_secret; or, for a client without one, " + _ENTRA + "Authentication > 'Allow public client "
          "flows': Yes"),
    Cause("client_public", "misconfigured", False,
          "the client is registered as public, so the server does not take a client secret from it",
          "remove client_secret (smtp_oauth_token with state: absent forgets the stored one), or register the redirect "
          "URI under the platform 'Web'"),
    Cause("client_refused", "misconfigured", False,
          "the server does not know this client, or its secret is wrong or has expired",
          "compare client_id and client_secret with the application's registration at the provider; a secret may "
          "have expired; the grant is kept"),
    Cause("client_unknown", "misconfigured", False,
          "the provider does not know this client_id in this tenant",
          "compare client_id and oauth_tenant with the application's overview page ('Application (client) ID' and "
          "'Directory (tenant) ID')"),
    Cause("client_disabled", "misconfigured", False,
          "the application is disabled or was deleted at the provider",
          "have its owner enable it, or register a new one and set client_id"),
    Cause("client_not_allowed", "misconfigured", False,
          "the client may not use this grant, or not for these accounts",
          "allow this grant in the application's registration; for a Google service account: allow its client ID and "
          "the scope under Admin console > Security > API controls > Domain-wide delegation; for an account of "
          "another organization: make the application multi-tenant or set oauth_tenant"),
    Cause("tenant_unknown", "misconfigured", False,
          "the provider does not know this tenant",
          "set oauth_tenant to the 'Directory (tenant) ID' of the application's overview page"),
    Cause("tenant_needed", "misconfigured", False,
          "the application belongs to one organization, and the request went to an endpoint for all",
          "set oauth_tenant to the 'Directory (tenant) ID' of the application's overview page"),
    Cause("redirect_refused", "misconfigured", False,
          "the redirect URI is not one that the application is registered with",
          "register it exactly as it is shown (for Microsoft: 'Mobile and desktop applications', http://localhost), or "
          "set redirect_uri to the one that is registered"),
    Cause("scope_refused", "misconfigured", False,
          "the server does not know the scope, or this client may not have it",
          "compare scope with the provider's documentation and with the permissions of the application's registration"),
    Cause("request_refused", "misconfigured", False,
          "the server says that the request is not complete or not right",
          "compare the registration's options with what the provider documents; the words in brackets say what it "
          "misses"),
    Cause("grant_type_unsupported", "misconfigured", False,
          "the server does not offer this grant",
          "set oauth_grant to one that it offers, or allow this one in the application's registration"),
    Cause("assertion_refused", "misconfigured", False,
          "the server does not accept the signed assertion",
          "check that jwt_key_file is the private key whose public half the provider has, that client_id and "
          "jwt_subject are right, and that this host's clock is"),
    Cause("clock", "misconfigured", False,
          "the server does not accept the assertion's times, so this host's clock is off",
          "set the clock (chrony, systemd-timesyncd); the grant is kept"),
    Cause("key_file", "misconfigured", False,
          "the file with the signing key cannot be used",
          "give the private key as PEM (with its certificate in the same file for Microsoft), as JWK, or the JSON file "
          "that Google made for the service account"),
    Cause("library_missing", "misconfigured", False,
          "a Python library that this needs is not installed",
          "install it"),
    Cause("no_endpoint", "misconfigured", False,
          "there is no such endpoint at that address",
          "check the URL's host and path, and oauth_tenant"),
    Cause("redirected", "misconfigured", False,
          "the server redirects to another address, which a client with a secret must not follow",
          "set the URL to the final address, if that is the provider's"),
    Cause("issuer_mismatch", "misconfigured", False,
          "the server says that it is another issuer than the one asked for (RFC 8414 3.3, RFC 9207)",
          "set issuer to exactly what its metadata says, if that is the server that you mean"),
    Cause("metadata", "misconfigured", False,
          "the server's metadata lacks what is needed or cannot be used (RFC 8414)",
          "check issuer, or give the URLs by their own options"),
    Cause("token_type", "misconfigured", False,
          "the server gave a token of a type that mail software cannot use",
          "have the client registered for bearer tokens"),
    Cause("ca_file", "misconfigured", False,
          "the CA file cannot be used",
          "set ca_file to a readable PEM file on this host"),
    Cause("refused", "misconfigured", False,
          "the server refused for a reason of its own",
          "look its words up in the provider's documentation; the grant is kept"),
    # An authorization by a person
    Cause("access_denied", "unauthorized", False,
          "the person, or a policy of the provider, said no",
          AUTHORIZE + ", and accept; if nobody declined, an administrator has to allow the application"),
    Cause("expired_token", "unauthorized", False,
          "the code was not entered in time",
          AUTHORIZE + ", and enter the new code before it expires"),
    Cause("code_refused", "unauthorized", False,
          "the server does not accept the authorization code: it was used already, or is older than a few minutes",
          AUTHORIZE + ", and hand the new address over at once"),
    *OF_A_GRANT,
    Cause("other_authorization", "pending", False,
          "this is not the answer to the authorization that is pending",
          "open the address that is shown now, and paste the whole address at which the browser ends"),
    Cause("answer_incomplete", "pending", False,
          "the pasted text is not the whole address at which the browser ended",
          "copy all of the browser's address bar, from http to the end"),
    Cause("nothing_pending", "unauthorized", False,
          "no authorization is pending that this could complete",
          AUTHORIZE),
    # It passes
    Cause("asks_too_often", "unreachable", False,
          "the provider says that this client asks too often",
          "see that only one host and one program use this registration; the keeper tries again more slowly"),
    Cause("temporarily_unavailable", "unreachable", False,
          "the authorization server cannot answer at the moment",
          _WAIT),
    Cause("not_oauth", "unreachable", False,
          "the answer is none of an authorization server",
          "check the URL; a proxy, a firewall or a login page of the network may answer in its place"),
    Cause("too_large", "unreachable", False,
          "the answer is larger than any of an authorization server",
          "check the URL; something else answers there"),
    Cause("name_unknown", "unreachable", False,
          "the server's name does not resolve on this host",
          "check the URL's host and this host's DNS"),
    Cause("connection_refused", "unreachable", False,
          "nothing listens at the server's address, or a firewall rejects the connection",
          "check the URL; allow this host to reach it, or set proxy"),
    Cause("no_route", "unreachable", False,
          "there is no way from this host to the server",
          "check the network; allow this host to reach it, or set proxy"),
    Cause("timeout", "unreachable", False,
          "the server did not answer in time",
          "allow this host to reach it, or set proxy; if others reach it, wait: the keeper tries again"),
    Cause("closed", "unreachable", False,
          "the server hung up before it had answered",
          _WAIT),
    Cause("proxy", "unreachable", False,
          "the proxy does not let the request through",
          "check the option proxy (name, port, user and password) and that the proxy allows the server's name"),
    Cause("certificate_unknown_ca", "unreachable", False,
          "the server's certificate was signed by a CA that this host does not trust",
          "set ca_file to that CA's certificate; if a proxy of the network opens TLS, to the proxy's"),
    Cause("certificate_name", "unreachable", False,
          "the server's certificate is for another name",
          "check the URL's host; if it is right, the certificate has to be renewed with this name"),
    Cause("certificate_expired", "unreachable", False,
          "the server's certificate has expired",
          "it has to be renewed on the server; check this host's clock too"),
    Cause("certificate_not_yet", "unreachable", False,
          "the server's certificate is not valid yet",
          "check the clock of this host and of the server"),
    Cause("certificate", "unreachable", False,
          "the server's certificate was not accepted",
          "it has to be replaced on the server, or ca_file to be set"),
    Cause("tls", "unreachable", False,
          "TLS with the server failed",
          "check the URL's host and port; something that is no TLS server may answer there"),
)
# fmt: on
CAUSES: Mapping[str, Cause] = {cause.name: cause for cause in _TABLE}


def cause_named(name: str) -> Cause:
    """The cause of that name; ``refused`` for one that a later release wrote into the store."""
    return CAUSES.get(name, CAUSES["refused"])


def by_age(cause: Cause, past_lifetime: bool) -> Cause:
    """``expired`` for an ``invalid_grant`` of a token that was older than it lives, for most servers do not say."""
    return CAUSES["expired"] if cause.name == "invalid_grant" and past_lifetime else cause
