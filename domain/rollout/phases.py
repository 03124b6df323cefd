"""The phases of a collection and their transitions, as data.

A collection goes forward one phase after the other, each behind the gates of `domain.rollout.gates`, and back to any
earlier phase at once. No transition moves data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from schemas.queries import Backend
from schemas.rollout import PHASE_NAMES, Phase

LEGACY_FIRST: tuple[Backend, ...] = ("legacy", "qdrant")
QDRANT_FIRST: tuple[Backend, ...] = ("qdrant", "legacy")


@dataclass(frozen=True, slots=True)
class PhaseRules:
    """What a phase means.

    `answers` lists the backends that may answer, the preferred one first and the others as fallback. `share` is the
    share of the questions that Qdrant answers first, from 0 to 1. In a phase that is `compared`, a sample of the
    questions is also asked of the other side.
    """

    meaning: str
    writes_qdrant: bool = True
    answers: tuple[Backend, ...] = LEGACY_FIRST
    share: float = 0.0
    compared: bool = False


def _canary(percent: int) -> PhaseRules:
    return PhaseRules(f"Qdrant answers {percent} % of the users, legacy the others", share=percent / 100, compared=True)


PHASES: Mapping[Phase, PhaseRules] = {
    "off": PhaseRules("Qdrant is not written", writes_qdrant=False, answers=("legacy",)),
    "dual_write": PhaseRules("every change is written to both stores; legacy answers"),
    "backfill": PhaseRules("the existing rows are brought to Qdrant and proved; legacy answers"),
    "shadow": PhaseRules("legacy answers; a sample is asked of Qdrant too, and compared", compared=True),
    "canary_1": _canary(1),
    "canary_5": _canary(5),
    "canary_25": _canary(25),
    "canary_50": _canary(50),
    "primary": PhaseRules(
        "Qdrant answers; legacy is still written, and is the fallback and the way back",
        answers=QDRANT_FIRST,
        share=1.0,
        compared=True,
    ),
}


def is_forward(before: Phase, after: Phase) -> bool:
    """Say whether a transition goes forward."""
    return PHASE_NAMES.index(after) > PHASE_NAMES.index(before)


def following(phase: Phase) -> Phase | None:
    """Return the phase after a phase, None after the last one."""
    rest = PHASE_NAMES[PHASE_NAMES.index(phase) + 1 :]
    return rest[0] if rest else None


def entered_on_the_way(before: Phase, after: Phase) -> tuple[Phase, ...]:
    """Return the phases that a promotion enters, in order: `after` is the last one."""
    return PHASE_NAMES[PHASE_NAMES.index(before) + 1 : PHASE_NAMES.index(after) + 1]


def retreat(phase: Phase) -> Phase | None:
    """Return where a rollback goes that names no phase, None from the first phase.

    From a phase in which users get answers of Qdrant it is `shadow`: legacy answers everybody, and the comparison goes
    on. From any other phase it is the one before.
    """
    if PHASES[phase].share:
        return "shadow"
    place = PHASE_NAMES.index(phase)
    return PHASE_NAMES[place - 1] if place else None


def mermaid() -> str:
    """Return the diagram of the phases, as Mermaid source. `docs/rollout.md` holds it."""
    lines = ["stateDiagram-v2", "    direction LR", "    [*] --> off"]
    lines += [f"    {before} --> {after}: promote" for before, after in pairwise(PHASE_NAMES)]
    lines += [f"    {phase} --> {back}: rollback" for phase in PHASE_NAMES if (back := retreat(phase)) is not None]
    return "\n".join(lines)
