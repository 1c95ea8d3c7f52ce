# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Every way in which mail leaves an Exim, in Debian's configuration or in one that somebody wrote whole."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .. import marks
from ..errors import Problem
from ..redaction import Secret
from . import exim_config
from . import exim_files as files
from .auditing import Auditor, Found, Queue, is_network, service_name
from .base import text_of
from .exim import from_address
from .exim_config import Config, Driver, covers, items
from .exim_files import (
    ACCOUNT,
    CONF,
    CREDENTIALS,
    ETC,
    GENERATED,
    MONOLITHIC_MACROS,
    SPLIT_MACROS,
    TEMPLATE,
    WHOLE,
    Layout,
)
from .exim_oauth import NAME as OAUTH

if TYPE_CHECKING:
    from ..host import Snapshot
    from .base import Observed

SPOOL = "/var/spool/exim4"
HUBBED = ETC + "/hubbed_hosts"
_FILE = re.compile(r"lsearch\*?[;{]\s*(/[^}\s;]+)")
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class EximAuditor(Auditor):
    """See ``Auditor``."""

    on_loopback = "dc_local_interfaces='127.0.0.1 ; ::1'"
    lists_queue = "exim4 -bp"
    config = Config({}, {}, {}, {})
    observed: Observed

    def present(self) -> bool:
        return self.installed or self.host.exists(CONF)

    def look(self) -> None:
        conf = text_of(self.host, CONF)
        layout = Layout(files.shell_values(conf).get("dc_use_split_config", "").lower() == "true")
        self.secrets += [text for _key, _user, text in files.credential_entries(text_of(self.host, CREDENTIALS))]
        broken: list[str] = []
        self.config = exim_config.read(self.host, layout.split, broken)
        for words in broken:
            self.tell("config-refused", self._path(), detail=words)
        names = marks.names(conf) or marks.names(text_of(self.host, layout.macros))
        name = names[0] if names else "default"
        self.observed = self.software.read(name)
        self.secrets += self.observed.secrets
        self._ways(name, managed=bool(names) and not self.host.exists(WHOLE))
        self._whole(layout)

    def running(self) -> bool | None:
        return self.observed.running if self.installed else None

    def queue(self) -> Queue | None:
        if not (self.host.live and self.installed):
            return None
        place = f"{self.config.main.get('spool_directory', SPOOL)}/input"
        names = self.host.names_in(place)
        inside = [one for name in names if len(name) == 1 for one in self.host.names_in(f"{place}/{name}")]
        mails = [name for name in names + inside if name.endswith("-H")]
        return Queue(len(mails), min(map(arrived, mails), default=0))

    def _path(self) -> str:
        return WHOLE if self.host.exists(WHOLE) else CONF

    # -- ways --------------------------------------------------------------------------------------------------------

    def _ways(self, name: str, managed: bool) -> None:
        direct = False
        for router in self.config.routers.values():
            driver, transport = router.get("driver", ""), self.config.transports.get(router.get("transport", ""), {})
            direct = direct or (driver == "dnslookup" and _takes_all(router))
            if driver == "manualroute" and transport.get("driver") == "smtp":
                self._routed(name, managed, router, transport, direct)
        if not any(not found.form.get("senders") for found in self.found):
            self._without_relay(name, managed, direct)

    def _routed(self, name: str, managed: bool, router: Driver, transport: Driver, direct: bool) -> None:
        listed = router.get("route_list", "") or "* " + router.get("route_data", "")
        rest = _rest(listed)
        relays = exim_config.relays(rest) if "$" not in rest else []
        senders = router.get("senders", "")
        if not relays or not _takes_all(router):
            self._by_recipient(router, listed, relays)
        elif senders:
            named = service_name(relays[0][0], [name, *(one.name for one in self.found)])
            found = self._way(named, False, relays, transport)
            found.form["senders"] = tuple(sorted(_senders(senders)))
            told = "are chosen by a router of its own, which a service on Exim cannot be"
            found.refused.append(Problem("senders", told, "use postfix or msmtp for several relays"))
        elif not (direct or any(not one.form.get("senders") for one in self.found)):
            self._way(name, managed, relays, transport)

    def _by_recipient(self, router: Driver, listed: str, relays: list[tuple[str, int, bool]]) -> None:
        """A route for some recipients; one that reads a file that is not there takes nobody's mail."""
        if relays and relays[0][0] in [one.form.get("host") for one in self.found if not one.form.get("senders")]:
            return  # as Debian's hub_user_smarthost, which is no other way than everybody's
        where = router.get("route_data", "") + router.get("domains", "")
        named = _FILE.findall(where)
        if named and not self.host.exists(named[0]):
            return
        keys = text_of(self.host, named[0]) if named else router.get("domains", "") or listed
        shown = [line.split(":")[0].strip() for line in keys.split("\n") if line.strip() and line[0] != "#"]
        if shown and "$" in shown[0]:
            shown = ["by a look-up"]  # which may hold the password of what is asked
        if shown:
            self.tell(
                "routes-by-recipient", self._path(), parameter=named[0] if named else "a router", keys=shown[0][:80]
            )

    def _without_relay(self, name: str, managed: bool, direct: bool) -> None:
        found = self._add(Found(name, self._path(), {}, managed))
        found.form = {"enabled": True, "host": "", "port": 25, "security": "none", "auth_type": "none"}
        told = "mail goes straight to the recipients' mail servers" if direct else "no mail leaves this host"
        found.refused.append(Problem("host", f"there is no relay: {told}", "name a relay"))

    def _way(self, name: str, managed: bool, relays: list[tuple[str, int, bool]], transport: Driver) -> Found:
        found = self._add(Found(name, self._path(), {}, managed))
        host, port, by_mx = relays[0]
        if managed:
            found.form = self.observed.form
            self._tell_of_faults(found)
            if self.config.authenticators.get(OAUTH, {}).get("public_name") == "OAUTHBEARER":
                found.options["auth"] = "oauthbearer"
        else:
            found.form = self._form(host, port, transport)
            found.form.update(self._credentials(found, host, transport))
        if len(relays) > 1:
            hosts = ", ".join(relay for relay, _port, _mx in relays)
            found.tell("several-relays", self._path(), "host", hosts=hosts)
            for number in (relay for relay, _port, _mx in relays[1:] if relay.isdigit()):
                found.tell("port-as-host", self._path(), "port", host=host, number=number)
            found.refused.append(Problem("host", f"there are several: {hosts}", "name one"))
        if by_mx:
            found.tell("not-understood", self._path(), "host", detail=f"{host} is looked up by its MX records")
        self._judge_files(found, host)
        if self.host.exists(WHOLE):
            told = "takes the place of all that a service is made of"
            found.refused.append(Problem(WHOLE, told, "move it away first"))
        return found

    def _tell_of_faults(self, found: Found) -> None:
        for what, is_, should in self.observed.faults:
            if GENERATED not in what:
                found.tell("overridden", detail=f"{what} is {is_ or 'not set'}, and should be {should}")
        for override in self.observed.overrides:
            found.tell("overridden", override.option, detail=f"{override.option}: {override.problem}")

    def _form(self, host: str, port: int, transport: Driver) -> dict[str, Any]:
        wrapped = transport.get("protocol") == "smtps"
        required, avoided = (covers(transport.get(key, ""), host) for key in ("hosts_require_tls", "hosts_avoid_tls"))
        security = "tls" if wrapped else "none" if avoided else "starttls" if required else "opportunistic"
        named = covers(transport.get("tls_verify_cert_hostnames", "*"), host)
        verified = covers(transport.get("tls_verify_hosts", ""), host)
        trusted = transport.get("tls_verify_certificates", "system")
        given = transport.get("port", "")
        return {
            "enabled": self.observed.form.get("enabled", True),
            "host": host,
            "port": port or (int(given) if given.isdigit() else 465 if wrapped or given == "smtps" else 25),
            "security": security,
            "validate_certs": (named or None) if verified else False,
            "ca_file": "" if trusted == "system" else trusted,
            "from_address": from_address(transport),
        }

    # -- credentials -------------------------------------------------------------------------------------------------

    def _credentials(self, found: Found, host: str, transport: Driver) -> dict[str, Any]:
        none: dict[str, Any] = {"auth_type": "none", "username": "", "password": None}
        logins: list[tuple[str, str]] = []
        tried = transport.get("hosts_try_auth", "") + transport.get("hosts_require_auth", "")
        for driver in self.config.authenticators.values() if tried else ():
            said = " ".join(driver.get(key, "") for key in ("client_send", "client_name", "client_secret"))
            if not said.strip() or ("$" not in tried and not _tries(transport, host)):
                continue
            if driver.get("public_name", "").upper() in ("XOAUTH2", "OAUTHBEARER"):
                found.tell("oauth-by-hand", self._path(), "auth_type")
                told = "the grant of an access token cannot be taken over"
                found.refused.append(Problem("auth_type", told, "see auth_type: oauth and smtp_oauth_token"))
                return {**none, "auth_type": "oauth", "username": _bearer(said)}
            login = self._login(found, driver, said, host)
            if login:
                by_tls = "tls_out_cipher" in said + driver.get("client_condition", "")
                found.exposed = found.exposed or (driver.get("driver") == "plaintext" and not by_tls)
                logins.append(login)
        if logins:
            return {"auth_type": "password", "username": logins[0][0], "password": Secret(logins[0][1])}
        if covers(transport.get("hosts_require_auth", ""), host):
            found.tell("credentials-missing", CREDENTIALS, "username", host=host)
        return none

    def _login(self, found: Found, driver: Driver, said: str, host: str) -> tuple[str, str] | None:
        named = _FILE.findall(said)
        for path in dict.fromkeys(named):
            text = text_of(self.host, path)
            self.secrets += [password for _key, _user, password in files.credential_entries(text) if password]
            login = files.credentials(text, host)
            if login:
                return login
        if named or "$" in said:
            return None
        literal = _literal(driver)
        if literal:
            self.secrets.append(literal[1])
            self._judge_literal(found, literal[1])
        return literal

    def _judge_literal(self, found: Found, secret: str) -> None:
        """Which of the files has it? Not those that are not in effect; an included one is not looked for."""
        whole = self.host.exists(WHOLE)
        for path in (WHOLE,) if whole else (MONOLITHIC_MACROS, SPLIT_MACROS, TEMPLATE, GENERATED):
            now = self.host.read(path)
            if now is not None and secret.encode("utf-8", "surrogateescape") in now.content:
                found.tell("secret-in-line", path, "password", parameter="an authenticator")
                found.tell_of_secret(path, now, (ACCOUNT,))

    def _judge_files(self, found: Found, host: str) -> None:
        if found.form.get("auth_type") != "password":
            return
        now = self.host.read(CREDENTIALS)
        if now is None or files.credentials(now.content.decode("utf-8", "surrogateescape"), host) is None:
            return
        found.tell_of_secret(CREDENTIALS, now, (ACCOUNT,))
        if not _readable(now):
            mode = f"{now.mode:04o}"
            found.tell("secret-unreadable", CREDENTIALS, mode=mode, owner=now.owner, group=now.group, reader=ACCOUNT)

    # -- as a whole --------------------------------------------------------------------------------------------------

    def _whole(self, layout: Layout) -> None:
        main = self.config.main
        if self.host.exists(WHOLE):
            self.tell("override-file", WHOLE)
        elif self.host.live and self.installed:
            from .exim_generated import fault

            state = fault(self.host, layout.split)
            if state:
                self.tell("config-stale", GENERATED, detail=state.strip("()"))
        listed = main.get("local_interfaces", "")
        interfaces = [re.sub(r"\.\d+\Z", "", one) if one.count(".") == 4 else one for one in items(listed)] or ["all"]
        interfaces = ["all" if one in ("0.0.0.0", "::0", "::") else one for one in interfaces]  # noqa: S104 - no socket
        anybody = "relay_to_domains has *" if "*" in items(main.get("domainlist relay_to_domains", "")) else ""
        nets = [one for one in items(main.get("hostlist relay_from_hosts", "")) if one == "*" or is_network(one)]
        if self.installed:
            self.tell_of_relaying(dict.fromkeys(interfaces), nets, anybody)

    def _add(self, found: Found) -> Found:
        self.found.append(found)
        return found


def _takes_all(router: Driver) -> bool:
    """Does the router take every recipient that is not the host's own?"""
    return _is_rest(items(router.get("domains", "*") or "*"))


def _is_rest(listed: list[str]) -> bool:
    """Is it a list of all but some? One that ends with something negated has everything else (10.1)."""
    but = [one for one in listed if one.startswith("!")]
    return listed == but or (listed[-1:] == ["*"] and listed[:-1] == but)


def _rest(listed: str) -> str:
    """The hosts, and what follows them, of the first item of a route_list that is for all recipients (20.4)."""
    for item in listed.split(";"):
        pattern, _blank, hosts = item.strip().partition(" ")
        if _is_rest([pattern]):
            return hosts
    return ""


def _tries(transport: Driver, host: str) -> bool:
    return any(covers(transport.get(key, ""), host) for key in ("hosts_try_auth", "hosts_require_auth"))


def _senders(listed: str) -> Iterator[str]:
    for item in items(listed):
        yield re.sub(r"\A\*?@", "", item).lower()


def _bearer(said: str) -> str:
    found = re.search(r"user=([^\\\x01;]*)", said)
    return found.group(1) if found and "$" not in found.group(1) else ""


def _literal(driver: Driver) -> tuple[str, str] | None:
    """User name and password that stand in an authenticator itself (Exim's specification, 34.1 and 35)."""
    if driver.get("driver") == "cram_md5":
        name, secret = driver.get("client_name", ""), driver.get("client_secret", "")
        return (name, secret) if secret else None
    sent = driver.get("client_send", "")
    parts = items(sent)
    if len(parts) == 1 and parts[0].startswith("^"):
        parts = parts[0][1:].split("^", 1)
    return (parts[-2], parts[-1]) if len(parts) == 2 else None


def _readable(now: Snapshot) -> bool:
    """Can Exim read it, which runs as ACCOUNT when it delivers?"""
    return bool(
        now.mode & 0o004 or (now.group == ACCOUNT and now.mode & 0o040) or (now.owner == ACCOUNT and now.mode & 0o400)
    )


def arrived(name: str) -> float:
    """When a mail came: the first six characters of its name are the seconds in base 62 (specification, 3.4)."""
    seconds = 0
    for character in name[:6]:
        seconds = seconds * 62 + max(0, _BASE62.find(character))
    return float(seconds)
