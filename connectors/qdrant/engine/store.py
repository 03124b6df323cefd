"""The port `VectorStore` over Qdrant's engine in this process: open collections, turns, flushing, optimising.

One process at a time may own a home. The others reach it through `connectors.qdrant.engine.host`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from connectors.errors import CrossfadeError, Misconfigured, StoreUnavailable, TransientError
from connectors.ports import SearchRequest
from connectors.qdrant.engine.files import FolderLock, engine_folder
from connectors.qdrant.engine.optimiser import Optimisation
from connectors.qdrant.engine.shard import Shard
from connectors.qdrant.points import (
    Found,
    PointBatch,
    batch_of,
    check_batch,
    check_document,
    check_metadata,
    check_vector,
    metadata_indexes,
    search_documents,
)
from connectors.vector_ports import IN_MEMORY, NO_METADATA, IdPage, Storage
from domain.points import DocumentPoints, StoredChunk
from schemas.keys import POINT_ID_BYTES
from schemas.queries import Hit
from schemas.values import Kind

log = logging.getLogger(__name__)

FLUSH_INTERVAL_S = 5.0  # the default interval of a Qdrant server
FLUSH_POINTS = 2_000  # a flush takes about 0.02 ms a point, and nothing else runs meanwhile
TURN_S = 0.004
IDS_A_TURN = 64
FEW_IDS = 32
POINTS_A_TURN = 64
POINT_IDS_A_TURN = 1_000
OPTIMISE_POINTS = 20_000  # without an index, comparing a question with fewer points takes 2 ms
OPTIMISE_SHARE = 0.25
BULK_PAUSE_S = 30.0


class EmbeddedVectorStore:
    """Collections under `<home>/qdrant`. When a write returns, it is in the journal and survives the process's death.

    A power cut may lose the last `FLUSH_INTERVAL_S`. With `optimise` False, the vector index is built only on demand.
    """

    def __init__(self, home: Path, *, optimise: bool = True) -> None:
        self._folder = engine_folder(home)
        self._lock = FolderLock(self._folder)
        self._shards: dict[str, Shard] = {}
        self._writing = asyncio.Lock()
        self._reading = asyncio.Lock()
        self._optimising = asyncio.Lock()
        self._optimise = optimise
        self._upkeep: asyncio.Task[None] | None = None
        self._closed = False

    async def start(self) -> None:
        """Lock the folder. Raises StoreUnavailable, naming the process, if another one has it."""
        self._lock.acquire()
        self._upkeep = asyncio.create_task(self._keep_up(), name="qdrant upkeep")

    async def prepare(
        self,
        collection: str,
        dimension: int,
        metadata: Mapping[str, Kind] = NO_METADATA,
        storage: Storage = IN_MEMORY,
    ) -> None:
        """Create what is missing: the collection, and the indexes of its payload and metadata."""
        indexes = metadata_indexes(metadata)
        self._check_open()
        self._give_up_replaced(collection)
        if not (self._folder / collection / "collection.json").exists():
            self._shards[collection] = Shard.create(collection, self._folder / collection, dimension, storage)
        known = self._of(collection).description.dimension
        if known != dimension:
            raise Misconfigured(f"collection {collection} has vectors of {known} floats, not {dimension}")
        for path, kind in indexes.items():
            self._of(collection).index(path, kind)
            await asyncio.sleep(0)
        self._of(collection).flush()  # the journal does not record indexes

    async def stored(
        self, collection: str, ids: Sequence[str], *, content: bool = False
    ) -> dict[str, list[StoredChunk]]:
        """Return all points, tombstones included, of the documents that have any."""
        found: dict[str, list[StoredChunk]] = {}
        # Large reads run one at a time, so that a question waits for one of them and not for all.
        async with self._reading if len(ids) > FEW_IDS else nullcontext():
            for start in range(0, len(ids), IDS_A_TURN):
                if start:
                    await asyncio.sleep(0)
                found |= self._of(collection).stored(ids[start : start + IDS_A_TURN], content=content)
        return found

    async def write(self, collection: str, documents: Sequence[DocumentPoints]) -> None:
        """Write each document in one guarded operation. Searches get their turn in between."""
        dimension = self._of(collection).description.dimension
        for document in documents:
            check_document(document, dimension)
        async with self._writing:
            turn_ends = time.monotonic() + TURN_S
            for document in documents:
                # Looked up for each document, because an optimised generation may have replaced the last one.
                self._of(collection).write(document)
                if time.monotonic() >= turn_ends:
                    await asyncio.sleep(0)
                    turn_ends = time.monotonic() + TURN_S
        shard = self._of(collection)
        if shard.unflushed >= FLUSH_POINTS:
            shard.flush()

    async def insert(self, collection: str, documents: Sequence[DocumentPoints]) -> None:
        """Insert the points that do not exist yet."""
        for document in documents:
            check_metadata(document)
        await self.insert_points(collection, batch_of(collection, documents))

    async def insert_points(self, collection: str, batch: PointBatch) -> None:
        """Insert the points that do not exist yet. Searches get their turn in between."""
        check_batch(batch, self._of(collection).description.dimension)
        async with self._writing:
            for start in range(0, len(batch.names), POINTS_A_TURN):
                self._of(collection).insert(batch.part(start, start + POINTS_A_TURN))
                await asyncio.sleep(0)
        shard = self._of(collection)
        shard.inserted_at_s = time.monotonic()
        if shard.unflushed >= FLUSH_POINTS:
            shard.flush()

    async def forget(self, collection: str, document_id: str, ids: bytes, above: int) -> None:
        """Remove those of the given points whose version is above `above`, and all other points of the document.

        The removal is on disk when this call returns.
        """
        async with self._writing:
            self._of(collection).forget(document_id, ids, above)
            self._of(collection).flush()  # the journal does not record removals

    async def suspend_indexing(self, collection: str) -> int | None:
        """Do nothing: no index is built while points are inserted, nor in the half minute after."""
        return None

    async def resume_indexing(self, collection: str, previous_threshold: int | None) -> None:
        """Build the vector index. Raises TransientError if that fails, and leaves everything as it was."""
        if self._of(collection).unindexed() and not await self.optimise(collection):
            raise TransientError(f"the index of {collection} could not be built; the log of Qdrant's engine says why")

    async def neighbours(self, collection: str, vector: bytes, limit: int, *, exact: bool) -> list[str]:
        """Return the ids of the nearest live points of all tenants."""
        check_vector(vector, self._of(collection).description.dimension, "the question")
        return self._of(collection).neighbours(vector, limit, exact=exact)

    async def search(self, collection: str, request: SearchRequest) -> list[Hit]:
        """Return the nearest live chunks of the tenant, at most one per document."""
        check_vector(request.vector or b"", self._of(collection).description.dimension, "the question")

        async def ask(points: int) -> Sequence[Found]:
            return self._of(collection).nearest(request, points)

        return await search_documents(ask, request.limit, request.filter)

    async def scan_ids(self, collection: str, after: str | None, limit: int) -> IdPage:
        """Return a page of point ids, in the order of the ids. Searches get their turn in between."""
        pages: list[bytes] = []
        while True:
            page = self._of(collection).scan_ids(after, min(limit, POINT_IDS_A_TURN))
            pages.append(page.ids)
            limit -= POINT_IDS_A_TURN
            if page.next is None or limit <= 0:
                return IdPage(b"".join(pages), page.next)
            after = page.next
            await asyncio.sleep(0)

    async def points(self, collection: str, ids: bytes) -> dict[str, list[StoredChunk]]:
        """Return the points that have the packed ids, by document. Searches get their turn in between."""
        found: dict[str, list[StoredChunk]] = {}
        turn = POINT_ID_BYTES * POINTS_A_TURN
        for start in range(0, len(ids), turn):
            if start:
                await asyncio.sleep(0)
            for document_id, points in self._of(collection).points(ids[start : start + turn]).items():
                found.setdefault(document_id, []).extend(points)
        return found

    async def count(self, collection: str) -> int:
        """Return the number of live points of all tenants."""
        return self._of(collection).count()

    async def optimise(self, collection: str) -> bool:
        """Build the vector index in a separate process, and put it in place. Reads and writes continue meanwhile.

        Returns False, and leaves everything as it was, if that process failed or if writes came faster than the new
        index could take them over.
        """
        async with self._optimising:

            def put(shard: Shard) -> None:
                self._shards[collection] = shard

            return await Optimisation(self._of(collection), self._writing, put).run()

    async def flush(self) -> None:
        """Bring everything to disk."""
        for collection, shard in list(self._shards.items()):
            self._give_up_replaced(collection)
            if collection in self._shards and shard.unflushed:
                shard.flush()
                await asyncio.sleep(0)

    async def close(self) -> None:
        """Flush and release the files. Safe to call twice."""
        self._closed = True
        if self._upkeep is not None:
            self._upkeep.cancel()
            await asyncio.gather(self._upkeep, return_exceptions=True)
            self._upkeep = None
        async with self._writing:
            while self._shards:
                _, shard = self._shards.popitem()
                shard.close()
        self._lock.release()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("Qdrant's engine is closed")

    def _give_up_replaced(self, collection: str) -> None:
        """Give up files that no longer belong to the collection, so that the next call opens the current ones."""
        shard = self._shards.get(collection)
        if shard is not None and shard.replaced():
            log.error("%s: the files of the collection were deleted or replaced", collection)
            del self._shards[collection]
            shard.abandon()

    def _of(self, collection: str) -> Shard:
        self._give_up_replaced(collection)
        shard = self._shards.get(collection)
        if shard is None:
            self._check_open()
            shard = self._shards[collection] = Shard.open(collection, self._folder / collection)
        return shard

    async def _keep_up(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_INTERVAL_S)
            try:
                await self.flush()
                for collection, shard in list(self._shards.items()):  # without those that flushing gave up
                    if time.monotonic() - shard.inserted_at_s < BULK_PAUSE_S:
                        continue  # a backfill is running; it asks for the index when it ends
                    if self._optimise and optimising_is_due(shard.unoptimised, shard.size()):
                        shard.unoptimised = 0  # a failed run is repeated after as many writes, not at once
                        await self.optimise(collection)
            except CrossfadeError:
                log.exception("upkeep of Qdrant's engine failed; tried again in %s s", FLUSH_INTERVAL_S)


def optimising_is_due(unoptimised: int, size: int) -> bool:
    """Return whether so many points, out of `size`, were written since the last index that another is worthwhile."""
    return unoptimised >= max(OPTIMISE_POINTS, OPTIMISE_SHARE * size)
