"""What is published for a dead letter: the original record, or a new submission if its version is old."""

from __future__ import annotations

import struct

import pytest

from migration.dead_letters.replay import replay_of
from schemas.cloudevents import decode, encode
from schemas.content import Content
from schemas.dead_letters import DeadLetter, dead_letter, read_dead_letter
from schemas.documents import DocumentResolved, DocumentSubmitted, Origin
from schemas.records import Outgoing, Received
from schemas.settings import Collection, EmbeddingColumn
from topics.catalogue import RESOLVED, SUBMITTED

CONTENT = Content(
    tenant="t",
    text={"title": "a", "body": None},
    metadata={"n": 1},
    embedding=struct.pack("<2f", 0.5, -1.0),
    embedding_model="m@1",
)


def letter_of(sent: Outgoing) -> DeadLetter:
    record = Received(sent.topic, 2, 40, sent.key, sent.value, (*sent.headers, ("traceparent", b"00-x")))
    failed = dead_letter(record, stage="legacy", error=ValueError("no"), attempt=3)
    return read_dead_letter(Received(failed.topic, 0, 7, failed.key, failed.value, failed.headers))


def resolved(origin: Origin, *, deleted: bool = False) -> Outgoing:
    event = DocumentResolved(
        collection="docs",
        id="1",
        version=5,
        origin=origin,
        deleted=deleted,
        content=None if deleted else CONTENT,
    )
    return encode(event, topic=RESOLVED, key="docs/1", event_id="e", source="s", time_ms=0)


def test_a_record_is_replayed_as_it_was_without_its_trace() -> None:
    sent = Outgoing(SUBMITTED, b"docs/1", b"{broken", (("ce_id", b"1"), ("mine", b"\xff")))
    assert replay_of(letter_of(sent), 0) == sent


@pytest.mark.parametrize("origin", ["legacy", "refresh"])
def test_a_version_that_did_not_come_from_a_producer_is_replayed_as_it_was(origin: Origin) -> None:
    assert replay_of(letter_of(resolved(origin)), 0) == resolved(origin)


def test_a_producers_version_is_submitted_as_a_new_change_with_all_of_its_content() -> None:
    outgoing = replay_of(letter_of(resolved("producer")), 1000)
    assert (outgoing.topic, outgoing.key) == (SUBMITTED, b"docs/1")
    received = Received(outgoing.topic, 0, 0, outgoing.key, outgoing.value, outgoing.headers)
    event, attributes = decode(received, DocumentSubmitted)
    assert event == DocumentSubmitted(
        collection="docs",
        id="1",
        tenant="t",
        text={"title": "a", "body": None},
        metadata={"n": 1},
        embedding=[0.5, -1.0],
        embedding_model="m@1",
    )
    assert attributes.id == f"replay/{RESOLVED}-dlt/0/7"


def test_what_a_producers_version_left_out_is_left_out_again() -> None:
    event = DocumentResolved(
        collection="docs",
        id="1",
        version=5,
        origin="producer",
        content=Content(text={}, metadata={"n": 2}),
        omitted=("title", "owner", "vec"),
    )
    sent = encode(event, topic=RESOLVED, key="docs/1", event_id="e", source="s", time_ms=0)
    embedding = EmbeddingColumn(column="vec", format="float32")
    collection = Collection(
        connector="postgres", table="t", key=["id"], text=["title"], metadata=["n"], tenant="owner", embedding=embedding
    )
    outgoing = replay_of(letter_of(sent), 0, {"docs": collection})
    received = Received(outgoing.topic, 0, 0, outgoing.key, outgoing.value, outgoing.headers)
    submitted, _ = decode(received, DocumentSubmitted)
    assert submitted.model_fields_set == {"collection", "id", "text", "metadata"}


def test_a_producers_deletion_is_submitted_as_a_deletion() -> None:
    outgoing = replay_of(letter_of(resolved("producer", deleted=True)), 0)
    assert (outgoing.topic, outgoing.key, outgoing.value) == (SUBMITTED, b"docs/1", None)


def test_a_version_that_cannot_be_read_is_replayed_as_it_was() -> None:
    sent = Outgoing(RESOLVED, b"docs/1", b"{broken")
    assert replay_of(letter_of(sent), 0) == sent
