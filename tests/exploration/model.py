"""The world around one document as a state machine, decided by the production functions of `domain/`.

The world has producers, an application that writes directly to the table, archives the row and inserts it again, a
trigger, a capture that may deliver twice or lose its replication position, a backfill, a verifier that repairs, and
three agents that may crash, deliver twice or continue after they were replaced. `explore` visits every interleaving
breadth first. When nothing is left to do, the row and the point must hold the same content: by themselves, or after a
repair if something was lost or damaged. The same applies to what the application writes after the repair.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from domain import fold as rules
from domain import guards, points
from domain.fold import LedgerState, Verdict
from domain.ledger import LedgerRow
from domain.points import StoredChunk
from domain.repair import Ends, evidence_of, impossible_versions
from schemas.documents import Evidence
from schemas.keys import version_of
from tests.exploration.state import (
    ARCHIVE,
    CHANGED,
    DAMAGES,
    EPOCH,
    GONE,
    HIGH,
    NO_ROW,
    OTHERWISE,
    REFUSED,
    RESTORE,
    ROUNDS,
    STRIPPED,
    SWALLOWED,
    UNUSABLE,
    Entry,
    Point,
    Reading,
    Resolved,
    Row,
    State,
)  # fmt: skip

Step = tuple[str, State]
DONE = ("", "")
"""A finished backfill. What it read no longer matters."""


@dataclass
class World:
    """Caches of the pure functions, and the order in which the resolver publishes and moves the ledger.

    With `reduced`, a step that is independent of every other step is taken at once, instead of before and after each
    of them. The states in which nothing is left to do are the same.
    """

    emit_first: bool = True
    reduced: bool = True
    ledgers: list[LedgerState] = field(default_factory=lambda: [LedgerState()])
    index: dict[LedgerState, int] = field(default_factory=lambda: {LedgerState(): 0})
    folds: dict[tuple[int, int, Entry], tuple[bool, int]] = field(default_factory=dict)

    def of(self, s: State) -> LedgerState:
        return self.ledgers[s.ledger]

    def known(self, ledger: LedgerState) -> int:
        if ledger not in self.index:
            self.index[ledger] = len(self.ledgers)
            self.ledgers.append(ledger)
        return self.index[ledger]

    def fold(self, ledger: int, version: int, entry: Entry) -> tuple[bool, int]:
        key = (ledger, version, entry)
        known = self.folds.get(key)
        if known is None:
            verdict, after = rules.fold(self.ledgers[ledger], version, entry.event())
            known = self.folds[key] = (verdict is Verdict.TAKES_EFFECT, self.known(after))
        return known

    def steps(self, s: State) -> Iterator[Step]:
        if self.reduced and (alone := self.alone(s)) is not None:
            yield alone
            return
        rest = True
        for name, after in self._steps(s):
            rest = rest and is_fault(name)
            yield name, after
        if rest and s.rounds_left and _differs(s):
            yield "a repair at rest", self.repaired(s)

    def alone(self, s: State) -> Step | None:
        """Return a step that affects no other step, and during which nothing can go wrong. None if there is none.

        Such steps are a backfill that finds a point, a commit of the resolver, and a step of the vector writer once
        nothing else will write the point.
        """
        if s.point is not None and len(s.backfill) < 2 and not guards.backfill_inserts(_stored(s.point)):
            return "backfill finds a point", s._replace(backfill=DONE)
        if s.crashes_left:
            return None
        if s.resolver_step == 2:
            return "resolver commits", s._replace(resolver_at=s.resolver_at + 1, resolver_step=0)
        if s.vector_at < len(s.resolved) and len(s.backfill) > 1 and not s.zombies and not s.damages_left:
            return "vector writer", _committed(self.apply_vector(s, s.resolved[s.vector_at]), "vector")
        return None

    def _steps(self, s: State) -> Iterator[Step]:
        yield from self.writes(s)
        yield from self.harm(s)
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
            if content == ARCHIVE:
                left, content = left._replace(archive=s.row), GONE
            if content == GONE and s.row.content == GONE:
                yield "direct delete of nothing", left
            elif content == RESTORE:
                yield "direct restore", left._replace(row=s.archive, captured=_captured(s, s.archive))
            else:
                after = NO_ROW if content == GONE else Row(content, s.row.version)
                yield f"direct write {content}", left._replace(row=after, captured=_captured(s, after))

    def harm(self, s: State) -> Iterator[Step]:
        for i, name in enumerate(s.damages_left):
            left = s._replace(damages_left=s.damages_left[:i] + s.damages_left[i + 1 :], rounds_left=ROUNDS)
            if name == "slot":
                if s.captured_read < len(s.captured):
                    snapshot = () if s.row == NO_ROW else ((NO_ROW, s.row, True),)
                    epoch = s.source_epoch + 1
                    yield "the slot is lost", left._replace(captured=snapshot, captured_read=0, source_epoch=epoch)
            elif name == "point version":
                if s.point is not None:
                    yield "damage of a point", left._replace(point=s.point._replace(version=HIGH))
            elif name == "legacy version":
                yield "damage of the legacy version", left._replace(legacy_version=HIGH)
            else:
                yield f"damage of the ledger: {name}", left._replace(ledger=self.known(DAMAGES[name](self.of(s))))

    def appends(self, s: State) -> Iterator[Step]:
        if s.submitted_read < len(s.submitted):
            at = s.submitted_read
            entry = Entry("producer", s.submitted[at], NO_ROW, NO_ROW, (EPOCH, 0, at))
            yield "intake appends", s._replace(submitted_read=at + 1, log=(*s.log, entry))
        if s.captured_read < len(s.captured):
            at = s.captured_read
            before, after, snapshot = s.captured[at]
            place = (s.source_epoch, 0 if snapshot else 1, at, at)
            entry = Entry("legacy", after.content, before, after, place, snapshot=snapshot)
            yield "capture appends", s._replace(captured_read=at + 1, log=(*s.log, entry))
        if s.rewinds_left and s.captured_read:
            yield "capture rewinds", s._replace(rewinds_left=s.rewinds_left - 1, captured_read=0)
        if s.rewinds_left and s.submitted_read:
            yield "intake rewinds", s._replace(rewinds_left=s.rewinds_left - 1, submitted_read=0)

    def refreshes(self, s: State) -> Iterator[Step]:
        ledger = self.of(s)
        seen = Reading(ledger.legacy_position, s.legacy_version)
        if s.repairs_left and s.reading is None:
            # The verifier may see a difference at any time: it may be gone when it is repaired.
            left = s._replace(repairs_left=s.repairs_left - 1)
            yield "the ledger is read for a repair", left._replace(reading=seen)
            if ledger.pending or ledger.removed:
                ending = seen._replace(evidence=Evidence(ends=ledger.written))
                yield "the wait is seen for a repair", left._replace(reading=ending)
        if ledger.refresh and s.resolver_at == len(s.log) and s.reading is None and not s.unsent:
            yield "the ledger is read for a refresh", s._replace(reading=seen)
        if s.reading is not None:
            yield "the row is read for a refresh", s._replace(reading=None, unsent=(*s.unsent, _refresh(s, s.reading)))
        for i, entry in enumerate(s.unsent):
            yield "a refresh is appended", s._replace(unsent=s.unsent[:i] + s.unsent[i + 1 :], log=(*s.log, entry))

    def repaired(self, s: State) -> State:
        """Repair as `crossfade verify --repair` does: reset impossible values, then read the row again."""
        newest = version_of(EPOCH, len(s.log)) - 1
        row = LedgerRow(self.of(s), s.legacy_version, vector_version=s.point.version if s.point else 0)
        ends = Ends(newest, (s.source_epoch, 1, len(s.captured), 0), {0: len(s.submitted)})
        bad = impossible_versions(row, ends, s.row.version)
        state = replace(row.state, version=0) if "version" in bad else row.state
        legacy_version = bad.get("legacy_version", (0, s.legacy_version))[1]
        point = None if s.point and s.point.version > newest else s.point
        waited = state.written if state.pending or state.removed else None
        evidence = evidence_of(replace(row, state=state), ends, waited)
        reading = Reading(state.legacy_position, legacy_version, evidence)
        fixed = s._replace(ledger=self.known(state), legacy_version=legacy_version, point=point)
        # The application's next write must not need another repair: the last repair leaves nothing to fix.
        late = ("z",) if s.rounds_left == 1 else ()
        log = (*s.log, _refresh(s, reading))
        return fixed._replace(rounds_left=s.rounds_left - 1, log=log, direct_left=(*s.direct_left, *late))

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
                moves = version > self.of(s).version
                yield "resolver moves the ledger", s._replace(ledger=after if moves else s.ledger, resolver_step=2)
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
        if resolved.content == UNUSABLE:
            lost = Entry("refresh", UNUSABLE, NO_ROW, NO_ROW, (), resolved.version, incomplete=True)
            return s._replace(unsent=(*s.unsent, lost))
        moved = s._replace(legacy_version=max(resolved.version, s.legacy_version))
        if resolved.origin != "producer":
            return moved
        if resolved.content == REFUSED:
            refresh = _refresh(s, Reading(self.of(s).legacy_position, moved.legacy_version))
            return moved._replace(unsent=(*s.unsent, refresh._replace(rejects=resolved.version)))
        if resolved.content == SWALLOWED:
            return moved._replace(rounds_left=ROUNDS)
        after = NO_ROW if resolved.content == GONE else Row(resolved.content, resolved.version)
        if resolved.content.endswith(OTHERWISE):
            after = Row(resolved.content.rstrip(OTHERWISE), resolved.version)
            reading = Reading(self.of(s).legacy_position, moved.legacy_version)
            refresh = _refresh(s._replace(row=after), reading)._replace(rejects=resolved.version)
            moved = moved._replace(unsent=(*s.unsent, refresh))
        if resolved.content == STRIPPED:
            moved, after = moved._replace(rounds_left=ROUNDS), Row(STRIPPED, None)
        if resolved.content == CHANGED:
            moved, after = moved._replace(rounds_left=ROUNDS), Row("^changed", resolved.version)
        return moved._replace(row=after, captured=_captured(s, after))

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
            yield "backfill inserts where no point is", s._replace(point=point, backfill=DONE)


def _captured(s: State, after: Row) -> tuple[tuple[Row, Row, bool], ...]:
    """Return what capture will see once the row is `after`. If there was and is no row, it sees nothing."""
    return s.captured if s.row == after == NO_ROW else (*s.captured, (s.row, after, False))


def _refresh(s: State, read: Reading) -> Entry:
    return Entry("refresh", s.row.content, s.row, s.row, read.position, done=read.done, evidence=read.evidence)


def _differs(s: State) -> bool:
    return s.row.content != (s.point.content if s.point else GONE)


def _committed(s: State, role: str) -> State:
    return s._replace(legacy_at=s.legacy_at + 1) if role == "legacy" else s._replace(vector_at=s.vector_at + 1)


def _stored(point: Point | None) -> tuple[StoredChunk, ...]:
    return () if point is None else (StoredChunk(0, point.version, deleted=point.content == GONE),)


FAULTS = ("rewinds", "not committed", "pauses with it", "crashes", "for a repair", "is lost")


def is_fault(name: str) -> bool:
    """Return whether a step need not happen."""
    return name.endswith(FAULTS) or name.startswith("damage")
