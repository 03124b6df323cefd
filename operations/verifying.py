"""The difference finder: every document of the legacy table against Qdrant by key, version and content hash, both ways.

Streams: at no time is more than one page of either store in memory. A document that differs is looked at again after
`settle_s`, because a write on its way is pending, not different. What it cannot see is in docs/verification.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from agents.batch import CollectionPorts, Surroundings
from agents.refresh import append_refreshes
from connectors.ports import Bus, PointPage
from domain.comparison import Difference, LegacyFacts, compare
from domain.keys import document_key
from domain.ledger import LedgerRow
from domain.legacy import LegacyRow
from schemas.cloudevents import encode
from schemas.content import content_hash
from schemas.documents import DifferenceFound, DifferenceRepaired
from topics.catalogue import DIFFERENCES

SOURCE = "crossfade/verifier"
Progress = Callable[[int], None]


@dataclass(slots=True)
class Verification:
    """What a run saw: documents compared in each direction, and what differed after the second look."""

    collection: str
    legacy_documents: int = 0
    vector_documents: int = 0
    settled: int = 0
    repaired: int = 0
    differences: list[Difference] = field(default_factory=list)
    more_differences: int = 0

    @property
    def found(self) -> int:
        """Number of differences, those included that are not listed one by one."""
        return len(self.differences) + self.more_differences


@dataclass(frozen=True, slots=True)
class Bounds:
    """Documents a page, seconds before the second look, and how many differences are listed one by one."""

    page: int = 500
    settle_s: float = 2.0
    listed: int = 1000


async def verify(
    ports: CollectionPorts,
    *,
    bus: Bus,
    around: Surroundings,
    bounds: Bounds,
    repair: bool,
    progress: Progress,
) -> Verification:
    """Compare both stores of a collection; publish each difference, and with `repair` append its refresh entry.

    Raises StoreUnavailable where a store does not answer: what was not read is not equal.
    """
    run = Verification(ports.name)
    async for suspects in _suspects(ports, run, bounds, progress):
        await asyncio.sleep(bounds.settle_s)
        confirmed = await _look_again(ports, suspects)
        run.settled += len(suspects) - len(confirmed)
        await _report(ports, confirmed, run, bus, around, bounds, repair)
    return run


async def _suspects(
    ports: CollectionPorts, run: Verification, bounds: Bounds, progress: Progress
) -> AsyncIterator[list[str]]:
    """Yield pages of documents that differ at first sight: missing or stale by the table, then ghosts by Qdrant."""
    after: str | None = None
    while rows := await ports.table.scan(after, bounds.page):
        ids = [row.id for row in rows]
        differences = await _compare(ports, ids, {row.id: row for row in rows})
        run.legacy_documents += len(rows)
        progress(run.legacy_documents + run.vector_documents)
        if differences:
            yield [difference.id for difference in differences]
        after = ids[-1]
    offset: str | None = None
    while True:
        page = await ports.vectors.scan(ports.name, offset, bounds.page)
        live = [i for i, points in page.documents.items() if any(not p.deleted and p.chunk == 0 for p in points)]
        visible = [i for i, points in page.documents.items() if any(not p.deleted for p in points)]
        existing = await ports.table.existing(visible) if visible else set()
        run.vector_documents += len(live)
        progress(run.legacy_documents + run.vector_documents)
        ghosts = await _once(ports, page, [document_id for document_id in visible if document_id not in existing])
        if ghosts:
            yield ghosts
        if page.next is None:
            return
        offset = page.next


async def _once(ports: CollectionPorts, page: PointPage, ids: Sequence[str]) -> list[str]:
    """Return those of the documents whose first visible chunk is on this page: a long one has points on several."""
    stored = await ports.vectors.stored(ports.name, ids) if ids else {}
    first = {i: min((p.chunk for p in points if not p.deleted), default=None) for i, points in stored.items()}
    return [i for i in ids if any(not p.deleted and p.chunk == first.get(i) for p in page.documents[i])]


async def _look_again(ports: CollectionPorts, ids: Sequence[str]) -> list[Difference]:
    return await _compare(ports, ids, await ports.table.rows(ids))


async def _compare(ports: CollectionPorts, ids: Sequence[str], rows: dict[str, LegacyRow]) -> list[Difference]:
    stored = await ports.vectors.stored(ports.name, ids)
    ledger = await ports.ledger.read(ids)
    found = (compare(i, _facts(rows.get(i), ledger.get(i)), stored.get(i, ())) for i in ids)
    return [difference for difference in found if difference is not None]


def _facts(row: LegacyRow | None, ledger: LedgerRow | None) -> LegacyFacts | None:
    if row is None:
        return None
    return LegacyFacts(row.version, content_hash(row.content), ledger.chunk_count if ledger else None)


async def _report(
    ports: CollectionPorts,
    confirmed: Sequence[Difference],
    run: Verification,
    bus: Bus,
    around: Surroundings,
    bounds: Bounds,
    repair: bool,
) -> None:
    room = max(0, bounds.listed - len(run.differences))
    run.differences += confirmed[:room]
    run.more_differences += len(confirmed[room:])
    if repair:
        await append_refreshes(ports, [d.id for d in confirmed], bus=bus, around=around, source=SOURCE)
        run.repaired += len(confirmed)
    events: list[DifferenceFound | DifferenceRepaired] = [
        DifferenceFound(
            collection=ports.name,
            id=d.id,
            kind=d.kind,
            detail=d.detail,
            legacy_version=d.legacy_version,
            vector_version=d.vector_version,
        )
        for d in confirmed
    ]
    if repair:
        events += [DifferenceRepaired(collection=ports.name, id=d.id, kind=d.kind) for d in confirmed]
    now = around.clock()
    await bus.publish(
        [
            encode(
                event,
                topic=DIFFERENCES,
                key=document_key(ports.name, event.id),
                event_id=f"{event.ce_type}/{document_key(ports.name, event.id)}/{now}",
                source=SOURCE,
                time_ms=now,
            )
            for event in events
        ]
    )
