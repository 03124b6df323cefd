"""The port `VectorStore` in memory: the simplest form of what the Qdrant adapters must do. No index, no disk."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from msgspec import structs

from connectors.errors import CollectionMissing, Misconfigured
from connectors.ports import SearchRequest
from connectors.qdrant.points import (
    Found,
    best_hits,
    check_document,
    check_vector,
    metadata_indexes,
    metadata_path,
    payload_of,
)
from connectors.qdrant.records import by_document, stored_chunk
from connectors.vector_ports import IN_MEMORY, NO_METADATA, IdPage, Storage
from domain.filters import matches
from domain.guards import vector_moves
from domain.points import DocumentPoints, StoredChunk
from schemas.content import Scalar
from schemas.keys import packed_id, point_id, unpacked_ids
from schemas.queries import Hit
from schemas.values import Kind

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Point:
    document_id: str
    mark: StoredChunk
    metadata: dict[str, Scalar]
    vector: Floats | None


@dataclass(slots=True)
class _Collection:
    dimension: int
    points: dict[str, _Point] = field(default_factory=dict)
    chunks: dict[str, dict[int, str]] = field(default_factory=dict)

    def remove(self, name: str) -> None:
        """Remove a point, whichever document it names."""
        point = self.points.pop(name, None)
        if point is not None:
            chunks = self.chunks[point.document_id]
            for number in [number for number, other in chunks.items() if other == name]:
                del chunks[number]


class MemoryVectorStore:
    """Collections as dictionaries of points. Vectors are stored at length 1, as Qdrant does for cosine distance."""

    def __init__(self) -> None:
        self._collections: dict[str, _Collection] = {}

    async def prepare(
        self,
        collection: str,
        dimension: int,
        metadata: Mapping[str, Kind] = NO_METADATA,
        storage: Storage = IN_MEMORY,
    ) -> None:
        """Create the collection if it is missing. A search compares with every point, so there is nothing to index."""
        metadata_indexes(metadata)  # refuse here, too, what no other store could index
        known = self._collections.setdefault(collection, _Collection(dimension))
        if known.dimension != dimension:
            raise Misconfigured(f"collection {collection} has vectors of {known.dimension} floats, not {dimension}")

    async def stored(
        self, collection: str, ids: Sequence[str], *, content: bool = False
    ) -> dict[str, list[StoredChunk]]:
        """Return all points of the documents that have any."""
        known = self._of(collection)
        wanted = dict.fromkeys(ids)
        points = [known.points[point] for name in wanted for point in known.chunks.get(name, {}).values()]
        marks = [(p.document_id, p.mark if content else _bare(p.mark)) for p in points]
        return by_document(marks, ids)

    async def write(self, collection: str, documents: Sequence[DocumentPoints]) -> None:
        """Write each point that is new or whose stored version is lower. Raises Refused before writing anything."""
        known = self._of(collection)
        for document in documents:
            check_document(document, known.dimension)
        for document in documents:
            for chunk in (*range(len(document.chunks)), *document.tombstones):
                name = point_id(collection, document.id, chunk)
                before = known.points.get(name)
                if vector_moves((before.mark,) if before else (), document.version):
                    known.remove(name)
                    known.points[name] = _point(document, chunk)
                    known.chunks.setdefault(document.id, {})[chunk] = name

    async def insert(self, collection: str, documents: Sequence[DocumentPoints]) -> None:
        """Write each live point whose id does not exist yet. Raises Refused before writing anything."""
        known = self._of(collection)
        for document in documents:
            check_document(document, known.dimension)
        for document in documents:
            for chunk in range(len(document.chunks)):
                name = point_id(collection, document.id, chunk)
                if name not in known.points:
                    known.points[name] = _point(document, chunk)
                    known.chunks.setdefault(document.id, {})[chunk] = name

    async def forget(self, collection: str, document_id: str, ids: bytes, above: int) -> None:
        """Remove the given points whose version is above `above`, and the document's points of any other id."""
        known = self._of(collection)
        own = set(map(str, unpacked_ids(ids)))
        beyond = {name for name in own if name in known.points and known.points[name].mark.version > above}
        misplaced = set(known.chunks.get(document_id, {}).values()) - own
        for name in beyond | misplaced:
            known.remove(name)

    async def suspend_indexing(self, collection: str) -> int | None:
        """Do nothing: there is no index."""
        return None

    async def resume_indexing(self, collection: str, previous_threshold: int | None) -> None:
        """Do nothing: there is no index."""

    async def neighbours(self, collection: str, vector: bytes, limit: int, *, exact: bool) -> list[str]:
        """Return the ids of the nearest live points by comparing with every one."""
        asked = _unit(vector)
        live = [(name, point.vector) for name, point in self._of(collection).points.items() if point.vector is not None]
        return [name for name, _ in sorted(live, key=lambda one: -float(np.dot(one[1], asked)))[:limit]]

    async def search(self, collection: str, request: SearchRequest) -> list[Hit]:
        """Return the nearest live chunks by comparing with every one."""
        known = self._of(collection)
        vector = request.vector or b""
        check_vector(vector, known.dimension, "the question")
        for name in request.filter:
            metadata_path(name)  # refuse here, too, what no other store could name
        asked = _unit(vector)
        found = [
            Found(
                score=float(np.dot(point.vector, asked)),
                payload={
                    "document_id": point.document_id,
                    "chunk": point.mark.chunk,
                    "version": point.mark.version,
                    "text": point.mark.text,
                    "metadata": point.metadata,
                },
            )
            for point in known.points.values()
            if point.vector is not None
            and point.mark.tenant == request.tenant
            and matches(point.metadata, request.filter)
        ]
        return best_hits(found)[: request.limit]

    async def scan_ids(self, collection: str, after: str | None, limit: int) -> IdPage:
        """Return a page of point ids in their order."""
        names = sorted(self._of(collection).points)
        start = 0 if after is None else bisect_left(names, after)
        following = names[start + limit] if start + limit < len(names) else None
        return IdPage(b"".join(map(packed_id, names[start : start + limit])), following)

    async def points(self, collection: str, ids: bytes) -> dict[str, list[StoredChunk]]:
        """Return the existing points of packed ids."""
        known = self._of(collection).points
        found = [known[name] for name in map(str, unpacked_ids(ids)) if name in known]
        return by_document([(point.document_id, _bare(point.mark)) for point in found])

    async def count(self, collection: str) -> int:
        """Return the number of live points."""
        return sum(not point.mark.deleted for point in self._of(collection).points.values())

    async def close(self) -> None:
        """Keep everything: there are no connections to release."""

    def _of(self, collection: str) -> _Collection:
        if collection not in self._collections:
            raise CollectionMissing(f"collection {collection} does not exist in the vector store")
        return self._collections[collection]


def _bare(mark: StoredChunk) -> StoredChunk:
    return structs.replace(mark, checksum=None, vector_checksum=None, text=None, metadata=None, vector=None)


def _point(document: DocumentPoints, chunk: int) -> _Point:
    payload = payload_of(document, chunk)
    vector = None if payload["deleted"] else _unit(document.chunks[chunk].vector)
    vectors = {} if vector is None else {"dense": vector}
    return _Point(document.id, stored_chunk(payload, vectors, content=True), payload["metadata"], vector)


def _unit(vector: bytes) -> Floats:
    values: Floats = np.frombuffer(vector, dtype="<f4").astype(np.float32)
    length = float(np.sqrt(np.dot(values, values)))
    if length == 0 or abs(length - 1) <= 1e-6:
        return values
    return (values / np.float32(length)).astype(np.float32)
