"""Checksums over key ranges in PostgreSQL: nothing of a row leaves the database. The sessions' settings of
`connectors.postgres.pool` make the text of floats and times the same in each.
"""

from __future__ import annotations

from collections.abc import Sequence

from connectors.errors import Refused
from connectors.postgres.pool import Pool, quoted
from connectors.postgres.table import KEY_TYPES
from connectors.sql_checksums import columns_name, range_checksum
from connectors.sql_layout import VERSION_COLUMN, Column, Layout

# `ROW(…)::text` quotes what it must: NULL and the empty text differ, and no value runs into the next.
# OFFSET 0 keeps the hash from being computed once for each of its halves.
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
        self._key = ", ".join(f"t.{quoted(name)}" for name in layout.collection.key)
        names = (*layout.read_columns, VERSION_COLUMN)
        self._expressions = ", ".join(_hashed(layout.columns[name]) for name in names)
        self.columns = columns_name("postgres", [self._expressions])

    async def of_ranges(self, ranges: Sequence[tuple[str | None, str | None]]) -> list[str]:
        """See `Checksums.of_ranges`."""
        values: list[str] = []
        statement = " UNION ALL ".join(
            _RANGE.format(
                number=number, expressions=self._expressions, table=self._table, where=self._between(*bounds, values)
            )
            for number, bounds in enumerate(ranges)
        )
        async with self._pool.session() as session:
            records = await session.fetch(statement, *values)
        found = {record["number"]: range_checksum(record["rows"], record["high"], record["low"]) for record in records}
        return [found[number] for number in range(len(ranges))]

    def _between(self, after: str | None, upto: str | None, values: list[str]) -> str:
        """Return the condition of a range, whose keys are added to the values."""
        kinds = [KEY_TYPES[kind] for kind in self._layout.key_kinds]
        parts: list[str] = []
        for sign, bound in ((">", after), ("<=", upto)):
            if bound is None:
                continue
            key = self._layout.key_values(bound)
            if key is None:
                raise Refused("a range cannot begin or end at something that is not a key of the table")
            places = ", ".join(f"${len(values) + n}::text::{kind}" for n, kind in enumerate(kinds, 1))
            parts.append(f"({self._key}) {sign} ({places})")
            values += key
        return f" WHERE {' AND '.join(parts)}" if parts else ""


def _hashed(column: Column) -> str:
    """Return what of a column goes into a row's hash: bytes by a hash of their own, shorter than their text."""
    name = f"t.{quoted(column.name)}"
    if column.sql_type == "bytea":
        return f"md5({name})"
    schema, _, base = column.sql_type.rpartition(".")
    if base == "vector":
        return f"md5({f'{schema}.' if schema else ''}vector_send({name}))"
    return f"{name}::text"
