"""Harm beyond the protocol: triggers, and damage to any column of the ledger or any field of the points."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from msgspec import structs

from connectors.kafka.headers import partition_of
from connectors.memory.bus import MemoryBus
from connectors.memory.legacy import MemoryLegacy
from connectors.memory.vectors import MemoryVectorStore
from domain.ledger import LedgerRow
from domain.legacy import LegacyRow
from domain.points import StoredChunk
from domain.repair import Ends
from schemas.keys import document_key, version_of
from tests.simulation.places import PARTITIONS, Connector
from topics.catalogue import LOG, SUBMITTED

STATE = ("version", "written", "pending", "removed", "refresh", "legacy_position", "producer_positions")
WRITERS = ("legacy_version", "refused_version", "vector_version", "content_hash", "chunk_count", "embedding_model")
POINT = (
    "version",
    "chunk",
    "deleted",
    "content_hash",
    "tenant",
    "model",
    "text",
    "checksum",
    "vector",
    "vector_checksum",
)
COLUMNS = (
    "emptied",
    *(f"ledger {name}" for name in (*STATE, *WRITERS)),
    *(f"point {name}" for name in (*POINT, "gone", "document")),
)


def damage(legacy: MemoryLegacy, vectors: MemoryVectorStore, document_id: str, column: str, number: int) -> None:
    """Set a column of a document's ledger row, or a field of one of its points, to another value."""
    what, _, name = column.partition(" ")
    if what == "emptied":
        legacy.ledger_rows.pop(document_id, None)
    elif what == "ledger":
        row = legacy.ledger_rows.get(document_id, LedgerRow())
        if name in STATE:
            producers = ((number % PARTITIONS, 1, 10**6 if number % 2 else 0),)
            other: Any = producers if name == "producer_positions" else _other(getattr(row.state, name), number)
            changes: dict[str, Any] = {name: other}
            state = replace(row.state, **changes)
            legacy.ledger_rows[document_id] = replace(row, state=state)
        else:
            before = getattr(row, name)
            given = number % 50 if name == "chunk_count" and before is None else _other(before, number)
            fields: dict[str, Any] = {name: given}
            legacy.ledger_rows[document_id] = replace(row, **fields)
    else:
        _damage_point(vectors, legacy.name, document_id, name, number)


def _damage_point(vectors: MemoryVectorStore, collection: str, document_id: str, name: str, number: int) -> None:
    known = vectors._collections[collection]
    chunks = known.chunks.get(document_id, {})
    if not chunks:
        return
    chunk = sorted(chunks)[number % len(chunks)]
    at = chunks[chunk]
    point = known.points[at]
    if name == "gone":
        del known.points[at], chunks[chunk]
    elif name == "document":
        del chunks[chunk]
        other = f"{document_id}?" if number % 2 else f"{document_id}-"
        known.points[at] = replace(point, document_id=other)
        known.chunks.setdefault(other, {})[100_000 + number] = at
    else:
        mark: StoredChunk = structs.replace(point.mark, **{name: _other(getattr(point.mark, name), number)})
        known.points[at] = replace(point, mark=mark)


def _other(value: Any, number: int) -> Any:
    """Return another value of the same kind."""
    match value:
        case bool():
            return not value
        case tuple():
            positions: tuple[tuple[int, ...], ...] = ((), (1, 1, 0), (9, 9, 9), (1, 1, 10**9, 10**9), (-1,))
            return positions[number % len(positions)]
        case int():
            return (0, -1, number % 50, value + 1 + number % 7, version_of(1, 10**6 + number), 2**31)[number % 6]
        case float():
            return 0.5
        case bytes():
            return bytes(len(value))
    return "damaged"


def ends_of(bus: MemoryBus, legacy: MemoryLegacy, connector: Connector, epoch: int) -> Callable[[Collection[str]], Any]:
    """Return the function that gives a repair the ends of the topics and of the database's log."""

    async def ends(ids: Collection[str]) -> Mapping[str, Ends]:
        log, submitted = bus.end_offsets(LOG), bus.end_offsets(SUBMITTED)

        def newest(document_id: str) -> int:
            key = document_key(legacy.name, document_id).encode()
            return version_of(epoch, log[partition_of(key, PARTITIONS)]) - 1

        return {one: Ends(newest(one), connector.end, submitted) for one in ids}

    return ends


def trigger_of(kind: str) -> Callable[[LegacyRow], LegacyRow | None]:
    """Return the trigger of a kind."""

    def changes(row: LegacyRow) -> LegacyRow:
        text: dict[str, str | None] = {name: f"{value} changed" for name, value in row.content.text.items()}
        return replace(row, content=row.content.model_copy(update={"text": text}))

    triggers: dict[str, Callable[[LegacyRow], LegacyRow | None]] = {
        "none": lambda row: row,
        "swallows": lambda _: None,
        "strips the version": lambda row: replace(row, version=None),
        "changes": changes,
    }
    return triggers[kind]
