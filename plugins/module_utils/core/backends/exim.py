# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Exim 4 as Debian packages it, in the monolithic and in the split layout.

A service is a block in update-exim4.conf.conf (where to), one in the macros that stand before the configuration (how)
and one in passwd.client (as whom). Nothing of the first two is effective before update-exim4.conf(8) has made the
configuration anew: that is the switch. What Debian has no macro for (login mandatory, SNI) are options that continue
the smarthost transport: a file of ours in the split layout, a block in exim4.conf.template in the monolithic one.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from .. import marks
from ..errors import HostError, Problem
from ..redaction import Secret
from ..service import Service
from . import exim_files as files
from . import exim_generated
from .base import Backend, Capabilities, FileState, Observed, Option, Rule, Submission, raw, text_of
from .exim_files import (
    ACCOUNT,
    ASK,
    AUTHENTICATOR,
    CLEARTEXT,
    CONF,
    CREDENTIALS,
    DEFAULTS,
    ETC,
    GENERATED,
    HELD,
    LONGEST_BEARER,
    LONGEST_LOGIN,
    OPTION_OF,
    OUTSIDE,
    QUEUE_RUN,
    TEMPLATE,
    TRANSPORT_FILE,
    TYPES,
    WHOLE,
    Layout,
    return_path,
)

if TYPE_CHECKING:
    from ..host import LogMark, Snapshot
    from ..oauth.token_files import Consumer

_INTERPRETED = r"[^\w/.@%+=,~-]"
_CARET = "which Debian's PLAIN authenticator takes for the end of what is before it"
_REWRITE = re.compile(r"\*@\* (\S+) fs")
_COMPLAINT = re.compile(
    r"Exim configuration error.*|.*failed to open /etc/exim4/passwd\.client.*|.*remote host address is the local host.*"
)


class Exim(Backend):
    """See the module's documentation; every method as ``Backend`` says."""

    name = "exim"
    packages = "exim4-daemon-light"
    program = "exim4"
    by_hand: ClassVar[Mapping[str, tuple[str, ...]]] = {"start": ("exim4", "-bd", "-q30m")}
    logs = ("/var/log/exim4/mainlog", "/var/log/exim4/paniclog")
    capabilities = Capabilities(
        fields=(
            "enabled", "host", "port", "security", "auth_type", "username", "password", "ca_file", "validate_certs",
            "from_address",
        ),
        auth_types=("none", "password", "oauth"),
        longest_bearer=LONGEST_BEARER,
        rules=(
            Rule("username", "has a ':', which ends the name in passwd.client", "use a name without", ":"),
            Rule("username", f"begins with '^', {_CARET}", "use another name, or the postfix backend", r"\A\^"),
            Rule("username", "begins with white space, which Exim strips", "remove it", r"\A[ \t]"),
            Rule("password", f"begins with '^', {_CARET}", "change it, or use the postfix backend", r"\A\^"),
            Rule("password", "ends in white space, which Exim strips", "change it, or use msmtp", r"[ \t]\Z"),
            Rule("ca_file", "has a character that Exim interprets", "letters, digits and /._@%+=,~-", _INTERPRETED),
            Rule("from_address", "has a character that Exim interprets", "one without $, { and }", r"[${}]"),
        ),
        ways_out={
            "timeout": "Debian's Exim has no setting for it: leave it out, or use postfix or msmtp",
            "senders": "Debian's Exim sends all mail to one relay: leave it out, or use postfix or msmtp",
        },
    )  # fmt: skip
    options: ClassVar[Mapping[str, Option]] = {
        "edit_template": Option(
            bool,
            True,
            "monolithic layout: put a marked block into exim4.conf.template, so that a refused login defers mail "
            "instead of bouncing it and the relay's name is sent (SNI), and one that logs in with an access token; "
            "false leaves that conffile alone",
        ),
        "oauth_mechanism": Option(
            str, "xoauth2", "how an access token is sent: xoauth2 or oauthbearer", "xoauth2|oauthbearer"
        ),
    }

    replaced: Snapshot | None = None  # the configuration that activate() replaced
    mark: LogMark | None = None  # where the log ended when it had done so

    # -- what holds --------------------------------------------------------------------------------------------------

    def read(self, name: str) -> Observed:
        conf = text_of(self.host, CONF)
        if not conf and not self.installed():
            return Observed({}, running=False if self.host.live else None)
        layout = _layout(conf)
        ours = marks.names(conf), marks.names(text_of(self.host, layout.macros))
        observed = Observed({}, any(name in found for found in ours), self._running())
        values = self._values(layout, conf, observed)
        observed.detail.update(values=values, name=name)
        if values:
            observed.form = self._form(values, observed)
            for key, value in self._written_options(layout, name).items():
                if values.get(key, "") != value:
                    observed.faults.append((key, values.get(key, ""), value))
        self._remark(layout, name, observed)
        return observed

    def _running(self) -> bool | None:
        if not self.host.live:
            return None
        if files.shell_values(text_of(self.host, "/etc/default/exim4")).get("QUEUERUNNER") == "nodaemon":
            return None
        if re.search(r"^\s*(?:\S+:)?smtp\s", text_of(self.host, "/etc/inetd.conf"), re.M):
            return None  # as Debian's init script decides
        return bool(self.daemons())

    def daemons(self) -> list[str]:
        """The process numbers of the daemons that live: the listener, and a queue runner where that is another one."""
        found = (text_of(self.host, f"/run/exim4/{name}.pid").strip() for name in ("exim", "eximqr"))
        return [pid for pid in found if pid and text_of(self.host, f"/proc/{pid}/comm").strip() == "exim4"]

    def _values(self, layout: Layout, conf: str, observed: Observed) -> dict[str, str]:
        """The effective options: from Exim itself where it is there, else from the files that they are made of."""
        if not (self.host.live and self.installed()):
            return self._written(layout, conf)
        said = self.host.run(["exim4", "-bP", *ASK])
        values: dict[str, str] = {}
        for line in said.out.splitlines():
            key, equals, value = line.partition("=")
            if equals:
                values.setdefault(key.strip(), value.strip())
        if "protocol" not in values:
            observed.warnings.append(f"Exim refuses its configuration: {said.words}")
            return {}
        return values

    def _written(self, layout: Layout, conf: str) -> dict[str, str]:
        macros = files.macro_values(text_of(self.host, layout.macros))
        values = {**DEFAULTS, **{OPTION_OF[key]: value for key, value in macros.items() if key in OPTION_OF}}
        given = files.shell_values(conf)
        if given.get("dc_eximconfig_configtype", "").lower() in TYPES:
            values["route_list"] = "* {} byname".format(given.get("dc_smarthost", "").lower())
        text = text_of(self.host, layout.options)
        names = [""] if layout.split else marks.names(text)
        if layout.split:
            values.update(files.macro_values(text_of(self.host, AUTHENTICATOR)))
        return {
            **values,
            **{key: value for name in names for key, value in self._written_options(layout, name).items()},
        }

    def _written_options(self, layout: Layout, name: str) -> dict[str, str]:
        """What we let the transport go on with."""
        text = text_of(self.host, layout.options)
        return files.macro_values(text if layout.split else marks.get(text, name) or "")

    def _form(self, values: Mapping[str, str], observed: Observed) -> dict[str, Any]:
        host, port = "", 25
        if values.get("route_list"):
            host, port = files.split_route(values["route_list"], 465 if values["protocol"] == "smtps" else 25)
        security = _security(values)
        trusted = values.get("tls_verify_certificates", "")
        form = {
            "enabled": values.get("hold_domains", "") not in (OUTSIDE, "*"),
            "host": host,
            "port": port,
            "security": security,
            "ca_file": "" if trusted == "system" else trusted,
            "validate_certs": _validates(values),
            "from_address": from_address(values),
        }
        return {**form, **self._credentials(form, values, observed)}

    def _credentials(self, form: Mapping[str, Any], values: Mapping[str, str], observed: Observed) -> dict[str, Any]:
        host, security = form["host"], form["security"]
        if values.get("client_send"):
            from .exim_oauth import username

            path = self.token_path(observed.detail["name"])
            user = username(values, host, form["port"], security, path)
            if user is not None:
                return {"auth_type": "oauth", "username": user, "password": None}
        text = text_of(self.host, CREDENTIALS)
        observed.secrets.extend(password for _rest, _rest, password in files.credential_entries(text) if password)
        found = files.credentials(text, host) if host else None
        usable = security != "none" or bool(values.get(CLEARTEXT))  # else no password goes out without TLS
        if found is None or not usable:
            return {"auth_type": "none", "username": "", "password": None}
        return {"auth_type": "password", "username": found[0], "password": Secret(found[1])}

    def _remark(self, layout: Layout, name: str, observed: Observed) -> None:
        if self.host.exists(WHOLE):
            told = f"replaces the whole configuration: nothing in {CONF}, macros or templates has an effect"
            observed.overrides.append(Problem(WHOLE, told, "move it away, or make the same settings in it by hand"))
            observed.warnings.append(f"{WHOLE} {told}")
            return
        if self.host.exists(ETC + "/hubbed_hosts"):
            observed.warnings.append(ETC + "/hubbed_hosts sends some mail another way")
        if self.host.live and self.installed():
            state = exim_generated.fault(self.host, layout.split)
            if state:
                observed.faults.append((f"content of {GENERATED}", state, "(generated)"))
            ours = files.macro_values(marks.get(text_of(self.host, layout.macros), name) or "")
            values = observed.detail["values"]
            lost = {key for key, value in ours.items() if key in OPTION_OF and values.get(OPTION_OF[key], "") != value}
            observed.overrides.extend(exim_generated.redefined(self.host, layout.split, lost))

    def recognize(self, service: Service, observed: Observed) -> None:
        places = (CONF, self._layout().macros, CREDENTIALS, TEMPLATE)
        torn = any(service.name in marks.tidy(text_of(self.host, path))[1] for path in places)
        observed.theirs = bool(observed.form.get("host")) and not torn and not self.host.exists(WHOLE)

    # -- what is wanted ----------------------------------------------------------------------------------------------

    def consumer(self, service: Service) -> Consumer:
        from ..oauth.token_files import Consumer

        wake = ("sh", "-c", QUEUE_RUN)
        return Consumer(
            service.name, self.name, "exim", self.token_path(service.name), *self._readers(), service.username, wake
        )

    def _readers(self) -> tuple[str, str, int]:
        """Owner, group and mode of a file with a secret."""
        group = ACCOUNT if self.host.live or self.host.has_account(group=ACCOUNT) else "root"
        return "root", group, 0o600 if group == "root" else 0o640

    def bearer_mechanisms(self) -> tuple[str, ...]:
        return (str(self.option("oauth_mechanism")).upper(),)

    def own_problems(self, service: Service) -> Iterator[Problem]:
        if service.auth_type == "oauth":
            from .exim_oauth import problems

            there = not self.host.live or self.installed()
            template = None if self._layout().split else text_of(self.host, TEMPLATE)
            yield from problems(service, template, there, self.option("edit_template"))
        if service.loopback:
            told = "is this host itself: Exim freezes mail that it should relay to itself"
            yield Problem("host", told, "name the relay behind it, or use the postfix or msmtp backend")
        password = "" if service.password is None else service.password.reveal()
        if len(raw(service.username + password)) > LONGEST_LOGIN:
            yield Problem(
                "password", f"is longer than {LONGEST_LOGIN} bytes with the user name", "use the msmtp backend"
            )
        ca = None
        with contextlib.suppress(HostError):  # told by those who look into every CA file
            ca = self.host.read(service.ca_file) if service.ca_file.startswith("/") else None
        if ca is not None and not (ca.mode & 0o004 or (ca.mode & 0o040 and ca.group == ACCOUNT)):
            yield Problem("ca_file", f"{service.ca_file} cannot be read by {ACCOUNT}", "chmod 0644: it is no secret")
        others = [name for name in marks.names(text_of(self.host, CONF)) if name != service.name]
        if others:
            yield Problem("name", f"'{others[0]}' already takes all mail of this Exim", "make that one absent first")
        template = text_of(self.host, TEMPLATE)
        wanted = self._wanted_options(service) and not self._layout().split
        if template and wanted and files.smarthost_transport(template) is None:
            told = f"{TEMPLATE} has no transport remote_smtp_smarthost with driver = smtp to put a block into"
            yield Problem("backend_options.edit_template", told, "restore it, or set edit_template: false")

    def wanted_form(self, service: Service) -> dict[str, Any]:
        form = super().wanted_form(service)
        if service.host:
            form["host"] = service.host.lower()  # as update-exim4.conf(8) writes it
            if service.auth_type == "password" and service.password is None:  # disabled and not yet complete
                form = {key: value for key, value in form.items() if key not in ("auth_type", "username", "password")}
        return form

    def _layout(self) -> Layout:
        return _layout(text_of(self.host, CONF))

    def _wanted_options(self, service: Service) -> dict[str, str]:
        """The options that continue the transport, without those that it sets by itself."""
        layout = self._layout()
        place = layout.split or (self.option("edit_template") and self.host.exists(TEMPLATE))
        if not (service.host and place):
            return {}
        wanted = {"hosts_require_auth": "*"} if service.auth_type != "none" else {}
        if service.security != "none" and not _is_address(service.host):
            wanted["tls_sni"] = service.host.lower()
        own = self._transport(layout, service.name)
        return {key: value for key, value in wanted.items() if not files.sets(own, key)}

    def _transport(self, layout: Layout, name: str) -> str:
        """The transport as it is without us."""
        if layout.split:
            return text_of(self.host, TRANSPORT_FILE + ".rul") or text_of(self.host, TRANSPORT_FILE)
        template = marks.drop(text_of(self.host, TEMPLATE), name)
        place = files.smarthost_transport(template)
        return template[slice(*place)] if place else ""

    def desired(self, service: Service | None, name: str, observed: Observed) -> list[FileState]:
        from .exim_draft import Draft

        options = self._wanted_options(service) if service else {}
        if service is not None and observed.managed:
            self._tell_strays(service, options, observed)
        return Draft(self.host, service, name, observed, self._layout(), options, self._login_lines(service)).files()

    def _login_lines(self, service: Service | None) -> str:
        """The authenticator that sends the access token, for a service that has one."""
        if service is None or service.auth_type != "oauth" or not service.host:
            return ""
        from .exim_oauth import authenticator

        return authenticator(service, self.bearer_mechanisms()[0], self.token_path(service.name))

    def _tell_strays(self, service: Service, options: Mapping[str, str], observed: Observed) -> None:
        """Tell of options of the transport that were changed by hand, where no field of the form tells of a change."""
        values, told = observed.detail["values"], {what for what, _is, _should in observed.faults}
        if any(observed.form.get(key) != value for key, value in self.wanted_form(service).items()):
            return
        for key, value in options.items():
            if values.get(key, "") != value and key not in told:
                observed.faults.append((key, values.get(key, ""), value))

    # -- making it so ------------------------------------------------------------------------------------------------

    def check(self, staged: Mapping[str, str]) -> list[str]:
        if self.host.which("update-exim4.conf") is None or not self.installed():
            return ["Exim is not in the tree: its files were judged by this collection's rules alone"]
        from .exim_running import judge

        return judge(self.host, staged)

    def activate(self, before: Observed, service: Service | None) -> None:
        from . import exim_running

        exim_running.activate(self, before, service)

    def restore(self, was_running: bool | None) -> None:
        from . import exim_running

        exim_running.restore(self, was_running)

    def settle(self, before: Observed, service: Service | None) -> None:
        """What waits for the relay goes now, whatever Exim had noted of earlier failures."""
        if service is not None and service.enabled:
            self.act("settle", ["sh", "-c", QUEUE_RUN])

    def complaints(self, log: str) -> str:
        # what was said before the switch is about the old configuration, which may have been refused
        found = _COMPLAINT.search(self.host.log(self.mark) if self.mark else log)
        return found.group(0) if found else ""

    def submit(self, message: bytes, sender: str, recipients: Sequence[str], timeout: float) -> Submission:
        from .exim_running import submit

        return submit(self.host, self.logs, message, sender, recipients, timeout)


def _layout(conf: str) -> Layout:
    return Layout(files.shell_values(conf).get("dc_use_split_config", "").lower() == "true")


def _is_address(host: str) -> bool:
    return ":" in host or re.fullmatch(r"[0-9.]+", host) is not None


def _security(values: Mapping[str, str]) -> str:
    if values["protocol"] == "smtps":
        return "tls"
    if values.get("hosts_avoid_tls") == "*":
        return "none"
    return "starttls" if values.get("hosts_require_tls") == "*" else "opportunistic"


def _validates(values: Mapping[str, str]) -> bool | None:
    if not values.get("tls_verify_hosts"):
        return False
    named = values.get("tls_verify_cert_hostnames", "*") == "*"
    return True if values["tls_verify_hosts"] == "*" and named else None


def from_address(values: Mapping[str, str]) -> str:
    found = _REWRITE.fullmatch(values.get("headers_rewrite", ""))
    envelope = values.get("return_path", "")
    return found.group(1) if found and envelope in (HELD, return_path(found.group(1))) else ""
