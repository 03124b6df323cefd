"""The rules of the fold by example: each case is one log entry, the ledger before it, and the expected result."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from domain.fold import LedgerState, Verdict, fold
from schemas.documents import DocumentChanged, Evidence

AT = 100
"""The version of the entry that is folded."""


def producer(offset: int, *, partition: int = 0, epoch: int = 1, **other: Any) -> DocumentChanged:
    return DocumentChanged(collection="c", id="1", origin="producer", position=(epoch, partition, offset), **other)


def captured(lsn: int, before: int | None = None, after: int | None = None, **other: Any) -> DocumentChanged:
    """Return a streamed change of the row. `before` and `after` are its `crossfade_version`."""
    reported: dict[str, Any] = {"position": (1, 1, lsn), "before_version": before, "after_version": after} | other
    return DocumentChanged(collection="c", id="1", origin="legacy", **reported)


def snapshot(lsn: int, after: int | None = None, **other: Any) -> DocumentChanged:
    return captured(lsn, None, after, **({"position": (1, 0, lsn), "snapshot": True} | other))


def refresh(position: tuple[int, ...] = (), **other: Any) -> DocumentChanged:
    return DocumentChanged(collection="c", id="1", origin="refresh", position=position, **other)


EMPTY = LedgerState()
# A producer's upsert at version 50. Its write was not seen in the captured stream yet.
PENDING = LedgerState(version=50, written=50, pending=True, legacy_position=(1, 1, 10), producer_positions=((0, 1, 7),))
SETTLED = replace(PENDING, pending=False)
REMOVED = replace(PENDING, pending=False, removed=True)
TAKES, DUPLICATE, ECHO = Verdict.TAKES_EFFECT, Verdict.DUPLICATE, Verdict.ECHO
OVERTAKEN, GONE, AGAIN = Verdict.OVERTAKEN, Verdict.REMOVED, Verdict.READ_AGAIN

CASES: list[tuple[str, LedgerState, DocumentChanged, Verdict, dict[str, Any]]] = [
    # what must hold, ledger, entry, verdict, what else changes in the ledger
    ("a producer's upsert is pending until it is captured", EMPTY, producer(3), TAKES,
     {"written": AT, "pending": True, "producer_positions": ((0, 1, 3),)}),
    ("a producer's deletion is never pending", EMPTY, producer(3, deleted=True), TAKES,
     {"written": AT, "removed": True, "producer_positions": ((0, 1, 3),)}),
    ("a producer's upsert brings a removed document back", REMOVED, producer(8), TAKES,
     {"written": AT, "pending": True, "removed": False, "producer_positions": ((0, 1, 8),)}),
    ("a producer's change makes a refresh needless", replace(EMPTY, refresh=True), producer(3), TAKES,
     {"written": AT, "pending": True, "refresh": False, "producer_positions": ((0, 1, 3),)}),
    # position
    ("the same producer's record again", SETTLED, producer(7), DUPLICATE, {}),
    ("an older producer's record again", SETTLED, producer(2), DUPLICATE, {}),
    ("an older epoch is older, whatever its offset", SETTLED, producer(99, epoch=0), DUPLICATE, {}),
    ("a newer epoch is newer, whatever its offset", SETTLED, producer(0, epoch=2), TAKES,
     {"written": AT, "pending": True, "producer_positions": ((0, 2, 0),)}),
    ("another partition has offsets of its own", SETTLED, producer(1, partition=4), TAKES,
     {"written": AT, "pending": True, "producer_positions": ((0, 1, 7), (4, 1, 1))}),
    ("the same captured change again", SETTLED, captured(10), DUPLICATE, {}),
    ("an older captured change again", SETTLED, captured(9), DUPLICATE, {}),
    ("a snapshot row is before every streamed change", SETTLED, snapshot(99), DUPLICATE, {}),
    ("a raised source epoch is after everything", SETTLED, captured(1, position=(2, 0, 1)), TAKES,
     {"legacy_position": (2, 0, 1)}),
    # echo
    ("the echo of the awaited write ends pending", PENDING, captured(11, 40, 50), ECHO,
     {"pending": False, "legacy_position": (1, 1, 11)}),
    ("the echo of an insert ends pending", PENDING, captured(11, None, 50), ECHO,
     {"pending": False, "legacy_position": (1, 1, 11)}),
    ("the echo of an older write ends nothing", PENDING, captured(11, 30, 40), ECHO, {"legacy_position": (1, 1, 11)}),
    ("an echo of an older write that nobody awaits has the row read again", SETTLED, captured(11, 30, 40), AGAIN,
     {"refresh": True, "legacy_position": (1, 1, 11)}),
    ("an echo of the last write that nobody awaits has the row read again", SETTLED, captured(11, 40, 50), AGAIN,
     {"refresh": True, "legacy_position": (1, 1, 11)}),
    ("a row that comes back with its version is read again", SETTLED, captured(11, None, 50), AGAIN,
     {"refresh": True, "legacy_position": (1, 1, 11)}),
    ("a row that comes back with its version after a producer's deletion is read again", REMOVED,
     captured(11, None, 40), AGAIN, {"refresh": True, "legacy_position": (1, 1, 11)}),
    ("a write that keeps the version is the application's", SETTLED, captured(11, 50, 50), TAKES,
     {"legacy_position": (1, 1, 11)}),
    ("a row without a version is the application's", SETTLED, captured(11), TAKES, {"legacy_position": (1, 1, 11)}),
    ("a deletion is never an echo", SETTLED, captured(11, 50, deleted=True), TAKES, {"legacy_position": (1, 1, 11)}),
    # pending
    ("a direct write before the awaited echo will be overwritten", PENDING, captured(11, 40, 40), OVERTAKEN,
     {"legacy_position": (1, 1, 11)}),
    ("a direct deletion before the awaited echo will be overwritten", PENDING, captured(11, 40, deleted=True),
     OVERTAKEN, {"legacy_position": (1, 1, 11)}),
    # removed
    ("a row with a version is of the row that the deletion removes", REMOVED, captured(11, 40, 40), GONE,
     {"legacy_position": (1, 1, 11)}),
    ("a row without a version is a new one", REMOVED, captured(11), TAKES,
     {"removed": False, "legacy_position": (1, 1, 11)}),
    ("the captured deletion leaves the document removed", REMOVED, captured(11, 40, deleted=True), TAKES,
     {"legacy_position": (1, 1, 11)}),
    # snapshot
    ("a snapshot row fills an empty ledger", EMPTY, snapshot(5), TAKES, {"legacy_position": (1, 0, 5)}),
    ("a snapshot row with a version is no echo", EMPTY, snapshot(5, 40), TAKES, {"legacy_position": (1, 0, 5)}),
    ("a snapshot row of the awaited version ends pending and takes effect", PENDING,
     snapshot(5, 50, position=(2, 0, 5)), TAKES, {"pending": False, "legacy_position": (2, 0, 5)}),
    ("a snapshot row of another version is overtaken", PENDING, snapshot(5, 40, position=(2, 0, 5)), OVERTAKEN,
     {"legacy_position": (2, 0, 5)}),
    ("a snapshot row that carries a version may be of the removed row: it is read again", REMOVED,
     snapshot(5, 40, position=(2, 0, 5)), AGAIN, {"refresh": True, "legacy_position": (2, 0, 5)}),
    # incomplete
    ("a row that is not whole is read again", SETTLED, captured(11, incomplete=True), AGAIN,
     {"refresh": True, "legacy_position": (1, 1, 11)}),
    ("a whole row makes the refresh needless", replace(SETTLED, refresh=True), captured(11), TAKES,
     {"refresh": False, "legacy_position": (1, 1, 11)}),
    # refresh
    ("a refresh at the folded position takes effect", replace(SETTLED, refresh=True), refresh((1, 1, 10)), TAKES,
     {"refresh": False}),
    ("a refresh of an unknown document takes effect", EMPTY, refresh(), TAKES, {}),
    ("a refresh of a removed document's row ends removed", REMOVED, refresh((1, 1, 10), done=50), TAKES,
     {"removed": False}),
    ("a refresh of a row that a deletion under way will remove is overtaken", REMOVED, refresh((1, 1, 10), done=49),
     OVERTAKEN, {}),
    ("a refresh before a deletion under way from another position is answered by another", REMOVED,
     refresh((1, 1, 9), done=49), AGAIN, {"refresh": True}),
    ("a refresh from another position is answered by another", SETTLED, refresh((1, 1, 9)), AGAIN, {"refresh": True}),
    ("a refresh before the awaited write is overtaken", PENDING, refresh((1, 1, 10), after_version=40), OVERTAKEN, {}),
    ("a refresh that saw the awaited write does not end the wait for its echo", PENDING,
     refresh((1, 1, 10), after_version=50), OVERTAKEN, {}),
    ("a refresh of the awaited write from another position is not answered by another", PENDING,
     refresh((1, 1, 9), after_version=50), OVERTAKEN, {}),
    # refusal
    ("the refusal of the awaited write ends pending", PENDING, refresh((1, 1, 10), rejects=50), TAKES,
     {"pending": False}),
    ("the refusal of an older write is overtaken", PENDING, refresh((1, 1, 10), rejects=40), OVERTAKEN, {}),
    ("a refusal from another position has the row read again", PENDING, refresh((1, 1, 9), rejects=50), AGAIN,
     {"pending": False, "refresh": True}),
    ("a write that was lost on the way to the table ends pending, and the row is read", PENDING,
     refresh(rejects=50, incomplete=True), AGAIN, {"pending": False, "refresh": True}),
    ("a deletion that was lost on the way to the table ends removed, and the row is read", REMOVED,
     refresh(rejects=50, incomplete=True), AGAIN, {"removed": False, "refresh": True}),
    # repair
    ("a repair ends the wait that it saw", PENDING, refresh((1, 1, 10), evidence=Evidence(ends=50)), TAKES,
     {"pending": False}),
    ("a repair ends the wait that it saw, and reads the row again where it moved", PENDING,
     refresh((1, 1, 9), evidence=Evidence(ends=50)), AGAIN, {"pending": False, "refresh": True}),
    ("a repair does not end the wait for a later write", PENDING, refresh((1, 1, 10), evidence=Evidence(ends=40)),
     OVERTAKEN, {}),
    ("a repair ends the wait for a deletion that never came", REMOVED,
     refresh((1, 1, 10), evidence=Evidence(ends=50)), TAKES, {"removed": False}),
    ("a position that cannot be is forgotten, and the row is read again", SETTLED,
     refresh((1, 1, 10), evidence=Evidence(position=(1, 1, 10))), AGAIN, {"refresh": True, "legacy_position": ()}),
    ("a position that moved since it was read is kept", SETTLED,
     refresh((1, 1, 9), evidence=Evidence(position=(1, 1, 9))), AGAIN, {"refresh": True}),
    ("a producer's position that cannot be is forgotten", SETTLED,
     refresh((1, 1, 10), evidence=Evidence(producers=((0, 1, 7),))), TAKES, {"producer_positions": ()}),
    ("a producer's position that moved since it was read is kept", SETTLED,
     refresh((1, 1, 10), evidence=Evidence(producers=((0, 1, 6),))), TAKES, {}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "entry", "verdict", "changes"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_an_entry_comes_to_its_verdict_and_moves_the_ledger(
    before: LedgerState, entry: DocumentChanged, verdict: Verdict, changes: dict[str, Any]
) -> None:
    assert fold(before, AT, entry) == (verdict, replace(before, version=AT, **changes))


def test_every_verdict_and_every_origin_is_in_the_table() -> None:
    assert {case[3] for case in CASES} == set(Verdict)
    assert {case[2].origin for case in CASES} == {"producer", "legacy", "refresh"}
