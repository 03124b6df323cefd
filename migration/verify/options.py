"""Options of a verification: what is requested of it, and how a round is done. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field

from migration.context import Clock
from migration.verify.ports import Barrier, DigestStore, Resample, Throttled
from migration.verify.throttle import Throttle


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of a verification: rows per range, ranges in flight, recheck delay and timeout in seconds, list lengths.

    `page` limits the documents read at a time; pages of long documents become shorter on their own.
    """

    page: int = 1000
    recheck_delay_s: float = 2.0
    recheck_timeout_s: float = 30.0
    range_rows: int = 4000
    in_flight: int = 4
    listed: int = 1000
    sample: int = 200


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """What is requested of a verification: see the options of `crossfade verify`. `cpu_share` is of one core."""

    bounds: Bounds = field(default_factory=Bounds)
    repair: bool = False
    full: bool = False
    restart: bool = False
    cpu_share: float | None = None


@dataclass(frozen=True, slots=True)
class RoundOptions:
    """How a round is done, besides its bounds.

    Without `digests`, every row is read and no digests are kept. Without `resample`, no vector is computed again.
    `full` reads every row. `restart` discards what an interrupted run had proved, and the ranges.
    """

    bounds: Bounds
    barrier: Barrier
    clock: Clock
    digests: DigestStore | None = None
    resample: Resample | None = None
    full: bool = False
    restart: bool = False
    continuous: bool = False
    throttle: Throttled = field(default_factory=Throttle)
