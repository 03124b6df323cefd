"""The difference finder over the in-memory stores: what it finds, each once, and what it is known not to see."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from agents.batch import Surroundings
from connectors.memory.bus import MemoryBus
from connectors.memory.legacy import MemoryBulk, MemoryLedger, MemoryLegacy, MemoryTable
from connectors.memory.tasks import MemoryTasks
from connectors.memory.vectors import MemoryVectorStore
from connectors.telemetry import Telemetry
from domain.legacy import TableDescription
from domain.points import DocumentPoints, chunks_of
from domain.values import Kind
from operations.verification.confirming import Barrier, at_rest
from operations.verification.result import Bounds, Verification
from operations.verification.run import Way, verify
from operations.verification.stores import Stores
from operations.verification.telling import Teller
from schemas.cloudevents import decode
from schemas.content import Content, content_hash
from schemas.documents import DifferenceFound, DocumentChanged
from schemas.settings import Collection, Settings
from tests.contract.vector_stores import vector
from topics.catalogue import DIFFERENCES, LOG

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
    barrier: Barrier = at_rest
    now_ms: int = 1000

    async def put(self, name: str, body: str = "text", chunks: int = 1, version: int = 1) -> None:
        """Put a document into both stores."""
        self.legacy.write_directly(name, Content(text={"body": body}, metadata={"year": 2024}))
        await self.point(name, body, chunks, version)

    async def point(
        self, name: str, body: str = "text", chunks: int = 1, version: int = 1, values: tuple[float, ...] = (1, 0, 0, 0)
    ) -> None:
        """Put a document into Qdrant alone."""
        content = Content(text={"body": body}, metadata={"year": 2024})
        texts = chunks_of([f"{body} {number}" for number in range(chunks)], [vector(*values)] * chunks)
        document = DocumentPoints(
            name, version, "default", content_hash(content), "hashing@1", content.metadata, texts, ()
        )
        await self.vectors.write(NAME, [document])

    def clock(self) -> int:
        self.now_ms += 1
        return self.now_ms

    def stores(self) -> Stores:
        legacy = self.legacy
        return Stores(
            NAME, MemoryTable(legacy), MemoryBulk(legacy), MemoryLedger(legacy), self.vectors, 4, tasks=self.tasks
        )

    async def verify(self, page: int = 3, *, repair: bool = False, **changes: Any) -> Verification:
        around = Surroundings(self.clock, 1, Telemetry(tracing=False))
        stores = self.stores()
        bounds = Bounds(page=page, settle_s=0.0, patience_s=0.05, range_rows=4)
        way = replace(Way(bounds, self.barrier, self.clock), **changes)
        return await verify(stores, way, Teller(stores, self.bus, around, repair=repair))


@pytest.fixture
async def place() -> Place:
    made = Place()
    await made.vectors.prepare(NAME, 4)
    for number in range(10):
        await made.put(f"d{number}", chunks=1 + number % 3)
    return made


def kinds(run: Verification) -> dict[str, str]:
    return {difference.id: difference.kind for difference in run.differences}


@pytest.mark.parametrize("page", [1, 3, 100])
async def test_equal_stores_have_no_difference_whatever_the_page(place: Place, page: int) -> None:
    run = await place.verify(page)
    assert (run.legacy_documents, run.vector_documents, run.found) == (10, 10, 0)


@pytest.mark.parametrize("page", [1, 2, 100])
async def test_each_difference_is_found_once_and_published(place: Place, page: int) -> None:
    place.legacy.write_directly("new", Content(text={"body": "only in the table"}))
    place.legacy.write_directly("d4", Content(text={"body": "changed"}, metadata={"year": 2024}))
    place.legacy.write_directly("d5", Content(text={"body": "text"}, metadata={"year": 1999}))
    place.legacy.delete_directly("d1")
    await place.point("ghost", chunks=5)
    run = await place.verify(page)
    assert kinds(run) == {"new": "missing", "d4": "stale", "d5": "stale", "d1": "ghost", "ghost": "ghost"}
    assert run.found == 5
    told = [decode(record, DifferenceFound)[0] for record in place.bus.records(DIFFERENCES)]
    assert sorted((event.id, event.kind) for event in told) == sorted(kinds(run).items())


async def test_a_repair_appends_a_refresh_for_each_difference(place: Place) -> None:
    place.legacy.write_directly("d4", Content(text={"body": "changed"}, metadata={"year": 2024}))
    await place.point("ghost", chunks=2)
    run = await place.verify(1, repair=True)
    entries = [decode(record, DocumentChanged)[0] for record in place.bus.records(LOG)]
    assert {(entry.id, entry.origin, entry.deleted) for entry in entries} == {
        ("d4", "refresh", False),
        ("ghost", "refresh", True),
    }
    assert (len(entries), run.repaired) == (2, 2)
