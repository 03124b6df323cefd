"""The object that an adapter of a legacy database returns: all ports of one collection. No adapter is here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from connectors.ports import BulkTable, Checksums, Ledger, LegacyTable, SearchBackend, TaskStore


@dataclass(frozen=True, slots=True)
class LegacyConnector:
    """The ports of one collection over one bounded pool of connections.

    `vector_search` is present only for a pgvector column. `prepare` creates crossfade's own tables if they are missing
    (`crossfade_ledger`, `crossfade_meta`, `crossfade_tasks`, `crossfade_identities`), in the schema or database of the
    collection's table.
    """

    table: LegacyTable
    bulk: BulkTable
    checksums: Checksums
    ledger: Ledger
    tasks: TaskStore
    text_search: SearchBackend
    vector_search: SearchBackend | None
    prepare: Callable[[], Awaitable[None]]

    async def close(self) -> None:
        """Close the connections."""
        await self.table.close()
