"""The guards of the stores: a version only increases, and a backfill never changes what was written."""

from __future__ import annotations

import pytest

from domain.guards import backfill_inserts, ledger_moves, vector_moves
from domain.points import StoredChunk

LIVE = StoredChunk(0, 5, deleted=False)
TOMBSTONE = StoredChunk(1, 7, deleted=True)
BACKFILLED = StoredChunk(0, 0, deleted=False)


@pytest.mark.parametrize(("version", "moves"), [(4, False), (5, False), (6, True)])
def test_the_ledger_moves_only_up(version: int, moves: bool) -> None:
    assert ledger_moves(5, version) is moves


@pytest.mark.parametrize(
    ("stored", "version", "moves"),
    [
        ([], 0, True),
        ([], 1, True),
        ([BACKFILLED], 1, True),
        ([LIVE], 5, False),
        ([LIVE], 6, True),
        ([LIVE, TOMBSTONE], 6, False),
        ([LIVE, TOMBSTONE], 7, False),
        ([LIVE, TOMBSTONE], 8, True),
    ],
)
def test_points_are_written_only_over_lower_versions_tombstones_included(
    stored: list[StoredChunk], version: int, moves: bool
) -> None:
    assert vector_moves(stored, version) is moves


@pytest.mark.parametrize(("stored", "inserts"), [([], True), ([LIVE], False), ([TOMBSTONE], False)])
def test_a_backfill_inserts_only_where_nothing_is_not_even_a_tombstone(
    stored: list[StoredChunk], inserts: bool
) -> None:
    assert backfill_inserts(stored) is inserts
