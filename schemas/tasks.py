"""The states of long tasks, kept as JSON in the legacy database. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

BACKFILL = "backfill"
PROOF = "verify"
HEADER = 0
"""The number of the part with the state of a whole task; its ranges have the numbers from 1."""
CONTROL = -1
"""The number of the part that operators write: see `Control`."""


class _State(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Control(_State):
    """An operator's request to a running task."""

    paused: bool = False


class BackfillState(_State):
    """A whole backfill. Times are milliseconds since the epoch; `rate` is rows per second over the last minute.

    `filled_at_ms` is when the last row was in Qdrant and indexing began. `recall` is the share of the true nearest
    neighbours that the index finds, measured after it was built. `indexed_from` is the indexing setting of the store to
    restore when the index is built.
    """

    state: Literal["running", "paused", "indexing", "failed", "done"] = "running"
    started_at_ms: int
    updated_at_ms: int
    filled_at_ms: int | None = None
    finished_at_ms: int | None = None
    model: str
    range_rows: int
    rows_estimated: int
    rows: int = 0
    points: int = 0
    handed_over: int = 0
    ranges: int = 0
    planned: bool = False
    rate: float = 0.0
    eta_s: float | None = None
    throttle: str | None = None
    indexed_from: int | None = None
    recall: float | None = None
    error: str | None = None


class RangeState(_State):
    """One key range of a backfill, (`after`, `upto`]; `at` is the last id that is done, None at the start.

    `rows` were read and became `points`; `handed_over` of them could not be embedded and were left to the agents.
    `unread` rows are in the range but no page read them.
    """

    after: str | None
    upto: str | None
    at: str | None = None
    done: bool = False
    rows: int = 0
    points: int = 0
    handed_over: int = 0
    unread: int = 0


def backfill_kept(parts: Mapping[int, bytes]) -> tuple[BackfillState, dict[int, RangeState]] | None:
    """Return the backfill in the parts of its task, None if there is none.

    Raises ValueError if it cannot be read, or if its ranges are not contiguous: rows between them would be missed.
    """
    if HEADER not in parts:
        return None
    state = BackfillState.model_validate_json(parts[HEADER])
    ranges = {n: RangeState.model_validate_json(part) for n, part in sorted(parts.items()) if n > HEADER}
    ends = [None, *(one.upto for one in ranges.values())]
    if list(ranges) != list(range(1, len(ranges) + 1)) or [one.after for one in ranges.values()] != ends[:-1]:
        raise ValueError("the ranges of the backfill do not follow each other")
    return state, ranges


def is_paused(parts: Mapping[int, bytes]) -> bool:
    """Return whether an operator asked for a pause. Raises ValueError if the request cannot be read."""
    return CONTROL in parts and Control.model_validate_json(parts[CONTROL]).paused


Verdict = Literal["equal", "different", "pending", "unknown"]


class RangeProof(_State):
    """The proof of one key range (`after`, `upto`], and its time. `checksum` is the table's, in hexadecimal."""

    after: str | None
    upto: str | None
    verdict: Verdict
    proved_at_ms: int
    rows: int = 0
    checksum: str | None = None


class ProofState(_State):
    """The proof of a whole collection; `oldest_at_ms` is the time of its oldest range proof.

    `full`: every row was read, whatever its checksum. `differences` counts, by kind, the differences that were found
    and not repaired; `oldest_difference_at_ms` is when the oldest of them was first seen. `columns` names the columns
    that the proof covers, with their uses and types. For other columns its ranges may be in another order and prove
    nothing.
    """

    state: Literal["running", "failed", "done"] = "running"
    verdict: Verdict = "unknown"
    started_at_ms: int
    updated_at_ms: int
    finished_at_ms: int | None = None
    oldest_at_ms: int | None = None
    rows: int = 0
    points: int = 0
    differences: dict[str, int] = {}
    oldest_difference_at_ms: int | None = None
    pending: int = 0
    unknown: int = 0
    round: int = 1
    continuous: bool = False
    full: bool = False
    columns: str = ""
    error: str | None = None
