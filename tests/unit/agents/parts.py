"""One collection over the in-memory adapters. Every call is recorded in order, and fails if a test wants it to.

The recorded steps: `publish TOPIC...`, `ledger.NAME`, `table.NAME`, `vectors.NAME`, `embedder.NAME`.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

from agents.batch import Message
from connectors.embedding.memory import HashingEmbedder
from connectors.errors import EmbeddingFailed
from connectors.memory.bus import MemoryBus
from connectors.memory.legacy import Constraint, MemoryBulk, MemoryLedger, MemoryLegacy, MemoryTable
from connectors.memory.vectors import MemoryVectorStore
from connectors.ports import Bus, Ledger, LegacyTable, SearchBackend, SearchRequest
from connectors.telemetry import Telemetry, Trace
from connectors.vector_ports import VectorStore
from domain.filters import matches
from domain.legacy import LegacyRow, TableDescription
from domain.points import DocumentPoints, chunks_of
from migration.collection import CollectionPorts
from migration.context import HandlerContext
from schemas.cloudevents import decode, encode
from schemas.content import Content, Scalar, content_hash
from schemas.documents import DocumentEmbedded, DocumentResolved, DocumentWritten, EmbeddedChunk, Event
from schemas.keys import document_key
from schemas.queries import Hit
from schemas.records import Outgoing, Received
from schemas.rollout import Phase
from schemas.settings import Collection, EmbeddingColumn, Kafka
from schemas.values import Kind
from topics.captures import Capture
from topics.catalogue import CATALOGUE, EMBEDDED, RESOLVED, WRITTEN

NAME = "docs"
CAPTURE = "crossfade.capture.public.docs"
ORIGIN = {"name": "crossfade.capture", "db": "shop", "schema": "public", "table": "docs"}
NOW = 1_700_000_000_000
EPOCH = 1
TRACEPARENT = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
E = TypeVar("E", bound=Event)
T = TypeVar("T")


class Crash(Exception):
    """The error with which a test ends a process. No port raises it."""


@dataclass
class Journal:
    """The steps that were done, in order, and the errors to raise at later steps."""

    steps: list[str] = field(default_factory=list)
    _fails: dict[tuple[str, bool], list[BaseException]] = field(default_factory=dict)

    def fail(self, step: str, *errors: BaseException, after: bool = False) -> None:
        """Raise the errors one by one at the next runs of a step: before the step, or after it with `after`."""
        self._fails.setdefault((step, after), []).extend(errors)

    def calm(self) -> None:
        """Discard the errors that were not raised yet."""
        self._fails.clear()

    async def run(self, step: str, call: Callable[[], Awaitable[T]]) -> T:
        """Run one step and record it."""
        self._raise(step, after=False)
        result = await call()
        self.steps.append(step)
        self._raise(step, after=True)
        return result

    def _raise(self, step: str, *, after: bool) -> None:
        waiting = self._fails.get((step, after))
        if waiting:
            raise waiting.pop(0)


class _Noted:
    def __init__(self, inner: Any, name: str, journal: Journal) -> None:
        self._inner, self._name, self._journal = inner, name, journal

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._journal.run(f"{self._name}.{name}", lambda: found(*args, **kwargs))

        return call


class NotedBus:
    """A bus that records the topics of each publish call. An empty call is not recorded."""

    def __init__(self, journal: Journal) -> None:
        topics = [topic.name for topic in CATALOGUE] + [CAPTURE]
        self.inner = MemoryBus({one: 1 for name in topics for one in (name, f"{name}-dlt")}, clock_ms=lambda: NOW)
        self._journal = journal

    async def publish(self, records: Sequence[Outgoing]) -> None:
        if records:
            topics = " ".join(dict.fromkeys(record.topic for record in records))
            await self._journal.run(f"publish {topics}", lambda: self.inner.publish(records))

    def events(self, topic: str, model: type[E]) -> list[E]:
        """Return the events of a topic."""
        return [decode(record, model)[0] for record in self.inner.records(topic)]

    def messages(self, topic: str) -> list[Message]:
        """Return the records of a topic in the form that a handler receives."""
        return [_message(record) for record in self.inner.records(topic)]

    def add(self, record: Outgoing, timestamp_ms: int = NOW - 5) -> Message:
        """Append a record without recording a step. Return it in the form that a handler receives."""
        return _message(self.inner.append(record, timestamp_ms=timestamp_ms))


def _message(record: Received) -> Message:
    return Message(record, Trace(incoming=record.header("traceparent")))


class CountingEmbedder(HashingEmbedder):
    """An embedder that records every call and its texts. It refuses texts that contain the word `poison`."""

    def __init__(self, chunk_words: int = 3) -> None:
        super().__init__(dimension=8, chunk_words=chunk_words)
        self.calls: list[list[str]] = []

    @property
    def texts(self) -> list[str]:
        return [text for call in self.calls for text in call]

    async def embed_documents(self, texts: Sequence[str], progress: Callable[[], None] = lambda: None) -> list[bytes]:
        self.calls.append(list(texts))
        if any("poison" in text for text in texts):
            raise EmbeddingFailed("no usable vector")
        return await super().embed_documents(texts, progress)


@dataclass
class RowSearch:
    """A search over the rows of the table. It finds the rows whose text contains a word of the question."""

    legacy: MemoryLegacy
    needs_vector: bool = False

    async def search(self, request: SearchRequest) -> list[Hit]:
        words = request.text.split()
        rows = [
            row
            for row in self.legacy.stored.values()
            if any(word in row.content.full_text() for word in words) and matches(row.content.metadata, request.filter)
        ]
        return [
            Hit(document_id=row.id, chunk=0, score=1.0, text=row.content.full_text(), version=row.version)
            for row in rows[: request.limit]
        ]


class World:
    """One collection with text column `body` and metadata column `year`, its agents' context, and its journal.

    `embedding` names its column of precomputed embeddings.
    """

    def __init__(
        self,
        *,
        phase: Phase = "dual_write",
        constraint: Constraint = lambda _id, _content: None,
        embedding: str | None = None,
    ) -> None:
        self.journal = Journal()
        self.bus = NotedBus(self.journal)
        self.legacy = MemoryLegacy(
            NAME, TableDescription(("id",), ("body",), {"year": Kind.INTEGER}, None, embedding), constraint=constraint
        )
        self.vectors = MemoryVectorStore()
        self.embedder = CountingEmbedder()
        self.ctx = HandlerContext(lambda: NOW, EPOCH, Telemetry(tracing=False), max_text_bytes=100)
        self.ports = CollectionPorts(
            NAME,
            cast(LegacyTable, self.noted(MemoryTable(self.legacy), "table")),
            MemoryBulk(self.legacy),
            cast(Ledger, self.noted(MemoryLedger(self.legacy), "ledger")),
            cast(VectorStore, self.noted(self.vectors, "vectors")),
            self.embedder.dimension,
            settings=Collection(
                dsn="postgresql://app@localhost/shop",
                table="public.docs",
                key=("id",),
                text=("body",),
                metadata=("year",),
                phase=phase,
                embedding=EmbeddingColumn(column=embedding, format="float32") if embedding else None,
            ),
            embedder=self.embedder,
            text_search=cast(SearchBackend, self.noted(RowSearch(self.legacy), "search")),
            capture=Capture(1, "crossfade.capture", "crossfade-postgres", "public.docs"),
        )

    def noted(self, inner: object, name: str) -> Any:
        """Return a port that records its calls under a name."""
        return _Noted(inner, name, self.journal)

    async def prepared(self) -> World:
        """Create the collection in the vector store."""
        await self.vectors.prepare(NAME, self.embedder.dimension)
        return self

    @property
    def collections(self) -> dict[str, CollectionPorts]:
        return {NAME: self.ports}

    @property
    def handled(self) -> dict[str, Any]:
        """The ports that every document handler takes."""
        return {"collections": self.collections, "bus": cast(Bus, self.bus), "ctx": self.ctx}

    @property
    def reported(self) -> dict[str, Any]:
        """The arguments of the functions that return the outcome of a dead letter."""
        return {"collections": self.collections, "ctx": self.ctx}

    def steps(self) -> list[str]:
        """Return the steps since the last call."""
        steps, self.journal.steps = self.journal.steps, []
        return steps

    def outcomes(self) -> list[tuple[str, int | None, str]]:
        """Return (document, version, outcome) of all published outcomes, in order."""
        return [(e.id, e.version, e.outcome) for e in self.bus.events(WRITTEN, DocumentWritten)]

    def put(self, topic: str, event: Event, key: str, *, trace: str | None = None) -> Message:
        """Append an event to a topic as a producer or another agent would."""
        record = encode(event, topic=topic, key=key, event_id=f"e-{key}", source="test", time_ms=NOW, traceparent=trace)
        return self.bus.add(record)

    def resolved(self, document_id: str, version: int, body: str | None = "text", **other: Any) -> Message:
        """Append a resolved version; without a body it is a deletion. The origin is a producer by default."""
        given = None if body is None else content(body)
        event = DocumentResolved(
            **{
                "collection": NAME,
                "id": document_id,
                "version": version,
                "origin": "producer",
                "deleted": given is None,
                "content": given,
                "content_hash": content_hash(given) if given else None,
                "cause": f"cause-{version}",
                "occurred_at_ms": NOW - 50,
            }
            | other
        )
        return self.put(RESOLVED, event, document_key(event.collection, document_id))

    async def embedded(self, document_id: str, version: int, *texts: str, **other: Any) -> Message:
        """Append an embedded version; without texts it is a deletion."""
        vectors = await HashingEmbedder(dimension=8).embed_documents(texts)
        event = DocumentEmbedded(
            **{
                "collection": NAME,
                "id": document_id,
                "version": version,
                "origin": "producer",
                "deleted": not texts,
                "content_hash": f"hash-{version}" if texts else None,
                "model": self.embedder.model_key,
                "chunks": tuple(EmbeddedChunk(text=t, vector=v) for t, v in zip(texts, vectors, strict=True)),
            }
            | other
        )
        return self.put(EMBEDDED, event, document_key(event.collection, document_id))

    async def store(self, document_id: str, version: int, *texts: str, **metadata: Scalar) -> None:
        """Put points into the vector store, as if an earlier version had been written."""
        vectors = await HashingEmbedder(dimension=8).embed_documents(texts)
        chunks = chunks_of(texts, vectors)
        points = DocumentPoints(document_id, version, "default", "h", self.embedder.model_key, metadata, chunks, ())
        await self.vectors.write(NAME, [points])

    async def points(self, document_id: str) -> list[tuple[int, int, str | None]]:
        """Return (chunk, version, text) of every stored point of a document; the text of a tombstone is None."""
        stored = await self.vectors.stored(NAME, [document_id], content=True)
        return [(p.chunk, p.version, None if p.deleted else p.text) for p in stored.get(document_id, [])]

    def row(self, document_id: str) -> tuple[str, int | None] | None:
        """Return (body, version) of a row, None if there is no row."""
        row: LegacyRow | None = self.legacy.stored.get(document_id)
        return None if row is None else (row.content.full_text(), row.version)

    def change_ledger(self, document_id: str, **state: Any) -> None:
        """Change the state of the fold that the ledger has for a document."""
        row = self.legacy.ledger_rows[document_id]
        self.legacy.ledger_rows[document_id] = replace(row, state=replace(row.state, **state))


def content(body: str, **metadata: Any) -> Content:
    """Return content of the collection."""
    return Content(text={"body": body}, metadata={"year": None} | metadata)


def too_large() -> Content:
    """Return content that is too large for any topic."""
    return content("x" * Kafka().max_record_bytes)
