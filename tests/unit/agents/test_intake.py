"""A producer's event gets a position in the log, or an error that says what is wrong with it. Neither is lost."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from agents.batch import Message
from agents.intake import intake, refused_submission
from schemas.cloudevents import InvalidEvent
from schemas.content import content_hash
from schemas.documents import DocumentChanged, DocumentSubmitted, DocumentWritten
from schemas.records import Outgoing
from tests.unit.agents.parts import EPOCH, NAME, NOW, TRACEPARENT, Crash, World, content
from topics.catalogue import LOG, SUBMITTED, WRITTEN


def submit(world: World, document_id: str = "1", **fields: Any) -> Message:
    event = DocumentSubmitted(**({"collection": NAME, "id": document_id, "text": "a text"} | fields))
    return world.put(SUBMITTED, event, f"{NAME}/{document_id}", trace=TRACEPARENT)


def raw(world: World, value: bytes | None, key: bytes | None = b"docs/1", **headers: str) -> Message:
    pairs = tuple((name.replace("_", "-"), text.encode()) for name, text in headers.items())
    return world.bus.add(Outgoing(SUBMITTED, key, value, pairs))


async def test_a_submission_becomes_an_entry_with_the_position_of_its_record() -> None:
    world = World()
    submit(world, "0")
    message = submit(world, "1", text="body", metadata={"year": "2001"})
    assert await intake([message], **world.handled) == []
    (entry,) = world.bus.events(LOG, DocumentChanged)
    kept = content("body", year=2001)
    assert entry == DocumentChanged(
        collection=NAME,
        id="1",
        origin="producer",
        content=kept,
        content_hash=content_hash(kept),
        position=(EPOCH, 0, 1),
        cause="e-docs/1",
        occurred_at_ms=NOW - 5,
    )
    (record,) = world.bus.inner.records(LOG)
    assert (record.key, record.header("traceparent")) == (b"docs/1", TRACEPARENT)
    assert record.header("ce_id") == f"{SUBMITTED}/0/1"


async def test_a_record_without_a_value_deletes_the_document_of_its_key() -> None:
    world = World()
    assert await intake([raw(world, None, b"docs/a/b")], **world.handled) == []
    (entry,) = world.bus.events(LOG, DocumentChanged)
    assert (entry.id, entry.deleted, entry.content, entry.position) == ("a/b", True, None, (EPOCH, 0, 0))
    assert entry.cause == f"{SUBMITTED}/0/0"


async def test_a_structured_cloudevent_is_read_as_a_binary_one() -> None:
    world = World()
    envelope = {
        "specversion": "1.0",
        "id": "e7",
        "source": "shop",
        "type": DocumentSubmitted.ce_type,
        "data": {"collection": NAME, "id": "1", "text": "body", "metadata": {"year": None}},
    }
    message = raw(world, orjson.dumps(envelope), content_type="application/cloudevents+json")
    assert await intake([message], **world.handled) == []
    (entry,) = world.bus.events(LOG, DocumentChanged)
    assert (entry.cause, entry.content) == ("e7", content("body"))


@pytest.mark.parametrize(
    ("value", "key", "message"),
    [
        (b"{", b"docs/1", "event: Invalid JSON"),
        (b'{"collection":"docs","id":"1","text":"a","surprise":1}', b"docs/1", "surprise"),
        (b'{"collection":"docs","metadata":' + b"[" * 1000 + b"]" * 1000 + b"}", b"docs/1", "recursion limit"),
        (b'{"collection":"other","id":"1","text":"a"}', b"other/1", "unknown collection 'other'"),
        (b'{"collection":"docs","id":"","text":"a"}', b"docs/", "id"),
        (b'{"collection":"docs","id":"a\\u0000b","text":"a"}', b"docs/a", "id: the id has a NUL character"),
        (b'{"collection":"docs","id":"1","text":{"title":"a"}}', b"docs/1", "text: no text column title"),
        (b'{"collection":"docs","id":"1","text":"' + b"a" * 101 + b'"}', b"docs/1", "the limit is 100"),
        (b'{"collection":"docs","id":"1","text":"a","metadata":{"year":"x"}}', b"docs/1", "metadata.year"),
        (b'{"collection":"docs","id":"1","text":"a","embedding":[1]}', b"docs/1", "the model's dimension is 8"),
        (None, None, "deletes the document of its key, but"),
        (None, b"docs", "deletes the document of its key, but"),
        (None, b"\xff/1", "deletes the document of its key, but"),
        (None, b"other/1", "unknown collection 'other'"),
        (None, b"docs/" + b"a" * 513, "longer than 512"),
    ],
)
async def test_what_a_store_would_refuse_for_sure_is_refused_here(
    value: bytes | None, key: bytes | None, message: str
) -> None:
    world = World()
    bad, good = raw(world, value, key), submit(world, "2")
    (failure,) = await intake([bad, good], **world.handled)
    assert failure.message is bad
    assert isinstance(failure.error, InvalidEvent)
    assert message in str(failure.error)
    assert [entry.id for entry in world.bus.events(LOG, DocumentChanged)] == ["2"]


@pytest.mark.parametrize("after", [False, True])
async def test_a_crash_at_publishing_and_a_second_delivery_append_the_same_entries(after: bool) -> None:
    """The entries have the same positions, so the fold recognises those of the second delivery as duplicates."""
    world = World()
    batch = [submit(world, "1"), submit(world, "2")]
    world.journal.fail(f"publish {LOG}", Crash(), after=after)
    with pytest.raises(Crash):
        await intake(batch, **world.handled)
    await intake(batch, **world.handled)
    entries = world.bus.events(LOG, DocumentChanged)
    assert entries[-2:] == entries[:2]
    assert [entry.position for entry in entries[-2:]] == [(EPOCH, 0, 0), (EPOCH, 0, 1)]


async def test_a_refused_producer_gets_an_answer_under_the_key_of_its_record() -> None:
    world = World()
    error = InvalidEvent("metadata.year: wrong")
    (reported,) = refused_submission(submit(world, "1"), error, world.ctx)
    await world.bus.publish([reported])
    (written,) = world.bus.events(WRITTEN, DocumentWritten)
    assert written == DocumentWritten(
        collection=NAME,
        id="1",
        store=None,
        version=None,
        outcome="dead_lettered",
        origin="producer",
        error="metadata.year: wrong",
        cause="e-docs/1",
        latency_ms=5,
    )
    assert (reported.key, dict(reported.headers)["ce_id"]) == (b"docs/1", f"{SUBMITTED}/0/0/refused".encode())


@pytest.mark.parametrize("key", [None, b"\xff"])
async def test_a_refusal_is_reported_even_of_a_record_that_names_no_document(key: bytes | None) -> None:
    world = World()
    message = raw(world, b"{", key, content_type="application/cloudevents+json")
    (reported,) = refused_submission(message, InvalidEvent("no"), world.ctx)
    await world.bus.publish([reported])
    (written,) = world.bus.events(WRITTEN, DocumentWritten)
    assert (written.collection, written.id, written.cause) == ("", "", f"{SUBMITTED}/0/0")
    assert reported.key
