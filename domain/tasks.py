"""What long tasks say of themselves: the states that are kept as JSON in the legacy database. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

BACKFILL = "backfill"
PROOF = "verify"
HEADER = 0
"""Number of the part that holds the state of a task as a whole; its ranges follow from 1."""
CONTROL = -1
"""Number of the part that operators write: see `Control`."""


class _State(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Control(_State):
    """What an operator asks of a running task."""

    paused: bool = False


class BackfillState(_State):
    """A backfill as a whole. Times are milliseconds since the epoch; `rate` is rows a second over the last minute.

    `filled_at_ms` is when the last row was in Qdrant, and the index begun.
    `recall` is the share of the true nearest neighbours that the index finds, measured when it was built;
    `indexed_from` what the store's indexing must be set back to when it is.
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
    """One key range of a backfill, (`after`, `upto`]; `at` is the last id that is done, None before.

    `rows` were read, and made `points`; `handed_over` of them could not be embedded and were left to the agents.
    `unread` rows are in the range, and were read by no page.
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
    """Return the backfill that the parts of its task hold, None where there is none.

    Raises ValueError where it cannot be read, or its ranges do not follow each other: rows between would be missed.
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
    """Say whether an operator asked for a pause. Raises ValueError where that cannot be read."""
    return CONTROL in parts and Control.model_validate_json(parts[CONTROL]).paused


Verdict = Literal["equal", "different", "pending", "unknown"]


class RangeProof(_State):
    """What is proved of one key range (`after`, `upto`], and since when. `checksum` is the table's, as hexadecimal."""

    after: str | None
    upto: str | None
    verdict: Verdict
    proved_at_ms: int
    rows: int = 0
    checksum: str | None = None


class ProofState(_State):
    """The proof of a collection as a whole; `oldest_at_ms` is the time of its oldest range.

    `full`: every row was read, whatever its checksum. `differences` counts by kind what was found and is not repaired;
    `oldest_difference_at_ms` is when the oldest of them was first seen. `columns` names the columns, with their uses
    and types, that it is of: under others its ranges may be in another order, and prove nothing.
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
