"""Intake: documents.submitted → documents.log. Checks a producer's event and appends it to the log.

It refuses what a store would certainly refuse: an unknown column, an invalid number, text over the limit.
"""

from __future__ import annotations

from agents.batch import Batch, Failure, Failures, Message
from connectors.ports import Bus
from domain.legacy import is_partial
from domain.submission import content_of, omitted_by
from migration.collection import CollectionPorts, Collections, collection_of
from migration.context import HandlerContext
from schemas.cloudevents import InvalidEvent, decode, unwrap
from schemas.content import content_hash
from schemas.documents import DocumentChanged, DocumentSubmitted, DocumentWritten
from schemas.keys import ID_CHARACTERS, document_key, parse_key, split_key
from schemas.records import Outgoing
from topics.catalogue import LOG, WRITTEN

SOURCE = "crossfade/intake"
# In characters, of an event's id. The id travels with everything derived from the event, in topics of small records.
_MAX_EVENT_ID = 1024
# Of a key in the answer to a refused event; the key of a document is shorter.
_MAX_KEY_BYTES = 4096


async def intake(batch: Batch, *, collections: Collections, bus: Bus, ctx: HandlerContext) -> Failures:
    """Append every valid submission to the log; return the others as failures."""
    entries: list[Outgoing] = []
    failures: Failures = []
    for message in batch:
        try:
            entries.append(_entry(message, collections, ctx))
        except InvalidEvent as error:
            failures.append(Failure(message, error))
    await bus.publish(entries)
    return failures


def _entry(message: Message, collections: Collections, ctx: HandlerContext) -> Outgoing:
    record = message.record
    attributes, data = unwrap(record)
    if len(attributes.id) > _MAX_EVENT_ID:
        raise InvalidEvent(f"ce_id: longer than {_MAX_EVENT_ID} characters")
    if data is None:
        changed = _deletion(message, collections, attributes.id, ctx)
    else:
        submitted, attributes = decode(record, DocumentSubmitted)
        ports = collection_of(collections, submitted.collection)
        _check_id(ports, submitted.id)
        omitted = omitted_by(submitted, ports.settings)
        content = content_of(
            submitted,
            ports.settings,
            ports.table.description,
            model_names=(ports.settings.model, ports.embedder.model_key),
            dimension=ports.embedder.dimension,
            max_text_bytes=ctx.max_text_bytes,
        )
        changed = DocumentChanged(
            collection=submitted.collection,
            id=submitted.id,
            origin="producer",
            content=content,
            content_hash=None if is_partial(ports.table.description, omitted) else content_hash(content),
            omitted=omitted,
            position=(ctx.producer_epoch, record.partition, record.offset),
            cause=attributes.id,
            occurred_at_ms=record.timestamp_ms,
        )
    key = document_key(changed.collection, changed.id)
    return ctx.emit(changed, LOG, key, event_id=record.place, source=SOURCE, trace=message.trace)


def _deletion(message: Message, collections: Collections, cause: str, ctx: HandlerContext) -> DocumentChanged:
    record = message.record
    try:
        collection, document_id = parse_key(record.key or b"")
    except (ValueError, UnicodeDecodeError) as error:
        raise InvalidEvent(f"a record without a value deletes the document of its key, but {error}") from error
    _check_id(collection_of(collections, collection), document_id)
    return DocumentChanged(
        collection=collection,
        id=document_id,
        origin="producer",
        deleted=True,
        position=(ctx.producer_epoch, record.partition, record.offset),
        cause=cause,
        occurred_at_ms=record.timestamp_ms,
    )


def _check_id(ports: CollectionPorts, document_id: str) -> None:
    if len(document_id) > ID_CHARACTERS:
        raise InvalidEvent(f"id: longer than {ID_CHARACTERS} characters")
    try:
        split_key(document_id, len(ports.settings.key))
    except ValueError as error:
        raise InvalidEvent(f"id: {error}") from error


def refused_submission(message: Message, error: Exception, ctx: HandlerContext) -> list[Outgoing]:
    """Return the answer to a producer whose event was refused before it reached any store."""
    record = message.record
    try:
        attributes, _ = unwrap(record)
        cause = attributes.id[:_MAX_EVENT_ID]
    except InvalidEvent:
        cause = record.place
    try:
        collection, document_id = parse_key((record.key or b"")[:_MAX_KEY_BYTES])
    except (ValueError, UnicodeDecodeError):
        collection, document_id = "", ""
    written = DocumentWritten(
        collection=collection,
        id=document_id,
        store=None,
        version=None,
        outcome="dead_lettered",
        origin="producer",
        error=str(error)[:1000],
        cause=cause,
        latency_ms=max(0, ctx.clock() - record.timestamp_ms),
    )
    key = (record.key or cause.encode())[:_MAX_KEY_BYTES].decode("utf-8", "replace")
    event_id = f"{record.place}/refused"
    return [ctx.emit(written, WRITTEN, key, event_id=event_id, source=SOURCE, trace=message.trace)]
