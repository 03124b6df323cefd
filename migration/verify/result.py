"""The result of a verification: counts, differences, ranges, and the verdict over all of them. Values only."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from domain.comparison import Difference
from schemas.tasks import RangeProof, Verdict


@dataclass(slots=True)
class Sample:
    """Documents whose vectors were computed again. `lowest_cosine` is None if there was none to compute."""

    documents: int = 0
    wrong: int = 0
    lowest_cosine: float | None = None


@dataclass(slots=True)
class Verification:
    """What a run saw. A document is one difference however many points it has.

    `settled` documents differed only in the first comparison. `pending` documents still differed at the recheck
    timeout, when changes in flight had not drained. `ledger_repaired` documents had a ledger row that would misdirect a
    later change. `unknown` counts parts that could not be read. `unchecked` documents have points without checksums.
    """

    collection: str
    round: int = 1
    started_at_ms: int = 0
    ended_at_ms: int = 0
    legacy_documents: int = 0
    vector_documents: int = 0
    points: int = 0
    rows_read: int = 0
    settled: int = 0
    pending: int = 0
    unknown: int = 0
    unchecked: int = 0
    repaired: int = 0
    ledger_repaired: int = 0
    resumed: int = 0
    differences: list[Difference] = field(default_factory=list)
    more_differences: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    pending_ids: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    ranges: list[RangeProof] = field(default_factory=list)
    sample: Sample = field(default_factory=Sample)

    @property
    def found(self) -> int:
        """Number of differences, including those that are not listed individually."""
        return len(self.differences) + self.more_differences

    @property
    def verdict(self) -> Verdict:
        """What is proved: *equal* only if everything was read and everything agreed."""
        if self.found:
            return "different"
        if self.unknown or self.unchecked:
            return "unknown"
        return "pending" if self.pending else "equal"

    @property
    def oldest_at_ms(self) -> int | None:
        """When reading of the oldest range began, which gives the age of the proof."""
        return min((one.proved_at_ms for one in self.ranges), default=None)
