"""Full-text search in one collection's table in MariaDB. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from connectors.ports import SearchRequest
from connectors.sql.layout import Layout
from connectors.sql.mariadb.expressions import compared, given, read_list
from connectors.sql.mariadb.pool import Pool, quoted
from connectors.sql.search import SCORE, free_name, hits_of, tenant_exists, tenant_is_text, wanted_of
from connectors.sql.values import sql_text
from schemas.content import Scalar
from schemas.queries import Hit
from schemas.values import Kind

SEARCH_TIMEOUT_S = 10  # the server's own limit: a search that the caller gave up must not go on there
_NEVER_INFINITE = frozenset(
    {Kind.FLOAT, Kind.FLOAT32, Kind.DECIMAL, Kind.DATE, Kind.TIMESTAMP, Kind.TIMESTAMPTZ, Kind.TIME}
)
_INFINITE = frozenset({"NaN", "Infinity", "-Infinity", "infinity", "-infinity"})


class MariadbTextSearch:
    """`SearchBackend`: the natural language mode of the FULLTEXT index over all text columns."""

    needs_vector = False

    def __init__(self, pool: Pool, layout: Layout) -> None:
        self._pool = pool
        self._layout = layout
        text = ", ".join(f"t.{quoted(name)}" for name in layout.collection.text)
        self._match = f"MATCH ({text}) AGAINST (%s IN NATURAL LANGUAGE MODE)"
        self._score = quoted(free_name(layout, SCORE))
        self._key = ", ".join(f"t.{quoted(name)}" for name in layout.collection.key)

    async def search(self, request: SearchRequest) -> list[Hit]:
        """See `SearchBackend.search`. Raises Misconfigured if the table has no such FULLTEXT index."""
        wanted = wanted_of(self._layout, request.filter)
        if not tenant_exists(self._layout, request.tenant):
            return []
        where, values = conditions(self._layout, request.tenant, wanted)
        statement = (
            f"SET STATEMENT max_statement_time = {SEARCH_TIMEOUT_S} FOR "  # noqa: S608 - quoted identifiers
            f"SELECT {read_list(self._layout)}, {self._match} AS {self._score} "
            f"FROM {quoted(self._layout.schema, self._layout.table)} t WHERE {self._match}{where} "
            f"ORDER BY {self._score} DESC, {self._key} LIMIT %s"
        )
        async with self._pool.session() as session:
            records = await session.fetch(statement, [request.text, request.text, *values, request.limit])
        return hits_of(self._layout, records, wanted)


def conditions(layout: Layout, tenant: str, wanted: Mapping[str, Scalar]) -> tuple[str, list[Any]]:
    """Return the conditions on tenant and metadata (in canonical form), with leading AND, and their values.

    The conditions on metadata may also let unequal rows through. They never leave out an equal row.
    """
    parts: list[str] = []
    values: list[Any] = []
    for name, value in wanted.items():
        text = sql_text(layout.description.metadata[name], value)
        if text is None:
            parts.append(f"t.{quoted(name)} IS NULL")
        else:
            _equal(layout, name, text, parts, values)
    column = layout.collection.tenant
    if column is not None:
        _tenant(layout, column, tenant, parts, values)
    return "".join(f" AND {part}" for part in parts), values


def _tenant(layout: Layout, name: str, tenant: str, parts: list[str], values: list[Any]) -> None:
    """Add the condition on the tenant. Rows without a tenant also belong to the default tenant.

    A tenant of blanks is not an empty one, although most collations ignore blanks.
    """
    column = f"t.{quoted(name)}"
    if tenant != "default":
        _equal(layout, name, tenant, parts, values)
    elif tenant_is_text(layout):
        same: list[str] = []
        _equal(layout, name, tenant, same, values)
        parts.append(f"(({same[0]}) OR {column} IS NULL OR ({column} = '' AND LENGTH({column}) = 0))")
    else:
        parts.append(f"{column} IS NULL")


def _equal(layout: Layout, name: str, text: str, parts: list[str], values: list[Any]) -> None:
    """Add the condition that a column equals a value.

    Text must be equal character by character, whatever the collation. The plain comparison uses an index.
    """
    column, kind = f"t.{quoted(name)}", layout.columns[name].kind
    if kind in _NEVER_INFINITE and (text in _INFINITE or text.endswith(" BC")):
        parts.append("FALSE")  # MariaDB would read it as 0
        return
    value = given(kind, text)
    if kind is Kind.TEXT:
        place = compared(layout.columns[name])
        parts.append(f"{column} = {place} AND CONVERT({column} USING utf8mb4) COLLATE utf8mb4_nopad_bin = %s")
        values += [value, value]
    elif kind is Kind.JSON:
        # JSON_EQUALS takes an escape for another character than the one that it stands for.
        parts.append(f"(JSON_EQUALS({column}, %s) OR LOCATE(CHAR(92), {column}) > 0)")
        values.append(value)
    elif kind is Kind.FLOAT32:
        parts.append(f"{column} = CAST(%s AS FLOAT)")
        values.append(value)
    else:
        parts.append(f"{column} = %s")
        values.append(value)
