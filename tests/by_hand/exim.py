# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hand-made Exim configurations: Debian's answers and macros in both layouts, and files that somebody wrote whole.

The package's own template and fragments are there in a real tree; in memory, what of them decides.
"""

from __future__ import annotations

from by_hand import PASSWORD, RELAY, Case, File, kinds

CONF, WHOLE = "/etc/exim4/update-exim4.conf.conf", "/etc/exim4/exim4.conf"
PASSWD, TEMPLATE = "/etc/exim4/passwd.client", "/etc/exim4/exim4.conf.template"
MACROS = {False: "/etc/exim4/exim4.conf.localmacros", True: "/etc/exim4/conf.d/main/000_localmacros"}
CA = "/etc/ssl/relay-ca.pem"
MADE = ("update-exim4.conf",)
RELAYED = f"REMOTE_SMTP_SMARTHOST_HOSTS_REQUIRE_TLS = *\nREMOTE_SMTP_SMARTHOST_TLS_VERIFY_CERTIFICATES = {CA}\n"
LOGIN = {"auth_type": "password", "username": "fleet", "password": "(set)"}
TO_RELAY = {"host": RELAY, "port": 587}


def answers(kind: str = "smarthost", smarthost: str = f"{RELAY}::587", split: bool = False, **more: str) -> str:
    """update-exim4.conf.conf as debconf writes it."""
    given = {
        "dc_eximconfig_configtype": kind, "dc_other_hostnames": "client.example.test",
        "dc_local_interfaces": "127.0.0.1 ; ::1", "dc_readhost": "", "dc_relay_domains": "", "dc_minimaldns": "false",
        "dc_relay_nets": "", "dc_smarthost": smarthost, "CFILEMODE": "644", "dc_use_split_config": str(split).lower(),
        "dc_hide_mailname": "false", "dc_mailname_in_oh": "true", "dc_localdelivery": "mail_spool", **more,
    }  # fmt: skip
    return "# /etc/exim4/update-exim4.conf.conf\n#\n" + "".join(f"{key}='{value}'\n" for key, value in given.items())


def case(
    conf: str,
    services: dict,
    findings: frozenset = kinds(),
    *,
    macros: str = "",
    login: str = "",
    **more,  # type: ignore[no-untyped-def,type-arg]
) -> Case:
    """Debian's files with these answers, macros and credentials."""
    split = "dc_use_split_config='true'" in conf
    files = {CONF: conf, **({MACROS[split]: macros} if macros else {}), **more.pop("files", {})}
    if PASSWD not in files:
        files[PASSWD] = File("# see exim4_passwd_client(5)\n" + login, 0o640, "Debian-exim")
    commands = (*MADE, *more.pop("commands", ()))
    return Case(files, services, findings, commands=commands, **more)


LOGS_IN = f"{RELAY}:fleet:{PASSWORD}\n"
WRITTEN = f"""# written by hand in 2016
primary_hostname = client.example.test
domainlist local_domains = @ : localhost
hostlist relay_from_hosts = 127.0.0.1 : ::::1
local_interfaces = <; 127.0.0.1 ; ::1
SMARTHOST = {RELAY}
acl_smtp_rcpt = acl_check_rcpt
.include_if_exists /etc/exim4/extra.conf

begin acl
acl_check_rcpt:
  accept

begin routers
shop:
  driver = manualroute
  senders = *@shop.example
  domains = ! +local_domains
  transport = to_relay
  route_list = * other.example.test byname
smart:
  driver = manualroute
  domains = ! +local_domains
  transport = to_relay
  route_list = * "SMARTHOST"
localuser:
  driver = accept
  check_local_user
  transport = local_delivery

begin transports
to_relay:
  driver = smtp
  port = 587
  hosts_require_auth = *
  hosts_require_tls = *
  tls_verify_certificates = \\
     {CA}
  tls_verify_hosts = *
local_delivery:
  driver = appendfile
  file = /var/mail/$local_part_data

begin retry
*  *  F,2h,15m

begin authenticators
client_plain:
  driver = plaintext
  public_name = PLAIN
  client_send = ^fleet^{PASSWORD}
"""

CASES: dict[str, Case] = {
    "a port with one colon": case(
        answers(smarthost=f"{RELAY}:587"), {"default": {"host": RELAY, "port": 25}},
        kinds("port-as-host", "several-relays"), login=LOGS_IN,
    ),
    "it relays to everywhere": case(
        answers("internet", "", dc_local_interfaces="", dc_relay_domains="*"), {"default": {"host": ""}},
        live=kinds("open-relay"),
    ),
    "debconf, smarthost, with a password": case(
        answers(),
        {"default": {**TO_RELAY, **LOGIN, "security": "opportunistic", "managed": False}},
        kinds("tls-opportunistic"),
        login=LOGS_IN,
        silent=kinds("secret-readable", "cleartext-credentials", "config-stale"),
        drift={"security": ("opportunistic", "starttls")},
    ),
    "macros of a tutorial, monolithic": case(
        answers(),
        {"default": {**TO_RELAY, **LOGIN, "security": "starttls", "validate_certs": True, "ca_file": CA}},
        macros="# see README.Debian\n" + RELAYED,
        login=LOGS_IN,
        silent=kinds("tls-opportunistic", "tls-unverified"),
        drift={},
    ),
    "the same, split": case(
        answers(split=True),
        {"default": {**TO_RELAY, **LOGIN, "security": "starttls", "ca_file": CA}},
        macros=RELAYED,
        login=LOGS_IN,
        drift={},
    ),
    "a satellite that hides its name": case(
        answers("satellite", dc_readhost="corp.example", dc_hide_mailname="true"),
        {"default": {**TO_RELAY, "auth_type": "none", "security": "opportunistic"}},
        kinds("tls-opportunistic"),
        drift={"security": ("opportunistic", "starttls")},
    ),
    "implicit TLS by a macro, continued and commented": case(
        answers(smarthost=f"{RELAY}::465"),
        {"default": {"host": RELAY, "port": 465, "security": "tls", "validate_certs": True, **LOGIN}},
        macros="REMOTE_SMTP_SMARTHOST_PROTOCOL = \\\n  # since the change of 2019\n  smtps\n"
        f"REMOTE_SMTP_SMARTHOST_TLS_VERIFY_CERTIFICATES = {CA}\n",
        login=f"*:fleet:{PASSWORD}\n",
        drift={},
    ),
    "names not verified": case(
        answers(),
        {"default": {**TO_RELAY, "security": "starttls", "validate_certs": False}},
        kinds("tls-unverified"),
        macros="REMOTE_SMTP_SMARTHOST_HOSTS_REQUIRE_TLS = *\nREMOTE_SMTP_SMARTHOST_TLS_VERIFY_HOSTS = \n",
        login=LOGS_IN,
        drift={},
    ),
    "a password in clear text": case(
        answers(smarthost=RELAY),
        {"default": {"host": RELAY, "port": 25, "security": "none", **LOGIN}},
        kinds("cleartext-credentials"),
        macros="AUTH_CLIENT_ALLOW_NOTLS_PASSWORDS = 1\nREMOTE_SMTP_SMARTHOST_HOSTS_AVOID_TLS = *\n",
        login=LOGS_IN,
        drift={},
    ),
    "credentials for another host": case(
        answers(),
        {"default": {**TO_RELAY, "auth_type": "none"}},
        login=f"target.mail.server.example:login:{PASSWORD}\n",
        drift={"security": ("opportunistic", "starttls")},
    ),
    "a wild card before the very name": case(
        answers(smarthost="mail.corp.example::587"),
        {"default": {"host": "mail.corp.example", "username": "all"}},
        login=f"*.corp.example:all:{PASSWORD}\nmail.corp.example:fleet:{PASSWORD}2\n",
        drift={"security": ("opportunistic", "starttls")},
    ),
    "passwd.client for everybody": case(
        answers(),
        {"default": {**TO_RELAY, **LOGIN}},
        kinds("secret-readable"),
        files={PASSWD: File(LOGS_IN, 0o644, "Debian-exim")},
        drift={"security": ("opportunistic", "starttls"), "mode of " + PASSWD: ("0644", "0640")},
    ),
    "passwd.client for root alone": case(
        answers(),
        {"default": {**TO_RELAY, **LOGIN}},
        kinds("secret-unreadable"),
        files={PASSWD: File(LOGS_IN, 0o600)},
        silent=kinds("secret-readable"),
        drift={
            "security": ("opportunistic", "starttls"),
            "mode of " + PASSWD: ("0600", "0640"),
            "group of " + PASSWD: ("root", "Debian-exim"),
        },
    ),
    "answers given twice": case(
        answers("local", "") + f"dc_smarthost='{RELAY}::587'  # second thoughts\ndc_eximconfig_configtype=smarthost\n",
        {"default": {**TO_RELAY, "auth_type": "none"}},
        drift={"security": ("opportunistic", "starttls")},
    ),
    "two smarthosts": case(
        answers(smarthost=f"{RELAY}::587:backup.example.test::587"),
        {"default": {**TO_RELAY}},
        kinds("several-relays"),
    ),
    "straight to the recipients": case(
        answers("internet", "", dc_local_interfaces=""), {"default": {"host": ""}}, live=kinds("listens")
    ),
    "no mail leaves": case(answers("local", ""), {"default": {"host": ""}}, silent=kinds("listens")),
    "an open relay": case(
        answers(dc_local_interfaces="", dc_relay_nets="*"), {"default": TO_RELAY}, live=kinds("open-relay"),
        drift={"security": ("opportunistic", "starttls")},
    ),
    "a relay for strangers": case(
        answers(dc_local_interfaces="0.0.0.0", dc_relay_nets="10.0.0.0/8 ; 5.9.0.0/16"),
        {"default": TO_RELAY},
        live=kinds("relays-for-networks"),
        drift={"security": ("opportunistic", "starttls")},
    ),
    "some domains another way": case(
        answers(),
        {"default": TO_RELAY},
        kinds("routes-by-recipient"),
        files={"/etc/exim4/hubbed_hosts": "partner.example: mx.partner.example\n"},
        drift={"security": ("opportunistic", "starttls")},
    ),
    "an edit without update-exim4.conf": case(
        answers(),
        {"default": TO_RELAY},
        live=kinds("config-stale"),
        commands=("echo 'REMOTE_SMTP_SMARTHOST_HOSTS_REQUIRE_TLS = *' >> /etc/exim4/exim4.conf.localmacros",),
        files={MACROS[False]: "# nothing yet\n"},
    ),
    "a file of one's own": case(
        answers("local", ""),
        {
            "default": {**TO_RELAY, **LOGIN, "security": "starttls", "validate_certs": True, "path": WHOLE},
            "other.example.test": {"host": "other.example.test", "port": 587, "senders": ["shop.example"]},
        },
        kinds("override-file", "secret-in-line", "secret-readable"),
        files={WHOLE: WRITTEN},
    ),
    "a file of one's own with an included one": case(
        answers("local", ""),
        {"default": {**TO_RELAY, **LOGIN}, "other.example.test": {"host": "other.example.test"}},
        kinds("override-file"),
        files={
            WHOLE: WRITTEN.replace(f"SMARTHOST = {RELAY}\n", ""),
            "/etc/exim4/extra.conf": f".ifndef SMARTHOST\nSMARTHOST = {RELAY}\n.endif\n",
        },
    ),
    "a file that Exim refuses": case(
        answers(),
        {"default": {"host": RELAY}},
        kinds("override-file"),
        files={WHOLE: WRITTEN + "  no_such_option = 1\n"},
        live=kinds("config-refused"),
    ),
}  # fmt: skip
CASES["a file that Exim refuses"] = CASES["a file that Exim refuses"]._replace(
    services={"default": {"host": RELAY}, "other.example.test": {}}
)
