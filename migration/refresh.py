"""Refresh entries: the current row, appended to the log as a compare-and-set on the captured position.

The position is read before the row (rule 10 of the protocol). The row is read with a lock that waits for transactions
that are still ending. A row that the log does not take holds up no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from connectors.errors import Refused
from connectors.ports import Bus, Ledger, LegacyTable
from connectors.telemetry import Trace
from domain.ledger import LedgerRow
from domain.legacy import LegacyRow
from migration.context import HandlerContext
from schemas.content import content_hash
from schemas.documents import DocumentChanged, Evidence
from schemas.keys import document_key
from schemas.records import Outgoing
from topics.catalogue import LOG


class Cause(NamedTuple):
    """A producer's event and the version that it became."""

    event_id: str
    version: int


NO_CAUSE = Cause("", 0)
_UNREAD = {"incomplete": True, "deleted": False, "content": None, "content_hash": None}


class RowsAndLedger(Protocol):
    """What a refresh needs of a collection."""

    @property
    def name(self) -> str:
        """The collection's name."""
        ...

    @property
    def table(self) -> LegacyTable:
        """The table of the collection."""
        ...

    @property
    def ledger(self) -> Ledger:
        """The ledger of the collection."""
        ...


async def append_refreshes(
    ports: RowsAndLedger,
    ids: Sequence[str],
    *,
    bus: Bus,
    ctx: HandlerContext,
    source: str,
    rejects: Mapping[str, int] | None = None,
    evidence: Mapping[str, Evidence | None] | None = None,
    traces: Mapping[str, Trace] | None = None,
    causes: Mapping[str, Cause] | None = None,
    unread: bool = True,
) -> dict[str, Refused]:
    """Append one refresh entry for each document, with its current row.

    By document, `rejects` has the producer's version that the legacy store refused, `evidence` what a repair knows of
    the ledger, `causes` the producer's event whose row the entry brings, and `traces` the trace that it
    continues. Returns once the log has the entries, with
    each document whose row the log does not take, and why. With `unread`, the log gets an entry without content for
    each of these: the resolver reads the row, and its dead letter reports what is wrong.
    """
    if not ids:
        return {}
    ledger = await ports.ledger.read(ids)
    rows = await ports.table.rows(ids)
    entries: dict[str, DocumentChanged] = {}
    for document_id in ids:
        known = ledger.get(document_id, LedgerRow())
        cause = (causes or {}).get(document_id, NO_CAUSE)
        entries[document_id] = refresh_entry(ports.name, document_id, rows.get(document_id), known, ctx).model_copy(
            update={
                "rejects": (rejects or {}).get(document_id, 0),
                "evidence": (evidence or {}).get(document_id),
                "cause": cause.event_id,
                "cause_version": cause.version,
            }
        )
    record = partial(_record, ledger=ledger, traces=traces or {}, ctx=ctx, source=source)
    refused = await _publish(bus, {document_id: record(entry) for document_id, entry in entries.items()})
    if unread:
        await bus.publish([record(entries[document_id].model_copy(update=_UNREAD)) for document_id in refused])
    return refused


def _record(
    entry: DocumentChanged,
    *,
    ledger: Mapping[str, LedgerRow],
    traces: Mapping[str, Trace],
    ctx: HandlerContext,
    source: str,
) -> Outgoing:
    key = document_key(entry.collection, entry.id)
    event_id = f"refresh/{key}@{ledger.get(entry.id, LedgerRow()).state.version}"
    return ctx.emit(entry, LOG, key, event_id=event_id, source=source, trace=traces.get(entry.id))


async def _publish(bus: Bus, records: Mapping[str, Outgoing]) -> dict[str, Refused]:
    """Publish the records, in halves if the log does not take all; return the documents it does not take, and why.

    Records of a refused half that are in the log already are appended twice. The second one has no effect.
    """
    try:
        await bus.publish(list(records.values()))
    except Refused as error:
        ids, middle = list(records), len(records) // 2
        if not middle:
            return dict.fromkeys(ids, error)
        halves = [await _publish(bus, {i: records[i] for i in half}) for half in (ids[:middle], ids[middle:])]
        return halves[0] | halves[1]
    return {}


def refresh_entry(
    collection: str,
    document_id: str,
    row: LegacyRow | None,
    ledger: LedgerRow,
    ctx: HandlerContext,
) -> DocumentChanged:
    """Return the refresh entry of a row (`row` None: there is none). Its ledger row must have been read before it."""
    return DocumentChanged(
        collection=collection,
        id=document_id,
        origin="refresh",
        deleted=row is None,
        content=row.content if row else None,
        content_hash=content_hash(row.content) if row else None,
        before_version=row.version if row else None,
        after_version=row.version if row else None,
        position=ledger.state.legacy_position,
        done=ledger.legacy_version,
        occurred_at_ms=ctx.clock(),
    )
