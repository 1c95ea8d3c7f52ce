# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Every account of msmtp: the host's and, when asked, those in home directories."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .. import marks
from ..errors import HostError, Problem
from . import msmtp_by_hand as by_hand
from . import msmtp_file
from .auditing import Auditor, Found, service_name, wide
from .base import text_of
from .msmtp import GROUP, MAIN, USER_FILES, user_file

if TYPE_CHECKING:
    from .msmtp_file import Account, Settings

NETRC = ".netrc"
# settings that a service has no field and the backend no option for
UNKNOWN = (
    "proxy_host", "source_ip", "tls_fingerprint", "tls_cert_file", "tls_crl_file", "tls_priorities",
    "tls_min_dh_prime_bits", "tls_host_override", "dsn_notify", "dsn_return", "ntlmdomain",
)  # fmt: skip
KEPT = ("logfile", "aliases", "domain")  # options of the backend with the very name and meaning
_BY_TLS_ONLY = ("on", "off", "external", "gssapi", "scram-sha-1", "scram-sha-256", "cram-md5", "digest-md5")
_EVAL = "an audit does not run its command, which may set anything"


class MsmtpAuditor(Auditor):
    """See ``Auditor``."""

    def present(self) -> bool:
        there = self.installed or self.host.exists(MAIN)
        return there or (self.homes and any(True for _one in self._user_files()))

    def look(self) -> None:
        text = self._system_file()
        self.secrets += msmtp_file.secrets(text)
        names = marks.names(text)
        for name in names:
            self._managed(name, text)
        if text.strip() and not names:
            self._by_hand(text)
        for user, path in self._user_files():
            if text:
                self.tell("user-file", path, instead=MAIN, user=user)
            if self.homes:
                try:
                    self._in_home(user, path)
                except HostError as error:  # what one user made of it hides nobody else's
                    self.tell("unreadable", error.problems[0].option, detail=error.problems[0].problem)

    def _system_file(self) -> str:
        try:
            return text_of(self.host, MAIN)
        except HostError as error:  # users' files count all the same
            self.tell("unreadable", MAIN, detail=error.problems[0].problem)
            return ""

    def _managed(self, name: str, text: str) -> None:
        found = self._add(Found(name, MAIN, {}, managed=True))
        observed = self.software.read(name)
        self.secrets += observed.secrets
        found.form = observed.form
        if not observed.form and msmtp_file.runs_a_command(text):
            told = f"{MAIN} has an eval, and what {name} is with it is not known: {_EVAL}"
            found.tell("not-understood", MAIN, detail=told)
        elif not observed.form:
            found.tell("config-refused", MAIN, detail="; ".join(observed.warnings) or "see msmtp --pretend")
        account = next((one for one in msmtp_file.accounts(text) if one.name in (name, f"{name}/")), None)
        if account:
            self._options(found, account.settings())
        if next(msmtp_file.secrets(text), ""):
            found.tell_of_secret(MAIN, self.host.read(MAIN), (GROUP,))

    def _by_hand(self, text: str) -> None:
        observed = self.software.read("default")
        refused = "; ".join(one for one in observed.warnings if "refuses" in one)
        if refused:
            self.tell("config-refused", MAIN, detail=refused)
        seen: list[Settings] = []
        accounts = msmtp_file.accounts(text)
        rest = [one for one in accounts if one.name == "default"]
        for account in [*rest, *(one for one in accounts if one not in rest)]:
            if account.settings() not in seen:
                seen.append(account.settings())
                self._account(account)

    def _account(self, account: Account) -> None:
        settings = account.settings()
        secret = by_hand.password(self.host, account, by_hand.SYSTEM_NETRC)
        sender = settings.get("from", "") if account.name != "default" else ""
        named = service_name(account.name, [one.name for one in self.found])
        found = self._add(
            Found(named, MAIN, msmtp_file.form_of(settings, secret, msmtp_file.canonical([sender] if sender else [])))
        )
        if account.name != "default" and not sender:
            told = f"the account is only for those who ask for it by its name (msmtp -a {account.name})"
            found.refused.append(Problem("senders", told, "give it a from, or make it the default"))
        if set(sender) & set("*?"):
            told = "are given by a pattern, " + sender
            found.refused.append(Problem("senders", told, "name the addresses or domains"))
        self._judge(found, settings, secret, (GROUP,), by_hand.SYSTEM_NETRC)
        self._options(found, settings)

    def _judge(
        self, found: Found, settings: Settings, secret: str | None, readers: tuple[str, ...], netrc: str
    ) -> None:
        """What is wrong with an account, and what of it a service cannot say."""
        found.secrets += [secret] if secret else []
        lost = [key for key in UNKNOWN if settings.get(key)]
        found.lost += [Problem(key, "has no option in a service, and is not kept", "is it needed?") for key in lost]
        if settings.get("tls_fingerprint") and found.form["validate_certs"]:
            found.form["validate_certs"] = None  # pinned
        if "eval" in settings:
            found.tell("not-understood", found.path, detail=f"{found.path} has an eval for {found.name}: {_EVAL}")
            found.refused.append(Problem("eval", _EVAL, "write into the file what it gives"))
        if settings.get("protocol", "smtp") != "smtp":
            found.refused.append(Problem("protocol", "is LMTP", "set it up by hand"))
        if found.form["auth_type"] != "none":
            self._judge_login(found, settings, secret, readers, netrc)

    def _judge_login(
        self, found: Found, settings: Settings, secret: str | None, readers: tuple[str, ...], netrc: str
    ) -> None:
        found.exposed = settings["tls"] == "off" and settings["auth"] not in _BY_TLS_ONLY
        if found.form["auth_type"] == "oauth":
            found.tell("oauth-by-hand", found.path, "auth_type")
            told = "the grant of an access token cannot be taken over"
            found.refused.append(Problem("auth_type", told, "see auth_type: oauth and smtp_oauth_token"))
        command = settings.get("passwordeval", "")
        if secret is None and command:
            told = "comes from a command, which an audit does not run"
            found.lost.append(Problem("password", told, "put the password itself into the vault"))
        elif (secret is None or not settings.get("user")) and "eval" not in settings:
            found.tell("credentials-missing", found.path, "password", host=settings.get("host", ""))
        elsewhere = by_hand.secret_file(command) if command else "" if settings.get("password") else netrc
        for path in (found.path if settings.get("password") else "", elsewhere if secret else ""):
            if path:
                found.tell_of_secret(path, self.host.read(path), readers)

    def _options(self, found: Found, settings: Settings) -> None:
        """The backend's options by which the account stays what it is."""
        options = {key: settings[key] for key in KEPT if settings.get(key)}
        options["syslog"] = {"on": "LOG_USER"}.get(settings.get("syslog", ""), settings.get("syslog", "") or "off")
        auth = settings["auth"]
        if found.form.get("auth_type") == "oauth":
            options["auth"] = "" if auth == "xoauth2" else auth
        elif found.form.get("auth_type") == "password" and auth != ("on" if settings["tls"] == "on" else "plain"):
            options["auth"] = auth
        sender = settings.get("from", "")
        if sender and not found.form.get("from_address") and not found.form.get("senders"):
            options["default_from"] = sender
        now = self.host.read(MAIN)
        if now is not None and not wide(now, (GROUP,)):
            options.update(owner=now.owner, group=now.group, mode=f"{now.mode:04o}")
        known = self.software.options
        found.options = {key: value for key, value in options.items() if value != known[key].default}

    # -- home directories --------------------------------------------------------------------------------------------

    def _user_files(self) -> Iterator[tuple[str, str]]:
        """User and path of each file of a user's own: by passwd(5), and below /home for users from elsewhere."""
        homes: dict[str, str] = {}
        for line in text_of(self.host, "/etc/passwd").split("\n"):
            fields = line.split(":")
            if len(fields) > 5 and fields[5].startswith("/"):
                homes.setdefault(fields[5].rstrip("/"), fields[0])
        for name in self.host.names_in("/home"):
            homes.setdefault(f"/home/{name}", name)
        for home, user in homes.items():
            path = user_file(self.host, home)
            if path:
                yield user, path

    def _in_home(self, user: str, path: str) -> None:
        now = self.host.read(path)
        if now is None:
            return
        text = now.content.decode("utf-8", "surrogateescape")
        self.secrets += msmtp_file.secrets(text)
        home = next(path[: -len(file) - 1] for file in USER_FILES if path.endswith("/" + file))
        seen: list[Settings] = []
        for account in msmtp_file.accounts(text):
            settings = account.settings()
            if settings in seen or not settings.get("host"):
                continue
            seen.append(settings)
            secret = by_hand.password(self.host, account, f"{home}/{NETRC}", now.owner)
            named = service_name(f"{user}-{account.name}", [one.name for one in self.found])
            sender = settings.get("from", "") if account.name != "default" else ""
            form = msmtp_file.form_of(settings, secret, msmtp_file.canonical([sender] if sender else []))
            found = self._add(Found(named, path, form, user=user))
            self._judge(found, settings, secret, (), f"{home}/{NETRC}")
            told = f"it is {user}'s own, in {path}"
            found.refused.append(Problem("path", told, "let that user's mail go by the host's service"))

    def _add(self, found: Found) -> Found:
        self.found.append(found)
        return found
