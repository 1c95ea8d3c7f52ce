# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""No secret in any output, command line, environment, log or left-over file, whatever happens.

Real plays at ``-vvvv --diff``, with canaries for every secret: the new ones, and the old one that a host had before us.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from driver import pythons
from driver.environments import Unavailable, ansible_environment
from integration.oauth_machine import MECHANISMS, authorize
from lab.authority import Authority
from lab.canary import Cage, Canary, Sighting, files_in
from lab.hostile import Hostile
from lab.layers import why_unavailable
from lab.playbook import PLUGINS, Played, play
from lab.relay import Relay, listeners
from lab.tree import HOME, RELAY_ADDRESS, RELAY_NAME, Tree
from lab.watch import Watch

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "the lab is there")

OLD = Canary("the old password", "Altvogel7Q3x Zaunkoenig5K9w")
ELSEWHERE = Canary("a password in main.cf for another relay", "Nebenvogel4W8t'Zilpzalp3F6k")
NEW = Canary("the new password", "Neuvogel2R8z \"q\\w' ä%20 Gimpelhahn4T6y")
NEXT = Canary("the changed password", 'Stieglitz9M1p$Rohrsaenger3V5n#`\\"')
WRONG = Canary("a wrong password", "Falschvogel6H2s:Dohlenschrei8J4d")
BAD = Canary("a password beside bad arguments", "Argumentvogel1C7u Uhufeder6Z2b")
CLIENT = Canary("client_secret", "Geheimclient5B7m~Kernbeisser1N9c")
TOKEN = Canary("access_token", "ya29.Tokenvogel3X5q_Bachstelze7L2f==")
REFRESH = Canary("refresh_token", "1//0gRefreshvogel6K3n-Wiesenpieper5T8d")
CANARIES = (OLD, ELSEWHERE, NEW, NEXT, WRONG, BAD, CLIENT, TOKEN, REFRESH)

ROOT = Path(__file__).parents[2]
CA = "/etc/ssl/relay-ca.pem"
ECHOING = 2525
SECRET_FILES = {
    "postfix": ("/etc/postfix/fleetmail-", "/etc/postfix/sasl_passwd", "/etc/postfix/.fleetmail-"),
    "exim": ("/etc/exim4/passwd.client", "/etc/exim4/.passwd.client", "/var/lib/fleetmail/"),
    "msmtp": ("/etc/msmtprc", "/etc/.msmtprc", "/var/lib/fleetmail/"),
}
GROUPS = {"postfix": "root", "exim": "Debian-exim", "msmtp": "msmtp"}

# -- hosts as people set them up by hand: with the old password, and with checkers that quote all that they are shown

_TALKATIVE = """#!/bin/sh
say_all() {{
    rm "$1"
    echo "$3: line 3: not understood" >&2
    cat /etc/postfix/*fleetmail* /etc/postfix/.*fleetmail* /etc/msmtprc /etc/.msmtprc* /etc/exim4/*passwd* \\
        /etc/exim4/.*passwd* 2>/dev/null >&2
    exit 78
}}
case "$*" in
{check}) [ -e /run/talkative-checker ] && say_all /run/talkative-checker "$@";;
{start}) [ -e /run/talkative-start ] && say_all /run/talkative-start "$@";;
esac
exec {program}.real "$@"
"""


def _divert(host: Tree, program: str, check: str, start: str) -> None:
    """Once where /run/talkative-... is, the program fails for such arguments, and says every secret while it does."""
    inside = host.inside(program)
    inside.rename(inside.with_name(inside.name + ".real"))
    host.write(program, _TALKATIVE.format(check=check, start=start, program=program), 0o755)


def _postfix_by_hand(host: Tree) -> None:
    host.write("/etc/postfix/sasl_passwd", f"[old.example.test]:587 old:{OLD.text}\n", 0o600)
    host.run(["postmap", "hash:/etc/postfix/sasl_passwd"])
    settings = {
        "relayhost": "[old.example.test]:587",
        "smtp_sasl_auth_enable": "yes",
        "smtp_sasl_security_options": "noanonymous",
        "smtp_sasl_password_maps": "hash:/etc/postfix/sasl_passwd, "
        f"inline:{{ {{ [elsewhere.example.test]:25 = old:{ELSEWHERE.text} }} }}",
    }
    host.run(["postconf", "-e", *(f"{name} = {value}" for name, value in settings.items())])
    _divert(host, "/usr/sbin/postconf", '"-c "*', "none")
    _divert(host, "/usr/sbin/postfix", "none", "reload")
    host.let_cool()
    host.start("postfix")


def _exim_by_hand(host: Tree) -> None:
    conf = host.read("/etc/exim4/update-exim4.conf.conf").decode()
    for name, value in (("eximconfig_configtype", "satellite"), ("smarthost", "old.example.test::587")):
        conf = re.sub(f"(?m)^dc_{name}=.*", f"dc_{name}='{value}'", conf)
    host.write("/etc/exim4/update-exim4.conf.conf", conf)
    host.write("/etc/exim4/passwd.client", f"old.example.test:old:{OLD.text}\n", 0o640)
    host.run(["chgrp", "Debian-exim", "/etc/exim4/passwd.client"])
    host.run(["update-exim4.conf"])
    _divert(host, "/usr/sbin/update-exim4.conf", '"-d "*', '""')
    host.start("exim")


def _msmtp_by_hand(host: Tree) -> None:
    text = f'account default\nhost old.example.test\nauth on\ntls on\nuser old\npassword "{OLD.text}"\n'
    host.write("/etc/msmtprc", text, 0o640)
    host.run(["chgrp", "msmtp", "/etc/msmtprc"])
    _divert(host, "/usr/bin/msmtp", '*"-C "*', '*"--pretend -a"*')


BY_HAND = {"postfix": _postfix_by_hand, "exim": _exim_by_hand, "msmtp": _msmtp_by_hand}


@dataclass
class Fleet:
    """One host a backend, each with a relay and one that echoes, and all that is watched."""

    hosts: dict[str, Tree] = field(default_factory=dict)
    watches: dict[str, Watch] = field(default_factory=dict)


@contextmanager
def fleet(authority: Authority, *backends: str, **behaviour: Any) -> Iterator[Fleet]:
    made = Fleet()
    certificate = authority.good(RELAY_NAME)
    with ExitStack() as stack:
        for backend in backends:
            host = made.hosts[backend] = stack.enter_context(Tree(backend, name=backend))
            users = {"fleet": NEW.text, "next": NEXT.text}
            known = {"users": users, "tokens": {"fleet": TOKEN.text}, "auth_required": True, **behaviour}
            relay = Relay(listeners(certificate), **known)
            stack.enter_context(relay.start(in_net_of=host))
            echo = Hostile("auth", "echo", "starttls", certificate, limit=20)
            stack.enter_context(echo.start(RELAY_ADDRESS, ECHOING, in_net_of=host))
            host.write(CA, authority.ca_file.read_bytes())
            BY_HAND[backend](host)
            made.watches[backend] = stack.enter_context(Watch(host))
        yield made


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


# -- plays


class Story:
    """Tasks, each with how it has to end: a leak test whose tasks do not do what they say proves nothing."""

    def __init__(self) -> None:
        self.tasks: list[dict[str, Any]] = []
        self.ends: dict[str, str] = {}

    def service(self, task: str, end: str = "ok", check: bool = False, **options: Any) -> None:
        relay = {"host": RELAY_NAME, "security": "starttls", "ca_file": CA}
        given = {"backend": "{{ inventory_hostname }}", "name": "default", **relay, **options}
        self._add(task, end, {"fleetmail.smtp.smtp_service": given, "register": "told", "check_mode": check})

    def probe(self, name: str, end: str = "ok", **options: Any) -> None:
        relay = {"host": RELAY_NAME, "security": "starttls", "ca_file": CA, "timeout": 10}
        self._add(name, end, {"fleetmail.smtp.smtp_probe": {**relay, **options}})

    def run(self, command: str) -> None:
        self._add(command, "ok", {"ansible.builtin.raw": command})

    def show(self) -> None:
        """A result that is printed, and kept in a file of facts."""
        self._add("show it", "ok", {"ansible.builtin.debug": {"var": "told"}})
        self._add("keep it", "ok", {"ansible.builtin.set_fact": {"kept": "{{ told }}", "cacheable": True}})

    def _add(self, name: str, end: str, task: dict[str, Any]) -> None:
        self.tasks.append({"name": name, "ignore_errors": True, **task})
        self.ends[name] = end


def login(user: str, secret: str) -> dict[str, str]:
    return {"auth_type": "password", "username": user, "password": "{{ " + secret + " }}"}


SECRETS = {"new": NEW, "next": NEXT, "wrong": WRONG, "bad": BAD, "client": CLIENT, "token": TOKEN}
MAIL = {"to": ["you@example.test"], "sender": "me@example.test", "when": "always", "timeout": 15}


def short_story() -> Story:
    """What every version of ansible-core is asked."""
    story = Story()
    story.service("planned", **login("fleet", "new"), check=True)
    story.service("applied", **login("fleet", "new"), verify="auth", backup=True)
    story.show()
    story.service("compliant", **login("fleet", "new"), verify="auth")
    story.service("wrong password", "failed", **login("fleet", "wrong"), verify="auth")
    story.service("echoing relay", "failed", **login("fleet", "wrong"), verify="auth", port=ECHOING)
    story.service(
        "bad arguments", "failed", **login("fleet", "bad"), port="smtp", client_secret="{{ client }}", no_such=1
    )
    story.service("bad types", "failed", auth_type="password", username="u", password={"a": "{{ bad }}"}, port=0)
    story.probe("probed", **login("fleet", "new"))
    story.probe("probe refused", "failed", **login("fleet", "wrong"))
    story.probe("probe echoed", "failed", auth_type="oauth", username="fleet", access_token="{{ token }}", port=ECHOING)
    return story


def full_story() -> Story:
    story = short_story()
    story.service("bad list", "failed", auth_type="password", username="u", password=["{{ bad }}"], host="a b")
    story.service("oauth", "failed", auth_type="oauth", username="fleet", client_secret="{{ client }}", client_id="app")
    story.service("changed password", **login("next", "next"), verify="auth", backup=True)
    for name in ("checker", "start"):
        story.run(f"touch /run/talkative-{name}")
        end = "ok *" if name == "start" else "failed"  # msmtp has nothing that could be started
        story.service(f"talkative {name}", end, **login("fleet", "new"))
        story.run(f"test ! -e /run/talkative-{name}")
    story.service("mail by the relay", **login("next", "next"), test_send={**MAIL, "via": "relay"})
    story.service("mail by the host", **login("next", "next"), test_send={**MAIL, "via": "mta"})
    story.service("mail refused", "failed", **login("fleet", "wrong"), test_send={**MAIL, "via": "mta", "timeout": 3})
    story.probe("token refused", "failed", auth_type="oauth", username="fleet", access_token="{{ token }}")
    story.probe("mail from the probe", **login("fleet", "new"), test_send={k: MAIL[k] for k in ("to", "sender")})
    story.service("held", **login("next", "next"), enabled=False)
    story.service("gone", state="absent", client_secret="{{ client }}", **login("next", "next"))
    return story


def told(story: Story, folder: Path, hosts: list[Tree], **how: Any) -> Played:
    """Play it as loud as Ansible can, and see that every task ended as it should."""
    environment = {
        "ANSIBLE_DISPLAY_TRACEBACK": "always",
        "PYTHONPATH": str(PLUGINS / "audit"),
        "LAB_STARTED": str(folder / "output/started.jsonl"),
        **how.pop("environment", {}),
    }
    (folder / "output").mkdir(parents=True)
    variables = {name: canary.text for name, canary in SECRETS.items()} | how.pop("variables", {})
    played = play(folder, story.tasks, hosts, variables, ["-vvvv", "--diff"], environment, **how)
    ends = {(one.host, one.task): one.status for one in played.results}
    names = [host.name for host in hosts] or ["here"]
    wrong = {
        (host, task): played.of(task, host)
        for host in names
        for task, end in story.ends.items()
        if ends.get((host, task)) != (end if "*" not in end else "ok" if host == "msmtp" else "failed")
    }
    assert not wrong, json.dumps({str(key): value for key, value in wrong.items()}, indent=1) + played.err[-2000:]
    return played


# -- the search


def sightings_of(played: Played, folder: Path, cage: Cage) -> list[Sighting]:
    """What the play said, and every file that it wrote: results, log, facts, the programs that it started."""
    seen = cage.search("standard output", played.out.encode()) + cage.search("standard error", played.err.encode())
    started = (folder / "output/started.jsonl").read_bytes()
    assert b"nsenter" in started or b"AnsiballZ" in started, "nothing was noted of the programs that Ansible started"
    return seen + cage.search_folder(folder / "output")


def on_host(backend: str, host: Tree, watch: Watch, cage: Cage) -> list[Sighting]:
    """What programs of the host were given, and files that hold a secret but should not, or not as wide as that."""
    seen = []
    for program in watch.started:
        seen += cage.search(f"command line on {backend}", program.command)
        seen += cage.search(f"environment on {backend}", program.environment)
    for file in watch.written:
        if not file.path.startswith(f"{HOME}/.ansible/"):  # Ansible's own way of sending a module, without pipelining
            place = file.path.removeprefix(str(host.path))  # written from outside, into the tree
            told = cage.search(place, file.content) if _wrong(backend, place, file.mode) else []
            seen += [one._replace(place=f"{place} {file.mode:04o}") for one in told]
    upper = host.path.parent / "upper"
    for path in files_in(upper):
        place = "/" + str(path.relative_to(upper))
        found = path.lstat()
        for one in cage.search(place, path.read_bytes()):
            group = host.run(["stat", "-c", "%U:%G", place]).stdout.decode().strip()
            if _wrong(backend, place, found.st_mode & 0o7777) or group not in ("root:root", f"root:{GROUPS[backend]}"):
                seen.append(one._replace(place=f"{place} {found.st_mode:04o} {group}"))
    return seen


def _wrong(backend: str, path: str, mode: int) -> bool:
    """May a secret be in that file? Where the old one was by hand it may stay; nothing of it may be open to others."""
    if path.startswith(("/etc/postfix/main.cf", "/etc/postfix/.main.cf")):
        return False  # only what a person had written there, which the search for the others makes sure of
    if path.startswith("/var/lib/fleetmail/smtp/candidate-postfix/"):
        return bool(mode & ~0o600)  # the candidate of that main.cf, while Postfix judges it
    if not path.startswith(SECRET_FILES[backend]):
        return True
    return bool(mode & ~0o600) if path.endswith("~") else bool(mode & ~0o640)


def assert_in_main_cf_by_hand_only(host: Tree) -> None:
    cage = Cage([canary for canary in CANARIES if canary is not ELSEWHERE])
    for path in host.path.glob("etc/postfix/*main.cf*"):
        assert not cage.search(str(path), path.read_bytes())


def assert_recorded(watch: Watch, *programs: str) -> None:
    commands = b" ".join(program.command for program in watch.started)
    for program in programs:
        assert program.encode() in commands, "the watch does not see what runs"
    assert watch.written


@pytest.fixture(scope="module")
def cage() -> Cage:
    return Cage(CANARIES)


def environment_of(version: str) -> Path:
    try:
        return ansible_environment(version)
    except Unavailable as reason:
        pytest.skip(str(reason))


def test_nothing_leaks_in_a_whole_story_on_every_backend(tmp_path: Path, authority: Authority, cage: Cage) -> None:
    ansible = environment_of("2.21")
    with fleet(authority, "postfix", "exim", "msmtp") as made:
        played = told(full_story(), tmp_path, list(made.hosts.values()), ansible=ansible)
        seen = sightings_of(played, tmp_path, cage)
        for backend, host in made.hosts.items():
            seen += on_host(backend, host, made.watches[backend], cage)
        assert_recorded(made.watches["postfix"], "postconf", "postmap", "reload")
        assert_recorded(made.watches["exim"], "update-exim4.conf")
        assert_recorded(made.watches["msmtp"], "msmtp")
        assert_in_main_cf_by_hand_only(made.hosts["postfix"])
        for backend in made.hosts:
            assert played.of("wrong password", backend)["rolled_back"] is True
            assert played.of("talkative checker", backend)["rolled_back"] is True
            assert "********" in str(played.of("echoing relay", backend))
    assert not seen, "\n".join(map(str, seen))


CLIENT_OF = {"auth_type": "oauth", "username": "fleet", "client_id": "app", "client_secret": "{{ client }}"}


def prepared_story() -> Story:
    """A service with OAuth before anybody authorized it."""
    story = Story()
    story.service("planned", check=True, oauth_provider="google", **CLIENT_OF)
    story.service("prepared", verify="auth", backup=True, oauth_provider="google", **CLIENT_OF)
    story.show()
    return story


def authorized_story() -> Story:
    """The same with a token in the store."""
    story, google = Story(), {"oauth_provider": "google", **CLIENT_OF}
    story.service("compliant", verify="auth", **google)
    story.show()
    story.service("mail by the host", test_send={**MAIL, "via": "mta"}, **google)
    story.service("echoing relay", "failed", verify="auth", port=ECHOING, **google)
    story.run("chmod 0644 /var/lib/fleetmail/tokens/*; touch /run/talkative-checker")
    story.service("talkative checker", "failed", from_address="me@example.test", **google)
    story.service("mended", from_address="me@example.test", **google)
    story.service("another client", **{**google, "client_id": "another"})
    story.service("by password", verify="auth", **login("fleet", "new"))
    story.service("by token again", verify="auth", backup=True, **google)
    story.service("gone", state="absent", **google)
    return story


def test_nothing_leaks_of_a_service_with_an_access_token(tmp_path: Path, authority: Authority, cage: Cage) -> None:
    ansible = environment_of("2.21")
    with fleet(authority, "exim", "msmtp", mechanisms=MECHANISMS) as made:
        seen = []
        for story in (prepared_story(), authorized_story()):
            folder = tmp_path / str(len(story.tasks))
            played = told(story, folder, list(made.hosts.values()), ansible=ansible)
            seen += sightings_of(played, folder, cage)
            for host in made.hosts.values():
                authorize(host, TOKEN.text, refresh=REFRESH.text)
        for backend, host in made.hosts.items():
            seen += on_host(backend, host, made.watches[backend], cage)
            assert played.of("compliant", backend)["verification"]["reached"] == "auth"
            assert played.of("by token again", backend)["verification"]["reached"] == "auth"
            assert "********" in str(played.of("echoing relay", backend))
    assert not seen, "\n".join(map(str, seen))


@pytest.mark.parametrize("version", ["2.18", "2.22"])
def test_nothing_leaks_with_other_versions_of_ansible(
    tmp_path: Path, authority: Authority, cage: Cage, version: str
) -> None:
    """Up to 2.21 Ansible masks what is marked no_log, from 2.22 on what was registered. Without pipelining here."""
    ansible = environment_of(version)
    with fleet(authority, "postfix", "msmtp") as made:
        copied = {"ansible_pipelining": False}
        played = told(short_story(), tmp_path, list(made.hosts.values()), ansible=ansible, variables=copied)
        seen = sightings_of(played, tmp_path, cage)
        for backend, host in made.hosts.items():
            seen += on_host(backend, host, made.watches[backend], cage)
            sent = [file for file in made.watches[backend].written if f"{HOME}/.ansible/tmp/" in file.path]
            assert sent, "the module was not sent as a file"
            assert not list(host.inside(f"{HOME}/.ansible/tmp").glob("*"))
    assert not seen, "\n".join(map(str, seen))


# -- an exception that nobody foresaw, with every secret in its text

_FALLS_OVER = {
    "backends/postfix.py": """
def _fall_over(self, service, name, observed):
    raise RuntimeError("{} {} {}".format(service.password.reveal(), observed.secrets, self.host.read(MAIN)))
Postfix.desired = _fall_over
""",
    "backends/msmtp.py": """
def _fall_over(self, staged):
    try:
        raise ValueError([self.host.read(path) for path in staged.values()])
    except ValueError as error:
        raise KeyError(str(self.host.read(MAIN).content)) from error
Msmtp.check = _fall_over
""",
    "enforce.py": """
_told = Enforcement.result
def _fall_over(self):
    if self.order.service.name == "late":
        raise OSError(5, self.order.service.password.reveal(), self.order.service.oauth.client_secret.reveal())
    return _told(self)
Enforcement.result = _fall_over
""",
    "probe.py": """
def probe(target, level):
    raise RuntimeError(str(target.auth.token))
""",
}


def broken_collection(folder: Path) -> Path:
    plugins = folder / "ansible_collections/fleetmail/smtp/plugins"
    shutil.copytree(ROOT / "plugins", plugins, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in _FALLS_OVER.items():
        with (plugins / "module_utils/core" / name).open("a") as file:
            file.write(text)
    return folder


@pytest.mark.parametrize("version", ["2.18", "2.21", "2.22"])
def test_an_exception_shows_where_it_was_and_never_its_text(
    tmp_path: Path, authority: Authority, cage: Cage, version: str
) -> None:
    ansible = environment_of(version)
    story = Story()
    story.service("falls over", "failed", **login("fleet", "new"), client_secret="{{ client }}")
    story.service("falls over late", "failed", name="late", **login("fleet", "new"), client_secret="{{ client }}")
    story.probe("probe falls over", "failed", auth_type="oauth", username="fleet", access_token="{{ token }}")
    broken = {"ANSIBLE_COLLECTIONS_PATH": str(broken_collection(tmp_path / "broken"))}
    with fleet(authority, "postfix", "msmtp") as made:
        before = {backend: _etc(host) for backend, host in made.hosts.items()}
        played = told(story, tmp_path, list(made.hosts.values()), ansible=ansible, environment=broken)
        seen = sightings_of(played, tmp_path, cage)
        for backend, host in made.hosts.items():
            seen += on_host(backend, host, made.watches[backend], cage)
            assert _etc(host) == before[backend]
            for task in story.ends:
                message = played.of(task, backend)["msg"]
                assert "please report it" in message
                assert "Error at " in message
    assert not seen, "\n".join(map(str, seen))


def _etc(host: Tree) -> dict[str, bytes]:
    etc = host.path.parent / "upper/etc"
    return {str(path): path.read_bytes() for path in files_in(etc)}


# -- connection local, on a tree that nothing runs in


def test_nothing_leaks_on_a_tree_of_the_machine_itself(tmp_path: Path, authority: Authority, cage: Cage) -> None:
    story = Story()
    with Tree("msmtp") as host, Watch(host) as watch, Hostile("auth", "echo").start() as echo:
        host.write(CA, authority.ca_file.read_bytes())
        _msmtp_by_hand(host)
        tree = {"backend": "msmtp", "root": str(host.path)}
        story.service("planned", **tree, **login("fleet", "new"), check=True)
        story.service("applied", **tree, **login("fleet", "new"), backup=True)
        story.service("compliant", **tree, **login("fleet", "new"))
        story.service("changed password", **tree, **login("next", "next"), backup=True)
        here = {"host": "127.0.0.1", "port": echo.port, "security": "none", "ca_file": None}
        story.service("echoing relay", "failed", **tree, **login("fleet", "wrong"), **here, verify="auth")
        story.probe("probe echoed", "failed", **login("fleet", "wrong"), **here)
        story.service("bad arguments", "failed", **tree, **login("fleet", "bad"), port=0, client_secret="{{ client }}")
        story.service("gone", **tree, state="absent")
        remote = {"ANSIBLE_REMOTE_TMP": str(tmp_path / "output/remote")}
        played = told(story, tmp_path, [], ansible=environment_of("2.21"), environment=remote)
        seen = sightings_of(played, tmp_path, cage) + on_host("msmtp", host, watch, cage)
        assert_recorded(watch, "msmtp")
        assert OLD.text in host.read("/etc/msmtprc").decode()
    assert not seen, "\n".join(map(str, seen))


# -- the oldest Python of hosts

_ENGINE = """
import json, sys
sys.path.insert(0, sys.argv[1])
from core.enforce import enforce
from core.posix_host import PosixHost
from core.relay_check import check_relay
order = json.load(sys.stdin)
options, tree, wrong = order["options"], PosixHost(order["root"]), {"password": order["wrong"], "timeout": 5}
told = [enforce(options, tree, check) for check in (True, False, False)]
told.append(enforce({**options, **wrong, "verify": "auth"}, tree, False))
told.append(check_relay({**order["probe"], **wrong}, PosixHost(), False))
told.append(enforce({**options, "state": "absent"}, tree, False))
print(json.dumps(told))
"""


@pytest.mark.parametrize("backend", ["msmtp", "postfix"])  # Exim takes no relay on loopback
def test_the_core_runs_on_the_oldest_python_of_hosts(tmp_path: Path, cage: Cage, backend: str) -> None:
    python = pythons.find("3.9")
    if python is None:
        pytest.skip("there is no Python 3.9 here")
    root = tmp_path / "image"
    for path, text in _IMAGE.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    with Hostile("auth", "echo").start() as echo:
        probe = {"host": "127.0.0.1", "port": echo.port, "auth_type": "password", "username": "fleet", "timeout": 5}
        options = {"backend": backend, **probe, "password": NEW.text, "allow_cleartext_auth": True}
        order = {"options": options, "root": str(root), "wrong": WRONG.text, "probe": probe}
        done = subprocess.run(
            [python, "-B", "-I", "-c", _ENGINE, ROOT / "plugins/module_utils"],
            input=json.dumps(order).encode(),
            capture_output=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr.decode()
    planned, applied, compliant, refused, probed, gone = json.loads(done.stdout)
    assert [one["changed"] for one in (planned, applied, compliant, refused, gone)] == [True, True, False, False, True]
    assert not [one["msg"] for one in (planned, applied, compliant, gone) if "failed" in one]
    assert [refused["failed"], refused["rolled_back"], probed["failed"]] == [True, True, True]
    assert "********" in str(refused)
    assert cage.search("output", done.stdout + done.stderr) == []


_IMAGE: Mapping[str, str] = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\nDebian-exim:x:0:\n",
    "etc/postfix/main.cf": "relayhost =\n",
    "etc/postfix/master.cf": "smtp      unix  -       -       y       -       -       smtp\n",
    "etc/exim4/update-exim4.conf.conf": (
        "dc_eximconfig_configtype='local'\ndc_smarthost=''\ndc_use_split_config='true'\n"
    ),
    "etc/exim4/passwd.client": "# passwords\n",
    "var/lib/placeholder": "",
}
