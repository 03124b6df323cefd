"""Reads a MariaDB table in large pieces, by ranges of its key, for backfill and verification. Nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from connectors.sql.layout import COUNT_TIMEOUT_S, COUNTED_TOGETHER, VERSION_COLUMN, Layout
from connectors.sql.mariadb.expressions import Given, key_list, key_order, range_condition, read_list, usable_key
from connectors.sql.mariadb.pool import Pool, quoted
from connectors.sql.values import row_content, row_key
from domain.legacy import Coverage, LegacyRow

_ESTIMATE = "SELECT table_rows FROM information_schema.tables WHERE table_schema = %s AND table_name = %s"


class MariadbBulk:
    """`BulkTable` of one collection; see `connectors.ports`."""

    def __init__(self, pool: Pool, layout: Layout) -> None:
        self._pool = pool
        self._layout = layout
        self._description = layout.description
        self._form = layout.collection.embedding.format if layout.collection.embedding else None
        self._name = quoted(layout.schema, layout.table)
        self._key, self._order = key_list(layout), key_order(layout)
        self._read = read_list(layout)
        usable = usable_key(layout)
        self._without_id = "FALSE" if usable is None else f"NOT ({usable})"

    async def bound(self, after: str | None, rows: int) -> str | None:
        """See `BulkTable.bound`."""
        values: list[Given] = []
        where = range_condition(self._layout, after, None, values)
        statement = f"SELECT {self._key} FROM {self._name} t{where} ORDER BY {self._order} LIMIT 1 OFFSET {rows - 1:d}"  # noqa: S608 - quoted
        async with self._pool.session() as session:
            records = await session.fetch(statement, values)
        return row_key(self._description, records[0]) if records else None

    async def scan_range(self, after: str | None, upto: str | None, limit: int) -> list[LegacyRow]:
        """See `BulkTable.scan_range`."""
        values: list[Given] = []
        where = range_condition(self._layout, after, upto, values)
        statement = f"SELECT {self._read} FROM {self._name} t{where} ORDER BY {self._order} LIMIT {limit:d}"  # noqa: S608 - quoted
        async with self._pool.session() as session:
            records = await session.fetch(statement, values)
        return [self._row(record) for record in records]

    async def count(self, after: str | None, upto: str | None) -> int:
        """See `BulkTable.count`."""
        values: list[Given] = []
        where = range_condition(self._layout, after, upto, values)
        async with self._pool.session() as session:
            records = await session.fetch(f"SELECT COUNT(*) AS total FROM {self._name} t{where}", values)  # noqa: S608 - quoted
        return int(records[0]["total"])

    async def ids(self, after: str | None, upto: str | None) -> list[str]:
        """See `BulkTable.ids`."""
        values: list[Given] = []
        where = range_condition(self._layout, after, upto, values)
        async with self._pool.session() as session:
            records = await session.fetch(f"SELECT {self._key} FROM {self._name} t{where}", values)  # noqa: S608 - quoted
        return [row_key(self._description, record) for record in records]

    async def coverage(self, ranges: Sequence[tuple[str | None, str | None]]) -> Coverage:
        """See `BulkTable.coverage`."""
        async with self._pool.snapshot(COUNT_TIMEOUT_S) as session:
            statement = (
                f"SELECT COUNT(*) AS total, COALESCE(SUM({self._without_id}), 0) AS without_id FROM {self._name} t"  # noqa: S608 - quoted
            )
            whole = (await session.fetch(statement))[0]
            in_ranges = 0
            for start in range(0, len(ranges), COUNTED_TOGETHER):
                values: list[Given] = []
                counts = [
                    f"(SELECT COUNT(*) FROM {self._name} t{range_condition(self._layout, *bounds, values)})"  # noqa: S608 - quoted
                    for bounds in ranges[start : start + COUNTED_TOGETHER]
                ]
                counted = await session.fetch(f"SELECT {' + '.join(counts)} AS total", values)
                in_ranges += int(counted[0]["total"])
        return Coverage(int(whole["total"]), in_ranges, int(whole["without_id"]))

    async def estimated_rows(self) -> int:
        """See `BulkTable.estimated_rows`."""
        async with self._pool.session() as session:
            records = await session.fetch(_ESTIMATE, (self._layout.schema, self._layout.table))
        return int(next(iter(records[0].values())) or 0) if records else 0

    async def running_statements(self) -> int:
        """See `BulkTable.running_statements`."""
        async with self._pool.session() as session:
            records = await session.fetch("SHOW GLOBAL STATUS LIKE 'Threads_running'")
        return max(0, int(records[0]["Value"]) - 1)

    def _row(self, record: dict[str, Any]) -> LegacyRow:
        version = record[VERSION_COLUMN]
        content = row_content(self._description, self._form, record)
        return LegacyRow(row_key(self._description, record), None if version is None else int(version), content)
