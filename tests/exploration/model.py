"""The world around one document as a state machine, decided by the production functions of `domain/`.

Producers, an application that writes straight to the table, archives the row and inserts it again, a trigger, a capture
that may deliver twice or lose its place, a backfill, a verifier that repairs, and three agents that may crash, deliver
twice or go on after they were replaced. `explore` visits every interleaving breadth first. Where nothing is left to do,
the row and the point must hold the same content: by themselves, or after a repair where something was lost or
damaged, and so must what the application writes behind it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from domain import fold as rules
from domain import guards, points
from domain.fold import LedgerState, Verdict
from domain.keys import version_of
from domain.ledger import LedgerRow
from domain.points import StoredChunk
from domain.repair import Ends, evidence_of, impossible_versions
from schemas.content import Content
from schemas.documents import DocumentChanged, Evidence, Origin, Position

GONE = "-"
REFUSED = "!"
UNUSABLE = "?"
"""A producer's change that goes to the dead-letter topic before it came to the table."""
SWALLOWED, STRIPPED, CHANGED = "~", "%", "^"
"""A producer's changes that a trigger swallows, keeps without its version, or changes."""
ARCHIVE, RESTORE = "<", ">"
"""The application deletes the row and keeps a copy, version and all; or puts the copy back."""
OTHERWISE = "*"
"""Behind a producer's content: the row that is read back is without this sign, so that the writer follows it."""
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
    """What a refresh read of the ledger, before it reads the row."""

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
    resolver_step: int  # 0 idle, 1 after the first of publish and ledger, 2 after both, not committed
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
    rounds_left: int = 0  # repairs at rest, once something was lost or damaged


Step = tuple[str, State]


@dataclass
class World:
    """Caches over the pure functions, and the order in which the resolver publishes and remembers."""

    emit_first: bool = True
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
        rest = True
        for name, after in self._steps(s):
            rest = rest and is_fault(name)
            yield name, after
        if rest and s.rounds_left and _differs(s):
            yield "a repair at rest", self.repaired(s)

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
            # The verifier may see a difference at any time: what it repairs need not be one any more.
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
        """Repair as `crossfade verify --repair` does: what cannot be is put back, then the row is read again."""
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
        # What comes next must not need another repair: the last one leaves nothing behind.
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
            yield "backfill inserts where no point is", s._replace(point=point, backfill=(*s.backfill, "done"))


def _captured(s: State, after: Row) -> tuple[tuple[Row, Row, bool], ...]:
    """Return what capture will see once the row is `after`; of no row before and after it sees nothing."""
    return s.captured if s.row == after == NO_ROW else (*s.captured, (s.row, after, False))


def _refresh(s: State, read: Reading) -> Entry:
    return Entry("refresh", s.row.content, s.row, s.row, read.position, done=read.done, evidence=read.evidence)


def _differs(s: State) -> bool:
    return s.row.content != (s.point.content if s.point else GONE)


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
"""Damages of one column of the ledger, by name. Others: "slot", "legacy version", "point version"."""


def _committed(s: State, role: str) -> State:
    return s._replace(legacy_at=s.legacy_at + 1) if role == "legacy" else s._replace(vector_at=s.vector_at + 1)


def _stored(point: Point | None) -> tuple[StoredChunk, ...]:
    return () if point is None else (StoredChunk(0, point.version, deleted=point.content == GONE),)


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
    """Return the state before anything happened."""
    nothing = State(
        submits, direct, rewinds, crashes, repairs, (), row, (), 0, 0, (), 0, 0, (), 0, 0, 0, 0, None, (), None, (), ()
    )
    return nothing._replace(damages_left=damages, archive=archive)


FAULTS = ("rewinds", "not committed", "pauses with it", "crashes", "for a repair", "is lost")


def is_fault(name: str) -> bool:
    """Say whether a step need not happen."""
    return name.endswith(FAULTS) or name.startswith("damage")


def explore(world: World, first: State) -> tuple[int, list[str] | None]:
    """Visit every state; return how many there are, and the history of a violation if there is one."""
    seen: dict[State, tuple[State, str] | None] = {first: None}
    queue = deque([first])
    undisturbed = is_undisturbed(first)
    while queue:
        s = queue.popleft()
        finished = True
        for name, after in world.steps(s):
            if not is_fault(name):
                finished = False
            wrong = goes_down(s, after) or ("legacy writer" in name and writes_older(s, after))
            if not wrong and len(after.resolved) > len(s.resolved):
                wrong = not first.damages_left and taken_twice(after)
                wrong = wrong or (undisturbed and brings_back_older(after))
            if wrong:
                return len(seen), [*history(seen, s), f"{name}: {wrong}"]
            if after not in seen:
                seen[after] = (s, name)
                queue.append(after)
        held = s.point.content if s.point else GONE
        if finished and s.row.content != held:
            return len(seen), [*history(seen, s), f"legacy holds {s.row.content}, Qdrant {held}"]
    return len(seen), None


def goes_down(s: State, after: State) -> str:
    """Say what is wrong where the version of the point goes down."""
    down = s.point is not None and (after.point is None or after.point.version < s.point.version)
    return "the stored version went down" if down and s.point is not None and s.point.version != HIGH else ""


def writes_older(s: State, after: State) -> str:
    """Say what is wrong where the legacy writer brings a version to the row that is older than what came to it."""
    older = after.row != s.row and after.row.version is not None and after.row.version < s.legacy_version
    return "an older version was written over a newer one" if older else ""


def taken_twice(s: State) -> str:
    """Say what is wrong where the newest decision is of a change that another version brought before.

    Its place in its topic tells. Where the ledger was damaged or a slot lost, it may be.
    """
    newest = s.resolved[-1]
    if newest.origin == "refresh":
        return ""
    at = s.log[newest.version & OFFSETS].position
    earlier = [one.version for one in s.resolved if one.origin == newest.origin and one.version != newest.version]
    twice = any(s.log[version & OFFSETS].position == at for version in earlier)
    return "a second delivery took effect" if twice else ""


def is_undisturbed(first: State) -> bool:
    """Say whether every write of a producer is applied as it was sent, and only its echo ends the wait for it."""
    plain = all(content == GONE or content.isalpha() for content in first.submits_left)
    return plain and not (first.damages_left or first.repairs_left or first.archive.version)


def brings_back_older(s: State) -> str:
    """Say what is wrong where the newest decision is of a captured change from before a producer's last upsert."""
    newest = s.resolved[-1]
    upserts = [one for one in s.resolved if one.origin == "producer" and one.version < newest.version]
    if newest.origin != "legacy" or not upserts or upserts[-1].content == GONE:
        return ""
    at = s.log[newest.version & OFFSETS].position[2]
    behind = any(after.version == upserts[-1].version for _, after, _ in s.captured[: at + 1])
    return "" if behind else "a change that a producer overwrites took effect behind it"


def history(seen: dict[State, tuple[State, str] | None], s: State) -> list[str]:
    """Return the names of the steps that led to a state."""
    names: list[str] = []
    came = seen[s]
    while came is not None:
        names.append(came[1])
        came = seen[came[0]]
    return names[::-1]
