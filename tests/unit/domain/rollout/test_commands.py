"""What a command comes to, for every action in every phase."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from domain.rollout.commands import begun, decide, gates_to_judge, target_of
from domain.rollout.phases import PHASES, following, is_forward, retreat
from schemas.rollout import (
    PHASE_NAMES,
    Action,
    GateResult,
    Phase,
    PhaseChanged,
    RolloutCommanded,
    RolloutDecided,
    Verdict,
)

NOW = 1_700_000_000_000
PASSED = GateResult(gate="proof", verdict="passed")
ACTIONS: tuple[Action, ...] = ("promote", "rollback", "pause", "resume", "abort")


def state(phase: Phase = "shadow", **other: Any) -> PhaseChanged:
    return begun("docs", phase, NOW - 1000).model_copy(update={"revision": 7, **other})


def command(action: Action = "promote", **other: Any) -> RolloutCommanded:
    given = {"id": "c1", "collection": "docs", "action": action, "expected_revision": 7, "by": "ann"} | other
    return RolloutCommanded(**given)


def decided(
    wanted: RolloutCommanded, current: PhaseChanged, *verdicts: Verdict, expired: bool = False
) -> tuple[RolloutDecided, PhaseChanged | None]:
    gates = [GateResult(gate=f"g{number}", verdict=verdict) for number, verdict in enumerate(verdicts)]
    return decide(wanted, current, gates, NOW, expired=expired)


@pytest.mark.parametrize(("phase", "to"), list(product(PHASE_NAMES, (None, *PHASE_NAMES))))
def test_a_promotion_goes_forward_and_nowhere_else(phase: Phase, to: Phase | None) -> None:
    wanted, current = command(to=to), state(phase)
    decision, changed = decided(wanted, current, "passed")
    target = to or following(phase)
    if target is not None and is_forward(phase, target):
        assert (decision.outcome, changed and changed.phase) == ("applied", target)
        assert gates_to_judge(wanted, current, NOW)[-1] == target
    else:
        assert (decision.outcome, changed) == ("unchanged" if target == phase else "refused", None)
        assert gates_to_judge(wanted, current, NOW) == ()


@pytest.mark.parametrize(("phase", "to"), list(product(PHASE_NAMES, (None, *PHASE_NAMES))))
def test_a_rollback_goes_to_any_earlier_phase_and_asks_no_gate(phase: Phase, to: Phase | None) -> None:
    wanted, current = command("rollback", to=to), state(phase)
    decision, changed = decided(wanted, current)
    target = to or retreat(phase)
    assert gates_to_judge(wanted, current, NOW) == ()
    if target is not None and is_forward(target, phase):
        assert (decision.outcome, changed and changed.phase) == ("applied", target)
    else:
        assert (decision.outcome, changed) == ("unchanged" if target == phase else "refused", None)


@pytest.mark.parametrize("phase", PHASE_NAMES)
def test_an_abort_ends_in_off_and_ends_a_pause(phase: Phase) -> None:
    decision, changed = decided(command("abort"), state(phase, paused=True))
    if phase == "off":
        assert (decision.outcome, changed) == ("unchanged", None)
    else:
        assert changed is not None
        assert (changed.phase, changed.paused, changed.writes_qdrant_since_ms) == ("off", False, None)


@pytest.mark.parametrize(("action", "phase"), list(product(ACTIONS, PHASE_NAMES)))
def test_of_two_operators_who_saw_the_same_revision_only_the_first_wins(action: Action, phase: Phase) -> None:
    current = state(phase, paused=action == "resume")
    _, changed = decided(command(action), current, "passed")
    after = changed or state(phase, revision=8)
    assert after.revision == 8
    for second in ACTIONS:
        decision, again = decided(command(second, id="c2"), after, "passed")
        assert (decision.outcome, again) == ("conflict", None)


@pytest.mark.parametrize(
    ("verdicts", "outcome"),
    [
        ((), "applied"),
        (("passed",), "applied"),
        (("passed", "failed"), "gate_failed"),
        (("passed", "inconclusive"), "gate_inconclusive"),
        (("inconclusive", "failed"), "gate_failed"),
    ],
)
def test_every_gate_must_pass_and_inconclusive_is_no_pass(verdicts: tuple[Verdict, ...], outcome: str) -> None:
    decision, changed = decided(command(), state(), *verdicts)
    assert (decision.outcome, changed is not None) == (outcome, outcome == "applied")
    assert [gate.verdict for gate in decision.gates] == list(verdicts)


def test_a_forced_promotion_needs_a_reason_and_is_recorded() -> None:
    assert decided(command(force=True, reason=" "), state(), "failed")[0].outcome == "refused"
    decision, changed = decided(command(force=True, reason="the table is frozen"), state(), "failed", "inconclusive")
    assert changed is not None
    assert (decision.outcome, changed.forced, changed.reason) == ("applied", True, "the table is frozen")
    assert "failed: g0; inconclusive: g1" in decision.message


@pytest.mark.parametrize("verdict", ["passed", "failed", "inconclusive"])
def test_a_dry_run_changes_nothing(verdict: Verdict) -> None:
    decision, changed = decided(command(dry_run=True), state(), verdict)
    assert (decision.outcome, decision.before, decision.after, changed) == ("judged", "shadow", "shadow", None)


def test_a_command_that_waited_too_long_is_refused() -> None:
    decision, changed = decided(command(), state(), expired=True)
    assert (decision.outcome, changed) == ("refused", None)


def test_a_pause_holds_promotions_only() -> None:
    paused = decided(command("pause"), state())[1]
    assert paused is not None
    assert (paused.paused, paused.phase, paused.entered_at_ms) == (True, "shadow", state().entered_at_ms)
    held: dict[str, Any] = {"expected_revision": 8}
    assert decided(command(**held), paused, "passed")[0].outcome == "refused"
    assert decided(command("pause", **held), paused)[0].outcome == "unchanged"
    assert decided(command("rollback", **held), paused)[0].outcome == "applied"
    resumed = decided(command("resume", **held), paused)[1]
    assert resumed is not None
    assert not resumed.paused


def test_the_writes_to_qdrant_begin_again_after_off() -> None:
    off = decided(command("abort"), state("primary"))[1]
    assert off is not None
    again = decide(command(expected_revision=8), off, [PASSED], NOW + 5000)[1]
    assert again is not None
    assert again.writes_qdrant_since_ms == NOW + 5000
    kept = decided(command("rollback"), state("primary"))[1]
    assert kept is not None
    assert kept.writes_qdrant_since_ms == state().writes_qdrant_since_ms


def test_after_a_guard_went_back_promotions_are_held_unless_forced() -> None:
    guarded = command("rollback", guard=True, by="guard: qdrant_errors", reason="5 % failed")
    back = decide(guarded, state("canary_50"), [], NOW, cooldown_ms=60_000)[1]
    assert back is not None
    assert (back.phase, back.held_until_ms) == ("shadow", NOW + 60_000)
    again = command(expected_revision=8)
    held = decide(again, back, [PASSED], NOW + 59_999)[0]
    assert (held.outcome, "a guard went back (guard: qdrant_errors: 5 % failed)" in held.message) == ("refused", True)
    assert gates_to_judge(again, back, NOW + 59_999) == ()
    forced = command(expected_revision=8, force=True, reason="the host is replaced")
    for wanted, at_ms in ((forced, NOW + 1), (again, NOW + 60_000)):
        changed = decide(wanted, back, [PASSED], at_ms)[1]
        assert changed is not None
        assert changed.phase == "canary_1"
    evaded = decide(command("rollback", expected_revision=8), back, [], NOW + 1)[1]
    assert evaded is not None
    assert evaded.held_until_ms == back.held_until_ms


def test_every_state_says_what_is_written() -> None:
    for phase, action in product(PHASE_NAMES, ACTIONS):
        changed = decided(command(action), state(phase), "passed")[1]
        if changed is not None:
            assert (changed.writes_qdrant_since_ms is not None) == PHASES[changed.phase].writes_qdrant


def test_a_command_leads_somewhere_or_is_refused() -> None:
    assert target_of(command(), state("primary")) is None
    assert decided(command(), state("primary"))[0].message == "primary is the last phase"
    assert decided(command("rollback"), state("off"))[0].message == "off is the first phase"
