# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whatever is wrong: one clear failure with every problem in it, no traceback, and a host that is as it was.

The modules themselves with Ansible's own argument parsing, on real hosts and against relays that misbehave.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from lab.authority import Authority
from lab.hostile import Hostile
from lab.layers import build_layer, why_unavailable
from lab.module import Answer, call
from lab.relay import Relay, listeners
from lab.tree import RELAY_ADDRESS, RELAY_NAME, Tree

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "the lab is there")

CA = "/etc/ssl/relay-ca.pem"
PASSWORD = "Argumentvogel1C7u"
RELAY = {"host": RELAY_NAME, "security": "starttls"}
LOGIN = {**RELAY, "auth_type": "password", "username": "fleet", "password": PASSWORD}
ROLES = {"postfix": "postfix", "exim": "exim", "msmtp": "msmtp"}
NOT_OURS = ("opt/module", "var/log", "root", "run", "tmp")  # the modules under test, and what daemons write
Listing = dict[str, tuple[Any, ...]]


def listing(host: Tree) -> Listing:
    """Everything of the host that is not as it was installed: kind, mode, owner and content, removed files too.

    That a directory was copied into the writable layer with something in it says nothing.
    """
    upper, lower = host.path.parent / "upper", build_layer(host.role, host.suite)
    found: Listing = {}
    for folder, folders, names in os.walk(upper):
        inside = os.path.relpath(folder, upper)
        folders[:] = [name for name in folders if os.path.normpath(f"{inside}/{name}") not in NOT_OURS]
        for path in (Path(folder, name) for name in (*folders, *names)):
            place = path.relative_to(upper)
            installed = next((layer / place for layer in lower if (layer / place).exists()), None)
            described = _described(path)
            if not (path.is_dir() and installed and _described(installed) == described):
                found[str(place)] = described
    return found


def _described(path: Path) -> tuple[Any, ...]:
    seen = path.lstat()
    content: str | int = ""
    if stat.S_ISREG(seen.st_mode):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    elif stat.S_ISLNK(seen.st_mode):
        content = os.readlink(path)
    return stat.S_IFMT(seen.st_mode), stat.S_IMODE(seen.st_mode), seen.st_uid, seen.st_gid, content


def refused(answer: Answer, what: object = "") -> set[str]:
    """The options that a failure names. It has to be one that a person can use."""
    assert "Traceback" not in answer.noise, f"{what}: {answer.noise}"
    result = answer.result
    assert answer.code == 1, what
    assert result["failed"] is True, what
    assert result.get("changed", False) is False, what
    assert result["problems"], what
    assert result["msg"].strip().isprintable(), what
    assert "internal error" not in str(result), what
    assert PASSWORD not in str(result), what
    for problem in result["problems"]:
        assert problem.keys() == {"option", "problem", "hint"}, what
        assert problem["problem"], what
    return {problem["option"] for problem in result["problems"]}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def host(authority: Authority) -> Iterator[Tree]:
    """A host with Postfix as it was installed; whatever a test does, it has to be so after it."""
    with Tree("postfix") as tree:
        tree.write(CA, authority.ca_file.read_bytes())
        tree.write("/etc/ssl/key.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", 0o600)
        tree.write("/etc/ssl/broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        tree.write("/etc/ssl/der", b"\x30\x82\x03\x0f\x30")
        tree.write("/etc/ssl/empty", "")
        tree.inside("/etc/ssl/loop").symlink_to("loop")
        call(tree, [])  # lays the modules down
        yield tree


# -- arguments: (what is wrong with it, the options that have to be named)

BREAKS = {"newline": "a\nb", "return": "a\rb", "NUL": "a\0b"}
TEXTS = (
    *("name", "host", "username", "password", "ca_file", "from_address", "verify_recipient", "root"),
    *("authorization_url", "token_url", "client_id", "client_secret", "oauth_provider", "oauth_tenant"),
)
OAUTH = {"auth_type": "oauth", "password": None, "client_id": "app", "oauth_provider": "microsoft365"}
SINGLE: list[tuple[dict[str, Any], set[str]]] = [
    *(
        ({"host": text}, {"host"})
        for text in ("mail relay", " ", f" {RELAY_NAME}", "smtp://relay", f"{RELAY_NAME}:587")
    ),
    *(
        ({"host": text}, {"host"})
        for text in ("[::1]:25", "::1%lo", "1.2.3", "256.1.1.1", "ä.example", "x" * 5000, "", None)
    ),
    *(({"port": port}, {"port"}) for port in (0, 65536, -1, "smtp", 1.5, True, [25], {})),
    *(({"security": word}, {"security"}) for word in ("ssl", "", "STARTTLS", True, 5)),
    *(({"auth_type": word}, {"auth_type"}) for word in ("plain", "")),
    *(({"timeout": seconds}, {"timeout"}) for seconds in (0, -1, 3601, 10**30, "soon", True)),
    ({"password": None}, {"password"}),
    ({"password": ""}, {"password"}),
    ({"username": None}, {"username"}),
    ({"username": ""}, {"username"}),
    ({"auth_type": "none"}, {"username", "password"}),
    ({"security": "none"}, {"security"}),
    ({"auth_type": "oauth"}, {"password", "client_id", "token_url", "authorization_url"}),
    ({**OAUTH, "token_url": "http://login.example.test/token"}, {"token_url"}),
    ({**OAUTH, "authorization_url": "https://login.example.test/authorize#x"}, {"authorization_url"}),
    *(
        ({**OAUTH, "scope": given}, {"scope"})
        for given in ("smtp smtp", ["smtp", ""], "https://outlook.office.com/SMTP.Send")
    ),
    *(({**OAUTH, "oauth_tenant": tenant}, {"oauth_tenant"}) for tenant in ("no tenant", "../x", "a/b", "{tenant}")),
    ({**OAUTH, "oauth_provider": "nobody"}, {"oauth_provider"}),
    ({**OAUTH, "client_secret": ""}, {"client_secret"}),
    ({**OAUTH, "username": None}, {"username"}),
    ({**OAUTH, "oauth_grant": "password"}, {"oauth_grant"}),  # RFC 9700 2.4: never
    *(({"ca_file": path}, {"ca_file"}) for path in ("/etc/ssl/none.pem", "/etc/ssl", "/etc/ssl/loop", "relay.pem")),
    *(({"ca_file": f"/etc/ssl/{name}"}, {"ca_file"}) for name in ("key.pem", "broken.pem", "der", "empty")),
    *(({"from_address": text}, {"from_address"}) for text in ("nobody", "a b@example.test", "a@", "@example.test")),
    *(({"senders": given}, {"senders"}) for given in (["!"], [""], [None], [{}], ["a@example.test", "A@example.test"])),
    ({"verify": "all"}, {"verify"}),
    ({"verify": "recipient"}, {"verify_recipient"}),
    ({"verify_recipient": "x"}, {"verify_recipient"}),
    ({"state": "gone"}, {"state"}),
    ({"enabled": "maybe"}, {"enabled"}),
    ({"backend": "sendmail"}, {"backend"}),
    ({"backend": "msmtp"}, {"backend"}),  # not installed
    ({"backend_options": {"no_such": 1}}, {"backend_options.no_such"}),
    ({"backend_options": {"null_client": "yes"}}, {"backend_options.null_client"}),
    *(({"backend_options": given}, {"backend_options"}) for given in (5, [1], "x")),
    *(({"scope": given}, {"scope"}) for given in (5, True, {"a": 1}, [None], 'a"b')),
    *(({"root": path}, {"root"}) for path in ("/nonexistent", "image", "/etc")),
    ({"no_such_option": 1}, {"no_such_option"}),
    ({"test_send": "x"}, {"test_send"}),
    ({"test_send": {}}, {"test_send.to"}),
    ({"test_send": {"to": []}}, {"test_send.to"}),
    ({"test_send": {"to": ["x"], "sender": "y"}}, {"test_send.to", "test_send.sender"}),
    ({"test_send": {"to": ["a@b.test"], "timeout": "soon"}}, {"test_send.timeout"}),
    ({"test_send": {"to": ["a@b.test"], "via": "air", "when": "never"}}, {"test_send.via", "test_send.when"}),
    ({"test_send": {"to": ["a@b.test"], "no_such": 1}}, {"test_send.no_such"}),
    *(({option: text}, {option}) for option in TEXTS for text in BREAKS.values()),
    *(({option: "/etc/" + text}, {option}) for option in ("ca_file", "root") for text in BREAKS.values()),
    *(({"senders": [text]}, {"senders"}) for text in BREAKS.values()),
    *(({"test_send": {"to": [text]}}, {"test_send.to"}) for text in BREAKS.values()),
    *(
        ({"test_send": {"to": ["a@b.test"], option: text}}, {f"test_send.{option}"})
        for option in ("sender", "subject")
        for text in BREAKS.values()
    ),
    ({"test_send": {"to": ["a@b.test"], "body": "a\0b"}}, {"test_send.body"}),
    ({"scope": "a\0b"}, {"scope"}),
    ({"backend": "a\nb"}, {"backend"}),
]


def test_each_bad_argument_is_one_clear_failure_and_the_host_is_as_it_was(host: Tree) -> None:
    before = listing(host)
    calls = [("smtp_service", {"backend": "postfix", **LOGIN, **given}) for given, _named in SINGLE]
    answers = call(host, calls)
    for (given, named), answer in zip(SINGLE, answers, strict=True):
        assert named <= refused(answer, ascii(given)), ascii(given)
    assert listing(host) == before


def test_check_mode_refuses_the_same(host: Tree) -> None:
    """Only what is missing is no error there: an earlier task may be about to install or to copy it."""
    before = listing(host)
    missing = ({"backend": "msmtp"}, {"ca_file": "/etc/ssl/none.pem"}, {"ca_file": "/etc/ssl/loop"})
    chosen = [one for one in SINGLE if one[0] not in missing]
    answers = call(
        host, [("smtp_service", {"backend": "postfix", **LOGIN, **given}) for given, _named in chosen], check=True
    )
    for (given, named), answer in zip(chosen, answers, strict=True):
        assert named <= refused(answer, ascii(given)), ascii(given)
    assert listing(host) == before


def test_all_problems_are_listed_at_once(host: Tree) -> None:
    """Ansible's own refusals, the form's, the order's, the software's and the host's, of one call."""
    before = listing(host)
    bad = {
        "name": "a/b",
        "host": "smtp://x",
        "port": 0,
        "security": "ssl",
        "auth_type": "password",
        "username": "a:b",
        "password": PASSWORD + "\n",
        "ca_file": "relay.pem",
        "from_address": "nobody",
        "senders": ["!"],
        "timeout": 0,
        "verify": "recipient",
        "test_send": {"to": ["x"], "timeout": "soon", "no_such": 1},
        "root": "relative",
        "scope": 5,
        "token_url": "http://x.test/",
        "backend_options": "x",
        "no_such_option": 1,
    }
    by_ansible = refused(call(host, [("smtp_service", {"backend": "postfix", **bad})])[0])
    wanted = set(bad) - {"auth_type", "username", "verify", "test_send"}  # the software is not asked yet
    wanted |= {"verify_recipient", "test_send.to", "test_send.timeout", "test_send.no_such"}
    assert by_ansible >= wanted
    kept = {key: value for key, value in bad.items() if key not in ("root", "security", "no_such_option")}
    kept.update(test_send={"to": ["x"]}, backend_options={"no_such": 1, "null_client": "yes"}, ca_file="/etc/none.pem")
    by_us = call(host, [("smtp_service", {"backend": "msmtp", **kept})])[0]
    assert refused(by_us) >= {"name", "host", "port", "password", "ca_file", "backend", "backend_options.no_such"}
    assert by_us.result["msg"].endswith(f"(and {len(by_us.result['problems']) - 1} more)")
    assert listing(host) == before


PROBES: list[tuple[dict[str, Any], set[str]]] = [
    *(({"host": text}, {"host"}) for text in ("mail relay", "smtp://relay", f"{RELAY_NAME}:587", "", None, "a\0b")),
    *(({"port": port}, {"port"}) for port in (0, 65536, "smtp", True)),
    *(({"ca_file": path}, {"ca_file"}) for path in ("/etc/ssl/none.pem", "/etc/ssl", "/etc/ssl/der", "/etc/\0")),
    ({"password": None}, {"password"}),
    ({"username": None}, {"username"}),
    ({"access_token": "Argument-2"}, {"access_token"}),
    ({"auth_type": "oauth", "access_token": "Argument-2\n", "password": None}, {"access_token"}),
    ({"verify": "recipient"}, {"verify_recipient"}),
    ({"security": "ssl", "timeout": 0, "test_send": {"to": ["x"], "subject": "a\nb"}},)
    + ({"security", "timeout", "test_send.to", "test_send.subject"},),
]


def test_a_probe_refuses_bad_arguments_too(host: Tree) -> None:
    before = listing(host)
    answers = call(host, [("smtp_probe", {**LOGIN, **given}) for given, _named in PROBES])
    for (given, named), answer in zip(PROBES, answers, strict=True):
        assert named <= refused(answer, ascii(given)), ascii(given)
        assert "verification" not in answer.result
    assert listing(host) == before


def test_absent_with_a_definition_is_fine_whatever_it_says(host: Tree) -> None:
    before = listing(host)
    answers = call(
        host,
        [
            ("smtp_service", {"backend": "postfix", "state": "absent", **given})
            for given in (LOGIN, {"host": "a b", "port": 0, "username": "u\n", "ca_file": "/none", "senders": ["!"]})
        ],
    )
    for answer in answers:
        assert (answer.code, answer.result["changed"]) == (0, False), answer
    assert listing(host) == before


# -- what software the host has


@pytest.mark.parametrize(
    ("role", "backend", "told"),
    [
        ("bare", "auto", "none of"),
        ("postfix-msmtp", "auto", "msmtp, postfix"),
        *(("bare", backend, "not installed") for backend in ROLES),
    ],
)
def test_software_that_is_not_there_or_there_twice(role: str, backend: str, told: str) -> None:
    with Tree(role) as host:
        if role == "postfix-msmtp":  # as a package that provides sendmail(8), laid over the other one's, leaves it
            host.run(["ln", "-sf", "../bin/msmtp", "/usr/sbin/sendmail"])
        call(host, [])
        before = listing(host)
        answer = call(host, [("smtp_service", {"backend": backend, **RELAY, "port": 0})])[0]
        assert refused(answer) == {"backend", "port"}
        assert told in str(answer.result["problems"])
        assert listing(host) == before


# -- file systems that cannot be written to


@pytest.mark.parametrize("backend", ROLES)
def test_a_read_only_file_system(backend: str) -> None:
    with Tree(ROLES[backend]) as host:
        call(host, [])
        host.run(["sh", "-c", "kill $(pidof rsyslogd); sleep 0.2; mount -o remount,ro /"])
        before = listing(host)
        answer = call(host, [("smtp_service", {"backend": backend, **LOGIN})])[0]
        refused(answer)
        assert "ead-only file system" in answer.result["msg"]
        assert listing(host) == before


@pytest.mark.parametrize("backend", ROLES)
@pytest.mark.parametrize("left", [0, 1, 2, 3])
def test_a_full_file_system(backend: str, left: int) -> None:
    """Full at once, or after so many pages: whatever was written until then is gone again."""
    with Tree(ROLES[backend], size="24m") as host:
        call(host, [])
        host.run(["mkdir", "-p", "/var/lib/fleetmail/smtp", "/var/log"])
        host.write("/opt/module/filling", b"")
        before = listing(host)
        page = os.sysconf("SC_PAGE_SIZE")
        with host.inside("/opt/module/filling").open("wb", buffering=0) as filling:
            _fill(filling)
            filling.truncate(max(0, filling.seek(0, os.SEEK_END) - left * page))
            answer = call(host, [("smtp_service", {"backend": backend, **LOGIN})])[0]
        if answer.code:  # with some pages left it may have had enough
            refused(answer)
            assert "o space left" in answer.result["msg"]
            assert _without_rests_of_postmap(listing(host)) == before
        assert answer.code or left, "a full file system took it all"


def _without_rests_of_postmap(found: Listing) -> Listing:
    """Berkeley DB itself leaves an empty file when it finds no room to write what it compiles."""
    empty = hashlib.sha256().hexdigest()
    return {path: what for path, what in found.items() if not (path.startswith("etc/postfix/__db.") and empty in what)}


def _fill(file: Any) -> None:
    for size in (1 << 16, 1 << 12):
        try:
            while True:
                file.write(bytes(size))
        except OSError:
            continue


# -- relays that misbehave

TIMEOUT = 2
STEPS = ("banner", "ehlo", "starttls", "handshake", "ehlo2", "auth")
DEEDS = {
    "hang": STEPS,
    "drip": ("banner", "ehlo", "handshake"),
    "garbage": STEPS,
    "not_a_reply": ("banner", "ehlo"),
    "flood_line": ("banner", "ehlo", "auth"),
    "flood_lines": ("banner", "ehlo2"),
    "close": STEPS,
    "close_midway": ("banner", "ehlo", "auth"),
    "inject": ("starttls",),
    "echo": ("auth",),
}


@pytest.fixture(scope="module")
def misled(authority: Authority) -> Iterator[Tree]:
    """A host with msmtp, which has a password of its own already."""
    with Tree("msmtp") as tree:
        tree.write(CA, authority.ca_file.read_bytes())
        tree.write("/etc/msmtprc", "account default\nhost old.example.test\nauth on\nuser old\npassword older\n", 0o600)
        call(tree, [])
        yield tree


@pytest.mark.parametrize("deed", DEEDS)
def test_a_relay_that_misbehaves_ends_in_time_and_the_host_is_as_it_was(
    misled: Tree, authority: Authority, deed: str
) -> None:
    certificate = authority.good(RELAY_NAME)
    order = {**LOGIN, "ca_file": CA, "timeout": TIMEOUT, "verify": "auth", "backend": "msmtp"}
    probe = {key: value for key, value in order.items() if key != "backend"}
    for number, step in enumerate(DEEDS[deed]):
        with Hostile(step, deed, "starttls", certificate, limit=30) as server:
            server.start(RELAY_ADDRESS, 2600 + number, in_net_of=misled)
            before = listing(misled)
            began = time.monotonic()
            calls = [("smtp_service", {**order, "port": server.port})]
            calls += [] if number else [("smtp_probe", {**probe, "port": server.port})]
            answers = call(misled, calls)
            took = time.monotonic() - began
            for answer in answers:
                assert refused(answer, step) == {"verify"}
                assert answer.result["verification"]["ok"] is False
                assert RELAY_NAME in answer.result["msg"] or "relay" in answer.result["msg"]
            assert answers[0].result["rolled_back"] is True
            assert took < len(calls) * 2 * TIMEOUT + 3, f"{step}: {took:.1f} s"
            assert _without_state(listing(misled)) == _without_state(before), step
            if step != "auth":
                assert PASSWORD.encode() not in bytes(server.received)


def _without_state(found: Listing) -> Mapping[str, tuple[Any, ...]]:
    """The journal's own directory may be there from now on, empty."""
    empty = ("var/lib/fleetmail", "var/lib/fleetmail/smtp")
    return {path: what for path, what in found.items() if path not in empty}


@pytest.mark.parametrize("deed", ["hang", "garbage", "close_midway", "flood_line"])
def test_a_relay_that_misbehaves_while_a_mail_is_sent(misled: Tree, authority: Authority, deed: str) -> None:
    certificate = authority.good(RELAY_NAME)
    mail = {"to": ["you@example.test"], "sender": "me@example.test", "timeout": TIMEOUT}
    order = {**LOGIN, "ca_file": CA, "timeout": TIMEOUT, "backend": "msmtp", "test_send": mail}
    for number, step in enumerate(("mail", "rcpt", "data", "body")):
        with Hostile(step, deed, "starttls", certificate, limit=30) as server:
            server.start(RELAY_ADDRESS, 2700 + number, in_net_of=misled)
            before = listing(misled)
            began = time.monotonic()
            answer = call(misled, [("smtp_service", {**order, "port": server.port})])[0]
            assert refused(answer, step) == {"test_send"}
            assert answer.result["rolled_back"] is True
            assert answer.result["test_send"]["sent"] is False
            assert time.monotonic() - began < 4 * TIMEOUT + 3
            assert _without_state(listing(misled)) == _without_state(before), step


def test_the_same_order_takes_hold_with_a_sound_relay(misled: Tree, authority: Authority) -> None:
    """None of the refusals above is for a reason of the test's own."""
    relay = Relay(listeners(authority.good(RELAY_NAME)), users={"fleet": PASSWORD})
    with relay.start(in_net_of=misled):
        order = {**LOGIN, "ca_file": CA, "timeout": TIMEOUT, "verify": "auth", "backend": "msmtp"}
        applied, again = call(misled, [("smtp_service", order)] * 2)
    assert (applied.code, applied.result["changed"]) == (0, True), applied
    assert (again.code, again.result["changed"]) == (0, False), again
