"""One collection in Qdrant's embedded engine: its files, and the calls to the engine. Every call blocks its thread.

The engine holds Python's global lock during every call, so a call in another thread would block the event loop, too.
Callers keep each call short instead. A folder `g<n>` is one generation of the collection. `collection.json` names the
current generation, so that an optimised copy can replace it in one step.
"""

from __future__ import annotations

import logging
import math
import shutil
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import qdrant_edge as edge

from connectors.errors import CollectionMissing, CrossfadeError, Refused, StoreUnavailable
from connectors.ports import SearchRequest
from connectors.qdrant.engine.errors import mapped
from connectors.qdrant.engine.files import Description, describe, description_of, folder_inode, generation_folder
from connectors.qdrant.engine.journal import Entry, Inserted, Journal, Written
from connectors.qdrant.engine.requests import INDEX_TYPES, RESCORED, filter_of, quantization_of
from connectors.qdrant.floats import EXACT, exact_metadata
from connectors.qdrant.points import (
    HIT_FIELDS,
    IDS_A_REQUEST,
    MARK_FIELDS,
    POINTS_A_PAGE,
    VECTOR,
    Found,
    IndexKind,
    PointBatch,
    floats,
    payload_of,
)
from connectors.qdrant.records import by_document, chunks_in, version_in
from connectors.vector_ports import IN_MEMORY, IdPage, Storage
from domain.points import DocumentPoints, StoredChunk
from schemas.keys import packed_id, parse_point_id, point_id, unpacked_ids

log = logging.getLogger(__name__)

_INDEXES = (
    ("document_id", edge.PayloadSchemaType.Keyword),
    ("tenant", edge.PayloadSchemaType.Keyword),
)
# Nearly all points are in one segment, so handing a call to another thread costs more than it gains.
_SEARCH_THREADS = 1


class Shard:
    """One generation of a collection. `touched` collects the ids of written points while it is a set.

    The current generation has the collection's `journal`; one that is being built has none.
    """

    def __init__(
        self,
        collection: str,
        folder: Path,
        description: Description,
        engine: edge.EdgeShard,
        journal: Journal | None = None,
    ) -> None:
        self.collection = collection
        self.folder = folder
        self.description = description
        self.journal = journal
        self.touched: set[str] | None = None
        self.unflushed = 0
        self.inserted_at_s = -math.inf
        self._engine = engine
        self._inode = folder_inode(self._generation)
        self.unoptimised = self.unindexed()

    @classmethod
    def create(cls, collection: str, folder: Path, dimension: int, storage: Storage = IN_MEMORY) -> Shard:
        """Create the collection and the indexes of its payload."""
        shutil.rmtree(folder, ignore_errors=True)  # left by a creation that did not finish
        description = Description(dimension, 1)
        path = generation_folder(folder, 1)
        path.mkdir(parents=True)
        with mapped(f"creating {collection}"):
            params = edge.EdgeVectorParams(
                size=dimension,
                distance=edge.Distance.Cosine,
                memory=edge.Memory.Cold if storage.on_disk else None,
                quantization_config=quantization_of(storage),
            )
            config = edge.EdgeConfig(
                vectors={VECTOR: params},
                # Cold payloads are dropped from the page cache when files are opened, and read from disk one by one.
                payload_memory=edge.Memory.Cold if storage.on_disk else edge.Memory.Cached,
                max_search_threads=_SEARCH_THREADS,
                wal_enabled=False,
            )
            engine = edge.EdgeShard.create(str(path), config)
            for name, kind in _INDEXES:
                engine.update(edge.UpdateOperation.create_field_index(name, kind))
            engine.flush()
        describe(folder, description)
        return cls(collection, folder, description, engine, Journal(folder / "journal"))

    @classmethod
    def open(cls, collection: str, folder: Path) -> Shard:
        """Open the collection. Raises CollectionMissing if it does not exist."""
        description = description_of(folder)
        if description is None:
            raise CollectionMissing(f"collection {collection} does not exist in the vector store")
        current = generation_folder(folder, description.generation)
        for other in folder.glob("g*"):
            if other != current:
                shutil.rmtree(other)
        shard = cls(collection, folder, description, load(collection, current), Journal(folder / "journal"))
        shard._recover()
        return shard

    def _recover(self) -> None:
        """Repeat the writes of the journal: the engine may have lost them, or kept only a part."""
        if self.journal is None:
            return
        number = 0
        for number, entry in enumerate(self.journal.entries(), 1):
            try:
                if isinstance(entry, Written):
                    self._write(entry.document, entry.document.version)
                else:
                    self._insert(entry.points)
            except Refused:
                log.exception("%s: entry %d of the journal was refused before, too", self.collection, number)
        if number:
            log.info("%s: %d writes of the journal made once more", self.collection, number)
        self.flush()

    @property
    def _generation(self) -> Path:
        return generation_folder(self.folder, self.description.generation)

    def replaced(self) -> bool:
        """Return whether the files were deleted or replaced while this generation is open."""
        return folder_inode(self._generation) != self._inode

    def abandon(self) -> None:
        """Give up files that were replaced, and leave the new ones as they are."""
        journal, self.journal = self.journal, None
        try:
            if journal is not None:
                journal.close()
            with mapped(f"closing {self.collection}"):
                self._engine.close()
        except (CrossfadeError, OSError) as error:
            log.warning("%s: its files were replaced, and what it had open does not close: %s", self.collection, error)

    def index(self, path: str, kind: IndexKind) -> None:
        """Build the index of a payload field, 7 µs a point. Does nothing if there is one of that kind already."""
        with mapped(f"indexing {path} of {self.collection}"):
            self._engine.update(edge.UpdateOperation.create_field_index(path, INDEX_TYPES[kind]))
        self.unflushed += 1

    def index_as(self, other: Shard) -> None:
        """Build the payload indexes that another generation has and this one has not."""
        with mapped(f"indexing {self.collection}"):
            own = {path: info.data_type for path, info in self._engine.info().payload_schema.items()}
            for path, info in other._engine.info().payload_schema.items():
                if own.get(path) != info.data_type:
                    self._engine.update(edge.UpdateOperation.create_field_index(path, info.data_type))

    def write(self, document: DocumentPoints) -> None:
        """Write the points of a document that have a lower stored version, or none, in one operation.

        The versions are compared here, not by a condition of the operation: after a kill, the engine reads an
        operation from its log again, and then compares with other versions. No other write comes in between: only
        one process has the files, and this method does not await.
        """
        self._note(Written(document))
        self._write(document, document.version - 1)

    def _write(self, document: DocumentPoints, highest: int) -> None:
        """Write the points of a document whose stored version is at most `highest`."""
        numbers = (*range(len(document.chunks)), *document.tombstones)
        names = [point_id(self.collection, document.id, number) for number in numbers]
        if not names:
            return
        with mapped(f"writing document {document.id}"):
            held = {
                str(record.id): record.payload or {} for record in self._engine.retrieve([*names], ["version"], False)
            }
            # A point without a version does not block the write.
            due = [
                (name, number)
                for name, number in zip(names, numbers, strict=True)
                if version_in(held.get(name, {})) <= highest
            ]
            points = [
                edge.Point(
                    name,
                    {VECTOR: _floats(document.chunks[number].vector)} if number < len(document.chunks) else {},
                    payload_of(document, number),
                )
                for name, number in due
            ]
            if points:
                self._engine.update(edge.UpdateOperation.upsert_points(points))
        self._count(names)

    def insert(self, batch: PointBatch) -> None:
        """Write the points whose ids do not exist yet, in one operation. As in `write`, the ids are compared here."""
        self._note(Inserted(batch))
        self._insert(batch)

    def _insert(self, batch: PointBatch) -> None:
        with mapped(f"inserting into {self.collection}"):
            held = {str(record.id) for record in self._engine.retrieve([*batch.names], False, False)}
            points = [
                edge.Point(name, {VECTOR: _floats(vector)}, payload)
                for name, payload, vector in zip(batch.names, batch.payloads, batch.vectors, strict=True)
                if name not in held
            ]
            if points:
                self._engine.update(edge.UpdateOperation.upsert_points(points))
        self._count(batch.names)

    def forget(self, document_id: str, ids: bytes, above: int) -> None:
        """Remove those points of packed ids whose version is above `above`, and all others that name the document."""
        own = unpacked_ids(ids)
        names = edge.Filter(must=[edge.FieldCondition("document_id", match=edge.MatchAny([document_id]))])
        gone: list[edge.PointId] = []
        with mapped(f"removing points of {self.collection}"):
            held = self._engine.retrieve([*own], ["version"], False)
            gone += [record.id for record in held if _number(record.payload or {}) > above]
            offset: edge.PointId | None = None
            while True:
                page, offset = self._engine.scroll(
                    edge.ScrollRequest(offset, POINTS_A_PAGE, names, with_payload=False, with_vector=False)
                )
                gone += [record.id for record in page if parse_point_id(str(record.id)) not in own]
                if offset is None:
                    break
            if gone:
                self._engine.update(edge.UpdateOperation.delete_points(gone))
        self._count([str(one) for one in gone])

    def adopt(self, source: Shard, names: Sequence[str]) -> None:
        """Copy points from another generation unchanged, whatever this one holds."""
        with mapped(f"taking over points of {self.collection}"):
            points = [
                edge.Point(record.id, record.vector or {}, _exact(record.payload))
                for record in source._engine.retrieve(list(names), True, True)
            ]
            self._engine.update(edge.UpdateOperation.upsert_points(points))
        self._count(names)

    def _note(self, entry: Entry) -> None:
        if self.journal is not None:
            try:
                self.journal.append(entry)
            except OSError as error:
                raise StoreUnavailable(f"{self.collection}: {error}") from error

    def _count(self, names: Sequence[str]) -> None:
        self.unflushed += len(names)
        self.unoptimised += len(names)
        if self.touched is not None:
            self.touched.update(names)

    def stored(self, ids: Sequence[str], *, content: bool) -> dict[str, list[StoredChunk]]:
        """Return all points of the documents."""
        fields = True if content else MARK_FIELDS  # naming all fields costs more
        ids = list(dict.fromkeys(ids))
        points: list[tuple[str, StoredChunk]] = []
        with mapped(f"reading points of {self.collection}"):
            for start in range(0, len(ids), IDS_A_REQUEST):
                some = edge.MatchAny(list(ids[start : start + IDS_A_REQUEST]))
                only = edge.Filter(must=[edge.FieldCondition("document_id", match=some)])
                offset: edge.PointId | None = None
                while True:
                    page, offset = self._engine.scroll(
                        edge.ScrollRequest(offset, POINTS_A_PAGE, only, with_payload=fields, with_vector=content)
                    )
                    points += chunks_in(page, content=content)
                    if offset is None:
                        break
        return by_document(points, ids)

    def nearest(self, request: SearchRequest, limit: int) -> list[Found]:
        """Return the `limit` nearest points of the tenant. The caller compares numbers and booleans of the filter."""
        with mapped(f"searching {self.collection}"):
            points = self._engine.query(
                edge.QueryRequest(
                    limit=limit,
                    query=edge.Query.Nearest(floats(request.vector or b""), using=VECTOR),
                    filter=filter_of(request.tenant, request.filter),
                    params=edge.SearchParams(quantization=RESCORED),
                    with_payload=HIT_FIELDS,
                )
            )
        return [Found(point.score, point.payload or {}) for point in points]

    def neighbours(self, vector: bytes, limit: int, *, exact: bool) -> list[str]:
        """Return the ids of the nearest points of all tenants."""
        with mapped(f"searching {self.collection}"):
            nearest = edge.Query.Nearest(floats(vector), using=VECTOR)
            request = edge.QueryRequest(
                limit=limit, query=nearest, params=edge.SearchParams(exact=exact, quantization=RESCORED)
            )
            return [str(point.id) for point in self._engine.query(request)]

    def scan_ids(self, after: str | None, limit: int) -> IdPage:
        """Return a page of point ids, in the order of the ids."""
        offset = None if after is None else parse_point_id(after)
        with mapped(f"scanning {self.collection}"):
            page, following = self._engine.scroll(
                edge.ScrollRequest(offset, limit, None, with_payload=False, with_vector=False)
            )
        ids = b"".join([packed_id(record.id) for record in page])
        return IdPage(ids, None if following is None else str(following))

    def points(self, ids: bytes) -> dict[str, list[StoredChunk]]:
        """Return the points that have the packed ids, by document."""
        with mapped(f"reading points of {self.collection}"):
            found = self._engine.retrieve([*unpacked_ids(ids)], MARK_FIELDS, False)
        return by_document(chunks_in(found))

    def count(self) -> int:
        """Return the number of live points, which are those that have a vector."""
        # Not a filter by `deleted`: the binding turns a boolean to match into a number (qdrant-edge-py 0.9.0).
        with mapped(f"counting {self.collection}"):
            return self._engine.count(edge.CountRequest(True, edge.Filter(must=[edge.HasVectorCondition(VECTOR)])))

    def size(self) -> int:
        """Return the number of points, tombstones included."""
        with mapped(f"reading {self.collection}"):
            return self._engine.info().points_count

    def unindexed(self) -> int:
        """Return the number of points that no vector index covers."""
        with mapped(f"reading {self.collection}"):
            info = self._engine.info()
        return max(0, info.points_count - info.indexed_vectors_count)

    def flush(self) -> None:
        """Bring everything to disk. Until then a power cut may lose it; the end of the process does not."""
        with mapped(f"flushing {self.collection}"):
            self._engine.flush()
        if self.journal is not None:
            self.journal.cut()
        self.unflushed = 0

    def close(self) -> None:
        """Flush and release the files."""
        self.flush()
        with mapped(f"closing {self.collection}"):
            self._engine.close()
        if self.journal is not None:
            self.journal.close()
            self.journal = None


def load(collection: str, folder: Path) -> edge.EdgeShard:
    """Open one generation."""
    with mapped(f"opening {collection}"):
        return edge.EdgeShard.load(str(folder))


def _number(payload: dict[str, object]) -> float:
    """Return a version, which may not be an integer, as a server's condition would see it."""
    version = payload.get("version")
    return version if isinstance(version, int | float) else -1


def _exact(payload: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a payload as it was written: its floats, as read, would move again when written."""
    return {**payload, "metadata": exact_metadata(payload)} if payload and EXACT in payload else payload


def _floats(vector: bytes) -> list[float]:
    """Return a vector as an array, from which the engine reads one float at a time: half the time of a list."""
    return cast("list[float]", array("f", vector))
