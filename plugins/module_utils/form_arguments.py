# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The argument specs of the form, shared by the modules that take it, and the way from a core result to Ansible's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Callable

from ansible.module_utils.basic import AnsibleModule

from .core.errors import InvalidService, Problem, unforeseen
from .core.service import is_one_line

RELAY: dict[str, Any] = {
    "host": {"type": "str"},
    "port": {"type": "int"},
    "security": {"type": "str", "choices": ["none", "starttls", "tls"], "default": "none"},
    "auth_type": {"type": "str", "choices": ["none", "password", "oauth"], "default": "none"},
    "username": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "ca_file": {"type": "path"},
    "validate_certs": {"type": "bool", "default": True},
    "allow_cleartext_auth": {"type": "bool", "default": False},
    "timeout": {"type": "int", "default": 30},
}

OAUTH: dict[str, Any] = {
    "authorization_url": {"type": "str"},
    "token_url": {"type": "str", "no_log": False},
    "client_id": {"type": "str"},
    "client_secret": {"type": "str", "no_log": True},
    "scope": {"type": "raw"},
    "oauth_provider": {"type": "str", "default": "custom"},
    "oauth_tenant": {"type": "str"},
    "oauth_grant": {
        "type": "str",
        "choices": ["authorization_code", "device_code", "client_credentials", "jwt_bearer"],
        "default": "authorization_code",
    },
}

TEST_SEND: dict[str, Any] = {
    "to": {"type": "list", "elements": "str", "required": True},
    "sender": {"type": "str"},
    "subject": {"type": "str"},
    "body": {"type": "str"},
    "timeout": {"type": "int", "default": 60},
}

TEST_SEND_HERE: dict[str, Any] = {
    **TEST_SEND,
    "when": {"type": "str", "choices": ["changed", "always"], "default": "changed"},
    "via": {"type": "str", "choices": ["relay", "mta"], "default": "relay"},
}

SECRETS = ("password", "client_secret", "access_token", "authorization_response", "proxy")
LEVELS = ["none", "connect", "tls", "auth", "recipient"]


class FormModule(AnsibleModule):
    """An AnsibleModule whose refusal of arguments is told like every other problem: all at once, by option."""

    def __init__(self, *arguments: Any, judge: Callable[[dict[str, Any]], list[Problem]], **settings: Any) -> None:
        """``judge``: what the core says, offline, of the arguments that Ansible did not refuse."""
        self._judge = judge
        super().__init__(*arguments, **settings)
        if not is_one_line(self.params.get("root") or ""):
            self._refuse([])  # there is no host that could be asked for more

    def log(self, msg: Any, log_args: Any = None) -> None:
        """Log it; without NUL, at which syslog raises: an argument with one is refused by its name a little later."""
        super().log(msg.replace("\0", "?") if isinstance(msg, str) else msg, log_args)

    def fail_json(self, msg: str, **result: Any) -> None:
        """Exit with a failure; while the arguments are read, with a ``problems`` list of every refusal."""
        refused = getattr(getattr(self, "validation_result", None), "error_messages", None)
        if refused and "problems" not in result:
            self._refuse(list(_refusals(refused, self.validation_result.unsupported_parameters)))
        super().fail_json(msg, **result)

    def _refuse(self, refusals: list[Problem]) -> None:
        """Exit with these problems and all that the core finds in the rest of the arguments."""
        named = {problem.option for problem in refusals}
        rest = [problem for problem in self._judge(_without(self.params, named)) if problem.option not in named]
        invalid = InvalidService(refusals + rest)
        super().fail_json(invalid.message, problems=[problem.as_dict() for problem in invalid.problems])


def _refusals(messages: list[str], unknown: Iterable[Any]) -> Iterator[Problem]:
    """Ansible's sentences as problems: each names its option in its own way, some name several, some none."""
    for name in sorted(one if isinstance(one, str) else ".".join(one) for one in unknown):
        yield Problem(name, "there is no such option", "check its spelling")
    told = [(message, *_named(message)) for message in messages if "Supported parameters include" not in message]
    seen: set[str] = set()
    for message, inside, names in told:
        for name in names or ([] if any(others for _rest, _rest, others in told) else ["arguments"]):
            if inside + name not in seen:
                seen.add(inside + name)
                yield Problem(inside + name, message)


def _named(message: str) -> tuple[str, list[str]]:
    """The option with options of its own that a sentence speaks of, as ``test_send.``, and the options in it."""
    inside = re.search(r" found in '?(\w+)", message)
    begin = "missing required arguments: |argument '|value of '?|Elements value for option '"
    found = re.match(f"(?:{begin})(.*)", message)
    names = re.match(r"\w+(?:, \w+)*", found.group(1)) if found else None
    return inside.group(1) + "." if inside else "", names.group().split(", ") if names else []


def _without(parameters: dict[str, Any], named: set[str]) -> dict[str, Any]:
    """The parameters that were not refused, nor anything in them."""
    kept = {name: value for name, value in parameters.items() if name not in named}
    for name, value in kept.items():
        if isinstance(value, dict):
            kept[name] = {key: inner for key, inner in value.items() if f"{name}.{key}" not in named}
    return kept


def secrets_of(parameters: dict[str, Any]) -> list[str]:
    return [parameters[name] for name in SECRETS if parameters.get(name)]


def run(module: AnsibleModule, work: Callable[[], dict[str, Any]]) -> None:
    """Do the work and leave with its result; an error that nobody foresaw shows where it was, never its text."""
    _register(secrets_of(module.params))
    result = _done(work)
    for warning in result.pop("warnings", []):  # Ansible puts them back under that name
        module.warn(warning)
    if result.get("failed"):
        module.fail_json(**result)  # outside of any `except`, or Ansible shows the error with its text
    module.exit_json(**result)


def _done(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return work()
    except Exception as error:  # the text of an unknown exception may hold a secret
        told = unforeseen(error)
        return {"failed": True, "msg": told.message, "problems": [problem.as_dict() for problem in told.problems]}


def _register(secrets: list[str]) -> None:
    """ansible-core 2.22 masks what was registered, and nothing else."""
    try:
        from ansible.module_utils.secrets import register_secret
    except ImportError:
        return
    for secret in secrets:
        register_secret(secret)
