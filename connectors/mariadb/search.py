"""Full-text search over one collection's table in MariaDB. Reads only."""

from __future__ import annotations

from typing import Any

from connectors.mariadb.expressions import given, read_list
from connectors.mariadb.pool import Pool, quoted
from connectors.ports import SearchRequest
from connectors.sql_layout import Layout
from connectors.sql_search import filter_text, hit_of, tenant_exists, tenant_is_text
from domain.values import Kind
from schemas.queries import Hit

SEARCH_TIMEOUT_S = 10  # the server's own bound: a question that was given up must not go on there


class MariadbTextSearch:
    """`SearchBackend`: natural language mode of the FULLTEXT index over all text columns."""

    needs_vector = False

    def __init__(self, pool: Pool, layout: Layout) -> None:
        self._pool = pool
        self._layout = layout
        text = ", ".join(f"t.{quoted(name)}" for name in layout.collection.text)
        self._match = f"MATCH ({text}) AGAINST (%s IN NATURAL LANGUAGE MODE)"
        self._key = ", ".join(f"t.{quoted(name)}" for name in layout.collection.key)

    async def search(self, request: SearchRequest) -> list[Hit]:
        """See `SearchBackend.search`. Raises Misconfigured where the table has no such FULLTEXT index."""
        where, values = conditions(self._layout, request)
        if not tenant_exists(self._layout, request.tenant):
            return []
        statement = (
            f"SET STATEMENT max_statement_time = {SEARCH_TIMEOUT_S} FOR "  # noqa: S608 - quoted identifiers
            f"SELECT {read_list(self._layout)}, {self._match} AS score "
            f"FROM {quoted(self._layout.schema, self._layout.table)} t WHERE {self._match}{where} "
            f"ORDER BY score DESC, {self._key} LIMIT %s"
        )
        async with self._pool.session() as session:
            records = await session.fetch(statement, [request.text, request.text, *values, request.limit])
        found = (hit_of(self._layout, record, float(record["score"])) for record in records)
        return [hit for hit in found if hit is not None]


def conditions(layout: Layout, request: SearchRequest) -> tuple[str, list[Any]]:
    """Return the conditions on tenant and metadata, with leading AND, and their values."""
    parts: list[str] = []
    values: list[Any] = []
    for name, value in request.filter.items():
        text = filter_text(layout, name, value)
        if text is None:
            parts.append(f"t.{quoted(name)} IS NULL")
        else:
            _equal(layout, name, text, parts, values)
    tenant = layout.collection.tenant
    if tenant is not None and request.tenant != "default":
        _equal(layout, tenant, request.tenant, parts, values)
    elif tenant is not None and tenant_is_text(layout):
        same: list[str] = []
        _equal(layout, tenant, "default", same, values)
        column = f"t.{quoted(tenant)}"
        parts.append(f"(({same[0]}) OR {column} IS NULL OR {column} = '')")
    elif tenant is not None:
        parts.append(f"t.{quoted(tenant)} IS NULL")
    return "".join(f" AND {part}" for part in parts), values


def _equal(layout: Layout, name: str, text: str, parts: list[str], values: list[Any]) -> None:
    """Text must be equal character by character, whatever the collation; the plain comparison is for an index."""
    column, kind = f"t.{quoted(name)}", layout.columns[name].kind
    value = given(kind, text)
    if kind is Kind.TEXT:
        parts.append(f"{column} = %s AND CONVERT({column} USING utf8mb4) COLLATE utf8mb4_nopad_bin = %s")
        values += [value, value]
    elif kind is Kind.JSON:
        parts.append(f"JSON_EQUALS({column}, %s)")
        values.append(value)
    elif kind is Kind.FLOAT32:
        parts.append(f"{column} = CAST(%s AS FLOAT)")
        values.append(value)
    else:
        parts.append(f"{column} = %s")
        values.append(value)
