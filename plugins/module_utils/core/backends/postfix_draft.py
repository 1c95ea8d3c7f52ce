# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The files of Postfix that a change of one service leads to."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional

from .. import marks
from ..host import Host
from ..service import Service
from .base import FileState, Observed, raw, text_of
from .postfix import FILES, MAIN, MASTER, Effective, map_path, system_bundle
from .postfix_files import SHARED, main_cf_values, nexthop, rewrite_main_cf, transport_entry

COMPILED = {"hash": ".db", "btree": ".db", "lmdb": ".lmdb", "cdb": ".cdb"}  # DATABASE_README
SHARED_AGENTS = ("smtp", "relay")  # what delivers the mail of the service that has no senders


class Map(NamedTuple):
    """A lookup table of ours: where it is and what it says."""

    path: str
    text: str


class Draft:
    """One change: ``files()`` gives what is to be written and, last, what is to be removed."""

    def __init__(
        self, host: Host, options: Mapping[str, Any], service: Optional[Service], name: str, observed: Observed
    ) -> None:
        self.host, self.options, self.service, self.name, self.observed = host, options, service, name, observed
        self.values: Dict[str, str] = observed.detail["values"]
        self.found: Effective = observed.detail["found"]
        self.main: str = observed.detail["main"]
        self.master: str = observed.detail["master"]
        self.kind = self.values["default_database_type"]
        if self.kind not in COMPILED or not (host.live or host.which("postmap")):
            self.kind = "texthash"  # needs nothing compiled: in a tree there may be nothing that could
        self.hop = nexthop(service.host, service.port) if service and service.host else ""
        self.own_agent = bool(service.senders) if service else marks.get(self.master, name) is not None

    def files(self) -> List[FileState]:
        """In the order of writing: maps, then master.cf, then main.cf, whose rename is the switch; then removals."""
        password = self._password_map()
        slot = (password or self._any_path()).rsplit(".", 1)[-1]
        agent = "fleetmail-{}.{}".format(self.name, slot) if self.own_agent else "smtp"
        states = [] if password is None else [self._map_state(password, self._password_text(), secret=True)]
        routes = self._routes(agent)
        states += [self._map_state(routes.path, routes.text)] if routes else []
        states += self._master_state(agent, password)
        states.append(self._main_state(agent, password, routes))
        kept = {password, routes.path if routes else None}
        return states + [state for state in self._leftovers() if state.path not in kept]

    # -- maps, each in the slot that is not in use ---------------------------------------------------------------------

    def _map_state(self, path: str, text: str, secret: bool = False) -> FileState:
        mode = 0o600 if secret else 0o644
        if self.kind == "texthash":
            return FileState(path, raw(text), mode, "root", "root", secret)
        build = ("postmap", self.kind + ":")
        return FileState(path, raw(text), mode, "root", "root", secret, build=build, built=COMPILED[self.kind])

    def _password_text(self) -> str:
        assert self.service is not None and self.service.password is not None
        return "{} {}:{}\n".format(self.hop, self.service.username, self.service.password.reveal())

    def _password_map(self) -> Optional[str]:
        """The path of the service's password map: the one in use when it says the right thing, else the other."""
        service = self.service
        if service is None or service.auth_type != "password" or service.password is None:
            return None
        current = map_path(self.found.settings["smtp_sasl_password_maps"])
        right = ("host", "port", "auth_type", "username", "password")
        effective = all(self.observed.form.get(key) == getattr(service, key) for key in right)
        same_kind = self.found.settings["smtp_sasl_password_maps"].startswith(self.kind + ":")
        if current and same_kind and effective and text_of(self.host, current) == self._password_text():
            if not self.own_agent or self._agent_fits(current):
                return current
        return self._other(current)

    def _agent_fits(self, path: str) -> bool:
        """Does master.cf already hold the agent as it should be, with the slot of that path?"""
        agent = "fleetmail-{}.{}".format(self.name, path.rsplit(".", 1)[-1])
        fits = marks.get(self.master, self.name) == self._agent_entry(agent, path)
        return fits and self.observed.form.get("senders") == (self.service.senders if self.service else ())

    def _any_path(self) -> str:
        """The slot's path where there is no password: it still tells two generations of an agent apart."""
        current = FILES + self.found.agent[len("fleetmail-") :] if self.own_agent and self.found.agent != "smtp" else ""
        return current if current and self._fits_without_password(current) else self._other(current)

    def _fits_without_password(self, path: str) -> bool:
        agent = "fleetmail-{}.{}".format(self.name, path.rsplit(".", 1)[-1])
        return marks.get(self.master, self.name) == self._agent_entry(agent, None)

    def _other(self, current: str) -> str:
        return "{}{}.{}".format(FILES, self.name, "b" if current.endswith(".a") else "a")

    def _routes(self, agent: str) -> Optional[Map]:
        """Which sender's mail goes to which agent; None when no service is by senders."""
        current = map_path(self.values["sender_dependent_default_transport_maps"])
        old = text_of(self.host, current) if current else ""
        if self.service is not None and self.own_agent:
            keys = (sender if "@" in sender else "@" + sender for sender in self.service.senders)
            lines = "".join("{} {}:{}\n".format(key, agent, self.hop) for key in keys)
            new = marks.put(old, self.name, lines)
        else:
            new = marks.drop(old, self.name)
        if not marks.names(new):
            return None
        whole = not self.own_agent or self.observed.form.get("senders") == (self.service and self.service.senders)
        in_use = current and new == old and whole
        other = "{}{}.{}".format(FILES, SHARED, "b" if current.endswith(".a") else "a")
        return Map(current if in_use else other, new)

    def _leftovers(self) -> Iterator[FileState]:
        """Every map that nothing refers to any more."""
        for owner in (self.name, SHARED):
            for slot in "ab":
                path = "{}{}.{}".format(FILES, owner, slot)
                suffix = next((one for one in sorted(set(COMPILED.values())) if self.host.exists(path + one)), "")
                yield FileState(path, None, secret=True, built=suffix)

    # -- master.cf and main.cf -----------------------------------------------------------------------------------------

    def _master_state(self, agent: str, password: Optional[str]) -> List[FileState]:
        old = marks.get(self.master, self.name)
        if not self.own_agent and old is None:
            return []
        if self.service is None or not self.own_agent:
            # until Postfix has read main.cf again, mail may still be on its way to the agent
            return [FileState(MASTER, raw(marks.drop(self.master, self.name)), transition=raw(self.master))]
        entry = self._agent_entry(agent, password)
        both = entry if old is None or old == entry else old + entry
        new = marks.put(self.master, self.name, entry)
        transition = raw(marks.put(self.master, self.name, both)) if both != entry else None
        return [FileState(MASTER, raw(new), transition=transition)]

    def _agent_entry(self, agent: str, password: Optional[str]) -> str:
        chroot = self.observed.detail["agents"].get("smtp")
        return transport_entry(agent, chroot.chroot if chroot else "-", self._settings(password))

    def _main_state(self, agent: str, password: Optional[str], routes: Optional[Map]) -> FileState:
        text = rewrite_main_cf(self.main, self.name, self._own_parameters(password))
        shared = self._shared_parameters(agent, routes)
        final = rewrite_main_cf(text, SHARED, shared)
        guarded = None
        if self._loses_its_way(password):
            # a client started between the rename and the reload may have the old next hop and the new credentials:
            # what the relay then refuses stays in the queue
            guarded = raw(rewrite_main_cf(text, SHARED, {**shared, "soft_bounce": "yes"}))
            self.observed.detail["guarded"] = True
        return FileState(MAIN, raw(final), transition=guarded)

    def _loses_its_way(self, password: Optional[str]) -> bool:
        if not self.observed.running or self.own_agent or not self.found.hop:
            return False
        had_credentials = self.found.settings["smtp_sasl_auth_enable"] == "yes"
        return self.found.hop != self.hop or (had_credentials and password is None)

    def _own_parameters(self, password: Optional[str]) -> Dict[str, str]:
        """The service's block in main.cf; a service by senders has none."""
        if self.service is None or self.own_agent:
            return {}
        wanted = {"default_transport": "smtp"}
        if self.hop:
            wanted = {"relayhost": self.hop, **wanted, **self._settings(password)}
        if self.options.get("null_client"):
            wanted.update(mydestination="", inet_interfaces="loopback-only")
        return wanted

    def _settings(self, password: Optional[str]) -> Dict[str, str]:
        """How the service's mail leaves, in Postfix' words. Every one is set, so that nothing else decides it."""
        service = self.service
        assert service is not None
        verified = "secure" if service.validate_certs else "encrypt"
        settings = {
            "smtp_tls_security_level": "none" if service.security == "none" else verified,
            "smtp_tls_wrappermode": "yes" if service.security == "tls" else "no",
            "smtp_tls_policy_maps": "",
        }
        if service.security != "none":
            settings["smtp_tls_secure_cert_match"] = "nexthop"
            settings["smtp_tls_CAfile"] = service.ca_file or system_bundle(self.host)
            settings["smtp_tls_CApath"] = ""
        settings["smtp_sasl_auth_enable"] = "yes" if password else "no"
        settings["smtp_sasl_password_maps"] = "{}:{}".format(self.kind, password) if password else ""
        if password:
            settings["smtp_sasl_security_options"] = "noanonymous"  # the default refuses PLAIN and LOGIN
            settings["smtp_sasl_tls_security_options"] = "noanonymous"
            settings["smtp_sasl_mechanism_filter"] = "plain, login"  # an installed OAuth plugin would try first
        settings["smtp_connect_timeout"] = "{}s".format(service.timeout)
        settings["smtp_helo_timeout"] = "{}s".format(service.timeout)
        return settings

    def _shared_parameters(self, agent: str, routes: Optional[Map]) -> Dict[str, str]:
        """What one line of main.cf has to say for all services together."""
        before = main_cf_values(marks.get(self.main, SHARED) or "")
        wanted: Dict[str, str] = {}
        if routes:
            wanted["sender_dependent_default_transport_maps"] = "{}:{}".format(self.kind, routes.path)
        wanted.update(self._rewriting(before, routes))
        held = self._held(before.get("defer_transports", "").split(", "), agent)
        if held:
            wanted["defer_transports"] = ", ".join(held)
        return wanted

    def _held(self, before: List[str], agent: str) -> List[str]:
        """The agents whose mail waits in the queue."""
        mine = {agent, self.found.agent, *(() if self.own_agent else SHARED_AGENTS)}
        others = [name for name in before if name and name not in mine]
        if self.service is None or self.service.enabled:
            return others
        return others + ([agent] if self.own_agent else list(SHARED_AGENTS))

    def _rewriting(self, before: Mapping[str, str], routes: Optional[Map]) -> Dict[str, str]:
        """Senders rewritten to from_address, except those who have a service of their own (ADDRESS_REWRITING_README)."""
        address = before.get("sender_canonical_maps", "").rpartition("static:")[2]
        if not self.own_agent:
            address = self.service.from_address if self.service else ""
        if not address:
            return {}
        senders = [line.split()[0] for line in (routes.text if routes else "").splitlines() if line[0] not in "#@"]
        apart = " ".join("{{ {0} = {0} }}".format(sender) for sender in senders)
        exempt = "inline:{{ {} }}, ".format(apart) if senders else ""
        maps = "{}static:{}".format(exempt, address)
        return {"sender_canonical_maps": maps, "sender_canonical_classes": "envelope_sender, header_sender"}
