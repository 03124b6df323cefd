"""What is known of a collection's migration at one moment: values and one JSON document. Reads nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from domain.quarantine import Quarantine
from migration.capture.positions import ReplicationPosition
from migration.lag import RoleLag
from schemas.rollout import Phase, PhaseChanged
from schemas.tasks import HEADER, BackfillState, ProofState, backfill_kept, is_paused

# A task whose state is running, but which has not moved for this long, may have been killed.
STILL_S = 60.0


@dataclass(frozen=True, slots=True)
class Backfill:
    """A backfill as its task store reports it. `moved_s` is how long ago it last moved."""

    state: BackfillState
    ranges_done: int
    paused: bool
    moved_s: float

    @property
    def rows_left(self) -> int | None:
        """About how many rows are left, None if that is not known."""
        if self.state.state == "done":
            return 0
        return max(0, self.state.rows_estimated - self.state.rows) if self.state.rows_estimated else None

    @property
    def still(self) -> bool:
        """Whether its state is that of a running task, but it has not moved for long."""
        return self.state.state in {"running", "paused", "indexing"} and self.moved_s > STILL_S


@dataclass(frozen=True, slots=True)
class Proof:
    """The proof of a collection. `age_s` is the age of its oldest range, None if the proof was never complete."""

    state: ProofState
    age_s: float | None
    oldest_difference_s: float | None
    moved_s: float


# A connector that Kafka Connect moves or restarts will run again in a moment.
_CAPTURED = frozenset({"RUNNING", "UNASSIGNED", "RESTARTING"})
CollectionState = Literal["quarantined", "unknown", "not captured", "active"]
# As JSON documents call them until the next major version.
_STATES_BEFORE = {"quarantined": "stopped", "active": "in service"}


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of one collection.

    `rollout` is None while the collection's rollout has not begun: `phase` is then the configured one.
    `unanswered` names each part that could not be read, and why. The values that it would report are then None.
    """

    collection: str
    phase: Phase
    rollout: PhaseChanged | None = None
    quarantine: Quarantine | None = None
    backfill: Backfill | None = None
    proof: Proof | None = None
    lags: tuple[RoleLag, ...] | None = None
    capture: ReplicationPosition | None = None
    unanswered: Mapping[str, str] = field(default_factory=dict)

    @property
    def state(self) -> CollectionState:
        """Whether the collection is served as its phase says.

        It is not if a quarantine is recorded, or if its changes are not captured now.
        """
        if self.quarantine is not None:
            return "quarantined"
        if "database" in self.unanswered:
            return "unknown"
        runs = self.capture is None or self.capture.state in _CAPTURED
        return "active" if runs else "not captured"

    @property
    def former_state(self) -> str:
        """The state as JSON documents call it until the next major version."""
        return _STATES_BEFORE.get(self.state, self.state)

    @property
    def wrong(self) -> bool:
        """Whether an operator must act.

        That is so if the collection is quarantined or not captured, its backfill failed, or the stores differ.
        """
        failed = self.backfill is not None and self.backfill.state.state == "failed"
        differs = self.proof is not None and (self.proof.state.verdict == "different" or self.proof.state.differences)
        return self.state in {"quarantined", "not captured"} or failed or bool(differs)


def backfill_of(parts: Mapping[int, bytes], now_ms: int) -> Backfill | None:
    """Return the backfill described by the parts of its task, None if there was none. Raises ValueError."""
    kept = backfill_kept(parts)
    if kept is None:
        return None
    state, ranges = kept
    done = sum(each.done for each in ranges.values())
    return Backfill(state, done, is_paused(parts), _ago(state.updated_at_ms, now_ms) or 0.0)


def proof_of(parts: Mapping[int, bytes], now_ms: int) -> Proof | None:
    """Return the proof described by the parts of its task, None if there was none. Raises ValueError."""
    if HEADER not in parts:
        return None
    state = ProofState.model_validate_json(parts[HEADER])
    return Proof(
        state,
        _ago(state.oldest_at_ms, now_ms),
        _ago(state.oldest_difference_at_ms, now_ms),
        _ago(state.updated_at_ms, now_ms) or 0.0,
    )


def _ago(then_ms: int | None, now_ms: int) -> float | None:
    return None if then_ms is None else max(0.0, (now_ms - then_ms) / 1000)


def document_of(progress: Progress) -> dict[str, Any]:
    """Return the progress as one JSON document, with the names of the values as keys."""
    quarantine, backfill, proof = progress.quarantine, progress.backfill, progress.proof
    return {
        "collection": progress.collection,
        "phase": progress.phase,
        "rollout": progress.rollout and progress.rollout.model_dump(),
        "state": progress.former_state,
        "quarantine": quarantine and quarantine.document,
        "stopped": quarantine and quarantine.document,
        "backfill": backfill
        and {
            **backfill.state.model_dump(),
            "rows_left": backfill.rows_left,
            "ranges_done": backfill.ranges_done,
            "pause_asked": backfill.paused,
            "moved_s": round(backfill.moved_s, 1),
        },
        "proof": proof
        and {
            **proof.state.model_dump(),
            "age_s": _rounded(proof.age_s),
            "oldest_difference_s": _rounded(proof.oldest_difference_s),
            "moved_s": round(proof.moved_s, 1),
        },
        "lag": None
        if progress.lags is None
        else [
            {"role": lag.role, "topic": lag.topic, "messages": lag.messages, "seconds": _rounded(lag.seconds)}
            for lag in progress.lags
        ],
        "capture": progress.capture and asdict(progress.capture),
        "unanswered": dict(progress.unanswered),
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
