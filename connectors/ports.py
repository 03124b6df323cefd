"""The ports: what handlers may ask of the world. Errors are those of `connectors.errors`, no driver's error gets out.

Vectors are little-endian float32 bytes of the collection's dimension, everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from domain.ledger import LedgerRow, VectorMark
from domain.legacy import Coverage, Diagnostic, LegacyChange, LegacyOutcome, LegacyRow, TableDescription
from domain.points import DocumentPoints, StoredChunk
from domain.values import Kind
from schemas.content import Scalar
from schemas.queries import Hit
from schemas.records import Outgoing
from schemas.settings import Quantization


class Bus(Protocol):
    """Publishes records."""

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Publish and return when the brokers acknowledged every record (acks=all), in the given order for each key.

        Raises StoreUnavailable when the brokers do not answer, Refused when a record is too large for its topic.
        """
        ...


class Ledger(Protocol):
    """The ledger table of one collection, in its legacy database."""

    async def read(self, ids: Sequence[str]) -> dict[str, LedgerRow]:
        """Return the ledger rows of the documents that have one."""
        ...

    async def save_fold(self, rows: Mapping[str, LedgerRow]) -> None:
        """Store the fold's state of each document where its `version` is higher than the stored one.

        Leaves what the writers own (legacy_version, refused_version, vector_version, ...) as it is.
        """
        ...

    async def vectors_written(self, marks: Sequence[VectorMark]) -> None:
        """Store what the vector writer did, where its version is higher than the stored `vector_version`."""
        ...

    async def refusals_told(self, versions: Mapping[str, int]) -> None:
        """Clear `refused_version` of each document where it is the given one: dead letter and refresh are published."""
        ...

    async def page(self, after: str, limit: int) -> dict[str, LedgerRow]:
        """Return up to `limit` ledger rows behind a document id (empty: from the first), in the order of their ids."""
        ...

    async def put_back(self, document_id: str, versions: Mapping[str, tuple[int, int]]) -> None:
        """Set columns of a damaged row: by name what each must still hold, and what it is set to.

        Only for versions that no history brings about (`domain.repair`): every other write moves them up.
        """
        ...

    async def forget_undelivered(self) -> int:
        """Forget which producers' changes were folded, of documents whose newest one is not in the table yet.

        For decisions that are lost: nothing waits for them any more, and a change that is delivered again takes effect.
        Returns how many documents there are.
        """
        ...

    async def get_meta(self, name: str) -> int | None:
        """Return a number recorded for the whole installation in this database (partition epoch and count)."""
        ...

    async def set_meta(self, name: str, value: int) -> None:
        """Record such a number."""
        ...

    async def advance(self, name: str) -> int:
        """Raise a recorded number by one, the first time to 1, in one step; return it."""
        ...

    async def raise_to(self, name: str, value: int) -> None:
        """Record a number unless a higher one is recorded, in one step."""
        ...

    async def claim(self, name: str, value: int) -> int:
        """Record a number where none is, in one step; return the one that is recorded: the first claim's."""
        ...

    async def identity(self, name: str) -> str | None:
        """Return a recorded identity (of a topic, server, table or collection), None where none is recorded."""
        ...

    async def set_identity(self, name: str, value: str) -> None:
        """Record an identity: a name of at most 128 characters, a value of at most 1,000."""
        ...

    async def claim_identity(self, name: str, value: str) -> str:
        """Record an identity where none is, in one step; return the one that is recorded: the first claim's."""
        ...


class LegacyTable(Protocol):
    """The table of one collection."""

    description: TableDescription

    async def apply(self, changes: Sequence[LegacyChange]) -> list[LegacyOutcome]:
        """Apply changes of distinct documents, each behind the ledger guard; the outcomes stand in the same order.

        For each document, in one transaction: `legacy_version` moves up to `version`, or nothing else happens
        (SUPERSEDED; `unconfirmed` where the ledger's `refused_version` is this version). Then the row is upserted with
        `crossfade_version = written`, or deleted. Where the database refuses the content, the ledger moves and
        `refused_version` is set in one transaction and the outcome is REFUSED with the database's message; the other
        documents are not affected. Raises StoreUnavailable or TransientError with nothing half done.
        """
        ...

    async def rows(self, ids: Sequence[str]) -> dict[str, LegacyRow]:
        """Return the rows that exist, read with a lock that waits for transactions still ending (FOR SHARE)."""
        ...

    async def existing(self, ids: Sequence[str]) -> set[str]:
        """Return those of the ids that have a row, without a lock."""
        ...

    async def columns(self) -> frozenset[str]:
        """Return the names of the columns that the table has now, none where it is gone. Raises StoreUnavailable."""
        ...

    async def check(self) -> list[Diagnostic]:
        """Return what is wrong with database, table and columns for this collection, each with its mending statement.

        Raises StoreUnavailable where the database does not answer.
        """
        ...

    async def altered(self) -> str | None:
        """Say how the columns changed since the table was opened, after which it is to be opened again; else None."""
        ...

    async def close(self) -> None:
        """Give the connections back."""
        ...


class BulkTable(Protocol):
    """Reads the table of one collection in large pieces: short statements, no lock, no long transaction."""

    async def bound(self, after: str | None, rows: int) -> str | None:
        """Return the id of the `rows`-th row after the given id in the order of the key, None where fewer are left."""
        ...

    async def scan_range(self, after: str | None, upto: str | None, limit: int) -> list[LegacyRow]:
        """Return up to `limit` rows in the order of the key, after `after` and up to and with `upto` (None: the end).

        Raises Refused where one of the two is not the id of a row that this table could have.
        """
        ...

    async def count(self, after: str | None, upto: str | None) -> int:
        """Return the number of rows of a range. Raises as `scan_range`."""
        ...

    async def ids(self, after: str | None, upto: str | None) -> list[str]:
        """Return the ids of all rows of a range by one statement without an order. Raises as `scan_range`."""
        ...

    async def coverage(self, ranges: Sequence[tuple[str | None, str | None]]) -> Coverage:
        """Count the table's rows, and those of the ranges, in one snapshot. Raises as `scan_range`."""
        ...

    async def estimated_rows(self) -> int:
        """Return about how many rows the table has, from the database's statistics."""
        ...

    async def running_statements(self) -> int:
        """Return how many statements the database server executes now, the caller's own not counted."""
        ...


class Checksums(Protocol):
    """Checksums over key ranges of one table, computed by its database: order-free, 128 bits and the number of rows.

    `columns` names what they are made of: everything that makes a document, and the row's version. Checksums of other
    columns, of another database or of another version of it are not to be compared.
    """

    columns: str

    async def of_ranges(self, ranges: Sequence[tuple[str | None, str | None]]) -> list[str]:
        """Return the checksum of each range, after its first key and up to its second, in one statement.

        Raises Refused where a key is not the id of a row that this table could have.
        """
        ...


class TaskStore(Protocol):
    """What long tasks of one collection have done so far, in its legacy database: parts by number, each JSON bytes."""

    async def read(self, task: str, part: int | None = None) -> dict[int, bytes]:
        """Return the parts of a task, all of them or one."""
        ...

    async def save(self, task: str, parts: Mapping[int, bytes]) -> None:
        """Store parts, all or none; other parts stay as they are."""
        ...

    async def clear(self, task: str) -> None:
        """Forget a task."""
        ...

    def hold(self, task: str) -> AbstractAsyncContextManager[None]:
        """Be the only one that runs a task, until the end of the context or of this process.

        Raises Refused where another process holds it.
        """
        ...


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What a backend is asked: text for full text, vector for vector search; equality filter over metadata."""

    text: str
    vector: bytes | None
    tenant: str
    limit: int
    filter: Mapping[str, Scalar]


class SearchBackend(Protocol):
    """Something that can answer a question about one collection."""

    needs_vector: bool

    async def search(self, request: SearchRequest) -> list[Hit]:
        """Return up to `limit` hits, best first, at most one for each document.

        Raises Refused for a filter over something that is not metadata of the collection, StoreUnavailable or
        TransientError where it cannot answer now.
        """
        ...


# No document has the empty id.
NAMELESS = ""


@dataclass(frozen=True, slots=True)
class IdPage:
    """A page of a scan over all point ids, 16 bytes each (`domain.keys.packed_id`), and where the next page begins."""

    ids: bytes
    next: str | None


NO_METADATA: Mapping[str, Kind] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Storage:
    """How a new collection keeps its vectors: what searches compare first, and whether the originals stay on disk."""

    quantization: Quantization = "none"
    on_disk: bool = False


IN_MEMORY = Storage()


class VectorWriter(Protocol):
    """Writes points, guarded by version."""

    async def write(self, collection: str, documents: Sequence[DocumentPoints]) -> None:
        """Write each document's points and tombstones in one operation, conditional on a lower stored version.

        Returns when the store has applied them: a search made after the return sees them.
        """
        ...

    async def insert(self, collection: str, documents: Sequence[DocumentPoints]) -> None:
        """Write those points of the documents where no point of their id is; what is there, tombstones too, stays.

        Returns when the store has applied them. The points of a document may be seen one after the other.
        """
        ...

    async def forget(self, collection: str, document_id: str, ids: bytes, above: int) -> None:
        """Remove those points of packed ids whose version is above `above`, and others that name the document.

        Only for what no history brings about (`domain.repair`): versions that would block every write for ever, and
        points that no write of the document would reach.
        """
        ...


class VectorReader(Protocol):
    """Reads points by id, without a search."""

    async def stored(
        self, collection: str, ids: Sequence[str], *, content: bool = False
    ) -> dict[str, list[StoredChunk]]:
        """Return all points, tombstones included, of the documents that have any, ordered by chunk number.

        With `content` each has its text, its metadata and its vector (None for a tombstone).
        """
        ...

    async def points(self, collection: str, ids: bytes) -> dict[str, list[StoredChunk]]:
        """Return those points of packed ids that are there, by document and without content.

        Points whose payload names no document, which others wrote, are under `NAMELESS`.
        """
        ...

    async def scan_ids(self, collection: str, after: str | None, limit: int) -> IdPage:
        """Return a page of up to `limit` point ids in their order, those of tombstones included."""
        ...

    async def count(self, collection: str) -> int:
        """Return the number of live points (no tombstones) of all tenants."""
        ...


class VectorSearch(Protocol):
    """Finds the nearest points."""

    async def search(self, collection: str, request: SearchRequest) -> list[Hit]:
        """Return the nearest live chunks of the tenant, at most one for each document (cosine, higher is nearer)."""
        ...

    async def neighbours(self, collection: str, vector: bytes, limit: int, *, exact: bool) -> list[str]:
        """Return the ids of the nearest live points of all tenants; `exact`: by comparing with every one."""
        ...


class VectorAdmin(Protocol):
    """Prepares collections, and decides when their index is built."""

    async def prepare(
        self,
        collection: str,
        dimension: int,
        metadata: Mapping[str, Kind] = NO_METADATA,
        storage: Storage = IN_MEMORY,
    ) -> None:
        """Create what is absent: the collection, the indexes of its payload, and one for each metadata column.

        `storage` is for a collection that is created; one that is there stays as it is.

        A column whose kind changed gets its index anew; building one takes about 7 µs a point. Raises Misconfigured for
        another dimension, Refused for a column that a filter could not name.
        """
        ...

    async def suspend_indexing(self, collection: str) -> int | None:
        """Put off indexing while a backfill inserts; return what `resume_indexing` must be given to set it back."""
        ...

    async def resume_indexing(self, collection: str, previous_threshold: int | None) -> None:
        """Index what was inserted; return when searches use the index. Takes minutes for a million points."""
        ...

    async def close(self) -> None:
        """Flush and give the connections back."""
        ...


class VectorStore(VectorWriter, VectorReader, VectorSearch, VectorAdmin, Protocol):
    """Qdrant: collections of points, guarded by version."""


class Embedder(Protocol):
    """Turns text into vectors; one for each model."""

    @property
    def model_key(self) -> str:
        """Name and revision of the model, as stored with every vector."""
        ...

    @property
    def dimension(self) -> int:
        """Length of every vector."""
        ...

    async def chunked(self, texts: Sequence[str], progress: Callable[[], None] = lambda: None) -> list[tuple[str, ...]]:
        """Return each text in pieces that the model reads whole, at least one; long texts never hold up the loop.

        `progress` is called while long texts are cut, from any thread. Raises EmbeddingFailed for a text
        that is not valid Unicode.
        """
        ...

    async def embed_documents(self, texts: Sequence[str], progress: Callable[[], None] = lambda: None) -> list[bytes]:
        """Return one vector for each text; `progress` is called as they come.

        Raises EmbeddingFailed, EmbeddingUnavailable.
        """
        ...

    async def embed_query(self, text: str) -> bytes:
        """Return the vector of a question, never waiting behind documents. Raises as `embed_documents` does."""
        ...

    async def close(self) -> None:
        """Stop the engine."""
        ...
