"""Reads a table's columns from MariaDB's information schema and gives each type its kind. No rows are read here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from connectors.errors import Misconfigured
from connectors.mariadb.pool import Session
from connectors.sql_layout import HIGHEST_SIGNED, HIGHEST_UNSIGNED, Column, Layout
from domain.values import Kind
from schemas.settings import Collection

KINDS: dict[str, Kind] = {
    "char": Kind.TEXT,
    "varchar": Kind.TEXT,
    "tinytext": Kind.TEXT,
    "text": Kind.TEXT,
    "mediumtext": Kind.TEXT,
    "longtext": Kind.TEXT,
    "enum": Kind.TEXT,
    "tinyint": Kind.INTEGER,
    "smallint": Kind.INTEGER,
    "mediumint": Kind.INTEGER,
    "int": Kind.INTEGER,
    "bigint": Kind.INTEGER,
    "year": Kind.INTEGER,
    "float": Kind.FLOAT32,
    "double": Kind.FLOAT,
    "decimal": Kind.DECIMAL,
    "datetime": Kind.TIMESTAMP,
    "timestamp": Kind.TIMESTAMPTZ,
    "date": Kind.DATE,
    "time": Kind.TIME,
    "uuid": Kind.UUID,
}

# Literals are of this character set; a column of another one is compared in its own.
_OF_SESSIONS = "utf8mb4"

# The type alone does not tell JSON from long text: the check constraint that MariaDB gives a JSON column does.
_COLUMNS = """
SELECT c.COLUMN_NAME AS name, c.DATA_TYPE AS base, c.COLUMN_TYPE AS sql_type, c.IS_NULLABLE AS nullable,
       c.COLLATION_NAME AS collation, c.CHARACTER_SET_NAME AS charset,
       c.CHARACTER_MAXIMUM_LENGTH AS length, c.EXTRA AS extra, c.COLUMN_DEFAULT AS preset, c.IS_GENERATED AS made,
       c.DATETIME_PRECISION AS time_digits,
       EXISTS (SELECT 1 FROM information_schema.CHECK_CONSTRAINTS k WHERE k.CONSTRAINT_SCHEMA = c.TABLE_SCHEMA
               AND k.TABLE_NAME = c.TABLE_NAME
               AND k.CHECK_CLAUSE = CONCAT('json_valid(`', c.COLUMN_NAME, '`)')) AS is_json
FROM information_schema.COLUMNS c WHERE c.TABLE_SCHEMA = %s AND c.TABLE_NAME = %s ORDER BY c.ORDINAL_POSITION
"""


def table_name(table: str, database: str | None) -> tuple[str, str]:
    """Return (database, table) of a configured table. Raises Misconfigured where neither names a database."""
    schema, dot, name = table.rpartition(".")
    if dot:
        return schema, name
    if database is None:
        raise Misconfigured(f"table {table}: neither it nor the address names a database")
    return database, name


async def raw_columns(session: Session, schema: str, table: str) -> dict[str, dict[str, Any]]:
    """Return what the information schema says of each column; none where there is no such table."""
    return {row["name"]: row for row in await session.fetch(_COLUMNS, (schema, table))}


def column_of(raw: Mapping[str, Any]) -> Column:
    """Return a row of the information schema as a column. `tinyint(1)` and `bit(1)` are booleans."""
    sql_type, base = str(raw["sql_type"]).lower(), str(raw["base"]).lower()
    kind = KINDS.get(base)
    if int(raw["is_json"]):
        kind = Kind.JSON
    elif sql_type in {"tinyint(1)", "bit(1)"}:
        kind = Kind.BOOLEAN
    collation, charset = raw["collation"], str(raw["charset"])
    return Column(
        raw["name"],
        sql_type,
        kind,
        binary=collation is None or str(collation).endswith("_bin"),
        not_key=_not_key(base, raw),
        highest=HIGHEST_UNSIGNED if base == "bigint" and "unsigned" in sql_type else HIGHEST_SIGNED,
        length=None if raw["length"] is None else int(raw["length"]),
        collation=None if collation is None or charset == _OF_SESSIONS else (charset, str(collation)),
    )


def _not_key(base: str, raw: Mapping[str, Any]) -> str | None:
    if base == "enum":
        return "an ENUM is ordered by the numbers of its labels, and compared by their text"
    if base == "char" and "_nopad_" in str(raw["collation"]):
        return "a CHAR of this collation is ordered with the blanks that fill it, and compared without them"
    return "it is generated, and cannot be written" if raw["made"] == "ALWAYS" else None


async def read_layout(session: Session, name: str, collection: Collection, database: str | None) -> Layout:
    """Return the layout of a collection's table. Raises Misconfigured where table or columns are not there."""
    schema, table = table_name(collection.table, database)
    columns = {column: column_of(raw) for column, raw in (await raw_columns(session, schema, table)).items()}
    if not columns:
        raise Misconfigured(f"{name}: there is no table {schema}.{table}")
    layout = Layout(name, collection, schema, table, columns)
    _ = layout.description
    return layout
