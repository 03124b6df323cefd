"""Vector writer: documents.embedded → Qdrant. Every write is conditional on a lower stored version.

It reads before it writes, because Qdrant inserts new point ids whatever the condition says. A partition is handled in
order, so what it reads can be overtaken only by a writer that received this event before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agents.batch import Batch, Failures, Message
from agents.outcomes import written
from agents.selection import by_collection
from connectors.failpoints import passing
from connectors.ports import Bus
from connectors.telemetry import client_span, database_span
from domain.guards import vector_moves
from domain.ledger import VectorMark
from domain.points import DocumentPoints, StoredChunk, chunks_of, made_by, newest_version, tombstones_for
from migration.collection import CollectionPorts, Collections
from migration.context import HandlerContext
from schemas.cloudevents import InvalidEvent
from schemas.documents import DocumentEmbedded
from schemas.records import Outgoing

Item = tuple[Message, DocumentEmbedded]


Noted = Callable[[str, Sequence[VectorMark]], None]
"""Called with the name of a collection and the marks of what Qdrant now holds."""


def _nobody(name: str, marks: Sequence[VectorMark]) -> None:
    """Do nothing."""


async def write_vectors(
    batch: Batch, *, collections: Collections, bus: Bus, ctx: HandlerContext, noted: Noted = _nobody
) -> Failures:
    """Write the newest version of each document; older ones are superseded."""
    work, failures = by_collection(batch, collections, DocumentEmbedded, _check)
    outcomes: list[Outgoing] = []
    for name, items in work.items():
        outcomes += await _write(collections[name], items, ctx, noted)
    await bus.publish(outcomes)
    return failures


def _check(ports: CollectionPorts, event: DocumentEmbedded) -> None:
    if not event.deleted and not event.chunks:
        raise InvalidEvent("an embedded document without chunks that is not deleted")
    size = 4 * ports.embedder.dimension
    if any(len(chunk.vector) != size for chunk in event.chunks):
        raise InvalidEvent(f"a vector is not of {ports.embedder.dimension} 32-bit floats")
    if made_by(event.model) != ports.embedder.model_key:
        raise InvalidEvent(f"embedded by {event.model!r}, the collection's model is {ports.embedder.model_key!r}")


async def _write(ports: CollectionPorts, items: Sequence[Item], ctx: HandlerContext, noted: Noted) -> list[Outgoing]:
    newest: dict[str, DocumentEmbedded] = {}
    widest: dict[str, int] = {}
    for _, event in items:
        if event.id not in newest or event.version >= newest[event.id].version:
            newest[event.id] = event
        # A replaced writer may still write a superseded version of this batch: its chunk ids need a guard, too.
        widest[event.id] = max(widest.get(event.id, 0), len(event.chunks))
    stored = await ports.vectors.stored(ports.name, list(newest))
    due = [event for event in newest.values() if vector_moves(stored.get(event.id, ()), event.version)]
    documents = [_points(event, stored.get(event.id, ()), widest[event.id]) for event in due]
    passing("vector.before_write")
    with client_span([message.trace for message, _ in items], *database_span("qdrant", "upsert", ports.name)):
        await ports.vectors.write(ports.name, documents)
    passing("vector.after_write")
    # Includes what is already stored: after a crash between the write and the ledger, or before the outcome was
    # published, the second delivery fixes the ledger and publishes the outcome.
    held = [event for event in newest.values() if event.version >= newest_version(stored.get(event.id, ()))]
    marks = [VectorMark(event.id, event.version, event.content_hash, len(event.chunks), event.model) for event in held]
    await ports.ledger.vectors_written(marks)
    noted(ports.name, marks)
    passing("vector.before_outcomes")
    applied = {(event.id, event.version) for event in held}
    return [
        written(message, event, "qdrant", "applied" if (event.id, event.version) in applied else "superseded", ctx)
        for message, event in items
        if not event.refused  # published with the embedder's dead letter
    ]


def _points(event: DocumentEmbedded, stored: Sequence[StoredChunk], widest: int) -> DocumentPoints:
    return DocumentPoints(
        id=event.id,
        version=event.version,
        tenant=event.tenant,
        content_hash=event.content_hash,
        model=event.model,
        metadata=event.metadata,
        chunks=chunks_of([chunk.text for chunk in event.chunks], [chunk.vector for chunk in event.chunks]),
        tombstones=tombstones_for(len(event.chunks), stored, widest),
    )
