"""Reads a PostgreSQL table in large pieces, by ranges of its key, for backfill and verification. Nothing is written."""

from __future__ import annotations

from typing import Any

from connectors.postgres.expressions import range_condition, read_list, selected
from connectors.postgres.pool import Pool, quoted
from connectors.sql_layout import VERSION_COLUMN, Layout
from connectors.sql_values import row_content, row_key
from domain.legacy import LegacyRow

_ESTIMATE = """
SELECT greatest(sum(c.reltuples), 0)::bigint FROM pg_class c
WHERE c.oid = to_regclass($1) OR c.oid IN (SELECT relid FROM pg_partition_tree(to_regclass($1)) WHERE isleaf)
"""
_RUNNING = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()"


class PostgresBulk:
    """`BulkTable` of one collection; see `connectors.ports`."""

    def __init__(self, pool: Pool, layout: Layout) -> None:
        self._pool = pool
        self._layout = layout
        self._description = layout.description
        self._form = layout.collection.embedding.format if layout.collection.embedding else None
        self._name = quoted(layout.schema, layout.table)
        self._key = ", ".join(f"t.{quoted(name)}" for name in layout.collection.key)
        self._keys_read = ", ".join(selected(layout.columns[name]) for name in layout.collection.key)
        self._read = read_list(layout, binary=True)

    async def bound(self, after: str | None, rows: int) -> str | None:
        """See `BulkTable.bound`."""
        values: list[str] = []
        where = range_condition(self._layout, after, None, values)
        statement = (
            f"SELECT {self._keys_read} FROM {self._name} t{where} ORDER BY {self._key} OFFSET {rows - 1:d} LIMIT 1"  # noqa: S608 - quoted
        )
        async with self._pool.session() as session:
            record = await session.fetchrow(statement, *values)
        return None if record is None else row_key(self._description, record)

    async def scan_range(self, after: str | None, upto: str | None, limit: int) -> list[LegacyRow]:
        """See `BulkTable.scan_range`."""
        values: list[str] = []
        where = range_condition(self._layout, after, upto, values)
        statement = f"SELECT {self._read} FROM {self._name} t{where} ORDER BY {self._key} LIMIT {limit:d}"  # noqa: S608 - quoted
        async with self._pool.session() as session:
            records = await session.fetch(statement, *values)
        return [self._row(record) for record in records]

    async def estimated_rows(self) -> int:
        """See `BulkTable.estimated_rows`."""
        async with self._pool.session() as session:
            rows: int = await session.fetchval(_ESTIMATE, self._name)
        return rows

    async def running_statements(self) -> int:
        """See `BulkTable.running_statements`."""
        async with self._pool.session() as session:
            number: int = await session.fetchval(_RUNNING)
        return number

    def _row(self, record: Any) -> LegacyRow:
        content = row_content(self._description, self._form, record)
        return LegacyRow(row_key(self._description, record), record[VERSION_COLUMN], content)
