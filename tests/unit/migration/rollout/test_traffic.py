"""What questions showed of each side: of the present phase only, and also when a side was not even tried."""

from __future__ import annotations

from typing import Any

import pytest

from domain.rollout.commands import begun
from migration.rollout.states import RolloutStates
from migration.rollout.traffic import TrafficView
from schemas.cloudevents import encode
from schemas.documents import Event
from schemas.queries import Alternative, Attempt, Backend, MissingHit, RouteDecided, ShadowCompared
from schemas.records import Received
from schemas.settings import Collection
from topics.catalogue import COMPARED, DECIDED

SINCE = 1_700_000_000_000
COLLECTION = Collection(table="docs", key=("id",), text=("body",))


def view(phase: Any = "primary") -> TrafficView:
    states = RolloutStates({"docs": begun("docs", phase, SINCE)})
    return TrafficView("nowhere:1", states, {"docs": COLLECTION})


def received(event: Event, topic: str, at_ms: int = SINCE + 1) -> Received:
    sent = encode(event, topic=topic, key="q", event_id="e", source="test", time_ms=at_ms)
    return Received(topic, 0, 0, sent.key, sent.value, sent.headers, at_ms)


def decided(*attempts: Attempt, preferred: Backend = "qdrant", at_ms: int = SINCE + 1, **other: Any) -> Received:
    alternative = Alternative(backend=preferred, score=1.0)
    given = {"query_id": "q", "collection": "docs", "chosen": "qdrant", "alternatives": (alternative,), "reasons": ()}
    event = RouteDecided(
        **given | {"features": {}, "rules_version": 2, "phase": "primary", "attempts": attempts} | other
    )
    return received(event, DECIDED, at_ms)


def attempt(backend: Backend = "qdrant", outcome: Any = "answered", ms: float = 5.0) -> Attempt:
    return Attempt(backend=backend, outcome=outcome, ms=ms)


def test_the_attempts_of_both_sides_are_counted() -> None:
    seen = view()
    seen.take(decided(attempt(outcome="failed"), attempt("legacy")))
    seen.take(decided(attempt()))
    traffic = seen.of("docs")
    assert traffic is not None
    assert (traffic.sides["qdrant"].failed.mean, traffic.sides["legacy"].failed.mean) == (0.5, 0.0)
    assert traffic.share_of_qdrant() == 1.0


@pytest.mark.parametrize(
    "record",
    [
        decided(attempt(), phase="shadow"),
        decided(attempt(), at_ms=SINCE - 1),
        decided(attempt(), collection="other"),
        Received(DECIDED, 0, 0, b"q", b"{", (), SINCE + 1),
        Received(COMPARED, 0, 0, b"q", None, (), SINCE + 1),
    ],
)
def test_another_phase_another_collection_and_garbage_count_nothing(record: Received) -> None:
    seen = view()
    seen.take(record)
    traffic = seen.of("docs")
    assert traffic is not None
    assert traffic.sides["qdrant"].failed.count == 0


@pytest.mark.parametrize("ms", ["NaN", "Infinity", "1e400", "-1", "1e10", '"many"'])
def test_a_time_that_is_none_is_passed_over(ms: str) -> None:
    good = decided(attempt(ms=4.25))
    seen = view()
    seen.take(good._replace(value=(good.value or b"").replace(b"4.25", ms.encode())))
    seen.take(good)
    traffic = seen.of("docs")
    assert traffic is not None
    assert traffic.sides["qdrant"].failed.count == 1


def test_a_quarantined_collection_says_nothing_of_the_circuit() -> None:
    seen = view()
    seen.take(decided(attempt("legacy"), quarantined=True))
    traffic = seen.of("docs")
    assert traffic is not None
    assert traffic.recent_since(SINCE) == []


def test_where_few_questions_are_asked_older_ones_count_up_to_a_bound() -> None:
    seen = view()
    for at_ms in (1000, 2000, 30_000, 60_000):
        seen.take(decided(attempt(), at_ms=SINCE + at_ms))
    traffic = seen.of("docs")
    assert traffic is not None
    assert len(traffic.recent_since(SINCE + 55_000)) == 1
    assert len(traffic.recent_since(SINCE + 55_000, 3, SINCE + 1500)) == 3
    assert len(traffic.recent_since(SINCE + 55_000, 9, SINCE + 1500)) == 3


def test_a_side_whose_circuit_is_open_counts_as_skipped() -> None:
    seen = view()
    seen.take(decided(attempt("legacy")))
    traffic = seen.of("docs")
    assert traffic is not None
    assert [one.outcome for one in traffic.recent_since(SINCE)] == ["skipped"]


def test_a_question_that_legacy_is_first_to_answer_says_nothing_of_qdrant() -> None:
    seen = view()
    seen.take(decided(attempt("legacy"), preferred="legacy"))
    traffic = seen.of("docs")
    assert traffic is not None
    assert traffic.recent_since(SINCE) == []


def test_a_forced_route_is_not_part_of_the_share() -> None:
    seen = view()
    seen.take(decided(attempt("legacy"), preferred="legacy", features={"forced": "legacy"}))
    traffic = seen.of("docs")
    assert traffic is not None
    assert traffic.share_of_qdrant() is None


def test_comparisons_are_counted_and_their_attempt_too() -> None:
    seen = view()
    missing = (MissingHit(document_id="1", rank=1, reason="not_stored"),)
    given = {"query_id": "q", "collection": "docs", "phase": "primary", "tenant": "t", "text": "why", "limit": 5}
    event = ShadowCompared(
        **given | {"answered": attempt("legacy"), "compared": attempt(), "overlap": 0.5, "missing": missing}
    )
    seen.take(received(event, COMPARED))
    traffic = seen.of("docs")
    assert traffic is not None
    assert (traffic.comparisons.unequal.mean, traffic.comparisons.overlap.mean) == (1.0, 0.5)
    assert traffic.sides["qdrant"].failed.count == 1


def test_a_change_of_phase_begins_again() -> None:
    states = RolloutStates({"docs": begun("docs", "primary", SINCE)})
    seen = TrafficView("nowhere:1", states, {"docs": COLLECTION})
    seen.take(decided(attempt()))
    states.take(begun("docs", "primary", SINCE + 1000).model_copy(update={"revision": 2}))
    traffic = seen.of("docs")
    assert traffic is not None
    assert traffic.sides["qdrant"].failed.count == 0
