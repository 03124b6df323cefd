"""What a verification reads and writes: the ports of one collection. Only what is needed is opened, and no model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from connectors.addresses import brokers_of, dsn_of
from connectors.errors import Misconfigured
from connectors.kafka.admin import partition_counts
from connectors.ports import BulkTable, Checksums, Ledger, LegacyTable, TaskStore, VectorStore
from connectors.qdrant import open_vector_store, stored_dimension
from connectors.sql.databases import open_legacy
from domain.legacy import TableDescription
from migration.state import CollectionState, log_partitions
from schemas.settings import Settings
from topics.catalogue import LOG


@dataclass(frozen=True, slots=True)
class Stores:
    """One collection as the verifier sees it.

    `dimension` is the length of its vectors; `model` the CRC-32 of the model key that its points must carry, None where
    none is recorded. `checksums` None: every row is read. `max_text_bytes` None: no text is too long for Qdrant.
    """

    name: str
    table: LegacyTable
    bulk: BulkTable
    ledger: Ledger
    vectors: VectorStore
    dimension: int
    model: int | None = None
    tasks: TaskStore | None = None
    checksums: Checksums | None = None
    max_text_bytes: int | None = None

    @property
    def description(self) -> TableDescription:
        """The table's columns by use."""
        return self.table.description


@asynccontextmanager
async def open_stores(settings: Settings, home: Path, name: str) -> AsyncIterator[Stores]:
    """Open one collection.

    Raises Misconfigured for a table or a collection in Qdrant that is not there, StoreUnavailable.
    """
    collection = settings.collections[name]
    async with AsyncExitStack() as resources:
        legacy = await open_legacy(name, collection, dsn_of(name, collection))
        resources.push_async_callback(legacy.close)
        await legacy.prepare()
        dimension = await stored_dimension(settings.qdrant, home, name)
        if dimension is None:
            raise Misconfigured(f"{name} is not in Qdrant yet; a worker or `crossfade backfill {name}` brings it there")
        vectors = await open_vector_store(settings.qdrant, home)
        resources.push_async_callback(vectors.close)
        model = await CollectionState(legacy.ledger, name).model()
        yield Stores(
            name,
            legacy.table,
            legacy.bulk,
            legacy.ledger,
            vectors,
            dimension,
            model,
            legacy.tasks,
            legacy.checksums,
            settings.kafka.max_text_bytes,
        )


async def check_log(settings: Settings, stores: Stores) -> None:
    """Refuse to append to a log whose number of partitions is not the recorded one: versions would go down.

    Raises Misconfigured, StoreUnavailable.
    """
    recorded = await log_partitions(stores.ledger)
    counts = await partition_counts(brokers_of(settings.kafka), [LOG])
    if LOG not in counts:
        raise Misconfigured(f"topics are missing: {LOG}; run: crossfade topics apply")
    if recorded is not None and recorded != counts[LOG]:
        raise Misconfigured(f"{LOG} has {counts[LOG]} partitions, the ledger was written with {recorded}")
