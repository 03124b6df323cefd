"""The facts that identify a PostgreSQL database and a table in it, and what capture's publication contains.

Nothing is recorded or compared here.
"""

from __future__ import annotations

from typing import Any

from connectors.errors import StoreUnavailable
from connectors.sql.postgres.pool import Pool
from domain.positions import lsn_number
from domain.sources import SourceFacts

# A table is identified by its oid: a rewrite (VACUUM FULL) keeps it, a swap by rename does not.
_FACTS = """
SELECT (SELECT system_identifier::text FROM pg_control_system()) AS system,
       (SELECT oid::text FROM pg_database WHERE datname = current_database()) AS database,
       (SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = $1 AND c.relname = $2) AS tabled
"""
# A standby cannot report the end of the log.
_LOG = "SELECT substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8), pg_current_wal_insert_lsn()::text"
_PUBLISHED = """
SELECT p.puballtables
    OR EXISTS (SELECT FROM pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = $2)
    OR EXISTS (SELECT FROM pg_publication_namespace s JOIN pg_class c ON c.relnamespace = s.pnnspid
               WHERE s.pnpubid = p.oid AND c.oid = $2)
FROM pg_publication p WHERE p.pubname = $1
"""
# Before release 15, a publication cannot leave out rows or columns.
_PARTLY = """
SELECT p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate AS all_kinds,
       to_jsonb(r) ->> 'prqual' AS rows, to_jsonb(r) ->> 'prattrs' AS columns
FROM pg_publication p LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = $2 WHERE p.pubname = $1
"""
_FAILOVER_SINCE = 170_000


async def postgres_facts(dsn: str, table: str, publication: str) -> SourceFacts:
    """Return the facts of a table, `schema.table`. Raises as `Pool.open`, StoreUnavailable on a standby."""
    schema, _, name = table.partition(".")
    pool = await Pool.open(dsn, maximum=1)
    try:
        async with pool.session() as session:
            if await session.fetchval("SELECT pg_is_in_recovery()"):
                raise StoreUnavailable("the server is a standby: it takes no writes and has no slot of its own")
            facts = await session.fetchrow(_FACTS, schema, name)
            log = await session.fetchrow(_LOG)
            oid = facts["tabled"] if facts else None
            published = await session.fetchval(_PUBLISHED, publication, oid or 0)
            partly = await session.fetchrow(_PARTLY, publication, oid or 0)
    finally:
        await pool.close()
    timeline, lsn = log or ("0", "0/0")
    return SourceFacts(
        {"system identifier": facts["system"], "timeline": str(int(timeline, 16)), "database oid": facts["database"]}
        if facts
        else {},
        None if oid is None else str(oid),
        (lsn_number(lsn),),
        published=published,
        place=lsn,
        blind=_blind(partly),
    )


def _blind(publication: Any) -> str | None:
    """Return what the publication leaves out since it was changed after capture created it, None if nothing."""
    if publication is None:
        return None
    if not publication["all_kinds"]:
        return "capture's publication leaves out inserts, updates, deletes or truncations"
    if publication["rows"] is not None or publication["columns"] is not None:
        return "capture's publication leaves out rows or columns of the table"
    return None


async def failover_slots(dsn: str) -> bool:
    """Return whether the server keeps a slot over a failover on request: PostgreSQL 17 and later, and not a standby."""
    pool = await Pool.open(dsn, maximum=1)
    try:
        async with pool.session() as session:
            version = int(await session.fetchval("SELECT current_setting('server_version_num')"))
            standby = await session.fetchval("SELECT pg_is_in_recovery()")
    finally:
        await pool.close()
    return version >= _FAILOVER_SINCE and not standby
