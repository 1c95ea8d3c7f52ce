# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The argument specs of the form, shared by the modules that take it, and the way from a core result to Ansible's."""

from __future__ import annotations

import re
from typing import Any, Callable, Dict, List

from ansible.module_utils.basic import AnsibleModule

from .core.errors import Problem

RELAY: Dict[str, Any] = {
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

OAUTH: Dict[str, Any] = {
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

TEST_SEND: Dict[str, Any] = {
    "to": {"type": "list", "elements": "str", "required": True},
    "sender": {"type": "str"},
    "subject": {"type": "str"},
    "body": {"type": "str"},
    "via": {"type": "str", "choices": ["relay", "mta"], "default": "relay"},
    "timeout": {"type": "int", "default": 60},
}

LEVELS = ["none", "connect", "tls", "auth", "recipient"]


class FormModule(AnsibleModule):
    """An AnsibleModule whose refusal of arguments is told like every other problem: all at once, by option."""

    def fail_json(self, msg: str, **result: Any) -> None:
        """Exit with a failure; while the arguments are read, with a ``problems`` list made of every refusal."""
        refused = getattr(getattr(self, "validation_result", None), "error_messages", None)
        if refused and "problems" not in result:
            result["problems"] = [_told(message) for message in refused]
        super().fail_json(msg, **result)


def _told(message: str) -> Dict[str, str]:
    """Ansible names the option in its sentence: find it."""
    found = re.search(r"(?:argument '?|value of |parameters?: |arguments?: )([\w.]+)", message)
    return Problem(found.group(1) if found else "arguments", message).as_dict()


def secrets_of(parameters: Dict[str, Any]) -> List[str]:
    return [parameters[name] for name in ("password", "client_secret") if parameters.get(name)]


def run(module: AnsibleModule, work: Callable[[], Dict[str, Any]]) -> None:
    """Do the work and leave with its result; an error that nobody foresaw shows where it was, never its text."""
    _register(secrets_of(module.params))
    try:
        result = work()
    except Exception as error:  # the text of an unknown exception may hold a secret
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = "" if trace is None else "{}:{}".format(trace.tb_frame.f_code.co_filename, trace.tb_lineno)
        module.fail_json("internal error ({}) at {}: please report it".format(type(error).__name__, place), problems=[])
        return
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


def _register(secrets: List[str]) -> None:
    """ansible-core 2.22 masks what was registered, and nothing else."""
    try:
        from ansible.module_utils.secrets import register_secret
    except ImportError:
        return
    for secret in secrets:
        register_secret(secret)
