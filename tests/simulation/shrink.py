"""Delta debugging of a failing history: the fewest actions that still break the same invariant in the same way.

Source: Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input" (2002), the algorithm ddmin.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from tests.simulation import actions as act
from tests.simulation.loop import Fault
from tests.simulation.run import Outcome, run

T = TypeVar("T")
MOST_RUNS = 3000


def shrink(
    first_rows: act.Write, actions: Sequence[act.Action], outcome: Outcome
) -> tuple[act.Write, list[act.Action]]:
    """Return the smallest history found in `MOST_RUNS` runs that breaks the same invariant as the outcome."""
    kind = kind_of(outcome.violation)
    left = MOST_RUNS

    def fails(rows: act.Write, some: Sequence[act.Action]) -> bool:
        nonlocal left
        left -= 1
        return left >= 0 and kind_of(run(rows, some).violation) == kind

    kept = minimal(list(actions[: outcome.done + 1]), lambda some: fails(first_rows, some))
    rows = act.Write(tuple(minimal(list(first_rows.changes), lambda some: fails(act.Write(tuple(some)), kept))))
    for at, action in enumerate(kept):
        for simpler in _simpler(action):
            changed = [*kept[:at], simpler, *kept[at + 1 :]]
            if fails(rows, changed):
                kept = changed
    return rows, minimal(kept, lambda some: fails(rows, some))


def kind_of(violation: str | None) -> str | None:
    """Return a violation without numbers and document names, so that two histories can share it."""
    return None if violation is None else re.sub(r"(docs|notes)/\w+|\d+", "…", violation)


def minimal(items: list[T], fails: Callable[[Sequence[T]], bool]) -> list[T]:
    """Return a part of the items that still fails, but no longer fails without any single one of them."""
    parts = 2
    while len(items) >= 1:
        size = max(1, len(items) // parts)
        for start in range(0, len(items), size):
            rest = items[:start] + items[start + size :]
            if fails(rest):
                items, parts = rest, max(parts - 1, 2)
                break
        else:
            if size == 1:
                return items
            parts = min(len(items), parts * 2)
    return items


def _simpler(action: act.Action) -> list[act.Action]:
    match action:
        case act.Step():
            calm = action._replace(fault=Fault.NONE, times=1)
            fewer = [action._replace(deliver=action.deliver[:n]) for n in range(len(action.deliver))]
            return [calm, *fewer] if action.fault is not Fault.NONE else [*fewer]
        case act.Zombie(_, _, fault) if fault is not Fault.NONE:
            return [action._replace(fault=Fault.NONE)]
        case act.Submit(_, body) if body is not None:
            return [action._replace(body=act.Body(body.text)), action._replace(body=act.Body("a"))]
        case act.Write(changes) if len(changes) > 1:
            return [act.Write((change,)) for change in changes]
        case act.Capture(_, _, holes) if holes:
            return [action._replace(holes=0)]
        case _:
            return []
