"""Reads a PostgreSQL table in large pieces, by ranges of its key, for backfill and verification. Nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from connectors.sql.layout import COUNT_TIMEOUT_S, COUNTED_TOGETHER, VERSION_COLUMN, Layout
from connectors.sql.postgres.expressions import range_condition, read_list, selected, usable_key
from connectors.sql.postgres.pool import Pool, quoted
from connectors.sql.values import row_content, row_key
from domain.legacy import Coverage, LegacyRow

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
        usable = usable_key(layout)
        self._without_id = "false" if usable is None else f"NOT ({usable})"

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

    async def count(self, after: str | None, upto: str | None) -> int:
        """See `BulkTable.count`."""
        values: list[str] = []
        where = range_condition(self._layout, after, upto, values)
        async with self._pool.session() as session:
            rows: int = await session.fetchval(f"SELECT count(*) FROM {self._name} t{where}", *values)  # noqa: S608 - quoted
        return rows

    async def ids(self, after: str | None, upto: str | None) -> list[str]:
        """See `BulkTable.ids`."""
        values: list[str] = []
        where = range_condition(self._layout, after, upto, values)
        async with self._pool.session() as session:
            records = await session.fetch(f"SELECT {self._keys_read} FROM {self._name} t{where}", *values)  # noqa: S608 - quoted
        return [row_key(self._description, record) for record in records]

    async def coverage(self, ranges: Sequence[tuple[str | None, str | None]]) -> Coverage:
        """See `BulkTable.coverage`."""
        async with (
            self._pool.session() as session,
            session.transaction(isolation="repeatable_read", readonly=True),
        ):
            without_id = self._without_id
            record = await session.fetchrow(
                f"SELECT count(*) AS rows, count(*) FILTER (WHERE {without_id}) AS without_id FROM {self._name} t",  # noqa: S608 - quoted
                timeout=COUNT_TIMEOUT_S,
            )
            in_ranges = 0
            for start in range(0, len(ranges), COUNTED_TOGETHER):
                values: list[str] = []
                counts = [
                    f"(SELECT count(*) FROM {self._name} t{range_condition(self._layout, *bounds, values)})"  # noqa: S608 - quoted
                    for bounds in ranges[start : start + COUNTED_TOGETHER]
                ]
                in_ranges += await session.fetchval(f"SELECT {' + '.join(counts)}", *values, timeout=COUNT_TIMEOUT_S)
        rows, without = (0, 0) if record is None else (record["rows"], record["without_id"])
        return Coverage(rows, in_ranges, without)

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
