"""The one place that chooses the adapter of a legacy collection, and what the configuration's check needs of it."""

from __future__ import annotations

from collections.abc import Sequence

from connectors import mariadb, postgres
from connectors.mariadb.checks import check_mariadb
from connectors.postgres.checks import check_postgres
from connectors.sql_connector import LegacyConnector
from domain.legacy import Finding
from schemas.settings import Collection

__all__ = ["LegacyConnector", "apply_mend", "check_legacy", "open_legacy"]


async def open_legacy(name: str, collection: Collection, dsn: str) -> LegacyConnector:
    """Open a collection's table. Raises Misconfigured for a missing table or column, StoreUnavailable."""
    if collection.connector == "postgres":
        return await postgres.open_postgres(name, collection, dsn)
    return await mariadb.open_mariadb(name, collection, dsn)


async def check_legacy(name: str, collection: Collection, dsn: str, dimension: int | None = None) -> list[Finding]:
    """Return what is wrong for a collection, also where `open_legacy` would fail for it.

    Stored embeddings are looked at where the model's `dimension` is given.

    Raises Misconfigured for an address, role or password that is not right, StoreUnavailable.
    """
    if collection.connector == "postgres":
        return await check_postgres(name, collection, dsn, dimension)
    return await check_mariadb(name, collection, dsn, dimension)


async def apply_mend(dsn: str, findings: Sequence[Finding]) -> list[str]:
    """Execute the SQL statements that mend findings and return them; configuration lines are left to the operator.

    Raises Misconfigured where the role may not, Refused where the data forbids it, StoreUnavailable.
    """
    statements = [finding.mend for finding in findings if finding.mend and not finding.mend.startswith("--")]
    once = list(dict.fromkeys(statements))
    if dsn.startswith(("mysql", "mariadb")):
        await mariadb.execute_all(dsn, once)
    else:
        await postgres.execute_all(dsn, once)
    return once
