"""What each phase of a collection allows."""

from __future__ import annotations

from typing import get_args

import pytest

from domain.rollout.phases import PHASES
from schemas.queries import Backend
from schemas.rollout import Phase


def test_every_phase_has_its_rules() -> None:
    assert set(PHASES) == set(get_args(Phase))


@pytest.mark.parametrize(
    ("phase", "writes", "answers"),
    [
        ("off", False, ("legacy",)),
        ("dual_write", True, ("legacy", "qdrant")),
        ("primary", True, ("qdrant", "legacy")),
    ],
)
def test_a_phase_says_what_is_written_and_who_answers(phase: Phase, writes: bool, answers: tuple[Backend, ...]) -> None:
    assert (PHASES[phase].writes_qdrant, PHASES[phase].answers) == (writes, answers)


def test_only_a_store_that_is_written_answers_unasked() -> None:
    assert all(rules.writes_qdrant for rules in PHASES.values() if "qdrant" in rules.answers)
