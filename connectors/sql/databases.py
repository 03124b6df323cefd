"""The only module that chooses the adapter of a legacy collection. It also has what `config check` needs of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from connectors.sql import mariadb, postgres
from connectors.sql.connector import LegacyConnector
from connectors.sql.mariadb.checks import check_mariadb
from connectors.sql.mariadb.source import INNODB, mariadb_facts, statements_since
from connectors.sql.postgres.checks import check_postgres
from connectors.sql.postgres.source import postgres_facts
from domain.legacy import Diagnostic, Sql
from domain.sources import SourceFacts, SourceIdentity, replaced_by
from schemas.settings import Collection

__all__ = ["LegacyConnector", "apply_remedies", "check_legacy", "open_legacy", "source_facts"]


async def open_legacy(name: str, collection: Collection, dsn: str) -> LegacyConnector:
    """Open a collection's table. Raises Misconfigured for a missing table or column, StoreUnavailable."""
    if collection.connector == "postgres":
        return await postgres.open_postgres(name, collection, dsn)
    return await mariadb.open_mariadb(name, collection, dsn)


async def check_legacy(name: str, collection: Collection, dsn: str, dimension: int | None = None) -> list[Diagnostic]:
    """Return what is wrong for a collection, even if `open_legacy` would fail for it.

    Stored embeddings are checked if the model's `dimension` is given.

    Raises Misconfigured for a wrong address, role or password, StoreUnavailable.
    """
    if collection.connector == "postgres":
        return await check_postgres(name, collection, dsn, dimension)
    return await check_mariadb(name, collection, dsn, dimension)


async def apply_remedies(dsn: str, findings: Sequence[Diagnostic]) -> list[str]:
    """Execute the SQL statements that fix findings, and return them. Configuration lines are left to the operator.

    Raises Misconfigured if the role lacks the privilege, Refused if the data forbids it, StoreUnavailable.
    """
    statements = [str(each.remedy) for each in findings if isinstance(each.remedy, Sql)]
    once = list(dict.fromkeys(statements))
    if dsn.startswith(("mysql", "mariadb")):
        await mariadb.execute_all(dsn, once)
    else:
        await postgres.execute_all(dsn, once)
    return once


async def source_facts(
    kind: str, dsn: str, table: str, publication: str, recorded: SourceIdentity | None = None
) -> SourceFacts:
    """Return what identifies a database and one of its tables, named with its schema.

    A MariaDB table that was only altered or rebuilt since it was `recorded` is returned with `altered`: it counts as
    the recorded table. Raises Misconfigured, StoreUnavailable.
    """
    if kind == "postgres":
        return await postgres_facts(dsn, table, publication)
    facts = await mariadb_facts(dsn, table)
    if recorded is None or facts.table in {None, recorded.table} or facts.end < recorded.end:
        return facts
    statements = await statements_since(dsn, recorded.place, table.partition(".")[2])
    fate = None if statements is None else replaced_by(statements, table)
    # InnoDB's table ids change only by statements. A creation time also changes when a file is touched.
    touched = statements is not None and not (recorded.table.startswith(INNODB) and str(facts.table).startswith(INNODB))
    return replace(facts, altered=fate == "" or (fate is None and touched))
