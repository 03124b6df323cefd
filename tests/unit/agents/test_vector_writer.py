"""The vector writer only raises versions, gives all points of a document one version, and publishes each outcome."""

from __future__ import annotations

from typing import Any

import pytest

from agents.vector_writer import write_vectors
from connectors.errors import StoreUnavailable
from domain.ledger import LedgerRow
from schemas.cloudevents import InvalidEvent
from schemas.documents import EmbeddedChunk
from schemas.records import Outgoing
from tests.unit.agents.parts import Crash, World
from topics.catalogue import EMBEDDED, WRITTEN

STORED, WRITE, MARK, REPORT = "vectors.stored", "vectors.write", "ledger.vectors_written", f"publish {WRITTEN}"


async def test_a_document_is_written_whole_marked_in_the_ledger_and_reported() -> None:
    world = await World().prepared()
    batch = [await world.embedded("1", 5, "a", "b")]
    assert await write_vectors(batch, **world.handled) == []
    assert await world.points("1") == [(0, 5, "a"), (1, 5, "b")]
    assert world.legacy.ledger_rows["1"] == LedgerRow(
        vector_version=5, content_hash="hash-5", chunk_count=2, embedding_model=world.embedder.model_key
    )
    assert world.outcomes() == [("1", 5, "applied")]
    assert world.steps() == [STORED, WRITE, MARK, REPORT]


async def test_chunks_that_are_gone_become_tombstones_of_the_new_version() -> None:
    world = await World().prepared()
    await world.store("1", 4, "a", "b", "c")
    await write_vectors([await world.embedded("1", 5, "a")], **world.handled)
    assert await world.points("1") == [(0, 5, "a"), (1, 5, None), (2, 5, None)]
    assert await world.vectors.count("docs") == 1


async def test_a_deletion_leaves_tombstones_also_of_a_document_that_was_never_stored() -> None:
    world = await World().prepared()
    await world.store("1", 4, "a", "b")
    await write_vectors([await world.embedded("1", 5), await world.embedded("2", 6)], **world.handled)
    assert await world.points("1") == [(0, 5, None), (1, 5, None)]
    assert await world.points("2") == [(0, 6, None)]
    assert world.outcomes() == [("1", 5, "applied"), ("2", 6, "applied")]


async def test_a_lower_version_changes_nothing_and_is_reported_as_superseded() -> None:
    world = await World().prepared()
    await world.store("1", 7, "newer")
    await write_vectors([await world.embedded("1", 6, "a", "b")], **world.handled)
    assert await world.points("1") == [(0, 7, "newer")]
    assert world.legacy.ledger_rows == {}
    assert world.outcomes() == [("1", 6, "superseded")]


async def test_a_late_insert_after_a_deletion_finds_its_guard() -> None:
    world = await World().prepared()
    await write_vectors([await world.embedded("1", 7)], **world.handled)
    await write_vectors([await world.embedded("1", 6, "late")], **world.handled)
    assert await world.points("1") == [(0, 7, None)]


async def test_the_newest_of_each_document_is_written_whatever_the_order_in_the_batch() -> None:
    world = await World().prepared()
    batch = [
        await world.embedded("1", 7, "new"),
        await world.embedded("2", 8, "other"),
        await world.embedded("1", 6, "old", "old too"),
    ]
    await write_vectors(batch, **world.handled)
    # A replaced worker may still write chunk 1 of the superseded version, so that chunk needs a guard, too.
    assert await world.points("1") == [(0, 7, "new"), (1, 7, None)]
    assert world.outcomes() == [("1", 7, "applied"), ("2", 8, "applied"), ("1", 6, "superseded")]


@pytest.mark.parametrize(
    ("step", "after"),
    [(STORED, True), (WRITE, False), (WRITE, True), (MARK, False), (MARK, True), (REPORT, False), (REPORT, True)],
)
async def test_a_crash_at_any_step_and_a_second_delivery_leave_points_ledger_and_outcome(
    step: str, after: bool
) -> None:
    world = await World().prepared()
    await world.store("2", 4, "a", "b")
    batch = [await world.embedded("1", 5, "a"), await world.embedded("2", 6)]
    world.journal.fail(step, Crash(), after=after)
    with pytest.raises(Crash):
        await write_vectors(batch, **world.handled)
    assert await write_vectors(batch, **world.handled) == []
    assert await world.points("1") == [(0, 5, "a")]
    assert await world.points("2") == [(0, 6, None), (1, 6, None)]
    assert {one: row.vector_version for one, row in world.legacy.ledger_rows.items()} == {"1": 5, "2": 6}
    # Points with exactly this version were applied, not superseded, whichever delivery reports it first.
    assert set(world.outcomes()) == {("1", 5, "applied"), ("2", 6, "applied")}


async def test_a_second_delivery_writes_no_point_again() -> None:
    world = await World().prepared()
    batch = [await world.embedded("1", 5, "a")]
    await write_vectors(batch, **world.handled)
    before = await world.vectors.stored("docs", ["1"], content=True)
    await write_vectors(batch, **world.handled)
    assert await world.vectors.stored("docs", ["1"], content=True) == before


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "other@1"}, "embedded by 'other@1', the collection's model is"),
        ({"chunks": (EmbeddedChunk(text="a", vector=b"\0" * 28),)}, "a vector is not of 8 32-bit floats"),
        ({"chunks": ()}, "without chunks that is not deleted"),
        ({"collection": "unknown"}, "unknown collection"),
    ],
    ids=["another model", "another dimension", "no chunks", "another collection"],
)
async def test_what_does_not_belong_into_the_collection_fails_alone(fields: dict[str, Any], message: str) -> None:
    world = await World().prepared()
    bad = await world.embedded("1", 5, "a", **fields)
    (failure,) = await write_vectors([bad, await world.embedded("2", 6, "b")], **world.handled)
    assert failure.message is bad
    assert isinstance(failure.error, InvalidEvent)
    assert message in str(failure.error)
    assert await world.points("1") == []
    assert world.outcomes() == [("2", 6, "applied")]


async def test_what_is_no_event_fails_alone() -> None:
    world = await World().prepared()
    bad = world.bus.add(Outgoing(EMBEDDED, b"docs/1", b"[]"))
    (failure,) = await write_vectors([bad, await world.embedded("2", 6, "b")], **world.handled)
    assert failure.message is bad


async def test_a_store_that_does_not_answer_is_left_to_the_runner() -> None:
    world = await World().prepared()
    world.journal.fail(WRITE, StoreUnavailable("down"))
    with pytest.raises(StoreUnavailable):
        await write_vectors([await world.embedded("1", 5, "a")], **world.handled)
    assert (world.legacy.ledger_rows, world.outcomes()) == ({}, [])
