"""Events of a rollout: what an operator commands, what the conductor decides and on which evidence, and the phase.

Data only, no behaviour. The phases' rules and the transitions between them are in `domain.rollout`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from schemas.documents import CollectionName, Event

Phase = Literal["off", "dual_write", "backfill", "shadow", "canary_1", "canary_5", "canary_25", "canary_50", "primary"]
PHASE_NAMES: tuple[Phase, ...] = get_args(Phase)
"""All phases, in the order of a migration."""

Action = Literal["promote", "rollback", "pause", "resume", "abort"]
Verdict = Literal["passed", "failed", "inconclusive"]
Outcome = Literal["applied", "judged", "unchanged", "conflict", "gate_failed", "gate_inconclusive", "refused"]
REASON_CHARACTERS = 1000
BY_CHARACTERS = 200
Words = Annotated[str, Field(max_length=REASON_CHARACTERS)]
# Up to the year 9999.
Moment = Annotated[int, Field(ge=0, le=253_402_300_799_999)]
Revision = Annotated[int, Field(ge=0, le=2**53)]


class GateResult(BaseModel):
    """A gate as it was judged: the measured value, its limit, both in `unit`, and the number of samples behind it.

    `low` and `high` bound the value where it was estimated from samples. `value` is None if nothing was measured.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    gate: str
    verdict: Verdict
    limit: float | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    samples: int | None = None
    message: str = ""


class RolloutCommanded(Event):
    """A command to the conductor. `id` identifies it: a command that arrives twice takes effect once.

    `expected_revision` is the revision of the phase that it was judged on: the command takes effect only while that
    revision is the current one. `to` is the phase to go to; without it the conductor chooses as the action says.
    `dry_run` asks for the judgement of the gates only. `force` goes on although a gate did not pass; it needs `reason`.
    `valid_ms` is how long the command may wait for a conductor: its operator does not wait for longer. A `guard`
    commands a rollback, with the `evidence` of what is wrong.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    ce_type: ClassVar[str] = "crossfade.rollout.commanded.v1"

    id: Annotated[str, Field(min_length=1, max_length=128)]
    collection: CollectionName
    action: Action
    to: Phase | None = None
    expected_revision: Revision
    by: Annotated[str, Field(min_length=1, max_length=BY_CHARACTERS)]
    reason: Words = ""
    dry_run: bool = False
    force: bool = False
    valid_ms: Annotated[int, Field(ge=1_000, le=86_400_000)] = 60_000
    guard: bool = False
    evidence: tuple[GateResult, ...] = ()


class PhaseChanged(Event):
    """The state of a collection's rollout: the newest event of each collection is the current one.

    `revision` rises by one with each change. `began_as` is the phase in which the configuration began the collection.
    `entered_at_ms` is when its present phase began, `writes_qdrant_since_ms` since when every change is written to
    Qdrant (None in a phase that does not write it). While `paused`, no promotion is accepted. `command` is the id of
    the command that caused the change, empty for the first event. `held_until_ms` is set after a guard went back: no
    promotion is accepted before, unless forced.
    """

    ce_type: ClassVar[str] = "crossfade.rollout.phase_changed.v1"

    collection: CollectionName
    phase: Phase
    previous: Phase | None = None
    revision: Annotated[Revision, Field(ge=1)]
    began_as: Phase
    paused: bool = False
    forced: bool = False
    by: str
    reason: str = ""
    command: str = ""
    changed_at_ms: Moment
    entered_at_ms: Moment
    writes_qdrant_since_ms: Moment | None = None
    held_until_ms: Moment | None = None


class RolloutDecided(Event):
    """What the conductor did with a command, and the gates as it judged them: enough to judge the decision again.

    `before` and `after` are the phases, `revision` the revision after the decision.
    """

    ce_type: ClassVar[str] = "crossfade.rollout.decided.v1"

    command: RolloutCommanded
    outcome: Outcome
    before: Phase
    after: Phase
    target: Phase | None = None
    revision: int
    message: str
    gates: tuple[GateResult, ...] = ()
    decided_at_ms: Moment
