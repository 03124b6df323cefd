"""The meaning of each phase of a collection, as data. Transitions between phases are not decided here."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.queries import Backend, Phase


@dataclass(frozen=True, slots=True)
class PhaseRules:
    """`answers` lists the backends that may answer, the preferred one first and the others as fallback."""

    writes_qdrant: bool
    answers: tuple[Backend, ...]


PHASES: dict[Phase, PhaseRules] = {
    "off": PhaseRules(writes_qdrant=False, answers=("legacy",)),
    "dual_write": PhaseRules(writes_qdrant=True, answers=("legacy", "qdrant")),
    "primary": PhaseRules(writes_qdrant=True, answers=("qdrant", "legacy")),
}
