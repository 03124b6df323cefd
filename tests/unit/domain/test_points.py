"""What a new version changes in a document's points: which chunks end, and which vectors are kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from domain.points import (
    CHECKSUM,
    VECTOR_CHECKSUM_ERROR,
    StoredChunk,
    newest_version,
    payload_checksum,
    reusable_vectors,
    tombstones_for,
    vector_checksums,
)


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


def test_a_vector_that_was_damaged_since_it_was_written_is_not_kept() -> None:
    vector, another = (np.array(values, "<f4").tobytes() for values in ([1, 2, 3, 4], [1, 2, 3, 5]))
    (checksum,) = vector_checksums([vector])
    stored = [structs.replace(live(0, "a"), vector=vector, vector_checksum=checksum)]
    assert reusable_vectors(["a"], ["m@1"], stored) == {0: vector}
    for damaged in (another, np.full(4, np.nan, "<f4").tobytes()):
        assert reusable_vectors(["a"], ["m@1"], [structs.replace(stored[0], vector=damaged)]) == {}


PAYLOAD = {
    "document_id": "a", "tenant": "t", "chunk": 0, "version": 7, "content_hash": "h", "deleted": False, "text": "x",
    "metadata": {"a": 1, "b": None}, "model": "m@1",
}  # fmt: skip


@pytest.mark.parametrize("name", PAYLOAD)
def test_a_change_of_any_field_of_a_payload_shows_in_its_checksum(name: str) -> None:
    changed = {**PAYLOAD, name: {"a": 2, "b": None} if name == "metadata" else "other"}
    assert payload_checksum(changed) != payload_checksum(PAYLOAD)
    assert payload_checksum({**PAYLOAD, CHECKSUM: 1, "unknown": 2}) == payload_checksum(PAYLOAD)
    assert 0 <= payload_checksum(changed) < 2**53


def test_the_checksum_of_a_payload_does_not_depend_on_the_order_of_its_fields() -> None:
    backwards = dict(reversed(PAYLOAD.items()))
    backwards["metadata"] = {"b": None, "a": 1}
    assert payload_checksum(backwards) == payload_checksum(PAYLOAD)


@given(st.integers(0, 383), st.floats(0.01, 2), st.floats(0.001, 1000))
def test_a_changed_component_shows_in_a_vectors_checksum_and_its_length_does_not(
    at: int, change: float, length: float
) -> None:
    values = np.random.default_rng(at).standard_normal(384)
    unit = (values / np.linalg.norm(values)).astype("<f4")
    damaged = unit.copy()
    damaged[at] += np.float32(change)
    own, longer, other = vector_checksums(
        [unit.tobytes(), (values * length).astype("<f4").tobytes(), damaged.tobytes()]
    )
    assert longer == pytest.approx(own, abs=VECTOR_CHECKSUM_ERROR)
    assert abs(other - own) > 10 * VECTOR_CHECKSUM_ERROR


def test_vectors_that_trade_places_zeros_and_nothing_have_checksums_too() -> None:
    one, two = np.asarray([1, 2, 3, 4], "<f4").tobytes(), np.asarray([4, 3, 2, 1], "<f4").tobytes()
    first, second, zeros = vector_checksums([one, two, bytes(16)])
    assert abs(first - second) > 1000 * VECTOR_CHECKSUM_ERROR
    assert zeros == 0
    assert vector_checksums([]) == []
