"""Checkpoints and progress of long tasks in PostgreSQL: `crossfade_tasks`, in the schema of the collection's table."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from connectors.errors import Refused
from connectors.sql.layout import Layout
from connectors.sql.postgres.pool import Pool, quoted
from connectors.sql.tasks import TASKS_TABLE, Alive, held, lock_number

_PREPARE = """
SELECT pg_advisory_xact_lock(hashtext('crossfade prepare'));
CREATE TABLE IF NOT EXISTS {tasks} (
    collection text NOT NULL,
    task text NOT NULL,
    part integer NOT NULL,
    state text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (collection, task, part)
) WITH (fillfactor = 50);
"""
_SAVE = """
INSERT INTO {tasks} (collection, task, part, state)
SELECT $1, $2, u.* FROM unnest($3::integer[], $4::text[]) AS u
ON CONFLICT (collection, task, part) DO UPDATE SET state = excluded.state, updated_at = now()
"""


class PostgresTasks:
    """`TaskStore` of one collection."""

    def __init__(self, pool: Pool, layout: Layout, dsn: str) -> None:
        self._pool = pool
        self._dsn = dsn
        self._collection = layout.name
        self._schema = layout.schema
        self._tasks = quoted(layout.schema, TASKS_TABLE)

    async def prepare(self) -> None:
        """Create the table if it is missing."""
        async with self._pool.transaction() as session:
            await session.execute(_PREPARE.format(tasks=self._tasks))

    async def read(self, task: str, part: int | None = None) -> dict[int, bytes]:
        """See `TaskStore.read`."""
        which = "collection = $1 AND task = $2 AND ($3::integer IS NULL OR part = $3)"
        statement = f"SELECT part, state FROM {self._tasks} WHERE {which}"  # noqa: S608 - quoted
        async with self._pool.session() as session:
            found = await session.fetch(statement, self._collection, task, part)
        return {row["part"]: row["state"].encode() for row in found}

    async def save(self, task: str, parts: Mapping[int, bytes]) -> None:
        """See `TaskStore.save`."""
        if not parts:
            return
        numbers = sorted(parts)
        states = [parts[number].decode() for number in numbers]
        async with self._pool.session() as session:
            await session.execute(_SAVE.format(tasks=self._tasks), self._collection, task, numbers, states)

    async def clear(self, task: str) -> None:
        """See `TaskStore.clear`."""
        statement = f"DELETE FROM {self._tasks} WHERE collection = $1 AND task = $2"  # noqa: S608 - quoted
        async with self._pool.session() as session:
            await session.execute(statement, self._collection, task)

    def hold(self, task: str) -> AbstractAsyncContextManager[None]:
        """See `TaskStore.hold`."""
        return held(lambda: self._take(task), task)

    @asynccontextmanager
    async def _take(self, task: str) -> AsyncIterator[Alive]:
        """Take the advisory lock. The server releases it when the connection ends, for whatever reason."""
        number = lock_number(self._schema, self._collection, task)
        pool = await Pool.open(self._dsn, maximum=1)
        try:
            async with pool.session() as session:
                if not await session.fetchval("SELECT pg_try_advisory_lock($1)", number):
                    raise Refused(f"{self._collection}: another process runs the task {task}")

                async def alive() -> None:
                    await session.execute("SELECT 1")

                yield alive
                await session.execute("SELECT pg_advisory_unlock($1)", number)
        finally:
            await pool.close()
