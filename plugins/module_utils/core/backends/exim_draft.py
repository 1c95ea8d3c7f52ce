# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The files of Exim that a change of the service leads to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from .. import marks
from ..service import Service
from . import exim_files as files
from .base import FileState, Observed, raw, text_of
from .exim import (
    ACCOUNT,
    CLEARTEXT,
    CONF,
    CONTINUED,
    CREDENTIALS,
    FRESH,
    HEADERS,
    HELD,
    OUTSIDE,
    RELAY,
    RETURN_PATH,
    SPLIT_MACROS,
    TYPES,
    Layout,
    return_path,
)
from .exim_generated import MONOLITHIC_MACROS, TEMPLATE

if TYPE_CHECKING:
    from ..port import Host

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
    ) -> None:
        self.host, self.service, self.name, self.observed = host, service, name, observed
        self.layout, self.options = layout, options

    def files(self) -> list[FileState]:
        """In the order of writing. All of them wait for update-exim4.conf, the first one excepted."""
        return [*self._credentials(), *self._transport(), *self._macros(), *self._conf()]

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
            yield self._state(CREDENTIALS, text, secret=True)

    def _login(self, old: str, service: Service, password: str) -> FileState:
        # any name: Exim asks for the name that the relay's alias (CNAME) leads to, and nothing else goes this way
        line = files.credential_line("*", service.username, password)
        text = files.put_credentials(old, self.name, line, self._note(CREDENTIALS))
        group = ACCOUNT if self.host.live or self.host.has_account(group=ACCOUNT) else "root"
        mode = 0o600 if group == "root" else 0o640
        both = None
        if self._taken_over(service):
            named = files.credential_line(service.host.lower(), service.username, password)
            both = raw(named + self._logins_until_now(old) + line)
        return FileState(CREDENTIALS, raw(text), mode, "root", group, secret=True, transition=both)

    def _taken_over(self, service: Service) -> bool:
        """Does mail leave with somebody else's login now, to another relay, and bounce when that is refused?"""
        form, values = self.observed.form, self.observed.detail.get("values", {})
        logs_in = form.get("auth_type") == "password" and values.get("hosts_require_auth") != "*"
        return logs_in and form.get("host") != service.host.lower()

    def _logins_until_now(self, old: str) -> str:
        """The lines that serve the old relay, made so that they serve no other one."""
        before = str(self.observed.form["host"])
        logins = files.credential_entries(marks.drop(old, self.name))
        return "".join(files.credential_line(before if key == "*" else key, *login) for key, *login in logins)

    # -- the transport -----------------------------------------------------------------------------------------------

    def _transport(self) -> Iterator[FileState]:
        lines = "".join(f"  {key} = {value}\n" for key, value in self.options.items())
        if self.layout.split and lines:
            yield FileState(CONTINUED, raw(CONTINUATION + lines), 0o644, "root", "root")
        elif self.host.exists(CONTINUED):
            yield FileState(CONTINUED, None, transition=b"")  # empty already when the configuration is made
        template = text_of(self.host, TEMPLATE)
        new: str | None = marks.drop(template, self.name)
        if not self.layout.split and lines:
            new = files.put_in_transport(template, self.name, lines)
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

    def _note(self, path: str) -> str:
        """The words in our block by which a file that we made goes with it."""
        ours = marks.get(text_of(self.host, path), self.name) or ""
        return files.CREATED if self.host.read(path) is None or files.CREATED in ours else ""

    def _state(self, path: str, text: str, secret: bool = False) -> FileState:
        if not text and self._note(path):
            return FileState(path, None, secret=secret, transition=b"")  # empty first: see _transport
        return FileState(path, raw(text), secret=secret)


def _muted(line: str) -> str:
    return marks.mute([line])[0] if line.strip() and not line.startswith("#") else line
