# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""From what was found to a task: arguments of ``smtp_service`` by which it becomes ours, tried before they are told.

Secrets are placeholders for a vault, named by what they open and not by the host, so that a fleet that logs in to one
relay as one user needs one variable.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from .enforce import enforce
from .errors import Problem
from .service import DEFAULT_TIMEOUT, is_loopback

if TYPE_CHECKING:
    from .backends.auditing import Found
    from .port import Host

UNKNOWN_SECRET = "not-known-to-the-audit"  # noqa: S105 - it stands for one that could not be read
CLIENT = ("authorization_url", "token_url", "client_id", "oauth_provider", "oauth_tenant", "oauth_grant")
ATTEMPTS = 4
_EXPRESSION = re.compile(r"\{[{%#]")
OPTIONAL = ("timeout",)  # what is left out where the software has no setting for it: nothing depends on it


class Adoption(NamedTuple):
    """``task``: the arguments, None where there are none; ``drift``: what the next run in check mode reports with them;
    ``problems``: what is not taken over, or why nothing is."""

    task: dict[str, Any] | None
    drift: list[dict[str, Any]]
    problems: list[Problem]
    takes_over: bool = False


def adoption(found: Found, backend: str, host: Host) -> Adoption:
    """Write the task for what was found, and run it in check mode with the secrets that are known."""
    if found.refused:
        return Adoption(None, [], found.refused)
    task, secrets = _task(found, backend, host)
    expressions = list(_expressions({key: value for key, value in task.items() if key not in secrets}))
    if expressions:
        return Adoption(None, [], expressions)
    problems = list(found.lost)
    for _attempt in range(ATTEMPTS):
        said = enforce({**task, **secrets, "root": host.root}, host, check=True)
        if not said.get("failed"):
            return Adoption(task, said["drift"], problems, said["takes_over"])
        told = [Problem(one["option"], one["problem"], one["hint"]) for one in said["problems"]]
        if not all(_left_out(task, one.option) for one in told):
            return Adoption(None, [], problems + told)
        problems += told
    return Adoption(None, [], problems)


def _expressions(task: Mapping[str, Any], place: str = "") -> Iterator[Problem]:
    """What a playbook would take for an expression, and carry out on the control node. A task is a text to be run."""
    for key, value in task.items():
        if isinstance(value, dict):
            yield from _expressions(value, f"{key}.")
        elif any(_EXPRESSION.search(str(one)) for one in (value if isinstance(value, list) else [value])):
            told = "has what begins an expression in a playbook"
            yield Problem(place + key, told, "mark it !unsafe in a task of your own")


def _left_out(task: dict[str, Any], option: str) -> bool:
    """Can the task do without this one? Then it does."""
    place, key = task, option
    if option.startswith("backend_options."):
        place, key = task.get("backend_options", {}), option.split(".", 1)[1]
    elif option not in OPTIONAL:
        return False
    return place.pop(key, None) is not None


def placeholder(kind: str, *parts: str) -> str:
    """The name of a vault's variable in braces: ``{{ vault_smtp_password_fleet_relay_example_com }}``."""
    words = "_".join(re.sub(r"[^a-z0-9]+", "_", part.lower()).strip("_") for part in parts if part)
    return "{{ " + f"vault_smtp_{kind}_{words}" + " }}"


def _task(found: Found, backend: str, host: Host) -> tuple[dict[str, Any], dict[str, str]]:
    """The arguments with placeholders, and what the placeholders stand for."""
    form = found.form
    task: dict[str, Any] = {"name": found.name, "backend": backend}
    if form.get("enabled") is False:
        task["enabled"] = False
    task.update(host=form.get("host", ""), port=form.get("port"), security=_security(form))
    secrets = _login(task, form)
    if form.get("auth_type") == "oauth":
        secrets.update(_client(task, found, host))
    task.update(_how(form))
    options = {key: value for key, value in found.options.items() if value not in ("", None)}
    if options:
        task["backend_options"] = options
    return task, secrets


def _security(form: Mapping[str, Any]) -> str:
    """TLS that is tried becomes mandatory: a service is never less than what was there."""
    security: str = form.get("security", "none")
    return "starttls" if security == "opportunistic" else security


def _login(task: dict[str, Any], form: Mapping[str, Any]) -> dict[str, str]:
    kind = form.get("auth_type", "none")
    if kind == "none":
        return {}
    task.update(auth_type=kind, username=form.get("username", ""))
    if task["security"] == "none" and not is_loopback(task["host"]):
        task["allow_cleartext_auth"] = True
    if kind != "password":
        return {}
    task["password"] = placeholder("password", task["username"], task["host"])
    known = form.get("password")
    return {"password": known.reveal() if known is not None else UNKNOWN_SECRET}


def _client(task: dict[str, Any], found: Found, host: Host) -> dict[str, str]:
    """The OAuth client, as it is registered."""
    from .oauth.store import Store

    known = Store(host).read(found.name).registration
    if known is None:
        return {}
    record = {"oauth_provider": known.provider, "oauth_tenant": known.tenant, "oauth_grant": known.grant}
    record.update({key: getattr(known, key) for key in ("authorization_url", "token_url", "client_id")})
    task.update({key: record[key] for key in CLIENT if record[key] and record[key] != "custom"})
    if known.scope:
        task["scope"] = list(known.scope)
    if known.client_secret is None:
        return {}
    task["client_secret"] = placeholder("client_secret", known.client_id)
    return {"client_secret": known.client_secret.reveal()}


def _how(form: Mapping[str, Any]) -> dict[str, Any]:
    """What is not as it would be by itself."""
    told: dict[str, Any] = {}
    if form.get("security") != "none":
        if form.get("ca_file"):
            told["ca_file"] = form["ca_file"].split(" ")[0]  # of a file and a directory the file, and that is told
        if form.get("validate_certs") is False:
            told["validate_certs"] = False
    for key in ("from_address", "senders"):
        if form.get(key):
            told[key] = list(form[key]) if key == "senders" else form[key]
    if form.get("timeout") not in (None, 0, DEFAULT_TIMEOUT):
        told["timeout"] = form["timeout"]
    return told
