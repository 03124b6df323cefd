"""DocumentWritten events: the outcome of a change in one store. Built here for every writer, so that counts balance."""

from __future__ import annotations

from agents.batch import Message
from migration.context import HandlerContext
from schemas.cloudevents import InvalidEvent, decode
from schemas.documents import DocumentEmbedded, DocumentResolved, DocumentWritten, Store, WriteOutcome
from schemas.keys import document_key
from schemas.records import Outgoing
from topics.catalogue import WRITTEN


def written(
    message: Message,
    event: DocumentResolved | DocumentEmbedded,
    store: Store | None,
    outcome: WriteOutcome,
    ctx: HandlerContext,
    error: str | None = None,
) -> Outgoing:
    """Return the record of one version's outcome in one store, and count it; `store` is None if it reached none."""
    latency_ms = max(0, ctx.clock() - event.occurred_at_ms)
    if store is not None:
        ctx.telemetry.outcome(event.collection, store, outcome, latency_ms)
    key = document_key(event.collection, event.id)
    outcome_event = DocumentWritten(
        collection=event.collection,
        id=event.id,
        store=store,
        version=event.version,
        outcome=outcome,
        origin=event.origin,
        error=error,
        cause=event.cause,
        latency_ms=latency_ms,
    )
    event_id = f"{key}@{event.version}/{store or 'refused'}"
    source = f"crossfade/{store or 'resolver'}"
    return ctx.emit(outcome_event, WRITTEN, key, event_id=event_id, source=source, trace=message.trace)


def lost_resolved(message: Message, error: Exception, store: Store, ctx: HandlerContext) -> list[Outgoing]:
    """Return the outcome, in a store, of a resolved version that goes to the dead-letter topic."""
    return _lost(message, error, DocumentResolved, store, ctx)


def lost_embedded(message: Message, error: Exception, ctx: HandlerContext) -> list[Outgoing]:
    """Return the outcome of an embedded version that goes to the dead-letter topic."""
    return _lost(message, error, DocumentEmbedded, "qdrant", ctx)


def _lost(
    message: Message,
    error: Exception,
    model: type[DocumentResolved] | type[DocumentEmbedded],
    store: Store,
    ctx: HandlerContext,
) -> list[Outgoing]:
    try:
        event, _ = decode(message.record, model)
    except InvalidEvent:
        return []
    if isinstance(event, DocumentEmbedded) and event.refused:  # published with the embedder's dead letter
        return []
    return [written(message, event, store, "dead_lettered", ctx, str(error)[:1000])]
