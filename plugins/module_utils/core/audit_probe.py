# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Asking the relays that an audit found: are they there, until when is the certificate good, do they take the login?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .probe import Report, probe
from .service import is_loopback
from .target import Password, Target

if TYPE_CHECKING:
    from .backends.auditing import Found

TIMEOUT = 10
DAYS = 30


def ask(found: Found, level: str, options: Mapping[str, Any], root: str, known: dict[tuple[Any, ...], Report]) -> None:
    """Probe the relay as the software would talk to it and tell what is found. ``known``: what was asked before.

    TLS that the software tries is asked for. A certificate that is pinned or verified in part is not judged.
    Credentials go only where nobody else can read them.
    """
    form = found.form
    target = _target(found, level, options, root)
    why = _why_not(form, level, target)
    if why:
        found.tell("not-probed", field="host", host=form["host"], detail=why)
        target, level = replace(target, auth=None), "tls"
    key = (target, level)
    if key not in known:
        known[key] = probe(target, level)
    report = known[key]
    found.verification = report.as_result()
    if not report.ok:
        found.tell("relay-unreachable", field="host", detail=report.problem)
    days = report.tls.get("days_left")
    if days is not None and days < (options.get("certificate_days") or DAYS):
        ends = str(report.tls.get("not_after", ""))
        found.tell("certificate-ends", field="host", host=form["host"], days=days, date=ends)


def _target(found: Found, level: str, options: Mapping[str, Any], root: str) -> Target:
    form = found.form
    security = "starttls" if form["security"] == "opportunistic" else form["security"]
    ca_file = form.get("ca_file") or ""
    single = ca_file.startswith("/") and " " not in ca_file
    auth = None
    secret = form.get("password")
    if level == "auth" and secret is not None and form.get("username"):
        auth = Password(form["username"], secret.reveal())
    return Target(
        host=form["host"],
        port=form["port"] or 25,
        security=security,
        ca_file=root.rstrip("/") + ca_file if single and security != "none" else "",
        validate_certs=form.get("validate_certs") is True and form["security"] != "opportunistic",
        timeout=options.get("timeout") or TIMEOUT,
        auth=auth if auth and (security != "none" or is_loopback(form["host"])) else None,
        allow_cleartext=is_loopback(form["host"]),
    )


def _why_not(form: Mapping[str, Any], level: str, target: Target) -> str:
    """Why the login is not tried, where it was asked for and there is one."""
    if level != "auth" or form.get("auth_type", "none") == "none":
        return ""
    if form["auth_type"] == "oauth":
        return "an audit spends no access token: the login was not tried"
    if target.auth is None:
        return "the password is not known, or would go out in clear text: the login was not tried"
    if not target.validate_certs and not is_loopback(form["host"]):
        return "the certificate is not verified: the login was not tried"
    return ""
