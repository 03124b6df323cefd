"""What `config check` finds wrong with a collection in MariaDB, and the statements that fix it. Reads only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pymysql

from connectors.sql.checks import (
    EMBEDDING_TYPES,
    OTHER_KEY,
    UNSORTED,
    VECTORS_LOOKED_AT,
    column_findings,
    error,
    near,
    vector_findings,
    warning,
)
from connectors.sql.layout import VERSION_COLUMN, Column
from connectors.sql.mariadb.layout import column_of, raw_columns, table_name
from connectors.sql.mariadb.pool import Pool, Session, quoted
from connectors.sql.mariadb.rights import DENIED, account_of, rights_findings
from connectors.sql.mariadb.table_checks import TABLES, is_table, kind_findings, uncapturable, unlogged_findings
from domain.legacy import Diagnostic, Remedy, Setting, Sql
from schemas.settings import Collection
from schemas.values import Kind

MIN_PACKET_BYTES = 16 * 1024 * 1024

_SERVER = """
SELECT @@log_bin AS log_bin, @@global.binlog_format AS binlog_format, @@global.binlog_row_image AS binlog_row_image,
       @@global.binlog_row_metadata AS binlog_row_metadata, @@global.max_allowed_packet AS max_allowed_packet,
       @@global.read_only AS read_only, @@global.sql_mode AS sql_mode, @@global.sync_binlog AS sync_binlog,
       @@global.innodb_flush_log_at_trx_commit AS innodb_flush_log_at_trx_commit,
       @@global.log_bin_compress AS log_bin_compress
"""
_FILTERS = {"Binlog_Do_DB": "binlog_do_db", "Binlog_Ignore_DB": "binlog_ignore_db"}

# Without these settings, a crash of the machine, or of the server alone, may lose rows and ledger entries that were
# reported as applied.
_DURABLE = ("innodb_flush_log_at_trx_commit", "sync_binlog")
_PREPARED = "SHOW GLOBAL STATUS LIKE 'Com_xa_prepare'"
_XA = (
    "applications use XA transactions: their rows are captured at XA PREPARE, and XA ROLLBACK is not seen; after one, "
    "run crossfade verify --repair"
)

_UNIQUE = """
SELECT INDEX_NAME AS name, GROUP_CONCAT(COLUMN_NAME ORDER BY SEQ_IN_INDEX SEPARATOR '\n') AS columns,
       SUM(SUB_PART IS NOT NULL) AS parts, MAX(INDEX_TYPE) AS type, MAX(NON_UNIQUE) AS non_unique
FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s GROUP BY INDEX_NAME
"""

# The privileges that capture needs, each with the names that SHOW GRANTS may use for it.
_CAPTURE = {
    "REPLICATION SLAVE": ("REPLICATION SLAVE", "REPLICATION REPLICA"),
    "REPLICATION CLIENT": ("REPLICATION CLIENT", "BINLOG MONITOR"),
    "RELOAD": ("RELOAD", "LOCK TABLES", "ALL PRIVILEGES"),  # a snapshot locks the tables for a moment
}


async def check_mariadb(name: str, collection: Collection, dsn: str, dimension: int | None = None) -> list[Diagnostic]:
    """Return what is wrong for a collection, whether or not its table exists.

    Embeddings are checked if `dimension` is known. Raises Misconfigured, StoreUnavailable.
    """
    pool = Pool(dsn, maximum=1)
    try:
        async with pool.session() as session:
            return await check_layout(session, name, collection, pool.database, dimension)
    finally:
        await pool.close()


async def check_layout(
    session: Session, name: str, collection: Collection, database: str | None, dimension: int | None = None
) -> list[Diagnostic]:
    """Return what is wrong for a collection, over a connection that is already open."""
    findings = await _server(session)
    schema, table = table_name(collection.table, database)
    findings += await _filtered(session, schema)
    tables = {row["name"]: row for row in await session.fetch(TABLES, (schema,))}
    if table not in tables:
        return [*findings, error(name, f"there is no table {schema}.{table}{near(table, tables)}")]
    reference = quoted(schema, table)
    kind = str(tables[table]["type"])
    findings += kind_findings(name, f"{schema}.{table}", reference, tables[table]["engine"], kind)
    if not is_table(kind):
        return findings
    raw = await raw_columns(session, schema, table)
    columns = {column: column_of(row) for column, row in raw.items()}
    findings += column_findings(name, collection, columns, _base, partial(_key_remedy, reference))
    findings += await rights_findings(session, name, schema, table)
    findings += _version_column(name, reference, raw)
    indexes = await session.fetch(_UNIQUE, (schema, table))
    if all(column in raw for column in collection.key):
        findings += _key(name, reference, collection, raw, indexes)
    findings += _details(name, collection, raw)
    causes = await uncapturable(session, schema, table, collection)
    findings += [error(name, why, remedy) for why, remedy in causes]
    findings += await unlogged_findings(session, name, collection, schema, table)
    if dimension is not None and collection.embedding and collection.embedding.column in raw:
        findings += await _vectors(session, name, reference, collection, dimension, raw)
    if all(column in raw for column in collection.text):
        findings += _full_text(name, reference, collection, indexes)
    return findings


def _key_remedy(table: str, column: Column) -> Remedy:
    """Return the remedy for a column that cannot be a key.

    A text type keeps what the column holds. Only the operator knows whether the application can work with it.
    """
    if column.kind is Kind.TEXT:
        changed = f"ALTER TABLE {table} MODIFY {quoted(column.name)} VARCHAR(190) COLLATE utf8mb4_nopad_bin NOT NULL"
        return Setting(f"{changed}, where the application can do with a text")
    return OTHER_KEY


def _base(column: Column) -> str:
    return column.sql_type.partition("(")[0].partition(" ")[0]


async def _server(session: Session) -> list[Diagnostic]:
    server = (await session.fetch(_SERVER))[0]
    findings = []
    if server["log_bin"] != "1":
        message = "the binary log is off: changes cannot be captured; set it and restart the server"
        findings.append(error("MariaDB", message, Setting("my.cnf: log_bin = ON")))
    for variable, wanted in (("binlog_format", "ROW"), ("binlog_row_image", "FULL"), ("binlog_row_metadata", "FULL")):
        if server[variable] != wanted:
            message = f"{variable} is {server[variable]}, capture needs {wanted}; set it in my.cnf too"
            findings.append(error("MariaDB", message, Sql(f"SET GLOBAL {variable} = '{wanted}'")))
    if server["log_bin_compress"] != "0":
        message = "log_bin_compress is on: compressed events are not captured, without a word; set it in my.cnf too"
        findings.append(error("MariaDB", message, Sql("SET GLOBAL log_bin_compress = OFF")))
    if "ALLOW_INVALID_DATES" in str(server["sql_mode"]):
        message = "sql_mode has ALLOW_INVALID_DATES: a date such as 2015-02-31 in the binary log ends capture"
        remedy = Sql("SET GLOBAL sql_mode = REPLACE(@@global.sql_mode, 'ALLOW_INVALID_DATES', '')")
        findings.append(error("MariaDB", message, remedy))
    if int(server["max_allowed_packet"]) < MIN_PACKET_BYTES:
        message = f"max_allowed_packet is {server['max_allowed_packet']} bytes: long documents would be refused"
        findings.append(warning("MariaDB", message, Sql(f"SET GLOBAL max_allowed_packet = {MIN_PACKET_BYTES}")))
    for variable in _DURABLE:
        if server[variable] != "1":
            message = (
                f"{variable} is {server[variable]}: a crash may lose changes that were captured or reported applied"
            )
            findings.append(warning("MariaDB", f"{message}; set it in my.cnf too", Sql(f"SET GLOBAL {variable} = 1")))
    if [row for row in await session.fetch(_PREPARED) if int(row["Value"])]:
        findings.append(warning("MariaDB", _XA))
    if server["read_only"] != "0":
        findings.append(error("MariaDB", "the server is read-only: give the address of the primary"))
    grants = [str(next(iter(row.values()))) for row in await session.fetch("SHOW GRANTS")]
    lacking = [
        privilege
        for privilege, names in _CAPTURE.items()
        if not any(name in grant for grant in grants for name in (*names, "ALL PRIVILEGES ON *.*"))
    ]
    if lacking:
        account = await account_of(session)
        message = f"the user {account} may not read the binary log: it lacks {', '.join(lacking)}"
        findings.append(error("MariaDB", message, Sql(f"GRANT {', '.join(lacking)} ON *.* TO {account}")))
    return findings


async def _filtered(session: Session, schema: str) -> list[Diagnostic]:
    """Report a binary log that leaves out writes to the database. Return nothing if the user may not query it."""
    try:
        status = await session.fetch("SHOW MASTER STATUS")
    except pymysql.err.MySQLError as refused:
        if refused.args[0] in DENIED:
            return []
        raise
    variable = leaves_out(status, schema)
    if variable is None:
        return []
    message = f"{variable} leaves {schema} out of the binary log: its changes are not captured"
    return [error("MariaDB", message, Setting(f"my.cnf: no {variable}; restart the server"))]


def leaves_out(status: Sequence[Mapping[str, Any]], schema: str) -> str | None:
    """Return the variable by which a server's binary log leaves a database out, from `SHOW MASTER STATUS`."""
    named = {variable: str(row[field] or "").split(",") for row in status for field, variable in _FILTERS.items()}
    only, never = ([one for one in named.get(variable, []) if one] for variable in _FILTERS.values())
    if schema in never:
        return "binlog_ignore_db"
    return "binlog_do_db" if only and schema not in only else None


def _version_column(name: str, table: str, raw: Mapping[str, dict[str, Any]]) -> list[Diagnostic]:
    column = raw.get(VERSION_COLUMN)
    wanted = f"COLUMN {VERSION_COLUMN} BIGINT NULL INVISIBLE"
    if column is None:
        return [error(name, f"the table has no column {VERSION_COLUMN}", Sql(f"ALTER TABLE {table} ADD {wanted}"))]
    if column["base"] != "bigint" or column["nullable"] != "YES":
        message = f"column {VERSION_COLUMN} is not a nullable BIGINT"
        return [error(name, message, Sql(f"ALTER TABLE {table} MODIFY {wanted}"))]
    if "INVISIBLE" not in str(column["extra"]).upper():
        message = f"column {VERSION_COLUMN} is visible: an INSERT without a column list would fail"
        return [warning(name, message, Sql(f"ALTER TABLE {table} MODIFY {wanted}"))]
    return []


def _key(
    name: str, table: str, collection: Collection, raw: Mapping[str, dict[str, Any]], indexes: list[dict[str, Any]]
) -> list[Diagnostic]:
    findings = []
    names = ", ".join(quoted(column) for column in collection.key)
    whole = [index for index in indexes if index["non_unique"] == "0" and index["parts"] == "0"]
    if set(collection.key) not in [set(str(index["columns"]).split("\n")) for index in whole]:
        primary = any(index["name"] == "PRIMARY" for index in indexes)
        remedy = Sql(f"ALTER TABLE {table} ADD {'UNIQUE' if primary else 'PRIMARY KEY'} ({names})")
        findings.append(error(name, f"key {', '.join(collection.key)} is neither the primary key nor unique", remedy))
    sorted_by = [
        str(index["columns"]).split("\n") for index in indexes if index["type"] == "BTREE" and not int(index["parts"])
    ]
    if not findings and list(collection.key) not in [columns[: len(collection.key)] for columns in sorted_by]:
        findings.append(warning(name, UNSORTED, Sql(f"CREATE INDEX crossfade_key ON {table} ({names})")))
    for column in collection.key:
        row = raw[column]
        if row["nullable"] == "YES":
            remedy = Sql(f"ALTER TABLE {table} MODIFY {quoted(column)} {row['sql_type']} NOT NULL")
            findings.append(error(name, f"key column {column} may be NULL", remedy))
        if not column_of(row).binary:
            text = f"key column {column} ({row['collation']}): an id that differs only in case or accents is refused"
            findings.append(warning(name, text))
    return findings


def _details(name: str, collection: Collection, raw: Mapping[str, dict[str, Any]]) -> list[Diagnostic]:
    """Return columns that cannot be written, that may store another value than the given one, or that new rows need."""
    findings = []
    optional = [collection.tenant] if collection.tenant else []
    used = [*collection.key, *collection.text, *collection.metadata, *optional]
    for column in used:
        row = raw.get(column)
        if row is None:
            continue
        if row["made"] == "ALWAYS":
            findings.append(error(name, f"column {column} is generated: it cannot be written"))
        kind = column_of(row).kind
        timed = kind in {Kind.TIMESTAMP, Kind.TIMESTAMPTZ, Kind.TIME} and int(row["time_digits"] or 0) < 6
        if timed or kind in {Kind.DECIMAL, Kind.FLOAT32}:
            text = f"column {column} rounds what does not fit its precision: a producer must send values that fit"
            findings.append(warning(name, text))
    needed = [
        column
        for column, row in raw.items()
        if row["nullable"] == "NO" and row["preset"] is None and "auto_increment" not in row["extra"]
    ]
    left = sorted(set(needed) - {*used, VERSION_COLUMN} - {n for n, row in raw.items() if row["made"] == "ALWAYS"})
    if left:
        text = f"column {', '.join(left)} is NOT NULL without a default: new documents of producers will be refused"
        findings.append(warning(name, text))
    return findings


async def _vectors(
    session: Session, name: str, table: str, collection: Collection, dimension: int, raw: Mapping[str, dict[str, Any]]
) -> list[Diagnostic]:
    if collection.embedding is None:
        return []
    column = quoted(collection.embedding.column)
    if _base(column_of(raw[collection.embedding.column])) not in EMBEDDING_TYPES[collection.embedding.format]:
        return []  # already reported, as a column of another type
    rows = await session.fetch(
        f"SELECT {column} AS vector FROM {table} WHERE {column} IS NOT NULL LIMIT {VECTORS_LOOKED_AT}"  # noqa: S608  # quoted names
    )
    return vector_findings(name, collection, dimension, [row["vector"] for row in rows])


def _full_text(name: str, table: str, collection: Collection, indexes: list[dict[str, Any]]) -> list[Diagnostic]:
    full = [set(str(index["columns"]).split("\n")) for index in indexes if index["type"] == "FULLTEXT"]
    if set(collection.text) in full:
        return []
    columns = ", ".join(quoted(column) for column in collection.text)
    remedy = Sql(f"CREATE FULLTEXT INDEX crossfade_text ON {table} ({columns})")
    return [warning(name, "no FULLTEXT index over the text columns: the legacy store cannot answer questions", remedy)]
