"""Checkpoints and progress of long tasks in MariaDB: `crossfade_tasks`, in the database of the collection's table."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from connectors.errors import Refused
from connectors.sql.layout import Layout
from connectors.sql.mariadb.pool import Pool, places, quoted
from connectors.sql.tasks import TASKS_TABLE, Alive, held, lock_number

_PREPARE = """
CREATE TABLE IF NOT EXISTS {tasks} (
    collection VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    task VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    part INT NOT NULL,
    state MEDIUMTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL,
    updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
    PRIMARY KEY (collection, task, part)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC
"""
_ROWS = 500


class MariadbTasks:
    """`TaskStore` of one collection."""

    def __init__(self, pool: Pool, layout: Layout, dsn: str) -> None:
        self._pool = pool
        self._dsn = dsn
        self._collection = layout.name
        self._schema = layout.schema
        self._tasks = quoted(layout.schema, TASKS_TABLE)

    async def prepare(self) -> None:
        """Create the table if it is missing."""
        async with self._pool.session() as session:
            await session.execute(_PREPARE.format(tasks=self._tasks))

    async def read(self, task: str, part: int | None = None) -> dict[int, bytes]:
        """See `TaskStore.read`."""
        which = "collection = %s AND task = %s AND (%s IS NULL OR part = %s)"
        statement = f"SELECT part, state FROM {self._tasks} WHERE {which}"  # noqa: S608 - quoted
        async with self._pool.session() as session:
            found = await session.fetch(statement, (self._collection, task, part, part))
        return {int(row["part"]): row["state"].encode() for row in found}

    async def save(self, task: str, parts: Mapping[int, bytes]) -> None:
        """See `TaskStore.save`."""
        numbers = sorted(parts)
        async with self._pool.transaction() as session:
            for begin in range(0, len(numbers), _ROWS):
                some = numbers[begin : begin + _ROWS]
                statement = (
                    f"INSERT INTO {self._tasks} (collection, task, part, state) "  # noqa: S608 - a quoted identifier
                    f"VALUES {', '.join([f'({places(4)})'] * len(some))} "
                    "ON DUPLICATE KEY UPDATE state = VALUES(state), updated_at = CURRENT_TIMESTAMP(6)"
                )
                rows = [(self._collection, task, number, parts[number].decode()) for number in some]
                await session.execute(statement, [value for row in rows for value in row])

    async def clear(self, task: str) -> None:
        """See `TaskStore.clear`."""
        statement = f"DELETE FROM {self._tasks} WHERE collection = %s AND task = %s"  # noqa: S608 - quoted
        async with self._pool.session() as session:
            await session.execute(statement, (self._collection, task))

    def hold(self, task: str) -> AbstractAsyncContextManager[None]:
        """See `TaskStore.hold`."""
        return held(lambda: self._take(task), task)

    @asynccontextmanager
    async def _take(self, task: str) -> AsyncIterator[Alive]:
        """Take the named lock. The server releases it when the connection ends, for whatever reason."""
        name = f"crossfade:{lock_number(self._schema, self._collection, task):x}"
        pool = Pool(self._dsn, maximum=1)
        try:
            async with pool.session() as session:
                (found,) = await session.fetch("SELECT GET_LOCK(%s, 0) AS taken", (name,))
                if found["taken"] != "1":
                    raise Refused(f"{self._collection}: another process runs the task {task}")

                async def alive() -> None:
                    await session.fetch("SELECT 1")

                yield alive
                await session.fetch("SELECT RELEASE_LOCK(%s)", (name,))
        finally:
            await pool.close()
