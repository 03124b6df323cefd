"""What questions showed of each side since a moment: how many failed, and how long the others took."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from domain.rollout.confidence import ALPHA, BoundedMean
from schemas.queries import Attempt, AttemptOutcome, Backend, ShadowCompared

# Buckets of a latency's logarithm, each 5 % wide: from 0.1 ms to about half an hour.
_WIDTH = math.log(1.05)
_LEAST_MS = 0.1
_BUCKETS = 340
_RECENT = 2_000


@dataclass(slots=True)
class Latencies:
    """A histogram of durations whose buckets are 5 % wide."""

    counts: list[int] = field(default_factory=lambda: [0] * _BUCKETS)

    def add(self, ms: float) -> None:
        """Take a duration."""
        self.counts[min(_BUCKETS - 1, max(0, int(math.log(max(ms, _LEAST_MS) / _LEAST_MS) / _WIDTH)))] += 1

    def quantile_ms(self, share: float) -> float | None:
        """Return the duration that `share` of them do not exceed, to within 5 %; None if there are none."""
        wanted, seen = share * sum(self.counts), 0
        for number, count in enumerate(self.counts):
            seen += count
            if count and seen >= wanted:
                return _LEAST_MS * math.exp((number + 1) * _WIDTH)
        return None


@dataclass(slots=True)
class Side:
    """One side: the share of the questions that it failed, and of its answers those slower than `slow_ms`."""

    slow_ms: float
    alpha: float = ALPHA
    failed: BoundedMean = field(init=False)
    slow: BoundedMean = field(init=False)
    latencies: Latencies = field(default_factory=Latencies)

    def __post_init__(self) -> None:
        self.failed, self.slow = BoundedMean(alpha=self.alpha), BoundedMean(alpha=self.alpha)

    def add(self, attempt: Attempt) -> None:
        """Take an attempt. One that failed through its question's fault, or was not made, says nothing of the side."""
        if attempt.outcome in {"refused", "skipped"}:
            return
        answered = attempt.outcome == "answered"
        self.failed.add(0.0 if answered else 1.0)
        if answered:
            self.slow.add(1.0 if attempt.ms > self.slow_ms else 0.0)
            self.latencies.add(attempt.ms)


@dataclass(slots=True)
class Comparisons:
    """What shadow reads showed: how far the answers of both sides overlap, and an answer with itself.

    `unequal` is the share of the comparisons in which a document of the answer was not in the other store at all.
    """

    alpha: float = ALPHA
    overlap: BoundedMean = field(init=False)
    noise: BoundedMean = field(init=False)
    unequal: BoundedMean = field(init=False)
    failed: int = 0

    def __post_init__(self) -> None:
        self.overlap, self.noise, self.unequal = (BoundedMean(alpha=self.alpha) for _ in range(3))

    def add(self, compared: ShadowCompared) -> None:
        """Take a comparison. One to which the other side did not answer shows nothing but that."""
        if compared.overlap is None:
            self.failed += 1
            return
        self.overlap.add(compared.overlap)
        if compared.noise_overlap is not None:
            self.noise.add(compared.noise_overlap)
        lacks = any(missing.reason == "not_stored" for missing in (*compared.missing, *compared.only_there))
        self.unequal.add(float(lacks))

    @property
    def beyond_noise(self) -> float | None:
        """By how much the sides differ more than an answer does from itself, None while either is unknown."""
        if self.overlap.mean is None or self.noise.mean is None:
            return None
        return self.noise.mean - self.overlap.mean


class Recent(NamedTuple):
    """One attempt at Qdrant, and when it was reported."""

    at_ms: int
    outcome: AttemptOutcome
    ms: float


@dataclass(slots=True)
class Traffic:
    """Both sides of a collection since `since_ms`, and how many questions each of them answered first."""

    since_ms: int
    slow_ms: float
    alpha: float = ALPHA
    sides: dict[Backend, Side] = field(init=False)
    comparisons: Comparisons = field(init=False)
    recent: deque[Recent] = field(default_factory=lambda: deque(maxlen=_RECENT))
    first: dict[Backend, int] = field(default_factory=lambda: {"legacy": 0, "qdrant": 0})

    def __post_init__(self) -> None:
        self.comparisons = Comparisons(self.alpha)
        self.sides = {
            "legacy": Side(self.slow_ms, self.alpha),
            "qdrant": Side(self.slow_ms, self.alpha),
        }

    def add(self, attempts: Iterable[Attempt], at_ms: int = 0) -> None:
        """Take the attempts of one question, reported at `at_ms`."""
        for attempt in attempts:
            self.sides[attempt.backend].add(attempt)
            if attempt.backend == "qdrant" and attempt.outcome != "refused":
                self.recent.append(Recent(at_ms, attempt.outcome, attempt.ms))

    def recent_since(self, at_ms: int, least: int = 0, oldest_ms: int = 0) -> list[Recent]:
        """Return the attempts at Qdrant since a moment, at most some thousands.

        If they are fewer than `least`, return that many, but none from before `oldest_ms`.
        """
        found = [one for one in self.recent if one.at_ms >= at_ms]
        if len(found) < least:
            found = [one for one in list(self.recent)[-least:] if one.at_ms >= oldest_ms]
        return found

    def share_of_qdrant(self) -> float | None:
        """Return the share of the questions, without a forced route, that Qdrant was first to answer."""
        asked = sum(self.first.values())
        return self.first["qdrant"] / asked if asked else None
