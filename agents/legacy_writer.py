"""Legacy writer: documents.resolved → the legacy table. Writes producers' changes; others only move the ledger.

A change that the table refuses goes to the dead-letter topic, and a refresh entry brings Qdrant back to the row.
"""

from __future__ import annotations

from collections.abc import Sequence

from agents.batch import Batch, CollectionPorts, Collections, Failure, Failures, Message, Surroundings, collection_of
from agents.grouping import by_collection, newest_of
from agents.outcomes import lost_resolved, written
from agents.refresh import append_refreshes
from connectors.errors import Refused
from connectors.failpoints import passing
from connectors.ports import Bus
from connectors.sql_layout import LEDGER_TABLE
from connectors.telemetry import client_span, database_span
from domain.keys import document_key
from domain.legacy import LegacyChange, LegacyOutcome, LegacyVerdict
from schemas.cloudevents import decode, encode
from schemas.documents import DocumentChanged, DocumentResolved
from schemas.records import Outgoing
from topics.catalogue import LOG

SOURCE = "crossfade/legacy"
Item = tuple[Message, DocumentResolved]
_LATE = LegacyOutcome(LegacyVerdict.SUPERSEDED)


class RefusedByLegacy(Refused):
    """The legacy store refused a producer's change; the message is the database's."""


async def write_legacy(batch: Batch, *, collections: Collections, bus: Bus, around: Surroundings) -> Failures:
    """Apply every resolved version to its table, the newest of each document; return what the table refused."""
    work, failures = by_collection(batch, collections, DocumentResolved)
    outcomes: list[Outgoing] = []
    for name, items in work.items():
        told, refused = await _write(collections[name], items, bus, around)
        outcomes += told
        failures += refused
    await bus.publish(outcomes)
    return failures


async def _write(
    ports: CollectionPorts, items: Sequence[Item], bus: Bus, around: Surroundings
) -> tuple[list[Outgoing], Failures]:
    latest = {i: event for i, (_, event) in newest_of(item for item in items if item[1].origin == "producer").items()}
    passing("legacy.before_write")
    verdicts = await _apply(ports, items)
    passing("legacy.after_write")
    held = await _held(ports, [event for event in latest.values() if verdicts[event.id] == _LATE])
    outcomes: list[Outgoing] = []
    refusals: dict[str, tuple[Item, str]] = {}
    for message, event in items:
        if event.origin != "producer":
            continue
        outcome = verdicts[event.id]
        if latest[event.id].version != event.version:
            outcomes.append(written(message, event, "legacy", "superseded", around))
        elif outcome.verdict is LegacyVerdict.APPLIED or event.id in held:
            outcomes.append(written(message, event, "legacy", "applied", around))
        elif outcome.verdict is LegacyVerdict.REFUSED or outcome.unconfirmed:
            refusals[event.id] = ((message, event), outcome.reason or "refused before; told again after a restart")
        else:
            outcomes.append(written(message, event, "legacy", "superseded", around))
    await _refresh_refused(ports, refusals, bus, around)
    return outcomes, [Failure(message, RefusedByLegacy(reason)) for (message, _), reason in refusals.values()]


async def _held(ports: CollectionPorts, late: Sequence[DocumentResolved]) -> set[str]:
    """Return which of the versions that came too late are what the table holds.

    They were applied, and the worker ended before it told: a second delivery tells it, and does not call it superseded.
    """
    if not late:
        return set()
    ids = [event.id for event in late]
    rows, ledger = await ports.table.rows(ids), await ports.ledger.read(ids)
    held: set[str] = set()
    for event in late:
        row, known = rows.get(event.id), ledger.get(event.id)
        gone = event.deleted and row is None and known is not None and known.legacy_version == event.version
        if gone or (row is not None and row.version == event.version):
            held.add(event.id)
    return held


async def _apply(ports: CollectionPorts, items: Sequence[Item]) -> dict[str, LegacyOutcome]:
    """Bring the versions into the table; return what became of the newest producer's version of each document."""
    writes, moves = _changes(items)
    system, table = ports.settings.connector, ports.settings.table
    producers = [message.trace for message, event in items if event.origin == "producer"]
    others = [message.trace for message, event in items if event.origin != "producer"]
    with (
        client_span(producers, *database_span(system, "upsert", table)),
        client_span(others, *database_span(system, "update", LEDGER_TABLE)),
    ):
        verdicts = dict(zip(writes, await ports.table.apply(list(writes.values())), strict=True))
        if moves:
            await ports.table.apply(moves)
    return verdicts


def _changes(items: Sequence[Item]) -> tuple[dict[str, LegacyChange], list[LegacyChange]]:
    """Return the first change of each document, and the moves of the ledger that must come after it.

    A producer's version and a later one are never merged: a second delivery may bring together what the first did not,
    and the later version would carry the producer's content over what the application wrote in between.
    """
    newest = newest_of(item for item in items if item[1].origin == "producer")
    others = newest_of(item for item in items if item[1].origin != "producer")
    writes = {i: LegacyChange(i, event.version, event.version, event.content) for i, (_, event) in newest.items()}
    moves = {i: LegacyChange(i, event.version, None) for i, (_, event) in others.items()}
    later = [change for i, change in moves.items() if i in writes and change.version > writes[i].version]
    return moves | writes, later


async def _refresh_refused(
    ports: CollectionPorts, refusals: dict[str, tuple[Item, str]], bus: Bus, around: Surroundings
) -> None:
    rejects = {document_id: event.version for document_id, ((_, event), _) in refusals.items()}
    await append_refreshes(
        ports,
        list(refusals),
        bus=bus,
        around=around,
        source=SOURCE,
        rejects=rejects,
        traceparents={document_id: message.trace.sent(LOG) for document_id, ((message, _), _) in refusals.items()},
    )


def lost_write(message: Message, error: Exception, around: Surroundings) -> list[Outgoing]:
    """Return what goes out with the dead letter of a resolved version: its outcome, and the end of the wait for it.

    Published with the dead letter, and read from no store: what made it one may keep rows from being read, too. The
    resolver reads the row as soon as that is possible. What the table refused has its refresh entry already.
    """
    outcomes = lost_resolved(message, error, "legacy", around)
    if not outcomes or isinstance(error, RefusedByLegacy):
        return outcomes
    event, _ = decode(message.record, DocumentResolved)
    if event.origin != "producer":
        return outcomes
    key = document_key(event.collection, event.id)
    entry = DocumentChanged(
        collection=event.collection,
        id=event.id,
        origin="refresh",
        incomplete=True,
        rejects=event.version,
        occurred_at_ms=around.clock(),
    )
    ended = encode(
        entry,
        topic=LOG,
        key=key,
        event_id=f"lost/{key}@{event.version}",
        source=SOURCE,
        time_ms=around.clock(),
        traceparent=message.trace.sent(LOG),
    )
    return [*outcomes, ended]


async def refusal_told(failure: Failure, *, collections: Collections) -> None:
    """Note that a refusal's refresh entry and dead letter are published, so that a second delivery tells neither."""
    if isinstance(failure.error, RefusedByLegacy):
        event, _ = decode(failure.message.record, DocumentResolved)
        await collection_of(collections, event.collection).ledger.refusals_told({event.id: event.version})
