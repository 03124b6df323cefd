"""What `migrate plan` concludes from the facts: the steps that are done or to do, and what must be fixed first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from domain.legacy import Diagnostic
from domain.quarantine import Quarantine, Reason
from migration.capture.positions import ReplicationPosition
from migration.plan import Facts, StepName, blocked, document_of, is_due, steps
from migration.status import Backfill, Progress, Proof
from schemas.tasks import BackfillState, ProofState

FILLED = Backfill(
    BackfillState(
        state="done", started_at_ms=1, updated_at_ms=50, finished_at_ms=50, model="m", range_rows=1, rows_estimated=9,
        rows=10, points=12,
    ),
    1,
    paused=False,
    moved_s=0.0,
)  # fmt: skip
PROVED = Proof(
    ProofState(state="done", verdict="equal", started_at_ms=60, updated_at_ms=90, oldest_at_ms=60, rows=10),
    1.0,
    None,
    0.0,
)
RUNS = ReplicationPosition("c", "RUNNING", None, "0/20", "0/20", 0, 0, None)
NEW = Facts(Progress("docs", "dual_write", capture=RUNS), (), "backfill", captured=True, rows=9)


def states(facts: Facts) -> list[str]:
    return [step.state for step in steps(facts)]


def known(**parts: Any) -> Facts:
    return replace(NEW, progress=replace(NEW.progress, **parts))


def test_a_new_collection_is_to_be_filled_and_proved() -> None:
    assert states(NEW) == ["done", "done", "to do", "to do"]
    assert is_due(steps(NEW), "backfill")
    assert blocked(steps(NEW)) is None


def test_rows_that_a_snapshot_brings_need_no_backfill() -> None:
    assert states(replace(NEW, initial_load="snapshot")) == ["done", "done", "done", "to do"]


def test_what_was_filled_and_proved_after_it_is_done() -> None:
    plan = steps(known(backfill=FILLED, proof=PROVED))
    assert [step.state for step in plan] == ["done"] * 4
    assert not is_due(plan, "proof")


def test_an_interrupted_backfill_goes_on() -> None:
    state = FILLED.state.model_copy(update={"state": "failed", "rows": 4})
    (step,) = (s for s in steps(known(backfill=replace(FILLED, state=state))) if s.name == "backfill")
    assert (step.state, step.message) == ("to do", "failed: goes on after 4 rows, about 9 rows")


@pytest.mark.parametrize(
    "changes", [{"verdict": "different"}, {"verdict": "unknown"}, {"state": "running"}, {"oldest_at_ms": 49}]
)
def test_another_verdict_an_unfinished_proof_or_one_from_before_the_backfill_is_none(changes: dict[str, Any]) -> None:
    proof = replace(PROVED, state=PROVED.state.model_copy(update=changes))
    assert states(known(backfill=FILLED, proof=proof))[-1] == "to do"


@pytest.mark.parametrize(
    ("facts", "name", "remedy"),
    [
        (replace(NEW, findings=[Diagnostic("error", "docs", "no key")]), "configuration", "crossfade config check"),
        (replace(NEW, captured=False), "capture", "crossfade worker"),
        (known(quarantine=Quarantine("docs", Reason.CAPTURE_LOST)), "capture", "crossfade recapture docs"),
        (known(capture=replace(RUNS, state="FAILED", failure="gone")), "capture", "crossfade status"),
    ],
)
def test_what_must_be_fixed_first_is_named_with_its_remedy(facts: Facts, name: StepName, remedy: str) -> None:
    stop = blocked(steps(facts))
    assert stop is not None
    assert (stop.name, stop.remedy) == (name, remedy)


def test_a_phase_that_writes_nothing_to_qdrant_blocks_and_a_warning_does_not() -> None:
    stop = blocked(steps(known(phase="off")))
    assert stop is not None
    assert 'phase = "dual_write"' in stop.remedy
    assert blocked(steps(replace(NEW, findings=[Diagnostic("warning", "topics", "not yet")]))) is None


def test_a_step_names_its_remedy_also_as_it_was_called_before() -> None:
    document = document_of("docs", steps(replace(NEW, captured=False)))
    assert [(step["remedy"], step["mend"]) for step in document["steps"] if step["state"] == "blocked"] == [
        ("crossfade worker", "crossfade worker")
    ]
