"""PostgreSQL as the legacy store: opens the ports of a collection. No SQL is here."""

from __future__ import annotations

from connectors.sql.connector import LegacyConnector
from connectors.sql.postgres.bulk import PostgresBulk
from connectors.sql.postgres.checksums import PostgresChecksums
from connectors.sql.postgres.layout import read_layout
from connectors.sql.postgres.ledger import PostgresLedger
from connectors.sql.postgres.pool import Pool, execute_all
from connectors.sql.postgres.search import PostgresTextSearch, PostgresVectorSearch
from connectors.sql.postgres.table import PostgresTable
from connectors.sql.postgres.tasks import PostgresTasks
from schemas.settings import Collection

__all__ = ["execute_all", "open_postgres"]


async def open_postgres(name: str, collection: Collection, dsn: str) -> LegacyConnector:
    """Open a collection's table. Raises Misconfigured for a missing table or column, StoreUnavailable."""
    pool = await Pool.open(dsn)
    try:
        async with pool.session() as session:
            layout = await read_layout(session, name, collection)
            vectors = await PostgresVectorSearch.available(session, layout)
    except BaseException:
        await pool.close()
        raise
    ledger = PostgresLedger(pool, layout)
    tasks = PostgresTasks(pool, layout, dsn)

    async def prepare() -> None:
        await ledger.prepare()
        await tasks.prepare()

    return LegacyConnector(
        table=PostgresTable(pool, layout),
        bulk=PostgresBulk(pool, layout),
        checksums=PostgresChecksums(pool, layout),
        ledger=ledger,
        tasks=tasks,
        text_search=PostgresTextSearch(pool, layout),
        vector_search=PostgresVectorSearch(pool, layout, vectors) if vectors else None,
        prepare=prepare,
    )
