# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""Mail that Postfix hands to msmtp, which has OAuth built in: a pipe(8) transport, a wrapper, msmtp's configuration.

What cannot be delivered now waits in Postfix' queue. Nothing but the relay's own refusal of a sender, a recipient or a
mail bounces.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import HostError, Problem, StepFailed
from . import msmtp_file
from .base import FileState, raw, text_of
from .msmtp_file import LONGEST_LINE, OAUTH, SYSTEM_ONLY
from .postfix import ACCOUNT, MASTER, system_bundle
from .postfix_files import CONFIG, FILES, OURS, WRAPPER, Transport

if TYPE_CHECKING:
    from ..host import Completed
    from ..port import Host
    from ..service import Service
    from .base import Observed
    from .msmtp_file import Settings
    from .postfix import Postfix

COMMENT = "Postfix to msmtp (fleetmail.smtp)"  # tells an account that we made from one that was there
IN_A_GROUP = " in a group of others"  # that was there before the account was
TIME_LIMIT = "2h"  # more than the wrapper gives msmtp: what pipe(8) itself puts an end to bounces

# a status that pipe(8) does not know bounces, and so would a wrapper that is missing or was killed: those have to wait
_GUARD = 'trap : 1 2 15; "$$0" "$$@" || exit $$(($$? == 69 ? 69 : 75))'
_NO_FIELD = re.compile(r"(?!(host|port|timeout|tls|tls_\w+|user) )")  # a line that the form has no field for
_OURS = re.compile(rf" {re.escape(WRAPPER)} (\S+) \$\{{sender\}} \$\{{recipient\}}")

SCRIPT = r"""#!/bin/sh
# Managed by fleetmail.smtp. pipe(8) of Postfix runs it: CONFIGURATION SENDER RECIPIENT, the mail at standard input.
#
# What it says begins with a status code (RFC 3463), and that decides: with 4 the mail waits, with 5 it bounces. It
# bounces only when the relay itself refused sender, recipient or mail for good; msmtp's exit codes do not tell.

LC_ALL=C PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
export LC_ALL PATH

case $3 in
*[[:space:]\"\(\),:\;\<\>\\]*)
    # it would read several addresses, or another one, out of that
    printf '5.1.3 msmtp cannot send to the address %s\n' "$3"
    exit 69 ;;
esac

name=$(postconf -hx smtp_helo_name 2>/dev/null </dev/null)
said=$(timeout -k 10 3600 msmtp -C "$1" -a default --logfile=- ${name:+"--domain=$name"} -f "$2" -- "$3" 2>&1)
code=$?

# the line that it would write into its log comes last; the relay's words in it may be any
log=${said##*"
"}
case $log in
"msmtp: "*) log= ;;
*" host="*" exitcode=EX_"*) log=${log#*" host="} log=${log%"exitcode=EX_"*} ;;
*) log= ;;
esac
reply= why=
case $log in
*" smtpmsg='"*) reply=${log#*" smtpmsg='"} reply=${reply%"' errormsg='"*} reply=${reply%"' "} ;;
esac
case $log in
*" errormsg='"*) why=${log##*" errormsg='"} why=${why%"' "} ;;
esac
while :; do
    case $reply in
    *'\n'*) reply="${reply%%'\n'*} ${reply#*'\n'}" ;;
    *) break ;;
    esac
done

if [ $code -eq 0 ]; then
    printf '%s\n' "${reply:-accepted}"
    exit 0
fi

case $code in
66 | 78) status=4.3.5 ;;
68 | 74 | 75 | 76) status=4.4.1 ;;
77) status=4.7.0 ;;
*) status=4.3.0 ;;
esac
exit=75
case $why in
"envelope from address "* | "recipient address "* | "the server does not accept mail data"* | \
    "the server did not accept the mail"*)
    case $reply in
    53[0-9]* | *" 5.5.127 "* | *" 5.7.8 "*) ;; # it is about the login all the same (RFC 4954, 6)
    5*) status=5.0.0 exit=69 ;;
    esac
    given=${reply#????} given=${given%% *}
    case $exit$given in
    695.[0-9]*.[0-9]* | 754.[0-9]*.[0-9]*) status=$given ;;
    esac ;;
esac

[ $code -ne 124 ] || why="msmtp was still at work after an hour"
case $said in
*"cannot read output of 'cat "*) status=4.7.0 why="there is no access token: $said" ;;
esac

if [ "$reply" ]; then
    said="${log%% *} said: $reply ($why)"
else
    said=${why:-${said:-msmtp ended with status $code}}
fi
printf '%s %s\n' $status "$said"
exit $exit
"""


class Pipe:
    """One service's mail through msmtp."""

    format = "plain"
    group = ACCOUNT

    def __init__(self, service: Service, mechanism: str, token_path: str, connections: int) -> None:
        self.service, self.mechanism, self.token_path = service, mechanism, token_path
        self.connections = connections

    def states(self, slot: str) -> list[FileState]:
        """What the transport needs, before the transport itself."""
        config = FileState(self.config_path(slot), raw(self.config()), 0o640, "root", ACCOUNT)
        return [FileState(WRAPPER, SCRIPT.encode(), 0o755, "root", "root"), config]

    def config_path(self, slot: str) -> str:
        return f"{FILES}{self.service.name}.{slot}{CONFIG}"

    def config(self) -> str:
        """msmtp's configuration (msmtp(1)). What Postfix has made of the headers stays as it is."""
        service = self.service
        lines = [
            "account default",
            f"host {service.host}",
            f"port {service.port}",
            f"timeout {service.timeout}",
            *msmtp_file.tls(service),
            f"auth {self.mechanism}",
            f'user "{service.username}"',
            f"passwordeval cat {self.token_path}",
            "set_from_header off",
            "set_date_header off",
            "remove_bcc_headers off",
        ]
        return "# Managed by fleetmail.smtp, for Postfix.\n" + "".join(line + "\n" for line in lines)

    def strays(self, host: Host, agent: str) -> list[tuple[str, Any, Any]]:
        """What was changed by hand in the configuration that an agent has, and no field of the form tells of."""
        path = self.config_path(agent[-1:]) if agent.startswith(OURS) else ""
        found, wanted = text_of(host, path) if path else "", self.config()
        differs = found and [*filter(_NO_FIELD.match, found.split("\n"))] != [
            *filter(_NO_FIELD.match, wanted.split("\n"))
        ]
        return [(f"content of {path}", "(differs)", "(managed)")] if differs else []

    def entry(self, agent: str, slot: str) -> str:
        """The transport (pipe(8), master(5)). The empty sender of bounces stays empty.

        Its process limit is the one on deliveries at once: with one recipient a delivery the queue manager's own would
        be on each recipient (postconf(5), default_destination_recipient_limit).
        """
        columns = f"{agent} unix - n n - {self.connections} pipe\n"
        who = f"  flags=q user={ACCOUNT} null_sender=\n"
        arguments = f"  {WRAPPER} {self.config_path(slot)} ${{sender}} ${{recipient}}\n"
        return f"{columns}{who}  argv=/bin/sh -c {{{_GUARD}}}\n{arguments}"


def idle(theirs: Mapping[str, str], service: Service) -> Iterator[str]:
    """What Postfix' own client would do to a mail by somebody else's settings and msmtp does not."""
    if theirs.get("smtp_generic_maps") and not service.from_address:
        yield "smtp_generic_maps has no effect on mail that goes through msmtp: from_address rewrites its sender"


def is_pipe(agent: Transport) -> bool:
    """Is it a pipe(8) of ours?"""
    return agent.command.startswith("pipe ") and agent.name.startswith(OURS)


def limits(agents: Iterator[Transport]) -> dict[str, str]:
    """One recipient a delivery: of several msmtp tells no outcome of their own, and all would bounce with one."""
    wanted = {"_destination_recipient_limit": "1", "_time_limit": TIME_LIMIT}
    return {agent.name + key: value for agent in agents if is_pipe(agent) for key, value in wanted.items()}


# -- what holds --------------------------------------------------------------------------------------------------------


def read(host: Host, agent: Transport, observed: Observed) -> dict[str, Any]:
    """The form's fields of a service whose agent is a pipe."""
    found = _OURS.search(agent.command)
    settings = _effective(host, found.group(1), observed) if found else {}
    user = re.search(r"\suser=([^\s:]+)", agent.command)
    if user and not host.has_account(owner=user.group(1)):
        observed.faults.append((f"user {user.group(1)}", "missing", "there"))
    if host.live and host.which("msmtp") is None:
        observed.faults.append(("msmtp", "not installed", "installed"))
    return _form(settings, host)


def mechanism_of(host: Host, agent: Transport) -> str:
    """What a pipe's msmtp logs in with: the backend's option of that name."""
    found = _OURS.search(agent.command)
    text = text_of(host, found.group(1)) if found else ""
    return "oauthbearer" if "\nauth oauthbearer\n" in text else "xoauth2"


def _effective(host: Host, config: str, observed: Observed) -> Settings:
    """What msmtp makes of its configuration; our own reading of it where it cannot be asked."""
    if host.live and host.which("msmtp"):
        done = pretend(host, config)
        if done.code == 0:
            return msmtp_file.pretended(done.out)
        observed.warnings.append(f"msmtp refuses {config}: {msmtp_file.complaint(done.err)}")
        return {}
    found = msmtp_file.accounts(text_of(host, config))
    return next((one.settings() for one in found if one.name == "default"), {})


def pretend(host: Host, config: str) -> Completed:
    """``msmtp --pretend``: reads the configuration and prints it; the token is not read and nobody is connected to."""
    argv = ["msmtp", "-C", config, "--pretend", "-a", "default", "-f", "nobody@localhost", "--passwordeval="]
    return host.run(argv, environment=SYSTEM_ONLY)


def _form(settings: Settings, host: Host) -> dict[str, Any]:
    if not settings:
        return {"host": "", "auth_type": "none", "username": "", "password": None}
    secured = "starttls" if settings["tls_starttls"] == "on" else "tls"
    security = secured if settings["tls"] == "on" else "none"
    auth, trust = settings["auth"], settings["tls_trust_file"]
    return {
        "host": settings.get("host", ""),
        "port": _number(settings["port"]),
        "security": security,
        "validate_certs": security == "none" or settings["tls_certcheck"] == "on",
        "ca_file": "" if trust in ("system", system_bundle(host)) else trust or None,
        "timeout": _number(settings["timeout"]),
        "auth_type": "oauth" if auth in OAUTH else "none" if auth == "off" else "password",
        "username": settings.get("user", "") if auth != "off" else "",
        "password": None,
    }


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None


# -- what cannot be, and what a candidate is worth ---------------------------------------------------------------------


def problems(host: Host, service: Service, mechanism: str) -> Iterator[Problem]:
    """What msmtp cannot express of a service, and what its user cannot read."""
    if len(service.username.encode("utf-8", "surrogateescape")) > LONGEST_LINE - 7:
        yield Problem("username", "fits no line of msmtp's", f"at most {LONGEST_LINE - 7} bytes")
    if len(service.ca_file.encode("utf-8", "surrogateescape")) > LONGEST_LINE - 17:
        yield Problem("ca_file", "fits no line of msmtp's", "a shorter path")
    if mechanism == "oauthbearer" and re.search("[,=]", service.username):
        told = "has a ',' or '=', which msmtp does not escape in OAUTHBEARER"
        yield Problem("username", told, "leave backend_options.oauth_mechanism out: xoauth2")
    found = None
    with contextlib.suppress(HostError):  # told by those who look into every CA file
        found = host.read(service.ca_file) if service.ca_file.startswith("/") and service.security != "none" else None
    if found is not None and not found.mode & 0o004:
        told = f"is readable for {found.owner} and {found.group} only, and {ACCOUNT} has to read it"
        yield Problem("ca_file", told, "mode 0644: a CA's certificate is no secret")
    if not host.live and not text_of(host, MASTER):
        yield Problem("auth_type", f"oauth needs {MASTER}, which is not there", "install Postfix in the tree first")


def check(host: Host, candidate: str, path: str) -> Iterator[str]:
    """Let msmtp judge a staged configuration; gives warnings. Raises StepFailed."""
    if host.which("msmtp") is None:
        yield "msmtp is not in the tree: its configuration was judged by this collection's rules alone"
        return
    done = pretend(host, candidate)
    if done.code:
        why = msmtp_file.complaint(done.err) or f"exit code {done.code}"
        raise StepFailed("check", f"msmtp refuses the new {path}: {why}", "oauth needs msmtp 1.8.13 or later")
    if re.search(r"^msmtp \(enforce\)", text_of(host, "/sys/kernel/security/apparmor/profiles"), re.M):
        local = "/etc/apparmor.d/local/usr.bin.msmtp"
        yield f"AppArmor keeps msmtp from {path} until {local} has the line: {FILES}*{CONFIG} r,"


# -- its account -------------------------------------------------------------------------------------------------------


def add_account(backend: Postfix) -> None:
    """A user of its own, so that nobody else reads the token. Raises StepFailed."""
    if backend.host.has_account(owner=ACCOUNT, group=ACCOUNT):
        return
    group, comment = ["--user-group"], COMMENT
    if backend.host.has_account(group=ACCOUNT):
        group, comment = ["--gid", ACCOUNT], COMMENT + IN_A_GROUP
    login = ["--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"]
    try:
        backend.act("account", ["useradd", "--system", *group, *login, "--comment", comment, ACCOUNT])
    except StepFailed as error:
        raise StepFailed("account", error.problems[0].problem, f"make the user and group {ACCOUNT} yourself") from None


def drop_account(backend: Postfix) -> None:
    """Remove the account, when we made it and no transport uses it any more."""
    host = backend.host
    ours = rf"^{ACCOUNT}:.*:{re.escape(COMMENT)}({re.escape(IN_A_GROUP)})?:"
    found = re.search(ours, text_of(host, "/etc/passwd"), re.M)
    if not found or re.search(rf"\suser={ACCOUNT}\b", text_of(host, MASTER)):
        return
    if host.run(["userdel", ACCOUNT]).code == 0:  # not while a delivery is still on its way
        backend.actions.append(f"userdel {ACCOUNT}")
        # userdel(8) leaves the group of that name where login.defs(5) has USERGROUPS_ENAB no
        if not found.group(1) and host.has_account(group=ACCOUNT):
            host.run(["groupdel", ACCOUNT])
