# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The files of Postfix that a change of one service leads to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from .. import marks
from ..service import Service
from .base import FileState, Observed, original_path, raw, text_of
from .postfix import HELD, MAIN, MASTER, UNTOLD, Effective, from_address, system_bundle
from .postfix_files import (
    CONF,
    CONFIG,
    FILES,
    OURS,
    SHARED,
    WRAPPER,
    is_ip,
    main_cf_values,
    map_path,
    nexthop,
    rewrite_main_cf,
    sender_keys,
    tidy,
    transport_entry,
    transports,
)

if TYPE_CHECKING:
    from .postfix import Postfix
    from .postfix_pipe import Pipe
    from .postfix_xoauth2 import Plugin

COMPILED = {"hash": ".db", "btree": ".db", "lmdb": ".lmdb", "cdb": ".cdb"}  # DATABASE_README
SHARED_AGENTS = ("smtp", "relay")  # what delivers the mail of the service that has no senders
# set only where somebody sets them otherwise: they would let mail out another way, or trust more than ca_file
BARRED = {"smtp_fallback_relay": "", "smtp_tls_per_site": "", "tls_append_default_CA": "no"}


SUFFIXES = (*sorted(set(COMPILED.values())), CONFIG)  # of what belongs to a map or a slot


class Map(NamedTuple):
    """A lookup table of ours: where it is and what it says."""

    path: str
    text: str


class Draft:
    """One change: ``files()`` gives what is to be written and, last, what is to be removed."""

    def __init__(self, backend: Postfix, service: Service | None, name: str, observed: Observed) -> None:
        self.host, self.options = backend.host, backend.given
        self.service, self.name, self.observed = service, name, observed
        self.values: dict[str, str] = observed.detail["values"]
        self.found: Effective = observed.detail["found"]
        self.main: str = observed.detail["main"]
        self.master: str = observed.detail["master"]
        self.kind = self.values["default_database_type"]
        if self.kind not in COMPILED or not (self.host.live or self.host.which("postmap")):
            self.kind = "texthash"  # needs nothing compiled: in a tree there may be nothing that could
        self.hop = nexthop(service.host, service.port) if service and service.host else ""
        self.pipe: Pipe | None = None
        self.plugin: Plugin | None = None
        self.connections = str(backend.option("oauth_connections"))
        if service is not None and self.hop and service.auth_type == "oauth":
            from . import postfix_oauth

            self.pipe, self.plugin = postfix_oauth.ways(backend, service)
        # absent, and nothing takes all mail by that name: if there is anything of it, it is an agent
        self.own_agent = bool(service.senders) if service else marks.get(self.main, name) is None
        self.new_master = self.master
        # main.cf as it would be without us
        self.theirs = main_cf_values(marks.unmute(marks.outside(tidy(self.main)), lambda line: True))

    def files(self) -> list[FileState]:
        """In the order of writing: maps, then master.cf, then main.cf, whose rename is the switch; then removals."""
        slot = self._slot()
        states = list(self._password_map(slot))
        password = states[0].path if states else None
        routes = self._routes(slot)
        states += [self._map_state(routes.path, routes.text)] if routes else []
        states += self.pipe.states(slot) if self.pipe else []
        states += self.plugin.states() if self.plugin else []
        states += self._master_state(slot)
        states.append(self._main_state(slot, password, routes))
        if self.pipe and self.service:
            from .postfix_pipe import idle

            self.observed.warnings += idle(self.theirs, self.service)
        if self.service is not None and self.observed.managed:
            if self.pipe:
                self.observed.faults += self.pipe.strays(self.host, self.found.agent)
            ours = self._settings(self.service, password) if self.own_agent else self._own_parameters(slot, password)
            self._tell_strays({} if self.pipe and self.found.agent.startswith(OURS) else ours)
            self._tell_limit()
        kept = {path for state in states for path in (state.path, state.path + state.built)}
        return states + [state for state in self._leftovers() if state.path not in kept]

    def _tell_strays(self, wanted: Mapping[str, str]) -> None:
        """Tell of settings that were changed by hand and that no field of the form tells of."""
        found, form = self.found.settings, self.observed.form
        told = {what for what, _is, _should in self.observed.faults}
        block = main_cf_values(marks.get(self.main, self.name) or "")
        for agent in transports(marks.get(self.master, self.name) or ""):
            block.update(agent.settings)
        for key, field in UNTOLD.items():
            if key in told or wanted.get(key, found[key]) == found[key]:
                continue
            # is it a consequence of another field's change? Most of them we never set to anything else
            follows = field and (key not in block or field in ("enabled", "host", "timeout"))
            if not follows or form.get(field) == getattr(self.service, field):
                self.observed.faults.append((key, found[key], wanted[key]))

    def _tell_limit(self) -> None:
        """Tell of another number of connections than is wanted: a column of master.cf, where the agent is ours."""
        agent = self.observed.detail["agents"].get(self.found.agent)
        if agent and agent.name.startswith(OURS) and (self.pipe or self.plugin) and agent.maxproc != self.connections:
            self.observed.faults.append((f"maxproc of {agent.name}", agent.maxproc, self.connections))

    # -- slots: a new generation is written beside the one in use ------------------------------------------------------

    def _slot(self) -> str:
        """The slot in use when all that belongs into it is there and effective, else the other one."""
        agents = self.own_agent or self.pipe
        named = self.found.agent if agents else map_path(self.found.settings["smtp_sasl_password_maps"])
        current = named[-1:] if named[-2:] in (".a", ".b") else ""
        if current and self.service is not None and self._in_place(current, self.service):
            return current
        return "b" if current == "a" else "a"

    def _in_place(self, slot: str, service: Service) -> bool:
        form = self.observed.form
        if any(form.get(key) != getattr(service, key) for key in ("auth_type", "username", "password")):
            return False
        if (marks.get(self.master, self.name) or "") != self._agent_entry(slot, service):
            return False
        if self.pipe:
            return text_of(self.host, self.pipe.config_path(slot)) == self.pipe.config()
        maps = list(self._password_map(slot))
        named = self.found.settings["smtp_sasl_password_maps"]
        if not maps:
            return not named
        return named == self._map_name(maps[0].path) and text_of(self.host, maps[0].path) == text(maps[0])

    def _agent(self, slot: str) -> str:
        return f"{OURS}{self.name}.{slot}" if self.own_agent or self.pipe else "smtp"

    # -- maps ----------------------------------------------------------------------------------------------------------

    def _map_name(self, path: str) -> str:
        return f"{self.kind}:{path}"

    def _map_state(self, path: str, content: str, secret: bool = False) -> FileState:
        mode = 0o600 if secret else 0o644
        built = COMPILED.get(self.kind, "")
        build = ("postmap", self.kind + ":") if built else ()
        return FileState(path, raw(content), mode, "root", "root", secret, build=build, built=built)

    def _password_map(self, slot: str) -> Iterator[FileState]:
        service, entry = self.service, ""
        if self.plugin:
            entry = self.plugin.credentials
        elif service is not None and service.auth_type == "password" and service.password is not None and self.hop:
            entry = f"{service.username}:{service.password.reveal()}"
        if entry:
            yield self._map_state(f"{FILES}{self.name}.{slot}", f"{self.hop} {entry}\n", secret=True)

    def _routes(self, slot: str) -> Map | None:
        """Which sender's mail goes to which agent; None when no service is by senders."""
        current = map_path(self.values["sender_dependent_default_transport_maps"])
        old = self._route_text(current) if current else ""
        new, effective = marks.drop(old, self.name), True
        if self.service is not None and self.own_agent:
            keys = sender_keys(self.service)
            way = ("" if self.service.enabled else HELD + " ") + f"{self._agent(slot)}:{self.hop}"
            new = marks.put(old, self.name, "".join(f"{key} {way}\n" for key in keys))
            senders = tuple(sorted(key.lstrip("@") for key in keys))
            now = self.observed.form.get("senders"), self.observed.form.get("enabled")
            effective = now == (senders, self.service.enabled)
        if not marks.names(new):
            return None
        if current and new == old and effective:
            return Map(current, new)
        return Map("{}{}.{}".format(FILES, SHARED, "b" if current.endswith(".a") else "a"), new)

    def _route_text(self, path: str) -> str:
        """The source of the routes; where that was deleted, what Postfix still has compiled of it (postmap(1) -s)."""
        text = text_of(self.host, path)
        if text or not self.host.live:
            return text
        for line in self.host.run(["postmap", "-s", f"{self.kind}:{path}"]).out.splitlines():
            key, _tab, way = line.partition("\t")
            found = re.search(OURS + r"(\S+)\.[ab]:", way)
            name = found.group(1) if found else self.name
            text = marks.put(text, name, (marks.get(text, name) or "") + f"{key} {way}\n")
        return text

    def _leftovers(self) -> Iterator[FileState]:
        """Every map that nothing refers to any more, and what was compiled of it."""
        directory, prefix = FILES.rsplit("/", 1)
        there = {name for name in self.host.names_in(directory) if name.startswith(prefix)}
        for owner in (self.name, SHARED):
            for slot in "ab":
                name = f"{prefix}{owner}.{slot}"
                for one in [name, *(name + suffix for suffix in SUFFIXES)]:
                    if one in there:
                        yield FileState(f"{directory}/{one}", None, secret=True)
        if self.host.exists(WRAPPER) and WRAPPER not in self.new_master:
            yield FileState(WRAPPER, None)
        if self.plugin is None and self.host.exists(original_path(CONF)):
            yield from self._plugin_leftovers()

    def _plugin_leftovers(self) -> list[FileState]:
        """What gives the plugin's configuration back, when no other service uses it."""
        from .postfix_xoauth2 import MECHANISM, left

        others = marks.drop(self.main, self.name) + marks.drop(self.master, self.name)
        return [] if f"smtp_sasl_mechanism_filter = {MECHANISM}" in others else left(self.host)

    # -- master.cf and main.cf -----------------------------------------------------------------------------------------

    def _master_state(self, slot: str) -> list[FileState]:
        old = marks.get(self.master, self.name)
        entry = self._agent_entry(slot, self.service) if self.service else ""
        if not entry:
            if old is None:
                return []
            self.new_master = marks.drop(self.master, self.name)
            # until Postfix has read main.cf again, mail may still be on its way to the agent
            return [FileState(MASTER, raw(self.new_master), transition=raw(self.master))]
        self.new_master = marks.put(self.master, self.name, entry)
        if old in (None, entry):
            return [FileState(MASTER, raw(self.new_master))]
        both = marks.put(self.master, self.name, f"{old}{entry}")
        return [FileState(MASTER, raw(self.new_master), transition=raw(both))]

    def _agent_entry(self, slot: str, service: Service) -> str:
        """The service's own delivery agent, empty when it has none."""
        if self.pipe:
            return self.pipe.entry(self._agent(slot), slot)
        if not self.own_agent:
            return ""
        smtp = self.observed.detail["agents"].get("smtp")
        password = next((state.path for state in self._password_map(slot)), None)
        chroot, maxproc = smtp.chroot if smtp else "-", self.connections if self.plugin else "-"
        return transport_entry(self._agent(slot), chroot, maxproc, self._settings(service, password))

    def _main_state(self, slot: str, password: str | None, routes: Map | None) -> FileState:
        wanted = self._own_parameters(slot, password)
        own = rewrite_main_cf(self.main, self.name, wanted)
        shared = self._shared_parameters(routes)
        final = raw(rewrite_main_cf(own, SHARED, shared))
        if not final:  # there was none before us
            return FileState(MAIN, None)
        before = main_cf_values(marks.get(self.main, self.name) or "")
        if self.pipe and not self.own_agent and set(before) - set(wanted) and self.observed.running:
            # clients that still deliver keep what they had until the reload
            self.observed.detail["guarded"] = True
            both = rewrite_main_cf(self.main, self.name, {**before, **wanted})
            return FileState(MAIN, final, transition=raw(rewrite_main_cf(both, SHARED, shared)))
        if not self._loses_its_way(password):
            return FileState(MAIN, final)
        # a client started between the rename and the reload may have the old next hop and the new credentials:
        # what the relay then refuses stays in the queue
        self.observed.detail["guarded"] = True
        return FileState(MAIN, final, transition=raw(rewrite_main_cf(own, SHARED, {**shared, "soft_bounce": "yes"})))

    def _loses_its_way(self, password: str | None) -> bool:
        if not self.observed.running or self.own_agent or self.pipe or not self.found.hop:
            return False
        had_credentials = self.found.settings["smtp_sasl_auth_enable"] == "yes"
        return self.found.hop != self.hop or (had_credentials and password is None)

    def _own_parameters(self, slot: str, password: str | None) -> dict[str, str]:
        """The service's block in main.cf; a service by senders has none."""
        if self.service is None or self.own_agent:
            return {}
        # defer_transports would hold mail until the next `postqueue -f`, which a network coming up is enough for
        ways = {} if self.service.enabled else {"default_transport": HELD, "relay_transport": HELD}
        wanted = {"default_transport": "smtp", **ways}
        if self.pipe:
            way = f"{self._agent(slot)}:{self.hop}"
            wanted = {"default_transport": way, "relay_transport": way, **ways}
        elif self.hop:
            wanted = {"relayhost": self.hop, **wanted, **self._settings(self.service, password)}
            if self.plugin:
                wanted["smtp_destination_concurrency_limit"] = self.connections
        deferred = _names(self.theirs.get("defer_transports", ""))
        if self.service.enabled and set(deferred) & set(SHARED_AGENTS):
            wanted["defer_transports"] = ", ".join(name for name in deferred if name not in SHARED_AGENTS)
        if self.options.get("null_client"):
            wanted.update(mydestination="", inet_interfaces="loopback-only")
        return wanted

    def _settings(self, service: Service, password: str | None) -> dict[str, str]:
        """How the service's mail leaves, in Postfix' words. Every one is set, so that nothing else decides it."""
        verified = "secure" if service.validate_certs else "encrypt"
        settings = {
            "smtp_tls_security_level": "none" if service.security == "none" else verified,
            "smtp_tls_wrappermode": "yes" if service.security == "tls" else "no",
            "smtp_tls_policy_maps": "",
        }
        if service.security != "none":
            settings["smtp_tls_secure_cert_match"] = "nexthop"
            settings["smtp_tls_servername"] = "" if is_ip(service.host) else "hostname"
            settings["smtp_tls_CAfile"] = service.ca_file or system_bundle(self.host)
            settings["smtp_tls_CApath"] = ""
        if not is_ip(service.host):
            settings["smtp_host_lookup"] = "dns, native"  # /etc/hosts too, as everything else on the host
        settings["smtp_sasl_auth_enable"] = "yes" if password else "no"
        settings["smtp_sasl_password_maps"] = self._map_name(password) if password else ""
        if password:
            settings["smtp_sasl_security_options"] = "noanonymous"  # the default refuses PLAIN and LOGIN
            settings["smtp_sasl_tls_security_options"] = "noanonymous"
            settings["smtp_sasl_tls_verified_security_options"] = "noanonymous"
            # an installed OAuth plugin would try first
            settings["smtp_sasl_mechanism_filter"] = "xoauth2" if self.plugin else "plain, login"
        settings["smtp_connect_timeout"] = f"{service.timeout}s"
        settings["smtp_helo_timeout"] = f"{service.timeout}s"
        barred = {key: value for key, value in BARRED.items() if self.theirs.get(key, value) != value}
        if service.from_address and self.theirs.get("smtp_generic_maps"):
            barred["smtp_generic_maps"] = ""  # it rewrites what leaves, after us
        return {**settings, **barred}

    def _shared_parameters(self, routes: Map | None) -> dict[str, str]:
        """What one line of main.cf has to say for all services together."""
        wanted = self._rewriting(main_cf_values(marks.get(self.main, SHARED) or ""), routes)
        if routes:
            wanted["sender_dependent_default_transport_maps"] = f"{self.kind}:{routes.path}"
        if WRAPPER in self.new_master:
            from .postfix_pipe import limits

            wanted.update(limits(transports(self.new_master)))
        return wanted

    def _has_inline_patterns(self) -> bool:
        """Since 3.7 (DATABASE_README). A static map would give the empty sender of bounces an address too."""
        version = re.match(r"(\d+)\.(\d+)", self.values["mail_version"])
        return version is not None and (int(version.group(1)), int(version.group(2))) >= (3, 7)

    def _rewriting(self, before: Mapping[str, str], routes: Map | None) -> dict[str, str]:
        """Senders rewritten to from_address, except those who have a service of their own (canonical(5))."""
        address, is_set = from_address(before), "sender_canonical_maps" in before
        if not self.own_agent:
            address = self.service.from_address if self.service else ""
            is_set = self.service is not None and bool(from_address(self.theirs))
        if not address:
            return {"sender_canonical_maps": ""} if is_set else {}
        senders = [line.split()[0] for line in (routes.text if routes else "").splitlines() if line[0] not in "#@"]
        apart = " ".join(f"{{ {sender} = {sender} }}" for sender in senders)
        exempt = f"inline:{{ {apart} }}, " if senders else ""
        maps = exempt + (f"regexp:{{ {{ /@/ {address} }} }}" if self._has_inline_patterns() else f"static:{address}")
        return {"sender_canonical_maps": maps, "sender_canonical_classes": "envelope_sender, header_sender"}


def _names(value: str) -> list[str]:
    """The words of a list as Postfix takes it."""
    return value.replace(",", " ").split()


def text(state: FileState) -> str:
    """What a file is to say."""
    return (state.content or b"").decode("utf-8", "surrogateescape")
