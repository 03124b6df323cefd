"""Checksums over key ranges in PostgreSQL. No column value of a row leaves the database.

The session settings of `connectors.sql.postgres.pool` make the text of floats and times the same in every session.
"""

from __future__ import annotations

from collections.abc import Sequence

from connectors.sql.checksums import columns_name, range_checksum
from connectors.sql.layout import VERSION_COLUMN, Column, Layout
from connectors.sql.postgres.expressions import range_condition
from connectors.sql.postgres.pool import Pool, quoted

# `ROW(…)::text` quotes values as needed: NULL and the empty text differ, and no value runs into the next.
# OFFSET 0 prevents PostgreSQL from computing the hash once for each of its halves.
_RANGE = """
SELECT {number}::int AS number, count(*) AS rows, sum(('x' || left(h, 16))::bit(64)::bigint) AS high,
       sum(('x' || right(h, 16))::bit(64)::bigint) AS low
FROM (SELECT md5(ROW({expressions})::text) AS h FROM {table} t{where} OFFSET 0) hashed
"""


class PostgresChecksums:
    """`Checksums` of one collection; see `connectors.ports`."""

    def __init__(self, pool: Pool, layout: Layout) -> None:
        self._pool = pool
        self._layout = layout
        self._table = quoted(layout.schema, layout.table)
        names = (*layout.read_columns, VERSION_COLUMN)
        self._expressions = ", ".join(_hashed(layout.columns[name]) for name in names)
        self.columns = columns_name("postgres", self._expressions, layout)

    async def of_ranges(self, ranges: Sequence[tuple[str | None, str | None]]) -> list[str]:
        """See `Checksums.of_ranges`."""
        values: list[str] = []
        statement = " UNION ALL ".join(
            _RANGE.format(
                number=number,
                expressions=self._expressions,
                table=self._table,
                where=range_condition(self._layout, *bounds, values),
            )
            for number, bounds in enumerate(ranges)
        )
        async with self._pool.session() as session:
            records = await session.fetch(statement, *values)
        found = {record["number"]: range_checksum(record["rows"], record["high"], record["low"]) for record in records}
        return [found[number] for number in range(len(ranges))]


def _hashed(column: Column) -> str:
    """Return the expression for a column in a row's hash. Binary values get their own hash, shorter than their text."""
    name = f"t.{quoted(column.name)}"
    if column.sql_type == "bytea":
        return f"md5({name})"
    schema, _, base = column.sql_type.rpartition(".")
    if base == "vector":
        return f"md5({f'{schema}.' if schema else ''}vector_send({name}))"
    return f"{name}::text"
