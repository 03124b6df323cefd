"""Legacy writer: documents.resolved → the legacy table. Writes producers' changes; others only move the ledger.

A change that the table refuses goes to the dead-letter topic, and a refresh entry brings Qdrant back to the row. A
refresh entry also follows if the row differs from what was sent, because a trigger changed it or because the producer
omitted columns.
"""

from __future__ import annotations

from collections.abc import Sequence

from agents.batch import Batch, Failure, Failures, Message
from agents.outcomes import written
from agents.selection import by_collection, newest_of
from connectors.errors import Refused
from connectors.failpoints import passing
from connectors.ports import Bus
from connectors.sql.layout import LEDGER_TABLE
from connectors.telemetry import client_span, database_span
from domain.legacy import LegacyChange, LegacyOutcome, LegacyVerdict, TableDescription, is_partial, row_differs
from migration.collection import CollectionPorts, Collections, collection_of
from migration.context import HandlerContext
from migration.refresh import NO_CAUSE, Cause, append_refreshes
from schemas.cloudevents import InvalidEvent, decode
from schemas.documents import DocumentChanged, DocumentResolved
from schemas.keys import document_key
from schemas.records import Outgoing
from topics.catalogue import LOG

SOURCE = "crossfade/legacy"
Item = tuple[Message, DocumentResolved]
_LATE = LegacyOutcome(LegacyVerdict.SUPERSEDED)


class RefusedByLegacy(Refused):
    """The legacy store refused a producer's change; the message comes from the database."""


async def write_legacy(batch: Batch, *, collections: Collections, bus: Bus, ctx: HandlerContext) -> Failures:
    """Apply the resolved versions that still count to their tables; return the changes that a table refused."""
    work, failures = by_collection(batch, collections, DocumentResolved)
    outcomes: list[Outgoing] = []
    for name, items in work.items():
        published, refused = await _write(collections[name], items, bus, ctx)
        outcomes += published
        failures += refused
    await bus.publish(outcomes)
    return failures


async def _write(
    ports: CollectionPorts, items: Sequence[Item], bus: Bus, ctx: HandlerContext
) -> tuple[list[Outgoing], Failures]:
    passing("legacy.before_write")
    verdicts = await _apply(ports, items)
    passing("legacy.after_write")
    late = [e for _, e in items if e.origin == "producer" and verdicts.get(_at(e)) == _LATE]
    verdicts |= await _held(ports, late)
    outcomes: list[Outgoing] = []
    refusals: dict[tuple[str, int], tuple[Item, str]] = {}
    followed: list[Item] = []
    for message, event in items:
        if event.origin != "producer":
            continue
        outcome = verdicts.get(_at(event), _LATE)
        if outcome.verdict is LegacyVerdict.APPLIED:
            outcomes.append(written(message, event, "legacy", "applied", ctx))
        elif outcome.verdict is LegacyVerdict.REFUSED or outcome.unconfirmed:
            reason = outcome.reason or "refused before; published again after a restart"
            refusals[_at(event)] = ((message, event), reason)
        else:
            outcomes.append(written(message, event, "legacy", "superseded", ctx))
        if outcome.differs or _at(event) in refusals:
            followed.append((message, event))
    causes = _brought(ports, [item for item in followed if _at(item[1]) not in refusals])
    await _follow(ports, newest_of(followed), causes, bus, ctx)
    outcomes += [
        written(message, event, "qdrant", "superseded", ctx)
        for message, event in items
        if ports.waits_for_row(event) and causes.get(event.id, NO_CAUSE).version != event.version
    ]
    return outcomes, [Failure(message, RefusedByLegacy(reason)) for (message, _), reason in refusals.values()]


def _brought(ports: CollectionPorts, applied: Sequence[Item]) -> dict[str, Cause]:
    """Return, by document, the newest event that waits for its row. The embedder reports the other events."""
    waiting = newest_of(item for item in applied if ports.waits_for_row(item[1]))
    return {event.id: Cause(event.cause, event.version) for _, event in waiting.values()}


def _at(event: DocumentResolved) -> tuple[str, int]:
    return event.id, event.version


async def _held(ports: CollectionPorts, late: Sequence[DocumentResolved]) -> dict[tuple[str, int], LegacyOutcome]:
    """Return as applied the versions that came too late but are what the table holds.

    They were applied, but the worker ended before it published their outcome. The second delivery publishes it as
    applied, not as superseded.
    """
    if not late:
        return {}
    ids = list(dict.fromkeys(event.id for event in late))
    rows, ledger = await ports.table.rows(ids), await ports.ledger.read(ids)
    held: dict[tuple[str, int], LegacyOutcome] = {}
    for event in late:
        row, known = rows.get(event.id), ledger.get(event.id)
        if event.deleted:
            if row is None and known is not None and known.legacy_version == event.version:
                held[_at(event)] = LegacyOutcome(LegacyVerdict.APPLIED)
        elif row is not None and row.version == event.version:
            differs = row_differs(ports.table.description, _change(event), row)
            held[_at(event)] = LegacyOutcome(LegacyVerdict.APPLIED, differs=differs)
    return held


async def _apply(ports: CollectionPorts, items: Sequence[Item]) -> dict[tuple[str, int], LegacyOutcome]:
    """Write the versions to the table; return the outcome of each producer's version that still counts."""
    system, table = ports.settings.connector, ports.settings.table
    producers = [message.trace for message, event in items if event.origin == "producer"]
    others = [message.trace for message, event in items if event.origin != "producer"]
    verdicts: dict[tuple[str, int], LegacyOutcome] = {}
    with (
        client_span(producers, *database_span(system, "upsert", table)),
        client_span(others, *database_span(system, "update", LEDGER_TABLE)),
    ):
        for changes in _rounds(ports.table.description, items):
            outcomes = await ports.table.apply(changes)
            verdicts |= {(c.id, c.version): o for c, o in zip(changes, outcomes, strict=True) if c.written is not None}
    return verdicts


def _rounds(table: TableDescription, items: Sequence[Item]) -> list[list[LegacyChange]]:
    """Return the changes in rounds, which are applied in turn: in a round, each document has at most one change.

    Of a producer's versions, only the newest one that names every column counts, and the partial ones after it. They
    are never merged, neither with each other nor with a later version of another origin. A second delivery may bring
    together versions that the first did not. A merge would then carry content over what the application wrote in
    between.
    """
    rounds: list[dict[str, LegacyChange]] = [{}]
    chains: dict[str, list[LegacyChange]] = {}
    producers = {_at(event): event for _, event in items if event.origin == "producer"}
    for _, event in sorted(producers.items()):
        chain = chains.setdefault(event.id, [])
        if not is_partial(table, event.omitted):
            chain.clear()
        chain.append(_change(event))
    for document_id, (_, event) in newest_of(item for item in items if item[1].origin != "producer").items():
        chain = chains.setdefault(document_id, [])
        if not chain or chain[-1].version < event.version:
            chain.append(LegacyChange(document_id, event.version, None))
    for document_id, chain in chains.items():
        for number, change in enumerate(chain):
            if number == len(rounds):
                rounds.append({})
            rounds[number][document_id] = change
    return [list(each.values()) for each in rounds if each]


def _change(event: DocumentResolved) -> LegacyChange:
    return LegacyChange(event.id, event.version, event.version, event.content, frozenset(event.omitted))


async def _follow(
    ports: CollectionPorts, followed: dict[str, Item], causes: dict[str, Cause], bus: Bus, ctx: HandlerContext
) -> None:
    """Bring Qdrant to the rows of versions that the table refused, or that it holds differently from what was sent.

    The outcome of the row in Qdrant is the outcome of the producer's event in `causes`.

    The refresh ends the wait for the version's echo. An echo that arrives anyway causes the row to be read again.
    """
    await append_refreshes(
        ports,
        list(followed),
        bus=bus,
        ctx=ctx,
        source=SOURCE,
        rejects={document_id: event.version for document_id, (_, event) in followed.items()},
        causes=causes,
        traces={document_id: message.trace for document_id, (message, _) in followed.items()},
    )


def lost_write(message: Message, error: Exception, *, collections: Collections, ctx: HandlerContext) -> list[Outgoing]:
    """Return the records that accompany the dead letter of a resolved version: its outcome, and the end of its wait.

    They are published with the dead letter and read from no store: what caused the dead letter may also keep rows from
    being read. The resolver reads the row as soon as that is possible. A version that the table refused already has its
    refresh entry. Nothing is published here for a version that is not a producer's, as when it is written: the row of
    an event carries the event's id.
    """
    try:
        event, _ = decode(message.record, DocumentResolved)
    except InvalidEvent:
        return []
    if event.origin != "producer":
        return []
    outcomes = [written(message, event, "legacy", "dead_lettered", ctx, str(error)[:1000])]
    if isinstance(error, RefusedByLegacy):
        return outcomes
    ports = collections.get(event.collection)
    waits = ports is not None and ports.waits_for_row(event)
    cause = Cause(event.cause, event.version) if waits else NO_CAUSE
    return [*outcomes, _wait_ended(message, event, cause, ctx)]


def _wait_ended(message: Message, event: DocumentResolved, cause: Cause, ctx: HandlerContext) -> Outgoing:
    """Return the entry that ends the wait for a version and causes its row to be read."""
    key = document_key(event.collection, event.id)
    entry = DocumentChanged(
        collection=event.collection,
        id=event.id,
        origin="refresh",
        incomplete=True,
        rejects=event.version,
        cause=cause.event_id,
        cause_version=cause.version,
        occurred_at_ms=ctx.clock(),
    )
    event_id = f"lost/{key}@{event.version}"
    return ctx.emit(entry, LOG, key, event_id=event_id, source=SOURCE, trace=message.trace)


async def confirm_refusal(failure: Failure, *, collections: Collections) -> None:
    """Note that a refusal's refresh entry and dead letter are published: a second delivery publishes neither."""
    if isinstance(failure.error, RefusedByLegacy):
        event, _ = decode(failure.message.record, DocumentResolved)
        await collection_of(collections, event.collection).ledger.confirm_refusals({event.id: event.version})
