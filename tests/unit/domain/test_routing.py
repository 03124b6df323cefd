"""The order of backends for a question, with its reasons: forced route, then the phase's order, open circuits last."""

from __future__ import annotations

from typing import Any

import pytest

from domain.routing import Decision, decide
from schemas.queries import Backend, QueryAsked
from schemas.rollout import Phase


def decision(phase: Phase, *, route: Backend | None = None, down: tuple[Backend, ...] = (), **other: Any) -> Decision:
    query = QueryAsked(**({"id": "q", "collection": "docs", "text": "two words", "route": route} | other))
    backends: tuple[Backend, ...] = ("legacy", "qdrant")
    return decide(query, phase, {backend: backend not in down for backend in backends})


@pytest.mark.parametrize(
    ("phase", "route", "down", "order"),
    [
        ("off", None, (), ("legacy",)),
        ("off", None, ("legacy",), ("legacy",)),
        ("off", "qdrant", (), ("qdrant", "legacy")),
        ("dual_write", None, (), ("legacy", "qdrant")),
        ("dual_write", None, ("legacy",), ("qdrant", "legacy")),
        ("dual_write", None, ("legacy", "qdrant"), ("legacy", "qdrant")),
        ("dual_write", "qdrant", (), ("qdrant", "legacy")),
        ("dual_write", "qdrant", ("qdrant",), ("legacy", "qdrant")),
        ("primary", None, (), ("qdrant", "legacy")),
        ("primary", None, ("qdrant",), ("legacy", "qdrant")),
        ("primary", "legacy", (), ("legacy", "qdrant")),
    ],
)
def test_the_backends_are_asked_in_order(
    phase: Phase, route: Backend | None, down: tuple[Backend, ...], order: tuple[Backend, ...]
) -> None:
    assert decision(phase, route=route, down=down).order == order


def test_the_reasons_name_phase_route_and_circuit() -> None:
    assert decision("primary").reasons == ("phase primary answers from qdrant",)
    assert decision("primary", route="legacy").reasons == ("route legacy was asked for",)
    assert decision("primary", down=("qdrant",)).reasons == (
        "phase primary answers from qdrant",
        "the circuit of qdrant is open",
    )


def test_each_alternative_says_why_it_was_not_chosen() -> None:
    reported = {a.backend: (a.score, a.why_not) for a in decision("primary", down=("qdrant",)).alternatives}
    assert reported == {"qdrant": (0.0, "circuit open"), "legacy": (1.0, None)}
    reported = {a.backend: (a.score, a.why_not) for a in decision("dual_write").alternatives}
    assert reported == {"legacy": (2.0, None), "qdrant": (1.0, "lower in the order of the phase or the request")}


def test_the_features_describe_the_question_without_its_text() -> None:
    features = decision("off", filter={"year": 2001}, limit=5).features
    assert features == {"words": 2, "characters": 9, "filters": 1, "limit": 5, "forced": None}


def test_a_decision_can_be_made_again_from_the_same_facts() -> None:
    assert decision("primary", down=("qdrant",)) == decision("primary", down=("qdrant",))
