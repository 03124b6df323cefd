"""Reads a MariaDB table in large pieces, by ranges of its key, for backfill and verification. Nothing is written."""

from __future__ import annotations

from typing import Any

from connectors.mariadb.expressions import Given, key_list, key_order, range_condition, read_list
from connectors.mariadb.pool import Pool, quoted
from connectors.sql_layout import VERSION_COLUMN, Layout
from connectors.sql_values import row_content, row_key
from domain.legacy import LegacyRow

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
