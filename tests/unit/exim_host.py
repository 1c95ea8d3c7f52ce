# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host with Debian's Exim, for the backend's tests: its files as the packages leave them, and what they share."""

from __future__ import annotations

from hypothesis import strategies as st
from unit.fake_host import FakeHost, apply

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends import exim_files
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends.exim import Exim
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.host import Completed
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.plan import Plan, compare
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.service import Service

CONF = """# a comment
dc_eximconfig_configtype='local'
dc_other_hostnames='client.example.test'
dc_local_interfaces='127.0.0.1 ; ::1'
dc_readhost=''
dc_smarthost=''
dc_use_split_config='false'
dc_hide_mailname=''
"""
SPLIT = CONF.replace("config='false'", "config='true'")
BEFORE = "address_file:\n  driver = appendfile\n\n"
TRANSPORT = (
    'remote_smtp_smarthost:\n  debug_print = "T: $local_part@$domain"\n  driver = smtp\n  multi_domain\n'
    ".ifdef REMOTE_SMTP_SMARTHOST_PROTOCOL\n  protocol = REMOTE_SMTP_SMARTHOST_PROTOCOL\n.endif\n"
)
AFTER = "address_directory:\n  driver = appendfile\n\nbegin retry\n"
TEMPLATE = "UPEX4CmacrosUPEX4C = 1\nbegin transports\n" + BEFORE + TRANSPORT + AFTER + "begin authenticators\n\n"
PASSWD = "# see exim4_passwd_client(5)\n### target.mail.server.example:login:password\n"
RELAY = {"host": "relay.example.com", "port": 587, "security": "starttls"}
LOGIN = {"auth_type": "password", "username": "fleet", "password": "s3cret"}


def service(**options: object) -> Service:
    return Service.from_options({**RELAY, **options})


def installed(conf: str = CONF, live: bool = False, **files: str) -> FakeHost:
    """A host as Debian's packages leave it; ``live`` without a daemon that runs."""
    host = FakeHost({exim_files.CONF: conf, exim_files.TEMPLATE: TEMPLATE, **files}, live=live)
    host.groups.add("Debian-exim")
    host.put(exim_files.CREDENTIALS, PASSWD, 0o640, "root", "Debian-exim")
    host.put(exim_files.TRANSPORT_FILE, TRANSPORT)
    host.put(exim_files.ETC + "/conf.d/transport/35_exim4-config_address_directory", AFTER)
    return host


def deploy(host: FakeHost, wanted: Service | None, name: str = "default", **options: object) -> None:
    backend = Exim(host, options)
    apply(host, backend.desired(wanted, name, backend.read(name)))


def plan_of(host: FakeHost, wanted: Service, **options: object) -> Plan:
    backend = Exim(host, options)
    observed = backend.read(wanted.name)
    return compare(backend.wanted_form(wanted), observed, backend.desired(wanted, wanted.name, observed), host)


def problems_of(wanted: Service, host: FakeHost | None = None) -> list[tuple[str, str]]:
    return [(one.option, one.problem) for one in Exim(host or installed()).problems(wanted)]


def contents(host: FakeHost) -> dict[str, tuple[bytes, int]]:
    return {path: (file.content, file.mode) for path, file in host.files.items()}


def generated(sources: str) -> str:
    debconf = "#" * 46 + "\n# the following macro definitions were created\n# dynamically\n.ifndef X\nX=1\n.endif\n"
    lines = [line for line in sources.split("\n") if not line.lstrip().startswith("#")]
    mark = "UPEX4CmacrosUPEX4C = 1"
    return "# WARNING\n" + "\n".join(lines).replace(mark, mark + "\n" + debconf + "#" * 46)


# as exim4 4.96 prints it, without the options that nobody asked for
SAID = """current_directory =
driver = smtp
headers_rewrite = *@* ops@example.com fs
return_path = ${if eq{$return_path}{}{}{ops@example.com}}
hosts_avoid_tls =
hosts_require_auth = *
hosts_require_tls = *
protocol = smtp
tls_sni = relay.example.com
tls_verify_cert_hostnames = *
tls_verify_certificates = /etc/ssl/ca.pem
tls_verify_hosts = *
driver = manualroute
route_list = * relay.example.com::587 byname
hold_domains =
macro AUTH_CLIENT_ALLOW_NOTLS_PASSWORDS not found
"""


def running(said: str = SAID, **files: str) -> FakeHost:
    """A live host with a daemon, whose Exim answers so."""
    host = installed(live=True, **files)
    host.programs.update(
        {"exim4": Completed(0, said, ""), "update-exim4.conf": Completed(0, "", ""), "sh": Completed(0, "", "")}
    )
    host.put("/run/exim4/exim.pid", "77\n")
    host.put("/proc/77/comm", "exim4\n")
    host.put(exim_files.GENERATED, generated(TEMPLATE))
    return host


PRINTABLE = st.characters(exclude_categories=["Cs", "Cc"])
NASTY = st.text(PRINTABLE | st.sampled_from(" \"'\\#$`%*?:^\t"), min_size=1, max_size=60)


def carried(text: str, option: str) -> bool:
    rules = [rule for rule in Exim.capabilities.rules if rule.option == option]
    return not any(rule.broken_by(text) for rule in rules)
