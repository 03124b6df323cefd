"""The ports: what handlers may ask of the outside world. They raise only the errors of `connectors.errors`.

Vectors are always little-endian float32 bytes of the collection's dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from domain.ledger import LedgerRow, VectorMark
from domain.legacy import Coverage, Diagnostic, LegacyChange, LegacyOutcome, LegacyRow, TableDescription
from schemas.content import Scalar
from schemas.queries import Hit
from schemas.records import Outgoing


class Bus(Protocol):
    """Publishes records."""

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Publish in the given order for each key. Return when the brokers have acknowledged every record (acks=all).

        Raises StoreUnavailable when the brokers do not answer, Refused when a record is too large for its topic.
        """
        ...


class Ledger(Protocol):
    """The ledger table of one collection, in its legacy database."""

    async def read(self, ids: Sequence[str]) -> dict[str, LedgerRow]:
        """Return the ledger rows of the documents that have one."""
        ...

    async def save_fold(self, rows: Mapping[str, LedgerRow]) -> None:
        """Store the fold's state of each document whose `version` is higher than the stored one.

        The columns of the writers (legacy_version, refused_version, vector_version, ...) stay unchanged.
        """
        ...

    async def vectors_written(self, marks: Sequence[VectorMark]) -> None:
        """Store the vector writer's marks whose version is higher than the stored `vector_version`."""
        ...

    async def confirm_refusals(self, versions: Mapping[str, int]) -> None:
        """Clear each document's `refused_version` if it is the given one: dead letter and refresh are published."""
        ...

    async def page(self, after: str, limit: int) -> dict[str, LedgerRow]:
        """Return up to `limit` ledger rows after a document id (empty: from the first), in the order of their ids."""
        ...

    async def put_back(self, document_id: str, versions: Mapping[str, tuple[int, int]]) -> None:
        """Reset columns of a damaged row. `versions` maps a column to the value it must still hold and its new value.

        Only for versions that no history can produce (`domain.repair`): every other write only raises them.
        """
        ...

    async def forget_undelivered(self) -> int:
        """Forget the folded producer changes of every document whose newest one is not in the table yet.

        For lost decisions: nothing waits for them any more, and a change that is delivered again takes effect.
        Returns the number of these documents.
        """
        ...

    async def get_meta(self, name: str) -> int | None:
        """Return a number recorded for the whole installation in this database (partition epoch and count)."""
        ...

    async def set_meta(self, name: str, value: int) -> None:
        """Record a number for the whole installation in this database."""
        ...

    async def advance(self, name: str) -> int:
        """Raise a recorded number by one atomically, the first time to 1. Return the new number."""
        ...

    async def raise_to(self, name: str, value: int) -> None:
        """Record a number atomically, unless a higher one is recorded."""
        ...

    async def claim(self, name: str, value: int) -> int:
        """Record a number atomically if none is recorded. Return the recorded number: that of the first claim."""
        ...

    async def identity(self, name: str) -> str | None:
        """Return a recorded identity (of a topic, server, table or collection), None if none is recorded."""
        ...

    async def set_identity(self, name: str, value: str) -> None:
        """Record an identity: a name of at most 128 characters, a value of at most 1,000."""
        ...

    async def claim_identity(self, name: str, value: str) -> str:
        """Record an identity atomically if none is recorded. Return the recorded identity: that of the first claim."""
        ...


class LegacyTable(Protocol):
    """The table of one collection."""

    description: TableDescription

    async def apply(self, changes: Sequence[LegacyChange]) -> list[LegacyOutcome]:
        """Apply changes of distinct documents, each behind the ledger guard. Return the outcomes in the same order.

        For each document, the following happens in one transaction. First, `legacy_version` moves up to `version`. If
        it cannot, nothing else happens, and the outcome is SUPERSEDED (`unconfirmed` if the ledger's `refused_version`
        is this version). Then the row is upserted with `crossfade_version = written`, or deleted.

        If the database refuses the content, the ledger moves and `refused_version` is set in one transaction. The
        outcome is REFUSED with the database's message, and the other documents are not affected. Raises
        StoreUnavailable or TransientError with nothing half done.
        """
        ...

    async def rows(self, ids: Sequence[str]) -> dict[str, LegacyRow]:
        """Return the existing rows, read with a lock (FOR SHARE) that waits for unfinished transactions."""
        ...

    async def existing(self, ids: Sequence[str]) -> set[str]:
        """Return the ids that have a row, without a lock."""
        ...

    async def columns(self) -> frozenset[str]:
        """Return the names of the table's current columns, none if the table is gone. Raises StoreUnavailable."""
        ...

    async def check(self) -> list[Diagnostic]:
        """Return what is wrong with database, table and columns for this collection, each mistake with its remedy.

        Raises StoreUnavailable if the database does not answer.
        """
        ...

    async def altered(self) -> str | None:
        """Return how the columns changed since the table was opened, else None. A changed table is to be reopened."""
        ...

    async def close(self) -> None:
        """Release the connections."""
        ...


class BulkTable(Protocol):
    """Reads the table of one collection in large pieces: short statements, no lock, no long transaction."""

    async def bound(self, after: str | None, rows: int) -> str | None:
        """Return the id of the `rows`-th row after the given id in the order of the key, None if fewer are left."""
        ...

    async def scan_range(self, after: str | None, upto: str | None, limit: int) -> list[LegacyRow]:
        """Return up to `limit` rows in key order, after `after` and up to `upto`, inclusive (None: the end).

        Raises Refused if one of the two is not the id of a row that this table could have.
        """
        ...

    async def count(self, after: str | None, upto: str | None) -> int:
        """Return the number of rows in a range. Raises as `scan_range` does."""
        ...

    async def ids(self, after: str | None, upto: str | None) -> list[str]:
        """Return the ids of all rows in a range, unordered, with one statement. Raises as `scan_range` does."""
        ...

    async def coverage(self, ranges: Sequence[tuple[str | None, str | None]]) -> Coverage:
        """Count the table's rows, and the rows in the ranges, in one snapshot. Raises as `scan_range` does."""
        ...

    async def estimated_rows(self) -> int:
        """Return the approximate number of rows, from the database's statistics."""
        ...

    async def running_statements(self) -> int:
        """Return how many statements the database server is executing, not counting the caller's own."""
        ...


class Checksums(Protocol):
    """Checksums over key ranges of one table, computed by its database: order-free, 128 bits and the number of rows.

    `columns` names the input of the checksums: everything that makes a document, and the row's version. Do not compare
    checksums of other columns, of another database or of another version of it.
    """

    columns: str

    async def of_ranges(self, ranges: Sequence[tuple[str | None, str | None]]) -> list[str]:
        """Return the checksum of each range, after its first key and up to its second, in one statement.

        Raises Refused if a key is not the id of a row that this table could have.
        """
        ...


class TaskStore(Protocol):
    """The progress of long tasks of one collection, in its legacy database: numbered parts, each as JSON bytes."""

    async def read(self, task: str, part: int | None = None) -> dict[int, bytes]:
        """Return all parts of a task, or only one."""
        ...

    async def save(self, task: str, parts: Mapping[int, bytes]) -> None:
        """Store the given parts, all or none; other parts stay unchanged."""
        ...

    async def clear(self, task: str) -> None:
        """Delete all parts of a task."""
        ...

    def hold(self, task: str) -> AbstractAsyncContextManager[None]:
        """Hold a task exclusively, until the context or this process ends.

        Raises Refused if another process holds it.
        """
        ...


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A question to a backend: text for full-text search, vector for vector search, equality filter over metadata."""

    text: str
    vector: bytes | None
    tenant: str
    limit: int
    filter: Mapping[str, Scalar]


class SearchBackend(Protocol):
    """A backend that answers questions about one collection."""

    needs_vector: bool

    async def search(self, request: SearchRequest) -> list[Hit]:
        """Return up to `limit` hits, best first, at most one for each document.

        Raises Refused for a filter over something that is not metadata of the collection, StoreUnavailable or
        TransientError if it cannot answer now.
        """
        ...


class Embedder(Protocol):
    """Turns text into vectors. Each model has its own embedder."""

    @property
    def model_key(self) -> str:
        """Name and revision of the model, as stored with every vector."""
        ...

    @property
    def dimension(self) -> int:
        """Length of every vector."""
        ...

    async def chunked(self, texts: Sequence[str], progress: Callable[[], None] = lambda: None) -> list[tuple[str, ...]]:
        """Return the pieces of each text, at least one, short enough for the model to read whole.

        Long texts never block the event loop. `progress` is called while long texts are cut, from any thread. Raises
        EmbeddingFailed for a text that is not valid Unicode.
        """
        ...

    async def embed_documents(self, texts: Sequence[str], progress: Callable[[], None] = lambda: None) -> list[bytes]:
        """Return one vector for each text. `progress` is called as vectors arrive.

        Raises EmbeddingFailed, EmbeddingUnavailable.
        """
        ...

    async def embed_query(self, text: str) -> bytes:
        """Return the vector of a question, never waiting behind documents. Raises as `embed_documents` does."""
        ...

    async def close(self) -> None:
        """Stop the engine."""
        ...
