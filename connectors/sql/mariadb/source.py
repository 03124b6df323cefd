"""The facts that identify a MariaDB server and a table in it, and the statements in its binary log about the table.

A table is identified by InnoDB's table ids if the role may read them (PROCESS), otherwise by its creation time. Both
also change when a table is only altered or rebuilt. The binary log shows whether it was replaced instead.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from connectors.errors import CrossfadeError, Misconfigured
from connectors.sql.mariadb.pool import Pool, Session
from domain.positions import binlog_number
from domain.sources import SourceFacts, gtid_numbers

_SERVER = """
SELECT @@server_id AS id, @@gtid_binlog_pos AS gtids, @@global.log_bin_compress AS compressed,
       @@global.binlog_format AS format
"""
_CREATED = "SELECT CREATE_TIME AS created FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s"
_ORDER = """
SELECT COLUMN_NAME AS name FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s
ORDER BY ORDINAL_POSITION
"""
_NUMBERS = (
    "SELECT GROUP_CONCAT(TABLE_ID ORDER BY TABLE_ID) AS ids FROM information_schema.INNODB_SYS_TABLES"
    " WHERE BINARY NAME = %s OR BINARY NAME LIKE %s"
    " OR (@@lower_case_table_names > 0 AND (NAME = %s OR NAME LIKE %s))"
)
INNODB = "innodb "
_PAGE = 20_000
_READ_S = 20.0
_KEPT_IDS = 200


async def mariadb_facts(dsn: str, table: str) -> SourceFacts:
    """Return the facts of a table, `database.table`. Raises Misconfigured if the server writes no binary log."""
    pool = Pool(dsn, maximum=1)
    try:
        async with pool.session() as session:
            (server,) = await session.fetch(_SERVER)
            status = await session.fetch("SHOW MASTER STATUS")
            created = await session.fetch(_CREATED, tuple(table.split(".", 1)))
        identity = await _numbers(pool, *table.split(".", 1)) if created else None
    finally:
        await pool.close()
    if not status:
        raise Misconfigured("the server writes no binary log")
    file, position = str(status[0]["File"]), int(status[0]["Position"])
    return SourceFacts(
        {"server id": str(server["id"])},
        identity or (f"created {created[0]['created']}" if created else None),
        (binlog_number(file), position),
        gtid_numbers(str(server["gtids"] or "")),
        place=f"{file}:{position}",
        blind=_blind(server),
    )


def _blind(server: Mapping[str, Any]) -> str | None:
    """Return which setting, changed since it was checked, makes Debezium miss changes, None if there is none."""
    if int(server["compressed"]):
        return "log_bin_compress is on, and Debezium passes over compressed rows"
    if str(server["format"]).upper() != "ROW":
        return f"binlog_format is {server['format']}, so that statements are logged instead of rows"
    return None


async def _numbers(pool: Pool, database: str, table: str) -> str | None:
    """Return InnoDB's ids of a table and its partitions, None if the role may not read them."""
    like = f"{database}/{table}#P#".replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    try:
        async with pool.session() as session:
            (found,) = await session.fetch(_NUMBERS, (f"{database}/{table}", like) * 2)
    except Misconfigured:
        return None
    return f"{INNODB}{found['ids']}"[:_KEPT_IDS] if found["ids"] else None


async def column_order(dsn: str, table: str) -> tuple[list[str], tuple[int, ...]]:
    """Return the columns of a table in their order, in lower case, and the end of the binary log, read afterwards."""
    pool = Pool(dsn, maximum=1)
    try:
        async with pool.session() as session:
            rows = await session.fetch(_ORDER, tuple(table.split(".", 1)))
            (status,) = await session.fetch("SHOW MASTER STATUS")
    finally:
        await pool.close()
    return [str(row["name"]).lower() for row in rows], (binlog_number(str(status["File"])), int(status["Position"]))


async def statements_since(dsn: str, place: str, table: str) -> list[str] | None:
    """Return the statements in the binary log since a position (`file:position`) that contain a table's name.

    None if they cannot be known: the file is gone, the role may not read it, or there is too much to read.
    """
    pool = Pool(dsn, maximum=1)
    found: list[str] = []
    try:
        async with pool.session() as session:
            async for statement in _statements(session, place):
                if table.lower() in statement.lower():
                    found.append(statement)
    except (CrossfadeError, TimeoutError):
        return None
    finally:
        await pool.close()
    return found


async def _statements(session: Session, place: str) -> AsyncIterator[str]:
    deadline = time.monotonic() + _READ_S
    file, _, position = place.rpartition(":")
    start: int = int(position)
    names = [str(row["Log_name"]) for row in await session.fetch("SHOW BINARY LOGS")]
    if file not in names:
        raise Misconfigured(f"{file} is gone")
    for name in names[names.index(file) :]:
        while True:
            page = await session.fetch(f"SHOW BINLOG EVENTS IN %s FROM {start} LIMIT {_PAGE}", (name,))
            for event in page:
                if event["Event_type"] in {"Query", "Query_compressed"}:
                    yield str(event["Info"])
            if len(page) < _PAGE:
                break
            start = int(page[-1]["End_log_pos"])
            if time.monotonic() > deadline:
                raise TimeoutError
        start = 4
