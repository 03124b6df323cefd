"""The world around one document as a state machine, decided by the production functions of `domain/`.

Producers, an application that writes straight to the table, a capture that may deliver twice, a backfill, a verifier
that repairs, and three agents that may crash, deliver twice or go on after they were replaced. `explore` visits every
interleaving breadth first; where nothing is left to do, the row and the point must hold the same content.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from domain import fold as rules
from domain import guards, points
from domain.fold import LedgerState, Verdict
from domain.keys import version_of
from domain.points import StoredChunk
from schemas.content import Content
from schemas.documents import DocumentChanged, Origin, Position

GONE = "-"
REFUSED = "!"
EPOCH = 1


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
        )


class Resolved(NamedTuple):
    version: int
    origin: str
    content: str


class Point(NamedTuple):
    version: int
    content: str


class State(NamedTuple):
    submits_left: tuple[str, ...]
    direct_left: tuple[str, ...]
    rewinds_left: int
    crashes_left: int
    repairs_left: int
    submitted: tuple[str, ...]
    row: Row
    captured: tuple[tuple[Row, Row], ...]
    captured_read: int
    submitted_read: int
    log: tuple[Entry, ...]
    resolver_at: int
    resolver_step: int  # 0 idle, 1 after the first of publish and ledger, 2 after both, not committed
    resolved: tuple[Resolved, ...]
    ledger: int  # an index into World.ledgers
    legacy_version: int
    legacy_at: int
    vector_at: int
    point: Point | None
    backfill: tuple[str, ...]
    reading: Position | None
    unsent: tuple[Entry, ...]
    zombies: tuple[tuple[str, int], ...]


Step = tuple[str, State]


@dataclass
class World:
    """Caches over the pure functions, and the order in which the resolver publishes and remembers."""

    emit_first: bool = True
    ledgers: list[LedgerState] = field(default_factory=lambda: [LedgerState()])
    index: dict[LedgerState, int] = field(default_factory=lambda: {LedgerState(): 0})
    folds: dict[tuple[int, int, Entry], tuple[bool, int]] = field(default_factory=dict)

    def fold(self, ledger: int, version: int, entry: Entry) -> tuple[bool, int]:
        key = (ledger, version, entry)
        known = self.folds.get(key)
        if known is None:
            verdict, after = rules.fold(self.ledgers[ledger], version, entry.event())
            if after not in self.index:
                self.index[after] = len(self.ledgers)
                self.ledgers.append(after)
            known = self.folds[key] = (verdict is Verdict.TAKES_EFFECT, self.index[after])
        return known

    def steps(self, s: State) -> Iterator[Step]:
        yield from self.writes(s)
        yield from self.appends(s)
        yield from self.refreshes(s)
        yield from self.resolver(s)
        yield from self.writers(s)
        yield from self.backfill(s)

    def writes(self, s: State) -> Iterator[Step]:
        if s.submits_left:
            content, *rest = s.submits_left
            yield f"producer submits {content}", s._replace(submits_left=tuple(rest), submitted=(*s.submitted, content))
        if s.direct_left:
            content, *rest = s.direct_left
            left = s._replace(direct_left=tuple(rest))
            if content == GONE and s.row.content == GONE:
                yield "direct delete of nothing", left
            else:
                after = NO_ROW if content == GONE else Row(content, s.row.version)
                yield f"direct write {content}", left._replace(row=after, captured=(*s.captured, (s.row, after)))

    def appends(self, s: State) -> Iterator[Step]:
        if s.submitted_read < len(s.submitted):
            at = s.submitted_read
            entry = Entry("producer", s.submitted[at], NO_ROW, NO_ROW, (EPOCH, 0, at))
            yield "intake appends", s._replace(submitted_read=at + 1, log=(*s.log, entry))
        if s.captured_read < len(s.captured):
            at = s.captured_read
            before, after = s.captured[at]
            entry = Entry("legacy", after.content, before, after, (1, 1, at, at))
            yield "capture appends", s._replace(captured_read=at + 1, log=(*s.log, entry))
        if s.rewinds_left and s.captured_read:
            yield "capture rewinds", s._replace(rewinds_left=s.rewinds_left - 1, captured_read=0)
        if s.rewinds_left and s.submitted_read:
            yield "intake rewinds", s._replace(rewinds_left=s.rewinds_left - 1, submitted_read=0)

    def refreshes(self, s: State) -> Iterator[Step]:
        ledger = self.ledgers[s.ledger]
        if s.repairs_left and s.reading is None:
            # The verifier may see a difference at any time: what it repairs need not be one any more.
            read = s._replace(reading=ledger.legacy_position, repairs_left=s.repairs_left - 1)
            yield "the ledger is read for a repair", read
        if ledger.refresh and s.resolver_at == len(s.log) and s.reading is None and not s.unsent:
            yield "the ledger is read for a refresh", s._replace(reading=ledger.legacy_position)
        if s.reading is not None:
            entry = Entry("refresh", s.row.content, s.row, s.row, s.reading)
            yield "the row is read for a refresh", s._replace(reading=None, unsent=(*s.unsent, entry))
        for i, entry in enumerate(s.unsent):
            yield "a refresh is appended", s._replace(unsent=s.unsent[:i] + s.unsent[i + 1 :], log=(*s.log, entry))

    def resolver(self, s: State) -> Iterator[Step]:
        if s.resolver_at >= len(s.log):
            return
        entry, version = s.log[s.resolver_at], version_of(EPOCH, s.resolver_at)
        if s.resolver_step == 0 and version <= self.ledgers[s.ledger].version:
            yield "resolver skips", s._replace(resolver_at=s.resolver_at + 1)
        elif s.resolver_step == 2:
            yield "resolver commits", s._replace(resolver_at=s.resolver_at + 1, resolver_step=0)
        elif self.emit_first:
            takes, after = self.fold(s.ledger, version, entry)
            if s.resolver_step == 0:
                yield "resolver publishes", self._emitted(s, version, entry, takes)._replace(resolver_step=1)
            else:
                yield "resolver moves the ledger", s._replace(ledger=after, resolver_step=2)
        elif s.resolver_step == 0:
            takes, after = self.fold(s.ledger, version, entry)
            yield "resolver moves the ledger too early", s._replace(ledger=after, resolver_step=1)
        else:
            yield "resolver publishes late", self._emitted(s, version, entry, True)._replace(resolver_step=2)
        if s.crashes_left and s.resolver_step:
            yield "resolver crashes", s._replace(resolver_step=0, crashes_left=s.crashes_left - 1)

    @staticmethod
    def _emitted(s: State, version: int, entry: Entry, takes: bool) -> State:
        return s._replace(resolved=(*s.resolved, Resolved(version, entry.origin, entry.content))) if takes else s

    def writers(self, s: State) -> Iterator[Step]:
        for role, at in (("legacy", s.legacy_at), ("vector", s.vector_at)):
            if at >= len(s.resolved):
                continue
            done = self.apply(role, s, s.resolved[at])
            yield f"{role} writer", _committed(done, role)
            if s.crashes_left:
                fewer = done._replace(crashes_left=s.crashes_left - 1)
                yield f"{role} writer applies, not committed", fewer
                paused = _committed(fewer, role)
                yield f"{role} writer pauses with it", paused._replace(zombies=(*s.zombies, (role, at)))
        for i, (role, at) in enumerate(s.zombies):
            rest = s.zombies[:i] + s.zombies[i + 1 :]
            yield f"zombie {role} writer", self.apply(role, s, s.resolved[at])._replace(zombies=rest)

    def apply(self, role: str, s: State, resolved: Resolved) -> State:
        return self.apply_legacy(s, resolved) if role == "legacy" else self.apply_vector(s, resolved)

    def apply_legacy(self, s: State, resolved: Resolved) -> State:
        if not guards.ledger_moves(s.legacy_version, resolved.version):
            return s
        moved = s._replace(legacy_version=max(resolved.version, s.legacy_version))
        if resolved.origin != "producer":
            return moved
        if resolved.content == REFUSED:
            position = self.ledgers[s.ledger].legacy_position
            refresh = Entry("refresh", s.row.content, s.row, s.row, position, resolved.version)
            return moved._replace(unsent=(*s.unsent, refresh))
        after = NO_ROW if resolved.content == GONE else Row(resolved.content, resolved.version)
        unchanged = s.row == after == NO_ROW
        return moved._replace(row=after, captured=s.captured if unchanged else (*s.captured, (s.row, after)))

    def apply_vector(self, s: State, resolved: Resolved) -> State:
        stored = _stored(s.point)
        if not guards.vector_moves(stored, resolved.version):
            return s
        if resolved.content == GONE and 0 not in points.tombstones_for(0, stored):
            return s._replace(point=None)
        return s._replace(point=Point(resolved.version, resolved.content))

    def backfill(self, s: State) -> Iterator[Step]:
        if not s.backfill:
            yield "backfill reads the row", s._replace(backfill=(s.row.content,))
        elif len(s.backfill) == 1:
            inserts = s.backfill[0] != GONE and guards.backfill_inserts(_stored(s.point))
            point = Point(0, s.backfill[0]) if inserts else s.point
            yield "backfill inserts where no point is", s._replace(point=point, backfill=(*s.backfill, "done"))


def _committed(s: State, role: str) -> State:
    return s._replace(legacy_at=s.legacy_at + 1) if role == "legacy" else s._replace(vector_at=s.vector_at + 1)


def _stored(point: Point | None) -> tuple[StoredChunk, ...]:
    return () if point is None else (StoredChunk(0, point.version, deleted=point.content == GONE),)


def start(
    submits: tuple[str, ...], direct: tuple[str, ...], row: Row, crashes: int, rewinds: int, repairs: int = 0
) -> State:
    """Return the state before anything happened."""
    return State(
        submits, direct, rewinds, crashes, repairs, (), row, (), 0, 0, (), 0, 0, (), 0, 0, 0, 0, None, (), None, (), ()
    )


FAULTS = ("rewinds", "not committed", "pauses with it", "crashes", "for a repair")


def explore(world: World, first: State) -> tuple[int, list[str] | None]:
    """Visit every state; return how many there are, and the history of a violation if there is one."""
    seen: dict[State, tuple[State, str] | None] = {first: None}
    queue = deque([first])
    while queue:
        s = queue.popleft()
        finished = True
        for name, after in world.steps(s):
            if not name.endswith(FAULTS):
                finished = False
            if s.point is not None and (after.point is None or after.point.version < s.point.version):
                return len(seen), [*history(seen, s), name, "the stored version went down"]
            if after not in seen:
                seen[after] = (s, name)
                queue.append(after)
        held = s.point.content if s.point else GONE
        if finished and s.row.content != held:
            return len(seen), [*history(seen, s), f"legacy holds {s.row.content}, Qdrant {held}"]
    return len(seen), None


def history(seen: dict[State, tuple[State, str] | None], s: State) -> list[str]:
    """Return the names of the steps that led to a state."""
    names: list[str] = []
    came = seen[s]
    while came is not None:
        names.append(came[1])
        came = seen[came[0]]
    return names[::-1]
