# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The argument specs of the form, shared by the modules that take it, and the way from a core result to Ansible's."""

from __future__ import annotations

import re
from typing import Any, Callable

from ansible.module_utils.basic import AnsibleModule

from .core.errors import Problem

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

LEVELS = ["none", "connect", "tls", "auth", "recipient"]


class FormModule(AnsibleModule):
    """An AnsibleModule whose refusal of arguments is told like every other problem: all at once, by option."""

    def __init__(self, *arguments: Any, judge: Callable[[dict[str, Any]], list[Problem]], **settings: Any) -> None:
        """``judge``: what the core says, offline, of the arguments that Ansible did not refuse."""
        self._judge = judge
        super().__init__(*arguments, **settings)

    def fail_json(self, msg: str, **result: Any) -> None:
        """Exit with a failure; while the arguments are read, with a ``problems`` list of every refusal."""
        refused = getattr(getattr(self, "validation_result", None), "error_messages", None)
        if refused and "problems" not in result:
            problems = [_told(message) for message in refused]
            named = {problem.option for problem in problems}
            rest = {name: value for name, value in self.params.items() if name not in named}
            problems += [problem for problem in self._judge(rest) if problem.option not in named]
            result["problems"] = [problem.as_dict() for problem in problems]
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            msg = f"{problems[0]}{more}"
        super().fail_json(msg, **result)


def _told(message: str) -> Problem:
    """Ansible names the option in its sentence: find it."""
    found = re.search(r"(?:argument '?|value of |parameters?: |arguments?: )([\w.]+)", message)
    return Problem(found.group(1) if found else "arguments", message)


def secrets_of(parameters: dict[str, Any]) -> list[str]:
    return [parameters[name] for name in ("password", "client_secret", "access_token") if parameters.get(name)]


def run(module: AnsibleModule, work: Callable[[], dict[str, Any]]) -> None:
    """Do the work and leave with its result; an error that nobody foresaw shows where it was, never its text."""
    _register(secrets_of(module.params))
    try:
        result = work()
    except Exception as error:  # the text of an unknown exception may hold a secret
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = "" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        module.fail_json(f"internal error ({type(error).__name__}) at {place}: please report it", problems=[])
        return
    for warning in result.pop("warnings", []):  # Ansible puts them back under that name
        module.warn(warning)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


def _register(secrets: list[str]) -> None:
    """ansible-core 2.22 masks what was registered, and nothing else."""
    try:
        from ansible.module_utils.secrets import register_secret
    except ImportError:
        return
    for secret in secrets:
        register_secret(secret)
