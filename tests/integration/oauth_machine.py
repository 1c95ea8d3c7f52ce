# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tests of services with OAuth share: a grant in a host's store, kept there by the engine of that host."""

from __future__ import annotations

import json
from typing import Any

from lab import core
from lab.tree import Tree

USER = "fleet@example.test"
MECHANISMS = ["PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER"]
CLIENT_SECRET = "Geheimclient5B7m~Kernbeisser1N9c"
OAUTH = {
    "auth_type": "oauth",
    "username": USER,
    "client_id": "fleet-client",
    "client_secret": CLIENT_SECRET,
    "authorization_url": "https://auth.example.test/authorize",
    "token_url": "https://auth.example.test/token",
    "scope": "smtp offline_access",
}
REGISTRATION = "/var/lib/fleetmail/oauth/default/registration.json"

# the order comes by standard input: a token in a command line would be a leak of the test's own
_ACCEPT = """
import json, sys, time
order = json.load(sys.stdin)
sys.path.insert(0, order["place"])
from core.oauth.answered import authorized
from core.oauth.grants.base import Reply
from core.oauth.store import Store
from core.oauth.tokens import step
from core.posix_host import PosixHost
from core.redaction import Secret
reply = Reply(Secret(order["access"]), order["seconds"], Secret(order["refresh"]), None, None, order["user"], True)
accept = lambda state, at: authorized(state, state.registration, reply, at)
done = step(Store(PosixHost()), order["name"], accept, lambda: time.time() - order["ago"])
print("\\n".join(done.warnings))
"""


def authorize(
    host: Tree,
    access: str,
    seconds: int = 3600,
    refresh: str = "refresh",
    name: str = "default",
    ago: int = 0,
    user: str = USER,
) -> str:
    """A person said yes, ``ago`` seconds ago: the engine keeps the tokens, gives them to consumers and wakes those.

    Gives its warnings.
    """
    core.install(host)
    order: dict[str, Any] = {"place": core.PLACE, "access": access, "seconds": seconds, "refresh": refresh}
    order.update(name=name, ago=ago, user=user)
    return host.output(["python3", "-B", "-c", _ACCEPT], input=json.dumps(order).encode())
