# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The order in which everything is run, so that what disturbs the machine disturbs all contenders alike."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bench.contenders import JOB, OURS, PING, SENDERS, Contender, Run
from bench.figures import Figures
from bench.fleet import Disagreement, Fleet, judge_null_client
from bench.measure import Bench
from bench.payload import Payload, payloads

ROUNDS = {1: 5, 10: 3, 100: 2}  # the fleet's size, at least -> how often each run is repeated
# the payloads to look at: module -> the play that runs it
OFFLINE = {"ansible.builtin.ping": "ping", "smtp_service": "smtp_service"}
SENDING_MODULES = {"smtp_probe": "send_probe", "community.general.mail": "send_mail"}


class Plan(NamedTuple):
    """What was asked for.

    quick: ping and smtp_service alone, one round. most: limits by contender, instead of its own.
    """

    sizes: Sequence[int]
    rounds: int | None = None
    quick: bool = False
    most: dict[str, int] = {}  # noqa: RUF012 - never changed

    def rounds_at(self, size: int) -> int:
        """How often a run is repeated on such a fleet."""
        if self.rounds or self.quick:
            return self.rounds or 1
        return next((rounds for at, rounds in sorted(ROUNDS.items())[::-1] if size >= at), 1)


class Course:
    """One bench: figures and payloads grow while run() goes through the sizes."""

    def __init__(self, bench: Bench, plan: Plan) -> None:
        self.bench, self.plan = bench, plan
        self.figures = Figures()
        self.payloads: dict[str, Payload] = {}

    def run(self) -> None:
        """Measure everything. Raises Disagreement when a contender does not do its job."""
        for size in self.plan.sizes:
            entered = self._entered(JOB, size)
            fleets = {contender.fleet: hosts for contender, hosts in entered.items()}
            contenders = [one for one, hosts in entered.items() if fleets[one.fleet] == hosts]
            rounds = self.plan.rounds_at(size)
            with _started(fleets) as running:
                self._first(contenders, running)
                self._repeat(contenders, running, rounds)
                self._send(running["ours"], rounds)
                if not self.payloads:
                    self._weigh(running["ours"])

    def _entered(self, contenders: Sequence[Contender], size: int) -> dict[Contender, int]:
        """Who runs at a size, and on how many hosts: no more than it can, and not the same number twice."""
        chosen = [one for one in contenders if not self.plan.quick or one in (OURS, PING)]
        hosts = {one: min(size, self.plan.most.get(one.name, one.most)) for one in chosen}
        return {one: count for one, count in hosts.items() if not self.figures.has(one, count)}

    def _first(self, contenders: Sequence[Contender], fleets: dict[str, Fleet]) -> None:
        """The runs that need fresh hosts; then Postfix says whether the job was done."""
        for contender in contenders:
            for run in contender.runs:
                if run.once:
                    self._sample(contender, run, fleets[contender.fleet])
            if contender.judged:
                judge_null_client(fleets[contender.fleet].hosts[-1])

    def _repeat(self, contenders: Sequence[Contender], fleets: dict[str, Fleet], rounds: int) -> None:
        """The runs that can be repeated, all contenders in turn."""
        for number in range(rounds):
            for contender in contenders:
                if contender.slow and number >= max(1, rounds // 2):
                    continue
                for run in contender.runs:
                    if not run.once:
                        self._sample(contender, run, fleets[contender.fleet])

    def _send(self, fleet: Fleet, rounds: int) -> None:
        """Test sends, each to a relay of the host's own; every mail must have arrived."""
        senders = [one for one, hosts in self._entered(SENDERS, fleet.size).items() if hosts == fleet.size]
        if not senders:
            return
        with fleet.relays() as relays:
            self._repeat(senders, {"ours": fleet}, rounds)
            for host, relay in zip(fleet.hosts, relays, strict=True):
                relay.wait_for_message(count=len(senders) * rounds)
                if len(relay.messages()) != len(senders) * rounds:
                    raise Disagreement(f"{host.name}: {len(relay.messages())} mails arrived")

    def _weigh(self, fleet: Fleet) -> None:
        if self.plan.quick:
            self.payloads = payloads(self.bench, fleet, OFFLINE)
            return
        with fleet.relays():
            self.payloads = payloads(self.bench, fleet, OFFLINE | SENDING_MODULES)

    def _sample(self, contender: Contender, run: Run, fleet: Fleet) -> None:
        sample = self.bench.play(contender.play, fleet, run.arguments, run.changes)
        self.figures.add(contender, run, fleet.size, sample)
        _tell(f"{fleet.size:4} {contender.name}, {run.label}: {sample.wall:.2f} s, {sample.cpu:.2f} s of processors")


@contextlib.contextmanager
def _started(fleets: dict[str, int]) -> Iterator[dict[str, Fleet]]:
    """Fresh hosts: name of the fleet -> how many."""
    _tell("starting hosts: " + ", ".join(f"{hosts} for {name}" for name, hosts in fleets.items()))
    with contextlib.ExitStack() as running:
        yield {name: running.enter_context(Fleet(name, hosts)) for name, hosts in fleets.items()}


def _tell(text: str) -> None:
    print(f"-- {text}", file=sys.stderr, flush=True)
