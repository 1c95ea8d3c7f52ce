# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""When the keeper runs on a host: the role's own timer and crontab, and what systemd and cron make of them."""

from __future__ import annotations

import configparser
import functools
import random
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import jinja2
import yaml
from driver import checkout

ROLE = checkout.ROOT / "roles/token_keeper"
_UNITS = {"": 1, "s": 1, "min": 60, "h": 3600}
_WAKES = (60, 10, 1, 0.25)  # s: the rhythms that systemd joins the wake-ups of a host in, sd_event_add_time(3)


class Schedule(Protocol):
    """What runs the keeper."""

    def runs(self, host: str, chance: random.Random, booted: float, started: float) -> Iterator[float]:
        """Epoch seconds of all runs of a host that was booted and got its timer at these times; without end."""


class Timer(NamedTuple):
    """A timer unit: systemd.timer(5). Seconds."""

    boot: float
    interval: float
    delay: float
    accuracy: float
    fixed: bool = False  # FixedRandomDelay

    def runs(self, host: str, chance: random.Random, booted: float, started: float) -> Iterator[float]:
        """OnBootSec that is over when the timer is started elapses at once; each later run counts from the one before.

        That the host wakes for something else, and runs what is due, is left out: it would spread runs further.
        """
        own, of_boot = chance.uniform(0, self.delay), chance.uniform(0, 60)

        def delay() -> float:
            return own if self.fixed else chance.uniform(0, self.delay)

        at = max(started, booted + woken(self.boot + delay(), self.accuracy, of_boot))
        while True:
            yield at
            at = booted + woken(at - booted + self.interval + delay(), self.accuracy, of_boot)


def woken(earliest: float, accuracy: float, of_boot: float) -> float:
    """When systemd wakes for what is due at ``earliest`` and may be ``accuracy`` late: at the place in the minute (else
    in ten seconds, one, a quarter) that is the host's own until it boots again."""
    latest = earliest + accuracy
    for step in _WAKES:
        at = latest // step * step + of_boot % step
        at -= step if at >= latest else 0
        if at >= earliest:
            return at
    return latest


class Cron(NamedTuple):
    """The role's file in /etc/cron.d, by host. variables: of the role, instead of its defaults."""

    variables: tuple[tuple[str, Any], ...] = ()

    def line(self, host: str) -> tuple[str, float]:
        """The field of minutes, and the seconds that it sleeps then."""
        given = {**defaults(), **dict(self.variables), "inventory_hostname": host}
        own = {name: made.render(given) for name, made in _expressions().items()}
        text = _template("cron.j2").render({**given, **own, "token_keeper_command": "keeper"})
        found = re.search(r"^(\d+-59/\d+) \* \* \* \* root sleep (\d+);", text, re.M)
        if found is None:
            raise ValueError(f"the role's crontab is not understood: {text}")
        return found[1], float(found[2])

    def runs(self, host: str, chance: random.Random, booted: float, started: float) -> Iterator[float]:
        """Cron looks at each minute; it knows nothing of a boot."""
        minutes, sleep = self.line(host)
        first, step = map(int, minutes.split("-59/"))
        at = started // 3600 * 3600
        while True:
            for minute in range(first, 60, step):
                if at + minute * 60 >= max(booted, started):
                    yield at + minute * 60 + sleep
            at += 3600


def timer(**variables: Any) -> Timer:
    """The role's timer. variables: of the role, instead of its defaults."""
    unit = configparser.ConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(_template("fleetmail-keeper.timer.j2").render({**defaults(), **variables}))
    said = dict(unit["Timer"])
    fixed = said.pop("FixedRandomDelay", "no") in ("yes", "true", "1")
    names = ("OnBootSec", "OnUnitActiveSec", "RandomizedDelaySec", "AccuracySec")
    spans = [seconds(said.pop(name)) for name in names]
    if said:
        raise ValueError(f"not simulated: {', '.join(said)}")
    return Timer(*spans, fixed=fixed)


def seconds(span: str) -> float:
    """A span of time as systemd.time(7) writes it, of one number."""
    found = re.fullmatch(r"(\d+)\s*([a-z]*)", span)
    if found is None or found[2] not in _UNITS:
        raise ValueError(f"not a span of time: {span}")
    return float(int(found[1]) * _UNITS[found[2]])


@functools.cache
def defaults() -> dict[str, Any]:
    """The role's."""
    found: dict[str, Any] = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    return found


def _random(end: int, seed: str) -> int:
    """The filter ansible.builtin.random with a seed. To import Ansible's would make a control node of this process."""
    return random.Random(seed).randrange(end)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    environment.filters["random"] = _random
    return environment


@functools.cache
def _template(name: str) -> jinja2.Template:
    return _environment().from_string((ROLE / "templates" / name).read_text())


@functools.cache
def _expressions() -> dict[str, jinja2.Template]:
    """What the role works out for a host's crontab."""
    said = yaml.safe_load((ROLE / "vars/main.yml").read_text())
    names = ("token_keeper_minute", "token_keeper_second")
    return {name: _environment().from_string(said[name]) for name in names}
