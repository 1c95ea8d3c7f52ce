# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The audit on real Postfix, Exim and msmtp that somebody else set up; what it says is held against what they say."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import by_hand.exim
import by_hand.msmtp
import by_hand.postfix
import pytest
from by_hand import PASSWORD, Case, File
from lab import core
from lab.authority import Authority
from lab.layers import why_unavailable
from lab.tree import Tree
from unit.audited import assert_seen

from ansible_collections.fleetmail.smtp.plugins.module_utils.core.audit import audit
from ansible_collections.fleetmail.smtp.plugins.module_utils.core.posix_host import PosixHost

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "the lab is there")

KEPT = "/opt/kept"
FOLDERS = {"postfix": ("/etc/postfix",), "exim": ("/etc/exim4",), "msmtp": ()}
ROLES = {"postfix": "postfix-maps", "exim": "exim", "msmtp": "msmtp"}
OTHERS = ("other.example.test", "backup.example.test", "mail.corp.example")  # so that they can be looked up
STRAY = ("/etc/msmtprc", "/etc/netrc", "/etc/msmtp-password", "/home/user/.msmtprc")
LIVE_ONLY = ("running", "task", "task_drift", "task_problems", "takes_over", "findings")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def host_of(backend: str, authority: Authority) -> Iterator[Tree]:
    """A host with the software as its package leaves it; ``fresh`` brings that back."""
    with Tree(ROLES[backend], names=dict.fromkeys(OTHERS, "10.77.0.99")) as tree:
        tree.write("/etc/ssl/relay-ca.pem", authority.ca_file.read_bytes())
        tree.run(["mkdir", "-p", KEPT])
        for folder in FOLDERS[backend]:
            tree.run(["cp", "-a", folder, KEPT])
        yield tree


@pytest.fixture(scope="module")
def postfix(authority: Authority) -> Iterator[Tree]:
    yield from host_of("postfix", authority)


@pytest.fixture(scope="module")
def exim(authority: Authority) -> Iterator[Tree]:
    yield from host_of("exim", authority)


@pytest.fixture(scope="module")
def msmtp(authority: Authority) -> Iterator[Tree]:
    yield from host_of("msmtp", authority)


def lay_down(tree: Tree, backend: str, case: Case) -> None:
    """The package's files, then those of the case, then what its author ran."""
    wanted = "; ".join(
        f"rm -rf {folder}; cp -a {KEPT}/{folder.rsplit('/', 1)[1]} {folder}" for folder in FOLDERS[backend]
    )
    tree.run(["sh", "-c", f"{wanted or 'true'}; rm -f {' '.join(STRAY)}"])
    for path, file in case.files.items():
        text, mode, group = file if isinstance(file, File) else (file, 0o644, "root")
        tree.write(path, text, mode)
        tree.run(["chgrp", group, path])
    if backend == "postfix":
        tree.let_cool(by_hand.postfix.MAIN)
    steps = [f"postmap {table}" for table in case.compiled] + list(case.commands)
    if steps:
        tree.run(["sh", "-c", "; ".join(steps)], check=False)  # Exim may refuse what the case is about


def looked_at(tree: Tree, **options: Any) -> dict[str, Any]:
    result = core.audit(tree, {"homes": True, "as_task": True, **options})
    assert "failed" not in result, result
    assert PASSWORD not in json.dumps(result)
    return result


def in_form(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [{key: value for key, value in one.items() if key not in LIVE_ONLY} for one in result["services"]]


def assert_adopted(tree: Tree, case: Case, result: dict[str, Any], really: bool) -> None:
    """The task of the default service tells what its next run in check mode reports; ``really``: run it and compare."""
    service = next(one for one in result["services"] if one["name"] == "default")
    if case.drift is None:
        return
    task = service["task"]
    assert task, service["task_problems"]
    assert PASSWORD not in json.dumps(task)
    drift = {one["field"]: (one["before"], one["after"]) for one in service["task_drift"]}
    running = drift.pop("running", None)
    assert drift == {key: tuple(value) for key, value in case.drift.items()}
    assert service["takes_over"] == (not drift and not running)
    if really:
        filled = {key: PASSWORD if key == "password" else value for key, value in task.items()}
        before = snapshot(tree)
        said = core.enforce(tree, filled, check=True)
        assert snapshot(tree) == before
        assert "failed" not in said, said["problems"]
        assert (said["drift"], said["takes_over"]) == (service["task_drift"], service["takes_over"])
        assert said["changed"]
        assert said["files"]


def sampled(name: str, cases: dict[str, Case]) -> bool:
    """Every fourth: an audit runs each task itself, so that they only have to agree."""
    return list(cases).index(name) % 4 == 0


def snapshot(tree: Tree) -> dict[str, Any]:
    """Every file of the host's own that could have been touched: mode, owner, time and content."""
    upper = tree.path.parent / "upper"
    found = {}
    for place, folders, files in os.walk(upper):
        if place == str(upper):
            folders[:] = [name for name in folders if name not in ("opt", "proc", "dev", "run", "tmp")]
        folders[:] = [
            name for name in folders if Path(place, name) != upper / "var/log"
        ]  # what the software says there
        for name in files:
            path = Path(place, name)
            state = path.lstat()
            digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else ""
            found[str(path)] = (state.st_mode, state.st_uid, state.st_gid, state.st_mtime_ns, digest)
    return found


@pytest.mark.parametrize("name", by_hand.postfix.CASES)
def test_postfix(postfix: Tree, name: str) -> None:
    case = by_hand.postfix.CASES[name]
    lay_down(postfix, "postfix", case)
    before = snapshot(postfix)
    result = looked_at(postfix)
    assert snapshot(postfix) == before
    assert_seen(case, result, live=True)
    if not {"map-stale", "map-without-source"} & case.findings:  # a tree shows its sources, Postfix what was compiled
        assert in_form(audit({}, PosixHost(str(postfix.path)))) == in_form(result), "a tree is read otherwise"
    if "config-refused" not in case.live:
        agrees_with_postconf(postfix, result)
        assert_adopted(postfix, case, result, sampled(name, by_hand.postfix.CASES))


def agrees_with_postconf(tree: Tree, result: dict[str, Any]) -> None:
    """Postfix itself: where mail goes, and with which login."""
    service = next(one for one in result["services"] if one["name"] == "default")
    names = ("relayhost", "smtp_sasl_auth_enable", "smtp_sasl_password_maps", "smtp_tls_wrappermode")
    said = dict(zip(names, tree.output(["postconf", "-hx", *names]).split("\n"), strict=True))
    if said["relayhost"]:
        assert service["host"] in said["relayhost"].replace(PASSWORD, "********")
    assert (service["auth_type"] == "password") == (said["smtp_sasl_auth_enable"] == "yes")
    table = said["smtp_sasl_password_maps"].replace("proxy:", "")
    if table.partition(":")[0] in ("hash", "lmdb", "cdb", "texthash", "regexp", "pcre"):
        found = [
            tree.run(["postmap", "-q", key, table], check=False).stdout for key in (service["host"], said["relayhost"])
        ]
        entry = next((one.decode() for one in found if one), "")
        assert entry.partition(":")[0].strip() == (
            service["username"] if said["relayhost"] else entry.partition(":")[0]
        )


@pytest.mark.parametrize("name", by_hand.exim.CASES)
def test_exim(exim: Tree, name: str) -> None:
    case = by_hand.exim.CASES[name]
    lay_down(exim, "exim", case)
    before = snapshot(exim)
    result = looked_at(exim)
    assert snapshot(exim) == before
    assert_seen(case, result, live=True)
    if not case.live & {"config-stale", "config-refused"}:
        assert in_form(audit({}, PosixHost(str(exim.path)))) == in_form(result), "a tree is read otherwise"
        agrees_with_exim(exim, result)
        assert_adopted(exim, case, result, sampled(name, by_hand.exim.CASES))


def agrees_with_exim(tree: Tree, result: dict[str, Any]) -> None:
    """Exim itself: which host it would give a mail to."""
    for service in result["services"]:
        sender = f"x@{service['senders'][0]}" if service["senders"] else "x@client.example.test"
        said = tree.run(["exim4", "-f", sender, "-bt", "someone@far.example"], check=False).stdout.decode()
        if service["host"]:
            assert f"host {service['host']}" in said


@pytest.mark.parametrize("name", by_hand.msmtp.CASES)
def test_msmtp(msmtp: Tree, name: str) -> None:
    case = by_hand.msmtp.CASES[name]
    lay_down(msmtp, "msmtp", case)
    before = snapshot(msmtp)
    result = looked_at(msmtp)
    assert snapshot(msmtp) == before
    assert_seen(case, result, live=True)
    if "config-refused" not in case.live:
        assert in_form(audit({"homes": True}, PosixHost(str(msmtp.path)))) == in_form(result), (
            "a tree is read otherwise"
        )
        agrees_with_msmtp(msmtp, result)
        assert_adopted(msmtp, case, result, sampled(name, by_hand.msmtp.CASES))


def agrees_with_msmtp(tree: Tree, result: dict[str, Any]) -> None:
    """msmtp itself: what it would do for an account of the host."""
    for service in (one for one in result["services"] if not one["user"]):
        argv = [
            "msmtp",
            "--pretend",
            "-a",
            service["name"],
            "--passwordeval=echo x",
            "-f",
            "x@y.example",
            "z@y.example",
        ]
        said = tree.run(argv, check=False, env={"HOME": "/nonexistent"}).stdout.decode()
        host = {"security": "none", "starttls": "on", "tls": "off"}
        assert f"\nhost = {service['host']}\nport = {service['port']}\n" in said
        assert f"\ntls = {'off' if service['security'] == 'none' else 'on'}\n" in said
        if service["security"] != "none":
            assert f"\ntls_starttls = {host[service['security']]}\n" in said
        assert ("\nauth = none\n" in said) == (service["auth_type"] == "none")
