"""The ports of a vector store: writing, reading, search and administration. See `connectors.ports` for the errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from connectors.ports import SearchRequest
from domain.points import DocumentPoints, StoredChunk
from schemas.queries import Hit
from schemas.settings import Quantization
from schemas.values import Kind

# No document has the empty id.
NAMELESS = ""


@dataclass(frozen=True, slots=True)
class IdPage:
    """A page of a scan over all point ids, 16 bytes each (`schemas.keys.packed_id`), and the start of the next page."""

    ids: bytes
    next: str | None


NO_METADATA: Mapping[str, Kind] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Storage:
    """How a new collection stores its vectors: what searches compare first, and whether the originals stay on disk."""

    quantization: Quantization = "none"
    on_disk: bool = False


IN_MEMORY = Storage()


class VectorWriter(Protocol):
    """Writes points, guarded by version."""

    async def write(self, collection: str, documents: Sequence[DocumentPoints]) -> None:
        """Write each document's points and tombstones in one operation, conditional on a lower stored version.

        Returns when the store has applied them: any later search sees them.
        """
        ...

    async def insert(self, collection: str, documents: Sequence[DocumentPoints]) -> None:
        """Write the documents' points whose id has no point yet. Existing points stay, tombstones included.

        Returns when the store has applied them. The points of a document may become visible one after the other.
        """
        ...

    async def forget(self, collection: str, document_id: str, ids: bytes, above: int) -> None:
        """Remove the points of packed ids whose version is above `above`, and the document's points of any other id.

        Only for states that no history can produce (`domain.repair`): versions that would block every write for ever,
        and points that no write of the document would reach.
        """
        ...


class VectorReader(Protocol):
    """Reads points by id, without a search."""

    async def stored(
        self, collection: str, ids: Sequence[str], *, content: bool = False
    ) -> dict[str, list[StoredChunk]]:
        """Return all points, tombstones included, of the documents that have any, ordered by chunk number.

        With `content`, each point has its text, its metadata and its vector (None for a tombstone).
        """
        ...

    async def points(self, collection: str, ids: bytes) -> dict[str, list[StoredChunk]]:
        """Return the existing points of packed ids, by document and without content.

        Points whose payload names no document, which crossfade did not write, are under `NAMELESS`.
        """
        ...

    async def scan_ids(self, collection: str, after: str | None, limit: int) -> IdPage:
        """Return a page of up to `limit` point ids in their order, including those of tombstones."""
        ...

    async def count(self, collection: str) -> int:
        """Return the number of live points of all tenants, without tombstones."""
        ...


class VectorSearch(Protocol):
    """Finds the nearest points."""

    async def search(self, collection: str, request: SearchRequest) -> list[Hit]:
        """Return the nearest live chunks of the tenant, at most one for each document (cosine, higher is nearer)."""
        ...

    async def neighbours(self, collection: str, vector: bytes, limit: int, *, exact: bool) -> list[str]:
        """Return the ids of the nearest live points of all tenants. `exact` compares with every point."""
        ...


class VectorAdmin(Protocol):
    """Prepares collections, and controls when their index is built."""

    async def prepare(
        self,
        collection: str,
        dimension: int,
        metadata: Mapping[str, Kind] = NO_METADATA,
        storage: Storage = IN_MEMORY,
    ) -> None:
        """Create what is missing: the collection, the indexes of its payload, and one index for each metadata column.

        `storage` applies only to a collection that is created; an existing one keeps its own.

        A column whose kind changed gets a new index. Building an index takes about 7 µs a point. Raises Misconfigured
        for another dimension, Refused for a column that a filter could not name.
        """
        ...

    async def suspend_indexing(self, collection: str) -> int | None:
        """Suspend indexing while a backfill inserts. Return the threshold that `resume_indexing` restores."""
        ...

    async def resume_indexing(self, collection: str, previous_threshold: int | None) -> None:
        """Index the inserted points, and return when searches use the index. Takes minutes for a million points."""
        ...

    async def close(self) -> None:
        """Flush, and release the connections."""
        ...


class VectorStore(VectorWriter, VectorReader, VectorSearch, VectorAdmin, Protocol):
    """Qdrant: collections of points, guarded by version."""
