# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The files of Exim that a change of the service leads to."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from .. import marks
from ..service import Service
from . import exim_files as files
from .base import FileState, Observed, raw, text_of
from .exim_files import (
    ACCOUNT,
    AUTHENTICATOR,
    AUTHENTICATORS,
    CLEARTEXT,
    CONF,
    CONTINUED,
    CREDENTIALS,
    FRESH,
    HEADERS,
    HELD,
    MONOLITHIC_MACROS,
    OUTSIDE,
    RELAY,
    RETURN_PATH,
    SPLIT_MACROS,
    TEMPLATE,
    TYPES,
    Layout,
    return_path,
)

if TYPE_CHECKING:
    from ..port import Host

MADE = "# made by fleetmail.smtp\n"
CONTINUATION = "# made by fleetmail.smtp: continues the transport of the file that sorts before this one\n"


class Draft:
    """One change: ``files()`` gives what is to be written."""

    def __init__(
        self,
        host: Host,
        service: Service | None,
        name: str,
        observed: Observed,
        layout: Layout,
        options: Mapping[str, str],
        authenticator: str = "",
    ) -> None:
        self.host, self.service, self.name, self.observed = host, service, name, observed
        self.layout, self.options, self.authenticator = layout, options, authenticator

    def files(self) -> list[FileState]:
        """In the order of writing. All of them wait for update-exim4.conf, the first one excepted."""
        return [*self._credentials(), *self._transport(), *self._template(), *self._macros(), *self._conf()]

    # -- passwd.client -----------------------------------------------------------------------------------------------

    def _credentials(self) -> Iterator[FileState]:
        now, service = text_of(self.host, CREDENTIALS), self.service
        old = "".join(line[len(marks.MUTED) :] if line.startswith(marks.MUTED) else line for line in marks.lines(now))
        if service is not None and service.host and service.auth_type == "password" and service.password is not None:
            yield self._login(old, service, service.password.reveal())
            return
        text = marks.drop(old, self.name)
        if service is not None and service.host:  # without a login nobody else's may be found
            text = "".join(_muted(line) for line in marks.lines(text))
        if text != now:
            state = self._state(CREDENTIALS, text, secret=True)
            until = self._until_switched(now, old, service) if service and self.authenticator else None
            yield state if until is None else state._replace(transition=raw(until))

    def _until_switched(self, now: str, old: str, service: Service) -> str | None:
        """The password goes on logging in, at its own relay, until Exim has the authenticator for the access token."""
        form = self.observed.form
        if not self.host.live or form.get("auth_type") != "password":
            return None
        return self._both_logins(old, service, None) if self._moves(service) else now

    def _login(self, old: str, service: Service, password: str) -> FileState:
        # any name: Exim asks for the name that the relay's alias (CNAME) leads to, and nothing else goes this way
        line = files.credential_line("*", service.username, password)
        group = ACCOUNT if self.host.live or self.host.has_account(group=ACCOUNT) else "root"
        wanted = (0o600 if group == "root" else 0o640, "root", group)
        text = files.put_credentials(old, self.name, line, self._note(CREDENTIALS, wanted))
        both = raw(self._both_logins(old, service, password)) if self._moves(service) else None
        return FileState(CREDENTIALS, raw(text), *wanted, secret=True, transition=both)

    def _moves(self, service: Service) -> bool:
        """Is another relay logged in to until the configuration is switched?"""
        form = self.observed.form
        logs_in = self.host.live and form.get("auth_type") in ("password", "oauth")
        return logs_in and form["host"] != service.host.lower() and bool(re.fullmatch(r"[\w.:-]+", form["host"]))

    def _both_logins(self, old: str, service: Service, password: str | None) -> str:
        """Lines that give each of the two relays its own login, and neither of them the other's."""
        before, after = (_names(host) for host in (self.observed.form["host"], service.host.lower()))
        lines = [files.credential_line(name, service.username, password) for name in after if password is not None]
        for key, *login in files.credential_entries(old) if self.observed.form["auth_type"] == "password" else ():
            names = before if key == "*" else [key]
            lines += [files.credential_line(name, *login) for name in names if name not in after]
        return "".join(lines)

    # -- the transport -----------------------------------------------------------------------------------------------

    def _transport(self) -> Iterator[FileState]:
        lines = "".join(f"  {key} = {value}\n" for key, value in self.options.items())
        if self.layout.split and lines:
            yield FileState(CONTINUED, raw(CONTINUATION + lines), 0o644, "root", "root")
        elif self.host.exists(CONTINUED):
            yield FileState(CONTINUED, None, transition=b"")  # empty already when the configuration is made
        if self.layout.split and self.authenticator:
            yield FileState(AUTHENTICATOR, raw(MADE + self.authenticator), 0o644, "root", "root")
        elif self.host.exists(AUTHENTICATOR):
            yield FileState(AUTHENTICATOR, None, transition=b"")

    def _template(self) -> Iterator[FileState]:
        template = text_of(self.host, TEMPLATE)
        new: str | None = marks.drop(template, self.name)
        if not self.layout.split and self.options:
            lines = "".join(f"  {key} = {value}\n" for key, value in self.options.items())
            new = files.put_in_transport(template, self.name, lines)
        if new is not None and (self.authenticator or AUTHENTICATORS in marks.names(new)):
            from .exim_oauth import put

            new = put(new, "" if self.layout.split else self.authenticator)
        if new is not None and new != template:
            yield FileState(TEMPLATE, raw(new))

    # -- macros and answers ------------------------------------------------------------------------------------------

    def _macros(self) -> Iterator[FileState]:
        for path in (MONOLITHIC_MACROS, SPLIT_MACROS):
            text = text_of(self.host, path)
            wanted = self._wanted_macros() if path == self.layout.macros else {}
            if wanted or self.name in marks.names(text):
                new = files.rewrite(text, self.name, wanted, files.MACROS, self._note(path))
                yield self._state(path, new)

    def _wanted_macros(self) -> dict[str, str]:
        service = self.service
        if service is None:
            return {}
        wanted = {} if service.enabled else {"hold_domains": OUTSIDE, RETURN_PATH: HELD}
        if not service.host:
            return wanted
        secured = service.security != "none"
        wanted[RELAY + "PROTOCOL"] = "smtps" if service.security == "tls" else "smtp"
        wanted[RELAY + "HOSTS_AVOID_TLS"] = "" if secured else "*"
        wanted[RELAY + "HOSTS_REQUIRE_TLS"] = "*" if secured else ""
        wanted[RELAY + "TLS_VERIFY_HOSTS"] = "*" if secured and service.validate_certs else ""
        wanted[RELAY + "TLS_VERIFY_CERTIFICATES"] = service.ca_file or "system"
        if not secured and service.auth_type == "password":
            wanted[CLEARTEXT] = "1"
        if service.from_address:
            wanted[HEADERS] = f"*@* {service.from_address} fs"
            wanted.setdefault(RETURN_PATH, return_path(service.from_address))
        return wanted

    def _conf(self) -> Iterator[FileState]:
        text = text_of(self.host, CONF)
        if not text and self.service is None:
            return
        wanted = self._wanted_answers(text)
        note = self._note(CONF)
        if note and wanted:
            wanted = {**FRESH, **wanted}
        yield self._state(CONF, files.rewrite(text, self.name, wanted, files.SHELL, note))

    def _wanted_answers(self, text: str) -> dict[str, str]:
        service = self.service
        if service is None:
            return {}
        wanted = {}
        if service.host:
            before = files.shell_values(files.rewrite(text, self.name, {}, files.SHELL))
            kind = before.get("dc_eximconfig_configtype", "").lower()
            wanted["dc_eximconfig_configtype"] = kind if kind in TYPES else TYPES[0]
            wanted["dc_smarthost"] = files.smarthost(service.host.lower(), service.port)
        if service.from_address or not service.enabled:
            wanted["dc_hide_mailname"] = "false"  # it would define the macros of our rewriting a second time
        return wanted

    # -- shared ------------------------------------------------------------------------------------------------------

    def _note(self, path: str, wanted: tuple[int, str, str] | None = None) -> str:
        """What our block says of the file as it was before us: not there, or with other permissions than ``wanted``."""
        now, ours = self.host.read(path), marks.get(text_of(self.host, path), self.name)
        if ours is not None:
            return "".join(line for line in marks.lines(ours) if line == files.CREATED or files.BEFORE.match(line))
        if now is None:
            return files.CREATED
        changed = wanted is not None and (now.mode, now.owner, now.group) != wanted
        return f"# before us: {now.mode:04o} {now.owner} {now.group}\n" if changed else ""

    def _state(self, path: str, text: str, secret: bool = False) -> FileState:
        note = self._note(path)
        if not text and note == files.CREATED:
            return FileState(path, None, secret=secret, transition=b"")  # empty first: see _transport
        before = files.BEFORE.match(note)
        if before is None or self.name in marks.names(text):
            return FileState(path, raw(text), secret=secret)
        return FileState(path, raw(text), int(before.group(1), 8), before.group(2), before.group(3), secret=secret)


def _names(host: str) -> list[str]:
    """A relay's name and the one that its alias leads to, by which Exim asks for its login."""
    import socket

    names = [host]
    with contextlib.suppress(OSError, UnicodeError):
        names += [found[3].lower() for found in socket.getaddrinfo(host, None, flags=socket.AI_CANONNAME) if found[3]]
    return list(dict.fromkeys(names))


def _muted(line: str) -> str:
    return marks.mute([line])[0] if line.strip() and not line.startswith("#") else line
