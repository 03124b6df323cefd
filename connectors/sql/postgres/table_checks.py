"""Checks of a PostgreSQL table as a whole for `config check`: its kind, and what capture or the role cannot see of it.

Columns, key and indexes are checked in `connectors.sql.postgres.checks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from connectors.sql.checks import OWN_TABLES, error, warning
from connectors.sql.postgres.pool import Session, quoted
from domain.legacy import Diagnostic, Setting, Sql

# pg_class.relkind of relations that are not tables.
NO_TABLE = {
    "v": "a view: it has no key and no log of its own",
    "m": "a materialized view: its refresh is in no log",
    "f": "a foreign table: its changes are in another server's log",
    "S": "a sequence",
    "i": "an index",
    "c": "a type",
}
NAME_A_TABLE = Setting("crossfade.toml: name the table that holds the rows")

_TABLE = """
SELECT c.relreplident::text AS identity, c.relkind::text AS kind, c.relpersistence::text AS persistence,
       c.relkind = 'r' AND EXISTS (SELECT 1 FROM pg_inherits WHERE inhparent = c.oid) AS has_children,
       row_security_active(c.oid) AS hides_rows,
       EXISTS (SELECT 1 FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type IN ('2', '3', '4')) AS has_rules,
       has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
       AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE') AS privileges,
       has_schema_privilege(c.relnamespace, 'CREATE') AS may_create,
       has_database_privilege(current_database(), 'CREATE') AS may_publish, current_database()::text AS database,
       pg_has_role(c.relowner, 'USAGE') AS owns, pg_get_userbyid(c.relowner)::text AS owner,
       EXISTS (SELECT 1 FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
               WHERE r.prrelid = c.oid AND p.pubname LIKE 'crossfade%') AS published
FROM pg_class c WHERE c.oid = to_regclass($1)
"""

_OWN = """
SELECT bool_and(has_table_privilege(c.oid, p)) FROM pg_class c, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) p
WHERE c.oid = to_regclass($1)
"""

# All partitions that hold rows, at every depth.
_PARTITIONS = """
SELECT n.nspname::text AS schema, c.relname::text AS name, c.relreplident::text AS identity, c.relkind::text AS kind,
       c.relpersistence::text AS persistence
FROM pg_partition_tree(to_regclass($1)) p JOIN pg_class c ON c.oid = p.relid
JOIN pg_namespace n ON n.oid = c.relnamespace WHERE p.isleaf AND p.relid <> to_regclass($1) ORDER BY 1, 2
"""

# A domain over a domain has the category of the base type under both.
_ENUM_DOMAINS = """
SELECT format('%I.%I', n.nspname, t.typname) AS domain, format_type(t.typbasetype, NULL) AS base
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.typtype = 'd' AND t.typcategory = 'E' ORDER BY 1
"""

_KIND = "SELECT relkind::text FROM pg_class WHERE oid = to_regclass($1)"


async def type_findings(session: Session) -> list[Diagnostic]:
    """Return the types of the database that make Debezium's connector fail at its start, even if no table has them."""
    findings = []
    for row in await session.fetch(_ENUM_DOMAINS):
        text = (
            f"{row['domain']} is a domain over the ENUM {row['base']}: capture of the whole database fails at its start"
        )
        remedy = Setting(
            f"give the columns of type {row['domain']} the type {row['base']}, then DROP DOMAIN {row['domain']}"
        )
        findings.append(error("PostgreSQL", text, remedy))
    return findings


async def other_kind(session: Session, reference: str) -> str | None:
    """Return what a name stands for if it is not a table, None if nothing has that name."""
    return NO_TABLE.get(str(await session.fetchval(_KIND, reference)))


async def table_findings(session: Session, name: str, table: str, schema: str) -> list[Diagnostic]:
    """Return what is wrong with the table as a whole, apart from its columns and key."""
    found = await session.fetchrow(_TABLE, table)
    if found is None:
        return []
    row = dict(found)
    findings = [*_identity(name, table, row["identity"]), *_persistence(name, table, row), *_hidden(name, table, row)]
    if row["kind"] == "p":
        findings += await _partitions(session, name, table)
    if not row["privileges"]:
        remedy = Sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO CURRENT_USER")
        findings.append(error(name, "the role may not read and write the table", remedy))
    if not row["may_create"]:
        # Also needed if the tables exist: PostgreSQL checks the privilege before it looks for them.
        remedy = Sql(f"GRANT CREATE ON SCHEMA {quoted(schema)} TO CURRENT_USER")
        findings.append(error(name, f"the role may not create {', '.join(OWN_TABLES)} in schema {schema}", remedy))
    if not row["published"]:
        findings += _publication(name, row)
    for own in OWN_TABLES:
        if await session.fetchval(_OWN, quoted(schema, own)) is False:
            remedy = Sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {quoted(schema, own)} TO CURRENT_USER")
            findings.append(error(name, f"the role may not read and write {schema}.{own}", remedy))
    return findings


def _publication(name: str, row: Mapping[str, Any]) -> list[Diagnostic]:
    """Return what the role lacks for a publication that contains the table."""
    findings = []
    if not row["may_publish"]:
        remedy = Sql(f"GRANT CREATE ON DATABASE {quoted(row['database'])} TO CURRENT_USER")
        findings.append(error(name, "the role may not create a publication: changes cannot be captured", remedy))
    if not row["owns"]:
        message = "the table belongs to another role, so that this one cannot publish it: changes cannot be captured"
        findings.append(error(name, message, Sql(f"GRANT {quoted(row['owner'])} TO CURRENT_USER")))
    return findings


def _identity(name: str, table: str, identity: str, what: str = "the replica identity") -> list[Diagnostic]:
    if identity == "f":
        return []
    message = f"{what} is not FULL: updates and deletions would come without what was there before"
    return [error(name, message, Sql(f"ALTER TABLE {table} REPLICA IDENTITY FULL"))]


def _persistence(name: str, table: str, row: Mapping[str, Any]) -> list[Diagnostic]:
    if row["persistence"] == "u":
        return [error(name, "the table is unlogged: its changes are in no log", Sql(f"ALTER TABLE {table} SET LOGGED"))]
    if row["persistence"] == "t":
        return [error(name, "the table is temporary: no other session sees it", NAME_A_TABLE)]
    return []


def _hidden(name: str, table: str, row: Mapping[str, Any]) -> list[Diagnostic]:
    findings = []
    if row["hides_rows"]:
        text = "row level security hides rows from the role: they would count as deleted"
        findings.append(error(name, text, Sql("ALTER ROLE CURRENT_USER BYPASSRLS")))
    if row["has_children"]:
        text = "other tables inherit from it: their rows are read with it, and captured under their own names"
        remedy = Setting("crossfade.toml: name a table that no other inherits from, or make it a partitioned table")
        findings.append(error(name, text, remedy))
    if row["has_rules"]:
        text = "the table has rules, which write something else than they are asked to; PostgreSQL refuses upserts"
        findings.append(error(name, text, Setting(f"drop the rules of {table}; a trigger can do the same")))
    return findings


async def _partitions(session: Session, name: str, table: str) -> list[Diagnostic]:
    findings: list[Diagnostic] = []
    for row in await session.fetch(_PARTITIONS, table):
        partition = quoted(row["schema"], row["name"])
        if row["kind"] == "f":
            text = f"partition {row['name']} is a foreign table: its changes are in another server's log"
            findings.append(error(name, text, Setting(f"ALTER TABLE {table} DETACH PARTITION {partition}")))
            continue
        findings += _identity(name, partition, row["identity"], f"the replica identity of partition {row['name']}")
        if row["persistence"] == "u":
            text = f"partition {row['name']} is unlogged: its changes are in no log"
            findings.append(error(name, text, Sql(f"ALTER TABLE {partition} SET LOGGED")))
    text = (
        "the table is partitioned: rows that come or go with a partition (ATTACH, DETACH, DROP, TRUNCATE) are in no "
        "log; run verify --repair after it, and give each new partition REPLICA IDENTITY FULL"
    )
    return [*findings, warning(name, text)]
