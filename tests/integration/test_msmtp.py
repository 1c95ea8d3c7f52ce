# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real msmtp in a tree of its own, against a relay that tells what it was sent."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from lab import core
from lab.authority import Authority
from lab.layers import why_unavailable
from lab.relay import Behaviour, Relay, listeners
from lab.tree import HOME, RELAY_NAME, Tree

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends.base import Observed
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.backends.msmtp import Msmtp
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.enforce import enforce as enforce_here
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.host import Completed
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.posix_host import PosixHost
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.service import Service

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable())

MAIN = "/etc/msmtprc"
CA_FILE = "/etc/ssl/own ca.pem"
PASSWORD = "c4nary-pä ss\"'\\#$`word"
LOGIN = {"auth_type": "password", "username": "fleet", "password": PASSWORD}
PORTS = {"none": 25, "starttls": 587, "tls": 465}
MAIL = b"From: Someone <app@elsewhere.example>\nTo: r@example.org\nSubject: t\n\nhello\n.dot\n"
TEMPFAIL, CONFIG = 75, 78  # sysexits.h


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def machine(authority: Authority) -> Iterator[Tree]:
    with Tree("msmtp") as tree:
        tree.write(CA_FILE, authority.ca_file.read_bytes())
        yield tree


@pytest.fixture(scope="module")
def listening(machine: Tree, authority: Authority) -> Iterator[Relay]:
    with Relay(listeners(authority.good(RELAY_NAME))).start(in_net_of=machine) as relay:
        yield relay


@pytest.fixture
def host(machine: Tree) -> Tree:
    """The machine as it was installed."""
    machine.run(["sh", "-c", "rm -rf /etc/msmtprc* /srv/mail.conf /var/lib/fleetmail ~/.msmtprc /home/user/.config"])
    return machine


@pytest.fixture
def relay(listening: Relay) -> Relay:
    """The relay with its ordinary manners, and nothing remembered."""
    listening.behaviour = Behaviour()
    listening.change(users={"fleet": PASSWORD})
    listening.forget()
    return listening


class Outside:
    """The host with its engine beside it: files are reached from outside, programs run inside. It is quicker so."""

    root = "/"
    live = True

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._files = PosixHost(str(tree.path))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    def run(
        self, argv: Sequence[str], data: bytes = b"", timeout: float = 60, environment: Mapping[str, str] | None = None
    ) -> Completed:
        done = self._tree.run(list(argv), data, check=False, env=environment, timeout=timeout)
        out, err = (text.decode("utf-8", "surrogateescape") for text in (done.stdout, done.stderr))
        return Completed(done.returncode, out, err)


def enforced(host: Tree, options: dict[str, Any], check: bool = False) -> dict[str, Any]:
    return enforce_here(options, Outside(host), check)


def form(security: str = "starttls", **more: Any) -> dict[str, Any]:
    """A module's options for the relay."""
    service = {"host": RELAY_NAME, "security": security, "ca_file": CA_FILE, "backend": "msmtp", **more}
    if security == "none":
        service["allow_cleartext_auth"] = True
    return service


def applied(host: Tree, options: dict[str, Any]) -> dict[str, Any]:
    """Enforce it; the task must succeed."""
    result = enforced(host, options)
    assert "failed" not in result, result["msg"]
    return result


def drift_of(host: Tree, options: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What check mode reports, and it changes nothing."""
    before = snapshot(host)
    result = enforced(host, options, check=True)
    assert "failed" not in result, result["msg"]
    assert snapshot(host) == before
    assert result["changed"] == bool(result["drift"])
    return {one["field"]: (one["before"], one["after"]) for one in result["drift"]}


def snapshot(host: Tree) -> dict[str, tuple[Any, ...]]:
    """Content, mode and owner of everything that could be ours."""
    found = {}
    for folder in ("etc", "var/lib/fleetmail"):
        for path in (host.path / folder).rglob("*"):
            if path.is_file() and not path.is_symlink():
                status = path.stat()
                content = path.read_bytes() if "msmtp" in path.name or "fleetmail" in str(path) else b""
                found[str(path.relative_to(host.path))] = (content, status.st_mode, status.st_uid, status.st_gid)
    return found


def pretended(host: Tree, *arguments: str) -> dict[str, str]:
    """What msmtp itself would do, as the administrator asks it."""
    output = host.output(["msmtp", "--pretend", *arguments], env={"HOME": "/nonexistent"})
    return dict(line.split(" = ", 1) for line in output.splitlines() if " = " in line)


def send(host: Tree, *arguments: str, user: str | None = None) -> tuple[int, str]:
    """Hand a mail to sendmail, as programs do: exit code and words."""
    done = host.run(["/usr/sbin/sendmail", "-i", *arguments, "--", "r@example.org"], MAIL, check=False, user=user)
    return done.returncode, done.stderr.decode()


# -- check, real, check, real; then msmtp is asked -------------------------------------------------------------------


def test_the_sequence_and_what_msmtp_says_of_it(host: Tree, relay: Relay) -> None:
    options = form(**LOGIN, from_address="hosts@example.test", timeout=20)
    planned = core.enforce(host, options, check=True)
    assert planned["changed"]
    assert not host.exists(MAIN)
    real = core.enforce(host, options)
    assert [real[key] for key in ("changed", "drift", "diff")] == [planned[key] for key in ("changed", "drift", "diff")]
    assert core.enforce(host, options, check=True)["drift"] == []
    before = snapshot(host)
    assert not core.enforce(host, options)["changed"]
    assert snapshot(host) == before
    said = pretended(host)
    expected = {
        "host": RELAY_NAME, "port": "587", "timeout": "20 seconds", "auth": "choose", "user": "fleet", "password": "*",
        "tls": "on", "tls_starttls": "on", "tls_trust_file": CA_FILE, "tls_certcheck": "on", "socket": "(not set)",
        "from": "hosts@example.test", "allow_from_override": "off", "set_from_header": "on", "syslog": "LOG_MAIL",
    }  # fmt: skip
    assert {key: said[key] for key in expected} == expected
    assert PASSWORD not in str(planned) + str(real)


# -- the matrix ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("security", PORTS)
@pytest.mark.parametrize("mechanisms", [None, ["PLAIN"], ["LOGIN"], ["PLAIN", "LOGIN"]], ids=str)
def test_mail_arrives_over_the_security_and_with_the_login_that_were_asked_for(
    host: Tree, relay: Relay, security: str, mechanisms: list[str] | None
) -> None:
    relay.change(mechanisms=mechanisms or ["PLAIN"], auth_required=mechanisms is not None)
    options = form(security, from_address="hosts@example.test", **(LOGIN if mechanisms else {}))
    if security == "none" and mechanisms == ["LOGIN"]:
        options["backend_options"] = {"auth": "login"}
    applied(host, options)
    assert send(host, "-f", "app@elsewhere.example") == (0, "")
    (message,) = relay.messages()
    assert message.sender == "hosts@example.test"
    assert message.email["From"] == "hosts@example.test"
    assert message.data.endswith(b"hello\r\n.dot\r\n")
    assert (message.tls is None) == (security == "none")
    (session,) = relay.sessions()
    assert session.listener.startswith(security)
    attempts = [(attempt.user, attempt.secret, attempt.tls) for attempt in session.auths]
    assert attempts == ([(b"fleet", PASSWORD.encode(), security != "none")] if mechanisms else [])


@pytest.mark.parametrize("fault", ["wrong_name", "expired", "from_unknown_ca"])
def test_a_bad_certificate_is_refused_and_no_credential_sent(authority: Authority, fault: str) -> None:
    bad = authority.wrong_name() if fault == "wrong_name" else getattr(authority, fault)(RELAY_NAME)
    with Tree("msmtp") as host, Relay(listeners(bad), users={"fleet": PASSWORD}).start(in_net_of=host) as relay:
        host.write(CA_FILE, authority.ca_file.read_bytes())
        for security in ("starttls", "tls"):
            relay.forget()
            applied(host, form(security, **LOGIN))
            code, words = send(host)
            assert code != 0
            assert "certificate" in words
            assert relay.messages() == []
            assert not any(session.saw_credentials for session in relay.sessions())
            applied(host, form(security, **LOGIN, validate_certs=False))
            assert send(host) == (0, "")
            assert len(relay.messages()) == 1


def test_a_stripped_starttls_is_refused_and_no_credential_sent(host: Tree, relay: Relay) -> None:
    applied(host, form("starttls", port=PORTS["none"], **LOGIN))
    code, words = send(host)
    assert code != 0
    assert "STARTTLS" in words
    assert not any(session.saw_credentials or session.messages for session in relay.sessions())


def test_the_systems_certificates_are_used_without_a_ca_file(host: Tree, relay: Relay, authority: Authority) -> None:
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    distributed = host.read(bundle)
    applied(host, {**form(**LOGIN), "ca_file": ""})
    assert send(host)[0] != 0
    host.write(bundle, distributed + authority.ca_file.read_bytes())
    assert send(host) == (0, "")
    host.write(bundle, distributed)


def test_a_relay_that_says_nothing_does_not_hang_the_sender(host: Tree, relay: Relay) -> None:
    applied(host, form("starttls", port=PORTS["tls"], timeout=1))
    assert send(host)[0] != 0


# -- passwords -------------------------------------------------------------------------------------------------------

ASCII = "".join(chr(code) for code in range(32, 127))
WORDS = {
    "all of ASCII": ASCII,
    "backwards": ASCII[::-1],
    "UTF-8": "pässwörd€𝄞\u2028\u00a0\u0085x",
    "tabs": "\tin\tand\tout\t",
    "blanks": "  both ends  ",
    "one blank": " ",
    "quotes around": '"quoted"',
    "one quote": '"',
    "quotes and blanks": '" "',
    "a backslash last": "pass\\",
    "like a command": "x$(id)`id`%U%s",
    "like our marks": "# END fleetmail.smtp default",
    "caret": "^x",
    "488 bytes": "x" * 488,
    "489 bytes": "x" * 489,
    "500 bytes in a file": "x" * 500,
    "501 bytes in a file": "x" * 501,
    "1,500 of everything": (" \\\"'" + ASCII + "\tö") * 16,
}


def test_the_relay_sees_the_very_bytes(host: Tree, relay: Relay) -> None:
    relay.change(auth_required=True)
    for name, password in WORDS.items():
        options = form(auth_type="password", username="fleet", password=password)
        relay.change(users={"fleet": password})
        relay.forget()
        result = applied(host, options)
        assert send(host) == (0, ""), name
        (attempt,) = relay.sessions()[0].auths
        assert (name, attempt.user, attempt.secret) == (name, b"fleet", password.encode())
        assert drift_of(host, options) == {}, name
        assert len(password) < 4 or password not in str(result), name


def test_every_printable_character_anywhere_in_name_and_password(host: Tree, relay: Relay) -> None:
    pairs = [(f"{c}a{c}b{c}", c) for c in ASCII] + [(c, f"{c}{c} x{c}") for c in " \"'\\#$öß€"]
    for user, secret in pairs:
        service = Service.from_options(form("none", auth_type="password", username=user, password=secret))
        backend = Msmtp(Outside(host))
        (main,) = (state for state in backend.desired(service, "default", Observed({})) if state.path == MAIN)
        host.write(MAIN, main.content or b"", 0o640)
        assert backend.read("default").form["username"] == user
        send(host)
    seen = [(attempt.user, attempt.secret) for session in relay.sessions() for attempt in session.auths]
    assert seen == [(user.encode(), secret.encode()) for user, secret in pairs]


def test_a_changed_long_password_is_switched_by_one_rename(host: Tree, relay: Relay) -> None:
    relay.change(users={"fleet": "y" * 1500}, auth_required=True)
    for letter in "xy":
        applied(host, form(auth_type="password", username="fleet", password=letter * 1500))
    assert [path.name for path in (host.path / "etc").glob("msmtprc.*")] == ["msmtprc.default.b"]
    assert send(host) == (0, "")
    assert relay.sessions()[-1].auths[0].secret == b"y" * 1500
    assert (host.path / "etc/msmtprc.default.b").stat().st_mode & 0o777 == 0o640


# -- who may read, who may send --------------------------------------------------------------------------------------


def permissions(host: Tree, path: str = MAIN) -> list[str]:
    return host.output(["stat", "-c", "%a %U %G", path]).split()


@pytest.mark.parametrize(
    ("options", "expected", "user_sends"),
    [
        (LOGIN, ["640", "root", "msmtp"], False),
        ({}, ["644", "root", "root"], True),
        ({**LOGIN, "backend_options": {"mode": "0644"}}, ["644", "root", "msmtp"], True),
        ({**LOGIN, "backend_options": {"group": "user"}}, ["640", "root", "user"], True),
        ({**LOGIN, "backend_options": {"owner": "user", "group": "root"}}, ["600", "user", "root"], True),
    ],
)
def test_permissions_and_who_can_send(
    host: Tree, relay: Relay, options: dict[str, Any], expected: list[str], user_sends: bool
) -> None:
    result = applied(host, form(**options))
    assert permissions(host) == expected
    assert send(host) == (0, "")
    assert (send(host, user="user")[0] == 0) == user_sends
    told = any("can send" in warning for warning in result["warnings"])
    assert told == (options.get("auth_type") is not None and expected[0] != "644")


def test_a_setgid_msmtp_reads_its_file_for_everybody_but_not_a_password_file(host: Tree, relay: Relay) -> None:
    host.run(["sh", "-c", "chgrp msmtp /usr/bin/msmtp && chmod 2755 /usr/bin/msmtp"])
    try:
        for password, sends in ((PASSWORD, True), ("x" * 600, False)):
            relay.change(users={"fleet": password}, auth_required=True)
            result = applied(host, form(**{**LOGIN, "password": password}))
            assert (send(host, user="user")[0] == 0) == sends
            assert any("can send" in warning for warning in result["warnings"]) != sends
    finally:
        host.run(["sh", "-c", "chgrp root /usr/bin/msmtp && chmod 755 /usr/bin/msmtp"])


# -- disabled --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        form(**LOGIN),
        form("none"),
        form(**{**LOGIN, "password": "x" * 1500}),
        {"backend": "msmtp"},
        {"backend": "msmtp", "auth_type": "password", "security": "tls"},
        form(senders=["app@elsewhere.example"]),
    ],
)
def test_a_disabled_service_refuses_for_now_and_nothing_leaves(
    host: Tree, relay: Relay, options: dict[str, Any]
) -> None:
    disabled = {**options, "enabled": False}
    applied(host, disabled)
    code, words = send(host, "-f", "app@elsewhere.example")
    assert code == TEMPFAIL
    assert "mail is disabled (service default)" in words
    assert relay.sessions() == []
    assert drift_of(host, disabled) == {}
    if options.get("host"):
        assert drift_of(host, {**disabled, "port": 2525}) == {"port": (PORTS[options["security"]], 2525)}
        assert drift_of(host, options) == {"enabled": (False, True)}
        host.write(MAIN, re.sub(rb"(?m)^socket .*\n", b"", host.read(MAIN)), 0o640)
        assert drift_of(host, disabled)["enabled"] == (True, False)


def test_it_sends_again_once_enabled(host: Tree, relay: Relay) -> None:
    applied(host, form(enabled=False, **LOGIN))
    assert send(host)[0] == TEMPFAIL
    applied(host, form(**LOGIN))
    assert send(host) == (0, "")


# -- absent ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, b"", b"account default\nhost x\nfrom a@b", b"\xff\x00 not even text\r\n"])
def test_absent_gives_back_what_was_there(host: Tree, content: bytes | None) -> None:
    if content is not None:
        host.write(MAIN, content, 0o600)
        host.run(["chown", "user:mail", MAIN])
    before = snapshot(host)
    applied(host, form(**LOGIN))
    applied(host, form(**{**LOGIN, "password": "x" * 1500}))
    applied(host, form(name="b", senders=["example.com"]))
    assert snapshot(host) != before
    applied(host, {"name": "default", "state": "absent", "backend": "msmtp"})
    assert drift_of(host, form(name="b", senders=["example.com"])) == {}
    applied(host, {"name": "b", "state": "absent", "backend": "msmtp"})
    assert snapshot(host) == before
    again = enforced(host, {"name": "b", "state": "absent", "backend": "msmtp"})
    assert not again["changed"]


def test_a_link_stays_a_link(host: Tree) -> None:
    host.write("/srv/mail.conf", b"account default\nhost x\n")
    host.run(["ln", "-s", "../srv/mail.conf", MAIN])
    applied(host, form(**LOGIN))
    assert (host.path / "etc/msmtprc").is_symlink()
    assert b"BEGIN fleetmail.smtp" in host.read("/srv/mail.conf")
    applied(host, {"state": "absent", "backend": "msmtp"})
    assert host.read("/srv/mail.conf") == b"account default\nhost x\n"


# -- drift -----------------------------------------------------------------------------------------------------------


def edited(old: bytes, new: bytes) -> Callable[[Tree], None]:
    def edit(host: Tree) -> None:
        text = host.read(MAIN)
        assert old in text
        host.write(MAIN, text.replace(old, new), 0o640)
        host.run(["chown", "root:msmtp", MAIN])

    return edit


def ran(*argv: str) -> Callable[[Tree], None]:
    return lambda host: [host.run(argv), None][1]


def shadowed(host: Tree) -> None:
    """A later line wins over ours."""
    edited(b"# END", b"host elsewhere.example.test\n# END")(host)


DRIFTS: dict[str, tuple[Callable[[Tree], None], dict[str, tuple[Any, Any]]]] = {
    "port": (edited(b"port 587", b"port 2525"), {"port": (2525, 587)}),
    "a later line": (shadowed, {"host": ("elsewhere.example.test", RELAY_NAME)}),
    "a later account": (
        edited(b"account default\n", b"account mine\nhost h\naccount default : mine\ntls off\naccount old\n"),
        {"host": ("h", RELAY_NAME), "port": (25, 587), "security": ("none", "starttls")},
    ),
    "certificates": (edited(b"tls_certcheck on", b"tls_certcheck off"), {"validate_certs": (False, True)}),
    "the password": (edited(b'password "', b'password "x'), {"password": ("(set)", "(changed)")}),
    "no password": (edited(b"password ", b"#password "), {"password": ("(unset)", "(set)")}),
    "a helper": (edited(b"password ", b"passwordeval cat /nowhere\n#"), {"password": ("(unset)", "(set)")}),
    "the sender": (edited(b"override off", b"override on"), {"from_address": ("", "hosts@example.test")}),
    "what is no field": (edited(b"LOG_MAIL", b"LOG_USER"), {f"content of {MAIN}": ("(differs)", "(managed)")}),
    "nonsense": (edited(b"port 587", b"port 587\nc4nary-nonsense"), {"host": (None, RELAY_NAME)}),
    "a wide mode": (ran("chmod", "644", MAIN), {f"mode of {MAIN}": ("0644", "0640")}),
    "a wrong owner": (ran("chown", "user", MAIN), {f"owner of {MAIN}": ("user", "root")}),
    "a wrong group": (ran("chgrp", "user", MAIN), {f"group of {MAIN}": ("user", "msmtp")}),
    "deleted": (ran("rm", MAIN), {"host": (None, RELAY_NAME), "port": (None, 587)}),
}


@pytest.mark.parametrize("name", DRIFTS)
def test_drift_is_told_exactly_and_repaired(host: Tree, relay: Relay, name: str) -> None:
    options = form(**LOGIN, from_address="hosts@example.test")
    applied(host, options)
    good = {key: value for key, value in snapshot(host).items() if "originals" not in key}
    spoil, expected = DRIFTS[name]
    spoil(host)
    found = drift_of(host, options)
    assert expected.items() <= found.items()
    if not {"host", "password"} & expected.keys():
        assert found == expected
    result = applied(host, options)
    assert result["changed"]
    assert "c4nary" not in str(result)
    assert {key: value for key, value in snapshot(host).items() if "originals" not in key} == good
    assert send(host) == (0, "")


def test_a_lost_password_file_is_drift(host: Tree, relay: Relay) -> None:
    relay.change(users={"fleet": "x" * 900}, auth_required=True)
    options = form(**{**LOGIN, "password": "x" * 900})
    applied(host, options)
    host.run(["chmod", "644", "/etc/msmtprc.default.a"])
    assert drift_of(host, options) == {"mode of /etc/msmtprc.default.a": ("0644", "0640")}
    host.run(["rm", "/etc/msmtprc.default.a"])
    assert drift_of(host, options) == {"password": ("(unset)", "(set)")}
    applied(host, options)
    assert send(host) == (0, "")


def test_files_of_users_are_told_and_left_alone(host: Tree, relay: Relay) -> None:
    host.write(f"{HOME}/.msmtprc", "account default\nhost nowhere.example.test\n", 0o600)
    host.write("/home/user/.config/msmtp/config", "account default\nhost nowhere.example.test\n", 0o600)
    result = applied(host, form(**LOGIN))
    for path, user in ((f"{HOME}/.msmtprc", "root"), ("/home/user/.config/msmtp/config", "user")):
        assert f"{path} replaces the accounts of {MAIN} for the user {user}" in result["warnings"]
        assert b"nowhere" in host.read(path)
    assert send(host)[0] != 0
    assert drift_of(host, form(**LOGIN)) == {}


def test_a_configuration_by_hand_is_compared_by_what_it_does(host: Tree) -> None:
    text = f"defaults\ntls on\ntls_trust_file {CA_FILE}\naccount x\nhost {RELAY_NAME}\nport 587\naccount default : x\n"
    host.write(MAIN, text + "timeout 30\nauth on\nuser fleet\npassword old\n", 0o640)
    host.run(["chown", "root:msmtp", MAIN])
    found = drift_of(host, form(**LOGIN))
    assert found == {"password": ("(set)", "(changed)")}


# -- several services ------------------------------------------------------------------------------------------------

SENDERS = {
    "a@one.example": "one",
    "A@One.Example": "one",
    "a+tag@one.example": "one",
    "a+own@one.example": "two",
    "b@one.example": "two",
    "b+tag@one.example": "two",
    "B@ONE.example": "two",
    "x@two.example": "two",
    "x+y+z@TWO.Example": "two",
    "c@two.example": "one",
    "x@sub.two.example": "rest",
    "x@else.example": "rest",
    "rest@two.example": "two",
}


def test_mail_goes_through_the_service_of_its_sender(host: Tree, relay: Relay) -> None:
    users = {"one": "1" * 600, "two": "2", "rest": "3"}
    relay.change(users=users, auth_required=True)
    senders = {"one": ["a@one.example", "C@two.example"], "two": ["one.example", "@two.example", "a+own@one.example"]}
    services = [
        form(name=name, auth_type="password", username=name, password=users[name], senders=senders.get(name, []))
        for name in ("rest", "two", "one")
    ]
    services[0]["from_address"] = "rest@two.example"
    for options in services:
        applied(host, options)
    for options in services:
        assert drift_of(host, options) == {}
    for sender, user in SENDERS.items():
        assert send(host, "-f", sender) == (0, "")
        message = relay.messages()[-1]
        assert (sender, message.auth_user) == (sender, user.encode())
        assert message.sender == ("rest@two.example" if user == "rest" else sender)
    assert send(host) == (0, "")  # cron gives no sender
    assert relay.messages()[-1].auth_user == b"rest"
    applied(host, {"name": "rest", "state": "absent", "backend": "msmtp"})
    assert send(host, "-f", "x@else.example") == (CONFIG, f"sendmail: account default not found in {MAIN}\n")
    assert send(host, "-f", "x@two.example") == (0, "")


def test_one_disabled_service_holds_up_no_other(host: Tree, relay: Relay) -> None:
    applied(host, form(name="on", senders=["on.example"]))
    applied(host, form(name="off", senders=["off.example"], enabled=False))
    assert send(host, "-f", "x@off.example")[0] == TEMPFAIL
    assert send(host, "-f", "x@on.example") == (0, "")
    assert [message.sender for message in relay.messages()] == ["x@on.example"]


def test_a_sender_that_is_rewritten_to_itself(host: Tree, relay: Relay) -> None:
    options = form(name="a", senders=["a@one.example"], from_address="A@one.example")
    applied(host, options)
    assert drift_of(host, options) == {}
    assert send(host, "-f", "a+x@one.example") == (0, "")
    assert relay.messages()[-1].sender == "A@one.example"


def test_a_second_service_for_all_mail_is_refused_and_nothing_happens(host: Tree) -> None:
    applied(host, form(name="main"))
    before = snapshot(host)
    result = enforced(host, form(name="other"))
    assert result["failed"]
    assert [problem["option"] for problem in result["problems"]] == ["senders"]
    assert "main" in result["msg"]
    assert snapshot(host) == before


def test_without_any_sender_the_hosts_own_name_is_used(host: Tree, relay: Relay) -> None:
    applied(host, form())
    assert send(host) == (0, "")
    assert relay.messages()[-1].sender == "root@client.example.test"


# -- proved by sending, undone when it fails -------------------------------------------------------------------------


def test_a_test_send_through_msmtp_tells_the_relays_reply(host: Tree, relay: Relay) -> None:
    options = form(**LOGIN, from_address="hosts@example.test", test_send={"to": ["r@example.org"], "via": "mta"})
    sent = applied(host, options)["test_send"]
    assert (sent["sent"], sent["via"]) == (True, "mta")
    assert re.match(r"250 2\.0\.0 Queued as (\d+)", sent["reply"])
    (message,) = relay.messages()
    assert message.email["Message-ID"] == sent["message_id"]
    assert message.auth_user == b"fleet"


@pytest.mark.parametrize(
    ("behaviour", "reply"),
    [
        ({"rcpt_replies": {"*": "550 5.1.1 nobody here"}}, "550 5.1.1 nobody here"),
        ({"auth_reply": "535 5.7.139 basic authentication is disabled"}, "535 5.7.139"),
        ({"data_reply": "554 5.7.1 spam"}, "554 5.7.1 spam"),
    ],
)
def test_a_refused_test_send_puts_the_host_back(
    host: Tree, relay: Relay, behaviour: dict[str, Any], reply: str
) -> None:
    relay.change(**behaviour)
    host.write(MAIN, "account default\nhost old.example.test\nfrom a@b\n", 0o604)
    before = snapshot(host)
    result = enforced(host, form(**LOGIN, test_send={"to": ["r@example.org"], "via": "mta"}))
    assert result["failed"]
    assert result["rolled_back"]
    assert reply in result["msg"]
    assert snapshot(host) == before


# -- in a tree, from outside -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["bare", "msmtp"])
def test_a_tree_is_prepared_from_outside(authority: Authority, role: str) -> None:
    with Tree(role) as host:
        host.write(CA_FILE, authority.ca_file.read_bytes())
        tree = PosixHost(str(host.path))
        first = enforce_here(form(**LOGIN), tree, False)
        assert (first["changed"], "failed" in first) == (True, False)
        assert not enforce_here(form(**LOGIN), tree, False)["changed"]
        assert permissions(host) == ["640", "root", "msmtp"] if role == "msmtp" else ["600", "root", "root"]
        assert any("not in the tree" in warning for warning in first["warnings"]) == (role == "bare")
        assert first["actions"] == []
        if role == "msmtp":
            assert pretended(host)["user"] == "fleet"


SETTINGS = (
    *("host b.example", "port 2525", "\tport 26 ", "timeout 7", "timeout off", "connect_timeout 9", "tls", "tls off"),
    *("tls_starttls off", "tls_starttls", "tls_nostarttls", "tls_certcheck off", "tls_trust_file /x y.pem", "auth"),
    *("auth off", "auth plain", 'user " x "', "user y", 'user ""z', 'password "z"', "passwordeval touch /ran"),
    *("from f@example.com", "allow_from_override off", "allow_from_override", "set_from_header on", "# no", " \t"),
    *("set_from_header off", "socket /run/x", "syslog", "host c.example\r", "domain %H", "tls_trust_file"),
)


def test_our_reading_of_the_file_is_msmtps(host: Tree) -> None:
    """The two ways of reading, by msmtp and by ourselves, agree on whatever is in the file."""
    dice = random.Random(20)

    def account(head: str, *parents: str) -> list[str]:
        inherits = dice.sample(parents, dice.randint(0, len(parents)))
        head = f"{head} : {' , '.join(inherits)}" if inherits else head
        return [head, "host a.example", *dice.sample(SETTINGS, dice.randint(0, 8))]

    agreed = 0
    for _turn in range(60):
        lines = [*dice.choice([[], ["defaults"]]), *dice.sample(SETTINGS, 4)]
        if lines[0] != "defaults":
            lines = ["# nothing before"]
        lines += [*account("account a"), *account("account b", "a"), *account('account "c"', "a", "b")]
        lines += [*account("account default", "a", "b", "c"), *dice.sample(SETTINGS, 2)]
        host.write(MAIN, "".join(f"{line}\n" for line in lines))
        ours = Msmtp(PosixHost(str(host.path))).read("default").form
        theirs = Msmtp(Outside(host)).read("default").form
        assert theirs in (ours, {}), "\n".join(lines)  # nothing: it refuses an account that contradicts itself
        agreed += theirs == ours
    assert agreed > 20
    assert not host.exists("/ran")
