# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Postfix, 3.4 and later.

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
from .postfix_files import OURS, inline_secrets, main_cf_values, map_path, seconds, split_nexthop, transports
from .postfix_maps import look_up, routes, source_of

if TYPE_CHECKING:
    from ..oauth.token_files import Consumer
    from ..port import Host

MAIN = "/etc/postfix/main.cf"
MASTER = "/etc/postfix/master.cf"
ACCOUNT = "fleetmail-msmtp"  # the user that a pipe to msmtp runs as, see postfix_pipe
HELD = "retry:4.3.2 fleetmail.smtp holds mail"  # see error(8): it stays in the queue, whoever asks for deliveries
CA_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
)
MANDATORY = ("encrypt", "dane-only", "fingerprint", "verify", "secure")
CHECKED = ("verify", "secure")
# what decides how mail leaves and no field of the form is read from: told by the parameter's own name, unless the field
# that it goes with differs too
UNTOLD = {
    "default_transport": "enabled", "smtp_tls_policy_maps": "security", "smtp_tls_secure_cert_match": "security",
    "smtp_tls_servername": "host", "smtp_sasl_security_options": "auth_type",
    "smtp_sasl_tls_security_options": "auth_type", "smtp_sasl_tls_verified_security_options": "auth_type",
    "smtp_sasl_mechanism_filter": "auth_type", "smtp_destination_concurrency_limit": "auth_type",
    "smtp_helo_timeout": "timeout", "mydestination": "",
    "smtp_host_lookup": "host", "smtp_generic_maps": "from_address",
    "inet_interfaces": "",
}  # fmt: skip
# what else may lead mail astray: told as a warning, for it may be meant so
ASTRAY = {
    "transport_maps": "sends some mail another way", "sender_dependent_relayhost_maps": "sends some mail another way",
    "sender_dependent_default_transport_maps": "sends some mail another way",
    "content_filter": "takes the mail before the relay does", "canonical_maps": "rewrites addresses",
    "masquerade_domains": "rewrites addresses",
}  # fmt: skip
RELAY = (
    "relayhost", "smtp_tls_security_level", "smtp_tls_wrappermode", "smtp_tls_CAfile", "smtp_tls_CApath",
    "smtp_sasl_auth_enable", "smtp_sasl_password_maps", "smtp_connect_timeout", *UNTOLD,
)  # fmt: skip
ASKED = (
    *RELAY, "defer_transports", "sender_canonical_maps", "sender_canonical_classes",
    "default_database_type", "queue_directory", "maillog_file", "mail_version", "compatibility_level", *ASTRAY,
)  # fmt: skip
DEFAULTS = {
    "default_transport": "smtp", "smtp_connect_timeout": "30s", "default_database_type": "hash",
    "queue_directory": "/var/spool/postfix", "sender_canonical_classes": "envelope_sender, header_sender",
}  # fmt: skip


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
        auth_types=("none", "password", "oauth"),
        several=True,
        rules=(
            Rule("username", "has a ':', which ends the name in Postfix' password map", "use a name without", ":"),
            Rule("username", "begins or ends with white space, which is stripped", "remove it", r"\A[ \t]|[ \t]\Z"),
            Rule(
                "password",
                "ends in white space, which Postfix strips",
                "change the password, or use the msmtp backend",
                r"[ \t]\Z",
            ),
            Rule("ca_file", "has white space or one of , { } $ in it", "main.cf needs another path", r"[\s,{}$]"),
            Rule("from_address", "has one of $ { } in it", "Postfix would read them otherwise in main.cf", r"[${}]"),
            Rule("senders", "has one of $ { } = # in it", "Postfix would read them otherwise in its maps", r"[${}=#]"),
        ),
    )  # fmt: skip
    by_hand: ClassVar[Mapping[str, tuple[str, ...]]] = {"start": ("postfix", "start"), "stop": ("postfix", "stop")}
    options: ClassVar[Mapping[str, Option]] = {
        "null_client": Option(
            bool, False, "true: this host takes no mail from others and delivers none to itself: all of it is relayed"
        ),
        "oauth": Option(
            *(str, "auto", "what hands a token over: sasl-xoauth2 or pipe (to msmtp); auto: the first if it is there"),
            "auto|pipe|sasl-xoauth2",
        ),
        "oauth_mechanism": Option(str, "xoauth2", "xoauth2, or oauthbearer (with a pipe only)", "xoauth2|oauthbearer"),
        "oauth_connections": Option(int, 3, "with oauth: connections to the relay at once, 1 to 999", r"[1-9]\d{0,2}"),
    }
    uses_account = False  # does what was drafted last need ACCOUNT?

    # -- what holds ------------------------------------------------------------------------------------------------

    def read(self, name: str) -> Observed:
        main, master = text_of(self.host, MAIN), text_of(self.host, MASTER)
        if not main:
            return Observed({}, running=False if self.host.live else None)
        values = self.values(main)
        managed = marks.get(main, name) is not None or marks.get(master, name) is not None
        observed = Observed({}, managed, self.running(values["queue_directory"]))
        agents = {agent.name: agent for agent in transports(master)}
        observed.detail.update(values=values, main=main, master=master, agents=agents)
        observed.secrets += [*inline_secrets(main), *inline_secrets(master)]
        self._read_form(name, observed)
        self._remark(name, observed)
        return observed

    def values(self, main: str) -> dict[str, str]:
        """The effective parameters: from Postfix itself where it is there (postconf(1)), else from main.cf."""
        values = dict.fromkeys(ASKED, "")
        if not (self.host.live and self.host.which("postconf")):
            return {**values, **DEFAULTS, **main_cf_values(main)}
        said = self.host.run(["postconf", "-x", *ASKED])
        if said.code:
            file = MASTER if MASTER in said.words else MAIN
            raise StepFailed("read", f"Postfix cannot read it: {said.words}", "mend it", file)
        lines = (line.partition(" =") for line in said.out.split("\n"))
        values.update({key: value.strip() for key, equals, value in lines if equals})
        return values

    def running(self, queue: str) -> bool | None:
        """Does Postfix' master run? None in a tree, where nothing does."""
        if not self.host.live:
            return None
        pid = text_of(self.host, queue + "/pid/master.pid").strip()
        return bool(pid) and text_of(self.host, f"/proc/{pid}/comm").strip() == "master"

    def _read_form(self, name: str, observed: Observed) -> None:
        values, agents = observed.detail["values"], observed.detail["agents"]
        senders, own, hop, held = routes(self.host, values["sender_dependent_default_transport_maps"], name)
        mine = [agent.name for agent in transports(marks.get(observed.detail["master"], name) or "")]
        apart = bool(own or (mine and marks.get(observed.detail["main"], name) is None))
        held = held if own else values["default_transport"].startswith("retry:")
        agent = own or (mine[0] if apart else _taking_all(values, held, mine))
        settings = agents[agent].settings if agent in agents else {}
        found = Effective({**values, **settings}, agent, hop if apart else values["relayhost"])
        if observed.detail["master"] and agent not in agents:
            observed.faults.append((f"delivery agent {agent} in {MASTER}", "missing", "there"))
        observed.managed = observed.managed or bool(own)
        observed.detail["found"] = found
        observed.form = {**self._form(found, observed), "senders": senders}
        observed.form["from_address"] = "" if apart else from_address(values)
        observed.form["enabled"] = not held and agent not in re.split(r"[\s,]+", values["defer_transports"])

    def _form(self, found: Effective, observed: Observed) -> dict[str, Any]:
        settings, agent = found.settings, observed.detail["agents"].get(found.agent)
        if agent is not None and agent.command.startswith("pipe ") and agent.name.startswith(OURS):
            from .postfix_pipe import read

            return read(self.host, agent, observed)
        host, port = split_nexthop(found.hop) if found.hop else ("", 25)
        security = _security(settings)
        form = {
            "host": host,
            "port": port,
            "security": security,
            "validate_certs": security == "none" or settings["smtp_tls_security_level"] in CHECKED,
            "ca_file": self.trusted(settings),
            "timeout": seconds(settings["smtp_connect_timeout"]),
        }
        return {**form, **self._credentials(found, observed)}

    def trusted(self, settings: Mapping[str, str]) -> str | None:
        """What is trusted: empty for the system's own store; None for nothing at all."""
        file, directory = settings["smtp_tls_CAfile"], settings["smtp_tls_CApath"]
        systems = file in ("", system_bundle(self.host))
        if directory in ("", "/etc/ssl/certs") and systems:
            return "" if file or directory else None
        return f"{file} {directory}".strip()

    def _credentials(self, found: Effective, observed: Observed) -> dict[str, Any]:
        form: dict[str, Any] = {"auth_type": "none", "username": "", "password": None}
        if found.settings["smtp_sasl_auth_enable"] != "yes":
            return form
        form["auth_type"] = "password"
        maps = found.settings["smtp_sasl_password_maps"]
        path = map_path(maps)
        source = source_of(self.host, path) if path else {}
        # another next hop by hand is told as such: the credentials that are there stay what they are
        keys = [key for key in (found.hop, split_nexthop(found.hop)[0].rpartition(" ")[2], *source) if key]
        entries = look_up(self.host, maps, keys)
        entry = next((entries[key] for key in keys if key in entries), "")
        if path and (not source or entries != source):
            state = "without its source" if not source else "stale" if entries else "not compiled"
            observed.faults.append((f"password map {path}", state, "compiled from its source"))
        if ":" in entry:
            form["username"], password = entry.split(":", 1)
            if "xoauth2" in found.settings["smtp_sasl_mechanism_filter"].lower() and password.startswith("/"):
                form["auth_type"] = "oauth"  # and this is where the plugin finds the token
                return form
            observed.secrets.append(password)
            form["password"] = Secret(password)
        return form

    def _remark(self, name: str, observed: Observed) -> None:
        """What leads mail another way than our block says."""
        values, found = observed.detail["values"], observed.detail["found"]
        block = main_cf_values(marks.get(observed.detail["main"], name) or "")
        for key in UNTOLD:
            if key in block and found.settings[key] != block[key]:
                observed.faults.append((key, found.settings[key], block[key]))
        agent = observed.detail["agents"].get("smtp") if found.agent == "smtp" else None
        for key, value in agent.settings.items() if agent else ():
            if key in RELAY and value != block.get(key):
                way_out = "remove that -o: it wins over main.cf"
                observed.overrides.append(Problem(MASTER, f"the smtp agent sets {key} = {value}", way_out))
                observed.warnings.append(str(observed.overrides[-1]))
        if found.agent != "smtp" and found.agent in re.split(r"[\s,]+", values["defer_transports"]):
            told = f"defer_transports = {values['defer_transports']} holds this service's mail"
            observed.overrides.append(Problem(MAIN, told, f"take {found.agent} out of it"))
        for key, does in ASTRAY.items():
            if values[key] and not map_path(values[key]):
                observed.warnings.append(f"{key} = {values[key]} {does}")

    # -- what is wanted ----------------------------------------------------------------------------------------------

    def wanted_form(self, service: Service) -> dict[str, Any]:
        form = super().wanted_form(service)
        if "senders" in form:
            form["senders"] = tuple(sorted(sender.lstrip("@") for sender in service.senders))
        if form.get("ca_file") == system_bundle(self.host):
            form["ca_file"] = ""
        return form

    def own_problems(self, service: Service) -> Iterator[Problem]:
        from .postfix_problems import problems

        yield from problems(self.host, service)
        if service.auth_type == "oauth":
            from . import postfix_oauth

            yield from postfix_oauth.problems(self, service)

    def not_installed(self, service: Service) -> Iterator[Problem]:
        yield from super().not_installed(service)
        if service.auth_type == "oauth":
            from . import postfix_oauth

            yield from postfix_oauth.not_installed(self)

    def recognize(self, service: Service, observed: Observed) -> None:
        from .postfix_by_hand import read

        read(self, service, observed)

    def consumer(self, service: Service) -> Consumer:
        from .postfix_oauth import consumer

        return consumer(self, service)

    def bearer_mechanisms(self) -> tuple[str, ...]:
        return (str(self.option("oauth_mechanism")).upper(),)

    def longest_bearer(self) -> int:
        from .postfix_oauth import longest_bearer

        return longest_bearer(self)

    def desired(self, service: Service | None, name: str, observed: Observed) -> list[FileState]:
        if not observed.detail:  # Postfix is not there: what would be written on a fresh host
            observed = self._fresh(observed)
        from .postfix_draft import Draft

        draft = Draft(self, service, name, observed)
        self.uses_account = draft.pipe is not None
        return draft.files()

    def _fresh(self, observed: Observed) -> Observed:
        values = {**dict.fromkeys(ASKED, ""), **DEFAULTS}
        master = text_of(self.host, MASTER)
        agents = {agent.name: agent for agent in transports(master)}
        found = Effective(values, "smtp", "")
        detail = {"values": values, "main": "", "master": master, "agents": agents, "found": found}
        return Observed({}, running=observed.running, detail=detail)

    # -- making it so: see postfix_running ---------------------------------------------------------------------------

    def prepare(self) -> None:
        if self.uses_account:
            from .postfix_pipe import add_account

            add_account(self)

    def withdraw(self) -> None:
        if self.host.has_account(owner=ACCOUNT):
            from .postfix_pipe import drop_account

            drop_account(self)

    def check(self, staged: Mapping[str, str]) -> list[str]:
        from . import postfix_running

        return postfix_running.check(self, staged)

    def activate(self, before: Observed, service: Service | None) -> None:
        from . import postfix_running

        postfix_running.activate(self, before, service)

    def restore(self, was_running: bool | None) -> None:
        # stop and start, not reload: after a fatal setting a reload leaves deliveries throttled for about a minute
        self.service("stop", "postfix")
        if was_running:
            self.act_service("roll-back", "start", "postfix")

    def settle(self, before: Observed, service: Service | None) -> None:
        if before.detail.get("guarded"):
            self.act("settle", ["postfix", "reload"])
        if service is not None and service.enabled and before.form.get("enabled") is False:
            self.act("settle", ["postqueue", "-f"])

    def complaints(self, log: str) -> str:
        from . import postfix_running

        return postfix_running.complaints(log)

    def submit(self, message: bytes, sender: str, recipients: Sequence[str], timeout: float) -> Submission:
        from . import postfix_running

        return postfix_running.submit(self, message, sender, recipients, timeout)


def system_bundle(host: Host) -> str:
    """The file with the CA certificates that the system trusts."""
    return next((path for path in CA_BUNDLES if host.exists(path)), CA_BUNDLES[0])


def _taking_all(values: Mapping[str, str], held: bool, mine: Sequence[str]) -> str:
    """The agent that delivers mail that no service by senders takes: the client, or a pipe of ours."""
    named = values["default_transport"].partition(":")[0]
    return mine[0] if held and mine else named if named.startswith(OURS) else "smtp"


def _security(settings: Mapping[str, str]) -> str:
    level = settings["smtp_tls_security_level"]
    if level in MANDATORY:
        return "tls" if settings["smtp_tls_wrappermode"] == "yes" else "starttls"
    return "none" if level in ("", "none") else "opportunistic"


def from_address(settings: Mapping[str, str]) -> str:
    """The one address that all senders are rewritten to, empty when they are not."""
    pattern = r"(?:^|[\s,])(?:static:|regexp:\{ \{ /@/ )(\S+?)(?:$|[\s,])"
    found = re.search(pattern, settings.get("sender_canonical_maps", ""))
    classes = settings.get("sender_canonical_classes", DEFAULTS["sender_canonical_classes"])
    both = {"envelope_sender", "header_sender"} <= set(re.split(r"[\s,]+", classes))
    return found.group(1) if found and both else ""
