"""The rows that are read are compared with the table's own count.

A wrong order, and rows that make no document, are never `equal` and never `done`, whatever the type of the key is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from connectors.embedding.memory import HashingEmbedder
from connectors.errors import Refused
from connectors.memory.bus import MemoryBus
from connectors.memory.tasks import MemoryTasks
from connectors.memory.vectors import MemoryVectorStore
from connectors.ports import BulkTable
from connectors.sql.databases import LegacyConnector, open_legacy
from connectors.sql.mariadb import layout as mariadb_layout
from connectors.telemetry import Telemetry
from domain.legacy import Coverage, LegacyRow
from domain.pacing import Limits
from migration.backfill.ranges import BackfillPorts
from migration.backfill.run import BackfillOptions, backfill
from migration.collection import CollectionStores
from migration.context import HandlerContext
from migration.verify.options import Bounds, RoundOptions
from migration.verify.publish import DifferencePublisher
from migration.verify.recheck import at_rest
from migration.verify.result import Verification
from migration.verify.run import verify
from schemas.settings import Connector, Settings
from schemas.tasks import BackfillState
from stack.layout import StackAddresses
from tests.contract.legacy_places import DATABASES, Place, fresh_place

pytestmark = pytest.mark.stack
ROWS, NAME = 300, "documents"
TEXT_KEY = {
    "postgres": 'k text COLLATE "C"',
    "mariadb": "k varchar(700) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin",
}


class Wrapped:
    """A wrapper around a real table. Its subclasses read the table wrongly."""

    def __init__(self, real: BulkTable) -> None:
        self.real = real

    async def bound(self, after: str | None, rows: int) -> str | None:
        return await self.real.bound(after, rows)

    async def scan_range(self, after: str | None, upto: str | None, limit: int) -> list[LegacyRow]:
        return await self.real.scan_range(after, upto, limit)

    async def count(self, after: str | None, upto: str | None) -> int:
        return await self.real.count(after, upto)

    async def ids(self, after: str | None, upto: str | None) -> list[str]:
        return await self.real.ids(after, upto)

    async def coverage(self, ranges: Sequence[tuple[str | None, str | None]]) -> Coverage:
        return await self.real.coverage(ranges)

    async def estimated_rows(self) -> int:
        return await self.real.estimated_rows()

    async def running_statements(self) -> int:
        return 0


class OtherOrder(Wrapped):
    """Returns pages in a different order from the one that divides the table into ranges."""

    async def scan_range(self, after: str | None, upto: str | None, limit: int) -> list[LegacyRow]:
        rows = await self.real.scan_range(after, upto, ROWS)
        return sorted(rows, key=lambda row: row.id[::-1])[:limit]


class Skipping(Wrapped):
    """Leaves out the first row of each page except the first."""

    async def scan_range(self, after: str | None, upto: str | None, limit: int) -> list[LegacyRow]:
        rows = await self.real.scan_range(after, upto, limit + 1)
        return rows[:limit] if after is None or len(rows) <= limit else rows[1:]


class Lost(Wrapped):
    """Leaves some rows out of every range: the comparisons themselves are wrong."""

    async def scan_range(self, after: str | None, upto: str | None, limit: int) -> list[LegacyRow]:
        return [row for row in await self.real.scan_range(after, upto, limit) if not row.id.endswith("7")]

    async def ids(self, after: str | None, upto: str | None) -> list[str]:
        return [one for one in await self.real.ids(after, upto) if not one.endswith("7")]

    async def count(self, after: str | None, upto: str | None) -> int:
        return len(await self.ids(after, upto))

    async def coverage(self, ranges: Sequence[tuple[str | None, str | None]]) -> Coverage:
        found = await self.real.coverage(ranges)
        return replace(found, in_ranges=sum([await self.count(*bounds) for bounds in ranges]))


LIES: dict[str, type[Wrapped]] = {"order": OtherOrder, "pages": Skipping, "comparisons": Lost}


@dataclass
class Both:
    """A real table, its points in memory, and the backfill and verification that read the table."""

    place: Place
    legacy: LegacyConnector
    bulk: BulkTable
    vectors: MemoryVectorStore
    tasks: MemoryTasks

    async def backfill(self, bulk: BulkTable) -> BackfillState:
        async def nothing(_: object = None) -> Any:
            return {}

        legacy = self.legacy
        stores = CollectionStores(NAME, legacy.table, bulk, legacy.ledger, self.vectors, 4, tasks=self.tasks)
        sides = BackfillPorts(stores, HashingEmbedder(4), nothing)
        wanted = BackfillOptions(Limits(parallel=2), range_rows=100)
        return await backfill(sides, self.tasks, wanted, nothing, lambda: 0, lambda _: None)

    async def verify(self, bulk: BulkTable, *, checksums: bool = True) -> Verification:
        legacy = self.legacy
        stores = CollectionStores(NAME, legacy.table, bulk, legacy.ledger, self.vectors, 4, tasks=MemoryTasks())
        stores = replace(stores, checksums=legacy.checksums if checksums else None)
        way = RoundOptions(
            Bounds(page=16, recheck_delay_s=0, recheck_timeout_s=0.1, range_rows=100), at_rest, lambda: 0
        )
        ctx = HandlerContext(lambda: 0, 1, Telemetry(tracing=False))
        return await verify(
            stores, way, DifferencePublisher(stores, MemoryBus.provisioned(Settings(collections={})), ctx, repair=False)
        )


async def opened(place: Place, key: tuple[str, ...] = ("k",)) -> Both:
    configured = place.collection(key=key, text=("body",), metadata=(), tenant=None)
    legacy = await open_legacy(NAME, configured, place.dsn)
    await legacy.prepare()
    vectors = MemoryVectorStore()
    await vectors.prepare(NAME, 4)
    return Both(place, legacy, legacy.bulk, vectors, MemoryTasks())


async def table(place: Place, declared: str, values: Sequence[str], key: str = "k") -> None:
    await place.execute(
        f"CREATE TABLE {{t}} ({declared} NOT NULL, n int NOT NULL, body text, crossfade_version bigint, "
        f"PRIMARY KEY ({key}))"
    )
    rows = ", ".join(f"({value}, {n}, 'body {n}')" for n, value in enumerate(values))
    await place.execute(f"INSERT INTO {{t}} (k, n, body) VALUES {rows}")


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("connector", DATABASES)
async def test_an_order_that_lies_is_neither_equal_nor_done(
    stack: StackAddresses, connector: Connector, lie: str
) -> None:
    async with fresh_place(connector, stack) as place:
        await table(place, TEXT_KEY[connector], [f"'{n * 7919 % 1000:03d}'" for n in range(ROWS)])
        made = await opened(place)
        try:
            wrong = LIES[lie](made.bulk)
            with pytest.raises(Refused, match="rows of the table that were read by no"):
                await made.backfill(wrong)
            done = await made.backfill(made.bulk)
            assert (done.state, (await made.verify(made.bulk)).verdict) == ("done", "equal")
            for checksums in (True, False):
                run = await made.verify(wrong, checksums=checksums)
                assert run.verdict == "unknown", run
                assert any("rows of the table" in error for error in run.errors)
        finally:
            await made.legacy.close()


async def test_an_enum_is_never_equal_even_where_it_is_let_in(
    stack: StackAddresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mariadb_layout, "_not_key", lambda *_: None)
    async with fresh_place("mariadb", stack) as place:
        labels = ("zebra", "apple", "mango")
        values = [f"'{labels[n % 3]}'" for n in range(ROWS)]
        await table(place, "k enum('zebra','apple','mango')", values, key="k, n")
        made = await opened(place, ("k", "n"))
        try:
            with pytest.raises(Refused, match="rows of the table"):
                await made.backfill(made.bulk)
            run = await made.verify(made.bulk)
            assert run.verdict in {"different", "unknown"}
            assert any("rows of the table" in error for error in run.errors)
        finally:
            await made.legacy.close()


NO_ID = {
    "empty": ("''", ("postgres", "mariadb")),
    "too long": ("'" + "x" * 513 + "'", ("postgres", "mariadb")),
    "NUL": ("'a\\0b'", ("mariadb",)),
}


@pytest.mark.parametrize(("connector", "what"), [(one, what) for what, (_, where) in NO_ID.items() for one in where])
async def test_a_row_whose_key_makes_no_document_is_named_and_stops_no_other(
    stack: StackAddresses, connector: Connector, what: str
) -> None:
    async with fresh_place(connector, stack) as place:
        await table(place, TEXT_KEY[connector], [*(f"'{n:03d}'" for n in range(40)), NO_ID[what][0]])
        made = await opened(place)
        try:
            with pytest.raises(Refused, match="rows whose key makes no document: 1 "):
                await made.backfill(made.bulk)
            run = await made.verify(made.bulk)
            assert (run.verdict, run.legacy_documents, run.found) == ("unknown", 40, 0)
            assert [error for error in run.errors if "makes no document: 1: " in error]
            await place.execute("DELETE FROM {t} WHERE n = 40")
            assert (await made.backfill(made.bulk)).state == "done"
            assert (await made.verify(made.bulk)).verdict == "equal"
        finally:
            await made.legacy.close()


@pytest.mark.parametrize("connector", DATABASES)
async def test_a_long_id_of_several_columns_is_measured_as_it_is_encoded(
    stack: StackAddresses, connector: Connector
) -> None:
    async with fresh_place(connector, stack) as place:
        lengths = {"ä" * 84: True, "ä" * 86: False, "a" * 508: True, "a" * 511: False, "/": True, "~": True, "": True}
        await table(place, TEXT_KEY[connector], [f"'{text}'" for text in lengths], key="k, n")
        made = await opened(place, ("k", "n"))
        try:
            found = {row.id for row in await made.bulk.scan_range(None, None, 100)}
            assert len(found) == sum(lengths.values())
            assert await made.legacy.table.existing(sorted(found)) == found
            coverage = await made.bulk.coverage([(None, None)])
            assert (coverage.rows, coverage.in_ranges, coverage.without_id, coverage.outside) == (7, 5, 2, 0)
        finally:
            await made.legacy.close()


@pytest.mark.parametrize("connector", DATABASES)
async def test_live_writes_are_no_gap(stack: StackAddresses, connector: Connector) -> None:
    async with fresh_place(connector, stack) as place:
        await table(place, TEXT_KEY[connector], [f"'{n:05d}'" for n in range(ROWS)])
        made = await opened(place)
        stop = asyncio.Event()

        async def traffic() -> None:
            async with place.connection() as connection:
                number = ROWS
                while not stop.is_set():
                    number += 1
                    key = number * 7919 % 100000
                    name = f"{place.schema}.documents"
                    await connection.execute(f"INSERT INTO {name} (k, n, body) VALUES ('{key:05d}x', {number}, 'new')")
                    await connection.execute(f"DELETE FROM {name} WHERE n = {number - 50}")

        writing = asyncio.create_task(traffic())
        try:
            assert (await made.backfill(made.bulk)).state == "done"
            for _ in range(3):
                run = await made.verify(made.bulk)
                assert (run.unknown, run.errors) == (0, [])
        finally:
            stop.set()
            await writing
            await made.legacy.close()
