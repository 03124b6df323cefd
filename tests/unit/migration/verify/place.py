"""A collection with both of its stores in memory, and methods that damage its points as no writer would."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid5

from msgspec import structs

from connectors.embedding.memory import HashingEmbedder
from connectors.memory.bus import MemoryBus
from connectors.memory.checksums import MemoryChecksums
from connectors.memory.legacy import MemoryBulk, MemoryLedger, MemoryLegacy, MemoryTable
from connectors.memory.tasks import MemoryTasks
from connectors.memory.vectors import MemoryVectorStore
from connectors.ports import BulkTable, Embedder
from connectors.telemetry import Telemetry
from connectors.vector_ports import NAMELESS, VectorStore
from domain.legacy import TableDescription
from domain.points import DocumentPoints, chunks_of
from migration.collection import CollectionStores
from migration.context import HandlerContext
from migration.verify.options import Bounds, RoundOptions
from migration.verify.ports import Barrier
from migration.verify.publish import DifferencePublisher
from migration.verify.recheck import at_rest
from migration.verify.result import Verification
from migration.verify.run import verify
from schemas.content import Content, content_hash
from schemas.settings import Collection, Settings
from schemas.values import Kind
from tests.contract.vector_stores import vector

NAME = "docs"
SETTINGS = Settings(collections={NAME: Collection(table="docs", key=("id",), text=("body",), metadata=("year",))})


@dataclass
class Place:
    """A collection with both of its stores in memory."""

    legacy: MemoryLegacy = field(
        default_factory=lambda: MemoryLegacy(
            NAME, TableDescription(("id",), ("body",), {"year": Kind.INTEGER}, None, None)
        )
    )
    vectors: MemoryVectorStore = field(default_factory=MemoryVectorStore)
    bus: MemoryBus = field(default_factory=lambda: MemoryBus.provisioned(SETTINGS))
    tasks: MemoryTasks = field(default_factory=MemoryTasks)
    bulk: BulkTable | None = None
    seen_vectors: VectorStore | None = None
    barrier: Barrier = at_rest
    now_ms: int = 1000
    checksums: MemoryChecksums | None = None
    max_text_bytes: int | None = None

    async def put(self, name: str, body: str = "text", chunks: int = 1, version: int = 1) -> None:
        """Put a document into both stores."""
        self.legacy.write_directly(name, Content(text={"body": body}, metadata={"year": 2024}))
        await self.point(name, body, chunks, version)

    async def point(
        self, name: str, body: str = "text", chunks: int = 1, version: int = 1, values: tuple[float, ...] = (1, 0, 0, 0)
    ) -> None:
        """Put a document into Qdrant only."""
        content = Content(text={"body": body}, metadata={"year": 2024})
        texts = chunks_of([f"{body} {number}" for number in range(chunks)], [vector(*values)] * chunks)
        document = DocumentPoints(
            name, version, "default", content_hash(content), "hashing@1", content.metadata, texts, ()
        )
        await self.vectors.write(NAME, [document])

    def clock(self) -> int:
        self.now_ms += 1
        return self.now_ms

    def stores(self) -> CollectionStores:
        legacy = self.legacy
        return CollectionStores(
            NAME,
            MemoryTable(legacy),
            self.bulk or MemoryBulk(legacy),
            MemoryLedger(legacy),
            self.seen_vectors or self.vectors,
            4,
            tasks=self.tasks,
            checksums=self.checksums,
            max_text_bytes=self.max_text_bytes,
        )

    def damage(self, document_id: str, chunk: int = 0, **changes: Any) -> None:
        """Change fields of a point in place, like a program that knows nothing of checksums."""
        known = self.vectors._collections[NAME]
        name = known.chunks[document_id][chunk]
        point = known.points[name]
        known.points[name] = replace(point, mark=structs.replace(point.mark, **changes))

    def double(self, document_id: str) -> None:
        """Store a chunk a second time, under another point id."""
        known = self.vectors._collections[NAME]
        name = known.chunks[document_id][0]
        other = str(uuid5(UUID(name), "another"))
        known.points[other] = known.points[name]
        known.chunks[document_id][len(known.chunks[document_id]) + 100] = other

    def foreign(self) -> None:
        """Add a point that names no document."""
        known = self.vectors._collections[NAME].points
        point = next(iter(known.values()))
        known["5eed0000-0000-4000-8000-00000000000a"] = replace(point, document_id=NAMELESS)

    def lose(self, document_id: str) -> None:
        """Remove a document's points."""
        known = self.vectors._collections[NAME]
        for name in known.chunks.pop(document_id).values():
            del known.points[name]

    async def embedder(self, _: AsyncExitStack) -> Embedder:
        return HashingEmbedder(4)

    def ways(
        self, page: int = 3, *, repair: bool = False
    ) -> tuple[CollectionStores, RoundOptions, DifferencePublisher]:
        ctx = HandlerContext(self.clock, 1, Telemetry(tracing=False))
        stores = self.stores()
        bounds = Bounds(page=page, recheck_delay_s=0.0, recheck_timeout_s=0.05, range_rows=4)
        return (
            stores,
            RoundOptions(bounds, self.barrier, self.clock),
            DifferencePublisher(stores, self.bus, ctx, repair=repair),
        )

    async def verify(self, page: int = 3, *, repair: bool = False, **changes: Any) -> Verification:
        stores, way, publisher = self.ways(page, repair=repair)
        return await verify(stores, replace(way, **changes), publisher)


def kinds(run: Verification) -> dict[str, str]:
    return {difference.id: difference.kind for difference in run.differences}
