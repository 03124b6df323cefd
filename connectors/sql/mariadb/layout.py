"""Reads a table's columns from MariaDB's information schema and maps each type to its kind. No rows are read here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from connectors.errors import Misconfigured
from connectors.sql.layout import HIGHEST_SIGNED, HIGHEST_UNSIGNED, Column, Layout
from connectors.sql.mariadb.pool import Session, quoted
from connectors.sql.mariadb.table_checks import OTHER_TEXT, SAME_SETS, uncapturable
from domain.legacy import ColumnDetails
from schemas.content import Scalar
from schemas.settings import Collection
from schemas.values import Kind, canonical

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

# The character set of literals. A column with another character set is compared in its own.
_OF_SESSIONS = "utf8mb4"
_LABEL = re.compile(r"'((?:[^']|'')*)'")
_ESCAPED = re.compile(r"''|\\(.)", re.DOTALL)
_CONTROLS = {"0": "\x00", "n": "\n", "r": "\r"}
_ZERO_FORMS = {
    Kind.DATE: "1970-01-01",
    Kind.TIMESTAMP: "1970-01-01T00:00:00.000000",
    Kind.TIMESTAMPTZ: "1970-01-01T00:00:00.000000Z",
}

_COLUMNS = """
SELECT c.COLUMN_NAME AS name, c.DATA_TYPE AS base, c.COLUMN_TYPE AS sql_type, c.IS_NULLABLE AS nullable,
       c.COLLATION_NAME AS collation, c.CHARACTER_SET_NAME AS charset,
       c.CHARACTER_MAXIMUM_LENGTH AS length, c.EXTRA AS extra, c.COLUMN_DEFAULT AS preset, c.IS_GENERATED AS made,
       c.DATETIME_PRECISION AS time_digits,
       @@global.sql_mode LIKE '%%NO_ZERO_IN_DATE%%' AND @@global.sql_mode LIKE '%%NO_ZERO_DATE%%' AS no_zero_dates
FROM information_schema.COLUMNS c WHERE c.TABLE_SCHEMA = %s AND c.TABLE_NAME = %s ORDER BY c.ORDINAL_POSITION
"""
# The type alone does not distinguish JSON from long text. The check constraint that MariaDB gives a JSON column does. A
# separate query for it takes a millisecond; a join with the columns takes a second.
_CHECKS = """
SELECT CHECK_CLAUSE AS clause FROM information_schema.CHECK_CONSTRAINTS
WHERE CONSTRAINT_SCHEMA = %s AND TABLE_NAME = %s
"""


def table_name(table: str, database: str | None) -> tuple[str, str]:
    """Return (database, table) of a configured table.

    Raises Misconfigured if neither the configured name nor the address names a database.
    """
    schema, dot, name = table.rpartition(".")
    if dot:
        return schema, name
    if database is None:
        raise Misconfigured(f"table {table}: neither it nor the address names a database")
    return database, name


async def raw_columns(session: Session, schema: str, table: str) -> dict[str, dict[str, Any]]:
    """Return the information schema's description of each column, nothing if there is no such table."""
    rows = await session.fetch(_COLUMNS, (schema, table))
    clauses = {str(row["clause"]) for row in await session.fetch(_CHECKS, (schema, table))} if rows else set()
    return {row["name"]: {**row, "is_json": f"json_valid({quoted(row['name'])})" in clauses} for row in rows}


def column_of(raw: Mapping[str, Any]) -> Column:
    """Return a row of the information schema as a column.

    `bit(1)` is a boolean. `tinyint(1)` is a boolean with more values.
    """
    sql_type, base = str(raw["sql_type"]), str(raw["base"]).lower()
    kind = KINDS.get(base)
    if int(raw["is_json"]):
        kind = Kind.JSON
    elif sql_type.lower() in {"tinyint(1)", "bit(1)"}:
        kind = Kind.FLAG if base == "tinyint" else Kind.BOOLEAN
    collation, charset = raw["collation"], str(raw["charset"])
    return Column(
        raw["name"],
        sql_type,
        kind,
        binary=collation is None or str(collation).endswith("_bin"),
        not_key=_not_key(base, raw),
        highest=HIGHEST_UNSIGNED if base == "bigint" and "unsigned" in sql_type.lower() else HIGHEST_SIGNED,
        length=None if raw["length"] is None else int(raw["length"]),
        collation=None if collation is None or charset == _OF_SESSIONS else (charset, str(collation)),
        details=_details(raw, base, kind),
        compared=None if collation is None else str(collation),
    )


def _not_key(base: str, raw: Mapping[str, Any]) -> str | None:
    if base == "enum":
        return "an ENUM is ordered by the numbers of its labels, and compared by their text"
    if raw["charset"] is not None and raw["charset"] not in SAME_SETS:
        return f"its character set is {raw['charset']}, of which {OTHER_TEXT}"
    if base == "char" and "_nopad_" in str(raw["collation"]):
        return "a CHAR of this collation is ordered with the blanks that fill it, and compared without them"
    if base == "uuid":
        return "the binary log leaves out zeros at the end of a UUID, so that capture would name another row"
    if base == "year":
        return "year 0 is captured as another year"
    return "it is generated, and cannot be written" if raw["made"] == "ALWAYS" else None


def _details(raw: Mapping[str, Any], base: str, kind: Kind | None) -> ColumnDetails | None:
    """Return the labels of an enumeration, and the values that capture delivers in place of what it cannot carry.

    Capture delivers a date with a zero month or day as NULL, as 1970 if the column is NOT NULL, or as the column's
    default. It delivers year 0 as 1900 or 2000. A snapshot reads a float with six digits.
    """
    if base == "enum":
        return ColumnDetails(labels=enum_labels(str(raw["sql_type"])))
    if base == "float":
        return ColumnDetails(inexact_snapshot=True)
    if base == "year":
        return ColumnDetails(inexact=frozenset({1900, 2000}))
    if kind not in _ZERO_FORMS or int(raw["no_zero_dates"] or 0):
        return None
    inexact: set[Scalar] = {None, _ZERO_FORMS[kind]}
    with suppress(ValueError):  # no default, or an expression: then capture delivers 1970
        inexact.add(canonical(kind, str(raw["preset"] or "").strip("'")))
    return ColumnDetails(inexact=frozenset(inexact))


def enum_labels(sql_type: str) -> tuple[str, ...]:
    """Return the labels of `enum('a','b''c')`, and the empty label, which stands for a value that was none of them."""
    return (*(_ESCAPED.sub(_unescaped, label) for label in _LABEL.findall(sql_type)), "")


def _unescaped(found: re.Match[str]) -> str:
    return "'" if found[1] is None else _CONTROLS.get(found[1], found[1])


async def read_layout(session: Session, name: str, collection: Collection, database: str | None) -> Layout:
    """Return the layout of a collection's table. Raises Misconfigured if the table or columns are missing."""
    schema, table = table_name(collection.table, database)
    columns = {column: column_of(raw) for column, raw in (await raw_columns(session, schema, table)).items()}
    if not columns:
        raise Misconfigured(f"{name}: there is no table {schema}.{table}")
    layout = Layout(name, collection, schema, table, columns)
    _ = layout.description
    for why, _ in await uncapturable(session, schema, table, collection):
        raise Misconfigured(f"{name}: {why}; run crossfade config check")
    return layout
