"""A backfill from settings to its result: opens one collection, refuses what would lose changes, and closes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from connectors.addresses import brokers_of, dsn_of
from connectors.errors import Misconfigured
from connectors.kafka.bus import AiokafkaBus
from connectors.kafka.offsets import KafkaOffsets
from connectors.ports import Storage
from connectors.qdrant import open_vector_store
from connectors.sql.databases import LegacyConnector, open_legacy
from connectors.telemetry import Telemetry
from domain.keys import FIRST_EPOCH
from domain.phases import PHASES
from domain.tasks import BackfillState
from migration.backfill.ranges import BackfillPorts
from migration.backfill.run import Progress, Wanted, backfill
from migration.capture.connectors import captured_epoch
from migration.context import HandlerContext, now_ms
from migration.lag import RoleReads, pipeline, role_lags
from migration.refresh import append_refreshes
from migration.state import CollectionState
from migration.verify.resample import collection_embedder
from migration.verify.stores import Stores
from schemas.settings import Settings
from topics.captures import Capture

SOURCE = "crossfade/backfill"


async def backfill_collection(
    settings: Settings, home: Path, name: str, wanted: Wanted, *, say: Callable[[str], None], progress: Progress
) -> BackfillState:
    """Backfill one collection. Raises Misconfigured where changes would be missed meanwhile, and as `backfill` does."""
    collection = settings.collections[name]
    async with AsyncExitStack() as resources:
        legacy = await open_legacy(name, collection, dsn_of(name, collection))
        resources.push_async_callback(legacy.close)
        await legacy.prepare()
        capture = await _ready(settings, name, legacy)
        vectors = await open_vector_store(settings.qdrant, home)
        resources.push_async_callback(vectors.close)
        embedder = await resources.enter_async_context(collection_embedder(settings, home, name, say))
        storage = Storage(collection.quantization, collection.on_disk)
        await vectors.prepare(name, embedder.dimension, legacy.table.description.metadata, storage)
        bus = AiokafkaBus(settings.kafka)
        resources.push_async_callback(bus.close)
        offsets = KafkaOffsets(brokers_of(settings.kafka))
        resources.push_async_callback(offsets.close)
        refreshed = Stores(name, legacy.table, legacy.bulk, legacy.ledger, vectors, embedder.dimension)
        ctx = HandlerContext(now_ms, FIRST_EPOCH, Telemetry(tracing=False))
        refresh = partial(append_refreshes, refreshed, bus=bus, ctx=ctx, source=SOURCE)
        given = collection.embedding is not None
        sides = BackfillPorts(name, legacy.bulk, vectors, embedder, refresh, given, settings.kafka.max_text_bytes)
        return await backfill(
            sides, legacy.tasks, wanted, partial(_lags, offsets, pipeline([capture.topic])), now_ms, progress
        )


async def _ready(settings: Settings, name: str, legacy: LegacyConnector) -> Capture:
    """Return how the collection is captured.

    Raises Misconfigured where it is stopped, where its phase writes nothing to Qdrant, or where it was never captured:
    a row that changes after it was read would stay as it was read.
    """
    collection = settings.collections[name]
    if not PHASES[collection.phase].writes_qdrant:
        raise Misconfigured(f"{name} is in phase {collection.phase!r}: its changes are not written to Qdrant")
    if await CollectionState(legacy.ledger, name).reason():
        raise Misconfigured(f"{name} is stopped; `crossfade migrate status {name}` says why and how to go on")
    capture = await CollectionState(legacy.ledger, name).capture(settings.kafka, collection)
    if capture is None or await captured_epoch(legacy.ledger, name) is None:
        raise Misconfigured(
            f"{name} is not captured yet, so changes made meanwhile would be missed; start `crossfade worker` first"
        )
    return capture


async def _lags(offsets: KafkaOffsets, reads: Sequence[RoleReads]) -> Mapping[str, tuple[int, float | None]]:
    return {each.role: (each.messages, each.seconds) for each in await role_lags(offsets, reads)}
