"""The contract of the port `VectorStore`, for every adapter. No test here knows which adapter it uses."""

from __future__ import annotations

from uuid import uuid4

import numpy as np
import pytest
from msgspec import structs

from connectors.errors import CollectionMissing, Misconfigured, Refused
from connectors.vector_ports import Storage, VectorStore
from domain.points import (
    VECTOR_CHECKSUM_ERROR,
    PointChunk,
    StoredChunk,
    payload_checksum,
    tombstones_for,
    vector_checksums,
)
from schemas.content import Scalar
from schemas.keys import EPOCH_SHIFT, LAST_EPOCH, packed_id, point_id, version_of
from schemas.settings import Quantization
from tests.contract.vector_stores import DIMENSION, document, question, vector


async def test_what_was_written_is_found_and_read_back(store: VectorStore, name: str) -> None:
    await store.write(name, [document("a", 7, [(3, 4, 0, 0), (0, 0, 1, 0)], metadata={"kind": "x", "none": None})])
    stored = await store.stored(name, ["a", "b"], content=True)
    assert list(stored) == ["a"]
    first, second = stored["a"]
    assert (first.chunk, second.chunk, first.version, first.deleted) == (0, 1, 7, False)
    assert (first.content_hash, first.model, first.tenant, first.text) == ("hash of a v7", "m@1", "default", "a v7 #0")
    assert first.vector is not None
    np.testing.assert_allclose(np.frombuffer(first.vector, "<f4"), [0.6, 0.8, 0, 0], atol=1e-6)  # cosine: length 1
    assert (await store.stored(name, ["a"]))["a"][0] == StoredChunk(
        0, 7, False, content_hash="hash of a v7", tenant="default", model="m@1"
    )
    (hit,) = await store.search(name, question(0, 0, 1, 0))
    assert (hit.document_id, hit.chunk, hit.text, hit.version) == ("a", 1, "a v7 #1", 7)
    assert hit.metadata == {"kind": "x", "none": None}
    assert hit.score == pytest.approx(1, abs=1e-6)


async def test_an_insertion_fills_gaps_only_and_leaves_tombstones(store: VectorStore, name: str) -> None:
    await store.write(name, [document("a", 5, [(1, 0, 0, 0)], [1]), document("gone", 6, [], [0])])
    before = await store.stored(name, ["a", "gone"], content=True)
    late = [document(one, 0, [(0, 1, 0, 0), (0, 0, 1, 0)]) for one in ("a", "gone", "new")]
    await store.insert(name, late)
    await store.insert(name, late)
    after = await store.stored(name, ["a", "gone", "new"], content=True)
    assert after["a"] == before["a"]
    assert after["gone"][0] == before["gone"][0]
    assert [(p.chunk, p.version, p.text) for p in after["new"]] == [(0, 0, "new v0 #0"), (1, 0, "new v0 #1")]
    assert [hit.document_id for hit in await store.search(name, question(0, 1, 0, 0, limit=1))] == ["new"]
    await store.write(name, [document("new", 1, [(1, 0, 0, 0)], [1])])
    assert [p.version for p in (await store.stored(name, ["new"]))["new"]] == [1, 1]


@pytest.mark.parametrize("quantization", ["none", "scalar", "binary", "product"])
@pytest.mark.parametrize("on_disk", [False, True])
async def test_a_bulk_ends_with_an_index_whatever_the_vectors_are_kept_as(
    store: VectorStore, quantization: Quantization, on_disk: bool
) -> None:
    name, dimension = f"c{uuid4().hex[:12]}", 64
    await store.prepare(name, dimension, storage=Storage(quantization, on_disk))
    values = np.random.default_rng(3).standard_normal((300, dimension)).tolist()
    previous_threshold = await store.suspend_indexing(name)
    await store.insert(name, [document(f"d{n}", 0, [each]) for n, each in enumerate(values)])
    await store.write(name, [document("gone", 1, [], [0])])
    assert previous_threshold is None or previous_threshold > 1
    await store.resume_indexing(name, 1)  # in kB: a server indexes even so few points
    assert await store.count(name) == 300
    for number in (0, 150, 299):
        asked = vector(*values[number])
        true = await store.neighbours(name, asked, 5, exact=True)
        found = await store.neighbours(name, asked, 5, exact=False)
        assert true[0] == found[0] == point_id(name, f"d{number}", 0)
        # One bit for each of 64 random components says little about the other neighbours.
        assert len({*true} & {*found}) >= (1 if quantization == "binary" else 4)
    seventh = question(*values[7], limit=1)
    assert (await store.search(name, seventh))[0].document_id == "d7"
    await store.write(name, [document("d7", 1, [], [0])])
    assert (await store.search(name, seventh))[0].document_id != "d7"
    assert point_id(name, "d7", 0) not in await store.neighbours(name, vector(*values[7]), 5, exact=True)
    await store.resume_indexing(name, previous_threshold)
    assert previous_threshold is None or await store.suspend_indexing(name) == previous_threshold


async def test_a_wrong_insertion_is_refused(store: VectorStore, name: str) -> None:
    for wrong in (document("a", 0, [(1, 0, 0)]), document("a", 0, [(1, 0, 0, float("nan"))])):
        with pytest.raises(Refused):
            await store.insert(name, [wrong])
    with pytest.raises(Refused):
        await store.insert(name, [document("a", 0, metadata={"f": float("inf")})])
    assert await store.stored(name, ["a"]) == {}


@pytest.mark.parametrize("how", ["write", "insert"])
async def test_every_point_carries_the_checksums_of_what_it_is(store: VectorStore, name: str, how: str) -> None:
    content: dict[str, Scalar] = {"f": 1.0, "i": -(2**62), "n": None, "s": "ü", "b": True}
    await (store.write if how == "write" else store.insert)(
        name, [document("a", 0, [(3, 4, 0, 0), (1e-3, 0, 0, 2)], metadata=content), document("b", 0, tenant="t")]
    )
    stored = await store.stored(name, ["a", "b"], content=True)
    points = [(one, point) for one, chunks in stored.items() for point in chunks]
    assert len(points) == 3
    for one, point in points:
        assert point.checksum == payload_checksum({**structs.asdict(point), "document_id": one})
        assert point.vector is not None
        assert point.vector_checksum == pytest.approx(vector_checksums([point.vector])[0], abs=VECTOR_CHECKSUM_ERROR)


async def test_an_older_or_equal_version_changes_nothing(store: VectorStore, name: str) -> None:
    await store.write(name, [document("a", 5, [(1, 0, 0, 0)])])
    before = await store.stored(name, ["a"], content=True)
    await store.write(name, [document("a", 4, [(0, 1, 0, 0)]), document("a", 5, [(0, 1, 0, 0)])])
    assert await store.stored(name, ["a"], content=True) == before
    await store.write(name, [document("a", 6, [(0, 1, 0, 0)])])
    assert (await store.stored(name, ["a"]))["a"][0].version == 6


async def test_versions_next_to_the_highest_are_told_apart(store: VectorStore, name: str) -> None:
    top = version_of(LAST_EPOCH, 2**EPOCH_SHIFT - 1)
    await store.write(name, [document("a", top - 1, [(1, 0, 0, 0)])])
    await store.write(name, [document("a", top, [(0, 1, 0, 0)])])
    await store.write(name, [document("a", top - 1, [(0, 0, 1, 0)])])
    (chunk,) = (await store.stored(name, ["a"], content=True))["a"]
    assert (chunk.version, chunk.text) == (top, f"a v{top} #0")


async def test_all_points_of_a_document_move_to_the_new_version_together(store: VectorStore, name: str) -> None:
    await store.write(name, [document("a", 1, [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0)])])
    stored = (await store.stored(name, ["a"]))["a"]
    await store.write(name, [document("a", 2, [(0, 0, 0, 1)], tombstones_for(1, stored))])
    after = (await store.stored(name, ["a"], content=True))["a"]
    assert [(chunk.chunk, chunk.version, chunk.deleted) for chunk in after] == [
        (0, 2, False),
        (1, 2, True),
        (2, 2, True),
    ]
    assert [chunk.vector is None for chunk in after] == [False, True, True]
    assert [chunk.text for chunk in after] == ["a v2 #0", "", ""]
    assert await store.count(name) == 1
    assert [hit.chunk for hit in await store.search(name, question(0, 1, 0, 0))] == [0]


async def test_a_deleted_document_is_not_found_and_blocks_a_late_insert(store: VectorStore, name: str) -> None:
    await store.write(name, [document("a", 3, [], [0])])
    await store.write(name, [document("a", 2, [(1, 0, 0, 0)])])
    assert await store.search(name, question(1, 0, 0, 0)) == []
    assert [chunk.deleted for chunk in (await store.stored(name, ["a"]))["a"]] == [True]
    assert await store.count(name) == 0
    await store.write(name, [document("a", 4, [(1, 0, 0, 0)])])
    assert [hit.version for hit in await store.search(name, question(1, 0, 0, 0))] == [4]


async def test_a_late_deletion_takes_nothing_from_what_was_written_after_it(store: VectorStore, name: str) -> None:
    await store.write(name, [document("a", 1, [(1, 0, 0, 0), (0, 1, 0, 0)])])
    await store.write(name, [document("a", 3, [(0, 0, 1, 0), (0, 0, 0, 1)])])
    before = await store.stored(name, ["a"], content=True)
    await store.write(name, [document("a", 2, [], [0, 1])])
    assert await store.stored(name, ["a"], content=True) == before
    assert [hit.chunk for hit in await store.search(name, question(0, 0, 0, 1))] == [1]


async def test_one_hit_a_document_even_when_one_has_very_many_near_chunks(store: VectorStore, name: str) -> None:
    crowd = document("crowd", 1, [(1, i / 1000, 0, 0) for i in range(120)])
    others = [document(f"d{i}", 1, [(1, 1 + i, 0, 0)]) for i in range(4)]
    await store.write(name, [crowd, *others])
    hits = await store.search(name, question(1, 0, 0, 0, limit=5))
    assert [hit.document_id for hit in hits] == ["crowd", "d0", "d1", "d2", "d3"]
    assert hits[0].chunk == 0
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


async def test_equal_scores_are_ordered_by_document_id(store: VectorStore, name: str) -> None:
    await store.write(name, [document(x, 1) for x in ("c", "a", "b")])
    assert [hit.document_id for hit in await store.search(name, question(1, 0, 0, 0))] == ["a", "b", "c"]


async def test_a_tenant_never_sees_another_tenants_documents(store: VectorStore, name: str) -> None:
    await store.write(name, [document("a", 1, tenant="one"), document("b", 1, tenant="two")])
    assert [hit.document_id for hit in await store.search(name, question(1, 0, 0, 0, tenant="one"))] == ["a"]
    assert await store.search(name, question(1, 0, 0, 0)) == []
    assert await store.count(name) == 2


@pytest.mark.parametrize("bad", [b"", vector(1, 2), vector(1, 2, 3, 4, 5), vector(1, float("nan"), 0, 0)])
async def test_an_unusable_vector_is_refused_before_anything_is_written(
    store: VectorStore, name: str, bad: bytes
) -> None:
    wrong = structs.replace(document("b", 1), chunks=(PointChunk("text", bad, 0.0),))
    with pytest.raises(Refused):
        await store.write(name, [document("a", 1), wrong])
    assert await store.stored(name, ["a", "b"]) == {}
    ask = question(1, 0, 0, 0)
    object.__setattr__(ask, "vector", bad)
    with pytest.raises(Refused):
        await store.search(name, ask)


async def test_preparing_twice_is_preparing_once(store: VectorStore, name: str) -> None:
    await store.write(name, [document("a", 1)])
    await store.prepare(name, DIMENSION)
    assert await store.count(name) == 1
    with pytest.raises(Misconfigured, match=f"{DIMENSION} floats, not 5"):
        await store.prepare(name, 5)


async def test_a_collection_that_is_not_there_is_missing_and_no_content_is_refused(
    store: VectorStore,
) -> None:
    with pytest.raises(CollectionMissing):
        await store.stored("absent", ["a"])
    with pytest.raises(CollectionMissing):
        await store.write("absent", [document("a", 1)])
    with pytest.raises(CollectionMissing):
        await store.search("absent", question(1, 0, 0, 0))
    with pytest.raises(CollectionMissing):
        await store.count("absent")
    with pytest.raises(CollectionMissing):
        await store.scan_ids("absent", None, 10)
    with pytest.raises(CollectionMissing):
        await store.points("absent", packed_id(point_id("absent", "a", 0)))


async def test_a_scan_of_ids_passes_every_id_once_and_points_are_read_by_them(store: VectorStore, name: str) -> None:
    documents = [document(f"d{i}", i + 1, [(1, i, 0, 0)] * (i % 3), [i % 3]) for i in range(20)]
    await store.write(name, documents)
    expected = [(d.id, n, d.version, n >= len(d.chunks)) for d in documents for n in range(len(d.chunks) + 1)]
    ids = sorted(packed_id(point_id(name, document_id, chunk)) for document_id, chunk, _, _ in expected)
    for size in (1, 7, 1000):
        seen: list[bytes] = []
        after: str | None = None
        while True:
            page = await store.scan_ids(name, after, size)
            assert len(page.ids) <= 16 * size
            seen.append(page.ids)
            after = page.next
            if after is None:
                break
        assert b"".join(seen) == b"".join(ids)
    absent = packed_id(point_id(name, "absent", 0)) + packed_id("17")
    found = await store.points(name, b"".join(ids) + absent)
    points = [(key, c.chunk, c.version, c.deleted) for key, chunks in found.items() for c in chunks]
    assert sorted(points) == sorted(expected)
    assert await store.points(name, b"") == {}


async def test_a_scan_of_ids_has_more_pages_than_the_engine_reads_at_a_time(store: VectorStore, name: str) -> None:
    await store.write(name, [document("long", 1, [(1, i, 0, 0) for i in range(2100)])])
    first = await store.scan_ids(name, None, 2050)
    assert len(first.ids) == 16 * 2050
    rest = await store.scan_ids(name, first.next, 2050)
    assert rest.next is None
    ids = sorted(packed_id(point_id(name, "long", chunk)) for chunk in range(2100))
    assert first.ids + rest.ids == b"".join(ids)


async def test_stored_reads_more_documents_and_chunks_than_a_page_holds(store: VectorStore, name: str) -> None:
    long = document("long", 1, [(1, i, 0, 0) for i in range(1100)])
    await store.write(name, [long, *(document(f"d{i}", 1) for i in range(300))])
    stored = await store.stored(name, ["long", *(f"d{i}" for i in range(300)), "long"])
    assert [chunk.chunk for chunk in stored["long"]] == list(range(1100))
    assert list(stored)[:3] == ["long", "d0", "d1"]
    assert len(stored) == 301


async def test_nothing_asked_is_nothing_done(store: VectorStore, name: str) -> None:
    assert await store.stored(name, []) == {}
    await store.write(name, [])
    await store.write(name, [document("a", 1, [])])
    assert await store.count(name) == 0
    assert (await store.scan_ids(name, None, 5)).next is None


async def test_versions_that_cannot_be_and_points_out_of_place_are_forgotten(store: VectorStore, name: str) -> None:
    await store.write(name, [document("a", 5, [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0)]), document("b", 9, [], [0])])
    await store.write(name, [document("a", 2**50, [(1, 0, 0, 0), (0, 1, 0, 0)])])
    first, second = (packed_id(point_id(name, "a", number)) for number in (0, 1))
    b = packed_id(point_id(name, "b", 0))
    # The third point of a is not among the given ids, so it counts as a point that a's writes would not reach.
    await store.forget(name, "a", first + second, 8)
    await store.forget(name, "b", b, 9)
    assert [(p.chunk, p.version) for p in (await store.stored(name, ["a"])).get("a", [])] == []
    assert [(p.version, p.deleted) for p in (await store.stored(name, ["b"]))["b"]] == [(9, True)]
    await store.write(name, [document("a", 8, [(0, 1, 0, 0)])])
    assert [(p.chunk, p.version) for p in (await store.stored(name, ["a"]))["a"]] == [(0, 8)]
    await store.forget(name, "b", b, 8)
    assert await store.stored(name, ["b"]) == {}
