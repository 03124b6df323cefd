"""What a command to the conductor comes to. The caller brings the state of the rollout, the time and the judged gates.

A command takes effect only on the revision that its operator saw, so of two operators at once one gets a conflict.
"""

from __future__ import annotations

from collections.abc import Sequence

from domain.rollout.phases import PHASES, entered_on_the_way, following, is_forward, retreat
from schemas.rollout import GateResult, Outcome, Phase, PhaseChanged, RolloutCommanded, RolloutDecided

CONFIGURATION = "configuration"


def begun(collection: str, phase: Phase, now_ms: int) -> PhaseChanged:
    """Return the first state of a rollout: the phase in which the configuration begins the collection."""
    return PhaseChanged(
        collection=collection,
        phase=phase,
        revision=1,
        began_as=phase,
        by=CONFIGURATION,
        changed_at_ms=now_ms,
        entered_at_ms=now_ms,
        writes_qdrant_since_ms=now_ms if PHASES[phase].writes_qdrant else None,
    )


def target_of(command: RolloutCommanded, state: PhaseChanged) -> Phase | None:
    """Return the phase that a command leads to, None for one that leads nowhere."""
    match command.action:
        case "promote":
            return command.to or following(state.phase)
        case "rollback":
            return command.to or retreat(state.phase)
        case "abort":
            return "off"
        case "pause" | "resume":
            return state.phase


def gates_to_judge(command: RolloutCommanded, state: PhaseChanged, now_ms: int) -> tuple[Phase, ...]:
    """Return the phases whose gates a command must pass, in order. Empty if it is decided without them."""
    target = target_of(command, state)
    if target is None or command.action != "promote" or _objection(command, state, now_ms) is not None:
        return ()
    return entered_on_the_way(state.phase, target)


def decide(
    command: RolloutCommanded,
    state: PhaseChanged,
    gates: Sequence[GateResult],
    now_ms: int,
    *,
    expired: bool = False,
    cooldown_ms: int = 0,
) -> tuple[RolloutDecided, PhaseChanged | None]:
    """Return the decision about a command, and the new state if it changes. `gates` are those of `gates_to_judge`.

    `expired`: it waited for a conductor for longer than it is valid. After a guard went back, promotions are held for
    `cooldown_ms`.
    """
    target = target_of(command, state)
    outcome, message = _objection(command, state, now_ms) or _verdict(command, state, gates)
    if expired:
        outcome, message = "refused", "it waited for a conductor for too long: repeat it"
    hold_until_ms = now_ms + cooldown_ms if command.guard else None
    changed = _changed(command, state, target or state.phase, now_ms, hold_until_ms) if outcome == "applied" else None
    after = changed or state
    decision = RolloutDecided(
        command=command,
        outcome=outcome,
        before=state.phase,
        after=after.phase,
        target=target,
        revision=after.revision,
        message=message,
        gates=tuple(gates),
        decided_at_ms=now_ms,
    )
    return decision, changed


def _objection(command: RolloutCommanded, state: PhaseChanged, now_ms: int) -> tuple[Outcome, str] | None:
    """Return what keeps a command from being considered at all, whatever the gates say."""
    target = target_of(command, state)
    if command.expected_revision != state.revision:
        return "conflict", (
            f"it was judged on revision {command.expected_revision}, and {state.by} has moved the collection to phase "
            f"{state.phase} (revision {state.revision}) since: look again, then repeat the command"
        )
    if command.force and not command.reason.strip():
        return "refused", "a forced command needs a reason"
    if target is None:
        end = "the last" if command.action == "promote" else "the first"
        return "refused", f"{state.phase} is {end} phase"
    if command.action in {"pause", "resume"}:
        held = "paused" if state.paused else "not paused"
        same = state.paused == (command.action == "pause")
        return ("unchanged", f"the rollout is {held} already") if same else None
    return _wrong_way(command, state, target, now_ms)


def _wrong_way(
    command: RolloutCommanded, state: PhaseChanged, target: Phase, now_ms: int
) -> tuple[Outcome, str] | None:
    if command.action == "promote" and not command.force and now_ms < (state.held_until_ms or 0):
        left_s = ((state.held_until_ms or 0) - now_ms) / 1000
        return "refused", f"a guard went back ({state.by}: {state.reason}): no promotion for another {left_s:.0f} s"
    if command.action == "promote" and state.paused:
        return "refused", "the rollout is paused: crossfade migrate resume"
    if target == state.phase:
        return "unchanged", f"the collection is in phase {state.phase} already"
    forward = is_forward(state.phase, target)
    if command.action == "promote" and not forward:
        return "refused", f"{target} is before {state.phase}: crossfade migrate rollback --to {target}"
    if command.action == "rollback" and forward:
        return "refused", f"{target} is after {state.phase}: crossfade migrate promote --to {target}"
    return None


def _verdict(command: RolloutCommanded, state: PhaseChanged, gates: Sequence[GateResult]) -> tuple[Outcome, str]:
    failed = [gate.gate for gate in gates if gate.verdict == "failed"]
    unknown = [gate.gate for gate in gates if gate.verdict == "inconclusive"]
    stands = "; ".join(
        f"{kind}: {', '.join(names)}" for kind, names in (("failed", failed), ("inconclusive", unknown)) if names
    )
    if command.dry_run:
        return "judged", stands or "it would be applied"
    if stands and not command.force:
        return ("gate_failed" if failed else "gate_inconclusive"), stands
    target = target_of(command, state)
    if command.action in {"pause", "resume"}:
        return "applied", f"promotions are {'held' if command.action == 'pause' else 'accepted again'}"
    moved = f"from {state.phase} to {target}"
    return "applied", f"{moved}, forced over {stands}" if stands else moved


def _changed(
    command: RolloutCommanded, state: PhaseChanged, target: Phase, now_ms: int, held_until_ms: int | None
) -> PhaseChanged:
    moves = target != state.phase
    since = state.writes_qdrant_since_ms
    if not PHASES[target].writes_qdrant:
        since = None
    elif since is None:
        since = now_ms
    paused = {"pause": True, "resume": False, "abort": False}.get(command.action, state.paused)
    return PhaseChanged(
        collection=state.collection,
        phase=target,
        previous=state.phase if moves else state.previous,
        revision=state.revision + 1,
        began_as=state.began_as,
        paused=paused,
        forced=command.force,
        by=command.by,
        reason=command.reason,
        command=command.id,
        changed_at_ms=now_ms,
        entered_at_ms=now_ms if moves else state.entered_at_ms,
        writes_qdrant_since_ms=since,
        held_until_ms=held_until_ms or state.held_until_ms,
    )
