# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hand-made msmtp configurations, the host's and users' own."""

from __future__ import annotations

from by_hand import PASSWORD, RELAY, Case, File, kinds

MAIN, HOME, NETRC = "/etc/msmtprc", "/home/user/.msmtprc", "/etc/netrc"
CA = "/etc/ssl/relay-ca.pem"
LOGIN = {"auth_type": "password", "username": "fleet", "password": "(set)"}
TO_RELAY = {"host": RELAY, "port": 587}
TLS = f"tls on\ntls_trust_file {CA}\n"
ENDLESS = {"timeout": (0, 30)}
GOOD = f"account default\nhost {RELAY}\nport 587\ntimeout 30\n{TLS}auth on\nuser fleet\npassword {PASSWORD}\n"


def case(text: str, services: dict, findings: frozenset = kinds(), mode: int = 0o640, **more) -> Case:  # type: ignore[no-untyped-def,type-arg]
    """The host's file as Debian's package makes it readable."""
    group = "msmtp" if mode == 0o640 else "root"
    return Case({MAIN: File(text, mode, group), **more.pop("files", {})}, services, findings, **more)


CASES: dict[str, Case] = {
    "as it should be": case(
        GOOD,
        {"default": {**TO_RELAY, **LOGIN, "security": "starttls", "validate_certs": True, "ca_file": CA}},
        silent=kinds("secret-readable", "cleartext-credentials"),
        drift={},
    ),
    "the example of a wiki, for Gmail": case(
        "# Set default values for all following accounts.\ndefaults\nauth           on\ntls            on\n"
        "tls_trust_file /etc/ssl/certs/ca-certificates.crt\nlogfile        ~/.msmtp.log\n\n# Gmail\n"
        "account        gmail\n"
        "host           smtp.gmail.com\nport           587\nfrom           someone@gmail.com\nuser           someone\n"
        f"password       {PASSWORD}\n\n# Set a default account\naccount default : gmail\n",
        {"default": {"host": "smtp.gmail.com", "port": 587, "security": "starttls", "username": "someone"}},
        kinds("app-password", "secret-readable"),
        mode=0o644,
    ),
    "implicit TLS": case(
        f"account default\nhost {RELAY}\ntls on\ntls_starttls off\nauth plain\nuser fleet\npassword \"{PASSWORD}\"\n",
        {"default": {"host": RELAY, "port": 465, "security": "tls", **LOGIN}},
        drift=ENDLESS,
    ),
    "a password in clear text": case(
        f"account default\nhost {RELAY}\nauth plain\nuser fleet\npassword {PASSWORD}\ntimeout 30\n",
        {"default": {"host": RELAY, "port": 25, "security": "none", **LOGIN}},
        kinds("cleartext-credentials"),
        drift={},
    ),
    "several accounts by their senders": case(
        f"defaults\ntls on\nauth on\ntimeout 60\ntls_trust_file {CA}\n"
        f"account shop\nhost other.example.test\nport 587\nfrom shop@shop.example\nuser shop\npassword {PASSWORD}2\n"
        f"account corp\nhost {RELAY}\nport 587\nfrom me@corp.example\nuser fleet\npassword {PASSWORD}\n"
        "account default : corp\n",
        {
            "default": {**TO_RELAY, **LOGIN, "timeout": 60, "senders": []},
            "shop": {"host": "other.example.test", "senders": ["shop@shop.example"], "username": "shop"},
        },
        drift={},
    ),
    "an account that is asked for by its name": case(
        GOOD + "account alarms\nhost other.example.test\nport 25\n",
        {"default": TO_RELAY, "alarms": {"host": "other.example.test", "security": "none", "senders": []}},
        kinds("tls-none"),
        drift={},
    ),
    "a password in a file of its own": case(
        GOOD.replace(f"password {PASSWORD}", 'passwordeval "cat /etc/msmtp-password"'),
        {"default": {**TO_RELAY, **LOGIN}},
        kinds("secret-readable"),
        files={"/etc/msmtp-password": File(PASSWORD + "\n", 0o644)},
        drift={},
    ),
    "a password from a command": case(
        GOOD.replace(f"password {PASSWORD}", "passwordeval gpg --quiet --for-your-eyes-only --decrypt ~/.msmtp.gpg"),
        {"default": {**TO_RELAY, "username": "fleet", "password": "(unset)"}},
        drift={"password": ("(unset)", "(set)")},
    ),
    "a password in netrc": case(
        GOOD.replace(f"password {PASSWORD}\n", ""),
        {"default": {**TO_RELAY, **LOGIN}},
        files={NETRC: File(f"machine {RELAY}\n  login fleet\n  password {PASSWORD}\n", 0o600)},
        silent=kinds("credentials-missing", "secret-readable"),
        drift={},
    ),
    "no password at all": case(
        GOOD.replace(f"password {PASSWORD}\n", ""),
        {"default": {**TO_RELAY, "username": "fleet", "password": "(unset)"}},
        kinds("credentials-missing"),
        drift={"password": ("(unset)", "(set)")},
    ),
    "words of older versions": case(
        f"host {RELAY}\nport 587\nconnect_timeout 20\ntls\ntls_nocertcheck\nauth\nuser fleet\npassword {PASSWORD}\n",
        {"default": {**TO_RELAY, **LOGIN, "security": "starttls", "validate_certs": False, "timeout": 20}},
        kinds("tls-unverified"),
        drift={},
    ),
    "duplicates, comments and quotes": case(
        "account default\r\n  host old.example.test\n#host older.example.test\n\thost  \"" + RELAY + "\" \n"
        f"port 25\nport 587\n{TLS}auth on\nuser \"fleet\"\npassword {PASSWORD}\ntimeout 30\n",
        {"default": {**TO_RELAY, **LOGIN, "security": "starttls"}},
        drift={},
    ),
    "inherited from two": case(
        f"account secure\nhost nowhere.example\n{TLS}\naccount login\nhost nowhere.example\nauth on\nuser fleet\n"
        f"password {PASSWORD}\naccount default : secure, login\nhost {RELAY}\nport 587\ntimeout 30\n",
        {
            "default": {**TO_RELAY, **LOGIN, "security": "starttls", "ca_file": CA},
            "secure": {"host": "nowhere.example"},
            "login": {"host": "nowhere.example"},
        },
        drift={},
    ),
    "a pinned certificate by a proxy": case(
        GOOD + "tls_fingerprint 0A:0B:0C:0D:0E:0F:10:11:12:13:14:15:16:17:18:19:1A:1B:1C:1D\nproxy_host 192.0.2.1\n"
        "proxy_port 1080\n",
        {"default": {**TO_RELAY, **LOGIN}},
        drift={},
    ),
    "all mail from one address, logged": case(
        GOOD + "from fleet@hosts.example\nset_from_header on\nallow_from_override off\nlogfile /var/log/msmtp.log\n"
        "syslog LOG_MAIL\naliases /etc/aliases\n",
        {"default": {**TO_RELAY, "from_address": "fleet@hosts.example"}},
        drift={},
    ),
    "LMTP": case(f"account default\nhost {RELAY}\nport 24\nprotocol lmtp\n", {"default": {"host": RELAY, "port": 24}}),
    "an access token": case(
        GOOD.replace("auth on", "auth oauthbearer").replace(f"password {PASSWORD}", "passwordeval oama access fleet"),
        {"default": {**TO_RELAY, "auth_type": "oauth"}},
        kinds("oauth-by-hand"),
    ),
    "a line that msmtp refuses": case(
        GOOD + "tls_sni yes please\n", {"default": TO_RELAY}, live=kinds("config-refused"),
    ),
    "an eval": case(
        f"defaults\ntls on\nauth on\naccount a\nhost {RELAY}\nport 587\nuser fleet\npassword {PASSWORD}\n"
        "from a@hosts.example\naccount default\n"
        f"host {RELAY}\nport 587\nuser fleet\neval touch /var/ran; echo password {PASSWORD}\n",
        {
            "default": {**TO_RELAY, "auth_type": "password", "username": "fleet", "password": "(unset)"},
            "a": {**TO_RELAY, **LOGIN, "senders": ["a@hosts.example"]},
        },
        kinds("not-understood"),
        silent=kinds("credentials-missing", "config-refused"),
    ),
    "a secret that is no file": case(
        GOOD.replace(f"password {PASSWORD}", "passwordeval cat /dev/zero"),
        {"default": {**TO_RELAY, "auth_type": "password", "password": "(unset)"}},
        silent=kinds("unreadable", "credentials-missing"),
    ),
    "a CA file that is not there": case(
        GOOD.replace(CA, "/etc/ssl/gone.pem"), {"default": {**TO_RELAY}}, kinds("ca-missing"),
        drift={"ca_file": ("(not there)", "/etc/ssl/gone.pem")},
    ),
    "users with files of their own": case(
        GOOD,
        {
            "default": TO_RELAY,
            "user-default": {
                "host": "smtp.office365.com", "username": "someone@corp.example", "user": "user", "path": HOME,
            },
            "user-private": {"host": "smtp.posteo.de", "senders": ["someone@posteo.de"]},
        },
        kinds("user-file", "basic-auth-retiring", "secret-readable"),
        files={
            HOME: File(
                "account private\nhost smtp.posteo.de\nfrom someone@posteo.de\ntls on\nauth on\nuser someone\n"
                f"password {PASSWORD}5\naccount default\nhost smtp.office365.com\nport 587\ntls on\nauth on\n"
                f"user someone@corp.example\npassword {PASSWORD}6\n",
                0o644,
            )
        },
        drift={},
    ),
}  # fmt: skip
CASES["the example of a wiki, for Gmail"] = CASES["the example of a wiki, for Gmail"]._replace(
    drift={"timeout": (0, 30), "mode of " + MAIN: ("0644", "0640"), "group of " + MAIN: ("root", "msmtp")}
)
