"""The order of backends for a question, with its reasons: forced route, then the phase's order, open circuits last."""

from __future__ import annotations

from typing import Any

import pytest

from domain.routing import Decision, bucket_of, decide
from schemas.queries import Backend, QueryAsked
from schemas.rollout import Phase

BUCKET = 0.7094


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
    assert features == {"words": 2, "characters": 9, "filters": 1, "limit": 5, "forced": None, "bucket": BUCKET}


def asked(text: str = "two words", session: str | None = None, tenant: str = "default") -> QueryAsked:
    return QueryAsked(id="q", collection="docs", text=text, session=session, tenant=tenant)


def test_the_bucket_of_a_question_never_changes() -> None:
    assert bucket_of(asked()) == BUCKET  # a change would move users to the other side


def test_a_session_of_a_tenant_stays_on_one_side_whatever_it_asks() -> None:
    assert bucket_of(asked("one", "s")) == bucket_of(asked("two", "s"))
    assert bucket_of(asked("one", "s")) != bucket_of(asked("one", "t"))
    assert bucket_of(asked("one", "s")) != bucket_of(asked("one", "s", "other"))
    assert bucket_of(asked("one")) != bucket_of(asked("two"))
    assert bucket_of(asked("one")) != bucket_of(asked("other", "one"))


@pytest.mark.parametrize(
    ("phase", "share"), [("canary_1", 0.01), ("canary_5", 0.05), ("canary_25", 0.25), ("canary_50", 0.5)]
)
def test_a_canary_asks_qdrant_first_for_its_share_of_the_sessions(phase: Phase, share: float) -> None:
    sessions = [str(number) for number in range(4000)]
    first = [decision(phase, session=session).order for session in sessions]
    assert first.count(("qdrant", "legacy")) / len(first) == pytest.approx(share, abs=0.02)
    assert set(first) == {("qdrant", "legacy"), ("legacy", "qdrant")}


def test_who_is_in_a_small_canary_is_in_every_larger_one() -> None:
    phases: tuple[Phase, ...] = ("canary_1", "canary_5", "canary_25", "canary_50", "primary")
    for number in range(500):
        sides = [decision(phase, session=str(number)).order[0] for phase in phases]
        assert sides == sorted(sides)


def test_the_reason_of_a_canary_names_its_share_and_the_bucket() -> None:
    reasons = {decision("canary_50", session=str(number)).reasons for number in range(20)}
    assert all("bucket 0." in reason for (reason,) in reasons)
    assert {reason.split(";")[0] for (reason,) in reasons} == {
        "phase canary_50 answers 50 % of the users from qdrant",
        "phase canary_50 answers the others from legacy",
    }


def test_a_decision_can_be_made_again_from_the_same_facts() -> None:
    assert decision("primary", down=("qdrant",)) == decision("primary", down=("qdrant",))
