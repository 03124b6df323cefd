"""Opens the stores and models of the configured collections. Refuses to start if anything would break the protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

from connectors.addresses import brokers_of, dsn_of
from connectors.errors import CrossfadeError, Misconfigured, StoreUnavailable
from connectors.kafka.admin import partition_counts
from connectors.kafka.bus import AiokafkaBus
from connectors.ports import Embedder, Ledger
from connectors.qdrant import open_vector_store, stored_dimension
from connectors.sql.databases import LegacyConnector, open_legacy
from connectors.vector_ports import Storage, VectorStore
from domain.quarantine import Quarantine, Reason
from migration.collection import CollectionPorts, CollectionStores
from migration.epochs import EPOCH, Epochs, epochs_of, share
from migration.rollout.states import RolloutStates, recorded_state
from migration.state import CollectionState, log_partitions, set_log_partitions
from schemas.keys import FIRST_EPOCH
from schemas.settings import Collection, Settings
from topics.catalogue import CATALOGUE, LOG

if TYPE_CHECKING:
    from connectors.embedding.service import EmbeddingService

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Opened:
    """Everything that agents and commands use. `close` releases all of it.

    `quarantines` has the collections that were found quarantined or had to be quarantined. A collection whose Qdrant
    collection does not fit its model is suspended. `away` has the collections that could not be opened, each with the
    error of its database.
    """

    settings: Settings
    bus: AiokafkaBus
    vectors: VectorStore
    collections: dict[str, CollectionPorts]
    epochs: Epochs
    resources: AsyncExitStack
    quarantines: dict[str, Quarantine] = field(default_factory=dict)
    opener: Opener | None = None
    away: dict[str, str] = field(default_factory=dict)

    async def close(self) -> None:
        """Close every connection and engine in reverse order of opening."""
        await self.resources.aclose()


@dataclass(slots=True)
class Opener:
    """Opens collections one by one: at the start, or later when a database can be used again.

    `states` are those of the rollouts that have begun.
    """

    settings: Settings
    home: Path
    progress: Progress
    vectors: VectorStore
    partitions: int
    resources: AsyncExitStack
    embedders: dict[tuple[str, int, int], EmbeddingService] = field(default_factory=dict)
    states: RolloutStates = field(default_factory=RolloutStates)

    async def database(self, name: str) -> LegacyConnector:
        """Open a collection's database and prepare crossfade's own tables. Raises Misconfigured, StoreUnavailable."""
        return await open_database(self.resources, self.settings, name)

    async def collection(self, name: str, legacy: LegacyConnector) -> tuple[CollectionPorts, Quarantine | None]:
        """Return the ports of a collection, and its quarantine if it is quarantined.

        Raises Misconfigured if the log's number of partitions changed, and StoreUnavailable.
        """
        collection = self.settings.collections[name]
        embedder = await self._embedder(name)
        await _check_partitions(legacy.ledger, self.partitions, name)
        quarantine = await _prepared(name, collection, legacy, self.vectors, embedder)
        stores = stores_of(self.settings, name, legacy, self.vectors, embedder.dimension)
        allowed = quarantine is None or quarantine.writes_qdrant
        kept = CollectionState(legacy.ledger, name)
        with suppress(Misconfigured):  # a copy that cannot be read is the conductor's to report
            self.states.take(await recorded_state(kept))
        ports = CollectionPorts(
            **{each.name: getattr(stores, each.name) for each in fields(stores)},
            settings=collection,
            embedder=embedder,
            text_search=legacy.text_search,
            vector_search=legacy.vector_search,
            capture=await kept.capture(self.settings.kafka, collection),
            moved_to=self.states.phase(name),
            suspended=not allowed,
        )
        return ports, quarantine

    async def _embedder(self, name: str) -> Embedder:
        collection = self.settings.collections[name]
        key = (collection.model, collection.chunk_tokens, collection.chunk_overlap)
        if key not in self.embedders:
            loaded = next((each for (model, _, _), each in self.embedders.items() if model == collection.model), None)
            self.embedders[key] = (
                await open_embedder(self.resources, self.settings, self.home, name, self.progress)
                if loaded is None
                else loaded.with_chunking(collection.chunk_tokens, collection.chunk_overlap)
            )
        return self.embedders[key]


async def open_database(resources: AsyncExitStack, settings: Settings, name: str) -> LegacyConnector:
    """Open a collection's database and prepare crossfade's own tables. Raises Misconfigured, StoreUnavailable."""
    collection = settings.collections[name]
    legacy = await open_legacy(name, collection, dsn_of(name, collection))
    try:
        await legacy.prepare()
    except BaseException:
        await legacy.close()
        raise
    resources.push_async_callback(legacy.close)
    return legacy


async def open_vectors(resources: AsyncExitStack, settings: Settings, home: Path) -> VectorStore:
    """Open Qdrant. The store connects at the first call."""
    vectors = await open_vector_store(settings.qdrant, home)
    resources.push_async_callback(vectors.close)
    return vectors


async def open_embedder(
    resources: AsyncExitStack, settings: Settings, home: Path, name: str, progress: Progress
) -> EmbeddingService:
    """Open the model of a collection. Raises Misconfigured, EmbeddingUnavailable."""
    # Both modules take a second to import, and most tasks may not need them.
    from connectors.embedding.service import open_embedding  # noqa: PLC0415
    from connectors.embedding.settings import EmbeddingSettings  # noqa: PLC0415

    wanted = EmbeddingSettings.of(settings.embedding, settings.collections[name])
    embedder = await open_embedding(wanted, home / "models", progress)
    resources.push_async_callback(embedder.close)
    return embedder


async def open_stores(
    resources: AsyncExitStack, settings: Settings, home: Path, name: str, dimension: int | None = None
) -> CollectionStores:
    """Open the stores of one collection, without its model.

    Its vectors have the given `dimension`. Without one, the dimension is read from Qdrant. Raises Misconfigured if the
    table or the Qdrant collection is missing, and StoreUnavailable.
    """
    legacy = await open_database(resources, settings, name)
    if dimension is None:
        dimension = await stored_dimension(settings.qdrant, home, name)
    if dimension is None:
        raise Misconfigured(f"{name} is not in Qdrant yet; a worker or `crossfade backfill {name}` brings it there")
    stores = stores_of(settings, name, legacy, await open_vectors(resources, settings, home), dimension)
    return replace(stores, model=await CollectionState(legacy.ledger, name).model())


def stores_of(
    settings: Settings, name: str, legacy: LegacyConnector, vectors: VectorStore, dimension: int
) -> CollectionStores:
    """Return the stores of a collection whose database and vector store are open."""
    return CollectionStores(
        name,
        legacy.table,
        legacy.bulk,
        legacy.ledger,
        vectors,
        dimension,
        tasks=legacy.tasks,
        checksums=legacy.checksums,
        max_text_bytes=settings.kafka.max_text_bytes,
    )


async def open_all(
    settings: Settings,
    home: Path,
    progress: Progress,
    *,
    names: Sequence[str] | None = None,
    states: RolloutStates | None = None,
) -> Opened:
    """Open the bus, and the stores and models of every configured collection.

    `states` are those of the rollouts. With `names`, only those collections are opened. Of these, a
    collection whose database cannot be used is left out too: it is in `Opened.away` with its error.

    Raises Misconfigured if a table, a topic or the number of partitions changed, and StoreUnavailable if a store does
    not answer or no database can be used.
    """
    if not settings.collections:
        raise Misconfigured("no collection is configured")
    async with AsyncExitStack() as resources:
        bus = AiokafkaBus(settings.kafka)
        resources.push_async_callback(bus.close)
        await bus.open()
        partitions = await _log_partitions(settings)
        vectors = await open_vectors(resources, settings, home)
        opener = Opener(settings, home, progress, vectors, partitions, resources, states=states or RolloutStates())
        opened = Opened(settings, bus, vectors, {}, Epochs(), resources, opener=opener)
        # Concurrently: an unreachable database takes its whole time limit.
        wanted = list(settings.collections) if names is None else names
        found = await asyncio.gather(*(opener.database(n) for n in wanted), return_exceptions=True)
        for name, legacy in zip(wanted, found, strict=True):
            if isinstance(legacy, CrossfadeError) and names is not None:
                opened.away[name] = str(legacy)
            elif isinstance(legacy, BaseException):
                raise legacy
            else:
                ports, quarantine = await opener.collection(name, legacy)
                opened.collections[name] = ports
                opened = replace(
                    opened, quarantines=opened.quarantines | ({} if quarantine is None else {name: quarantine})
                )
        if not opened.collections:
            raise StoreUnavailable("; ".join(f"{name}: {why}" for name, why in opened.away.items()))
        opener.resources = resources.pop_all()
        epochs = await epochs_of([ports.ledger for ports in opened.collections.values()])
        await share(epochs, opened.collections)
        return replace(opened, epochs=epochs, resources=opener.resources)


async def _prepared(
    name: str, collection: Collection, legacy: LegacyConnector, vectors: VectorStore, embedder: Embedder
) -> Quarantine | None:
    """Prepare a collection in Qdrant; return its quarantine: an earlier one, or one for points of another model.

    A finding is recorded: Qdrant misses changes from now on, and it still lacks them when the model is set back.
    """
    state = CollectionState(legacy.ledger, name)
    quarantine = await state.quarantine()
    try:
        storage = Storage(collection.quantization, collection.on_disk)
        await vectors.prepare(name, embedder.dimension, legacy.table.description.metadata, storage)
        fingerprint = crc32(embedder.model_key.encode())
        if await state.claim_model(fingerprint) != fingerprint:
            if await vectors.count(name):
                raise Misconfigured(f"not by {embedder.model_key}")
            await state.set_model(fingerprint)
    except Misconfigured as error:
        await state.set_reason(Reason.MODEL)
        return Quarantine(name, Reason.MODEL, str(error))
    return quarantine


async def _log_partitions(settings: Settings) -> int:
    names = [topic.name for topic in CATALOGUE]
    counts = await partition_counts(brokers_of(settings.kafka), names)
    missing = [name for name in names if name not in counts]
    if missing:
        raise Misconfigured(f"topics are missing: {', '.join(missing)}; run: crossfade topics apply")
    same = {topic.name: counts[topic.name] for topic in CATALOGUE if topic.partitions == "log"}
    if len(set(same.values())) > 1:
        raise Misconfigured(f"the working topics must have one number of partitions, they have {same}")
    return counts[LOG]


async def _check_partitions(ledger: Ledger, partitions: int, collection: str) -> None:
    recorded = await log_partitions(ledger)
    if recorded is None:
        await ledger.set_meta(EPOCH, FIRST_EPOCH)
        await set_log_partitions(ledger, partitions)
    elif recorded != partitions:
        raise Misconfigured(
            f"{LOG} has {partitions} partitions, the ledger of {collection!r} was written with {recorded}: "
            "versions would go down. Restore the topic's number of partitions; where the topic was made again so, run: "
            "crossfade topics adopt"
        )


async def check_log(settings: Settings, stores: CollectionStores) -> None:
    """Refuse to append to a log whose number of partitions differs from the recorded one: versions would go down.

    Raises Misconfigured, StoreUnavailable.
    """
    recorded = await log_partitions(stores.ledger)
    counts = await partition_counts(brokers_of(settings.kafka), [LOG])
    if LOG not in counts:
        raise Misconfigured(f"topics are missing: {LOG}; run: crossfade topics apply")
    if recorded is not None and recorded != counts[LOG]:
        raise Misconfigured(f"{LOG} has {counts[LOG]} partitions, the ledger was written with {recorded}")
