"""Reads a table's columns from PostgreSQL's catalogue and maps each type to its kind. No rows are read here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from connectors.errors import Misconfigured
from connectors.sql.layout import Column, Layout
from connectors.sql.postgres.pool import Session, quoted
from domain.legacy import ColumnDetails
from schemas.settings import Collection
from schemas.values import Kind

# By pg_type.typname. For a domain, this is the name of its base type.
KINDS: dict[str, Kind] = {
    "text": Kind.TEXT,
    "varchar": Kind.TEXT,
    "bpchar": Kind.PADDED,
    "citext": Kind.TEXT,
    "int2": Kind.INTEGER,
    "int4": Kind.INTEGER,
    "int8": Kind.INTEGER,
    "float4": Kind.FLOAT32,
    "float8": Kind.FLOAT,
    "numeric": Kind.DECIMAL,
    "bool": Kind.BOOLEAN,
    "timestamp": Kind.TIMESTAMP,
    "timestamptz": Kind.TIMESTAMPTZ,
    "date": Kind.DATE,
    "time": Kind.TIME,
    "uuid": Kind.UUID,
    "json": Kind.JSON,
    "jsonb": Kind.JSON,
}

# A snapshot loses the era of a date.
_DETAILS = {"date": ColumnDetails(inexact_snapshot=True)}

# The type modifier of a varchar is its length plus this. Source: PostgreSQL, VARHDRSZ.
_HEADER = 4

# A domain counts as its base type, at any depth. The cast type is read with typmod -1: an explicit cast to varchar(10)
# would cut the value without an error.
_COLUMNS = """
SELECT a.attname AS name, format_type(a.atttypid, -1) AS sql_type, b.typname AS base, b.typtype::text AS typtype,
       a.attnotnull AS not_null, a.attgenerated::text AS generated, u.typmod AS typmod,
       coalesce(c.collisdeterministic, true) AS deterministic,
       ARRAY(SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid = b.oid ORDER BY e.enumsortorder) AS labels
FROM pg_attribute a
JOIN LATERAL (
    WITH RECURSIVE under(oid, typmod, depth) AS (
        SELECT a.atttypid, a.atttypmod, 0 UNION ALL
        SELECT t.typbasetype, CASE WHEN u.typmod < 0 THEN t.typtypmod ELSE u.typmod END, u.depth + 1
        FROM under u JOIN pg_type t ON t.oid = u.oid WHERE t.typtype = 'd'
    ) SELECT oid, typmod FROM under ORDER BY depth DESC LIMIT 1
) u ON true
JOIN pg_type b ON b.oid = u.oid
LEFT JOIN pg_collation c ON c.oid = a.attcollation
WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""

NOT_UTF8 = "the database's encoding is {}: ids and texts may have characters that it cannot hold or compare"

_TABLE = """
SELECT n.nspname AS schema, c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = to_regclass($1) AND c.relkind IN ('r', 'p')
"""


async def other_encoding(session: Session) -> str | None:
    """Return the encoding of the database, None if it is UTF8, the one that has every character."""
    encoding = str(await session.fetchval("SELECT current_setting('server_encoding')"))
    return None if encoding == "UTF8" else encoding


def table_reference(table: str) -> str:
    """Return a configured table name, `articles` or `public.articles`, as a quoted name."""
    return quoted(*table.split("."))


async def find_table(session: Session, table: str) -> tuple[str, str] | None:
    """Return (schema, name) of a table. Without a schema, the table is looked up along the search path."""
    found = await session.fetchrow(_TABLE, table_reference(table))
    return (found["schema"], found["name"]) if found else None


async def raw_columns(session: Session, table: str) -> dict[str, dict[str, Any]]:
    """Return the catalogue's description of each column."""
    return {row["name"]: dict(row) for row in await session.fetch(_COLUMNS, table_reference(table))}


def column_of(raw: Mapping[str, Any]) -> Column:
    """Return a catalogue row as a column. An enum counts as text."""
    labels = tuple(raw["labels"]) or None
    kind = Kind.TEXT if labels else KINDS.get(raw["base"])
    binary = bool(raw["deterministic"]) and raw["base"] != "citext"
    details = ColumnDetails(labels=labels) if labels else _DETAILS.get(raw["base"])
    length = raw["typmod"] - _HEADER if raw["base"] == "varchar" and raw["typmod"] > _HEADER else None
    return Column(raw["name"], raw["sql_type"], kind, binary, _not_key(raw, binary), length=length, details=details)


def _not_key(raw: Mapping[str, Any], binary: bool) -> str | None:
    if raw["typtype"] == "e":
        return "an ENUM is ordered by the numbers of its labels, and no other text can be compared with it"
    if not binary or raw["base"] == "bpchar":
        return "ids that differ only in case, accents or blanks would be one row"
    return "it is generated, and cannot be written" if raw["generated"] else None


async def read_layout(session: Session, name: str, collection: Collection) -> Layout:
    """Return the layout of a collection's table. Raises Misconfigured if the table or columns are missing."""
    found = await find_table(session, collection.table)
    if found is None:
        raise Misconfigured(f"{name}: there is no table {collection.table}")
    columns = {column: column_of(raw) for column, raw in (await raw_columns(session, collection.table)).items()}
    encoding = await other_encoding(session)
    if encoding is not None:
        raise Misconfigured(f"{name}: {NOT_UTF8.format(encoding)}; run crossfade config check")
    layout = Layout(name, collection, *found, columns)
    _ = layout.description
    return layout
