"""MariaDB as the legacy store: opens the ports of a collection. No SQL is here."""

from __future__ import annotations

from connectors.sql.connector import LegacyConnector
from connectors.sql.mariadb.bulk import MariadbBulk
from connectors.sql.mariadb.checksums import MariadbChecksums
from connectors.sql.mariadb.layout import read_layout
from connectors.sql.mariadb.ledger import MariadbLedger
from connectors.sql.mariadb.pool import Pool, execute_all
from connectors.sql.mariadb.search import MariadbTextSearch
from connectors.sql.mariadb.table import MariadbTable
from connectors.sql.mariadb.tasks import MariadbTasks
from schemas.settings import Collection

__all__ = ["execute_all", "open_mariadb"]


async def open_mariadb(name: str, collection: Collection, dsn: str) -> LegacyConnector:
    """Open a collection's table. Raises Misconfigured for a missing table or column, StoreUnavailable."""
    pool = Pool(dsn)
    try:
        async with pool.session() as session:
            layout = await read_layout(session, name, collection, pool.database)
    except BaseException:
        await pool.close()
        raise
    ledger = MariadbLedger(pool, layout)
    tasks = MariadbTasks(pool, layout, dsn)

    async def prepare() -> None:
        await ledger.prepare()
        await tasks.prepare()

    return LegacyConnector(
        table=MariadbTable(pool, layout),
        bulk=MariadbBulk(pool, layout),
        checksums=MariadbChecksums(pool, layout),
        ledger=ledger,
        tasks=tasks,
        text_search=MariadbTextSearch(pool, layout),
        vector_search=None,
        prepare=prepare,
    )
