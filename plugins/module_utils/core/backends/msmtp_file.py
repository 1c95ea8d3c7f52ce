# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""msmtp's configuration file: read as msmtp 1.8 reads it (msmtp(1), CONFIGURATION FILES), and patterns of senders."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import marks
from ..redaction import Secret

if TYPE_CHECKING:
    from ..service import Service

HEADER = "# Managed by fleetmail.smtp: its next run undoes what is changed here by hand.\n"
ROUTES_BELOW = "# Which sender goes through which account: the first one that fits."
LONGEST_LINE = 499  # bytes without the line end; a longer one makes msmtp 1.8 refuse the whole file

# a command has at most 4,094 characters (SMTP_MAXCMDLEN): "AUTH OAUTHBEARER " and base64 of so many bytes
LONGEST_BEARER = 3057
# nothing can ever be a socket below /dev/null: connecting to it fails at once with EX_TEMPFAIL and these words
NOWHERE = "/dev/null/"
NO_HOST_YET = "disabled.invalid"  # RFC 6761 6.4: a name that never exists
OAUTH = ("xoauth2", "oauthbearer")
SYSTEM_ONLY = {"HOME": "/nonexistent", "XDG_CONFIG_HOME": "/nonexistent"}  # no user's own file is looked at

Settings = dict[str, str]

# what holds where neither the account nor `defaults` says anything
BUILT_IN: Mapping[str, str] = {
    "timeout": "off",
    "auth": "off",
    "tls": "off",
    "tls_starttls": "on",
    "tls_certcheck": "on",
    "tls_trust_file": "system",
    "allow_from_override": "on",
    "set_from_header": "auto",
}
NOT_INHERITED = ("allow_from_override",)  # by `account X : Y`, as msmtp 1.8.23 does it
_SWITCHES = ("auth", "tls", "tls_starttls", "tls_certcheck", "allow_from_override", "set_from_header")
_OLD_WORDS: Mapping[str, tuple[str, str]] = {
    "tls_nocertcheck": ("tls_certcheck", "off"),
    "tls_nostarttls": ("tls_starttls", "off"),
}
_COMMANDS = frozenset(
    """
    account add_missing_date_header add_missing_from_header aliases allow_from_override auth auto_from
    connect_timeout defaults domain dsn_notify dsn_return from host keepbcc logfile logfile_time_format
    maildomain ntlmdomain port protocol proxy_host proxy_port remove_bcc_headers set_date_header
    set_from_header set_msgid_header socket source_ip syslog timeout tls tls_cert_file tls_certcheck
    tls_crl_file tls_fingerprint tls_force_sslv3 tls_host_override tls_key_file tls_min_dh_prime_bits
    tls_nocertcheck tls_nostarttls tls_priorities tls_starttls tls_trust_file undisclosed_recipients user
    """.split()  # noqa: SIM905
)
ROUTE = re.compile(r"/\d+\Z")  # a service's name has no slash: such an account leads to a service's for one sender
_SECRET = ("password", "passwordeval", "eval")
_READS_TOKEN = re.compile(r"cat /var/lib/fleetmail/tokens/[A-Za-z0-9_.-]+\Z")  # says where a secret is, not what
_COMPLAINTS = (
    *("unknown command", "invalid argument", "needs an argument", "does not take an argument", "not (yet) defined"),
    *("was already defined", "line longer than", "host not set", "account default not found", "Permission denied"),
)
_PRETENDED = re.compile(r"^(\w+) = (.*)$", re.M)
_LETTER_PAIR = re.compile(r"\[([a-z])[A-Z]\]")


class Account:
    """One account: what it says or inherits, and the `defaults` that held where it began."""

    def __init__(self, name: str, defaults: Settings) -> None:
        self.name = name
        self.defaults = defaults
        self.own: Settings = {}

    def settings(self) -> Settings:
        """What holds for the account. Without a port of its own it is 25, or 465 for TLS from the first byte."""
        found = {**BUILT_IN, **self.defaults, **self.own}
        wrapped = found["tls"] == "on" and found["tls_starttls"] == "off"
        found.setdefault("port", "465" if wrapped else "25")
        return found


def entries(text: str) -> Iterator[tuple[str, str]]:
    """Yield command and argument of each line, as msmtp takes them apart."""
    for line in text.split("\n"):
        words = line.rstrip("\r").strip(" \t")
        if words and not words.startswith("#"):
            command, argument = (re.split(r"[ \t]", words, maxsplit=1) + [""])[:2]
            yield command, unquoted(argument)


def unquoted(argument: str) -> str:
    """Without blanks around it and without one pair of double quotes; there are no escapes inside."""
    bare = argument.strip(" \t")
    return bare[1:-1] if len(bare) > 1 and bare[0] == bare[-1] == '"' else bare


def accounts(text: str) -> list[Account]:
    """Every account of the file, in order (of several that fit a sender msmtp takes the first)."""
    found: list[Account] = []
    defaults: Settings = {}
    current = None
    for command, argument in entries(text):
        if command == "defaults":
            current = defaults
        elif command == "account":
            found.append(_begun(argument, found, defaults))
            current = found[-1].own
        else:
            if current is None:  # lines before any account: an account named default
                found.append(Account("default", {}))
                current = found[-1].own
            current.update([_setting(command, argument)])
    return found


def _begun(argument: str, known: list[Account], defaults: Settings) -> Account:
    name, _colon, parents = argument.partition(":")
    account = Account(unquoted(name), dict(defaults))
    for parent in parents.split(","):
        for one in known:
            if one.name == unquoted(parent):
                account.own.update({key: value for key, value in one.own.items() if key not in NOT_INHERITED})
    return account


def _setting(command: str, argument: str) -> tuple[str, str]:
    if command in _OLD_WORDS:
        return _OLD_WORDS[command]
    if command == "connect_timeout":
        command = "timeout"
    return command, argument or ("on" if command in _SWITCHES else "")


def pretended(output: str) -> Settings:
    """The settings that `msmtp --pretend` prints, in the words of the configuration file."""
    said = {name: "" if value == "(not set)" else value for name, value in _PRETENDED.findall(output)}
    found = {**BUILT_IN, "port": "25", **said}
    found["auth"] = {"choose": "on", "none": "off"}.get(found["auth"], found["auth"].lower())
    found["timeout"] = found["timeout"].split(" ")[0]
    return found


def secrets(text: str) -> Iterator[str]:
    """Yield the passwords in a file, and the commands that may hold one."""
    said = (argument for command, argument in entries(text) if command in _SECRET and argument)
    return (argument for argument in said if not _READS_TOKEN.match(argument))


def tells_secrets(text: str) -> bool:
    """May a line of the file hold one? One that makes no sense may: it may be what follows a line break in it."""
    return any(command not in _COMMANDS and not _READS_TOKEN.match(argument) for command, argument in entries(text))


def runs_a_command(text: str) -> bool:
    """Has it a line that msmtp runs whenever it reads the file, ``msmtp --pretend`` included? (msmtp(1), eval)"""
    return any(command == "eval" for command, _argument in entries(text))


def complaint(words: str) -> str:
    """Why msmtp refuses a file, without what it quotes from it: that may be a secret."""
    line = re.search(r"line \d+(?=:)", words)
    kinds = [kind for kind in _COMPLAINTS if kind in words][:1]
    return ": ".join(([line.group()] if line else []) + kinds)


def tls(service: Service) -> Iterator[str]:
    """The lines that say how the connection is secured."""
    yield "tls " + ("off" if service.security == "none" else "on")
    yield "tls_starttls " + ("off" if service.security == "tls" else "on")
    yield "tls_certcheck " + ("on" if service.validate_certs else "off")
    yield "tls_trust_file " + (f'"{service.ca_file}"' if service.ca_file else "system")


def form_of(settings: Settings, password: str | None, senders: tuple[str, ...]) -> dict[str, Any]:
    """Effective settings in the form's words."""
    authenticates = settings["auth"] != "off"
    socket = settings.get("socket", "")
    trust = settings.get("tls_trust_file", "")
    host = settings.get("host", "")
    rewrites = settings["allow_from_override"] == "off" and settings["set_from_header"] == "on"
    wrapped = "starttls" if settings["tls_starttls"] == "on" else "tls"
    disabled = socket.startswith(NOWHERE)
    return {
        "enabled": not disabled,
        "host": socket if socket and not disabled else "" if host == NO_HOST_YET else host,
        "port": _number(settings["port"]),
        "security": wrapped if settings["tls"] == "on" else "none",
        "auth_type": ("oauth" if settings["auth"] in OAUTH else "password") if authenticates else "none",
        "username": settings.get("user", "") if authenticates else "",
        "password": Secret(password) if password and authenticates else None,
        "ca_file": "" if trust == "system" else trust,
        "validate_certs": settings["tls_certcheck"] == "on",
        "from_address": settings.get("from", "") if rewrites else "",
        "senders": senders,
        "timeout": _number(settings["timeout"]),
    }


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


# -- which account a sender's mail goes through ----------------------------------------------------------------------


def patterns(sender: str) -> list[str]:
    """The `from` patterns that fit a sender: an address (any case, and its +details) or all of a domain.

    Patterns are compared with the case of letters, and only one with a plus sign in it fits an address with one.
    """
    if "@" in sender:
        return [sender]
    domain = "".join(f"[{c}{c.upper()}]" if c.isalpha() else c for c in sender)
    return ["*@" + domain, "*+*@" + domain]


def sender_of(pattern: str) -> str:
    """The sender that a pattern stands for."""
    plain = _LETTER_PAIR.sub(r"\1", pattern)
    return re.sub(r"\A\*(\+\*)?@", "", plain).lower()


def canonical(given: Iterable[str]) -> tuple[str, ...]:
    """Each sender once, in the order of precedence: addresses, with +details first, before domains."""
    return tuple(sorted({sender.lower().lstrip("@") for sender in given}, key=_precedence))


def _precedence(sender: str) -> tuple[bool, bool, str]:
    return "@" not in sender, "+" not in sender, sender


def routes(found: Sequence[Account], name: str) -> list[str]:
    """The patterns of the accounts that lead to a service's: NAME/1, NAME/2, ..."""
    return [one.own.get("from", "") for one in found if ROUTE.search(one.name) and one.name.split("/")[0] == name]


def definition(block: str) -> str:
    """A service's block as far as it defines the service's account.

    What stands before that or is a way to a service was put there by hand, and would belong to somebody else's account.
    """
    begun = re.search(r"^account [^\n/]*$", block, re.M)
    return re.split(r"^[ \t]*account[ \t][^\n]*/", block[begun.start() :], maxsplit=1, flags=re.M)[0] if begun else ""


def takes_the_rest(block: str) -> bool:
    """Is it the account of mail whose sender no other account is for?"""
    return re.search(r"^account default( :|$)", block, re.M) is not None


def compose(blocks: Mapping[str, str], patterns_of: Mapping[str, Sequence[str]]) -> str:
    """The whole file: accounts of senders, the way to them, then the account of all other senders.

    The latter may have a `from` as well, and msmtp takes the first account that fits.
    """
    text = HEADER
    rest = [name for name in sorted(blocks) if takes_the_rest(blocks[name])]
    chosen = [name for name in sorted(blocks) if name not in rest]
    for name in chosen:
        text = marks.put(text, name, blocks[name])
    text += "".join(line + "\n" for line in _ways(blocks, {name: patterns_of[name] for name in chosen}))
    for name in rest:
        text = marks.put(text, name, blocks[name])
    return text


def _ways(blocks: Mapping[str, str], patterns_of: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """An account for each pattern, the most particular ones first."""
    begun = [name for name in patterns_of if blocks[name].startswith("account ")]  # not so when edited by hand
    wanted = [(pattern, name) for name in begun for pattern in patterns_of[name]]
    numbers = dict.fromkeys(patterns_of, 0)
    if wanted:
        yield ROUTES_BELOW
    for pattern, name in sorted(wanted, key=lambda way: (_precedence(sender_of(way[0])), way)):
        numbers[name] += 1
        lines = blocks[name].split("\n")
        yield "account {}/{} : {}".format(name, numbers[name], lines[0][len("account ") :])
        yield "from " + pattern
        yield from (line for line in lines if line.startswith(NOT_INHERITED))
