"""Both stores hold the same document, or the difference is named: missing, ghost, or stale with its reason."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from domain.comparison import Difference, Disagreement, LegacyFacts, compare
from domain.points import StoredChunk

ROW = LegacyFacts(version=5, content_hash="h", chunk_count=2)


def live(chunk: int, version: int = 5, content_hash: str = "h") -> StoredChunk:
    return StoredChunk(chunk, version, deleted=False, content_hash=content_hash)


def gone(chunk: int, version: int = 9) -> StoredChunk:
    return StoredChunk(chunk, version, deleted=True)


@pytest.mark.parametrize(
    ("legacy", "stored"),
    [
        (None, []),
        (None, [gone(0), gone(1)]),
        (ROW, [live(0), live(1)]),
        (ROW, [live(1), live(0), gone(2)]),
        (ROW, [live(0, 8), live(1, 8)]),
        (ROW, [live(0, 0), live(1, 0)]),
        (LegacyFacts(None, "h"), [live(0, 3)]),
        (LegacyFacts(5, "h"), [live(0)]),
    ],
    ids=[
        "in neither store",
        "tombstones of a deleted document",
        "the same version",
        "in any order, with tombstones",
        "Qdrant ahead of the row's own version, by captured changes",
        "backfilled points have version 0",
        "a row that no producer wrote",
        "a document that the ledger does not count chunks of",
    ],
)
def test_no_difference(legacy: LegacyFacts | None, stored: Sequence[StoredChunk]) -> None:
    assert compare("1", legacy, stored) is None


@pytest.mark.parametrize(
    ("legacy", "stored", "difference"),
    [
        (None, [live(0)], Difference("1", "ghost", Disagreement.NO_ROW, None, 5)),
        (ROW, [], Difference("1", "missing", Disagreement.NO_POINT, 5, None)),
        (ROW, [gone(0)], Difference("1", "missing", Disagreement.NO_POINT, 5, None)),
        (
            ROW,
            [live(0), live(1, 4)],
            Difference("1", "stale", Disagreement.CHUNK_VERSIONS, 5, 5, note="chunks of 2 versions"),
        ),
        (ROW, [live(0), live(1, 5, "x")], Difference("1", "stale", Disagreement.CONTENT, 5, 5)),
        (ROW, [live(1)], Difference("1", "stale", Disagreement.CHUNK_MISSING, 5, 5)),
        (ROW, [live(0), live(0)], Difference("1", "stale", Disagreement.DUPLICATE_CHUNK, 5, 5)),
        (ROW, [live(0)], Difference("1", "stale", Disagreement.CHUNK_COUNT, 5, 5, note="1 chunks, the ledger says 2")),
        # A copied or archived row carries the version of another document, or of another time.
        (ROW, [live(0, 4), live(1, 4)], None),
    ],
    ids=lambda value: value.detail if isinstance(value, Difference) else "",
)
def test_a_difference_is_named(
    legacy: LegacyFacts | None, stored: Sequence[StoredChunk], difference: Difference
) -> None:
    assert compare("1", legacy, stored) == difference
