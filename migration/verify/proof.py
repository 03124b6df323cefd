"""The stored proof, and the ranges that a round covers: those of the last proof in key order, then new ones.

The task store has each range's verdict and time under its number, so that a killed run can be resumed. Ranges follow
each other by their bounds, from the table's beginning to its end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from connectors.failpoints import passing
from connectors.ports import BulkTable, TaskStore
from migration.verify.ports import Retried
from migration.verify.ranges import Range
from migration.verify.result import Verification
from schemas.tasks import HEADER, PROOF, ProofState, RangeProof

_SAVE_EVERY_MS = 1000
_FEW_RANGES = 8
_SPARSE = 8
ONE_ROUND: Mapping[str, bool | str] = MappingProxyType({})


@dataclass(slots=True)
class Proof:
    """What is proved of a collection. Without a task store nothing outlives the process."""

    tasks: TaskStore | None
    state: ProofState | None = None
    ranges: dict[int, RangeProof] = field(default_factory=dict)
    _unsaved: set[int] = field(default_factory=set)
    _saved_at_ms: int = 0

    @classmethod
    async def read(cls, tasks: TaskStore | None) -> Proof:
        """Return the stored proof; one that can no longer be read counts as absent."""
        proof = cls(tasks)
        parts = await tasks.read(PROOF) if tasks is not None else {}
        try:
            if HEADER in parts:
                proof.state = ProofState.model_validate_json(parts[HEADER])
            proof.ranges = {n: RangeProof.model_validate_json(part) for n, part in parts.items() if n > HEADER}
        except ValueError:
            return cls(tasks)
        return proof

    @property
    def interrupted(self) -> bool:
        """Whether the last run did not reach its end."""
        return self.state is not None and self.state.state != "done"

    @property
    def highest(self) -> int:
        """The highest number of a range."""
        return max(self.ranges, default=HEADER)

    def chain(self) -> list[Range]:
        """Return the ranges in key order from the beginning on, as far as they follow each other."""
        following = {proof.after: Range(n, proof.after, proof.upto) for n, proof in sorted(self.ranges.items())}
        return list(_followed(following))

    def proved_since(self, number: int, since_ms: int) -> RangeProof | None:
        """Return a range that a run begun at `since_ms` has proved equal, None if it has not."""
        proof = self.ranges.get(number)
        return proof if proof and proof.verdict == "equal" and proof.proved_at_ms >= since_ms else None

    async def prune(self) -> None:
        """Forget ranges that do not follow from the beginning: a kill may come between the parts of a divided range."""
        kept = {rng.number: self.ranges[rng.number] for rng in self.chain()}
        if len(kept) < len(self.ranges) and self.tasks is not None and self.state is not None:
            await self.tasks.clear(PROOF)
            parts = {HEADER: self.state.model_dump_json().encode()}
            await self.tasks.save(PROOF, parts | {n: one.model_dump_json().encode() for n, one in kept.items()})
        self.ranges = kept

    async def clear(self) -> None:
        """Forget everything."""
        self.state, self.ranges = None, {}
        self._unsaved.clear()
        if self.tasks is not None:
            await self.tasks.clear(PROOF)

    def keep(self, number: int, proof: RangeProof) -> None:
        """Note a range; the next `save` stores it."""
        self.ranges[number] = proof
        self._unsaved.add(number)

    async def save(
        self,
        run: Verification,
        now_ms: int,
        *,
        state: str = "running",
        error: str | None = None,
        kind: Mapping[str, bool | str] = ONE_ROUND,
    ) -> None:
        """Store the changed ranges and the overall state; while the run lasts, at most once a second."""
        if state == "running" and now_ms - self._saved_at_ms < _SAVE_EVERY_MS:
            return
        self._saved_at_ms = now_ms
        oldest = run.found and (self.state.oldest_difference_at_ms if self.state else None)
        times = [proof.proved_at_ms for proof in self.ranges.values()]
        self.state = ProofState.model_validate(
            {
                "state": state,
                "verdict": run.verdict if state == "done" else (self.state.verdict if self.state else "unknown"),
                "started_at_ms": run.started_at_ms,
                "updated_at_ms": now_ms,
                "finished_at_ms": now_ms if state != "running" else None,
                "oldest_at_ms": min(times, default=None),
                "rows": run.legacy_documents,
                "points": run.points,
                "differences": dict(run.kinds),
                "oldest_difference_at_ms": (oldest or now_ms) if run.found else None,
                "pending": run.pending,
                "unknown": run.unknown,
                "round": run.round,
                "error": error,
                **kind,
            }
        )
        if self.tasks is None:
            return
        parts = {n: self.ranges[n].model_dump_json().encode() for n in self._unsaved}
        self._unsaved.clear()
        await self.tasks.save(PROOF, {**parts, HEADER: self.state.model_dump_json().encode()})
        passing("verify.after_save")


def _followed(following: dict[str | None, Range]) -> Iterator[Range]:
    found = following.pop(None, None)
    while found is not None:
        yield found
        found = following.pop(found.upto, None) if found.upto is not None else None


class Plan:
    """Hands out ranges one by one; `cut` adds back the part that was cut off a range that had grown."""

    def __init__(self, proof: Proof, bulk: BulkTable, range_rows: int, retried: Retried) -> None:
        self._bulk, self._range_rows, self._retried = bulk, range_rows, retried
        self._known = deque(proof.chain())
        self._last = self._known[-1].upto if self._known else None
        self._ended = bool(self._known) and self._last is None
        self._next_number = proof.highest + 1

    async def next(self) -> Range | None:
        """Return the next range, None if there is none now. Raises StoreUnavailable."""
        if self._known:
            return self._known.popleft()
        if self._ended:
            return None
        after = self._last
        self._last = await self._retried(lambda: self._bulk.bound(after, self._range_rows))
        self._ended = self._last is None
        return self._new(after, self._last)

    def cut(self, after: str, upto: str | None) -> None:
        """Add the rest of a range as a range of its own."""
        self._known.append(self._new(after, upto))

    def _new(self, after: str | None, upto: str | None) -> Range:
        number, self._next_number = self._next_number, self._next_number + 1
        return Range(number, after, upto)


def is_sparse(proof: Proof, range_rows: int) -> bool:
    """Return whether the ranges of the last proof have become so empty that new ones are better."""
    rows = sum(one.rows for one in proof.ranges.values())
    return len(proof.ranges) > _FEW_RANGES and rows * _SPARSE < len(proof.ranges) * range_rows
