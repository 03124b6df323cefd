"""Searches in one collection's table in PostgreSQL: full text, and cosine over a pgvector column. Reads only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from connectors.errors import Refused
from connectors.ports import SearchRequest
from connectors.sql.layout import HIGHEST_SIGNED, Column, Layout
from connectors.sql.postgres.expressions import document_vector, literal, read_list
from connectors.sql.postgres.pool import Pool, Session, quoted
from connectors.sql.search import SCORE, free_name, hits_of, tenant_exists, tenant_is_text, wanted_of
from connectors.sql.values import embedding_value, sql_text
from schemas.content import Scalar
from schemas.queries import Hit
from schemas.values import Kind

# Ranking reads a row's text again. Only this many matches, in the table's own order, are ranked; the rest is left out.
RANKED = 400
# JSON content that jsonb cannot hold, or may not hold: NUL, halves of surrogate pairs, very large numbers. Rows with
# such content are compared after they are read.
_NO_JSONB = r"\\u(0000|[dD][89a-fA-F])|[eE][+]?[0-9]{3}|[0-9]{255}"
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
MAX_LEXEMES = 24

_STRICT = """
WITH q AS MATERIALIZED (SELECT websearch_to_tsquery({config}, $1) AS query)
SELECT {read}, ts_rank_cd({vector}, q.query, 1) AS {score}
FROM q, (SELECT t.* FROM {table} t, q WHERE {vector} @@ q.query{where} LIMIT {ranked}) t
ORDER BY {score} DESC, {key} LIMIT $2
"""

# Documents that contain some of the words, ordered by the sum of the words' rarity (inverse document frequency). Every
# word is looked up in the index by itself. No text is read until the best rows are known.
_LENIENT = """
WITH words AS MATERIALIZED (
    SELECT ('''' || replace(replace(lexeme, '\\', '\\\\'), '''', '''''') || '''')::tsquery AS word
    FROM unnest(to_tsvector({config}, $1)) ORDER BY length(lexeme) DESC LIMIT {lexemes}
), found AS (
    SELECT {key}, count(*) OVER (PARTITION BY w.word) AS {rows} FROM words w JOIN {table} t ON {vector} @@ w.word{where}
), best AS (
    SELECT {bare_key}, sum(ln(1 + (SELECT greatest(reltuples, 1) FROM pg_class WHERE oid = {oid}) / {rows})) AS {score}
    FROM found GROUP BY {bare_key} ORDER BY {score} DESC, {bare_key} LIMIT $2
)
SELECT {read}, b.{score}::float8 AS {score} FROM best b JOIN {table} t ON {joined} ORDER BY b.{score} DESC, {key}
"""

_NEAREST = """
SELECT {read}, 1 - (t.{column} {cosine} $1::text::{type}) AS {score} FROM {table} t
WHERE t.{column} IS NOT NULL{where} ORDER BY t.{column} {cosine} $1::text::{type} LIMIT $2
"""


class PostgresTextSearch:
    """`SearchBackend`: first the documents with all words (web search syntax), then those with the most and rarest."""

    needs_vector = False

    def __init__(self, pool: Pool, layout: Layout) -> None:
        self._pool = pool
        self._layout = layout
        self._names = _names(layout)

    async def search(self, request: SearchRequest) -> list[Hit]:
        """See `SearchBackend.search`.

        The score is the rank of full-text search. For documents without all words it is a share of the lowest rank.
        """
        wanted = wanted_of(self._layout, request.filter)
        if not tenant_exists(self._layout, request.tenant):
            return []
        where, values = conditions(self._layout, request.tenant, wanted)
        text = request.text.replace("\x00", " ")
        strict, lenient = (s.format(**self._names, where=where) for s in (_STRICT, _LENIENT))
        async with self._pool.session() as session:
            found = hits_of(self._layout, await session.fetch(strict, text, request.limit, *values), wanted)
            if len(found) >= request.limit:
                return found
            more = hits_of(self._layout, await session.fetch(lenient, text, request.limit, *values), wanted)
        return filled(found, more)[: request.limit]


class PostgresVectorSearch:
    """`SearchBackend`: cosine similarity over the table's own pgvector column."""

    needs_vector = True

    def __init__(self, pool: Pool, layout: Layout, schema: str) -> None:
        self._pool = pool
        self._layout = layout
        column = layout.collection.embedding
        if column is None:
            raise ValueError("the collection has no embedding column")
        self._names = _names(layout) | {
            "column": quoted(column.column),
            "type": layout.columns[column.column].sql_type,
            "cosine": f"OPERATOR({quoted(schema)}.<=>)",
        }

    @staticmethod
    async def available(session: Session, layout: Layout) -> str | None:
        """Return the schema of the pgvector extension if the collection's embedding column has its type."""
        embedding = layout.collection.embedding
        if embedding is None or embedding.format != "pgvector":
            return None
        statement = "SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'vector'"
        found = await session.fetchval(statement)
        return None if found is None else str(found).strip('"')

    async def search(self, request: SearchRequest) -> list[Hit]:
        """See `SearchBackend.search`. Raises Refused without a vector, or for a vector of another dimension."""
        if request.vector is None:
            raise Refused("a vector search needs a vector")
        wanted = wanted_of(self._layout, request.filter)
        if not tenant_exists(self._layout, request.tenant):
            return []
        where, values = conditions(self._layout, request.tenant, wanted)
        sql = _NEAREST.format(**self._names, where=where)
        async with self._pool.session() as session:
            given = embedding_value("pgvector", request.vector)
            return hits_of(self._layout, await session.fetch(sql, given, request.limit, *values), wanted)


def filled(first: list[Hit], second: list[Hit]) -> list[Hit]:
    """Return the first hits, then the second hits that are not among them, with scores below the lowest first one."""
    known = {hit.document_id for hit in first}
    more = [hit for hit in second if hit.document_id not in known]
    if not first or not more:
        return first + more
    share = first[-1].score / (1 + more[0].score)
    return first + [hit.model_copy(update={"score": hit.score * share}) for hit in more]


def conditions(layout: Layout, tenant: str, wanted: Mapping[str, Scalar]) -> tuple[str, list[Any]]:
    """Return the conditions on tenant and metadata (in canonical form), with leading AND, and their values.

    The values are the parameters from number 3 on. A value that the column cannot hold matches no row.
    """
    parts: list[str] = []
    values: list[Any] = []
    for name, value in wanted.items():
        text = sql_text(layout.description.metadata[name], value)
        if text is None:
            parts.append(f"t.{quoted(name)} IS NULL")
        else:
            parts.append(_same(layout.columns[name], text, values))
    if layout.collection.tenant is not None:
        parts.append(_tenant(layout, layout.collection.tenant, tenant, values))
    return "".join(f" AND {part}" for part in parts), values


def _tenant(layout: Layout, name: str, tenant: str, values: list[Any]) -> str:
    """Return the condition on the tenant. Rows without a tenant also belong to the default tenant."""
    column = f"t.{quoted(name)}"
    if tenant == "default" and not tenant_is_text(layout):
        return f"{column} IS NULL"
    same = _same(layout.columns[name], tenant, values)
    return f"(({same}) OR {column} IS NULL OR octet_length({column}::text) = 0)" if tenant == "default" else same


def _same(column: Column, text: str, values: list[Any]) -> str:
    """Return the condition that a column equals a value.

    Text is compared character by character, whatever the collation. The plain comparison before that uses an index.
    """
    name = f"t.{quoted(column.name)}"
    if not can_hold(column, text):
        return f"{name}::text ~ {literal(_NO_JSONB)}" if column.sql_type == "json" else "FALSE"
    values.append(text)
    given = f"${len(values) + 2}::text"
    if column.details is not None and column.details.labels is not None:
        return f"{name}::text = {given}"
    if column.kind is Kind.INTEGER:  # in a wide type: the column's own type would refuse a larger number
        return f"{name} = {given}::bigint"
    if column.kind is Kind.TEXT and not column.binary:
        return f'{name} = {given}::{column.sql_type} AND {name}::text COLLATE "C" = {given}'
    if column.sql_type == "json":
        return f"CASE WHEN {name}::text ~ {literal(_NO_JSONB)} THEN true ELSE {name}::jsonb = {given}::jsonb END"
    return f"{name} = {given}::{column.sql_type}"


def can_hold(column: Column, text: str) -> bool:
    """Return whether a canonical value is within the bounds of PostgreSQL's type, so that it can be cast to it."""
    if column.kind is Kind.INTEGER:
        return int(text) <= HIGHEST_SIGNED
    if column.kind is Kind.TIME:
        return len(text) == len("24:00:00.000000") and text <= "24:00:00.000000"
    if column.kind is Kind.JSON:
        return _NUL.search(text) is None
    if column.kind not in {Kind.DATE, Kind.TIMESTAMP, Kind.TIMESTAMPTZ} or text.endswith("infinity"):
        return "\x00" not in text
    year, month, rest = text.split("-", 2)
    if int(year) == 0 or month == "00" or rest.startswith("00"):
        return False
    last = 4713 if text.endswith(" BC") else 5_874_897 if column.kind is Kind.DATE else 294_276
    return int(year) <= last


def _names(layout: Layout) -> dict[str, str]:
    key = [quoted(name) for name in layout.collection.key]
    table = quoted(layout.schema, layout.table)
    return {
        "config": f"{literal(layout.collection.text_search_config)}::regconfig",
        "read": read_list(layout),
        "vector": document_vector(layout.collection, "t"),
        "table": table,
        "oid": f"{literal(table)}::regclass",
        "key": ", ".join(f"t.{name}" for name in key),
        "bare_key": ", ".join(key),
        "joined": " AND ".join(f"b.{name} = t.{name}" for name in key),
        "ranked": str(RANKED),
        "lexemes": str(MAX_LEXEMES),
        "score": free_name(layout, SCORE),
        "rows": free_name(layout, "rows_with_it"),
    }
