"""Checks of a MariaDB table as a whole for `config check`: its kind, and what capture misses or misreads. Reads only.

Key, indexes and defaults are checked in `connectors.sql.mariadb.checks`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pymysql

from connectors.sql.checks import error, warning
from connectors.sql.mariadb.pool import Session, quoted
from connectors.sql.mariadb.rights import DENIED
from domain.legacy import Diagnostic, Setting, Sql
from schemas.settings import Collection

TABLES = """
SELECT TABLE_NAME AS name, ENGINE AS engine, TABLE_TYPE AS type FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s
"""
NAME_A_TABLE = Setting("crossfade.toml: name the table that holds the rows")

_NO_TABLE = {
    "VIEW": "a view: it has no key, and no row of it is in the binary log",
    "SYSTEM VIEW": "a view of the server",
    "SEQUENCE": "a sequence",
}

_ACTIONS = """
SELECT k.CONSTRAINT_NAME AS name, GROUP_CONCAT(k.COLUMN_NAME SEPARATOR '\n') AS columns, r.DELETE_RULE AS deleted,
       r.UPDATE_RULE AS updated, CONCAT(k.REFERENCED_TABLE_SCHEMA, '.', k.REFERENCED_TABLE_NAME) AS parent
FROM information_schema.REFERENTIAL_CONSTRAINTS r JOIN information_schema.KEY_COLUMN_USAGE k
  ON k.CONSTRAINT_SCHEMA = r.CONSTRAINT_SCHEMA AND k.TABLE_NAME = r.TABLE_NAME
 AND k.CONSTRAINT_NAME = r.CONSTRAINT_NAME
WHERE r.CONSTRAINT_SCHEMA = %s AND r.TABLE_NAME = %s GROUP BY k.CONSTRAINT_NAME
"""

_PARTITIONED = """
SELECT COUNT(*) AS partitions FROM information_schema.PARTITIONS
WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s AND PARTITION_NAME IS NOT NULL
"""

_KIND = "SELECT TABLE_TYPE AS type FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s"

_HASHED = """
SELECT INDEX_NAME AS name, GROUP_CONCAT(COLUMN_NAME ORDER BY SEQ_IN_INDEX SEPARATOR '\n') AS columns
FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s AND INDEX_TYPE = 'HASH'
GROUP BY INDEX_NAME
"""

_COLUMNS = """
SELECT COLUMN_NAME AS name, COLUMN_TYPE LIKE '%%/*M!100301 COMPRESSED*/%%' AS compressed, CHARACTER_SET_NAME AS charset,
       LOWER(DATA_TYPE) AS base, COLUMN_TYPE AS sql_type, IS_NULLABLE AS nullable
FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s
"""

# Java has these sets under other names than Debezium asks for, or not at all. Observed with Debezium 3.5 on Java 21.
_UNKNOWN_SETS = frozenset({"macce", "macroman", "cp1256"})
# Capture was observed to deliver every character of these sets as SQL reads it. Other sets differ: Java's table of the
# set is a different one, or Debezium decodes it as something else.
SAME_SETS = frozenset(
    {"ascii", "latin1", "latin2", "latin5", "latin7", "cp1250", "cp1251", "cp1257", "cp850", "cp852", "koi8r"}
    | {"gb2312", "ucs2", "utf16", "utf16le", "utf32", "utf8", "utf8mb3", "utf8mb4"}
)
# Types that Debezium's parser does not know, and the types that the application can use instead.
_UNKNOWN_TYPES = {"inet4": "varchar(15) CHARACTER SET ascii", "inet6": "varchar(45) CHARACTER SET ascii"}

OTHER_TEXT = "capture reads another text than the table holds"
_UNREADABLE = "capture cannot read its rows in the binary log"
_UNKNOWN_TYPE = "Debezium cannot parse the table's definition, and captures no row"
# A name in backticks, or a text or comment in quotes. A quote inside is doubled; in texts, a backslash may escape it.
_QUOTED = re.compile(r"`(?:[^`]|``)*`|'(?:[^'\\]|\\.|'')*'", re.DOTALL)

_CHANGING = {"CASCADE", "SET NULL", "SET DEFAULT"}


def kind_findings(name: str, table: str, reference: str, engine: str | None, kind: str) -> list[Diagnostic]:
    """Return what is wrong with the kind and engine of a relation. `is_table` says whether more can be checked."""
    if kind in _NO_TABLE:
        return [error(name, f"{table} is {_NO_TABLE[kind]}", NAME_A_TABLE)]
    findings = []
    if engine != "InnoDB":
        message = f"the table's engine is {engine}: it has no transactions"
        findings.append(error(name, message, Sql(f"ALTER TABLE {reference} ENGINE=InnoDB")))
    return findings


def is_table(kind: str) -> bool:
    """Return whether a relation of that TABLE_TYPE has rows of its own."""
    return kind not in _NO_TABLE


async def unlogged_findings(
    session: Session, name: str, collection: Collection, schema: str, table: str
) -> list[Diagnostic]:
    """Return the ways in which rows of the table change without an entry in the binary log."""
    optional = [collection.tenant] if collection.tenant else []
    used = {*collection.key, *collection.text, *collection.metadata, *optional}
    findings = []
    for row in await session.fetch(_ACTIONS, (schema, table)):
        changed = bool(used.intersection(str(row["columns"]).split("\n")))
        deleted, updated, parent = row["deleted"], row["updated"], row["parent"]
        ways = [f"ON DELETE {deleted}"] if deleted == "CASCADE" or (changed and deleted in _CHANGING) else []
        ways += [f"ON UPDATE {updated}"] if changed and updated in _CHANGING else []
        if ways:
            text = (
                f"foreign key {row['name']}: what {' and '.join(ways)} of {parent} does to this table is not in the "
                "binary log: Qdrant keeps what was there until verify --repair finds it"
            )
            remedy = Setting(
                f"have the application change these rows itself, before those of {parent}; or verify continuously"
            )
            findings.append(warning(name, text, remedy))
    if int((await session.fetch(_PARTITIONED, (schema, table)))[0]["partitions"]):
        text = (
            "the table is partitioned: rows that come or go with a partition (DROP, TRUNCATE, EXCHANGE, CONVERT) are "
            "not in the binary log; run verify --repair after it"
        )
        findings.append(warning(name, text))
    return findings


async def uncapturable(session: Session, schema: str, table: str, collection: Collection) -> list[tuple[str, Setting]]:
    """Return why capture cannot read rows of the table, or reads other values than they hold, each with its remedy.

    A connector fails at data that it cannot read, and with it the capture of every other table that it reads.
    """
    reference, found = quoted(schema, table), []
    kind = (await session.fetch(_KIND, (schema, table)))[0]["type"]
    if kind == "SYSTEM VERSIONED":
        remedy = Setting(f"ALTER TABLE {reference} DROP SYSTEM VERSIONING, which forgets the history")
        found.append((f"the table is system-versioned: {_UNREADABLE}", remedy))
    for row in await session.fetch(_HASHED, (schema, table)):
        indexed = str(row["columns"]).replace("\n", ", ")
        what = f"the unique index {row['name']} over column {indexed} is one of hashes, which are a hidden column"
        remedy = Setting(
            f"make the columns of {row['name']} short enough for an index (3,072 bytes), or index a part of them"
        )
        found.append((f"{what}: {_UNREADABLE}", remedy))
    if kind not in _NO_TABLE and without_overlaps(await _definition(session, reference)):
        remedy = Setting(
            f"ALTER TABLE {reference} DROP INDEX the one WITHOUT OVERLAPS, and have the application see to it"
        )
        found.append((f"a key of the table is WITHOUT OVERLAPS: {_UNKNOWN_TYPE}", remedy))
    columns = await session.fetch(_COLUMNS, (schema, table))
    return [*found, *_unreadable_columns(reference, columns), *_misread_columns(reference, columns, collection)]


async def _definition(session: Session, reference: str) -> str:
    """Return the answer of SHOW CREATE TABLE.

    It is empty if the user may not read the table, which is reported elsewhere.
    """
    try:
        return str((await session.fetch(f"SHOW CREATE TABLE {reference}"))[0]["Create Table"])
    except pymysql.err.MySQLError as refused:
        if refused.args[0] in DENIED:
            return ""
        raise


def without_overlaps(created: str) -> bool:
    """Return whether an answer of SHOW CREATE TABLE has a key WITHOUT OVERLAPS. Ignore names, texts and comments."""
    return "WITHOUT OVERLAPS" in _QUOTED.sub("", created)


def _unreadable_columns(reference: str, columns: Sequence[Mapping[str, Any]]) -> list[tuple[str, Setting]]:
    """Return the columns that make the connector fail, whether or not the configuration names them."""
    found = []
    compressed = [row["name"] for row in columns if int(row["compressed"] or 0)]
    if compressed:
        remedy = Setting(f"ALTER TABLE {reference} MODIFY the column without COMPRESSED, which rewrites the table")
        found.append((f"column {', '.join(compressed)} is COMPRESSED: {_UNREADABLE}", remedy))
    for row in columns:
        if row["base"] in _UNKNOWN_TYPES:
            text = f"column {row['name']} is of type {row['base']}: {_UNKNOWN_TYPE}"
            found.append((text, _changed(reference, row, _UNKNOWN_TYPES[row["base"]])))
        if row["charset"] in _UNKNOWN_SETS:
            text = f"column {row['name']} has the character set {row['charset']}, unknown to Java: {_UNREADABLE}"
            found.append((text, _changed(reference, row, f"{row['sql_type']} CHARACTER SET utf8mb4")))
    return found


def _misread_columns(
    reference: str, columns: Sequence[Mapping[str, Any]], collection: Collection
) -> list[tuple[str, Setting]]:
    """Return the columns of a document that capture reads as something else.

    Columns of the key are not among them: their types are checked separately.
    """
    optional = [collection.tenant] if collection.tenant else []
    used = {*collection.text, *collection.metadata, *optional} - {*collection.key}
    found = []
    for row in columns:
        if row["name"] not in used:
            continue
        charset = row["charset"]
        if charset is not None and charset not in SAME_SETS | _UNKNOWN_SETS:
            text = f"column {row['name']} has the character set {charset}: {OTHER_TEXT}"
            found.append((text, _changed(reference, row, f"{row['sql_type']} CHARACTER SET utf8mb4")))
        if str(row["sql_type"]).startswith("year(2)"):
            text = f"column {row['name']} is YEAR(2): capture reads another year than the table shows"
            found.append((text, _changed(reference, row, "year(4)")))
    return found


def _changed(reference: str, row: Mapping[str, Any], to: str) -> Setting:
    null = "NULL" if row["nullable"] == "YES" else "NOT NULL"
    change = f"ALTER TABLE {reference} MODIFY {quoted(row['name'])} {to} {null}"
    return Setting(f"{change}, with the column's DEFAULT and COMMENT; it rewrites the table")
