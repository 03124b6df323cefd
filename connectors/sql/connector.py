"""What an adapter of a legacy database hands out: the ports of one collection together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from connectors.ports import BulkTable, Checksums, Ledger, LegacyTable, SearchBackend, TaskStore


@dataclass(frozen=True, slots=True)
class LegacyConnector:
    """The ports of one collection over one bounded pool of connections.

    `vector_search` is there only for a pgvector column. `prepare` creates crossfade's own tables where they are absent
    (`crossfade_ledger`, `crossfade_meta`, `crossfade_tasks`), beside the collection's table, in its schema or database.
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
        """Give the connections back."""
        await self.table.close()
