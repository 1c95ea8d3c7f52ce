# SPDX-FileCopyrightText: fleetmail.smtp contributors
# SPDX-License-Identifier: BSD-2-Clause

"""The diff that a person reads: the form before and after, then the lines of each file that go and come."""

from __future__ import annotations

from typing import Any

from .plan import Change, Plan

MANY = 1000  # lines


def difference(head: str, plan: Plan) -> dict[str, Any]:
    """Ansible's ``diff`` value for a plan. A secret file shows that it changes, never what is in it."""
    sides: tuple[list[str], list[str]] = [head], [head]
    for field, before, after in plan.drift:
        sides[0].append(f"  {field}: {_word(before)}")
        sides[1].append(f"  {field}: {_word(after)}")
    for change in plan.changes:
        gone, come = _file(change)
        sides[0].extend(gone)
        sides[1].extend(come)
    before, after = ("\n".join(side) + "\n" for side in sides)
    return {"before_header": head, "after_header": head, "before": before, "after": after}


def _word(value: Any) -> str:
    if value is None or value == "":
        return "(none)"
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(str(one) for one in value) if isinstance(value, (list, tuple)) else str(value)


def _file(change: Change) -> tuple[list[str], list[str]]:
    wanted, now = change.wanted, change.now
    old = "" if now is None else now.content.decode("utf-8", "replace")
    new = "" if wanted.content is None else wanted.content.decode("utf-8", "replace")
    title = f"file {wanted.path}"
    states = "absent" if now is None else "present", "absent" if wanted.content is None else "present"
    if wanted.secret:
        return [f"{title} ({states[0]}, secret)"], [f"{title} ({states[1]}, secret)"]
    gone, come = _changed_lines(old.splitlines(), new.splitlines())
    return [f"{title} ({states[0]})", *gone], [f"{title} ({states[1]})", *come]


def _changed_lines(old: list[str], new: list[str]) -> tuple[list[str], list[str]]:
    from difflib import SequenceMatcher

    gone: list[str] = []
    come: list[str] = []
    often = len(new) > MANY  # equal lines in thousands would take minutes; the result is right either way
    for tag, start, stop, new_start, new_stop in SequenceMatcher(None, old, new, autojunk=often).get_opcodes():
        if tag != "equal":
            gone += ["  " + line for line in old[start:stop]]
            come += ["  " + line for line in new[new_start:new_stop]]
    return gone, come
