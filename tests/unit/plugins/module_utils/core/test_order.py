# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lab.authority import Authority
from unit.fake_host import FakeHost

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.errors import HostError, InvalidService
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.host import Completed, Snapshot
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.order import Order, offline_problems
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.proof_options import (
    ca_problems,
    certificate_problems,
)

RELAY = {"host": "relay.example.test", "security": "starttls"}
PASSWD = "root:x:0:0:root:/root:/bin/sh\n"


def offline(**options: Any) -> list[str]:
    return [problem.option for problem in offline_problems({**RELAY, **options})]


def with_programs(*names: str, live: bool = True) -> FakeHost:
    host = FakeHost({"/etc/passwd": PASSWD}, live=live)
    host.programs.update({name: Completed(0, "", "") for name in names})
    return host


def refusal(host: FakeHost, check: bool = False, **options: Any) -> list[str]:
    with pytest.raises(InvalidService) as caught:
        Order.from_options({**RELAY, **options}).settle(host, check)
    return [problem.option for problem in caught.value.problems]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"verify": "auth"},
        {"verify": "recipient", "verify_recipient": "a@example.test"},
        {"test_send": {"to": ["a@example.test"], "body": "two\r\nlines\tand a tab", "subject": "Grüße"}},
        {"root": "/srv/image"},
        {"state": "absent", "host": None},
        {"state": "absent", "host": "a b", "port": 0, "security": "x", "password": "p\n", "senders": ["!"]},
        {"state": "absent", "verify": "auth", "test_send": {"to": []}},
    ],
    ids=repr,
)
def test_an_order_without_a_problem(options: dict[str, Any]) -> None:
    assert offline(**options) == []


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"verify": "all"}, ["verify"]),
        ({"verify": "auth", "host": None, "enabled": False}, ["verify"]),
        ({"verify": "recipient"}, ["verify_recipient"]),
        ({"verify_recipient": "nobody"}, ["verify_recipient"]),
        ({"verify_recipient": "a\n@example.test"}, ["verify_recipient"]),
        ({"test_send": {"to": []}}, ["test_send.to"]),
        ({"test_send": {"timeout": 5}}, ["test_send.to"]),
        ({"test_send": {"to": [], "timeout": 0}}, ["test_send.to", "test_send.timeout"]),
        ({"test_send": {"to": ["x"], "sender": "y"}}, ["test_send.to", "test_send.sender"]),
        ({"test_send": {"to": ["a@b.test\n"]}}, ["test_send.to"]),
        ({"test_send": {"to": ["a@b.test"], "subject": "a\nb"}}, ["test_send.subject"]),
        ({"test_send": {"to": ["a@b.test"], "subject": "a\0b"}}, ["test_send.subject"]),
        ({"test_send": {"to": ["a@b.test"], "body": "a\0b"}}, ["test_send.body"]),
        ({"test_send": {"to": ["a@b.test"], "timeout": True}}, ["test_send.timeout"]),
        ({"test_send": {"to": ["a@b.test"], "timeout": 3601}}, ["test_send.timeout"]),
        ({"test_send": {"to": ["a@b.test"], "no_such": 1}}, []),
        ({"root": "image"}, ["root"]),
        ({"root": "/a\0b"}, ["root"]),
        ({"root": "/a\nb", "state": "absent"}, ["root"]),
        ({"name": "a/b", "state": "absent"}, ["name"]),
    ],
    ids=repr,
)
def test_what_is_wrong_with_an_order(options: dict[str, Any], named: list[str]) -> None:
    assert offline(**options) == named


def test_problems_of_form_order_backend_and_host_come_at_once() -> None:
    named = refusal(
        with_programs(),
        backend="postfix",
        port=0,
        username="a:b",
        password="p ",
        auth_type="password",
        verify="recipient",
        test_send={"to": ["x"]},
        backend_options={"no_such": 1, "null_client": "yes"},
        ca_file="/etc/ssl/none.pem",
    )
    assert set(named) == {
        *("port", "username", "password", "verify_recipient", "test_send.to", "ca_file", "backend"),
        *("backend_options.no_such", "backend_options.null_client"),
    }
    assert len(named) == len(set(named))


@pytest.mark.parametrize(
    ("programs", "named"),
    [((), ["backend"]), (("postfix", "exim4"), ["backend"])],
)
def test_auto_without_one_answer_is_refused_and_lists_what_was_found(
    programs: tuple[str, ...], named: list[str]
) -> None:
    with pytest.raises(InvalidService) as caught:
        Order.from_options({**RELAY, "port": 0}).settle(with_programs(*programs), check=False)
    assert [problem.option for problem in caught.value.problems] == ["port", *named]
    told = caught.value.problems[-1].problem
    assert all(program.rstrip("4") in told for program in programs or ("exim", "msmtp", "postfix"))


@pytest.mark.parametrize(("program", "name"), [("postfix", "postfix"), ("exim4", "exim"), ("msmtp", "msmtp")])
def test_auto_takes_the_one_that_is_there(program: str, name: str) -> None:
    # in a tree, where nothing is asked but the files
    host = with_programs(program, live=False)
    assert Order.from_options({"state": "absent", "root": host.root}).settle(host, check=True).name == name


def test_an_unknown_backend_is_refused() -> None:
    assert refusal(with_programs(), backend="sendmail") == ["backend"]


def test_software_that_is_missing_is_a_plan_in_check_mode_and_an_error_else() -> None:
    assert refusal(with_programs(), backend="postfix", ca_file="/none.pem") == ["backend", "ca_file"]
    order = Order.from_options({**RELAY, "backend": "postfix", "ca_file": "/none.pem"})
    assert order.settle(with_programs(), check=True).name == "postfix"


def test_a_path_with_nul_is_never_looked_for() -> None:
    host = with_programs("postfix")
    host.exists = lambda path: "\0" not in path or pytest.fail("no system call takes that")  # type: ignore[method-assign]
    for check in (False, True):
        assert "ca_file" in refusal(host, check, backend="postfix", ca_file="/etc/a\0b")


def test_absent_needs_neither_software_nor_a_definition() -> None:
    order = Order.from_options({"state": "absent", "backend": "postfix", "host": "a b", "port": 0})
    assert order.settle(with_programs(), check=False).name == "postfix"


def test_a_root_that_is_no_system_is_refused() -> None:
    assert refusal(FakeHost(live=False), backend="msmtp", root="/srv/image") == ["root"]
    assert refusal(FakeHost(live=False), backend="msmtp", state="absent", root="/srv/image") == ["root"]
    order = Order.from_options({**RELAY, "backend": "msmtp", "root": "/srv/image"})
    assert order.settle(with_programs(live=False), check=False).name == "msmtp"


def test_nothing_in_a_tree_can_send_by_its_mta() -> None:
    send = {"to": ["a@example.test"], "via": "mta"}
    assert refusal(with_programs(live=False), backend="msmtp", test_send=send) == ["test_send.via"]


def read_fails(_path: str) -> Snapshot | None:
    raise HostError("/etc/ssl/ca.pem", "cannot be read: Permission denied", "become: true?")


def test_a_ca_file_is_judged_without_the_network(tmp_path: Path) -> None:
    pem = Authority(tmp_path).ca_file.read_bytes()
    key = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
    broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    files = {"/good": pem, "/commented": b"# gr\xfc\xdfe\n" + pem, "/der": b"\x30\x82\0", "/key": key, "/empty": b""}
    host = FakeHost({**files, "/broken": broken})
    bad = {
        path
        for path in ("/none", *host.files)
        if list(ca_problems(path, host)) + list(certificate_problems(path, host))
    }
    assert bad == {"/none", "/der", "/key", "/empty", "/broken"}
    for told_before in ("", "relative.pem", "/a\0b"):
        assert list(ca_problems(told_before, host)) == []


def test_a_ca_file_that_cannot_be_read_is_one_problem_among_others() -> None:
    host = with_programs("postfix")
    host.read = lambda path: read_fails(path) if path == "/etc/ssl/ca.pem" else None  # type: ignore[method-assign]
    named = refusal(host, backend="msmtp", ca_file="/etc/ssl/ca.pem", port=0)
    assert set(named) >= {"port", "ca_file"}
