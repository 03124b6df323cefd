"""When a version may replace what a store holds, as predicates.

SQL and Qdrant hold the same rules themselves, by conditions in each write, because writers may be concurrent. The
vector writer, the adapters in memory and the exploration in the tests ask these predicates.
"""

from __future__ import annotations

from collections.abc import Sequence

from domain.points import StoredChunk, newest_version


def ledger_moves(legacy_version: int, version: int) -> bool:
    """Rule *ledger-guard*: the legacy row changes only when the ledger's `legacy_version` moves up."""
    return version > legacy_version


def vector_moves(stored: Sequence[StoredChunk], version: int) -> bool:
    """Rule *vector-guard*: points are written only over lower versions."""
    return version > newest_version(stored)


def backfill_inserts(stored: Sequence[StoredChunk]) -> bool:
    """Rule *insert-only*: a backfill writes version 0, and only if no point exists, not even a tombstone."""
    return not stored
