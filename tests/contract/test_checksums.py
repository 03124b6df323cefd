"""Tables of every shape, verified on the real databases: checksums show each change, and equal stores are found equal.

The points are in memory. The tests are about what the databases report.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from connectors.memory.bus import MemoryBus
from connectors.memory.vectors import MemoryVectorStore
from connectors.sql.databases import LegacyConnector, open_legacy
from connectors.telemetry import Telemetry
from domain.points import DocumentPoints, chunks_of, given_by
from migration.collection import CollectionStores
from migration.context import HandlerContext
from migration.verify.digests import Digests
from migration.verify.options import Bounds, RoundOptions
from migration.verify.publish import DifferencePublisher
from migration.verify.recheck import at_rest
from migration.verify.result import Verification
from migration.verify.run import verify
from schemas.content import content_hash
from schemas.settings import Collection, Connector, Settings
from stack.layout import StackAddresses
from tests.contract.legacy_places import DATABASES, Place, fresh_place

pytestmark = pytest.mark.stack
DIMENSION = 8
MODEL = "model@1"
ROWS = 60
MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Shape:
    """A table: how to create it, a row for a given number, its configuration, and changes that must all be detected."""

    create: dict[Connector, str]
    row: str
    collection: dict[str, object]
    changes: tuple[str, ...]
    rows: int = ROWS


def values(number: int, row: str) -> str:
    embedding = np.random.default_rng(number).normal(size=DIMENSION).astype("<f4")
    uuid = UUID(int=(number * 0x9E3779B97F4A7C15F39CC0605CEDC834) % (1 << 128), version=4)
    listed = "[" + ", ".join(f"{value:.9g}" for value in embedding.tolist()) + "]"
    return row.format(n=number, uuid=uuid, half=number // 2, listed=listed, hexed=embedding.tobytes().hex())


COMPOSITE = Shape(
    {
        "postgres": 'create table {t} (a int, b text collate "C", body text, year int, primary key (a, b))',
        "mariadb": """create table {t} (a int, b varchar(50) collate utf8mb4_nopad_bin, body text, year int,
            primary key (a, b)) character set utf8mb4""",
    },
    "({half}, 'k/{n}%', 'body {n}', {n})",
    {"key": ("a", "b"), "text": ("body",), "metadata": ("year",)},
    ("update {t} set body = 'other' where a = 3 and b = 'k/6%'", "delete from {t} where a = 9"),
)
UUIDS = Shape(
    {
        "postgres": "create table {t} (id uuid primary key, body text, at timestamptz, amount double precision)",
        "mariadb": """create table {t} (id char(36) collate utf8mb4_bin primary key, body text,
            at timestamp null, amount double)""",
    },
    "('{uuid}', 'body {n}', '2024-01-02 03:04:05', {n} / 3.0)",
    {"key": ("id",), "text": ("body",), "metadata": ("at", "amount")},
    (
        "update {t} set at = '2024-01-02 03:04:06' where body = 'body 7'",
        "update {t} set amount = 2.3333333333333335 + 1e-15 where body = 'body 7'",
    ),
)
TEXTS = Shape(
    {
        "postgres": "create table {t} (id text primary key, title text, body text, ok boolean, price numeric)",
        "mariadb": """create table {t} (id varchar(100) collate utf8mb4_nopad_bin primary key, title text, body text,
            ok boolean, price decimal(10, 4)) character set utf8mb4""",
    },
    "('Schlüssel {n} / ß', case when {n} % 3 = 0 then null else 'title' end, 'body {n}', {n} % 2 = 0, {n}.50)",
    {"key": ("id",), "text": ("title", "body"), "metadata": ("ok", "price")},
    (
        "update {t} set ok = null where body = 'body 4'",
        "update {t} set title = body, body = title where body = 'body 4'",
        "update {t} set price = price + 0.0001 where title = 'body 4'",
        "update {t} set crossfade_version = 5 where title = 'body 4'",
    ),
)
LONG = Shape(
    {
        "postgres": "create table {t} (id int primary key, body text)",
        "mariadb": "create table {t} (id int primary key, body mediumtext) character set utf8mb4",
    },
    "({n}, repeat('Text of row {n}. ', " + str(MEGABYTE // 16) + "))",
    {"key": ("id",), "text": ("body",)},
    ("update {t} set body = concat(body, '!') where id = 5",),
    rows=12,
)


def embedded(form: str, types: dict[Connector, str], literal: dict[Connector, str]) -> dict[Connector, Shape]:
    return {
        connector: Shape(
            {connector: f"create table {{t}} (id int primary key, body text, e {sql_type})"},
            f"({{n}}, 'body {{n}}', {literal[connector]})",
            {"key": ("id",), "text": ("body",), "embedding": {"column": "e", "format": form}},
            (f"update {{t}} set e = {values(999, literal[connector])} where id = 5",),
        )
        for connector, sql_type in types.items()
    }


SHAPES: dict[str, dict[Connector, Shape]] = {
    **{
        name: dict.fromkeys(DATABASES, shape)
        for name, shape in {"composite key": COMPOSITE, "UUIDs": UUIDS, "text key": TEXTS, "1 MB rows": LONG}.items()
    },
    "pgvector": embedded("pgvector", {"postgres": f"vector({DIMENSION})"}, {"postgres": "'{listed}'"}),
    "json": embedded("json", {"postgres": "jsonb", "mariadb": "json"}, dict.fromkeys(DATABASES, "'{listed}'")),
    "float32": embedded(
        "float32", {"postgres": "bytea", "mariadb": "blob"}, {"postgres": r"'\x{hexed}'", "mariadb": "x'{hexed}'"}
    ),
}
CASES = [(name, connector) for name, shapes in SHAPES.items() for connector in shapes]


@dataclass
class Verified:
    """A table of a shape, and points in memory, made from its rows as a backfill makes them."""

    place: Place
    shape: Shape
    legacy: LegacyConnector
    digests: Digests
    stores: CollectionStores

    async def backfill(self) -> None:
        after: str | None = None
        while rows := await self.legacy.bulk.scan_range(after, None, 10):
            for row in rows:
                content = row.content
                vector = content.embedding or np.ones(DIMENSION, "<f4").tobytes()
                model = given_by(MODEL) if content.embedding else MODEL
                chunks = chunks_of([content.full_text()], [vector])
                hashed = content_hash(content)
                points = DocumentPoints(row.id, 0, content.tenant, hashed, model, content.metadata, chunks, ())
                await self.stores.vectors.insert("documents", [points])
            after = rows[-1].id

    async def verify(self, *, full: bool = False) -> Verification:
        ctx = HandlerContext(lambda: 0, 1, Telemetry(tracing=False))
        bus = MemoryBus.provisioned(Settings(collections={}))
        way = RoundOptions(
            Bounds(page=7, recheck_delay_s=0, range_rows=25), at_rest, lambda: 0, self.digests, full=full
        )
        return await verify(self.stores, way, DifferencePublisher(self.stores, bus, ctx, repair=False))


@asynccontextmanager
async def verified(name: str, connector: Connector, stack: StackAddresses, folder: Path) -> AsyncIterator[Verified]:
    shape = SHAPES[name][connector]
    async with fresh_place(connector, stack) as place:
        await place.execute("create extension if not exists vector" if connector == "postgres" else "select 1")
        await place.execute(shape.create[connector])
        for number in range(shape.rows):
            await place.execute(f"insert into {{t}} values {values(number, shape.row)}")
        await place.execute("alter table {t} add column crossfade_version bigint")
        collection = Collection.model_validate(
            {"connector": connector, "table": f"{place.schema}.documents", **shape.collection}
        )
        legacy = await open_legacy("documents", collection, place.dsn)
        try:
            await legacy.prepare()
            vectors = MemoryVectorStore()
            await vectors.prepare("documents", DIMENSION)
            stores = CollectionStores(
                "documents",
                legacy.table,
                legacy.bulk,
                legacy.ledger,
                vectors,
                DIMENSION,
                tasks=legacy.tasks,
                checksums=legacy.checksums,
            )
            found = Verified(place, shape, legacy, Digests.of(folder, "documents", legacy.checksums.columns), stores)
            await found.backfill()
            yield found
        finally:
            await legacy.close()


@pytest.mark.parametrize(("name", "connector"), CASES)
async def test_equal_stores_are_equal_and_every_change_of_a_row_is_seen(
    stack: StackAddresses, tmp_path: Path, name: str, connector: Connector
) -> None:
    async with verified(name, connector, stack, tmp_path) as made:
        rows = made.shape.rows
        first = await made.verify()
        assert (first.verdict, first.legacy_documents, first.rows_read) == ("equal", rows, rows), first.differences
        again = await made.verify()
        assert (again.verdict, again.legacy_documents, again.rows_read) == ("equal", rows, 0)
        before = await made.legacy.checksums.of_ranges([(None, None)])
        for change in made.shape.changes:
            await made.place.execute(change)
            after = await made.legacy.checksums.of_ranges([(None, None)])
            assert after != before, change
            before = after
        run = await made.verify()
        assert {d.kind for d in run.differences} <= {"stale", "ghost"}
        assert run.found, "a change of the table alone is a difference"
        assert 0 < run.rows_read < rows + 1
        full = await made.verify(full=True)
        assert sorted((d.id, d.detail) for d in full.differences) == sorted((d.id, d.detail) for d in run.differences)


@pytest.mark.parametrize("connector", DATABASES)
async def test_the_checksums_of_ranges_are_those_of_their_rows_whatever_their_order(
    stack: StackAddresses, tmp_path: Path, connector: Connector
) -> None:
    async with verified("text key", connector, stack, tmp_path) as made:
        checksums = made.legacy.checksums
        bound = await made.legacy.bulk.bound(None, 20)
        whole, first, rest = await checksums.of_ranges([(None, None), (None, bound), (bound, None)])
        assert len({whole, first, rest}) == 3
        counts = [int(one.partition("-")[0], 16) for one in (whole, first, rest)]
        assert counts == [ROWS, 20, ROWS - 20]
        await made.place.execute(
            "create table {t}_other as select * from {t}", "delete from {t}", "insert into {t} select * from {t}_other"
        )
        assert await checksums.of_ranges([(None, None), (None, bound)]) == [whole, first]
        assert (await checksums.of_ranges([(bound, bound)]))[0].startswith("0-")


@pytest.mark.parametrize("connector", DATABASES)
async def test_null_and_the_empty_text_have_different_checksums(
    stack: StackAddresses, tmp_path: Path, connector: Connector
) -> None:
    async with verified("text key", connector, stack, tmp_path) as made:
        found = set()
        for title in ("null", "''", "'null'", "'-'"):
            await made.place.execute(f"update {{t}} set title = {title} where body = 'body 1'")
            found.update(await made.legacy.checksums.of_ranges([(None, None)]))
        assert len(found) == 4
