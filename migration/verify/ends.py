"""The current ends of the topics and of the database's log, against which a repair checks a ledger row."""

from __future__ import annotations

from collections.abc import Collection

from connectors.addresses import brokers_of
from connectors.errors import Misconfigured
from connectors.kafka.headers import partition_of
from connectors.kafka.offsets import end_offsets
from domain.repair import Ends
from migration.capture.positions import log_end
from migration.collection import CollectionStores
from migration.epochs import epochs_of
from migration.state import CollectionState
from schemas.documents import Position
from schemas.keys import document_key, version_of
from schemas.settings import Settings
from topics.catalogue import LOG, SUBMITTED


async def ends_of(settings: Settings, stores: CollectionStores, ids: Collection[str]) -> dict[str, Ends]:
    """Return the ends for each document. Raises StoreUnavailable, Misconfigured if a topic is missing."""
    offsets = await end_offsets(brokers_of(settings.kafka), [LOG, SUBMITTED])
    log = offsets[LOG]
    epochs = await epochs_of([stores.ledger])
    position = await _position(settings, stores)
    submitted = offsets[SUBMITTED]
    newest = {one: _newest(stores.name, one, epochs.version, log) for one in ids}
    return {one: Ends(newest[one], position, submitted, epochs.producer) for one in ids}


def _newest(collection: str, document_id: str, epoch: int, log: dict[int, int]) -> int:
    end = log[partition_of(document_key(collection, document_id).encode(), len(log))]
    return version_of(epoch, end) - 1


async def _position(settings: Settings, stores: CollectionStores) -> Position:
    collection = settings.collections[stores.name]
    capture = await CollectionState(stores.ledger, stores.name).capture(settings.kafka, collection)
    if capture is None:
        return ()
    try:
        return await log_end(collection.connector, collection.dsn or "", capture)
    except Misconfigured:  # the role is not permitted to read the end, so positions are trusted
        return ()
