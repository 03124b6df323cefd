"""Each gate passes on a measurement only: nothing, too little, or a measurement that failed is inconclusive."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from domain.rollout.commands import begun
from domain.rollout.gates import ENTRY, FOLLOWED_MS, GATES, Evidence, GateName, judge
from domain.rollout.traffic import Traffic
from schemas.queries import Attempt, AttemptOutcome, MissingHit, ShadowCompared
from schemas.rollout import PHASE_NAMES
from schemas.settings import GateLimits
from schemas.tasks import BackfillState, ProofState

NOW = 1_700_000_000_000
SINCE = NOW - 3_600_000
LIMITS = GateLimits()


def backfill(**other: Any) -> BackfillState:
    given = {"state": "done", "started_at_ms": SINCE + 1000, "updated_at_ms": NOW, "model": "m", "range_rows": 100}
    return BackfillState(**(given | {"rows_estimated": 10, "rows": 10} | other))


def proof(**other: Any) -> ProofState:
    given = {"state": "done", "verdict": "equal", "started_at_ms": NOW - 9000, "updated_at_ms": NOW, "rows": 10}
    return ProofState(**(given | {"oldest_at_ms": NOW - 8000} | other))


def compared(outcome: str = "answered", **other: Any) -> ShadowCompared:
    attempt = Attempt(backend="qdrant", outcome="answered")
    missing = (MissingHit(document_id="1", rank=1, reason="not_stored"),) if outcome == "unequal" else ()
    return ShadowCompared(
        **{
            "query_id": "q",
            "collection": "docs",
            "phase": "shadow",
            "tenant": "t",
            "text": "why",
            "limit": 10,
            "answered": attempt,
            "compared": attempt,
            "overlap": None if outcome in {"failed", "timed_out"} else 0.8,
            "noise_overlap": 0.9,
            "missing": missing,
        }
        | other
    )


def traffic(answered: int = 2000, **others: int) -> Traffic:
    """Return the traffic of so many questions that Qdrant answered in 10 ms, and others by their outcome, mixed."""
    found = Traffic(SINCE, LIMITS.p95_ms)
    outcomes = [outcome for outcome, count in {"answered": answered, **others}.items() for _ in range(count)]
    random.Random(7).shuffle(outcomes)
    for outcome in outcomes:
        ms = 5000.0 if outcome == "slow" else 10.0
        kind: AttemptOutcome = "answered" if outcome in {"slow", "unequal"} else outcome  # type: ignore[assignment]
        found.add([Attempt(backend="qdrant", outcome=kind, ms=ms)])
        found.comparisons.add(compared(outcome))
    return found


ALL_WELL = Evidence(
    NOW,
    begun("docs", "dual_write", SINCE).model_copy(update={"entered_at_ms": SINCE}),
    LIMITS,
    "backfill",
    quarantine="",
    not_captured="",
    backfill=backfill(),
    proof=proof(),
    lags={"resolver": (0, None), "vector": (3, 1.5)},
    traffic=traffic(),
)


def verdict(gate: GateName, **changes: Any) -> str:
    found = GATES[gate](replace(ALL_WELL, **changes))
    assert found.gate == gate
    assert found.message
    return found.verdict


@pytest.mark.parametrize("gate", GATES)
def test_a_gate_passes_if_all_is_well(gate: GateName) -> None:
    assert verdict(gate) == "passed"


@pytest.mark.parametrize("gate", GATES)
def test_a_gate_without_anything_known_does_not_pass(gate: GateName) -> None:
    nothing = Evidence(NOW, ALL_WELL.state, LIMITS, "backfill", unanswered=dict.fromkeys(("database", "kafka"), "down"))
    assert GATES[gate](nothing).verdict == "inconclusive"


@pytest.mark.parametrize(
    ("gate", "changes", "expected"),
    [
        ("capture", {"quarantine": "its table was dropped"}, "failed"),
        ("capture", {"not_captured": "the connector is failed"}, "failed"),
        ("capture", {"not_captured": None}, "inconclusive"),
        ("backfill", {"backfill": None}, "failed"),
        ("backfill", {"backfill": backfill(state="running")}, "failed"),
        ("backfill", {"backfill": backfill(state="failed")}, "failed"),
        ("backfill", {"backfill": backfill(started_at_ms=SINCE - 1)}, "passed"),
        ("backfill", {"backfill": backfill(started_at_ms=SINCE - 1), "proof": None}, "failed"),
        ("backfill", {"backfill": None, "initial_load": "snapshot"}, "passed"),
        ("proof", {"proof": None}, "inconclusive"),
        ("proof", {"proof": proof(oldest_at_ms=None)}, "inconclusive"),
        ("proof", {"proof": proof(verdict="pending")}, "inconclusive"),
        ("proof", {"proof": proof(verdict="unknown")}, "inconclusive"),
        ("proof", {"proof": proof(verdict="different")}, "failed"),
        ("proof", {"proof": proof(differences={"stale": 2})}, "failed"),
        ("proof", {"proof": proof(oldest_at_ms=NOW - 90_000_000)}, "inconclusive"),
        ("proof", {"proof": proof(oldest_at_ms=SINCE + FOLLOWED_MS - 1)}, "inconclusive"),
        ("proof", {"proof": proof(oldest_at_ms=SINCE + FOLLOWED_MS)}, "passed"),
        ("lag", {"lags": {}}, "inconclusive"),
        ("lag", {"lags": {"vector": (9, 61.0)}}, "failed"),
        ("lag", {"lags": {"vector": (9, None)}}, "inconclusive"),
        ("lag", {"lags": {"vector": (9, 60.0)}}, "passed"),
        ("qdrant_errors", {"traffic": traffic(0)}, "inconclusive"),
        ("qdrant_errors", {"traffic": traffic(199)}, "inconclusive"),
        ("qdrant_errors", {"traffic": traffic(250)}, "inconclusive"),
        ("qdrant_errors", {"traffic": traffic(0, failed=1000)}, "failed"),
        ("qdrant_errors", {"traffic": traffic(1900, failed=50, timed_out=50)}, "failed"),
        ("qdrant_errors", {"traffic": traffic(0, refused=3000, skipped=3000)}, "inconclusive"),
        ("comparisons", {"traffic": traffic(0)}, "inconclusive"),
        ("comparisons", {"traffic": traffic(0, failed=3000)}, "inconclusive"),
        ("comparisons", {"traffic": traffic(150)}, "inconclusive"),
        ("comparisons", {"traffic": traffic(1900, unequal=100)}, "failed"),
        ("comparisons", {"traffic": traffic(2000, failed=500)}, "passed"),
        ("qdrant_latency", {"traffic": traffic(0, failed=3000)}, "inconclusive"),
        ("qdrant_latency", {"traffic": traffic(1000, slow=1000)}, "failed"),
        ("qdrant_latency", {"traffic": traffic(100)}, "inconclusive"),
        ("qdrant_latency", {"traffic": traffic(2000, failed=500)}, "passed"),
    ],
)
def test_a_gate_tells_failed_from_inconclusive(gate: GateName, changes: dict[str, Any], expected: str) -> None:
    assert verdict(gate, **changes) == expected


def test_a_collection_that_is_not_written_to_qdrant_has_no_backfill_and_no_proof() -> None:
    off = begun("docs", "off", SINCE)
    assert verdict("backfill", state=off) == "failed"
    assert verdict("proof", state=off) == "inconclusive"


@pytest.mark.parametrize("phase", PHASE_NAMES)
def test_the_gates_of_a_phase_are_judged_in_their_order(phase: Any) -> None:
    assert tuple(result.gate for result in judge((phase,), ALL_WELL)) == ENTRY[phase]


def test_a_gate_of_two_phases_is_judged_once() -> None:
    results = judge(("shadow", "canary_1"), ALL_WELL)
    assert [result.gate for result in results] == list(ENTRY["canary_1"])


def test_the_comparisons_are_shown_beside_their_noise() -> None:
    found = ALL_WELL.traffic
    assert found is not None
    assert found.comparisons.beyond_noise == pytest.approx(0.1)
    assert "overlap 0.80; of an answer with itself 0.90" in GATES["comparisons"](ALL_WELL).message


def test_a_result_has_the_numbers_behind_it() -> None:
    result = GATES["qdrant_errors"](replace(ALL_WELL, traffic=traffic(1900, failed=100)))
    assert (result.value, result.limit, result.samples) == (0.05, 0.01, 2000)
    assert result.high is not None
    assert (result.low or 0) < 0.05 < result.high
    assert "p95: qdrant 10 ms" in GATES["qdrant_latency"](ALL_WELL).message
