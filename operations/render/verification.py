"""A verification as one JSON document, and as one line. The page for people is in `verification_page`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from domain.comparison import Difference
from migration.verify.result import Verification


def document_of(run: Verification, *, ranges: bool = True) -> dict[str, Any]:
    """Return a verification as one JSON document; times are milliseconds since the epoch."""
    document: dict[str, Any] = {
        "collection": run.collection,
        "verdict": run.verdict,
        "round": run.round,
        "started_at_ms": run.started_at_ms,
        "ended_at_ms": run.ended_at_ms,
        "oldest_at_ms": run.oldest_at_ms,
        "seconds": seconds_of(run),
        "legacy_documents": run.legacy_documents,
        "vector_documents": run.vector_documents,
        "points": run.points,
        "rows_read": run.rows_read,
        "differences": run.found,
        "kinds": dict(run.kinds),
        "reasons": dict(run.reasons),
        "settled": run.settled,
        "pending": run.pending,
        "pending_ids": run.pending_ids,
        "unknown": run.unknown,
        "unchecked": run.unchecked,
        "errors": run.errors,
        "repaired": run.repaired,
        "ledger_repaired": run.ledger_repaired,
        "resumed": run.resumed,
        "sample": asdict(run.sample),
        "listed": [_difference(difference) for difference in run.differences],
    }
    if ranges:
        document["ranges"] = [one.model_dump() for one in run.ranges]
    return document


def _difference(found: Difference) -> dict[str, Any]:
    return {
        "id": found.id,
        "kind": found.kind,
        "detail": found.detail,
        "legacy_version": found.legacy_version,
        "vector_version": found.vector_version,
        "repairable": found.repairable,
    }


def seconds_of(run: Verification) -> float:
    """Return how many seconds a run took."""
    return round(max(0, run.ended_at_ms - run.started_at_ms) / 1000, 3)


def line_of(run: Verification, now_ms: int) -> str:
    """Return a round as one line."""
    age = "-" if run.oldest_at_ms is None else f"{(now_ms - run.oldest_at_ms) / 1000:.0f} s"
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(run.kinds.items()))
    return (
        f"round {run.round}: {run.verdict}; {run.legacy_documents} documents, {run.rows_read} rows read, "
        f"{run.found} differences{f' ({kinds})' if kinds else ''}, {run.settled} settled, {run.pending} pending, "
        f"{run.unknown} unknown, {run.repaired} repairs in flight; {seconds_of(run):.1f} s, the proof is {age} old"
    )
