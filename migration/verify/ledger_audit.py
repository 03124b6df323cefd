"""The ledger part of a repair: reset impossible values, and end waits that nothing else will end.

The order of reading is the proof. Rows and points are read first, then the ends of the topics and of the database's
log: whatever lies beyond an end was not written by crossfade. A wait is seen before the barrier and again after it has
drained: by then, what it waits for has been captured or was lost.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence

from domain.fold import LedgerState
from domain.ledger import LedgerRow
from domain.points import StoredChunk, tombstones_for
from domain.repair import Ends, evidence_of, impossible_versions
from migration.collection import CollectionStores
from migration.verify.ports import Waits
from migration.witnesses import forget_witnesses
from schemas.documents import Evidence
from schemas.keys import each_packed, packed_id, point_id

EndsOf = Callable[[Collection[str]], Awaitable[Mapping[str, Ends]]]
"""Returns, for each document, the current ends of the topics and of the log. Raises StoreUnavailable, Misconfigured."""
_PAGE = 1000
_MOST_CHUNKS = 100_000
_CHUNKS = 8  # always looked up by their point ids, even if no point names the document any more


async def put_back(
    stores: CollectionStores, ids: Sequence[str], ends_of: EndsOf, waited: Waits
) -> dict[str, Evidence | None]:
    """Reset values that no history brings about; return what each document's refresh reports about its ledger row."""
    rows = await stores.ledger.read(ids)
    named = await stores.vectors.stored(stores.name, ids)
    own = {one: packed_ids(stores.name, one, rows.get(one), named.get(one, ())) for one in ids}
    held = await stores.vectors.points(stores.name, b"".join(own.values()))
    ends = await ends_of(ids)
    misplaced = [one for one in ids if len(named.get(one, ())) > len(held.get(one, ()))]
    removed = list(dict.fromkeys([*misplaced, *_strange(ids, held, ends)]))
    await forget_witnesses(stores.ledger, stores.name, {point for one in removed for point in each_packed(own[one])})
    for one in removed:
        await stores.vectors.forget(stores.name, one, own[one], ends[one].newest)
    evidence: dict[str, Evidence | None] = {}
    for one, row in rows.items():
        impossible = impossible_versions(row, ends[one])
        if impossible:
            table = await stores.table.rows([one])
            version = table[one].version if one in table else None
            await stores.ledger.put_back(one, impossible_versions(row, ends[one], version))
        evidence[one] = evidence_of(row, ends[one], waited.get(one))
    return evidence


async def unsound(stores: CollectionStores, ends_of: EndsOf, passed: Callable[[], Awaitable[bool]]) -> dict[str, int]:
    """Return documents whose ledger rows or tombstones would misdirect a later change, and the versions waited for.

    These are documents whose ledger row holds impossible values or a wait that remains after the barrier has drained
    (`passed`), and documents that count as removed but have a row in the table. Documents without visible points, which
    no comparison covers, are also returned if they have tombstones of impossible versions.
    """
    found: dict[str, int] = {}
    waiting: dict[str, LedgerState] = {}
    async for rows in _pages(stores):
        gone = [one for one, row in rows.items() if not row.chunk_count]
        held = await stores.vectors.stored(stores.name, gone) if gone else {}
        ends = await ends_of(rows)
        strange = {*_strange(gone, held, ends)}
        removed = [one for one, row in rows.items() if row.state.removed]
        present = await stores.table.existing(removed) if removed else set()
        for one, row in rows.items():
            if one in strange or impossible_versions(row, ends[one]) or evidence_of(row, ends[one]) is not None:
                found[one] = row.state.written
            elif row.state.pending or row.state.refresh or one in present:
                waiting[one] = row.state
    if waiting and await passed():
        for part in _parts(list(waiting)):
            again = await stores.ledger.read(part)
            found |= {one: row.state.written for one, row in again.items() if _is_stuck(waiting[one], row.state)}
    return found


def packed_ids(collection: str, document_id: str, row: LedgerRow | None, named: Sequence[StoredChunk]) -> bytes:
    """Return the ids of the points that a document may have, judging by its ledger row and its points."""
    ended = max((*tombstones_for(0, named), row.chunk_count or 0 if row else 0))
    chunks = min(max(_CHUNKS, ended + 1), _MOST_CHUNKS)
    return b"".join(packed_id(point_id(collection, document_id, number)) for number in range(chunks))


def _strange(ids: Sequence[str], held: Mapping[str, Sequence[StoredChunk]], ends: Mapping[str, Ends]) -> Sequence[str]:
    """Return the documents with points of versions that crossfade cannot have written.

    A point that names another document may belong to any of these documents.
    """
    known = dict.fromkeys(ids)
    newest = max((found.newest for found in ends.values()), default=0)
    if any(not 0 <= p.version <= newest for name, points in held.items() if name not in known for p in points):
        return ids
    return [one for one in ids if any(not 0 <= p.version <= ends[one].newest for p in held.get(one, ()))]


def _is_stuck(before: LedgerState, now: LedgerState) -> bool:
    flags = (before.written, before.pending, before.removed, before.refresh)
    return flags == (now.written, now.pending, now.removed, now.refresh)


async def _pages(stores: CollectionStores) -> AsyncIterator[dict[str, LedgerRow]]:
    after = ""
    while rows := await stores.ledger.page(after, _PAGE):
        yield rows
        after = max(rows, key=lambda one: one.encode())


def _parts(ids: list[str]) -> list[list[str]]:
    return [ids[start : start + _PAGE] for start in range(0, len(ids), _PAGE)]
