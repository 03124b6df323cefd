"""The in-memory store and Qdrant's engine agree on random input. A seed that finds a difference is kept."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from connectors.memory.vectors import MemoryVectorStore
from connectors.ports import SearchRequest
from connectors.qdrant.engine.store import EmbeddedVectorStore
from connectors.vector_ports import VectorStore
from domain.points import DocumentPoints, StoredChunk
from schemas.content import Scalar
from tests.contract.vector_stores import DIMENSION, document, vector

STEPS = 60
METADATA: list[Scalar] = [0, 1, 1.0, 2.5, True, False, "a", "", None, 2**53, 2**53 + 1, -(2**63)]


def random_documents(rng: random.Random) -> list[DocumentPoints]:
    documents = []
    for _ in range(rng.randint(1, 5)):
        vectors = [[rng.uniform(-1, 1) for _ in range(DIMENSION)] for _ in range(rng.randint(0, 3))]
        tombstones = range(len(vectors), rng.randint(len(vectors), 4) + (not vectors))
        metadata = {field: rng.choice(METADATA) for field in rng.sample(["x", "y"], rng.randint(0, 2))}
        name, tenant = f"d{rng.randrange(8)}", rng.choice(["one", "two"])
        documents.append(document(name, rng.randrange(12), vectors, tombstones, tenant, metadata))
    return documents


def random_question(rng: random.Random) -> SearchRequest:
    wanted = {field: rng.choice(METADATA) for field in rng.sample(["x", "y"], rng.choice([0, 0, 1, 1, 2]))}
    values = [rng.uniform(-1, 1) for _ in range(DIMENSION)]
    return SearchRequest("", vector(*values), rng.choice(["one", "two"]), rng.randint(1, 6), wanted)


async def all_points(store: VectorStore, page: int) -> list[tuple[str, StoredChunk]]:
    points: list[tuple[str, StoredChunk]] = []
    after: str | None = None
    while True:
        answer = await store.scan_ids("c", after, page)
        found = await store.points("c", answer.ids)
        points += [(name, chunk) for name, chunks in found.items() for chunk in chunks]
        after = answer.next
        if after is None:
            return points


async def assert_same_content(left: VectorStore, right: VectorStore) -> None:
    ids = [f"d{i}" for i in range(8)]
    ours, theirs = await left.stored("c", ids, content=True), await right.stored("c", ids, content=True)
    assert list(ours) == list(theirs)
    for name in ours:
        assert [(c.chunk, c.version, c.deleted, c.content_hash, c.tenant, c.model, c.text) for c in ours[name]] == [
            (c.chunk, c.version, c.deleted, c.content_hash, c.tenant, c.model, c.text) for c in theirs[name]
        ]
        for one, other in zip(ours[name], theirs[name], strict=True):
            np.testing.assert_allclose(
                np.frombuffer(one.vector or b"", "<f4"), np.frombuffer(other.vector or b"", "<f4"), atol=1e-6
            )
    assert await left.stored("c", ids) == await right.stored("c", ids)


@pytest.mark.parametrize("seed", range(12))
async def test_memory_and_engine_agree(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    memory, embedded = MemoryVectorStore(), EmbeddedVectorStore(tmp_path)
    await embedded.start()
    try:
        for store in (memory, embedded):
            await store.prepare("c", DIMENSION)
        for _ in range(STEPS):
            documents = random_documents(rng)
            await memory.write("c", documents)
            await embedded.write("c", documents)
            request = random_question(rng)
            expected, found = await memory.search("c", request), await embedded.search("c", request)
            assert [hit.model_copy(update={"score": 0.0}) for hit in found] == [
                hit.model_copy(update={"score": 0.0}) for hit in expected
            ]
            assert [hit.score for hit in found] == pytest.approx([hit.score for hit in expected], abs=1e-5)
        await assert_same_content(memory, embedded)
        assert await memory.count("c") == await embedded.count("c")
        page = rng.randint(1, 9)
        assert await all_points(memory, page) == await all_points(embedded, page)
    finally:
        await embedded.close()
