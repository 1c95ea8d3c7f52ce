# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Results of a fleet of any size, in the forms that the modules give them, for reports: the same for the same seed.

Most hosts comply; some drift in several ways, fail, cannot be reached or never had a result.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

Record = dict[str, Any]
NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
SITES = ("fra", "ams", "dub", "iad", "sin")
ROLES = ("web", "db", "batch", "mon", "build", "edge")
RELAYS = {site: f"relay.{site}.example.test" for site in SITES}
CERTIFICATES = {"fra": 212, "ams": 41, "dub": 19, "iad": 6, "sin": -2}  # days
KINDS = (("compliant", 900), ("drifting", 40), ("changed", 15), ("failed", 15), ("unreachable", 12), ("none", 4))
TOKENS = (("authorized", 80), ("expiring", 8), ("revoked", 3), ("expired", 3), ("pending", 3), ("misconfigured", 3))
AUDIT = (
    ("critical", "cleartext-credentials", "credentials are sent to {relay} without TLS", "set security: starttls"),
    ("critical", "secret-readable", "/etc/msmtprc, which has a password, can be read by others", "mode 0600"),
    ("warning", "basic-auth-ends", "passwords for SMTP are off at Microsoft 365 from 2026-12-31 on", "use OAuth"),
    ("warning", "tls-opportunistic", "TLS to {relay} is opportunistic: where it fails, mail goes in clear text", ""),
    ("info", "unmanaged", "this configuration was written by hand", "adopt it"),
)


def iso(days: float) -> str:
    return (NOW + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")


class Fleet:
    """hosts: how many. results(): host -> its registered variables. groups(): host -> its groups."""

    def __init__(self, hosts: int, seed: int = 4) -> None:
        self._random = random.Random(seed)
        self.hosts = [self._name(number) for number in range(hosts)]
        self._results = {host: self._host(host) for host in self.hosts}

    def results(self) -> dict[str, Record]:
        return self._results

    def groups(self, host: str) -> list[str]:
        role, _rest, site = host.partition(".")
        return ["mail_clients", f"site_{site.split('.')[0]}", f"role_{role.rstrip('0123456789')}"]

    def _name(self, number: int) -> str:
        return f"{ROLES[number % len(ROLES)]}{number // len(ROLES) + 1}.{SITES[number % len(SITES)]}.example.test"

    def _pick(self, weighted: Any) -> str:
        words, weights = zip(*weighted, strict=True)
        return str(self._random.choices(words, weights)[0])

    def _host(self, host: str) -> Record:
        kind = self._pick(KINDS)
        if kind == "none":
            return {}
        if kind == "unreachable":
            msg = f"Failed to connect to the host via ssh: ssh: connect to host {host} port 22: No route to host"
            return {"smtp_service": {"unreachable": True, "changed": False, "msg": msg}}
        found: Record = {"smtp_service": getattr(self, f"_{kind}")(host)}
        if self._random.random() < 0.12:
            found["smtp_oauth_token_info"] = {"changed": False, "tokens": [self._token(host)]}
        found["smtp_service_info"] = self._audit(host)
        return found

    # -- smtp_service

    def _compliant(self, host: str) -> Record:
        backend = self._random.choices(("postfix", "exim", "msmtp"), (70, 15, 15))[0]
        site = host.split(".")[1]
        form = {
            "name": "default", "backend": backend, "state": "present", "enabled": True,
            "host": RELAYS[site], "port": 587,
            "security": "starttls", "validate_certs": True, "ca_file": "/etc/ssl/certs/fleet-ca.pem", "timeout": 30,
            "from_address": f"{host.split('.')[0]}@example.test", "auth_type": "password", "username": f"fleet-{site}",
            "password": "(set)", "senders": [],
        }  # fmt: skip
        return {
            "changed": False, "failed": False, "service": form, "drift": [], "files": [], "actions": [],
            "verification": self._verification(site), "rolled_back": False, "backup_files": [], "warnings": [],
            "invocation": {"module_args": {"host": RELAYS[site], "password": "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"}},
        }  # fmt: skip

    def _drifting(self, host: str) -> Record:
        result = self._compliant(host)
        form = result["service"]
        drift = [
            {"field": "security", "before": "opportunistic", "after": "starttls"},
            {"field": "validate_certs", "before": False, "after": True},
            {"field": "host", "before": "mail.old.example.test", "after": form["host"]},
            {"field": f"mode of /etc/{form['backend']}/secrets", "before": "0644", "after": "0600"},
            {"field": "password", "before": "(set)", "after": "(changed)"},
            {"field": "running", "before": False, "after": True},
            {"field": "timeout", "before": 300, "after": 30},
        ]
        found = self._random.sample(drift, self._random.choices((1, 2, 4), (70, 20, 10))[0])
        form.update(
            {one["field"]: one["before"] for one in found if one["field"] in form and one["field"] != "password"}
        )
        head = f"service default ({form['backend']})"
        sides = ["before", "after"]
        lines = {side: [head, *(f"  {one['field']}: {one[side]}" for one in found)] for side in sides}
        lines["before"] += ["file /etc/postfix/main.cf (present)", "  smtp_tls_security_level = may"]
        lines["after"] += ["file /etc/postfix/main.cf (present)", "  smtp_tls_security_level = secure"]
        diff = {side: "\n".join(lines[side]) + "\n" for side in sides}
        result.update(changed=True, drift=found, diff={**diff, "before_header": head, "after_header": head})
        result["files"] = [{"path": "/etc/postfix/main.cf", "action": "changed"}]
        return result

    def _changed(self, host: str) -> Record:
        result = self._drifting(host)
        result["service"].update(
            {one["field"]: one["after"] for one in result["drift"] if one["field"] in result["service"]}
        )
        result["actions"] = ["postfix reload"]
        return result

    def _failed(self, host: str) -> Record:
        result = self._drifting(host)
        problem = self._random.choice(
            (
                ("verify", "The relay refused user name or password of fleet",
                 'correct username and password (the relay said: "535 5.7.8 Authentication credentials invalid").'),
                ("/etc/postfix", "no space is left on the device", "make room and run again"),
                ("backend", "neither Postfix, Exim nor msmtp is installed", "install one of them, or name the backend"),
            )
        )  # fmt: skip
        problems = [dict(zip(("option", "problem", "hint"), problem, strict=True))]
        msg = f"{problem[0]}: {problem[1]} ({problem[2]})"
        verification = self._verification(host.split(".")[1])
        verification.update(ok=False, reached="tls")
        verification["steps"][-2:] = [
            {"name": "auth", "ok": False, "detail": "535 5.7.8 Error: authentication failed", "ms": 9}
        ]
        result.update(
            failed=True, changed=False, rolled_back=True, msg=msg, problems=problems, verification=verification
        )
        return result

    def _verification(self, site: str) -> Record:
        relay, days = RELAYS[site], CERTIFICATES[site]
        took = self._random.randrange
        steps = [
            {"name": "connect", "ok": True, "ms": took(2, 90),
             "detail": f"192.0.2.25 port 587: 220 {relay} ESMTP Postfix"},
            {"name": "ehlo", "ok": True, "detail": f"250 {relay}", "ms": took(1, 9)},
            {"name": "tls", "ok": True, "ms": took(5, 60), "detail":
             f"TLSv1.3 TLS_AES_256_GCM_SHA384, certificate CN={relay} until {iso(days + 0.5)}, verified"},
            {"name": "auth", "ok": True, "detail": "235 2.7.0 Authentication successful", "ms": took(1, 40)},
            {"name": "quit", "ok": True, "detail": "221 2.0.0 Bye", "ms": took(1, 5)},
        ]  # fmt: skip
        tls = {
            "version": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384", "subject": f"CN={relay}",
            "not_after": iso(days + 0.5),
            "issuer": "CN=Example Fleet CA 2,O=Example", "names": [relay, "relay.example.test"], "days_left": days,
        }  # fmt: skip
        offered = ["PIPELINING", "SIZE 52428800", "AUTH PLAIN LOGIN", "ENHANCEDSTATUSCODES", "8BITMIME", "SMTPUTF8"]
        return {"level": "auth", "reached": "auth", "ok": True, "steps": steps, "tls": tls, "capabilities": offered,
                "auth_mechanisms": ["PLAIN", "LOGIN"]}  # fmt: skip

    # -- the other modules

    def _token(self, host: str) -> Record:
        status = self._pick(TOKENS)
        days = {"expiring": self._random.randrange(1, 14), "authorized": self._random.randrange(15, 181)}.get(
            status, -3
        )
        provider = self._random.choice(("microsoft365", "google", "custom"))
        usable = status in ("authorized", "expiring")
        return {
            "name": "default", "status": status, "cause": "" if usable else status, "authorized_user_verified": True,
            "authorized_user": f"fleet-{host.split('.')[1]}@example.test", "authorized_at": iso(days - 90),
            "refreshed_at": iso(-0.02), "expires_at": iso(0.02),
            "refresh_expires_at": iso(days + 0.5) if usable else None, "days_left": days if usable else None,
            "scope": ["https://outlook.office.com/SMTP.Send", "offline_access"], "missing_scope": [],
            "grant": "authorization_code", "provider": provider, "error": "" if usable else "invalid_grant",
            "error_description": "", "next_step": "" if status == "authorized" else
            "authorize again: run the playbook fleetmail.smtp.authorize",
        }  # fmt: skip

    def _audit(self, host: str) -> Record:
        """As smtp_service_info tells it: what is wrong with a service also stands in one list of everything."""
        form = {key: value for key, value in self._compliant(host)["service"].items() if key != "state"}
        services = [{**form, "managed": True, "path": "/etc/postfix/main.cf", "user": "", "findings": []}]
        if self._random.random() < 0.08:
            relay = form["host"]
            found = [
                {
                    "severity": severity,
                    "id": kind,
                    "message": text.format(relay=relay),
                    "hint": hint,
                    "path": "",
                    "field": "",
                }
                for severity, kind, text, hint in self._random.sample(AUDIT, self._random.randrange(1, 3))
            ]
            own = {"backend": "msmtp", "managed": False, "path": "/home/app/.msmtprc", "user": "app", "findings": found}
            services.append({**form, **own})
        findings = [
            {**found, "backend": service["backend"], "service": service["name"], "path": service["path"]}
            for service in services
            for found in service["findings"]
        ]
        return {"changed": False, "services": services, "findings": findings}
