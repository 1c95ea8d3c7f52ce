# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Postfix, 3.0 and later.

The service that takes all mail is a block in main.cf. A service that takes some senders' mail is a delivery agent of
its own in master.cf, chosen by sender_dependent_default_transport_maps. Password maps and agents are written beside the
ones in use (slots ``a`` and ``b``): the rename of main.cf switches to them, all at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from .. import marks
from ..errors import Problem, StepFailed
from ..redaction import Secret
from ..service import Service
from .base import Backend, Capabilities, FileState, Observed, Option, Rule, Submission, text_of
from .postfix_files import SHARED, main_cf_values, seconds, split_nexthop, transports

if TYPE_CHECKING:
    from ..port import Host

MAIN = "/etc/postfix/main.cf"
MASTER = "/etc/postfix/master.cf"
FILES = "/etc/postfix/fleetmail-"
CA_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
)
MANDATORY = ("encrypt", "dane-only", "fingerprint", "verify", "secure")
CHECKED = ("verify", "secure")
# what decides how mail leaves, in the order in which it is written
RELAY = (
    "relayhost", "default_transport", "smtp_tls_security_level", "smtp_tls_wrappermode", "smtp_tls_policy_maps",
    "smtp_tls_secure_cert_match", "smtp_tls_CAfile", "smtp_tls_CApath", "smtp_sasl_auth_enable",
    "smtp_sasl_password_maps", "smtp_sasl_security_options", "smtp_sasl_tls_security_options",
    "smtp_sasl_mechanism_filter", "smtp_connect_timeout", "smtp_helo_timeout",
)  # fmt: skip
ASKED = (
    *RELAY, "defer_transports", "sender_canonical_maps", "sender_canonical_classes",
    "sender_dependent_default_transport_maps", "sender_dependent_relayhost_maps", "transport_maps",
    "default_database_type", "queue_directory", "inet_interfaces", "mydestination", "maillog_file",
)  # fmt: skip
DEFAULTS = {
    "default_transport": "smtp", "smtp_connect_timeout": "30s", "default_database_type": "hash",
    "queue_directory": "/var/spool/postfix",
}  # fmt: skip
_FATAL = re.compile(r"postfix[^\[\n]*\[\d+\]: ((?:fatal|panic): .*|warning: .*throttling.*)")
_STATUS = re.compile(r": ([0-9A-Za-z]+): to=<([^>]*)>.* status=(\w+) \((.*)\)$", re.M)


class Effective(NamedTuple):
    """How one service's mail leaves: the settings of its delivery agent and its next hop."""

    settings: Mapping[str, str]
    agent: str
    hop: str


class Postfix(Backend):
    """See the module's documentation; every method as ``Backend`` says."""

    name = "postfix"
    packages = "postfix and libsasl2-modules (Debian), postfix and cyrus-sasl-plain (RHEL)"
    program = "postfix"
    capabilities = Capabilities(
        fields=(
            "enabled", "host", "port", "security", "auth_type", "username", "password", "ca_file", "validate_certs",
            "from_address", "senders", "timeout",
        ),
        several=True,
        rules=(
            Rule("username", "has a ':', which ends the name in Postfix' password map", "use a name without", ":"),
            Rule("username", "begins or ends with white space, which Postfix strips", "remove it", r"\A\s|\s\Z"),
            Rule(
                "password",
                "ends in white space, which Postfix strips",
                "change the password, or use the msmtp backend",
                r"\s\Z",
            ),
            Rule("ca_file", "has a space in it, which main.cf cannot carry safely", "another path", r"[\s,{}$]"),
        ),
    )  # fmt: skip
    options: ClassVar[Mapping[str, Option]] = {
        "null_client": Option(
            bool, False, "true: this host takes no mail from others and delivers none to itself: all of it is relayed"
        ),
    }

    # -- what holds ------------------------------------------------------------------------------------------------

    def read(self, name: str) -> Observed:
        main, master = text_of(self.host, MAIN), text_of(self.host, MASTER)
        if not main and not master:
            return Observed({}, running=False if self.host.live else None)
        values = self._values(main)
        managed = marks.get(main, name) is not None or marks.get(master, name) is not None
        agents = {agent.name: agent for agent in transports(master)}
        observed = Observed({}, managed, self._running(values["queue_directory"]))
        observed.detail.update(values=values, main=main, master=master, agents=agents)
        self._read_form(name, observed)
        self._remark(observed)
        return observed

    def _values(self, main: str) -> dict[str, str]:
        """The effective parameters: from Postfix itself where it is there (postconf(1)), else from main.cf."""
        if self.host.live and self.host.which("postconf"):
            said = self.host.run(["postconf", "-x", *ASKED])
            if said.code:
                raise StepFailed("read", f"postconf cannot read main.cf: {said.words}", "mend it", MAIN)
            lines = (line.partition(" =") for line in said.out.splitlines())
            return {key: value.strip() for key, equals, value in lines if equals}
        return {**dict.fromkeys(ASKED, ""), **DEFAULTS, **main_cf_values(main)}

    def _running(self, queue: str) -> bool | None:
        if not self.host.live:
            return None
        pid = text_of(self.host, queue + "/pid/master.pid").strip()
        return bool(pid) and text_of(self.host, f"/proc/{pid}/comm").strip() == "master"

    def _read_form(self, name: str, observed: Observed) -> None:
        values, master = observed.detail["values"], observed.detail["master"]
        own = next(iter(transports(marks.get(master, name) or "")), None)
        senders: tuple[str, ...] = ()
        if own is not None:
            senders, hop = self._routes(values, name, own.name)
            found = Effective({**values, **own.settings}, own.name, hop)
        else:
            agent = observed.detail["agents"].get("smtp")
            found = Effective({**values, **(agent.settings if agent else {})}, "smtp", values["relayhost"])
            self._tell_overrides(agent.settings if agent else {}, observed)
        observed.detail["found"] = found
        observed.form = {**self._form(found, observed), "senders": senders}

    def _tell_overrides(self, settings: Mapping[str, str], observed: Observed) -> None:
        for key in sorted(set(settings) & set(RELAY)):
            told = f"the smtp agent sets {key} = {settings[key]}"
            observed.overrides.append(Problem(MASTER, told, "remove that -o line: it wins over main.cf"))

    def _form(self, found: Effective, observed: Observed) -> dict[str, Any]:
        settings = found.settings
        host, port = split_nexthop(found.hop) if found.hop else ("", 25)
        security = _security(settings)
        form = {
            "enabled": found.agent not in re.split(r"[\s,]+", settings["defer_transports"]),
            "host": host,
            "port": port,
            "security": security,
            "validate_certs": security == "none" or settings["smtp_tls_security_level"] in CHECKED,
            "ca_file": self._ca_file(settings),
            "timeout": seconds(settings["smtp_connect_timeout"]),
            "from_address": _from_address(settings) if found.agent == "smtp" else "",
        }
        return {**form, **self._credentials(found, observed)}

    def _ca_file(self, settings: Mapping[str, str]) -> str | None:
        """What is trusted: empty for the system's own store; None for nothing at all."""
        file, directory = settings["smtp_tls_CAfile"], settings["smtp_tls_CApath"]
        if directory in ("", "/etc/ssl/certs"):
            return "" if file == system_bundle(self.host) or (directory and not file) else file or None
        return f"{file} {directory}".strip()

    def _credentials(self, found: Effective, observed: Observed) -> dict[str, Any]:
        form: dict[str, Any] = {"auth_type": "none", "username": "", "password": None}
        if found.settings["smtp_sasl_auth_enable"] != "yes":
            return form
        form["auth_type"] = "password"
        maps = found.settings["smtp_sasl_password_maps"]
        # another next hop by hand is told as such: the credentials that are there stay what they are
        entry = self._look_up(maps, found.hop) or self._look_up(maps, self._first_key(map_path(maps)))
        path = map_path(maps)
        if path and entry and entry != self._source_entry(path, found.hop):
            observed.faults.append((f"password map {path}", "stale", "compiled from its source"))
        if ":" in entry:
            form["username"], password = entry.split(":", 1)
            observed.secrets.append(password)
            form["password"] = Secret(password)
        return form

    def _first_key(self, path: str) -> str:
        words = text_of(self.host, path).split(None, 1) if path else []
        return words[0] if words else ""

    def _look_up(self, maps: str, key: str) -> str:
        """What Postfix finds for a key (postmap(1) -q); from the source text where Postfix is not there."""
        if not (maps and key):
            return ""
        if self.host.live and self.host.which("postmap"):
            for one in re.split(r"[\s,]+", maps):
                said = self.host.run(["postmap", "-q", key, one])
                if not said.code:
                    return said.out.rstrip("\n")
            return ""
        return self._source_entry(maps.split(":", 1)[-1], key)

    def _source_entry(self, path: str, key: str) -> str:
        rows = (line.split(None, 1) for line in text_of(self.host, path).split("\n") if line and line[0] != "#")
        return {row[0]: row[1] for row in rows if len(row) == 2}.get(key, "")

    def _routes(self, values: Mapping[str, str], name: str, agent: str) -> tuple[tuple[str, ...], str]:
        """The senders whose mail Postfix gives to the service's agent, and the next hop that it gives them."""
        maps = values["sender_dependent_default_transport_maps"]
        block = marks.get(text_of(self.host, map_path(maps)), name) or ""
        keys = [line.split()[0] for line in block.splitlines()]
        found = {key: self._look_up(maps, key) for key in keys}
        hops = {key: value[len(agent) + 1 :] for key, value in found.items() if value.startswith(agent + ":")}
        senders = tuple(key[1:] if key.startswith("@") else key for key in keys if key in hops)
        return senders, hops[keys[0]] if len(set(hops.values())) == 1 else ""

    @staticmethod
    def _remark(observed: Observed) -> None:
        values = observed.detail["values"]
        for name in ("transport_maps", "sender_dependent_relayhost_maps"):
            if values[name]:
                told = f"{name} = {values[name]} sends some mail another way"
                observed.warnings.append(told)

    # -- what is wanted ----------------------------------------------------------------------------------------------

    def own_problems(self, service: Service) -> Iterator[Problem]:
        main, master = text_of(self.host, MAIN), text_of(self.host, MASTER)
        others = [name for name in marks.names(main) if name not in (SHARED, service.name)]
        if not service.senders and others:
            told = f"'{others[0]}' already takes all mail of this Postfix"
            yield Problem("senders", told, "give this service senders, or make the other one absent first")
        routes = main_cf_values(marks.outside(main)).get("sender_dependent_default_transport_maps")
        if service.senders and routes:
            told = f"main.cf has sender_dependent_default_transport_maps = {routes} already"
            yield Problem("senders", told, "move its entries into services, then remove that line")
        if service.senders and service.from_address:
            told = "is not needed with senders: their mail keeps their address"
            yield Problem("from_address", told, "leave it out")
        if service.senders and marks.get(main, service.name) is not None:
            yield Problem("senders", "this service takes all mail of the host", "make it absent first")
        if not service.senders and marks.get(master, service.name) is not None:
            yield Problem("senders", "this service takes some senders' mail only", "make it absent first")
        by_domain = any("@" not in sender for sender in service.senders)
        if by_domain and "sender_canonical_maps" in main_cf_values(marks.get(main, SHARED) or ""):
            told = "a domain cannot be told apart from hosts whose from_address is rewritten"
            yield Problem("senders", told, "name the addresses one by one")

    def desired(self, service: Service | None, name: str, observed: Observed) -> list[FileState]:
        if not observed.detail:  # Postfix is not there: what would be written on a fresh host
            observed = self._fresh(observed)
        from .postfix_draft import Draft

        return Draft(self.host, self.given, service, name, observed).files()

    def _fresh(self, observed: Observed) -> Observed:
        values = {**dict.fromkeys(ASKED, ""), **DEFAULTS}
        detail = {"values": values, "main": "", "master": "", "agents": {}, "found": Effective(values, "smtp", "")}
        return Observed({}, running=observed.running, detail=detail)

    # -- making it so ------------------------------------------------------------------------------------------------

    def check(self, staged: Mapping[str, str]) -> list[str]:
        """Let postconf(1) and ``postfix check`` judge the candidates in a directory of their own."""
        if self.host.which("postfix") is None:
            return ["Postfix is not in the tree: its files were judged by this collection's rules alone"]
        from ..scratch import Scratch

        with Scratch(self.host, "postfix") as place:
            for path in (MAIN, MASTER):
                place.copy(staged.get(path, path), path.rsplit("/", 1)[1])
            for argv in (["postconf", "-c", place.path, "-n"], ["postconf", "-c", place.path, "-M"]):
                self._judge(argv)
            if self.host.live:
                self._judge(["postfix", "-c", place.path, "check"])
        return []

    def _judge(self, argv: Sequence[str]) -> None:
        said = self.host.run(argv)
        if said.code:
            raise StepFailed("check", "{} says: {}".format(" ".join((argv[0], argv[-1])), said.words or said.code))

    def activate(self, before: Observed, service: Service | None) -> None:
        after = self._values(text_of(self.host, MAIN))
        if not self._running(after["queue_directory"]):
            if service is not None:
                self.act_service("activate", "start", "postfix")
        elif after["inet_interfaces"] != before.detail["values"]["inet_interfaces"]:
            self.act_service("activate", "restart", "postfix")  # a reload does not rebind (postconf(5))
        else:
            self.act("activate", ["postfix", "reload"])

    def restore(self, was_running: bool | None) -> None:
        # stop and start, not reload: after a fatal setting a reload leaves deliveries throttled for about a minute
        self.host.service("stop", "postfix")
        if was_running:
            self.act_service("roll-back", "start", "postfix")

    def settle(self, before: Observed, service: Service | None) -> None:
        if before.detail.get("guarded"):
            self.act("settle", ["postfix", "reload"])
        if service is not None and service.enabled and before.form.get("enabled") is False:
            self.act("settle", ["postqueue", "-f"])

    def complaints(self, log: str) -> str:
        found = _FATAL.search(log)
        return found.group(1) if found else ""

    def submit(self, message: bytes, sender: str, recipients: Sequence[str], timeout: float) -> Submission:
        """Hand it to sendmail(1) and follow it through the mail log by its Message-ID and queue id."""
        import time

        values = self._values("")
        mark = self.host.log_mark([values["maillog_file"]] if values["maillog_file"] else [])
        given = self.host.run(["sendmail", "-i", "-f", sender, "--", *recipients], message)
        if given.code:
            return Submission(False, given.words or "sendmail failed")
        header = re.search(rb"^Message-ID:\s*(<[^>]+>)", message, re.M | re.I)
        ident = header.group(1).decode() if header else ""
        end, ended = time.monotonic() + timeout, Submission(False, "the mail log never named it")
        while time.monotonic() < end:
            ended, final = _followed(self.host.log(mark), ident, recipients)
            if final:
                break
            time.sleep(0.2)
        return ended


def system_bundle(host: Host) -> str:
    """The file with the CA certificates that the system trusts."""
    return next((path for path in CA_BUNDLES if host.exists(path)), CA_BUNDLES[0])


def _security(settings: Mapping[str, str]) -> str:
    level = settings["smtp_tls_security_level"]
    if level in MANDATORY:
        return "tls" if settings["smtp_tls_wrappermode"] == "yes" else "starttls"
    return "none" if level in ("", "none") else "opportunistic"


def _from_address(settings: Mapping[str, str]) -> str:
    found = re.search(r"(?:^|[\s,])static:(\S+?)(?:$|,)", settings["sender_canonical_maps"])
    wanted = {"envelope_sender", "header_sender"}
    both = wanted <= set(re.split(r"[\s,]+", settings["sender_canonical_classes"]))
    return found.group(1) if found and both else ""


def map_path(map_name: str) -> str:
    """The file of a ``type:path`` of ours, the first of several; empty for anything else."""
    found = re.search(rf"\w+:({re.escape(FILES)}[^\s,]+)", map_name)
    return found.group(1) if found else ""


def _followed(log: str, ident: str, recipients: Sequence[str]) -> tuple[Submission, bool]:
    """How far the mail with that Message-ID is: what is known, and whether that is its end."""
    named = re.search(rf": ([0-9A-Za-z]+): message-id={re.escape(ident)}", log)
    if not named:
        return Submission(False, "the mail log never named it: is there one on this host?"), False
    queue_id = named.group(1)
    last = {to: (status, words) for found, to, status, words in _STATUS.findall(log) if found == queue_id}
    if not last:
        return Submission(False, "still in the queue", queue_id), False
    worst = next((one for one in last.values() if one[0] != "sent"), None)
    if worst is None:
        complete = len(last) >= len(set(recipients))
        return Submission(complete, next(iter(last.values()))[1], queue_id), complete
    return Submission(False, "{}: {}".format(*worst), queue_id), worst[0] == "bounced"
