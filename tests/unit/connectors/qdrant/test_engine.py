"""The embedded engine's files survive a close and an optimisation, and are open in one process at a time."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from connectors.errors import CollectionMissing, Misconfigured, StoreUnavailable
from connectors.qdrant.engine import optimiser as optimise
from connectors.qdrant.engine import store as embedded
from connectors.qdrant.engine.files import copy_folder
from connectors.qdrant.engine.store import EmbeddedVectorStore
from schemas.values import Kind
from tests.contract.vector_stores import DIMENSION, document, question

Store = EmbeddedVectorStore


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = EmbeddedVectorStore(tmp_path, optimise=False)
    await opened.start()
    await opened.prepare("c", DIMENSION)
    yield opened
    await opened.close()


def generations(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "qdrant" / "c").iterdir())


async def reopened(store: Store, home: Path) -> Store:
    await store.close()
    again = EmbeddedVectorStore(home, optimise=False)
    await again.start()
    return again


async def test_everything_is_there_after_closing_and_opening(store: Store, tmp_path: Path) -> None:
    await store.write("c", [document(f"d{i}", i + 1, [(1, i, 0, 0)], [1]) for i in range(50)])
    before = await store.stored("c", [f"d{i}" for i in range(50)], content=True)
    again = await reopened(store, tmp_path)
    assert await again.stored("c", [f"d{i}" for i in range(50)], content=True) == before
    with pytest.raises(Misconfigured, match="4 floats, not 8"):
        await again.prepare("c", 8)
    await again.close()


async def test_a_second_owner_is_told_who_has_the_files(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=f"process {os.getpid()}"):
        await EmbeddedVectorStore(tmp_path).start()
    await store.write("c", [document("a", 1)])  # the first owner is not disturbed
    assert await store.count("c") == 1


async def test_a_closed_store_is_unavailable_and_closes_twice(store: Store) -> None:
    await store.close()
    await store.close()
    with pytest.raises(StoreUnavailable):
        await store.count("c")


async def test_a_creation_that_did_not_end_is_made_again(store: Store, tmp_path: Path) -> None:
    await store.prepare("half", DIMENSION)
    again = await reopened(store, tmp_path)
    (tmp_path / "qdrant" / "half" / "collection.json").unlink()
    with pytest.raises(CollectionMissing):
        await again.count("half")
    await again.prepare("half", DIMENSION)
    assert await again.count("half") == 0
    await again.close()


async def test_a_damaged_description_says_which_file(store: Store, tmp_path: Path) -> None:
    again = await reopened(store, tmp_path)
    (tmp_path / "qdrant" / "c" / "collection.json").write_bytes(b"{")
    with pytest.raises(Misconfigured, match=r"collection\.json is damaged"):
        await again.count("c")
    await again.close()


def paused_after_the_copy(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], Awaitable[None]]) -> None:
    build = optimise.Optimisation._build

    async def build_after(self: optimise.Optimisation) -> bool:
        await meanwhile()
        return await build(self)

    monkeypatch.setattr(optimise.Optimisation, "_build", build_after)


@pytest.mark.parametrize("written", [5, 700])
async def test_an_optimised_collection_has_what_was_written_meanwhile(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    await store.write("c", [document(f"d{i}", 1, [(1, i, 0, 0), (0, 1, i, 0)]) for i in range(800)])

    async def meanwhile() -> None:
        await store.write("c", [document(f"d{i}", 2, [(1, 0, i, 0)], [1]) for i in range(written)])
        await store.write("c", [document("new", 1), document("d799", 3, [], [0, 1])])

    paused_after_the_copy(monkeypatch, meanwhile)
    assert await store.optimise("c")
    names = [*(f"d{i}" for i in range(800)), "new"]
    after = await store.stored("c", names, content=True)
    assert {name: {chunk.version for chunk in chunks} for name, chunks in after.items()} == {
        **{f"d{i}": {2} if i < written else {1} for i in range(799)},
        "d799": {3},
        "new": {1},
    }
    assert all(chunk.deleted == (chunk.vector is None) for chunks in after.values() for chunk in chunks)
    assert await store.count("c") == 2 * 799 - written + 1
    assert generations(tmp_path) == ["collection.json", "g2", "journal"]
    await store.write("c", [document("new", 2, [(0, 0, 0, 1)])])
    again = await reopened(store, tmp_path)
    assert [(hit.document_id, hit.version) for hit in await again.search("c", question(0, 0, 0, 1, limit=1))] == [
        ("new", 2)
    ]
    await again.close()


INDEXES = {"metadata.year": "Integer", "metadata.title": "Keyword", "metadata.price": "Float", "metadata.open": "Bool"}


def indexes(store: Store) -> dict[str, str]:
    schema = store._shards["c"]._engine.info().payload_schema
    return {path: str(one.data_type).rpartition(".")[2] for path, one in schema.items() if path.startswith("metadata")}


async def test_metadata_columns_are_indexed_by_their_kinds_and_stay_so(store: Store, tmp_path: Path) -> None:
    await store.write("c", [document("a", 1, metadata={"year": 2024})])
    assert indexes(store) == {}
    columns = {"year": Kind.INTEGER, "title": Kind.TEXT, "price": Kind.FLOAT, "open": Kind.BOOLEAN, "facts": Kind.JSON}
    await store.prepare("c", DIMENSION, columns)
    assert indexes(store) == INDEXES
    again = await reopened(store, tmp_path)
    assert await again.count("c") == 1
    assert indexes(again) == INDEXES
    await again.close()


async def test_a_column_indexed_during_an_optimisation_is_indexed_after_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.prepare("c", DIMENSION, {"year": Kind.TEXT})
    await store.write("c", [document(f"d{i}", 1, metadata={"year": i}) for i in range(20)])

    async def meanwhile() -> None:
        await store.prepare("c", DIMENSION, {"year": Kind.INTEGER, "title": Kind.TEXT})

    paused_after_the_copy(monkeypatch, meanwhile)
    assert await store.optimise("c")
    assert indexes(store) == {"metadata.year": "Integer", "metadata.title": "Keyword"}


async def test_questions_are_answered_at_every_moment_of_an_optimisation(store: Store) -> None:
    await store.write("c", [document(f"d{i}", 1, [(1, i, 0, 0)]) for i in range(300)])
    running = asyncio.create_task(store.optimise("c"))
    asked = 0
    while not running.done():
        assert (await store.search("c", question(1, 0, 0, 0, limit=1)))[0].document_id == "d0"
        await store.write("c", [document("w", asked + 1, [(0, 0, 0, 1)])])
        asked += 1
        await asyncio.sleep(0)
    assert await running
    assert asked > 10
    assert (await store.stored("c", ["w"]))["w"][0].version == asked


async def test_a_deletion_leaves_no_vector_of_a_point_that_was_indexed(store: Store) -> None:
    points, width = 1500, 2048  # 12 MB of vectors: a segment is indexed from 10 MB on
    values = np.random.default_rng(5).standard_normal((points, width)).astype("<f4").tolist()
    await store.prepare("wide", width)
    await store.insert("wide", [document(f"d{n}", 0, [each]) for n, each in enumerate(values)])
    await store.resume_indexing("wide", None)
    assert store._of("wide").unindexed() == 0
    asked = question(*values[7], limit=1)
    assert (await store.search("wide", asked))[0].document_id == "d7"
    await store.write("wide", [document("d7", 1, [], [0])])
    assert (await store.search("wide", asked))[0].document_id != "d7"
    assert await store.count("wide") == points - 1


async def test_an_optimisation_that_fails_leaves_everything_as_it_was(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.write("c", [document("a", 1)])
    false = shutil.which("false")
    assert false is not None
    monkeypatch.setattr(sys, "executable", false)
    assert not await store.optimise("c")
    assert generations(tmp_path) == ["collection.json", "g1", "journal"]
    await store.write("c", [document("a", 2)])
    assert await store.count("c") == 1


async def test_a_generation_left_by_a_crash_is_removed_and_the_old_one_counts(store: Store, tmp_path: Path) -> None:
    await store.write("c", [document("a", 1)])
    await store.close()
    folder = tmp_path / "qdrant" / "c"
    copy_folder(folder / "g1", folder / "g2")
    again = EmbeddedVectorStore(tmp_path)
    await again.start()
    assert await again.count("c") == 1
    assert generations(tmp_path) == ["collection.json", "g1", "journal"]
    await again.close()


async def test_upkeep_flushes_and_optimises_when_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "FLUSH_INTERVAL_S", 0.01)
    monkeypatch.setattr(embedded, "OPTIMISE_POINTS", 100)
    store = EmbeddedVectorStore(tmp_path)
    await store.start()
    await store.prepare("c", DIMENSION)
    await store.write("c", [document(f"d{i}", 1) for i in range(99)])
    await asyncio.sleep(0.1)
    assert store._shards["c"].unflushed == 0
    assert generations(tmp_path) == ["collection.json", "g1", "journal"]
    await store.write("c", [document("last", 1)])
    while store._shards["c"].description.generation == 1:  # noqa: ASYNC110 -- the store has no event for it
        await asyncio.sleep(0.01)
    assert await store.count("c") == 100
    await store.close()


def test_a_copy_keeps_content_and_holes(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "inner").mkdir(parents=True)
    with (source / "inner" / "sparse").open("wb") as file:
        file.seek(8 << 20)
        file.write(b"data")
        file.truncate(64 << 20)
    (source / "empty").touch()
    (source / "full").write_bytes(os.urandom(100_000))
    copy_folder(source, tmp_path / "target")
    for name in ("inner/sparse", "empty", "full"):
        assert (tmp_path / "target" / name).read_bytes() == (source / name).read_bytes()
    assert (tmp_path / "target" / "inner" / "sparse").stat().st_blocks * 512 < 1 << 20


async def test_files_that_are_deleted_under_the_open_engine_are_missing_and_can_be_made_again(
    store: Store, tmp_path: Path
) -> None:
    await store.prepare("gone", DIMENSION)
    await store.write("gone", [document("a", 1)])
    shutil.rmtree(tmp_path / "qdrant" / "gone")
    with pytest.raises(CollectionMissing):
        await store.write("gone", [document("b", 1)])
    await store.flush()
    await store.prepare("gone", DIMENSION)
    await store.write("gone", [document("b", 1)])
    assert await store.count("gone") == 1


async def test_older_files_that_are_put_in_place_under_the_open_engine_are_what_is_read(
    store: Store, tmp_path: Path
) -> None:
    folder, backup = tmp_path / "qdrant" / "old", tmp_path / "backup"
    await store.prepare("old", DIMENSION)
    await store.write("old", [document("a", 1)])
    await store.flush()
    shutil.copytree(folder, backup)
    await store.write("old", [document("a", 2), document("b", 2)])
    await store.flush()
    shutil.rmtree(folder)
    shutil.copytree(backup, folder)
    assert {i: [p.version for p in points] for i, points in (await store.stored("old", ["a", "b"])).items()} == {
        "a": [1]
    }
