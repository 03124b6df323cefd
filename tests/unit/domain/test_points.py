"""What a new version changes in a document's points: which chunks end, and which vectors stay."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.points import StoredChunk, newest_version, reusable_vectors, tombstones_for


def live(chunk: int, text: str = "", *, version: int = 1, model: str = "m@1") -> StoredChunk:
    return StoredChunk(chunk, version, deleted=False, model=model, text=text, vector=f"v of {text}".encode())


def gone(chunk: int, *, version: int = 1) -> StoredChunk:
    return StoredChunk(chunk, version, deleted=True, model="m@1", text="", vector=None)


@pytest.mark.parametrize(
    ("chunks", "stored", "highest", "expected"),
    [
        (2, [], 0, ()),
        (2, [live(0), live(1)], 0, ()),
        (1, [live(0), live(1), live(2)], 0, (1, 2)),
        (3, [live(0)], 0, ()),
        (1, [live(0), gone(1), gone(2)], 0, (1, 2)),
        (0, [live(0), live(1)], 0, (0, 1)),
        (0, [], 0, (0,)),
        (1, [], 3, (1, 2)),
        (0, [live(0)], 2, (0, 1)),
        (1, [live(3)], 2, (1, 2, 3)),
    ],
    ids=[
        "a new document has none",
        "as many chunks as before",
        "fewer chunks than before",
        "more chunks than before",
        "old tombstones are kept up to date",
        "a deletion ends every chunk",
        "a deletion of an unknown document leaves a guard",
        "chunks handed out by a superseded version",
        "a deletion of a document that was about to grow",
        "numbers between stored chunks",
    ],
)
def test_chunks_that_are_gone_become_tombstones(
    chunks: int, stored: Sequence[StoredChunk], highest: int, expected: tuple[int, ...]
) -> None:
    assert tombstones_for(chunks, stored, highest) == expected


@given(
    chunks=st.integers(0, 8),
    stored=st.lists(st.builds(StoredChunk, st.integers(0, 8), st.integers(0, 9), st.booleans()), max_size=6),
    highest=st.integers(0, 8),
)
def test_every_known_chunk_is_written_or_ended_and_never_both(
    chunks: int, stored: list[StoredChunk], highest: int
) -> None:
    ended = tombstones_for(chunks, stored, highest)
    written = [*range(chunks), *ended]
    assert len(set(written)) == len(written)
    assert {point.chunk for point in stored} | set(range(highest)) | {0} <= set(written)


def test_the_newest_version_counts_tombstones_and_is_below_zero_where_nothing_is() -> None:
    assert newest_version([]) == -1
    assert newest_version([live(0, version=0)]) == 0
    assert newest_version([live(0, version=3), gone(1, version=4)]) == 4


def test_a_vector_is_kept_where_text_and_model_are_the_same_wherever_the_chunk_stands() -> None:
    stored = [live(0, "a"), live(1, "b"), live(2, "c")]
    assert reusable_vectors(["b", "new", "a", "b"], ["m@1"], stored) == {0: b"v of b", 2: b"v of a", 3: b"v of b"}


@pytest.mark.parametrize(
    "stored",
    [
        [live(0, "a", model="m@2")],
        [StoredChunk(0, 1, deleted=True, model="m@1", text="a", vector=b"v")],
        [StoredChunk(0, 1, deleted=False, model="m@1", text="a", vector=None)],
        [StoredChunk(0, 1, deleted=False, model="m@1", text=None, vector=b"v")],
        [live(0, "a ")],
    ],
    ids=["another model", "a tombstone", "no vector", "no text", "another text"],
)
def test_no_vector_is_kept_of(stored: Sequence[StoredChunk]) -> None:
    assert reusable_vectors(["a"], ["m@1"], stored) == {}
