"""What `config check` finds wrong with a collection in PostgreSQL, and the statements that fix it. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

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
from connectors.sql.postgres.expressions import SEARCHED_CHARS, document_vector, literal
from connectors.sql.postgres.layout import NOT_UTF8, column_of, find_table, other_encoding, raw_columns, table_reference
from connectors.sql.postgres.pool import Pool, Session, quoted
from connectors.sql.postgres.table_checks import NAME_A_TABLE, other_kind, table_findings, type_findings
from domain.legacy import Diagnostic, Remedy, Setting, Sql
from schemas.settings import Collection
from schemas.values import Kind

_SERVER = """
SELECT current_setting('wal_level') AS wal_level,
       current_setting('max_replication_slots')::int AS slots, current_setting('fsync') AS fsync,
       (SELECT count(*)::int FROM pg_replication_slots) AS taken,
       current_setting('max_wal_senders')::int AS senders, pg_is_in_recovery() AS standby, current_user AS role,
       (SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user)
       OR EXISTS (SELECT 1 FROM pg_roles WHERE rolname IN ('rds_replication', 'cloudsqlreplication')
                  AND pg_has_role(current_user, oid, 'member')) AS replication
"""

# A column in the INCLUDE list of an index is not part of the index's key.
_UNIQUE = """
SELECT array(SELECT a.attname::text FROM unnest(i.indkey[0:i.indnkeyatts - 1]) WITH ORDINALITY AS k(number, place)
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number ORDER BY k.place) AS columns,
       i.indisunique AND i.indimmediate AS is_unique
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
WHERE i.indrelid = to_regclass($1) AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
AND m.amname = 'btree'
"""

_TEXT_INDEX = """
SELECT bool_or(pg_get_indexdef(i.indexrelid) LIKE '%to_tsvector(%' || $2 || '%') FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
WHERE i.indrelid = to_regclass($1) AND a.amname = 'gin' AND i.indisvalid
"""

_DEFAULTS = """
SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped
AND attnotnull AND NOT atthasdef AND attidentity = '' AND attgenerated = ''
"""

_TABLES = (
    "SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace::regnamespace::text !~ '^pg_'"
)


async def check_postgres(name: str, collection: Collection, dsn: str, dimension: int | None = None) -> list[Diagnostic]:
    """Return what is wrong for a collection, whether or not its table exists.

    Embeddings are checked if `dimension` is known. Raises Misconfigured, StoreUnavailable.
    """
    pool = await Pool.open(dsn, maximum=1)
    try:
        async with pool.session() as session:
            return await check_layout(session, name, collection, dimension)
    finally:
        await pool.close()


async def check_layout(
    session: Session, name: str, collection: Collection, dimension: int | None = None
) -> list[Diagnostic]:
    """Return what is wrong for a collection, over a connection that is already open."""
    findings = [*await _server(session), *await type_findings(session)]
    found = await find_table(session, collection.table)
    if found is None:
        kind = await other_kind(session, table_reference(collection.table))
        if kind is not None:
            return [*findings, error(name, f"{collection.table} is {kind}", NAME_A_TABLE)]
        tables = [str(row[0]) for row in await session.fetch(_TABLES)]
        hint = near(collection.table.rpartition(".")[2], tables)
        return [*findings, error(name, f"there is no table {collection.table}{hint}")]
    table = quoted(*found)
    raw = await raw_columns(session, collection.table)
    columns = {column: column_of(row) for column, row in raw.items()}
    findings += column_findings(name, collection, columns, lambda column: column.sql_type, partial(_key_remedy, table))
    findings += _version_column(name, table, raw)
    findings += await table_findings(session, name, table, found[0])
    if all(column in raw for column in collection.key):
        findings += await _key(session, name, table, collection, raw)
    findings += await _embedding(session, name, collection)
    if dimension is not None and collection.embedding and collection.embedding.column in raw:
        findings += await _vectors(session, name, table, collection, dimension, raw)
    findings += _column_details(name, collection, raw)
    findings += await _not_null(session, name, table, collection)
    if all(column in raw for column in collection.text):
        findings += await _full_text(session, name, table, collection)
    return findings


async def _server(session: Session) -> list[Diagnostic]:
    server = await session.fetchrow(_SERVER)
    if server is None:
        return []
    subject, findings = "PostgreSQL", []
    if server["wal_level"] != "logical":
        message = f"wal_level is {server['wal_level']}: changes cannot be captured; set it and restart the server"
        findings.append(error(subject, message, Setting("postgresql.conf: wal_level = logical")))
    if server["slots"] <= server["taken"]:
        message = f"all {server['slots']} replication slots are taken; raise the limit and restart the server"
        remedy = Setting(f"postgresql.conf: max_replication_slots = {server['taken'] + 4}")
        findings.append(error(subject, message, remedy))
    if server["senders"] < 1:
        message = "max_wal_senders is 0: changes cannot be captured; raise it and restart the server"
        findings.append(error(subject, message, Setting("postgresql.conf: max_wal_senders = 10")))
    if server["fsync"] == "off":
        message = "fsync is off: a crash of the machine may lose changes that were captured or reported as applied"
        findings.append(warning(subject, message, Setting("postgresql.conf: fsync = on")))
    if server["standby"]:
        findings.append(error(subject, "the server is a standby: give the address of the primary"))
    encoding = await other_encoding(session)
    if encoding is not None:
        remedy = Setting(
            "dump the database, and restore it into one that was made with ENCODING 'UTF8' TEMPLATE template0"
        )
        findings.append(error(subject, NOT_UTF8.format(encoding), remedy))
    if not server["replication"]:
        message = f"the role {server['role']} lacks REPLICATION: changes cannot be captured"
        findings.append(error(subject, message, Sql(f"ALTER ROLE {quoted(server['role'])} REPLICATION")))
    return findings


def _version_column(name: str, table: str, raw: Mapping[str, dict[str, Any]]) -> list[Diagnostic]:
    column = raw.get(VERSION_COLUMN)
    if column is None:
        remedy = Sql(f"ALTER TABLE {table} ADD COLUMN {VERSION_COLUMN} bigint")
        return [error(name, f"the table has no column {VERSION_COLUMN}", remedy)]
    if column["base"] != "int8":
        remedy = Sql(f"ALTER TABLE {table} ALTER COLUMN {VERSION_COLUMN} TYPE bigint")
        return [error(name, f"column {VERSION_COLUMN} is {column['sql_type']}, not bigint", remedy)]
    if column["not_null"]:
        remedy = Sql(f"ALTER TABLE {table} ALTER COLUMN {VERSION_COLUMN} DROP NOT NULL")
        return [error(name, f"column {VERSION_COLUMN} must be nullable: the application does not set it", remedy)]
    return []


async def _key(
    session: Session, name: str, table: str, collection: Collection, raw: Mapping[str, dict[str, Any]]
) -> list[Diagnostic]:
    findings = []
    names = ", ".join(quoted(column) for column in collection.key)
    indexes = await session.fetch(_UNIQUE, table)
    if set(collection.key) not in [set(row["columns"]) for row in indexes if row["is_unique"]]:
        primary = await session.fetchval(
            "SELECT EXISTS (SELECT 1 FROM pg_index WHERE indrelid = to_regclass($1) AND indisprimary)", table
        )
        unique, primary_key = f"CREATE UNIQUE INDEX ON {table}", f"ALTER TABLE {table} ADD PRIMARY KEY"
        remedy = Sql(f"{unique if primary else primary_key} ({names})")
        findings.append(error(name, f"key {', '.join(collection.key)} is neither the primary key nor unique", remedy))
    if not findings and list(collection.key) not in [row["columns"][: len(collection.key)] for row in indexes]:
        findings.append(warning(name, UNSORTED, Sql(f"CREATE INDEX ON {table} ({names})")))
    for column in collection.key:
        if not raw[column]["not_null"] and not (findings and "ADD PRIMARY KEY" in str(findings[0].remedy)):
            remedy = Sql(f"ALTER TABLE {table} ALTER COLUMN {quoted(column)} SET NOT NULL")
            findings.append(error(name, f"key column {column} may be NULL", remedy))
    return findings


def _key_remedy(table: str, column: Column) -> Remedy:
    """Return the remedy for a column that cannot be a key.

    The type text keeps what the column holds. Only the operator knows what the application does with an ENUM.
    """
    if column.kind is not Kind.TEXT:
        return OTHER_KEY
    name = quoted(column.name)
    changed = f'ALTER TABLE {table} ALTER COLUMN {name} TYPE text COLLATE "C" USING {name}::text'
    return Setting(f"{changed}, where the application can do with a text") if column.binary else Sql(changed)


async def _embedding(session: Session, name: str, collection: Collection) -> list[Diagnostic]:
    if collection.embedding is None or collection.embedding.format != "pgvector":
        return []
    if await session.fetchval("SELECT EXISTS (SELECT 1 FROM pg_extension WHERE extname = 'vector')"):
        return []
    return [
        error(name, "the extension vector (pgvector) is not installed in the database", Sql("CREATE EXTENSION vector"))
    ]


async def _vectors(
    session: Session, name: str, table: str, collection: Collection, dimension: int, raw: Mapping[str, dict[str, Any]]
) -> list[Diagnostic]:
    if collection.embedding is None:
        return []
    row, column = raw[collection.embedding.column], quoted(collection.embedding.column)
    if row["base"] not in EMBEDDING_TYPES[collection.embedding.format]:
        return []  # already reported, as a column of another type
    shown = column if collection.embedding.format == "float32" else f"{column}::text"
    values = await session.fetch(
        f"SELECT {shown} FROM {table} WHERE {column} IS NOT NULL LIMIT {VECTORS_LOOKED_AT}"  # noqa: S608  # quoted names
    )
    declared = row["typmod"] if row["base"] == "vector" and row["typmod"] > 0 else None
    return vector_findings(name, collection, dimension, [value[0] for value in values], declared)


def _column_details(name: str, collection: Collection, raw: Mapping[str, dict[str, Any]]) -> list[Diagnostic]:
    """Return the columns that cannot be written, and the columns that may store another value than the given one."""
    findings = []
    optional = [collection.tenant] if collection.tenant else []
    for column in (*collection.key, *collection.text, *collection.metadata, *optional):
        row = raw.get(column)
        if row is None:
            continue
        if row["generated"]:
            findings.append(error(name, f"column {column} is generated: it cannot be written"))
        changes = row["base"] in {"float4", "bpchar"} or (
            row["base"] in {"numeric", "timestamp", "timestamptz", "time"} and row["typmod"] >= 0
        )
        if changes and row["base"] != "bpchar":
            text = f"column {column} rounds what does not fit its precision: a producer must send values that fit"
            findings.append(warning(name, text))
        elif changes:
            text = f"column {column} is padded with blanks: use text, so that both stores hold the same"
            findings.append(warning(name, text))
    return findings


async def _not_null(session: Session, name: str, table: str, collection: Collection) -> list[Diagnostic]:
    used = {*collection.key, *collection.text, *collection.metadata, collection.tenant, VERSION_COLUMN}
    needed = [str(row[0]) for row in await session.fetch(_DEFAULTS, table)]
    left = sorted(set(needed) - used)
    if not left:
        return []
    text = f"column {', '.join(left)} is NOT NULL without a default: new documents of producers will be refused"
    return [warning(name, text)]


async def _full_text(session: Session, name: str, table: str, collection: Collection) -> list[Diagnostic]:
    config = collection.text_search_config
    if not await session.fetchval("SELECT EXISTS (SELECT 1 FROM pg_ts_config WHERE cfgname = $1)", config):
        known = [str(row[0]) for row in await session.fetch("SELECT cfgname::text FROM pg_ts_config")]
        return [error(name, f"there is no text search configuration {config}{near(config, known)}")]
    # The catalogue prints the expression in its own form. The columns must appear in their order.
    pattern = "%".join(["", literal(config), "left", *collection.text, str(SEARCHED_CHARS)])
    if await session.fetchval(_TEXT_INDEX, table, pattern):
        return []
    remedy = Sql(f"CREATE INDEX ON {table} USING gin ({document_vector(collection)})")
    return [warning(name, "no full-text index: searches of the legacy store read the whole table", remedy)]
