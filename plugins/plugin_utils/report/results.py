# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""From the results of the collection's modules on one host, as a play registered them, to that host in a report."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Callable, NamedTuple

from . import shape
from .net import Net
from .shape import take

Record = dict[str, Any]
BESIDE_THE_FORM = frozenset(
    (
        "name", "backend", "path", "user", "managed", "findings", "verification",
        "task", "task_drift", "task_problems", "takes_over",
    )
)  # fmt: skip
ENOUGH_DIFF = 2 * shape.LONGEST_DIFF  # what is cut off at the end of it is masked by then
FAILURE_WITHOUT_WORDS = "the task failed and did not say why"
NO_RESULT = "no result: an earlier task failed on this host, or it was not reached"


class Play(NamedTuple):
    """What is known of the run that gave the results.

    observed_at: ISO 8601 UTC. check_mode: whether it only looked (None: to be told from each result).
    """

    observed_at: str
    source: str = ""
    check_mode: bool | None = None


def host_of(name: str, groups: Iterable[str], results: Mapping[str, Any], play: Play, net: Net) -> Record:
    """One host of a report.

    results: registered variable -> result, in the order of the tasks. What no report has is left out of it.
    """
    found = [(task, one) for task, result in results.items() for one in each(result)]
    net = net.of_results(one for _task, one in found)
    host: Record = {key: [] for key in ("problems", "services", "tokens", "consumers", "probes", "findings")}
    for task, one in found:
        _read(task, one, play, net, host)
    host.update(name=name, groups=sorted(groups), observed_at=play.observed_at, source=play.source)
    host["tokens"] = list({one.get("name"): one for one in host["tokens"]}.values())  # the last one knows best
    host["status"] = _status([one for _task, one in found], host)
    if host["status"] == "unknown":
        host["problems"].append({"problem": NO_RESULT})
    taken: Record = take(host, shape.HOST, net.text)
    return taken


def each(result: Any) -> Iterator[Mapping[str, Any]]:
    """The result, or those of its items where the task was a loop; without those of tasks that were skipped."""
    if not isinstance(result, Mapping) or result.get("skipped") or result.get("skip_reason"):
        return
    items = result.get("results")
    if isinstance(items, (list, tuple)) and all(isinstance(one, Mapping) for one in items):
        for one in items:
            yield from each(one)
    else:
        yield result


def _read(task: str, result: Mapping[str, Any], play: Play, net: Net, host: Record) -> None:
    for known, read in READERS:
        if known(result):
            read(result, play, net, host)
            break
    host["problems"] += _problems(task, result)


def _problems(task: str, result: Mapping[str, Any]) -> Iterator[Record]:
    """Every problem of a task that failed or did not reach its host."""
    if not (result.get("failed") or result.get("unreachable")):
        return
    told = result.get("problems")
    if isinstance(told, (list, tuple)) and told:
        for one in told:
            yield {"task": task, **(one if isinstance(one, Mapping) else {"problem": one})}
    else:
        yield {"task": task, "problem": result.get("msg") or FAILURE_WITHOUT_WORDS}


# -- one reader for each kind of result ------------------------------------------------------------------------------


def _service(result: Mapping[str, Any], play: Play, net: Net, host: Record) -> None:
    form = result.get("service") or {}
    host["services"].append(
        {
            **result,
            "name": form.get("name"),
            "backend": form.get("backend"),
            "status": _service_status(result, play),
            "form": {key: value for key, value in form.items() if key not in ("name", "backend")},
            "drift": [_difference(one) for one in result.get("drift") or [] if isinstance(one, Mapping)],
            "diff": net.configuration(difference(result.get("diff"))[:ENOUGH_DIFF]),
        }
    )


def _difference(drift: Mapping[str, Any]) -> Record:
    field = str(drift.get("field"))
    return {"field": field, **{side: shape.hidden(field, drift.get(side)) for side in ("before", "after")}}


def _service_status(result: Mapping[str, Any], play: Play) -> str:
    if result.get("failed") or result.get("unreachable"):
        return "failed"
    if not result.get("drift"):
        return "compliant"
    return "changed" if _enforced(result, play) else "drifting"


def _enforced(result: Mapping[str, Any], play: Play) -> bool:
    """Whether the task has put an end to the drift, or, in check mode, only found it. In doubt it is still there."""
    if play.check_mode is not None:
        return not play.check_mode
    if isinstance(result.get("check_mode"), bool):
        return not result["check_mode"]
    service = result.get("service") or {}
    for drift in result["drift"]:
        if isinstance(drift, Mapping) and drift.get("field") in service:
            now = service[drift["field"]]
            if now != drift.get("before"):
                return True
            if now != drift.get("after"):
                return False
    return bool(result.get("actions") or result.get("backup_files"))


def _token(result: Mapping[str, Any], _play: Play, _net: Net, host: Record) -> None:
    host["tokens"].append(result["token"])


def _tokens(result: Mapping[str, Any], _play: Play, _net: Net, host: Record) -> None:
    host["tokens"] += [one for one in result["tokens"] if isinstance(one, Mapping)]


def _consumers(result: Mapping[str, Any], _play: Play, _net: Net, host: Record) -> None:
    """What an audit found. Its list of findings has those of the services as well."""
    services = [one for one in result["services"] if isinstance(one, Mapping)]
    host["consumers"] += [{**one, "form": _form(one)} for one in services]
    everything = result.get("findings")
    if not isinstance(everything, (list, tuple)):
        everything = [
            {**found, "path": found.get("path") or one.get("path")} for one in services for found in _own(one)
        ]
    host["findings"] += [_finding(found) for found in everything if isinstance(found, Mapping)]


def _form(consumer: Mapping[str, Any]) -> Record:
    return {key: value for key, value in consumer.items() if key not in BESIDE_THE_FORM}


def _own(consumer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [one for one in consumer.get("findings") or [] if isinstance(one, Mapping)]


def _probe(result: Mapping[str, Any], _play: Play, _net: Net, host: Record) -> None:
    verification = result["verification"]
    host["probes"].append({**result, "target": _target(result), "ok": bool(verification.get("ok"))})


def _target(result: Mapping[str, Any]) -> str:
    """The relay that was probed: as it was called, else as its certificate or its address says."""
    arguments = (result.get("invocation") or {}).get("module_args") or {}
    if arguments.get("host"):
        port = arguments.get("port") or {"tls": 465, "starttls": 587}.get(str(arguments.get("security")), 25)
        return f"{arguments['host']}:{port}"
    verification = result["verification"]
    names = (verification.get("tls") or {}).get("names") or []
    connected = [step.get("detail") or "" for step in verification.get("steps") or [] if isinstance(step, Mapping)]
    return str(names[0] if names else (connected or [""])[0].partition(": ")[0])


def _finding(found: Mapping[str, Any]) -> Record:
    service = " ".join(str(found[key]) for key in ("backend", "service") if found.get(key))
    return {
        "severity": found.get("severity"),
        "name": found.get("id"),
        "finding": found.get("message"),
        "hint": found.get("hint"),
        "where": found.get("path") or service,
        "field": found.get("field"),
        "origin": "audit",
    }


def _has(key: str, kind: Any) -> Callable[[Mapping[str, Any]], bool]:
    return lambda result: isinstance(result.get(key), kind)


Reader = Callable[[Mapping[str, Any], Play, Net, Record], None]
READERS: tuple[tuple[Callable[[Mapping[str, Any]], bool], Reader], ...] = (
    (_has("service", Mapping), _service),
    (_has("token", Mapping), _token),
    (_has("tokens", list), _tokens),
    (_has("services", list), _consumers),
    (_has("verification", Mapping), _probe),
)


# -- what that makes of the host -------------------------------------------------------------------------------------


def _status(results: list[Mapping[str, Any]], host: Record) -> str:
    """The worst of what its results say."""
    said = [str(one["status"]) for one in host["services"]]
    said += ["audited"] if results else []
    said += ["failed" for one in results if one.get("failed") and not one.get("unreachable")]
    said += ["unreachable" for one in results if one.get("unreachable")]
    return max(said, key=shape.STATUSES.index, default="unknown")


def difference(diff: Any) -> str:
    """Ansible's ``diff`` value, or a list of them, as one unified diff."""
    if isinstance(diff, (list, tuple)):
        return "".join(difference(one) for one in diff)
    if not isinstance(diff, Mapping):
        return ""
    if diff.get("prepared"):
        return str(diff["prepared"])
    before, after = (str(diff.get(side) or "").splitlines() for side in ("before", "after"))
    old, new = (str(diff.get(f"{side}_header") or side) for side in ("before", "after"))
    return "".join(line + "\n" for line in difflib.unified_diff(before, after, old, new, lineterm=""))
