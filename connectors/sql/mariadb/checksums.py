"""Checksums over key ranges in MariaDB. No column value of a row leaves the database.

All sessions of `connectors.sql.mariadb.pool` are in UTC, so that the text of a timestamp is the same in every session.
"""

from __future__ import annotations

from collections.abc import Sequence

from connectors.sql.checksums import columns_name, range_checksum
from connectors.sql.layout import VERSION_COLUMN, Column, Layout
from connectors.sql.mariadb.expressions import Given, range_condition
from connectors.sql.mariadb.pool import Pool, quoted
from schemas.values import Kind

_RANGE = """
SELECT {number} AS number, COUNT(*) AS total, SUM(CAST(CONV(LEFT(h, 16), 16, 10) AS UNSIGNED)) AS high,
       SUM(CAST(CONV(RIGHT(h, 16), 16, 10) AS UNSIGNED)) AS low
FROM (SELECT MD5(CONCAT({expressions})) AS h FROM {table} t{where}) hashed{number}
"""


class MariadbChecksums:
    """`Checksums` of one collection; see `connectors.ports`."""

    def __init__(self, pool: Pool, layout: Layout) -> None:
        self._pool = pool
        self._layout = layout
        self._table = quoted(layout.schema, layout.table)
        names = (*layout.read_columns, VERSION_COLUMN)
        self._expressions = ", ".join(_hashed(layout.columns[name]) for name in names)
        self.columns = columns_name("mariadb", self._expressions, layout)

    async def of_ranges(self, ranges: Sequence[tuple[str | None, str | None]]) -> list[str]:
        """See `Checksums.of_ranges`."""
        values: list[Given] = []
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
            records = await session.fetch(statement, values)
        found = {int(r["number"]): range_checksum(r["total"], r["high"], r["low"]) for r in records}
        return [found[number] for number in range(len(ranges))]


def _hashed(column: Column) -> str:
    """Return the expression for a column in a row's hash: its length, then its bytes, so that none run into the next.

    A 32-bit float is cast to a double: as text it would lose digits.
    """
    name = f"t.{quoted(column.name)}"
    value = f"CAST({f'CAST({name} AS DOUBLE)' if column.kind is Kind.FLOAT32 else name} AS BINARY)"
    return f"IFNULL(CONCAT(LENGTH({value}), ':', {value}), '-')"
