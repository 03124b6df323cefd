"""What the move of a collection to Qdrant still needs, step by step. Pure values: reads nothing and does nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from domain.legacy import Diagnostic
from domain.rollout.phases import PHASES
from migration.status import Progress
from schemas.settings import InitialLoad

StepName = Literal["configuration", "capture", "backfill", "proof"]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a move. `remedy` is what unblocks a blocked step."""

    name: StepName
    state: Literal["done", "to do", "blocked"]
    message: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts from which a plan is made; see `plan_facts.facts_of`. `rows` is the database's estimate."""

    progress: Progress
    findings: Sequence[Diagnostic]
    initial_load: InitialLoad
    captured: bool
    rows: int | None


def steps(facts: Facts) -> list[Step]:
    """Return the steps in order. Each is judged on its own: one may be done although an earlier one is blocked now."""
    return [_configuration(facts), _capture(facts), _backfill(facts), _proof(facts)]


def blocked(plan: Sequence[Step]) -> Step | None:
    """Return the first blocked step, None if there is none."""
    return next((step for step in plan if step.state == "blocked"), None)


def is_due(plan: Sequence[Step], name: StepName) -> bool:
    """Say whether a step is still to do."""
    return any(step.name == name and step.state == "to do" for step in plan)


def document_of(collection: str, plan: Sequence[Step]) -> dict[str, Any]:
    """Return the plan of one collection as a JSON document."""
    former = [{**asdict(step), "said": step.message, "mend": step.remedy} for step in plan]
    return {"collection": collection, "steps": former}


def _configuration(facts: Facts) -> Step:
    errors = [finding for finding in facts.findings if finding.level == "error"]
    if not errors:
        return Step("configuration", "done", "no mistake found")
    more = f" (and {len(errors) - 1} more)" if errors[1:] else ""
    return Step("configuration", "blocked", f"{errors[0].subject}: {errors[0].message}{more}", "crossfade config check")


def _capture(facts: Facts) -> Step:
    progress, name = facts.progress, facts.progress.collection
    if progress.quarantine is not None:
        return Step("capture", "blocked", f"quarantined: {progress.quarantine.message}", progress.quarantine.remedy)
    if not PHASES[progress.phase].writes_qdrant:
        remedy = f"crossfade migrate promote {name}"
        if progress.rollout is None:
            remedy = f'crossfade.toml: [collections.{name}] phase = "dual_write", and start the worker again'
        return Step("capture", "blocked", f"in phase {progress.phase} no change is written to Qdrant", remedy)
    if not facts.captured:
        return Step(
            "capture", "blocked", "not captured yet: changes made meanwhile would be missed", "crossfade worker"
        )
    if progress.capture is not None and (progress.capture.failure or progress.capture.state != "RUNNING"):
        return Step("capture", "blocked", f"the connector is {progress.capture.state.lower()}", "crossfade status")
    return Step("capture", "done", "changes of the table are captured")


def _backfill(facts: Facts) -> Step:
    if facts.initial_load == "snapshot":
        return Step("backfill", "done", "none is needed: capture's snapshot brings the rows")
    about = "" if facts.rows is None else f"about {facts.rows:,} rows"
    known = facts.progress.backfill
    if known is None:
        return Step("backfill", "to do", about)
    state = known.state
    if state.state == "done":
        return Step("backfill", "done", f"{state.rows:,} rows, {state.points:,} points")
    return Step("backfill", "to do", f"{state.state}: goes on after {state.rows:,} rows, {about}".rstrip(", "))


def _proof(facts: Facts) -> Step:
    known = facts.progress.proof
    if known is None:
        return Step("proof", "to do", "there is none yet")
    backfill = facts.progress.backfill
    filled_at_ms = 0 if backfill is None else backfill.state.finished_at_ms or backfill.state.updated_at_ms
    state = known.state
    if state.verdict != "equal" or state.state != "done":
        return Step("proof", "to do", f"the last one says: {state.verdict}")
    if (state.oldest_at_ms or 0) < filled_at_ms:
        return Step("proof", "to do", "the last one is older than the backfill")
    return Step("proof", "done", f"equal, {state.rows:,} rows; `crossfade verify --continuous` keeps it fresh")
