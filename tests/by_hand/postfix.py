# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hand-made Postfix configurations."""

from __future__ import annotations

from by_hand import PASSWORD, RELAY, Case, File, kinds

MAIN, MASTER, SASL = "/etc/postfix/main.cf", "/etc/postfix/master.cf", "/etc/postfix/sasl_passwd"
CA = "/etc/ssl/relay-ca.pem"
BASE = """# See /usr/share/postfix/main.cf.dist for a commented, more complete version
compatibility_level = 3.6
myhostname = client.example.test
mydestination = $myhostname, localhost
inet_interfaces = loopback-only
mynetworks = 127.0.0.0/8 [::1]/128
smtp_tls_CApath = /etc/ssl/certs
"""
MASTER_CF = """smtp      inet  n       -       y       -       -       smtpd
pickup    unix  n       -       y       60      1       pickup
cleanup   unix  n       -       y       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
rewrite   unix  -       -       y       -       -       trivial-rewrite
bounce    unix  -       -       y       -       0       bounce
defer     unix  -       -       y       -       0       bounce
smtp      unix  -       -       y       -       -       smtp
relay     unix  -       -       y       -       -       smtp
showq     unix  n       -       y       -       -       showq
error     unix  -       -       y       -       -       error
retry     unix  -       -       y       -       -       error
local     unix  -       n       n       -       -       local
anvil     unix  -       -       y       -       1       anvil
scache    unix  -       -       y       -       1       scache
proxymap  unix  -       -       n       -       -       proxymap
tlsmgr    unix  -       -       y       1000?   1       tlsmgr
"""
ENTRY = f"[{RELAY}]:587    fleet:{PASSWORD}\n"
AUTH = "smtp_sasl_auth_enable = yes\nsmtp_sasl_security_options = noanonymous\n"
HASHED = f"smtp_sasl_password_maps = hash:{SASL}\n"
SECURE = f"smtp_tls_security_level = secure\nsmtp_tls_CAfile = {CA}\nsmtp_tls_CApath =\n"
HOP = f"relayhost = [{RELAY}]:587\n"
LOGIN = {"auth_type": "password", "username": "fleet", "password": "(set)"}
TO_RELAY = {"host": RELAY, "port": 587}


def case(text: str, services: dict, findings: frozenset = kinds(), *, sasl: str | None = None, **more) -> Case:  # type: ignore[no-untyped-def,type-arg]
    """main.cf with that text, a master.cf as the package has it, and a password map."""
    files = {MAIN: BASE + text, MASTER: MASTER_CF, **more.pop("files", {})}
    compiled = more.pop("compiled", ())
    if sasl is not None:
        files[SASL] = File(sasl, 0o600)
        compiled = (*compiled, f"hash:{SASL}")
    return Case(files, services, findings, compiled=compiled, **more)


GOOD = HOP + SECURE + AUTH + HASHED
WEAK_DEFAULT = {"validate_certs": False, "managed": False}

CASES: dict[str, Case] = {
    "as it should be": case(
        GOOD,
        {"default": {**TO_RELAY, **LOGIN, "security": "starttls", "validate_certs": True, "ca_file": CA}},
        silent=kinds("secret-readable", "tls-unverified", "tls-opportunistic", "map-stale", "listens"),
        sasl=ENTRY,
        drift={},
    ),
    "a tutorial of 2012 for Gmail": case(
        "relayhost = [smtp.gmail.com]:587\nsmtp_use_tls = yes\n" + AUTH + HASHED
        + "smtp_tls_CAfile = /etc/postfix/cacert.pem\n",
        {
            "default": {
                "host": "smtp.gmail.com", "port": 587, "security": "opportunistic", "auth_type": "password",
                "username": "someone@gmail.com", "ca_file": "/etc/postfix/cacert.pem /etc/ssl/certs",
            }
        },
        kinds("cleartext-credentials", "tls-opportunistic", "app-password", "legacy-setting", "secret-readable"),
        files={SASL: File(f"[smtp.gmail.com]:587    someone@gmail.com:{PASSWORD}\n", 0o644)},
        compiled=(f"hash:{SASL}",),
    ),
    "a vendor's page for Office 365": case(
        "relayhost = [smtp.office365.com]:587\nsmtp_tls_security_level = encrypt\n" + AUTH + HASHED
        + "sender_canonical_maps = regexp:/etc/postfix/sender_canonical\n",
        {
            "default": {
                "host": "smtp.office365.com", "security": "starttls", "validate_certs": False,
                "from_address": "robot@corp.example", "username": "robot@corp.example",
            }
        },
        kinds("basic-auth-retiring", "tls-unverified"),
        sasl=f"[smtp.office365.com]:587 robot@corp.example:{PASSWORD}\n",
        files={"/etc/postfix/sender_canonical": "/.+/    robot@corp.example\n"},
        drift={},
    ),
    "texthash and a TLS policy": case(
        HOP + "smtp_tls_security_level = may\nsmtp_tls_policy_maps = texthash:/etc/postfix/tls_policy\n"
        + f"smtp_tls_CAfile = {CA}\nsmtp_tls_CApath =\n" + AUTH + f"smtp_sasl_password_maps = texthash:{SASL}\n",
        {"default": {**TO_RELAY, **LOGIN, "security": "starttls", "validate_certs": True}},
        kinds(),
        files={
            "/etc/postfix/tls_policy": f"# destination  policy\n[{RELAY}]:587  secure match=nexthop\n",
            SASL: File(ENTRY, 0o600),
        },
        silent=kinds("tls-opportunistic", "tls-unverified", "map-missing"),
        drift={},
    ),
    "smtp_enforce_tls, from before 2.3": case(
        HOP + f"smtp_enforce_tls = yes\nsmtp_tls_CAfile = {CA}\nsmtp_tls_CApath =\n" + AUTH + HASHED,
        {"default": {**TO_RELAY, "security": "starttls", "validate_certs": True}},
        kinds("legacy-setting"),
        sasl=ENTRY,
        drift={},
    ),
    "smtp_enforce_tls without names": case(
        HOP + "smtp_enforce_tls = yes\nsmtp_tls_enforce_peername = no\n",
        {"default": {**TO_RELAY, "security": "starttls", "validate_certs": False, "auth_type": "none"}},
        kinds("legacy-setting", "tls-unverified"),
        drift={},
    ),
    "implicit TLS": case(
        f"relayhost = [{RELAY}]:smtps\nsmtp_tls_wrappermode = yes\nsmtp_tls_security_level = verify\n"
        f"smtp_tls_CAfile = {CA}\nsmtp_tls_CApath =\n" + AUTH + HASHED,
        {"default": {"host": RELAY, "port": 465, "security": "tls", "validate_certs": True, **LOGIN}},
        silent=kinds("tls-port"),
        sasl=f"{RELAY} fleet:{PASSWORD}\n",
        drift={},
    ),
    "a wrapper without a level": case(
        f"relayhost = [{RELAY}]:465\nsmtp_tls_wrappermode = yes\n",
        {"default": {"host": RELAY, "port": 465, "security": "none"}},
        kinds("tls-wrapper-level", "tls-port", "tls-none"),
    ),
    "a tunnel by stunnel": case(
        "relayhost = [127.0.0.1]:11125\n" + AUTH + f"smtp_sasl_password_maps = static:fleet:{PASSWORD}\n",
        {"default": {"host": "127.0.0.1", "port": 11125, "security": "none", **LOGIN}},
        kinds("relay-behind-tunnel", "secret-in-line", "secret-readable"),
        silent=kinds("tls-none", "cleartext-credentials"),
        drift={},
    ),
    "patterns in main.cf itself": case(
        HOP + SECURE + AUTH + "smtp_sasl_password_maps = regexp:{ { /relay/ fleet:" + PASSWORD + " } }\n",
        {"default": {**TO_RELAY, **LOGIN}},
        kinds("secret-in-line"),
        silent=kinds("credentials-missing"),
        drift={},
    ),
    "a map of maps": case(
        HOP + SECURE + AUTH + "smtp_sasl_password_maps = unionmap:{static:fleet:" + PASSWORD + "}\n",
        {"default": {**TO_RELAY, **LOGIN}},
        kinds("secret-in-line"),
        drift={},
    ),
    "a login that a directory server knows": case(
        HOP + SECURE + AUTH + "smtp_sasl_password_maps = proxy:ldap:/etc/postfix/ldap.cf\n",
        {"default": {**TO_RELAY, "auth_type": "password", "username": "", "password": "(unset)"}},
        kinds("map-unread"),
        silent=kinds("credentials-missing", "map-key"),
    ),
    "a relay with a login before it, as in a URL": case(
        f"relayhost = fleet:{PASSWORD}@[{RELAY}]:587\n", {"default": {}}, kinds("tls-none"),
    ),
    "another entry of master.cf takes mail of everybody": case(
        "inet_interfaces = all\n" + GOOD,
        {"default": TO_RELAY},
        live=kinds("open-relay"),
        files={MASTER: MASTER_CF + "2525 inet n - y - - smtpd\n  -o mynetworks=cidr:/etc/postfix/all.cidr\n",
               "/etc/postfix/all.cidr": "0.0.0.0/0 OK\n"},
        sasl=ENTRY,
    ),
    "nothing that listens": case(
        "inet_interfaces = all\nmynetworks = 0.0.0.0/0\n" + GOOD,
        {"default": TO_RELAY},
        silent=kinds("open-relay", "listens"),
        files={MASTER: MASTER_CF.replace("smtp      inet  n", "#smtp      inet  n")},
        sasl=ENTRY,
        drift={},
    ),
    "a filter and a second instance": case(
        GOOD + "content_filter = smtp:[127.0.0.1]:10024\nmulti_instance_directories = /etc/postfix-out\n",
        {"default": TO_RELAY},
        kinds("content-filter", "other-instances"),
        sasl=ENTRY,
    ),
    "an inline map": case(
        HOP + SECURE + AUTH + "smtp_sasl_password_maps = inline:{ { [" + RELAY + "]:587 = fleet:" + PASSWORD + " } }\n",
        {"default": {**TO_RELAY, **LOGIN}},
        kinds("secret-in-line", "secret-readable"),
        drift={},
    ),
    "duplicates, comments and continuation lines": case(
        "relayhost = [old.example.test]\n#relayhost = [older.example.test]\nsmtp_sasl_auth_enable = no\n"
        f"relayhost =\n  # the new one\n  [{RELAY}]:587\n" + SECURE + AUTH + HASHED,
        {"default": {**TO_RELAY, **LOGIN, "security": "starttls"}},
        kinds("duplicate-setting"),
        sasl=f"# our relay\n[{RELAY}]:587\n   fleet:{PASSWORD}\n",
        drift={},
    ),
    "settings that refer to others": case(
        f"our_relay = {RELAY}\nour_hop = [$our_relay]:587\nrelayhost = ${{our_hop}}\n"
        "smtp_sasl_auth_enable = ${our_relay?{yes}:{no}}\nsmtp_sasl_security_options = noanonymous\n"
        "smtp_sasl_password_maps = $default_database_type:$config_directory/sasl_passwd\n" + SECURE,
        {"default": {**TO_RELAY, **LOGIN, "security": "starttls"}},
        sasl=ENTRY,
        drift={},
    ),
    "several relays by sender": case(
        GOOD + "smtp_sender_dependent_authentication = yes\n"
        "sender_dependent_relayhost_maps = hash:/etc/postfix/sender_relay\n",
        {
            "default": {**TO_RELAY, **LOGIN},
            "other.example.test": {
                "host": "other.example.test", "port": 587, "username": "shop@shop.example",
                "senders": ["shop.example"], "security": "starttls",
            },
            "third.example.test": {"host": "third.example.test", "port": 25, "senders": ["a@corp.example"]},
        },
        kinds("map-key"),
        sasl=ENTRY + f"@shop.example shop@shop.example:{PASSWORD}2\nthird.example.test:25 x:{PASSWORD}3\n",
        files={
            "/etc/postfix/sender_relay": "@shop.example   [other.example.test]:587\n"
            "a@corp.example  [third.example.test]:25\n"
        },
        compiled=("hash:/etc/postfix/sender_relay",),
        drift={},
    ),
    "a key without its brackets": case(
        GOOD, {"default": {**TO_RELAY, "username": "", "password": "(unset)"}}, kinds("map-key"),
        sasl=f"{RELAY}:587 fleet:{PASSWORD}\n",
    ),
    "a map for another relay": case(
        GOOD, {"default": {**TO_RELAY, "username": ""}}, kinds("credentials-missing"),
        sasl=f"[elsewhere.example.test]:587 fleet:{PASSWORD}\n",
    ),
    "a relayhost without brackets": case(
        f"relayhost = {RELAY}:587\n" + SECURE + AUTH + HASHED,
        {"default": {**TO_RELAY, **LOGIN}},
        kinds("relayhost-mx"),
        sasl=f"{RELAY}:587 fleet:{PASSWORD}\n",
        drift={"host": (f"MX of {RELAY}", RELAY)},
    ),
    "a map that was never compiled": case(
        GOOD, {"default": {**TO_RELAY, "username": ""}}, kinds("map-missing"), files={SASL: File(ENTRY, 0o600)}
    ),
    "a map whose source is gone": case(
        GOOD, {"default": TO_RELAY}, kinds("map-without-source"), sasl=ENTRY, commands=(f"rm {SASL}",),
        silent=kinds("map-missing"),
    ),
    "a map that is stale": case(
        GOOD, {"default": {**TO_RELAY, "username": "fleet"}}, kinds("map-stale"), sasl=ENTRY,
        commands=(f"echo '[new.example.test] a:{PASSWORD}4' >> {SASL}",),
    ),
    "everything by transport_maps": case(
        "transport_maps = hash:/etc/postfix/transport\n" + SECURE + AUTH + HASHED,
        {"default": {**TO_RELAY, **LOGIN}},
        kinds("routes-by-recipient"),
        sasl=ENTRY,
        files={
            "/etc/postfix/transport": f"client.example.test  local:\npartner.example  smtp:[mx.partner.example]\n"
            f"*  smtp:[{RELAY}]:587\n"
        },
        compiled=("hash:/etc/postfix/transport",),
    ),
    "default_transport instead of relayhost": case(
        f"default_transport = smtp:[{RELAY}]:587\n" + SECURE, {"default": {**TO_RELAY, "auth_type": "none"}}, drift={}
    ),
    "an agent with settings of its own": case(
        HOP + "smtp_tls_security_level = secure\n",
        {"default": {**TO_RELAY, "security": "none"}},
        kinds("tls-none"),
        files={MASTER: MASTER_CF.replace("smtp\nrelay", "smtp\n  -o smtp_tls_security_level=none\nrelay")},
        drift={},
    ),
    "SASL options left as they are": case(
        HOP + SECURE + "smtp_sasl_auth_enable = yes\n" + HASHED,
        {"default": {**TO_RELAY, **LOGIN}},
        kinds("sasl-no-plaintext"),
        sasl=ENTRY,
        drift={},
    ),
    "no trusted CA": case(
        HOP + "smtp_tls_security_level = secure\nsmtp_tls_CApath =\n", {"default": {**TO_RELAY}}, kinds("tls-no-trust")
    ),
    "an open relay": case(
        GOOD + "inet_interfaces = all\nmynetworks = 127.0.0.0/8, 0.0.0.0/0\n",
        {"default": {**TO_RELAY}},
        kinds("duplicate-setting"),
        live=kinds("open-relay"),
        sasl=ENTRY,
    ),
    "a relay for half of the provider": case(
        GOOD + "inet_interfaces = all\nmynetworks = 127.0.0.0/8 198.18.0.0/15 5.9.0.0/16\n",
        {"default": {**TO_RELAY}},
        live=kinds("relays-for-networks"),
        sasl=ENTRY,
    ),
    "permit in the restrictions": case(
        GOOD + "inet_interfaces = all\nsmtpd_relay_restrictions = permit\n",
        {"default": {**TO_RELAY}},
        live=kinds("open-relay"),
        sasl=ENTRY,
    ),
    "a fallback and two relays": case(
        f"relayhost = [{RELAY}]:587\nsmtp_fallback_relay = [backup.example.test]\n" + SECURE,
        {"default": {**TO_RELAY}},
        kinds("several-relays"),
        drift={},
    ),
    "held by hand": case(
        GOOD + "defer_transports = smtp\n", {"default": {**TO_RELAY, "enabled": False}}, kinds("disabled"), sasl=ENTRY,
        drift={},
    ),
    "a pattern map": case(
        GOOD.replace("hash:", "regexp:"),
        {"default": {**TO_RELAY, **LOGIN}},
        files={SASL: File(f"/^\\[?relay\\.example\\.test\\]?(:\\d+|:587)?$/  fleet:{PASSWORD}\n", 0o600)},
        silent=kinds("map-missing", "map-key", "credentials-missing"),
        drift={},
    ),
    "a PCRE map": case(
        GOOD.replace("hash:", "pcre:"),
        {"default": {**TO_RELAY, **LOGIN}},
        files={SASL: File(f"/^\\[{RELAY}\\]:587$/  fleet:{PASSWORD}\n", 0o600)},
        silent=kinds("map-missing", "map-key", "credentials-missing"),
        needs="pcre",
        drift={},
    ),
    "an LMDB map": case(
        GOOD.replace("hash:", "lmdb:"),
        {"default": {**TO_RELAY, **LOGIN}},
        files={SASL: File(ENTRY, 0o600)},
        compiled=(f"lmdb:{SASL}",),
        silent=kinds("map-missing", "map-stale"),
        needs="lmdb",
        drift={},
    ),
    "a CDB map by proxymap": case(
        GOOD.replace("hash:", "proxy:cdb:"),
        {"default": {**TO_RELAY, **LOGIN}},
        files={SASL: File(ENTRY, 0o600)},
        compiled=(f"cdb:{SASL}",),
        silent=kinds("map-missing", "map-stale"),
        needs="cdb",
        drift={},
    ),
    "a table that asks a directory": case(
        HOP + SECURE + AUTH + "smtp_sasl_password_maps = ldap:/etc/postfix/ldap-sasl.cf\n",
        {"default": {**TO_RELAY, "username": ""}},
        kinds("map-unread"),
    ),
    "nothing but what the package brings": case(
        "relayhost =\ninet_interfaces = all\nsmtp_tls_security_level = may\n",
        {"default": {"host": "", "managed": False}},
        live=kinds("listens"),
    ),
    "a line that is none": case(
        GOOD + "this is not a setting\n", {"default": {**TO_RELAY}}, live=kinds("config-refused"), sasl=ENTRY
    ),
}  # fmt: skip
