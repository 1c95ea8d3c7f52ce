# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real relay: Postfix and Dovecot's SASL in a tree of their own. Port 25 has no TLS, 587 STARTTLS, 465 TLS first."""

from __future__ import annotations

import base64
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .journal import Message
from .layers import DOMAIN
from .tree import Tree

if TYPE_CHECKING:
    from .authority import Certificate
    from .network import Network

POSTFIX_RELAY = "postfix-relay"
POSTFIX_RELAY_NAME = f"{POSTFIX_RELAY}.{DOMAIN}"
PORTS = {"none": 25, "starttls": 587, "tls": 465}
_STORE = "/var/spool/store"

_MAIN_CF = f"""
compatibility_level = 3.6
myhostname = {POSTFIX_RELAY_NAME}
mydestination =
mynetworks = 0.0.0.0/0 [::]/0
inet_interfaces = all
alias_maps =
default_transport = store:all
smtpd_relay_restrictions = RESTRICTIONS
smtpd_sasl_type = dovecot
smtpd_sasl_path = private/auth
smtpd_sasl_auth_enable = yes
smtpd_sasl_authenticated_header = yes
smtpd_sasl_security_options = noanonymous
smtpd_sasl_response_limit = 65536
smtpd_tls_chain_files = /etc/postfix/relay.key, /etc/postfix/relay.pem
smtpd_tls_received_header = yes
smtpd_error_sleep_time = 0
line_length_limit = 65536
"""

_MASTER_CF = """
smtp inet n - y - - smtpd
  -o smtpd_tls_security_level=none
submission inet n - y - - smtpd
  -o smtpd_tls_security_level=encrypt
submissions inet n - y - - smtpd
  -o smtpd_tls_wrappermode=yes
pickup unix n - y 60 1 pickup
cleanup unix n - y - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - y 1000? 1 tlsmgr
rewrite unix - - y - - trivial-rewrite
bounce unix - - y - 0 bounce
defer unix - - y - 0 bounce
trace unix - - y - 0 bounce
proxymap unix - - n - - proxymap
smtp unix - - y - - smtp
showq unix n - y - - showq
error unix - - y - - error
retry unix - - y - - error
anvil unix - - y - 1 anvil
store unix - n n - - pipe
  flags= user=nobody null_sender= argv=/usr/local/bin/store-mail ${sender} ${recipient}
"""

# the rename comes last, so that a reader never sees half a mail
_STORE_MAIL = f"""#!/bin/sh
set -e
new=$(mktemp {_STORE}/.new-XXXXXX)
{{ printf '%s\\n' $# "$@"; cat; }} > "$new"
mv "$new" "{_STORE}/$(date +%s.%N)-$$"
"""

DOVECOT_CONF = """
protocols =
ssl = no
log_path =
syslog_facility = mail
auth_mechanisms = plain login
auth_username_chars =
auth_username_format = %u
auth_failure_delay = 0
auth_verbose = yes
passdb {
  driver = passwd-file
  args = username_format=%u /etc/dovecot/users
}
userdb {
  driver = static
  args = uid=nobody gid=nogroup home=/nonexistent
}
service anvil {
  # without this every failure makes the next attempts of the same address slower
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service auth {
  unix_listener /var/spool/postfix/private/auth {
    mode = 0660
    user = postfix
    group = postfix
  }
}
"""


class PostfixRelay(Tree):
    """A host that accepts mail for every address and keeps it. Its name is POSTFIX_RELAY_NAME, as hostname says.

    users: name -> password, which may hold any characters but control characters: Dovecot refuses those.
    auth_required: mail is taken from authenticated clients alone.
    network: that of the clients; a client that is started already can give its own, as host.network.
    """

    def __init__(
        self,
        certificate: Certificate,
        network: Network,
        users: Mapping[str, str] | None = None,
        auth_required: bool = False,
        name: str = POSTFIX_RELAY,
    ) -> None:
        super().__init__("relay", name=name, network=network)
        self.hostname = self.full_name
        self._certificate, self._auth_required = certificate, auth_required
        self._users = dict(users or {})
        self._seen: set[Path] = set()
        self._stamp = 0

    def __enter__(self) -> PostfixRelay:
        self.begin_host()
        try:
            self._configure()
            self.start("dovecot")
            self.start("postfix")
        except BaseException:
            self.kill()
            raise
        return self

    def _configure(self) -> None:
        allowed = "permit_sasl_authenticated, " + ("reject" if self._auth_required else "permit_mynetworks, reject")
        self.write("/etc/postfix/main.cf", _MAIN_CF.replace("RESTRICTIONS", allowed).replace(POSTFIX_RELAY, self.name))
        self.write("/etc/postfix/master.cf", _MASTER_CF)
        self.write("/etc/postfix/relay.pem", self._certificate.chain.read_bytes())
        self.write("/etc/postfix/relay.key", self._certificate.key.read_bytes(), mode=0o600)
        self.write("/usr/local/bin/store-mail", _STORE_MAIL, mode=0o755)
        self.run(["install", "--directory", "--owner=nobody", _STORE])
        self._configure_sasl()
        self._write_users(self._users)
        self.let_cool()

    def _configure_sasl(self) -> None:
        self.write("/etc/dovecot/dovecot.conf", DOVECOT_CONF)

    def port(self, security: str = "none") -> int:
        """The port with this security."""
        return PORTS[security]

    def add_user(self, name: str, password: str) -> None:
        """Let one more user in, or give one another password, from now on.

        Raises ValueError for what Dovecot cannot take.
        """
        self._write_users({**self._users, name: password})
        time.sleep(1.01 - time.time() % 1)  # Dovecot looks at the file once in each second of the clock

    def _write_users(self, users: dict[str, str]) -> None:
        if any(":" in name for name in users):
            raise ValueError("a passwd-file cannot hold a user name with a colon")
        if any(character < " " for pair in users.items() for text in pair for character in text):
            raise ValueError("Dovecot refuses control characters in names and passwords")
        lines = [f"{name}:{{PLAIN.b64}}{_base64(password)}\n" for name, password in users.items()]
        self.write("/etc/dovecot/users.new", "".join(lines), mode=0o600)
        new = self.inside("/etc/dovecot/users.new")
        os.chown(new, int(self._account("dovecot")[2]), -1)
        self._stamp += 1  # Dovecot takes a file of the same size and second for the old one
        os.utime(new, (self._stamp, self._stamp))
        new.rename(self.inside("/etc/dovecot/users"))
        self._users = users

    # -- what it saw

    def messages(self) -> list[Message]:
        """All accepted mail since the start or the last forget(), oldest first."""
        return [_read(path) for path in self._stored() if path not in self._seen]

    def forget(self) -> None:
        """Leave out of messages() what came until now."""
        self._seen = set(self._stored())

    def _stored(self) -> list[Path]:
        return sorted(path for path in self.inside(_STORE).iterdir() if not path.name.startswith("."))

    def wait_for_message(self, timeout: float = 15, count: int = 1) -> Message:
        """The count-th message, as soon as it is there. Raises TimeoutError with the log."""
        deadline = time.monotonic() + timeout
        while len(found := self.messages()) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the relay's log:\n{self.log()}")
            time.sleep(0.02)
        return found[count - 1]


def _base64(password: str) -> str:
    return base64.b64encode(password.encode(errors="surrogateescape")).decode()


def _read(path: Path) -> Message:
    """A stored mail: the number of lines with envelope addresses, the lines, and the mail with this relay's header."""
    count, rest = path.read_bytes().split(b"\n", 1)
    *addresses, data = rest.split(b"\n", int(count))
    sender, *recipients = (address.decode() for address in addresses)
    received = data.split(b"\tby ", 1)[0].decode(errors="replace")
    user = re.search(r"\(Authenticated sender: (.*)\)\n", received)
    return Message(sender, recipients, data, _tls(received), user[1].encode() if user else None, session=0)


def _tls(received: str) -> dict[str, Any] | None:
    found = re.search(r"\(using (\S+) with cipher (\S+)", received)
    return {"version": found[1], "cipher": found[2], "server_name": None} if found else None
