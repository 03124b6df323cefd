"""The guards trip on what is known to be wrong, not on what is unknown, and only if it lasts."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from domain.rollout.gates import Evidence
from domain.rollout.guards import Watch, breaches_of_facts, breaches_of_questions
from domain.rollout.traffic import Recent
from schemas.queries import AttemptOutcome
from schemas.tasks import ProofState
from tests.unit.domain.rollout.test_gates import ALL_WELL, NOW, proof

UNKNOWN = Evidence(NOW, ALL_WELL.state, ALL_WELL.limits, "backfill")


def recent(**counts: int) -> list[Recent]:
    found = []
    for outcome, count in counts.items():
        kind: AttemptOutcome = "answered" if outcome == "slow" else outcome  # type: ignore[assignment]
        found += [Recent(NOW, kind, 5000.0 if outcome == "slow" else 10.0)] * count
    random.Random(3).shuffle(found)
    return found


def tripped(evidence: Evidence = ALL_WELL, counts: dict[str, int] | None = None) -> list[str]:
    found = (*breaches_of_questions(evidence.limits, recent(**(counts or {}))), *breaches_of_facts(evidence))
    return [breach.gate for breach in found]


def test_nothing_trips_while_all_is_well() -> None:
    assert tripped(counts={"answered": 500}) == []


def test_what_is_not_known_trips_nothing() -> None:
    assert tripped(UNKNOWN) == []


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"failed": 30}, ["qdrant_errors"]),
        ({"timed_out": 30}, ["qdrant_errors"]),
        ({"answered": 400, "failed": 100}, ["qdrant_errors"]),
        ({"slow": 40}, ["qdrant_latency"]),
        ({"answered": 100, "slow": 100}, ["qdrant_latency"]),
        ({"skipped": 30}, ["circuit"]),
        ({"failed": 5}, ["qdrant_errors"]),
        ({"failed": 4}, []),
        ({"answered": 90, "failed": 10}, ["qdrant_errors"]),
        ({"answered": 40, "failed": 10}, ["qdrant_errors"]),
        ({"answered": 495, "failed": 5}, []),
        ({"answered": 480, "slow": 20}, []),
        ({"skipped": 4}, []),
        ({"answered": 60, "skipped": 40}, []),
    ],
)
def test_recent_questions_trip_their_guard(counts: dict[str, int], expected: list[str]) -> None:
    assert tripped(counts=counts) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"quarantine": "its table was dropped"}, ["capture"]),
        ({"not_captured": "the connector failed"}, ["capture"]),
        ({"proof": proof(differences={"stale": 1})}, ["proof"]),
        ({"proof": proof(oldest_at_ms=NOW - 86_401_000)}, ["proof"]),
        ({"proof": proof(verdict="pending")}, []),
        ({"proof": None}, []),
        ({"lags": {"vector": (9, 61.0)}}, ["lag"]),
        ({"lags": {"vector": (9, None)}}, []),
        ({"lags": None}, []),
        ({"lags": {"legacy": (9, 61.0)}, "not_captured": "failed", "unanswered": {"database": "no answer"}}, []),
    ],
)
def test_facts_trip_their_guard(changes: dict[str, Any], expected: list[str]) -> None:
    assert tripped(replace(ALL_WELL, **changes)) == expected


def test_every_breach_names_its_evidence() -> None:
    found: ProofState = proof(differences={"stale": 2})
    of_questions = breaches_of_questions(ALL_WELL.limits, recent(failed=40, slow=40))
    for breach in (*of_questions, *breaches_of_facts(replace(ALL_WELL, proof=found))):
        assert breach.verdict == "failed"
        assert breach.message


def test_a_breach_must_last() -> None:
    watch = Watch()
    for at_ms, breached, trips in ((0, True, False), (1000, True, False), (1500, False, False), (2000, True, False)):
        watch = watch.after(breached, at_ms)
        assert watch.trips(2.0, at_ms) == trips
    assert watch.after(True, 4000).trips(2.0, 4000)


def test_a_guard_that_looks_every_second_for_an_hour_raises_no_false_alarm() -> None:
    draw, window, alarms = random.Random(11), list[Recent](), 0
    for second in range(3600):
        window += [Recent(second, "failed" if draw.random() < 0.005 else "answered", 10.0) for _ in range(20)]
        window = [one for one in window if one.at_ms > second - 10]
        alarms += bool(breaches_of_questions(UNKNOWN.limits, window))
    assert alarms == 0
