# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command line of the bench."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from driver import checkout
from driver.environments import Unavailable
from lab.layers import why_unavailable

from bench import peers, profile, report
from bench.contenders import ROLE
from bench.course import Course, Plan
from bench.fleet import Disagreement
from bench.measure import Bench


def main(arguments: Sequence[str]) -> int:
    """Run the bench as told; 0 when it could be measured, whatever the figures say."""
    told = _parse(arguments)
    if told.keeper or told.endpoint_load:
        (_measure_keeper if told.keeper else _simulate)()
        return 0
    reason = why_unavailable()
    if reason:
        print(f"The bench cannot run here: {reason}", file=sys.stderr)
        return 2
    try:
        with _bench(told) as bench:
            if told.profile:
                print(profile.told(bench))
            elif told.scale:
                _measure_scale(bench)
            else:
                _measure(bench, told)
    except (Unavailable, Disagreement) as problem:
        print(f"bench: {problem}", file=sys.stderr)
        return 1
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.py", description="What one more host costs. See README.md.")
    parser.add_argument("--hosts", default="1,10,100", help="fleet sizes (default: %(default)s)")
    parser.add_argument("--role-hosts", type=int, default=ROLE.most, help="most hosts for the role (%(default)s)")
    parser.add_argument("--rounds", type=int, help="samples of each run (default: 5 at 1 host, 3 at 10, 2 at 100)")
    parser.add_argument("--forks", type=int, default=5, help="of Ansible (default: %(default)s, as Ansible's own)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there")
    parser.add_argument("--quick", action="store_true", help="only ping and smtp_service, one round, nothing fetched")
    parser.add_argument("--keeper", action="store_true", help="what the keeper costs, and nothing else")
    parser.add_argument("--endpoint-load", action="store_true", help="simulate what the token endpoint sees of fleets")
    parser.add_argument("--scale", action="store_true", help="forks, pipelining, slices and ssh, and nothing else")
    parser.add_argument("--profile", action="store_true", help="where the time of one compliant host goes, instead")
    told = parser.parse_args(arguments)
    try:
        told.hosts = sorted({int(size) for size in told.hosts.split(",")})
    except ValueError:
        parser.error("--hosts takes numbers and commas")
    if min(*told.hosts, told.role_hosts) < 1:
        parser.error("a fleet has at least one host")
    return told


@contextlib.contextmanager
def _bench(told: argparse.Namespace) -> Iterator[Bench]:
    """The ground that contenders share. Ours is a copy: the checkout may be worked on meanwhile."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        ours = Path(folder, "collections")
        for part in ("plugins", "meta", "galaxy.yml"):
            _copy(checkout.ROOT / part, ours / checkout.PLACE / part)
        ground = peers.present(ours) if told.quick or told.profile or told.scale else peers.ground(ours)
        yield Bench(ground, told.forks, Path(folder))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copyfile(source, target)


def _measure(bench: Bench, told: argparse.Namespace) -> None:
    began, load = time.monotonic(), os.getloadavg()[0]
    course = Course(bench, Plan(told.hosts, told.rounds, told.quick, {ROLE.name: told.role_hosts}))
    course.run()
    context = {
        **bench.ground.versions,
        "forks": told.forks,
        "processors": os.cpu_count(),
        "pipelining": "on",
        "load before": round(load, 1),
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
    print(report.tables(course.figures, course.payloads, context))
    if told.json:
        told.json.write_text(report.as_json(course.figures, course.payloads, context))
    if not told.quick:
        _measure_keeper()


def _measure_keeper() -> None:
    from bench import keeper

    print(keeper.told(keeper.measure()))


def _simulate() -> None:
    from bench import endpoint_report

    print(endpoint_report.told())


def _measure_scale(bench: Bench) -> None:
    from bench import scale

    print(scale.told(scale.measure(bench)))
