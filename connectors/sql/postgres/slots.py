"""Replication slots of capture's connectors: their state, position and removal. Debezium creates them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Literal

from connectors.errors import StoreUnavailable
from connectors.sql.postgres.pool import Pool, quoted

_DROP_BOUND_S = 30.0
_POLL_S = 0.2
_STATE = "SELECT wal_status::text FROM pg_replication_slots WHERE slot_name = $1"
_PLACE = """
SELECT active, wal_status::text, confirmed_flush_lsn::text AS confirmed, pg_current_wal_insert_lsn()::text AS now,
       pg_wal_lsn_diff(pg_current_wal_insert_lsn(), confirmed_flush_lsn)::bigint AS behind,
       pg_wal_lsn_diff(pg_current_wal_insert_lsn(), restart_lsn)::bigint AS kept
FROM pg_replication_slots WHERE slot_name = $1
"""
_DROP = (
    "SELECT count(pg_drop_replication_slot(slot_name)) FROM pg_replication_slots WHERE slot_name = $1 AND NOT active"
)


@dataclass(frozen=True, slots=True)
class SlotPlace:
    """The position that the reader of a slot confirmed, and the end of the server's log.

    The slot makes the server keep `kept_bytes` of the log. Positions are log sequence numbers as the server writes
    them. A field is None if the server no longer knows it.
    """

    active: bool
    status: str | None
    confirmed: str | None
    now: str
    behind_bytes: int | None
    kept_bytes: int | None


async def slot_place(dsn: str, slot: str) -> SlotPlace | None:
    """Return the position of a slot, None if there is none. Raises as `Pool.open`, TransientError on a standby."""
    pool = await Pool.open(dsn, maximum=1)
    try:
        async with pool.session() as session:
            row = await session.fetchrow(_PLACE, slot)
    finally:
        await pool.close()
    return SlotPlace(*row) if row is not None else None


async def slot_state(dsn: str, slot: str) -> Literal["there", "missing", "lost"]:
    """Return whether a slot exists. `lost`: the server removed the log that the slot needs. Raises as `Pool.open`."""
    pool = await Pool.open(dsn, maximum=1)
    try:
        async with pool.session() as session:
            row = await session.fetchrow(_STATE, slot)
    finally:
        await pool.close()
    if row is None:
        return "missing"
    return "lost" if row["wal_status"] == "lost" else "there"


async def drop_slot(dsn: str, slot: str, publication: str) -> None:
    """Remove a slot that has no reader any more, and its publication. Do nothing if they do not exist.

    Raises StoreUnavailable if the slot still has a reader after 30 s.
    """
    pool = await Pool.open(dsn, maximum=1)
    try:
        deadline = time.monotonic() + _DROP_BOUND_S
        async with pool.session() as session:
            while await session.fetchrow(_STATE, slot) is not None:
                if not await session.fetchval(_DROP, slot):
                    if time.monotonic() > deadline:
                        raise StoreUnavailable(f"the replication slot {slot} is still in use")
                    await asyncio.sleep(_POLL_S)
            await session.execute(f"DROP PUBLICATION IF EXISTS {quoted(publication)}")
    finally:
        await pool.close()
