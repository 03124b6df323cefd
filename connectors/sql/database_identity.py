"""Identifies the database that an address leads to, whatever name, port or role it uses.

Nothing is recorded or compared here.
"""

from __future__ import annotations

from dataclasses import dataclass

from connectors.errors import StoreUnavailable
from connectors.sql.mariadb.pool import Pool as MariadbPool
from connectors.sql.postgres.pool import Pool as PostgresPool
from schemas.settings import Connector
from topics.captures import database_of

_POSTGRES = """
SELECT current_user::text AS role, pg_postmaster_start_time()::text AS started,
       (SELECT oid::text FROM pg_database WHERE datname = current_database()) AS oid,
       has_function_privilege('pg_control_system()', 'EXECUTE') AS may_ask
"""
_SYSTEM = "SELECT system_identifier::text FROM pg_control_system()"
_MARIADB = "SHOW GLOBAL VARIABLES LIKE 'server_uid'"
_MARIADB_ROLE = "SELECT CURRENT_USER() AS role"


@dataclass(frozen=True, slots=True)
class DatabaseIdentity:
    """A database of a server. `server` is None if the server does not identify itself to this role.

    A server and its copy have the same `server`. `running` differs between two servers that run at the same time.
    `database` is an object id in PostgreSQL: a database that was dropped and created again has another one.
    """

    kind: Connector
    server: str | None
    database: str
    role: str
    running: str

    @property
    def key(self) -> str | None:
        """A key that distinguishes the database from every other one, None if it is not known."""
        return None if self.server is None else f"{self.kind}/{self.server}/{self.database}"

    @property
    def space(self) -> str | None:
        """The scope within which a table's full name is unique: a database in PostgreSQL, a server in MariaDB."""
        return f"{self.kind}/{self.server}" if self.kind == "mariadb" and self.server else self.key


async def database_identity(kind: Connector, dsn: str) -> DatabaseIdentity:
    """Return the identity of the database that an address leads to. Raises Misconfigured, StoreUnavailable."""
    return await (_postgres(dsn) if kind == "postgres" else _mariadb(dsn))


async def _postgres(dsn: str) -> DatabaseIdentity:
    pool = await PostgresPool.open(dsn, maximum=1)
    try:
        async with pool.session() as session:
            row = await session.fetchrow(_POSTGRES)
            server = str(await session.fetchval(_SYSTEM)) if row and row["may_ask"] else None
    finally:
        await pool.close()
    if row is None:
        raise StoreUnavailable("the server does not say which database this is")
    return DatabaseIdentity("postgres", server, row["oid"], row["role"], f"{server} {row['started']}")


async def _mariadb(dsn: str) -> DatabaseIdentity:
    pool = MariadbPool(dsn, maximum=1)
    try:
        async with pool.session() as session:
            found = await session.fetch(_MARIADB)
            role = (await session.fetch(_MARIADB_ROLE))[0]["role"]
    finally:
        await pool.close()
    server = str(found[0]["Value"]) if found else None
    return DatabaseIdentity("mariadb", server, database_of(dsn), str(role), str(server))
