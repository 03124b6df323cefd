"""A fresh schema or database for a legacy table and the ports over it, and the ports of the in-memory store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import aiomysql
import asyncpg

from connectors.memory.legacy import MemoryBulk, MemoryLedger, MemoryLegacy, MemoryTable
from connectors.ports import BulkTable, Ledger, LegacyTable
from connectors.sql.databases import open_legacy
from domain.legacy import LegacyChange, TableDescription
from schemas.content import Content
from schemas.settings import Collection, Connector
from schemas.values import Kind
from stack.layout import StackAddresses

DATABASES: tuple[Connector, ...] = ("postgres", "mariadb")
ADAPTERS = ("memory", *DATABASES)

DOCUMENTS = {
    "postgres": """CREATE TABLE {t} (id text COLLATE "C" PRIMARY KEY, title varchar(40), body text NOT NULL,
        year integer, price numeric, ok boolean, tenant text, slug text UNIQUE, note text DEFAULT 'kept',
        crossfade_version bigint, CONSTRAINT early CHECK (year < 3000))""",
    "mariadb": """CREATE TABLE {t} (id varchar(200) COLLATE utf8mb4_nopad_bin PRIMARY KEY, title varchar(40),
        body text NOT NULL, year int, price decimal(30,10), ok boolean, tenant varchar(100), slug varchar(100) UNIQUE,
        note varchar(20) DEFAULT 'kept', crossfade_version bigint INVISIBLE, CONSTRAINT early CHECK (year < 3000)
        ) CHARACTER SET utf8mb4""",
}


@dataclass(frozen=True)
class Place:
    """A schema (PostgreSQL) or a database (MariaDB) of the test's own."""

    connector: Connector
    dsn: str
    schema: str

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        connection = await Connection.open(self.connector, self.dsn)
        try:
            yield connection
        finally:
            await connection.close()

    async def execute(self, *statements: str) -> None:
        async with self.connection() as connection:
            for statement in statements:
                await connection.execute(statement.replace("{t}", f"{self.schema}.documents"))

    async def fetch(self, statement: str) -> list[tuple[Any, ...]]:
        async with self.connection() as connection:
            return await connection.fetch(statement.replace("{t}", f"{self.schema}.documents"))

    def collection(self, **changes: Any) -> Collection:
        given: dict[str, Any] = {
            "connector": self.connector,
            "table": f"{self.schema}.documents",
            "key": ("id",),
            "text": ("title", "body"),
            "metadata": ("year", "price", "ok", "slug"),
            "tenant": "tenant",
        }
        return Collection(**(given | changes))


class Connection:
    """A plain connection, such as an application has."""

    def __init__(self, connector: Connector, raw: Any) -> None:
        self.connector = connector
        self.raw = raw

    @classmethod
    async def open(cls, connector: Connector, dsn: str) -> Connection:
        if connector == "postgres":
            return cls(connector, await asyncpg.connect(dsn))
        parts = urlsplit(dsn)
        raw = await aiomysql.connect(
            host=parts.hostname,
            port=parts.port,
            user=parts.username,
            password=parts.password,
            db=parts.path.lstrip("/"),
            charset="utf8mb4",
            autocommit=True,
            init_command="SET SESSION time_zone = '+00:00'",
        )
        return cls(connector, raw)

    async def execute(self, statement: str) -> None:
        if self.connector == "postgres":
            await self.raw.execute(statement)
            return
        async with self.raw.cursor() as cursor:
            await cursor.execute(statement)

    async def fetch(self, statement: str) -> list[tuple[Any, ...]]:
        if self.connector == "postgres":
            return [tuple(row) for row in await self.raw.fetch(statement)]
        async with self.raw.cursor() as cursor:
            await cursor.execute(statement)
            return list(await cursor.fetchall())

    async def close(self) -> None:
        if self.connector == "postgres":
            await self.raw.close()
        else:
            self.raw.close()


@asynccontextmanager
async def fresh_place(connector: Connector, stack: StackAddresses) -> AsyncIterator[Place]:
    dsn = stack.postgres if connector == "postgres" else stack.mariadb
    assert dsn is not None
    kind, end = ("SCHEMA", " CASCADE") if connector == "postgres" else ("DATABASE", "")
    place = Place(connector, dsn, f"legacy_{uuid4().hex[:12]}")
    await place.execute(f"CREATE {kind} {place.schema}")
    try:
        yield place
    finally:
        await place.execute(f"DROP {kind} {place.schema}{end}")


@dataclass(frozen=True)
class Ports:
    """The table and the ledger of the collection `documents`. `place` is None for the in-memory store."""

    adapter: str
    table: LegacyTable
    bulk: BulkTable
    ledger: Ledger
    place: Place | None
    memory: MemoryLegacy | None = None

    async def write_directly(self, document_id: str, title: str, body: str) -> None:
        """Insert or update a row as an application does."""
        if self.memory is not None:
            old = self.memory.stored.get(document_id)
            base = old.content if old else content()
            given = base.model_copy(update={"text": {"title": title, "body": body}})
            self.memory.write_directly(document_id, given)
            return
        assert self.place is not None
        conflict = (
            "ON CONFLICT (id) DO UPDATE SET title = excluded.title, body = excluded.body"
            if self.adapter == "postgres"
            else "ON DUPLICATE KEY UPDATE title = VALUES(title), body = VALUES(body)"
        )
        await self.place.execute(
            f"INSERT INTO {{t}} (id, title, body) VALUES ('{document_id}', '{title}', '{body}') {conflict}"
        )


def memory_ports() -> Ports:
    """Return the ports of an in-memory store with the constraints of the `DOCUMENTS` tables."""
    kinds = {"year": Kind.INTEGER, "price": Kind.DECIMAL, "ok": Kind.BOOLEAN, "slug": Kind.TEXT}
    description = TableDescription(("id",), ("title", "body"), kinds, "tenant", None)

    def constraint(document_id: str, content: Content) -> str | None:
        year, slug = content.metadata["year"], content.metadata["slug"]
        others = (row.content.metadata["slug"] for row in memory.stored.values() if row.id != document_id)
        wrong = (
            content.text["body"] is None
            or len(content.text["title"] or "") > 40
            or (isinstance(year, int) and not -(2**31) <= year < 3000)
            or (slug is not None and slug in others)
        )
        return "refused" if wrong else None

    memory = MemoryLegacy("documents", description, constraint=constraint)
    return Ports("memory", MemoryTable(memory), MemoryBulk(memory), MemoryLedger(memory), None, memory)


@asynccontextmanager
async def legacy_ports(adapter: str, stack: StackAddresses, *statements: str) -> AsyncIterator[Ports]:
    """Open ports over a fresh table, after `statements` have changed it."""
    if adapter == "memory":
        yield memory_ports()
        return
    connector: Connector = "postgres" if adapter == "postgres" else "mariadb"
    async with fresh_place(connector, stack) as place:
        await place.execute(DOCUMENTS[connector], *statements)
        legacy = await open_legacy("documents", place.collection(), place.dsn)
        try:
            await legacy.prepare()
            yield Ports(adapter, legacy.table, legacy.bulk, legacy.ledger, place)
        finally:
            await legacy.close()


def content(
    title: str | None = "title", body: str | None = "body", tenant: str = "default", **metadata: Any
) -> Content:
    named = {"year": None, "price": None, "ok": None, "slug": None} | metadata
    return Content(tenant=tenant, text={"title": title, "body": body}, metadata=named)


def upsert(document_id: str, version: int, given: Content | None = None) -> LegacyChange:
    return LegacyChange(document_id, version, version, given or content())


def deletion(document_id: str, version: int) -> LegacyChange:
    return LegacyChange(document_id, version, version, None)


async def until_waiting(place: Place, table: str = "documents") -> None:
    """Wait until a statement waits for a lock on a row of the place's table, for at most ten seconds."""
    pattern = f"%{place.schema}%{table}%"
    statement = (
        f"SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '{pattern}'"
        if place.connector == "postgres"
        else f"SELECT 1 FROM information_schema.INNODB_TRX WHERE trx_state = 'LOCK WAIT' AND trx_query LIKE '{pattern}'"
    )
    async with place.connection() as connection, asyncio.timeout(10):
        # Poll: the database server does not report this by itself, and MariaDB refreshes INNODB_TRX only at intervals.
        while not await connection.fetch(statement):  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.1)
