"""Embedder: documents.resolved → documents.embedded. Chunks and embeds the newest version of each document.

A chunk with the same text and model as a stored point reuses that point's vector instead of computing a new one.
Embedded documents are published slice by slice, so that none waits for the whole of a large batch. A text or a tenant
over its limit, which only the table can bring, is refused: its document leaves Qdrant, and a dead letter reports that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agents.batch import Batch, Failure, Failures, Message
from agents.outcomes import written
from agents.selection import by_collection, newest_of
from connectors.batching import slices
from connectors.errors import EmbeddingFailed
from connectors.failpoints import passing
from connectors.ports import Bus
from connectors.telemetry import client_span, embeddings_span
from domain.legacy import given_vector
from domain.points import given_by, reusable_vectors
from migration.collection import CollectionPorts, Collections
from migration.context import HandlerContext
from schemas.cloudevents import InvalidEvent
from schemas.content import content_hash
from schemas.documents import DocumentEmbedded, DocumentResolved, EmbeddedChunk
from schemas.keys import document_key
from schemas.records import Outgoing
from topics.catalogue import EMBEDDED

SOURCE = "crossfade/embedder"
# The number of chunks computed before their documents are published: a second or two of work for the engine.
_SLICE_CHUNKS = 128
# The number of characters cut into chunks at a time.
_SLICE_CHARACTERS = 1024 * 1024
Item = tuple[Message, DocumentResolved]
Chunk = tuple[str, int]
"""The document id and the number of a chunk."""


async def embed(
    batch: Batch,
    *,
    collections: Collections,
    bus: Bus,
    ctx: HandlerContext,
    progress: Callable[[], None] = lambda: None,
) -> Failures:
    """Embed the newest version of each document and pass deletions on; older versions in the batch are superseded.

    `progress` is called after each slice, and also within a document that is longer than one slice. It distinguishes
    long work from stuck work.
    """
    work, failures = by_collection(batch, collections, DocumentResolved)
    for name, items in work.items():
        ports = collections[name]
        if ports.rules.writes_qdrant:
            # The other events wait for their rows: the outcome of the row is the outcome of the event.
            own = [item for item in items if not ports.waits_for_row(item[1])]
            failures += await _pass_on(ports, own, bus, ctx, progress)
        else:
            await bus.publish([written(message, event, "qdrant", "not_written", ctx) for message, event in items])
    return failures


def _refusal(event: DocumentResolved, ctx: HandlerContext) -> InvalidEvent | None:
    """Return why a document is refused for Qdrant, None if it is not."""
    why = "" if event.deleted or event.content is None else event.content.refusal(ctx.max_text_bytes)
    return InvalidEvent(f"{why}: the document is not in Qdrant") if why else None


async def _pass_on(
    ports: CollectionPorts, items: Sequence[Item], bus: Bus, ctx: HandlerContext, progress: Callable[[], None]
) -> Failures:
    newest = newest_of(items)
    overtaken = [(message, event) for message, event in items if newest[event.id][1].version != event.version]
    await bus.publish([written(message, event, "qdrant", "superseded", ctx) for message, event in overtaken])
    refused = {i: error for i, (_, event) in newest.items() if (error := _refusal(event, ctx)) is not None}
    # Qdrant must not keep serving the previous version of a refused document.
    await bus.publish([_record(m, _taken_out(ports, event), ctx) for i, (m, event) in newest.items() if i in refused])
    current = [item for document_id, item in newest.items() if document_id not in refused]
    pieces = await _pieces(ports, current, progress)
    vectors, given = await _given_or_stored(ports, current, pieces)
    failures = [Failure(newest[document_id][0], error) for document_id, error in refused.items()]
    absent = {
        event.id: [(event.id, n) for n in range(len(pieces[event.id])) if n not in vectors[event.id]]
        for _, event in current
    }
    for part in slices(current, (len(absent[event.id]) for _, event in current), _SLICE_CHUNKS):
        missing = [chunk for _, event in part for chunk in absent[event.id]]
        failed = await _embed(ports, part, missing, pieces, vectors, ctx, progress)
        failures += [Failure(message, failed[event.id]) for message, event in part if event.id in failed]
        done = [(message, event) for message, event in part if event.id not in failed]
        passing("embedder.before_publish")
        await bus.publish(
            [
                _record(message, _embedded(ports, event, pieces[event.id], vectors[event.id], event.id in given), ctx)
                for message, event in done
            ]
        )
        progress()
    return failures


async def _embed(
    ports: CollectionPorts,
    items: Sequence[Item],
    missing: Sequence[Chunk],
    pieces: dict[str, tuple[str, ...]],
    vectors: dict[str, dict[int, bytes]],
    ctx: HandlerContext,
    progress: Callable[[], None],
) -> dict[str, Exception]:
    """Compute the vectors of the missing chunks into `vectors`; return the documents that failed, with their errors."""
    failed: dict[str, Exception] = {}
    if missing:
        ids = {document_id for document_id, _ in missing}
        traces = [message.trace for message, event in items if event.id in ids]
        with client_span(traces, *embeddings_span(ports.settings.model, ports.embedder.dimension)):
            for start in range(0, len(missing), _SLICE_CHUNKS):
                part = [chunk for chunk in missing[start : start + _SLICE_CHUNKS] if chunk[0] not in failed]
                await _compute(ports, part, pieces, vectors, failed, progress)
                progress()
        ctx.telemetry.embedded(ports.name, sum(document_id not in failed for document_id, _ in missing))
    return failed


async def _pieces(
    ports: CollectionPorts, items: Sequence[Item], progress: Callable[[], None]
) -> dict[str, tuple[str, ...]]:
    """Return the chunks of each document: none if it is deleted, a single one if it has a precomputed vector."""
    pieces: dict[str, tuple[str, ...]] = {event.id: () for _, event in items}
    to_cut: dict[str, str] = {}
    for _, event in items:
        if event.deleted or event.content is None:
            continue
        text = event.content.full_text()
        if _given(ports, event) is not None:
            pieces[event.id] = (text,)
        else:
            to_cut[event.id] = text
    for part in slices(list(to_cut), map(len, to_cut.values()), _SLICE_CHARACTERS):
        pieces.update(zip(part, await ports.embedder.chunked([to_cut[i] for i in part], progress), strict=True))
    return pieces


def _given(ports: CollectionPorts, event: DocumentResolved) -> bytes | None:
    return given_vector(event.content, ports.embedder.dimension)


async def _given_or_stored(
    ports: CollectionPorts, items: Sequence[Item], pieces: dict[str, tuple[str, ...]]
) -> tuple[dict[str, dict[int, bytes]], set[str]]:
    """Return the vectors that need not be computed, and the documents that have a precomputed one among them.

    A stored vector is reused for the same text. If the table has a column for embeddings, a row without one gets a
    computed embedding. If the table has no such column, a producer's precomputed vector is kept as long as its text
    stays the same, and it stays marked as precomputed.
    """
    found: dict[str, dict[int, bytes]] = {event.id: {} for _, event in items}
    given: set[str] = set()
    to_look_up: list[str] = []
    for _, event in items:
        own = _given(ports, event)
        if own is not None:
            found[event.id] = {0: own}
            given.add(event.id)
        elif pieces[event.id]:
            to_look_up.append(event.id)
    if to_look_up:
        key = ports.embedder.model_key
        stored = await ports.vectors.stored(ports.name, to_look_up, content=True)
        for document_id, points in stored.items():
            computed = reusable_vectors(pieces[document_id], (key,), points)
            kept = {} if ports.settings.embedding else reusable_vectors(pieces[document_id], (given_by(key),), points)
            found[document_id] = kept | computed
            if kept.keys() - computed.keys():
                given.add(document_id)
    return found, given


async def _compute(
    ports: CollectionPorts,
    missing: Sequence[Chunk],
    pieces: dict[str, tuple[str, ...]],
    vectors: dict[str, dict[int, bytes]],
    failures: dict[str, Exception],
    progress: Callable[[], None],
) -> None:
    try:
        computed = await ports.embedder.embed_documents([pieces[i][number] for i, number in missing], progress)
        for (document_id, number), vector in zip(missing, computed, strict=True):
            vectors[document_id][number] = vector
    except EmbeddingFailed:
        # One bad text fails the whole call: embed document by document to find it.
        for document_id in dict.fromkeys(document_id for document_id, _ in missing):
            numbers = [number for i, number in missing if i == document_id]
            try:
                own = await ports.embedder.embed_documents(
                    [pieces[document_id][number] for number in numbers], progress
                )
                vectors[document_id].update(zip(numbers, own, strict=True))
            except EmbeddingFailed as error:
                failures[document_id] = error


def _embedded(
    ports: CollectionPorts, event: DocumentResolved, texts: tuple[str, ...], vectors: dict[int, bytes], given: bool
) -> DocumentEmbedded:
    content = event.content
    model = ports.embedder.model_key
    return DocumentEmbedded(
        collection=event.collection,
        id=event.id,
        version=event.version,
        origin=event.origin,
        deleted=event.deleted,
        tenant=content.tenant if content else "default",
        content_hash=event.content_hash or (content_hash(content) if content else None),
        metadata=content.metadata if content else {},
        model=given_by(model) if given else model,
        chunks=tuple(EmbeddedChunk(text=text, vector=vectors[number]) for number, text in enumerate(texts)),
        cause=event.cause,
        occurred_at_ms=event.occurred_at_ms,
    )


def _taken_out(ports: CollectionPorts, event: DocumentResolved) -> DocumentEmbedded:
    return DocumentEmbedded(
        collection=event.collection,
        id=event.id,
        version=event.version,
        origin=event.origin,
        deleted=True,
        model=ports.embedder.model_key,
        refused=True,
        cause=event.cause,
        occurred_at_ms=event.occurred_at_ms,
    )


def _record(message: Message, event: DocumentEmbedded, ctx: HandlerContext) -> Outgoing:
    key = document_key(event.collection, event.id)
    event_id = f"{key}@{event.version}/embedded"
    return ctx.emit(event, EMBEDDED, key, event_id=event_id, source=SOURCE, trace=message.trace)
