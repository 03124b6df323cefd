"""Qdrant: adapters of the port `VectorStore` over a server, over the embedded engine, and over the engine's host.

The functions below choose an adapter. Outside this package, only tests import a driver of Qdrant.
"""

from __future__ import annotations

from pathlib import Path

from connectors.errors import StoreUnavailable
from connectors.qdrant.engine.client import HostedVectorStore, healthy
from connectors.qdrant.engine.files import described_dimension, socket_path
from connectors.vector_ports import VectorStore
from schemas.settings import Qdrant

__all__ = ["healthy", "open_vector_store", "socket_path", "stored_dimension"]


async def open_vector_store(settings: Qdrant, home: Path) -> VectorStore:
    """Return the configured store: the server if `url` is set, else the engine host of the local stack.

    The store connects at the first call, so a worker may start before its store does.
    """
    if settings.url is None:
        return HostedVectorStore(socket_path(home), settings.timeout_s)
    # The driver is slow to import, and only a server needs it.
    from connectors.qdrant.server import ServerVectorStore  # noqa: PLC0415

    return ServerVectorStore.connect(settings)


async def stored_dimension(settings: Qdrant, home: Path, collection: str) -> int | None:
    """Return the length of a collection's vectors, or None if there is no such collection. Changes nothing.

    Raises StoreUnavailable if the store does not answer. Raises Misconfigured for a server that is too old, and for a
    collection that crossfade cannot use.
    """
    if settings.url is None:
        if not await healthy(socket_path(home)):
            raise StoreUnavailable("Qdrant's engine of the local stack does not run")
        return described_dimension(home, collection)
    from connectors.qdrant.server import ServerVectorStore  # noqa: PLC0415  # as above

    store = ServerVectorStore.connect(settings)
    try:
        return await store.known_dimension(collection)
    finally:
        await store.close()
