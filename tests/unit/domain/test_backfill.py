"""A backfill concurrent with live writes: every interleaving of their steps, and crashes in between."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import pytest

from domain.backfill import orphan_chunks
from domain.comparison import LegacyFacts, compare
from domain.guards import vector_moves
from domain.points import DocumentPoints, PointChunk, StoredChunk, tombstones_for

CHUNKS = 3
Points = dict[int, StoredChunk]
ROW = DocumentPoints("a", 0, "default", "old", "m", {}, tuple(PointChunk(str(n), b"", 0.0) for n in range(CHUNKS)), ())


def backfilled(points: Points) -> Iterator[None]:
    """Take the steps of the backfill: insert each chunk by itself, find orphan chunks, then write their tombstones."""
    for number in range(CHUNKS):
        if number not in points:
            points[number] = StoredChunk(number, 0, deleted=False, content_hash="old")
        yield
    ended = orphan_chunks(ROW, list(points.values()))
    yield
    if ended is not None:
        written(points, ended)
    yield


def live(points: Points, version: int, chunks: int) -> Iterator[None]:
    """Take the steps of the vector writer: read the points, then write chunks and tombstones in one operation."""
    stored = list(points.values())
    moves = vector_moves(stored, version)
    tombstones = tombstones_for(chunks, stored)
    yield
    if moves:
        texts = tuple(PointChunk(str(n), b"", 0.0) for n in range(chunks))
        written(points, DocumentPoints("a", version, "default", f"v{version}", "m", {}, texts, tombstones))
    yield


def written(points: Points, document: DocumentPoints) -> None:
    for number in (*range(len(document.chunks)), *document.tombstones):
        before = points.get(number)
        if before is None or before.version < document.version:
            gone = number >= len(document.chunks)
            points[number] = StoredChunk(number, document.version, gone, None if gone else document.content_hash)


def interleaved(first: Iterator[None], second: Iterator[None], turns: tuple[int, ...], total: int) -> None:
    """Let `second` take the steps whose numbers are in `turns`, and `first` the others."""
    for step in range(total):
        next(second if step in turns else first, None)


BACKFILL_STEPS, LIVE_STEPS = CHUNKS + 2, 4
ORDERS = list(combinations(range(BACKFILL_STEPS + LIVE_STEPS), LIVE_STEPS))


def one_after_the_other(points: Points, *chunks: int) -> Iterator[None]:
    for version, number in enumerate(chunks, 1):
        yield from live(points, version, number)


@pytest.mark.parametrize("chunks", [(1, 1), (2, 1), (1, 0), (0, 2), (3, 1), (0, 0), (5, 1)])
def test_whatever_comes_in_between_the_newest_live_write_alone_is_visible(chunks: tuple[int, int]) -> None:
    for turns in ORDERS:
        points: Points = {}
        steps = BACKFILL_STEPS + LIVE_STEPS
        interleaved(backfilled(points), one_after_the_other(points, *chunks), turns, steps)
        visible = {n: p.version for n, p in points.items() if not p.deleted}
        assert visible == dict.fromkeys(range(chunks[-1]), 2), (turns, points)


@pytest.mark.parametrize("chunks", [1, 2, 3])
@pytest.mark.parametrize("crash", range(BACKFILL_STEPS))
def test_a_page_that_is_done_again_after_a_crash_ends_the_same(chunks: int, crash: int) -> None:
    for turns in combinations(range(crash + 2), 2):
        points: Points = {}
        interleaved(backfilled(points), live(points, 1, chunks), turns, crash + 2)
        for _ in backfilled(points):
            pass
        visible = {n: p.version for n, p in points.items() if not p.deleted}
        assert visible == dict.fromkeys(range(chunks), 1), (turns, points)


def test_what_a_crash_leaves_of_a_row_that_was_deleted_meanwhile_the_verifier_finds() -> None:
    found = 0
    for turns in combinations(range(CHUNKS + 2), 2):
        points: Points = {}
        interleaved(backfilled(points), live(points, 1, 0), turns, CHUNKS + 2)  # killed before it finds orphans
        if any(not point.deleted for point in points.values()):
            difference = compare("a", None, list(points.values()))
            assert difference is not None
            assert difference.kind == "ghost"
            found += 1
    assert found > 0


def test_a_backfilled_document_that_nobody_changed_is_equal_whatever_version_its_row_has() -> None:
    points: Points = {}
    for _ in backfilled(points):
        pass
    assert orphan_chunks(ROW, list(points.values())) is None
    for version in (None, 1 << 40):
        assert compare("a", LegacyFacts(version, "old"), list(points.values())) is None
