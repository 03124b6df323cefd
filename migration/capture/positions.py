"""How far capture is in each database's log, how much log is kept, when a position is reached. Changes nothing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from connectors.kafka.connect import ConnectClient, ConnectorStatus
from connectors.sql.mariadb.binlog import Binlog, binlog
from connectors.sql.postgres.slots import SlotPlace, slot_place
from domain.positions import lsn_number, mariadb_end, postgres_end
from schemas.documents import Position
from topics.captures import Capture

_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class ReplicationPosition:
    """One connector: its state, how far it confirmed (`position`), and the end of the database's log.

    `kept_bytes` is the log that its replication slot keeps on the server (PostgreSQL), or the size of all files of the
    binary log (MariaDB). `note` names a problem with the position itself: a slot that is missing, a purged file.
    """

    connector: str
    state: str
    failure: str | None
    position: str | None
    end: str | None
    behind_bytes: int | None
    kept_bytes: int | None
    note: str | None = None


async def replication_position(client: ConnectClient, kind: str, dsn: str, capture: Capture) -> ReplicationPosition:
    """Return the replication position of a database's connector. Raises ConnectError, and as `slot_place`."""
    status = await client.status(capture.connector)
    if kind == "postgres":
        return _of_slot(status, await slot_place(dsn, capture.slot))
    return _of_binlog(status, await binlog(dsn), await client.offset(capture.connector))


async def captured(client: ConnectClient, kind: str, dsn: str, capture: Capture, limit_s: float) -> bool:
    """Return True once capture has confirmed everything that is in the database's log now, False after the limit.

    What is confirmed is in its topic, so that a barrier over the topics covers it. An idle connector confirms with its
    heartbeats, every second. How soon Kafka Connect then stores this depends on its `offset.flush.interval.ms`.
    """
    try:
        async with asyncio.timeout(limit_s):
            return await _confirmed(client, kind, dsn, capture)
    except TimeoutError:
        return False


async def _confirmed(client: ConnectClient, kind: str, dsn: str, capture: Capture) -> bool:
    if kind == "postgres":
        wanted: int | None = None
        while True:
            place = await slot_place(dsn, capture.slot)
            if place is not None and wanted is None:
                wanted = lsn_number(place.now)
            if place is not None and wanted is not None and lsn_number(place.confirmed or "0/0") >= wanted:
                return True
            await asyncio.sleep(_POLL_S)
    end = await binlog(dsn)
    while True:
        if _read(await client.offset(capture.connector)) >= (end.file, end.position):
            return True
        await asyncio.sleep(_POLL_S)


async def log_end(kind: str, dsn: str, capture: Capture) -> Position:
    """Return a position that no change captured before now exceeds. Raises as `slot_place` and `binlog`."""
    if kind == "postgres":
        place = await slot_place(dsn, capture.slot)
        return postgres_end(lsn_number(place.now), capture.epoch) if place is not None else ()
    end = await binlog(dsn)
    return mariadb_end(end.file, end.position, capture.epoch)


def _read(offset: dict[str, Any]) -> tuple[str, int]:
    return str(offset.get("file") or ""), int(offset.get("pos") or 0)


def _of_slot(status: ConnectorStatus, slot: SlotPlace | None) -> ReplicationPosition:
    state = "RUNNING" if status.running else _worst(status)
    if slot is None:
        missing = f"the replication slot {status.name.replace('-', '_')} is missing"
        return ReplicationPosition(status.name, state, status.failure, None, None, None, None, missing)
    note = None if slot.active else "nobody reads the replication slot"
    if slot.status in {"lost", "unreserved"}:
        note = f"the replication slot is {slot.status}: the server takes away its log"
    return ReplicationPosition(
        status.name, state, status.failure, slot.confirmed, slot.now, slot.behind_bytes, slot.kept_bytes, note
    )


def _of_binlog(status: ConnectorStatus, log: Binlog, offset: dict[str, Any]) -> ReplicationPosition:
    state = "RUNNING" if status.running else _worst(status)
    file, position = _read(offset)
    end = f"{log.file}:{log.position}"
    if not file:
        return ReplicationPosition(status.name, state, status.failure, None, end, None, log.kept_bytes)
    behind = log.behind_bytes(file, position)
    note = None if behind is not None else f"the file {file} was purged from the binary log"
    return ReplicationPosition(
        status.name, state, status.failure, f"{file}:{position}", end, behind, log.kept_bytes, note
    )


def _worst(status: ConnectorStatus) -> str:
    return "FAILED" if status.failed else status.state
