"""Capture: Debezium's topic of a table → documents.log. Translates row changes; the fold makes every decision."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from agents.batch import Batch, Failure, Failures
from connectors.debezium.changes import ColumnAbsent, ForeignChange, SchemaChanged, decode_capture
from connectors.ports import Bus
from domain.positions import StreamPlaces
from domain.quarantine import Reason
from migration.collection import CollectionPorts
from migration.context import HandlerContext
from schemas.cloudevents import InvalidEvent
from schemas.documents import DocumentChanged
from schemas.keys import document_key
from schemas.records import Outgoing, Received
from topics.captures import origin_of
from topics.catalogue import LOG

SOURCE = "crossfade/capture"
_STOPS: dict[type[InvalidEvent], Reason] = {
    SchemaChanged: Reason.UNREADABLE,
    ColumnAbsent: Reason.UNREADABLE,
    ForeignChange: Reason.FOREIGN_CHANGE,
}
Unreadable = Callable[[str, Reason, str], Awaitable[None]]
"""Quarantines a collection, given its name, the reason and the detail.

Returns when no more of its records are delivered, or never.
"""


async def _decoded(
    record: Received, ports: CollectionPorts, columns: dict[str, frozenset[str]]
) -> DocumentChanged | None:
    """Decode a change.

    A row may be older than the configuration and lack a column. Then the table is asked for its columns; `columns`
    keeps the answers by collection.
    """
    origin = None if ports.capture is None else origin_of(ports.capture, ports.settings)
    decode = partial(
        decode_capture, record, ports.name, ports.settings, ports.table.description, ports.source_epoch, origin
    )
    try:
        return decode()
    except ColumnAbsent as error:
        if ports.name not in columns:
            columns[ports.name] = await ports.table.columns()
        if error.column not in columns[ports.name]:
            raise
        return decode(columns[ports.name])


async def capture(
    batch: Batch,
    *,
    tables: Mapping[str, CollectionPorts],
    bus: Bus,
    ctx: HandlerContext,
    unreadable: Unreadable | None = None,
    places: StreamPlaces | None = None,
) -> Failures:
    """Append every captured change to the log; `tables` maps capture topics to their collections.

    Some errors also affect the changes that follow. For such an error, `unreadable` quarantines the collection and
    stops the batch. Without `unreadable`, the change is a failure, like a change that is wrong by itself. A database
    log that started again also quarantines its collection; `places` holds the positions seen before.
    """
    entries: list[Outgoing] = []
    failures: Failures = []
    columns: dict[str, frozenset[str]] = {}
    for message in batch:
        record = message.record
        ports = tables[record.topic]
        try:
            changed = await _decoded(record, ports, columns)
        except InvalidEvent as error:
            reason = _STOPS.get(type(error))
            if reason is not None and unreadable is not None:
                await unreadable(ports.name, reason, f"{record.place}: {error}")
            failures.append(Failure(message, error))
            continue
        if changed is None:
            continue
        at = (record.topic, record.partition, changed.position, changed.occurred_at_ms, record.timestamp_ms)
        if places is not None and unreadable is not None and places.went_back(*at):
            text = f"a change came from {changed.position}, before what was captured already"
            await unreadable(ports.name, Reason.SERVER, text)
        key = document_key(changed.collection, changed.id)
        entries.append(ctx.emit(changed, LOG, key, event_id=record.place, source=SOURCE, trace=message.trace))
    await bus.publish(entries)
    return failures
