"""The exhaustive exploration of the write protocol over the production functions, and a test that each rule is needed.

`make test` leaves out the longest explorations: two changes of a producer concurrently with two of the application, or
with one of the application and a fault. `make long` explores them too. `CROSSFADE_EXPLORE=full` adds a crash and a
second delivery in the same history (hours).
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from itertools import product

import pytest

from domain import fold, guards, points
from domain.fold import LedgerState
from tests.exploration import model
from tests.exploration.explore import End, explore
from tests.exploration.model import World
from tests.exploration.state import (
    ARCHIVE,
    CHANGED,
    DAMAGES,
    GONE,
    NO_ROW,
    OTHERWISE,
    REFUSED,
    RESTORE,
    STRIPPED,
    SWALLOWED,
    UNUSABLE,
    Row,
    State,
    start,
)

FULL = os.environ.get("CROSSFADE_EXPLORE") == "full"


def beginnings() -> Iterator[State]:
    submits: list[tuple[str, ...]] = [(), ("A",), ("A", GONE), (REFUSED,)]
    direct: list[tuple[str, ...]] = [(), ("x",), ("x", GONE), (GONE, "y")]
    faults = [(1, 0), (0, 1)]
    if FULL:
        submits += [("A", "B"), (GONE,), (REFUSED, "A")]
        direct += [("x", "y"), (GONE,)]
        faults = [(1, 1)]
    for s, d, row, (crashes, rewinds) in product(submits, direct, (NO_ROW, Row("o", None)), faults):
        yield start(s, d, row, crashes, rewinds)
    # A repair at any time, and a refusal after a write that capture has not delivered yet.
    for s, d, repairs in product([(), ("A",), ("A", REFUSED)], direct[:3], (0, 1)):
        if FULL or len(s) + len(d) + repairs < 5:
            yield start(s, d, NO_ROW, 0, 0, repairs)
    # A row that differs from what was sent, because of a trigger or of columns that the producer left out.
    other = "A" + OTHERWISE
    more: list[tuple[str, ...]] = [(other, "B"), ("B", other)] if FULL else []
    for s, d in [((other,), direct[1]), ((other, GONE), ()), *product(more, direct[:2])]:
        yield start(s, d, Row("o", None), 0, 0)
    for d, (crashes, rewinds) in product(direct if FULL else direct[:1], faults):
        yield start((other,), d, NO_ROW, crashes, rewinds)
    yield from beyond_the_protocol()


def beyond_the_protocol() -> Iterator[State]:
    """Yield starts with what databases and operators do: lost slots, rows from an archive, triggers, damage."""
    foreign = Row("z", 7 << 40)
    # An archived row, the document's own or another's, is inserted again or overwrites the existing row.
    for row in (NO_ROW, Row("o", None)):
        yield start(("A",), (RESTORE,), row, 0, 0, archive=foreign)
        for s, damages in product([(), ("A",), ("A", GONE)], [(), ("slot",)]):
            yield start(s, (ARCHIVE, RESTORE), row, 0, 0, damages=damages)
    yield start((GONE,), (RESTORE,), Row("o", 5), 0, 0, archive=foreign)
    for d in ((), (GONE,), ("x",)):
        yield start(("A",), d, NO_ROW, 0, 0, damages=("slot",))
        yield start(
            ("A", GONE), (*d, *(["y"] if FULL else [])), NO_ROW, 0, 0, damages=("slot",) if FULL or not d else ()
        )
    yield start(("A",), (GONE,), NO_ROW, 0, 0, 1, damages=("slot",) if FULL else ())
    # A change that a trigger swallows, strips or changes, or that never reaches the table.
    for last in (SWALLOWED, STRIPPED, CHANGED, UNUSABLE):
        yield start((last,), ("x",), Row("o", None), 0, 0)
        yield start((last,), (GONE,), Row("o", None), 1 if FULL else 0, 0)
        yield start(("A", last), (), NO_ROW, 0, 0)
    # One column of the ledger or of a point is damaged at any moment.
    for name in (*DAMAGES, "legacy version", "point version"):
        yield start(("A",), ("x",), NO_ROW, 0, 0, damages=(name,))
        yield start(("A",), (GONE,), NO_ROW, 0, 0, damages=(name,))
        if FULL:
            yield start(("A", GONE), ("x",), NO_ROW, 0, 0, damages=(name,))


def visit(first: State) -> tuple[int, list[str] | None]:
    return explore(World(), first)


def is_long(first: State) -> bool:
    """Return whether a start takes minutes, because it has millions of states."""
    producer, application = len(first.submits_left), len(first.direct_left)
    faults = first.crashes_left + first.rewinds_left
    return producer + application + first.repairs_left > 3 or (producer > 1 and application > 0 and faults > 0)


@pytest.mark.timeout(36_000 if FULL else 1800)
@pytest.mark.parametrize("long", [False, pytest.param(True, marks=pytest.mark.long)], ids=["usual", "long"])
def test_every_interleaving_ends_with_both_stores_holding_the_same(long: bool) -> None:
    # Start with the longest, so that both processes end at about the same time.
    order = sorted(beginnings(), key=lambda s: -len(s.submits_left) - len(s.direct_left))
    order = [first for first in order if is_long(first) is long]
    states = 0
    with multiprocessing.get_context("fork").Pool(min(2, os.cpu_count() or 1), maxtasksperchild=4) as pool:
        for count, violation in pool.imap_unordered(visit, order):
            states += count
            assert violation is None, "\n  ".join(violation)
    assert states > 1_000_000, "the exploration became smaller than it was: is a kind of step missing?"


SMALL = [
    start(("A",), ("x",), NO_ROW, 0, 0),
    start(("A",), (), Row("o", None), 0, 1),
    start(("A",), (GONE,), Row("o", None), 1, 0),
    start((REFUSED,), (), Row("o", None), 0, 0, 1),
    start(("A",), ("x",), NO_ROW, 0, 0, damages=("slot",)),
    start(("A",), (GONE,), NO_ROW, 0, 0, damages=("point version",)),
    start((SWALLOWED,), (ARCHIVE, RESTORE), Row("o", None), 0, 0),
]


@pytest.mark.parametrize("first", SMALL, ids=range(len(SMALL)))
def test_steps_that_concern_nobody_else_may_be_taken_at_once(first: State) -> None:
    world, ends, all_ends = World(), set[End](), set[End]()
    fewer, violation = explore(world, first, ends)
    assert violation is None
    world.reduced = False
    states, violation = explore(world, first, all_ends)
    assert violation is None
    assert ends == all_ends
    assert fewer < states


def never(*_: object) -> bool:
    return False


def always(*_: object) -> bool:
    return True


def nothing(*_: object) -> tuple[int, ...]:
    return ()


def none(*_: object) -> dict[str, tuple[int, int]]:
    return {}


def unchanged(ledger: LedgerState, _: object) -> LedgerState:
    return ledger


BROKEN: dict[str, list[tuple[object, str, Callable[..., object]]]] = {
    "position": [(fold, "producer_delivered_again", never), (fold, "captured_delivered_again", never)],
    "echo": [(fold, "is_echo", never)],
    "pending": [(fold, "is_pending", never)],
    "refresh": [(fold, "refresh_is_outdated", never)],
    "unawaited": [(fold, "is_unawaited", never)],
    "ends": [(fold, "wait_is_ended", never)],
    "disproved": [(fold, "_without_disproved", unchanged)],
    "impossible versions": [(model, "impossible_versions", none)],
    "tombstone": [(points, "tombstones_for", nothing)],
    "ledger-guard": [(guards, "ledger_moves", always)],
    "vector-guard": [(guards, "vector_moves", always)],
    "insert-only": [(guards, "backfill_inserts", always)],
    "emit-first": [],
}


BEYOND = {"unawaited", "ends", "disproved", "impossible versions"}
"""Rules that are needed only for lost slots, archives, triggers or damage."""


@pytest.mark.parametrize("rule", BROKEN)
def test_without_a_rule_some_interleaving_diverges(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, replacement in BROKEN[rule]:
        monkeypatch.setattr(module, name, replacement)
    world = World(emit_first=rule != "emit-first")
    # Start with the smallest: a few steps are enough for a violation.
    some = beyond_the_protocol() if rule in BEYOND else beginnings()
    for first in sorted(some, key=lambda s: len(s.submits_left) + len(s.direct_left)):
        _, violation = explore(world, first)
        if violation is not None:
            return
    pytest.fail(f"no interleaving needs the rule {rule}")
