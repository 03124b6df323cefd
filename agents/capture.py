"""Capture: Debezium's topic of a table → documents.log. Translates row changes; every decision is the fold's."""

from __future__ import annotations

from collections.abc import Mapping

from agents.batch import Batch, CollectionPorts, Failure, Failures, Surroundings
from connectors.debezium import decode_capture
from connectors.ports import Bus
from domain.keys import document_key
from schemas.cloudevents import InvalidEvent, encode
from schemas.records import Outgoing
from topics.catalogue import LOG

SOURCE = "crossfade/capture"


async def capture(batch: Batch, *, tables: Mapping[str, CollectionPorts], bus: Bus, around: Surroundings) -> Failures:
    """Append every captured change to the log; `tables` maps capture topics to their collections."""
    entries: list[Outgoing] = []
    failures: Failures = []
    for message in batch:
        record = message.record
        ports = tables[record.topic]
        try:
            changed = decode_capture(record, ports.name, ports.settings, ports.table.description, ports.source_epoch)
        except InvalidEvent as error:
            failures.append(Failure(message, error))
            continue
        if changed is None:
            continue
        entries.append(
            encode(
                changed,
                topic=LOG,
                key=document_key(changed.collection, changed.id),
                event_id=f"{record.topic}/{record.partition}/{record.offset}",
                source=SOURCE,
                time_ms=around.clock(),
                traceparent=message.trace.sent(LOG),
            )
        )
    await bus.publish(entries)
    return failures
