"""Points whose payload others wrote or damaged: reads, searches and writes continue, and none counts as equal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import qdrant_edge as edge
from hypothesis import given
from hypothesis import strategies as st

from connectors.qdrant.engine import wire
from connectors.qdrant.engine.store import EmbeddedVectorStore
from connectors.qdrant.floats import EXACT
from connectors.qdrant.points import CONTENT_FIELDS, Found, best_hits, payload_of
from connectors.qdrant.records import stored_chunk
from connectors.vector_ports import NAMELESS
from domain.comparison import LegacyFacts, compare
from domain.filters import matches
from domain.points import StoredChunk
from schemas.keys import packed_id, point_id
from tests.contract.vector_stores import DIMENSION, document, question, vector

SOUND = payload_of(document("a", 5, metadata={"f": 1.0, "n": None}), 0)
FIELDS = [name for name in CONTENT_FIELDS if name != EXACT]  # present only with floats that Qdrant would change
VECTORS = {"dense": [1.0, 0.0, 0.0, 0.0]}
ROW = LegacyFacts(5, SOUND["content_hash"], 1, 5, "default", {"f": 1.0, "n": None})
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def test_what_crossfade_wrote_is_read_as_it_was_written() -> None:
    chunk = stored_chunk(SOUND, VECTORS, content=True)
    assert compare("a", ROW, [chunk]) is None
    assert chunk == StoredChunk(
        0, 5, False, SOUND["content_hash"], "default", "m@1", SOUND["checksum"], SOUND["vector_checksum"],
        "a v5 #0", {"f": 1.0, "n": None}, vector(1, 0, 0, 0),
    )  # fmt: skip


@given(changes=st.dictionaries(st.sampled_from(FIELDS[1:]), VALUES, min_size=1))
def test_a_payload_of_any_values_is_read_and_is_equal_only_where_it_is_the_same(changes: dict[str, Any]) -> None:
    payload = SOUND | changes
    chunk = stored_chunk(payload, VECTORS, content=True)
    assert msgspec.msgpack.decode(wire.encode(chunk), type=StoredChunk) == chunk
    read = json.loads(json.dumps(changes), parse_float=lambda number: int(f) if (f := float(number)) % 1 == 0 else f)
    unlike = {name for name, value in read.items() if json.dumps(value) != json.dumps(SOUND[name])}
    # `wrong_vectors` compares the checksum of a vector. A point without a checksum is unchecked.
    if unlike - {"vector_checksum", "checksum"}:
        assert compare("a", ROW, [chunk]) is not None
    best_hits([Found(0.5, {**payload, "document_id": "a"})])
    matches(payload["metadata"], {"f": 1.0})


@pytest.mark.parametrize("name", FIELDS[1:-2])
def test_a_payload_without_a_field_is_not_equal(name: str) -> None:
    chunk = stored_chunk({key: value for key, value in SOUND.items() if key != name}, VECTORS, content=True)
    assert compare("a", ROW, [chunk]) is not None


def upsert(store: EmbeddedVectorStore, name: str, payload: dict[str, Any]) -> None:
    point = edge.Point(name, {"dense": [1.0, 0.0, 0.0, 0.0]}, payload)
    store._of("docs")._engine.update(edge.UpdateOperation.upsert_points([point]))


async def test_foreign_points_stop_neither_search_nor_write(tmp_path: Path) -> None:
    store = EmbeddedVectorStore(tmp_path)
    await store.start()
    try:
        await store.prepare("docs", DIMENSION)
        await store.write("docs", [document("b", 1, [(1, 1, 0, 0)])])
        strange = "5eed0000-0000-4000-8000-00000000000a"
        own = point_id("docs", "a", 0)
        for name, payload in (
            (strange, {"tenant": "default", "text": "of somebody else"}),
            (own, {**SOUND, "version": "the last", "metadata": [1], "text": 5}),
        ):
            upsert(store, name, payload)
        found = await store.search("docs", question(1, 0, 0, 0))
        assert [hit.document_id for hit in found] == ["b"]
        points = await store.points("docs", packed_id(strange) + packed_id(own))
        assert {name: len(chunks) for name, chunks in points.items()} == {NAMELESS: 1, "a": 1}
        assert points["a"][0].version == -1
        await store.write("docs", [document("a", 6)])
        assert (await store.stored("docs", ["a"]))["a"][0].version == 6
    finally:
        await store.close()
