"""A backfill from settings to result: open one collection, refuse if changes would be lost, and close it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from connectors.addresses import brokers_of
from connectors.errors import Misconfigured
from connectors.kafka.bus import AiokafkaBus
from connectors.kafka.offsets import KafkaOffsets
from connectors.sql.databases import LegacyConnector
from connectors.telemetry import Telemetry
from connectors.vector_ports import Storage
from domain.rollout.phases import PHASES
from migration.backfill.ranges import BackfillPorts
from migration.backfill.run import BackfillOptions, Progress, backfill
from migration.capture.connectors import captured_epoch
from migration.context import HandlerContext, now_ms
from migration.lag import RoleReads, pipeline, role_lags
from migration.opener import open_database, open_embedder, open_vectors, stores_of
from migration.refresh import append_refreshes
from migration.rollout.states import current_phase
from migration.state import CollectionState
from schemas.keys import FIRST_EPOCH
from schemas.settings import Settings
from schemas.tasks import BackfillState
from topics.captures import Capture

SOURCE = "crossfade/backfill"


async def backfill_collection(
    settings: Settings,
    home: Path,
    name: str,
    options: BackfillOptions,
    *,
    say: Callable[[str], None],
    progress: Progress,
) -> BackfillState:
    """Backfill one collection. Raises Misconfigured if changes would be missed meanwhile, and as `backfill` does."""
    collection = settings.collections[name]
    async with AsyncExitStack() as resources:
        legacy = await open_database(resources, settings, name)
        capture = await _ready(settings, name, legacy)
        embedder = await open_embedder(resources, settings, home, name, say)
        vectors = await open_vectors(resources, settings, home)
        storage = Storage(collection.quantization, collection.on_disk)
        await vectors.prepare(name, embedder.dimension, legacy.table.description.metadata, storage)
        stores = stores_of(settings, name, legacy, vectors, embedder.dimension)
        bus = AiokafkaBus(settings.kafka)
        resources.push_async_callback(bus.close)
        offsets = await resources.enter_async_context(KafkaOffsets(brokers_of(settings.kafka), collection=name))
        ctx = HandlerContext(now_ms, FIRST_EPOCH, Telemetry(tracing=False))
        refresh = partial(append_refreshes, stores, bus=bus, ctx=ctx, source=SOURCE)
        lags = partial(_lags, offsets, pipeline([capture.topic]))
        return await backfill(BackfillPorts(stores, embedder, refresh), legacy.tasks, options, lags, now_ms, progress)


async def _ready(settings: Settings, name: str, legacy: LegacyConnector) -> Capture:
    """Return how the collection is captured.

    Raises Misconfigured if it is quarantined, if its phase writes nothing to Qdrant, or if it was never captured: a row
    that changes after it was read would keep its old content in Qdrant.
    """
    collection = settings.collections[name]
    phase = await current_phase(settings.kafka, CollectionState(legacy.ledger, name), collection)
    if not PHASES[phase].writes_qdrant:
        raise Misconfigured(f"{name} is in phase {phase!r}: its changes are not written to Qdrant")
    if await CollectionState(legacy.ledger, name).reason():
        raise Misconfigured(f"{name} is quarantined; `crossfade migrate status {name}` says why and how to go on")
    capture = await CollectionState(legacy.ledger, name).capture(settings.kafka, collection)
    if capture is None or await captured_epoch(legacy.ledger, name) is None:
        raise Misconfigured(
            f"{name} is not captured yet, so changes made meanwhile would be missed; start `crossfade worker` first"
        )
    return capture


async def _lags(offsets: KafkaOffsets, reads: Sequence[RoleReads]) -> Mapping[str, tuple[int, float | None]]:
    return {each.role: (each.messages, each.seconds) for each in await role_lags(offsets, reads)}
