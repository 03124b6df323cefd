"""Resolver: documents.log → documents.resolved. Folds the log into decisions; the log offset is the version.

Order (rule *emit-first*): publish the decisions, then move the ledger, then append refreshes, then commit the offset.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

from agents.batch import Batch, Failure, Failures, Message
from agents.outcomes import written
from connectors.errors import Refused
from connectors.failpoints import passing
from connectors.ports import Bus
from connectors.sql.layout import LEDGER_TABLE
from connectors.telemetry import client_span, database_span
from domain.fold import Verdict, fold
from domain.ledger import LedgerRow
from migration.collection import CollectionPorts, Collections, collection_of
from migration.context import HandlerContext
from migration.refresh import Cause, append_refreshes
from schemas.cloudevents import InvalidEvent, decode
from schemas.documents import DocumentChanged, DocumentResolved
from schemas.keys import document_key, version_of
from schemas.records import Outgoing
from topics.catalogue import RESOLVED

log = logging.getLogger("crossfade.agents")
SOURCE = "crossfade/resolver"


@dataclass(slots=True)
class _Work:
    """The work of a batch for one collection: its entries in log order, and the ledger as the fold moves it.

    `latest` are the documents whose last folded entry is in the batch. `asking` are the entries that cause rows to be
    read again, `causes` the events whose rows these reads bring.
    """

    ports: CollectionPorts
    entries: list[tuple[Message, DocumentChanged, int]] = field(default_factory=list)
    ledger: dict[str, LedgerRow] = field(default_factory=dict)
    moved: set[str] = field(default_factory=set)
    latest: set[str] = field(default_factory=set)
    asking: dict[str, Message] = field(default_factory=dict)
    causes: dict[str, Cause] = field(default_factory=dict)

    def ids(self) -> list[str]:
        return list(dict.fromkeys(entry.id for _, entry, _ in self.entries))


async def resolve(batch: Batch, *, collections: Collections, bus: Bus, ctx: HandlerContext) -> Failures:
    """Fold every entry; publish what takes effect, save it in the ledger, and read rows again if the fold asks."""
    work, failures = _by_collection(batch, collections, ctx)
    decisions: list[Outgoing] = []
    for each in work:
        span = database_span(each.ports.settings.connector, "select", LEDGER_TABLE)
        with client_span([message.trace for message, _, _ in each.entries], *span):
            each.ledger = await each.ports.ledger.read(each.ids())
        decisions += _fold(each, ctx)
    passing("resolver.before_publish")
    await bus.publish(decisions)
    passing("resolver.before_ledger")
    for each in work:
        moved = {document_id: each.ledger[document_id] for document_id in each.moved}
        if moved:
            await each.ports.ledger.save_fold(moved)
        passing("resolver.before_refresh")
        failures += await _read_again(each, bus, ctx)
    return failures


async def _read_again(work: _Work, bus: Bus, ctx: HandlerContext) -> Failures:
    """Append the rows that the ledger asks for; return the entries whose row does not fit into the log.

    Other entries of such a document are not affected: each causes the row to be read again, and the row may fit by
    then. Entries that were folded before the last one ask for nothing: with a damaged version, each refresh would ask
    for another.
    """
    latest = work.moved | work.latest
    due = [i for i in work.ids() if i in latest and work.ledger[i].state.refresh]
    refused = await append_refreshes(
        work.ports,
        due,
        bus=bus,
        ctx=ctx,
        source=SOURCE,
        traces={i: work.asking[i].trace for i in due if i in work.asking},
        causes=work.causes,
        unread=False,
    )
    failures: Failures = []
    for document_id, error in refused.items():
        reason = f"the row does not fit into the log, so Qdrant does not have it: {error}"
        if document_id in work.asking:
            failures.append(Failure(work.asking[document_id], Refused(reason)))
        else:
            log.warning("%s: %s", document_key(work.ports.name, document_id), reason)
    return failures


def _by_collection(batch: Batch, collections: Collections, ctx: HandlerContext) -> tuple[list[_Work], Failures]:
    work: dict[str, _Work] = {}
    failures: Failures = []
    for message in batch:
        try:
            entry, _ = decode(message.record, DocumentChanged)
            ports = collection_of(collections, entry.collection)
            version = version_of(ctx.epoch, message.record.offset)
        except InvalidEvent as error:
            failures.append(Failure(message, error))
            continue
        work.setdefault(entry.collection, _Work(ports)).entries.append((message, entry, version))
    return list(work.values()), failures


def _fold(work: _Work, ctx: HandlerContext) -> list[Outgoing]:
    decisions: list[Outgoing] = []
    for message, entry, version in work.entries:
        row = work.ledger.get(entry.id, LedgerRow())
        cause = Cause(entry.cause, entry.cause_version) if entry.origin == "refresh" and entry.cause else None
        if version <= row.state.version:
            # Folded before: its decision was published before the ledger moved. The row may still have to be read.
            if version == row.state.version:
                work.latest.add(entry.id)
            if row.state.refresh and entry.origin != "producer":
                _ask(work, message, entry.id, cause)
            continue
        verdict, state = fold(row.state, version, entry)
        work.ledger[entry.id] = replace(row, state=state)
        work.moved.add(entry.id)
        if verdict is Verdict.TAKES_EFFECT:
            decisions.append(_decision(message, entry, version, ctx))
        overtaken = _overtaken(work, entry.id, cause, verdict, reads_again=state.refresh)
        decisions += [_superseded(message, entry, each, ctx) for each in overtaken]
        if verdict is Verdict.READ_AGAIN:
            _ask(work, message, entry.id, cause)
    return decisions


def _ask(work: _Work, message: Message, document_id: str, cause: Cause | None) -> None:
    """Note which entry causes a row to be read again: that of an event that waits for the row, or else the last."""
    if cause:
        work.causes[document_id] = cause
    if cause or document_id not in work.causes:
        work.asking[document_id] = message


def _overtaken(
    work: _Work, document_id: str, cause: Cause | None, verdict: Verdict, *, reads_again: bool
) -> list[Cause]:
    """Return the events whose rows were overtaken on their way to Qdrant; keep those whose rows are to be read.

    An overtaking entry is above the version that the event became, but not above the entry that carries its row.
    """
    overtaken: list[Cause] = []
    waiting = work.causes.get(document_id)
    if waiting == cause:  # another reading of the same row
        work.causes.pop(document_id, None)
    elif waiting and (not reads_again or (cause and verdict is Verdict.READ_AGAIN)):
        overtaken.append(work.causes.pop(document_id))
    if cause and verdict not in {Verdict.TAKES_EFFECT, Verdict.READ_AGAIN}:
        overtaken.append(cause)
    return overtaken


def _resolved(entry: DocumentChanged, version: int) -> DocumentResolved:
    return DocumentResolved(
        collection=entry.collection,
        id=entry.id,
        version=version,
        origin=entry.origin,
        deleted=entry.deleted,
        content=entry.content,
        content_hash=entry.content_hash,
        omitted=entry.omitted,
        cause=entry.cause,
        occurred_at_ms=entry.occurred_at_ms,
    )


def _superseded(message: Message, entry: DocumentChanged, cause: Cause, ctx: HandlerContext) -> Outgoing:
    event = _resolved(entry, cause.version).model_copy(update={"origin": "refresh", "cause": cause.event_id})
    return written(message, event, "qdrant", "superseded", ctx)


def _decision(message: Message, entry: DocumentChanged, version: int, ctx: HandlerContext) -> Outgoing:
    key = document_key(entry.collection, entry.id)
    resolved = _resolved(entry, version)
    return ctx.emit(resolved, RESOLVED, key, event_id=f"{key}@{version}", source=SOURCE, trace=message.trace)


def lost_entry(message: Message, error: Exception, ctx: HandlerContext) -> list[Outgoing]:
    """Return the outcome that is published with the dead letter of an entry, if any.

    It is the outcome of a producer's event that no store gets any more, or the outcome in Qdrant of the event whose row
    the entry brings.
    """
    try:
        entry, _ = decode(message.record, DocumentChanged)
    except InvalidEvent:
        return []
    reason = str(error)[:1000]
    if entry.origin == "producer":
        event = _resolved(entry, version_of(ctx.epoch, message.record.offset))
        return [written(message, event, None, "dead_lettered", ctx, reason)]
    if entry.origin != "refresh" or not entry.cause:
        return []
    return [written(message, _resolved(entry, entry.cause_version), "qdrant", "dead_lettered", ctx, reason)]


async def save_refused_fold(failure: Failure, *, collections: Collections, ctx: HandlerContext) -> None:
    """Save the fold of an entry whose decision the broker refused, once its dead letter is published.

    Otherwise the end of a wait that the entry brings would be missed for good, and no repair could take effect. A
    producer's entry is left out: the change whose echo it would wait for is never written.
    """
    try:
        entry, _ = decode(failure.message.record, DocumentChanged)
        ledger = collection_of(collections, entry.collection).ledger
    except InvalidEvent:
        return
    row = (await ledger.read([entry.id])).get(entry.id, LedgerRow())
    version = version_of(ctx.epoch, failure.message.record.offset)
    if entry.origin != "producer" and version > row.state.version:
        await ledger.save_fold({entry.id: replace(row, state=fold(row.state, version, entry)[1])})
