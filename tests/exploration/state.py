"""The state of the world around one document, and its parts: contents, entries of the log, damages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from domain.fold import LedgerState
from schemas.content import Content
from schemas.documents import DocumentChanged, Evidence, Origin, Position
from schemas.keys import version_of

GONE = "-"
REFUSED = "!"
UNUSABLE = "?"
"""A producer's change that goes to the dead-letter topic before it reaches the table."""
SWALLOWED, STRIPPED, CHANGED = "~", "%", "^"
"""A producer's changes that a trigger swallows, keeps without its version, or changes."""
ARCHIVE, RESTORE = "<", ">"
"""The application deletes the row and keeps a copy, including its version; or puts the copy back."""
OTHERWISE = "*"
"""A suffix of a producer's content. The row that is read back lacks it, so the legacy writer appends a refresh."""
EPOCH = 1
OFFSETS = (1 << 40) - 1
HIGH = version_of(EPOCH, 1 << 20)
ROUNDS = 1


class Row(NamedTuple):
    content: str
    version: int | None


NO_ROW = Row(GONE, None)


class Entry(NamedTuple):
    origin: Origin
    content: str
    before: Row
    after: Row
    position: Position
    rejects: int = 0
    snapshot: bool = False
    incomplete: bool = False
    done: int = 0
    evidence: Evidence | None = None

    def event(self) -> DocumentChanged:
        deleted = self.content == GONE
        return DocumentChanged(
            collection="docs",
            id="1",
            origin=self.origin,
            deleted=deleted,
            content=None if deleted else Content(text={"body": self.content}),
            before_version=self.before.version,
            after_version=self.after.version,
            position=self.position,
            rejects=self.rejects,
            snapshot=self.snapshot,
            incomplete=self.incomplete,
            done=self.done,
            evidence=self.evidence,
        )


class Resolved(NamedTuple):
    version: int
    origin: str
    content: str


class Point(NamedTuple):
    version: int
    content: str


class Reading(NamedTuple):
    """What a refresh read from the ledger before it reads the row."""

    position: Position
    done: int
    evidence: Evidence | None = None


class State(NamedTuple):
    submits_left: tuple[str, ...]
    direct_left: tuple[str, ...]
    rewinds_left: int
    crashes_left: int
    repairs_left: int
    submitted: tuple[str, ...]
    row: Row
    captured: tuple[tuple[Row, Row, bool], ...]  # the row before and after, and whether a snapshot read it
    captured_read: int
    submitted_read: int
    log: tuple[Entry, ...]
    resolver_at: int
    resolver_step: int  # 0: idle; 1: after the first of publish and ledger; 2: after both, not committed
    resolved: tuple[Resolved, ...]
    ledger: int  # an index into World.ledgers
    legacy_version: int
    legacy_at: int
    vector_at: int
    point: Point | None
    backfill: tuple[str, ...]
    reading: Reading | None
    unsent: tuple[Entry, ...]
    zombies: tuple[tuple[str, int], ...]
    damages_left: tuple[str, ...] = ()
    archive: Row = NO_ROW
    source_epoch: int = 1
    rounds_left: int = 0  # repairs at rest, after something was lost or damaged


def start(
    submits: tuple[str, ...],
    direct: tuple[str, ...],
    row: Row,
    crashes: int,
    rewinds: int,
    repairs: int = 0,
    *,
    damages: tuple[str, ...] = (),
    archive: Row = NO_ROW,
) -> State:
    """Return the state before anything happens."""
    nothing = State(
        submits, direct, rewinds, crashes, repairs, (), row, (), 0, 0, (), 0, 0, (), 0, 0, 0, 0, None, (), None, (), ()
    )
    return nothing._replace(damages_left=damages, archive=archive)


DAMAGES: dict[str, Callable[[LedgerState], LedgerState]] = {
    "emptied": lambda _: LedgerState(),
    "pending": lambda ledger: replace(ledger, pending=not ledger.pending),
    "removed": lambda ledger: replace(ledger, removed=not ledger.removed),
    "refresh": lambda ledger: replace(ledger, refresh=not ledger.refresh),
    "written": lambda ledger: replace(ledger, written=HIGH),
    "version": lambda ledger: replace(ledger, version=HIGH),
    "position": lambda ledger: replace(ledger, legacy_position=(9, 9)),
    "producer positions": lambda ledger: replace(ledger, producer_positions=((0, 9, 9),)),
}
"""Damages of one column of the ledger, by name. The other damages: "slot", "legacy version", "point version"."""
