"""Legacy writer: documents.resolved → the legacy table. Writes producers' changes; others only move the ledger.

A change that the table refuses goes to the dead-letter topic, and a refresh entry brings Qdrant back to the row.
"""

from __future__ import annotations

from collections.abc import Sequence

from agents.batch import Batch, CollectionPorts, Collections, Failure, Failures, Message, Surroundings, collection_of
from agents.outcomes import written
from agents.refresh import append_refreshes
from connectors.errors import Refused
from connectors.ports import Bus
from connectors.sql_layout import LEDGER_TABLE
from connectors.telemetry import client_span, database_span
from domain.legacy import LegacyChange, LegacyVerdict
from schemas.cloudevents import InvalidEvent, decode
from schemas.documents import DocumentResolved
from schemas.records import Outgoing
from topics.catalogue import LOG

SOURCE = "crossfade/legacy"
Item = tuple[Message, DocumentResolved]


class RefusedByLegacy(Refused):
    """The legacy store refused a producer's change; the message is the database's."""


async def write_legacy(batch: Batch, *, collections: Collections, bus: Bus, around: Surroundings) -> Failures:
    """Apply every resolved version to its table, the newest of each document; return what the table refused."""
    work: dict[str, list[Item]] = {}
    failures: Failures = []
    for message in batch:
        try:
            event, _ = decode(message.record, DocumentResolved)
            collection_of(collections, event.collection)
        except InvalidEvent as error:
            failures.append(Failure(message, error))
            continue
        work.setdefault(event.collection, []).append((message, event))
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
    latest = {event.id: (message, event) for message, event in items if event.origin == "producer"}
    changes = _changes(items)
    system, table = ports.settings.connector, ports.settings.table
    producers = [message.trace for message, event in items if event.origin == "producer"]
    others = [message.trace for message, event in items if event.origin != "producer"]
    with (
        client_span(producers, *database_span(system, "upsert", table)),
        client_span(others, *database_span(system, "update", LEDGER_TABLE)),
    ):
        verdicts = dict(zip(changes, await ports.table.apply(list(changes.values())), strict=True))
    outcomes: list[Outgoing] = []
    refusals: dict[str, tuple[Item, str]] = {}
    for message, event in items:
        if event.origin != "producer":
            continue
        outcome = verdicts[event.id]
        if latest[event.id][1] is not event:
            outcomes.append(written(message, event, "legacy", "superseded", around))
        elif outcome.verdict is LegacyVerdict.APPLIED:
            outcomes.append(written(message, event, "legacy", "applied", around))
        elif outcome.verdict is LegacyVerdict.REFUSED or outcome.unconfirmed:
            refusals[event.id] = ((message, event), outcome.reason or "refused before; told again after a restart")
        else:
            outcomes.append(written(message, event, "legacy", "superseded", around))
    await _refresh_refused(ports, refusals, bus, around)
    return outcomes, [Failure(message, RefusedByLegacy(reason)) for (message, _), reason in refusals.values()]


def _changes(items: Sequence[Item]) -> dict[str, LegacyChange]:
    """Merge the versions of each document: the newest producer's content is written, the ledger moves to the newest."""
    changes: dict[str, LegacyChange] = {}
    for _, event in items:
        before = changes.get(event.id)
        if event.origin == "producer":
            changes[event.id] = LegacyChange(event.id, event.version, event.version, event.content)
        elif before is None:
            changes[event.id] = LegacyChange(event.id, event.version, None)
        else:
            changes[event.id] = LegacyChange(event.id, event.version, before.written, before.content)
    return changes


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
