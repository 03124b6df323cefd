"""The difference finder over the in-memory stores: what it finds, each once, and what it is known not to see."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from agents.batch import CollectionPorts, Surroundings
from connectors.embedding.memory import HashingEmbedder
from connectors.memory.bus import MemoryBus
from connectors.memory.legacy import MemoryLedger, MemoryLegacy, MemoryTable
from connectors.memory.vectors import MemoryVectorStore
from connectors.ports import SearchBackend, SearchRequest
from connectors.telemetry import Telemetry
from domain.legacy import TableDescription
from domain.points import DocumentPoints, chunks_of
from domain.values import Kind
from operations.verifying import Bounds, Verification, verify
from schemas.cloudevents import decode
from schemas.content import Content, content_hash
from schemas.documents import DifferenceFound, DocumentChanged
from schemas.queries import Hit
from schemas.settings import Collection, Settings
from tests.contract.vector_stores import vector
from topics.catalogue import DIFFERENCES, LOG

NAME = "docs"
SETTINGS = Settings(collections={NAME: Collection(table="docs", key=("id",), text=("body",), metadata=("year",))})


class NoSearch:
    needs_vector = False

    async def search(self, request: SearchRequest) -> list[Hit]:
        raise AssertionError("nothing is searched here")


@dataclass
class Stores:
    """A collection with both of its stores in memory."""

    legacy: MemoryLegacy = field(
        default_factory=lambda: MemoryLegacy(
            NAME, TableDescription(("id",), ("body",), {"year": Kind.INTEGER}, None, None)
        )
    )
    vectors: MemoryVectorStore = field(default_factory=MemoryVectorStore)
    bus: MemoryBus = field(default_factory=lambda: MemoryBus.provisioned(SETTINGS))

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

    async def verify(self, page: int = 3, *, repair: bool = False) -> Verification:
        settings = SETTINGS.collections[NAME]
        search: SearchBackend = NoSearch()
        ports = CollectionPorts(
            NAME,
            settings,
            MemoryTable(self.legacy),
            MemoryLedger(self.legacy),
            self.vectors,
            HashingEmbedder(4),
            search,
        )
        around = Surroundings(lambda: 0, 1, Telemetry(tracing=False))
        bounds = Bounds(page, 0.0)
        return await verify(ports, bus=self.bus, around=around, bounds=bounds, repair=repair, progress=lambda _: None)


@pytest.fixture
async def stores() -> Stores:
    made = Stores()
    await made.vectors.prepare(NAME, 4)
    for number in range(10):
        await made.put(f"d{number}", chunks=1 + number % 3)
    return made


def kinds(run: Verification) -> dict[str, str]:
    return {difference.id: difference.kind for difference in run.differences}


@pytest.mark.parametrize("page", [1, 3, 100])
async def test_equal_stores_have_no_difference_whatever_the_page(stores: Stores, page: int) -> None:
    run = await stores.verify(page)
    assert (run.legacy_documents, run.vector_documents, run.found) == (10, 10, 0)


@pytest.mark.parametrize("page", [1, 2, 100])
async def test_each_difference_is_found_once_and_published(stores: Stores, page: int) -> None:
    stores.legacy.write_directly("new", Content(text={"body": "only in the table"}))
    stores.legacy.write_directly("d4", Content(text={"body": "changed"}, metadata={"year": 2024}))
    stores.legacy.write_directly("d5", Content(text={"body": "text"}, metadata={"year": 1999}))
    stores.legacy.delete_directly("d1")
    await stores.point("ghost", chunks=5)
    run = await stores.verify(page)
    assert kinds(run) == {"new": "missing", "d4": "stale", "d5": "stale", "d1": "ghost", "ghost": "ghost"}
    assert run.found == 5
    told = [decode(record, DifferenceFound)[0] for record in stores.bus.records(DIFFERENCES)]
    assert sorted((event.id, event.kind) for event in told) == sorted(kinds(run).items())


async def test_a_repair_appends_a_refresh_for_each_difference(stores: Stores) -> None:
    stores.legacy.write_directly("d4", Content(text={"body": "changed"}, metadata={"year": 2024}))
    await stores.point("ghost", chunks=2)
    run = await stores.verify(1, repair=True)
    entries = [decode(record, DocumentChanged)[0] for record in stores.bus.records(LOG)]
    assert {(entry.id, entry.origin, entry.deleted) for entry in entries} == {
        ("d4", "refresh", False),
        ("ghost", "refresh", True),
    }
    assert (len(entries), run.repaired) == (2, 2)


async def test_what_docs_verification_says_it_does_not_see_is_not_seen(stores: Stores) -> None:
    await stores.point("d0", version=2, values=(0, 0, 0, 1))  # another vector under the same text
    stores.legacy.write_directly("d2", Content(text={"body": "text"}, metadata={"year": 2024}, embedding=b"\0" * 16))
    assert (await stores.verify()).found == 0
