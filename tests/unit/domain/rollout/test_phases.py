"""What each phase of a collection allows, and every transition between two phases."""

from __future__ import annotations

from itertools import pairwise, product
from pathlib import Path
from typing import get_args

import pytest

from domain.rollout.gates import ENTRY
from domain.rollout.phases import PHASES, entered_on_the_way, following, is_forward, mermaid, retreat
from schemas.queries import Backend
from schemas.rollout import PHASE_NAMES, Phase

ROOT = Path(__file__).parents[4]


def test_every_phase_has_its_rules_and_its_gates_in_the_order_of_a_migration() -> None:
    assert list(PHASES) == list(ENTRY) == list(PHASE_NAMES) == list(get_args(Phase))


@pytest.mark.parametrize(
    ("phase", "writes", "answers", "share", "compared"),
    [
        ("off", False, ("legacy",), 0, False),
        ("dual_write", True, ("legacy", "qdrant"), 0, False),
        ("backfill", True, ("legacy", "qdrant"), 0, False),
        ("shadow", True, ("legacy", "qdrant"), 0, True),
        ("canary_1", True, ("legacy", "qdrant"), 0.01, True),
        ("canary_5", True, ("legacy", "qdrant"), 0.05, True),
        ("canary_25", True, ("legacy", "qdrant"), 0.25, True),
        ("canary_50", True, ("legacy", "qdrant"), 0.5, True),
        ("primary", True, ("qdrant", "legacy"), 1, True),
    ],
)
def test_a_phase_says_what_is_written_and_who_answers(
    phase: Phase, writes: bool, answers: tuple[Backend, ...], share: float, compared: bool
) -> None:
    rules = PHASES[phase]
    assert (rules.writes_qdrant, rules.answers, rules.share, rules.compared) == (writes, answers, share, compared)


def test_only_a_store_that_is_written_answers_unasked() -> None:
    assert all(rules.writes_qdrant for rules in PHASES.values() if "qdrant" in rules.answers)


def test_the_share_of_qdrant_never_shrinks_on_the_way_forward() -> None:
    shares = [rules.share for rules in PHASES.values()]
    assert shares == sorted(shares)


@pytest.mark.parametrize(("before", "after"), list(product(PHASE_NAMES, PHASE_NAMES)))
def test_every_transition_is_forward_backward_or_none(before: Phase, after: Phase) -> None:
    entered = entered_on_the_way(before, after)
    assert is_forward(before, after) == bool(entered)
    if entered:
        assert entered[0] == following(before)
        assert entered[-1] == after
    assert not (is_forward(before, after) and is_forward(after, before))


@pytest.mark.parametrize("phase", PHASE_NAMES)
def test_a_rollback_ends_where_legacy_answers_everybody_and_goes_backward(phase: Phase) -> None:
    back = retreat(phase)
    if back is None:
        assert phase == "off"
        return
    assert is_forward(back, phase)
    assert PHASES[back].share == 0


def test_no_phase_with_less_evidence_than_the_one_before() -> None:
    gates = [set(names) for names in ENTRY.values()]
    assert all(earlier <= later for earlier, later in pairwise(gates))


def test_the_diagram_in_the_documents_is_that_of_the_table() -> None:
    assert mermaid() in (ROOT / "docs" / "rollout.md").read_text()
