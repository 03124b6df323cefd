"""The port `VectorStore` over a Qdrant server (gRPC or REST), or over qdrant-client's local mode in tests.

Servers before 1.16 silently ignore the condition of an upsert, so this adapter refuses them.
"""

from __future__ import annotations

import asyncio
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from qdrant_client import AsyncQdrantClient, grpc, models

from connectors.errors import Misconfigured, Refused, StoreUnavailable
from connectors.ports import SearchRequest
from connectors.qdrant.errors import mapped
from connectors.qdrant.insertions import insertion
from connectors.qdrant.pages import Pages
from connectors.qdrant.points import (
    CONTENT_FIELDS,
    HIT_FIELDS,
    IDS_A_REQUEST,
    MARK_FIELDS,
    POINTS_A_PAGE,
    VECTOR,
    Found,
    IndexKind,
    PointBatch,
    batch_of,
    check_document,
    check_vector,
    floats,
    metadata_indexes,
    search_documents,
)
from connectors.qdrant.records import by_document, chunks_in
from connectors.qdrant.requests import (
    INDEX_TYPES,
    LIVE,
    RESCORED,
    filter_of,
    forgotten,
    operations_of,
    parts_of,
    quantization_of,
)
from connectors.vector_ports import IN_MEMORY, NO_METADATA, IdPage, Storage
from domain.points import DocumentPoints, StoredChunk
from schemas.keys import packed_id, parse_point_id, unpacked_ids
from schemas.queries import Hit
from schemas.settings import Qdrant
from schemas.values import Kind

FIRST_VERSION = (1, 16)
INDEXING_THRESHOLD_KB = 10_000  # the server's default
INDEXING_POLL_S = 1.0
_INDEXES: tuple[tuple[str, IndexKind], ...] = (
    ("document_id", "keyword"),
    ("tenant", "keyword"),
    ("version", "integer"),
    ("deleted", "bool"),
)


class ServerVectorStore:
    """Collections of a server. With `local`, the client is in local mode: no versions, no payload indexes.

    With `packed`, vectors are sent and read over gRPC as bytes, and `timeout_s` limits such a request.
    """

    def __init__(
        self, client: AsyncQdrantClient, *, local: bool = False, packed: bool = False, timeout_s: int = 10
    ) -> None:
        self._client = client
        self._local = local
        self._packed = packed
        self._timeout_s = timeout_s
        self._pages = Pages(client, packed, timeout_s)
        self._dimensions: dict[str, int] = {}

    @classmethod
    def connect(cls, settings: Qdrant) -> ServerVectorStore:
        """Return the store of a server. No request is sent yet."""
        timeout_s = max(1, round(settings.timeout_s))
        with warnings.catch_warnings():
            # Sending a key without TLS is usual inside a private network, and the operator's decision.
            warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
            client = AsyncQdrantClient(
                url=settings.url,
                grpc_port=settings.grpc_port,
                prefer_grpc=settings.prefer_grpc,
                api_key=settings.api_key,
                timeout=timeout_s,
                # `prepare` checks the version itself. The client would only warn, from its own thread.
                check_compatibility=False,
            )
        return cls(client, packed=settings.prefer_grpc, timeout_s=timeout_s)

    async def prepare(
        self,
        collection: str,
        dimension: int,
        metadata: Mapping[str, Kind] = NO_METADATA,
        storage: Storage = IN_MEMORY,
    ) -> None:
        """Create what is missing: the collection, and the indexes of its payload and metadata.

        The server builds the indexes of metadata after this call returns. Raises Misconfigured for another dimension
        or distance, and for a server before 1.16.
        """
        indexes = metadata_indexes(metadata)
        with mapped(f"preparing {collection}"):
            if not self._local:
                check_version((await self._client.info()).version)
            if not await self._client.collection_exists(collection):
                await self._create(collection, dimension, storage)
            known = _dimension_of(collection, await self._client.get_collection(collection))
            if known != dimension:
                raise Misconfigured(f"collection {collection} has vectors of {known} floats, not {dimension}")
            self._dimensions[collection] = known
            if not self._local:
                for name, kind in _INDEXES:
                    await self._client.create_payload_index(collection, name, INDEX_TYPES[kind], wait=True)
                for path, kind in indexes.items():
                    # This takes minutes for millions of existing points. Without the index, searches are only slower.
                    await self._client.create_payload_index(collection, path, INDEX_TYPES[kind], wait=False)

    async def known_dimension(self, collection: str) -> int | None:
        """Return the length of a collection's vectors, or None if it does not exist. Raises as `prepare` does."""
        with mapped(f"reading {collection}"):
            if not self._local:
                check_version((await self._client.info()).version)
            if not await self._client.collection_exists(collection):
                return None
            return _dimension_of(collection, await self._client.get_collection(collection))

    async def _create(self, collection: str, dimension: int, storage: Storage) -> None:
        params = models.VectorParams(
            size=dimension,
            distance=models.Distance.COSINE,
            on_disk=storage.on_disk or None,
            quantization_config=quantization_of(storage),
        )
        try:
            with mapped(f"creating {collection}"):
                await self._client.create_collection(collection, {VECTOR: params})
        except Refused:
            if not await self._client.collection_exists(collection):  # else another worker created it first
                raise

    async def stored(
        self, collection: str, ids: Sequence[str], *, content: bool = False
    ) -> dict[str, list[StoredChunk]]:
        """Return all points, tombstones included, of the documents that have any."""
        ids = list(dict.fromkeys(ids))
        fields = CONTENT_FIELDS if content else MARK_FIELDS
        points: list[tuple[str, StoredChunk]] = []
        for start in range(0, len(ids), IDS_A_REQUEST):
            some = models.MatchAny(any=ids[start : start + IDS_A_REQUEST])
            only = models.Filter(must=[models.FieldCondition(key="document_id", match=some)])
            offset: Any = None
            while True:
                with mapped(f"reading points of {collection}"):
                    page, offset = await self._pages.read(
                        collection, only, POINTS_A_PAGE, offset, fields, vectors=content
                    )
                points += chunks_in(page, content=content)
                if offset is None:
                    break
        return by_document(points, ids)

    async def write(self, collection: str, documents: Sequence[DocumentPoints]) -> None:
        """Write the points of each document in one guarded operation, in requests of a few megabytes."""
        dimension = await self._dimension(collection)
        for document in documents:
            check_document(document, dimension)
        for part in parts_of(documents):
            operations = operations_of(collection, part)
            with mapped(f"writing to {collection}"):
                results = await self._client.batch_update_points(collection, operations, wait=True)
            check_results(results, len(operations))

    async def insert(self, collection: str, documents: Sequence[DocumentPoints]) -> None:
        """Insert the points that do not exist yet, in requests of some megabytes. Over gRPC, vectors stay bytes."""
        dimension = await self._dimension(collection)
        for document in documents:
            check_document(document, dimension)
        for part in parts_of(documents):
            await self._insert(collection, batch_of(collection, part))

    async def _insert(self, collection: str, batch: PointBatch) -> None:
        with mapped(f"inserting into {collection}"):
            if self._packed:
                request = insertion(collection, batch, self._timeout_s)
                answer = await self._client.grpc_points.Upsert(request, timeout=self._timeout_s)
                done = answer.result.status == grpc.UpdateStatus.Completed
            else:
                points = [
                    models.PointStruct(id=name, vector={VECTOR: floats(vector)}, payload=payload)
                    for name, payload, vector in zip(batch.names, batch.payloads, batch.vectors, strict=True)
                ]
                none = models.Filter(must=[models.HasIdCondition(has_id=[])])  # matches no existing point
                result = await self._client.upsert(collection, points, wait=True, update_filter=none)
                done = result.status == models.UpdateStatus.COMPLETED
        if not done:
            raise StoreUnavailable(f"Qdrant did not complete the insertion of {len(batch.names)} points in time")

    async def forget(self, collection: str, document_id: str, ids: bytes, above: int) -> None:
        """Remove those of the given points whose version is above `above`, and all other points of the document."""
        only = forgotten(document_id, [_named(one) for one in unpacked_ids(ids)], above)
        removal = models.DeleteOperation(delete=models.FilterSelector(filter=only))
        with mapped(f"removing points of {collection}"):
            results = await self._client.batch_update_points(collection, [removal], wait=True)
        check_results(results, 1)

    async def suspend_indexing(self, collection: str) -> int | None:
        """Switch the server's indexing off. Return its previous threshold (kB of vectors), or None if it was off."""
        with mapped(f"reading {collection}"):
            threshold = (await self._client.get_collection(collection)).config.optimizer_config.indexing_threshold
            await self._index_from(collection, 0)
        return threshold or None

    async def resume_indexing(self, collection: str, previous_threshold: int | None) -> None:
        """Switch the server's indexing on again, and wait until it has caught up."""
        with mapped(f"indexing {collection}"):
            await self._index_from(collection, previous_threshold or INDEXING_THRESHOLD_KB)
            green = 0
            while green < 2:  # twice in a row: the server may check for work once more before it begins
                await asyncio.sleep(INDEXING_POLL_S)
                status = (await self._client.get_collection(collection)).status
                green = green + 1 if status == models.CollectionStatus.GREEN else 0

    async def _index_from(self, collection: str, threshold: int) -> None:
        config = models.OptimizersConfigDiff(indexing_threshold=threshold)
        await self._client.update_collection(collection, optimizers_config=config)

    async def neighbours(self, collection: str, vector: bytes, limit: int, *, exact: bool) -> list[str]:
        """Return the ids of the nearest live points of all tenants."""
        with mapped(f"searching {collection}"):
            answer = await self._client.query_points(
                collection,
                floats(vector),
                using=VECTOR,
                query_filter=LIVE,
                limit=limit,
                search_params=None if self._local else models.SearchParams(exact=exact, quantization=RESCORED),
                with_payload=False,
            )
        return [str(point.id) for point in answer.points]

    async def search(self, collection: str, request: SearchRequest) -> list[Hit]:
        """Return the nearest live chunks of the tenant, at most one per document."""
        vector = request.vector or b""
        check_vector(vector, await self._dimension(collection), "the question")
        query, only = floats(vector), filter_of(request.tenant, request.filter)

        async def ask(points: int) -> Sequence[Found]:
            with mapped(f"searching {collection}"):
                answer = await self._client.query_points(
                    collection,
                    query,
                    using=VECTOR,
                    query_filter=only,
                    limit=points,
                    with_payload=HIT_FIELDS,
                    search_params=None if self._local else models.SearchParams(quantization=RESCORED),
                )
            return [Found(point.score, point.payload or {}) for point in answer.points]

        return await search_documents(ask, request.limit, request.filter)

    async def scan_ids(self, collection: str, after: str | None, limit: int) -> IdPage:
        """Return a page of point ids, in the order of the ids."""
        with mapped(f"scanning {collection}"):
            page, following = await self._pages.read(collection, None, limit, _offset(after), (), vectors=False)
        ids = b"".join([packed_id(record.id) for record in page])
        return IdPage(ids, None if following is None else str(following))

    async def points(self, collection: str, ids: bytes) -> dict[str, list[StoredChunk]]:
        """Return the points that have the packed ids, by document."""
        some = [_named(one) for one in unpacked_ids(ids)]
        with mapped(f"reading points of {collection}"):
            found = await self._client.retrieve(collection, some, with_payload=MARK_FIELDS)
        return by_document(chunks_in(found))

    async def count(self, collection: str) -> int:
        """Return the number of live points of all tenants."""
        with mapped(f"counting {collection}"):
            return (await self._client.count(collection, LIVE, exact=True)).count

    async def close(self) -> None:
        """Close the connections."""
        with mapped("closing"):
            await self._client.close()

    async def _dimension(self, collection: str) -> int:
        if collection not in self._dimensions:
            with mapped(f"reading {collection}"):
                self._dimensions[collection] = _dimension_of(collection, await self._client.get_collection(collection))
        return self._dimensions[collection]


def check_version(version: str) -> None:
    """Raise Misconfigured for a server that does not support conditional upserts."""
    numbers = re.match(r"v?(\d+)\.(\d+)", version)
    if numbers and (int(numbers[1]), int(numbers[2])) < FIRST_VERSION:
        raise Misconfigured(
            f"Qdrant {version} ignores conditions of upserts; at least {'.'.join(map(str, FIRST_VERSION))} is needed"
        )


def check_results(results: Sequence[models.UpdateResult], expected: int) -> None:
    """Raise StoreUnavailable unless every operation is completed. `wait` may time out, which only the results show.

    The server may still apply an uncompleted operation later, so the caller must not give up on it and continue.
    """
    unfinished = [str(result.status) for result in results if result.status != models.UpdateStatus.COMPLETED]
    if unfinished or len(results) != expected:
        raise StoreUnavailable(
            f"Qdrant completed {len(results) - len(unfinished)} of {expected} writes ({', '.join(unfinished[:3])})"
        )


def _offset(after: str | None) -> int | str | None:
    return None if after is None else _named(parse_point_id(after))


def _named(point: UUID | int) -> int | str:
    """Return a point id in the form that the client takes."""
    return point if isinstance(point, int) else str(point)


def _dimension_of(collection: str, info: models.CollectionInfo) -> int:
    vectors = info.config.params.vectors
    params = vectors.get(VECTOR) if isinstance(vectors, dict) else None
    if params is None:
        raise Misconfigured(f"collection {collection} is in Qdrant without a vector named {VECTOR}")
    if params.distance != models.Distance.COSINE:
        raise Misconfigured(f"collection {collection} compares by {params.distance}, not by cosine")
    return params.size
