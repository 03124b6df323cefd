"""Captures tables of a test schema or database with a separate connector, which leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from connectors.debezium.configuration import mariadb_connector, postgres_connector
from connectors.kafka.connect import ConnectClient
from stack.layout import StackAddresses
from tests.contract.legacy_places import Place
from tests.stack.capture_topics import capture_topics
from tests.stack.test_capture import provide

BOUND_S = 90.0


@asynccontextmanager
async def captured(place: Place, stack: StackAddresses, tables: Iterable[str]) -> AsyncIterator[None]:
    """Capture tables of the schema or database into topics named after it."""
    name, full = place.schema, [f"{place.schema}.{table}" for table in tables]
    await provide(stack, capture_topics(name, full))
    config = (
        postgres_connector(name, place.dsn, name, full, slot=name, publication=name)
        if place.connector == "postgres"
        else mariadb_connector(name, place.dsn, name, full, bootstrap_servers=stack.kafka)
    )
    async with ConnectClient(stack.connect) as client:
        try:
            await client.put_config(name, config)
            await client.wait_running(name, BOUND_S)
            yield
        finally:
            await client.delete_with_offsets(name)
            if place.connector == "postgres":
                await place.execute(f"DROP PUBLICATION IF EXISTS {name}")
                await _drop_slot(place)


async def _drop_slot(place: Place) -> None:
    slots = f"FROM pg_replication_slots WHERE slot_name = '{place.schema}'"
    async with asyncio.timeout(BOUND_S):
        while await place.fetch(f"SELECT 1 {slots}"):
            await place.fetch(f"SELECT pg_drop_replication_slot(slot_name) {slots} AND NOT active")
            await asyncio.sleep(0.1)
