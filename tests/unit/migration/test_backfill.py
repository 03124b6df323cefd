"""A backfill over in-memory stores: what it writes, what it does not change, how it waits, and how it resumes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from connectors.embedding.memory import HashingEmbedder
from connectors.errors import EmbeddingFailed, Refused, StoreUnavailable
from connectors.memory.legacy import MemoryBulk, MemoryLedger, MemoryLegacy, MemoryTable
from connectors.memory.tasks import MemoryTasks
from connectors.memory.vectors import MemoryVectorStore
from domain.legacy import LegacyRow, TableDescription
from domain.pacing import Limits
from domain.points import DocumentPoints, chunks_of
from migration.backfill import ranges, throttle
from migration.backfill.ranges import BackfillPorts, page_rows
from migration.backfill.run import BackfillOptions, backfill
from migration.collection import CollectionStores
from schemas.content import Content, content_hash
from schemas.tasks import BACKFILL, CONTROL, HEADER, BackfillState, Control
from schemas.values import Kind

NAME, DIMENSION = "docs", 4
GIVEN = np.asarray([0, 0, 3, 4], "<f4").tobytes()


class Bulk(MemoryBulk):
    """Records the rows that are read, and refuses to read from a given page on."""

    def __init__(self, store: MemoryLegacy) -> None:
        super().__init__(store)
        self.read: list[str] = []
        self.away_from: int | None = None
        self.pages = 0

    async def scan_range(self, after: str | None, upto: str | None, limit: int) -> list[LegacyRow]:
        self.pages += 1
        if self.away_from is not None and self.pages >= self.away_from:
            raise Refused("the table is another one")
        rows = await super().scan_range(after, upto, limit)
        self.read += [row.id for row in rows]
        return rows


class Choosy(HashingEmbedder):
    """Refuses texts that contain the word `poison`."""

    async def embed_documents(self, texts: Sequence[str], progress: Callable[[], None] = lambda: None) -> list[bytes]:
        if any("poison" in text for text in texts):
            raise EmbeddingFailed("not this one")
        return await super().embed_documents(texts, progress)


@dataclass
class Place:
    legacy: MemoryLegacy = field(
        default_factory=lambda: MemoryLegacy(
            NAME, TableDescription(("id",), ("body",), {"year": Kind.INTEGER}, None, "embedding")
        )
    )
    vectors: MemoryVectorStore = field(default_factory=MemoryVectorStore)
    tasks: MemoryTasks = field(default_factory=MemoryTasks)
    refreshed: list[str] = field(default_factory=list)
    lag: tuple[int, float | None] = (0, 0.0)
    reported: list[BackfillState] = field(default_factory=list)
    now_ms: int = 1_000_000

    def __post_init__(self) -> None:
        self.bulk = Bulk(self.legacy)

    def put(self, name: str, body: str = "text", embedding: bytes | None = None) -> None:
        self.legacy.write_directly(name, Content(text={"body": body}, metadata={"year": 2024}, embedding=embedding))

    def clock(self) -> int:
        self.now_ms += 10
        return self.now_ms

    async def run(
        self, *, restart: bool = False, parallel: int = 3, embedder: HashingEmbedder | None = None
    ) -> BackfillState:
        await self.vectors.prepare(NAME, DIMENSION)

        async def refresh(ids: Sequence[str]) -> None:
            self.refreshed += ids

        async def lags() -> dict[str, tuple[int, float | None]]:
            return {"vector": self.lag}

        legacy = self.legacy
        stores = CollectionStores(
            NAME, MemoryTable(legacy), self.bulk, MemoryLedger(legacy), self.vectors, DIMENSION, tasks=self.tasks
        )
        sides = BackfillPorts(stores, embedder or HashingEmbedder(DIMENSION), refresh)
        wanted = BackfillOptions(Limits(parallel=parallel), range_rows=5, restart=restart)
        return await backfill(sides, self.tasks, wanted, lags, self.clock, self.reported.append)

    async def header(self) -> BackfillState:
        return BackfillState.model_validate_json((await self.tasks.read(BACKFILL))[HEADER])

    async def points(self, *ids: str) -> dict[str, list[tuple[int, int, str | None]]]:
        stored = await self.vectors.stored(NAME, ids or list(self.legacy.stored), content=True)
        return {one: [(p.chunk, p.version, p.text) for p in points] for one, points in stored.items()}


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "LOOK_S", 0.01)
    monkeypatch.setattr(ranges, "FIRST_ROWS", 3)
    monkeypatch.setattr(ranges, "PAGE_ROWS", 3)


@pytest.fixture
def place() -> Place:
    made = Place()
    for number in range(23):
        made.put(f"d{number:02}", f"body {number}", GIVEN if number % 2 else None)
    return made


async def test_every_row_is_a_point_of_version_0_with_the_given_vector_where_there_is_one(place: Place) -> None:
    done = await place.run()
    assert await place.points() == {f"d{n:02}": [(0, 0, f"body {n}")] for n in range(23)}
    assert (done.state, done.rows, done.points, done.ranges, done.planned) == ("done", 23, 23, 5, True)
    stored = await place.vectors.stored(NAME, ["d01", "d02"], content=True)
    assert stored["d01"][0].vector == np.asarray([0, 0, 0.6, 0.8], "<f4").tobytes()
    assert (stored["d01"][0].model, stored["d02"][0].model) == ("hashing@1 (given)", "hashing@1")
    assert stored["d02"][0].content_hash == content_hash(place.legacy.stored["d02"].content)
    assert done.recall == 1.0
    assert await place.header() == done


async def test_points_that_are_there_stay_tombstones_too(place: Place) -> None:
    await place.vectors.prepare(NAME, DIMENSION)
    newer = DocumentPoints("d03", 7, "default", "h", "m", {}, chunks_of(["newer"], [GIVEN]), ())
    gone = DocumentPoints("d04", 8, "default", None, "m", {}, (), (0,))
    await place.vectors.write(NAME, [newer, gone])
    await place.run()
    assert await place.points("d03", "d04") == {"d03": [(0, 7, "newer")], "d04": [(0, 8, "")]}


@pytest.mark.parametrize("pages", range(2, 10))
async def test_an_interrupted_one_goes_on_and_reads_no_page_that_was_kept_again(place: Place, pages: int) -> None:
    place.bulk.away_from = pages
    with pytest.raises(Refused):
        await place.run(parallel=1)
    failed = await place.header()
    assert (failed.state, failed.error) == ("failed", "the table is another one")
    place.bulk.away_from = None
    done = await place.run()
    assert (done.state, done.rows, done.started_at_ms) == ("done", 23, failed.started_at_ms)
    assert sorted(place.bulk.read) == sorted(place.legacy.stored)
    assert len(await place.points()) == 23


async def test_restart_and_a_finished_one_begin_again(place: Place) -> None:
    await place.run()
    await place.run()
    assert len(place.bulk.read) == 46
    place.bulk.away_from = place.bulk.pages + 3
    with pytest.raises(Refused):
        await place.run(parallel=1)
    place.bulk.away_from, place.bulk.read = None, []
    await place.run(restart=True)
    assert len(place.bulk.read) == 23


@pytest.mark.parametrize(
    "damage",
    [
        {HEADER: b"{"},
        {HEADER: b'{"state": "resting"}'},
        {1: b""},
        {2: b'{"after": "d03", "upto": "d04", "done": true}'},
        {5: b'{"after": "d22", "upto": null, "done": true}'},
        {3: b'{"after": "d09", "upto": null}'},
        {CONTROL: b"\xff"},
    ],
)
async def test_what_is_kept_and_cannot_be_read_is_begun_again_and_misses_no_row(
    place: Place, damage: dict[int, bytes]
) -> None:
    place.bulk.away_from = 5
    with pytest.raises(Refused):
        await place.run(parallel=1)
    assert max(await place.tasks.read(BACKFILL)) < 4, "one range is missing between"
    await place.tasks.save(BACKFILL, damage)
    place.bulk.away_from = None
    assert (await place.run()).state == "done"
    assert len([one for one in (await place.points()).values() if one]) == 23


async def test_a_row_that_has_no_place_in_qdrant_is_handed_over_and_the_others_go_on(place: Place) -> None:
    place.put("d08", "poison")
    place.put("d10", "more poison")
    place.legacy.write_directly("d12", Content(text={"body": "text"}, tenant="t" * 129))
    done = await place.run(embedder=Choosy(DIMENSION))
    assert sorted(place.refreshed) == ["d08", "d10", "d12"]
    assert (done.rows, done.points, done.handed_over) == (23, 20, 3)
    assert len(await place.points()) == 20


async def test_only_one_at_a_time_and_its_place_is_free_after_an_error(place: Place) -> None:
    async with place.tasks.hold(BACKFILL):
        with pytest.raises(Refused):
            await place.run()
    place.bulk.away_from = 1
    for _ in range(2):
        with pytest.raises(Refused, match="another one"):
            await place.run()


async def test_it_waits_while_an_operator_says_so_and_while_the_agents_are_behind(place: Place) -> None:
    await place.tasks.save(BACKFILL, {CONTROL: Control(paused=True).model_dump_json().encode()})
    running = asyncio.create_task(place.run())
    await _until(lambda: any(state.state == "paused" for state in place.reported))
    assert place.bulk.read == []
    assert (await place.header()).throttle == "paused by an operator"
    place.lag = (10**6, 1.0)
    await place.tasks.save(BACKFILL, {CONTROL: Control(paused=False).model_dump_json().encode()})
    await _until(lambda: "behind" in (place.reported[-1].throttle or ""))
    assert place.bulk.read == []
    place.lag = (0, None)
    assert (await running).rows == 23


async def _until(holds: object) -> None:
    async with asyncio.timeout(10):
        while not holds():  # type: ignore[operator]  # noqa: ASYNC110 -- there is no event for it
            await asyncio.sleep(0.01)


async def test_an_empty_table_is_done_at_once() -> None:
    done = await Place().run()
    assert (done.state, done.rows, done.points, done.recall) == ("done", 0, 0, None)


async def test_a_store_that_is_away_for_a_moment_ends_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    insert, calls = place.vectors.insert, 0

    async def shaky(collection: str, documents: Sequence[DocumentPoints]) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise StoreUnavailable("away")
        await insert(collection, documents)

    monkeypatch.setattr(place.vectors, "insert", shaky)
    assert (await place.run(parallel=1)).state == "done"
    assert len(await place.points()) == 23


def test_a_page_of_large_rows_is_small_and_one_of_small_rows_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()

    def row(size: int) -> LegacyRow:
        return LegacyRow("a", None, Content(text={"body": "x" * size}))

    assert page_rows([row(2**20)] * 4) == 3
    assert page_rows([row(2**25)]) == 1
    assert page_rows([row(10)] * 100) == 2000
