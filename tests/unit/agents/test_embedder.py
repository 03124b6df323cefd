"""The embedder computes only unknown vectors: of a changed document, only the chunks whose text changed."""

from __future__ import annotations

import struct
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from agents.batch import Batch, Failure
from agents.embedder import embed
from agents.vector_writer import write_vectors
from connectors.embedding.memory import HashingEmbedder
from connectors.errors import EmbeddingFailed, EmbeddingUnavailable
from domain.points import given_by
from schemas.content import Content, content_hash
from schemas.documents import DocumentEmbedded
from schemas.records import Outgoing
from schemas.settings import EmbeddingColumn
from tests.unit.agents.parts import NAME, NOW, Crash, World, content
from topics.catalogue import EMBEDDED, RESOLVED

GIVEN = struct.pack("<8f", *range(1, 9))


async def vector(text: str) -> bytes:
    return (await HashingEmbedder(dimension=8).embed_documents([text]))[0]


def reported(world: World) -> list[tuple[str, int, list[str]]]:
    return [(e.id, e.version, [c.text for c in e.chunks]) for e in world.bus.events(EMBEDDED, DocumentEmbedded)]


async def through(world: World, batch: Batch) -> list[Failure]:
    """Embed a batch and write the resulting events. Return the failures of both steps."""
    before = len(world.bus.messages(EMBEDDED))
    failures = await embed(batch, **world.handled)
    failures += await write_vectors(world.bus.messages(EMBEDDED)[before:], **world.handled)
    return failures


async def test_a_document_travels_with_all_its_chunks_and_their_vectors() -> None:
    world = await World().prepared()
    given = content("one two three four", year=2001)
    message = world.resolved("1", 5, content=given, content_hash=content_hash(given))
    assert await embed([message], **world.handled) == []
    (event,) = world.bus.events(EMBEDDED, DocumentEmbedded)
    assert (event.collection, event.id, event.version, event.origin, event.deleted) == (NAME, "1", 5, "producer", False)
    assert (event.content_hash, event.metadata, event.tenant) == (content_hash(given), {"year": 2001}, "default")
    assert (event.model, event.cause, event.occurred_at_ms) == (world.embedder.model_key, "cause-5", NOW - 50)
    assert [(chunk.text, chunk.vector) for chunk in event.chunks] == [
        ("one two three", await vector("one two three")),
        ("four", await vector("four")),
    ]
    (record,) = world.bus.inner.records(EMBEDDED)
    assert (record.key, record.header("ce_id")) == (b"docs/1", "docs/1@5/embedded")


async def test_of_a_changed_document_only_the_chunks_whose_text_changed_are_embedded_again() -> None:
    world = await World().prepared()
    await through(world, [world.resolved("1", 5, "a a a b b b c c c")])
    assert world.embedder.texts == ["a a a", "b b b", "c c c"]
    world.embedder.calls.clear()
    await through(world, [world.resolved("1", 6, "a a a X X X c c c d d d")])
    assert world.embedder.texts == ["X X X", "d d d"]
    assert reported(world)[-1] == ("1", 6, ["a a a", "X X X", "c c c", "d d d"])
    assert await world.points("1") == [(0, 6, "a a a"), (1, 6, "X X X"), (2, 6, "c c c"), (3, 6, "d d d")]
    _, changed = world.bus.events(EMBEDDED, DocumentEmbedded)
    assert [chunk.vector for chunk in changed.chunks] == [await vector(chunk.text) for chunk in changed.chunks]


async def test_nothing_is_embedded_where_only_metadata_changed_or_chunks_moved() -> None:
    world = await World().prepared()
    await through(world, [world.resolved("1", 5, "a a a b b b")])
    world.embedder.calls.clear()
    await through(world, [world.resolved("1", 6, content=content("a a a b b b", year=7))])
    await through(world, [world.resolved("1", 7, "b b b a a a")])
    assert world.embedder.calls == []
    assert await world.points("1") == [(0, 7, "b b b"), (1, 7, "a a a")]


async def test_a_text_that_was_deleted_is_embedded_again_when_it_comes_back() -> None:
    world = await World().prepared()
    await through(world, [world.resolved("1", 5, "a")])
    await through(world, [world.resolved("1", 6, None)])
    await through(world, [world.resolved("1", 7, "a")])
    assert world.embedder.calls == [["a"], ["a"]]


async def test_vectors_of_another_model_are_computed_again() -> None:
    world = await World().prepared()
    old = world.embedder.model_key
    world.embedder.identity = type(world.embedder.identity)("before", "1", 8)
    await through(world, [world.resolved("1", 5, "a")])
    world.embedder.identity = type(world.embedder.identity)("hashing", "1", 8)
    assert world.embedder.model_key == old
    await embed([world.resolved("1", 6, "a")], **world.handled)
    assert world.embedder.calls == [["a"], ["a"]]


async def test_the_texts_of_a_batch_are_embedded_in_one_call_the_newest_of_each_document_only() -> None:
    world = await World().prepared()
    batch = [world.resolved("1", 5, "old"), world.resolved("2", 6, "b"), world.resolved("1", 7, "new")]
    await embed(batch, **world.handled)
    assert [sorted(call) for call in world.embedder.calls] == [["b", "new"]]
    assert sorted(reported(world)) == [("1", 7, ["new"]), ("2", 6, ["b"])]
    assert world.outcomes() == [("1", 5, "superseded")]


async def test_an_older_version_behind_the_newest_in_a_batch_does_not_win() -> None:
    world = await World().prepared()
    await embed([world.resolved("1", 7, "new"), world.resolved("1", 5, "old")], **world.handled)
    assert [event.version for event in world.bus.events(EMBEDDED, DocumentEmbedded)] == [7]
    assert world.outcomes() == [("1", 5, "superseded")]


async def test_an_embedding_that_came_with_the_document_is_kept_with_the_whole_text_and_nothing_computed() -> None:
    world = await World().prepared()
    text = "longer than one chunk"
    given = content(text).model_copy(update={"embedding": GIVEN})
    await embed([world.resolved("1", 5, content=given), world.resolved("2", 6, "b")], **world.handled)
    assert world.embedder.calls == [["b"]]
    kept = next(event for event in world.bus.events(EMBEDDED, DocumentEmbedded) if event.id == "1")
    assert [(chunk.text, chunk.vector) for chunk in kept.chunks] == [(text, GIVEN)]
    assert kept.model == given_by(world.embedder.model_key)


@pytest.mark.parametrize(("column", "computed"), [(True, [["same"]]), (False, [])])
async def test_a_given_vector_is_taken_over_for_the_same_text_only_where_the_table_has_no_column_for_it(
    column: bool, computed: list[list[str]]
) -> None:
    world = await World().prepared()
    if column:
        own = EmbeddingColumn(column="embedding", format="float32")
        world.ports = replace(world.ports, settings=world.ports.settings.model_copy(update={"embedding": own}))
    given = content("same").model_copy(update={"embedding": GIVEN})
    await through(world, [world.resolved("1", 5, content=given)])
    await through(world, [world.resolved("1", 6, "same")])
    assert world.embedder.calls == computed


async def test_an_embedding_of_another_length_is_not_used_and_the_text_is_cut_as_any_other() -> None:
    world = await World().prepared()
    given = content("one two three four").model_copy(update={"embedding": GIVEN[:-4]})
    await embed([world.resolved("1", 5, content=given)], **world.handled)
    assert world.embedder.calls == [["one two three", "four"]]


async def test_a_deletion_passes_without_any_embedding() -> None:
    world = await World().prepared()
    await world.store("1", 4, "a")
    assert await embed([world.resolved("1", 5, None)], **world.handled) == []
    (event,) = world.bus.events(EMBEDDED, DocumentEmbedded)
    assert (event.deleted, event.chunks, event.content_hash) == (True, (), None)
    assert world.embedder.calls == []
    assert "vectors.stored" not in world.steps()


async def test_a_document_without_text_has_one_chunk() -> None:
    world = await World().prepared()
    await embed([world.resolved("1", 5, "")], **world.handled)
    assert reported(world) == [("1", 5, [""])]


async def test_a_text_without_a_usable_vector_fails_alone() -> None:
    world = await World().prepared()
    bad = world.resolved("2", 6, "one two three poison")
    (failure,) = await embed([world.resolved("1", 5, "a"), bad, world.resolved("3", 7, "c")], **world.handled)
    assert failure.message is bad
    assert isinstance(failure.error, EmbeddingFailed)
    assert reported(world) == [("1", 5, ["a"]), ("3", 7, ["c"])]
    for event in world.bus.events(EMBEDDED, DocumentEmbedded):
        assert [chunk.vector for chunk in event.chunks] == [await vector(chunk.text) for chunk in event.chunks]


async def test_an_engine_out_of_time_is_left_to_the_runner_with_nothing_published() -> None:
    world = await World().prepared()
    await world.embedder.close()
    with pytest.raises(EmbeddingUnavailable):
        await embed([world.resolved("1", 5, "a"), world.resolved("2", 6, None)], **world.handled)
    assert reported(world) == []


async def test_nothing_is_embedded_where_the_phase_does_not_write_to_qdrant() -> None:
    world = World(phase="off")
    batch = [world.resolved("1", 5, "a"), world.resolved("1", 6, None)]
    assert await embed(batch, **world.handled) == []
    assert world.outcomes() == [("1", 5, "not_written"), ("1", 6, "not_written")]
    assert (reported(world), world.embedder.calls) == ([], [])


@pytest.mark.parametrize("after", [False, True])
async def test_a_crash_at_publishing_and_a_second_delivery_end_in_the_same_points(after: bool) -> None:
    world = await World().prepared()
    batch = [world.resolved("1", 5, "a b c d"), world.resolved("2", 6, None)]
    world.journal.fail(f"publish {EMBEDDED}", Crash(), after=after)
    with pytest.raises(Crash):
        await embed(batch, **world.handled)
    await embed(batch, **world.handled)
    await write_vectors(world.bus.messages(EMBEDDED), **world.handled)
    assert await world.points("1") == [(0, 5, "a b c"), (1, 5, "d")]
    assert await world.points("2") == [(0, 6, None)]


@pytest.mark.parametrize("fields", [{"collection": "unknown"}, None])
async def test_what_cannot_be_read_fails_alone(fields: dict[str, Any] | None) -> None:
    world = await World().prepared()
    bad = world.bus.add(Outgoing(RESOLVED, b"docs/9", b"{")) if fields is None else world.resolved("9", 4, **fields)
    (failure,) = await embed([bad, world.resolved("1", 5, "a")], **world.handled)
    assert failure.message is bad
    assert reported(world) == [("1", 5, ["a"])]


async def test_progress_counts_within_a_document_that_is_longer_than_a_slice() -> None:
    """Of 400 chunks, at most one slice is computed between two calls of `progress`."""
    world = await World().prepared()
    world.ctx = replace(world.ctx, max_text_bytes=1 << 20)
    seen: list[int] = []
    text = " ".join(f"w{number}" for number in range(1200))
    message = world.resolved("1", 5, text)
    assert await embed([message], **world.handled, progress=lambda: seen.append(len(world.embedder.texts))) == []
    steps = [after - before for before, after in pairwise([0, *seen])]
    assert max(steps) <= 128
    assert len(world.embedder.texts) == 400
    assert len(reported(world)[0][2]) == 400


@pytest.mark.parametrize(
    ("refused", "why"),
    [
        (content("b " * 60), "text too long: 120 bytes, kafka.max_text_bytes is 100"),
        (content("b").model_copy(update={"tenant": "t" * 129}), "tenant too long: 129 characters, the limit is 128"),
    ],
    ids=["text", "tenant"],
)
async def test_what_qdrant_has_no_place_for_leaves_it_and_is_a_failure_that_says_so(refused: Content, why: str) -> None:
    world = await World().prepared()
    await through(world, [world.resolved("1", 5, "a a a")])
    failures = await through(world, [world.resolved("1", 6, content=refused), world.resolved("2", 7, "c")])
    assert [str(failure.error) for failure in failures] == [f"{why}: the document is not in Qdrant"]
    assert await world.points("1") == [(0, 6, None)]
    assert await world.points("2") == [(0, 7, "c")]
    longest = content("a a a").model_copy(update={"tenant": "t" * 128})
    assert await through(world, [world.resolved("1", 8, content=longest)]) == []
    assert await world.points("1") == [(0, 8, "a a a")]


async def test_a_text_over_the_limit_that_is_overtaken_is_no_failure() -> None:
    world = await World().prepared()
    assert await through(world, [world.resolved("1", 6, "b " * 60), world.resolved("1", 7, "c")]) == []
    assert await world.points("1") == [(0, 7, "c")]
