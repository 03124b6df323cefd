"""For every column type, a row has the same content by snapshot, by live capture, and by SQL.

If capture is not sure of a value, the row is read again, and the value that SQL reads counts.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from connectors.debezium.changes import decode_capture
from connectors.kafka.headers import received
from connectors.sql.connector import LegacyConnector
from connectors.sql.databases import open_legacy
from schemas.records import Received
from schemas.settings import Collection, Connector
from stack.layout import StackAddresses
from tests.contract.column_values import COLUMNS, create_tables, fill
from tests.contract.legacy_places import DATABASES, Place, fresh_place
from tests.stack.captured import BOUND_S, captured

pytestmark = pytest.mark.stack

TABLES = ("documents", "strict")  # every column may be NULL in the first table, none in the second


async def records(stack: StackAddresses, topic: str, count: int) -> list[Received]:
    consumer = AIOKafkaConsumer(bootstrap_servers=stack.kafka, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        async with asyncio.timeout(BOUND_S):
            return [received(await consumer.getone()) for _ in range(count)]
    finally:
        await consumer.stop()


async def compared(
    place: Place, stack: StackAddresses, table: str, legacy: LegacyConnector, source: Collection
) -> tuple[list[tuple[str, str, str, str]], dict[str, int]]:
    """Return the values that capture and SQL read differently, and how often capture was sure of each column.

    A differing value is (id, column, by SQL, by capture). Each column is decoded separately, because one unsure column
    makes the whole row be read again.
    """
    rows = {row.id: row.content for row in await legacy.bulk.scan_range(None, None, 100_000)}
    described, wrong, sure = (
        legacy.table.description,
        list[tuple[str, str, str, str]](),
        dict.fromkeys(source.metadata, 0),
    )
    changes = await records(stack, f"{place.schema}.{place.schema}.{table}", len(rows))
    for name, kind in described.metadata.items():
        for record in changes:
            changed = decode_capture(record, "documents", source, replace(described, metadata={name: kind}), 1)
            assert changed is not None
            if changed.content is None:
                assert changed.incomplete
                continue
            sure[name] += 1
            read = rows[changed.id]
            for reported, value in (
                (changed.content.metadata[name], read.metadata[name]),
                (changed.content.text, read.text),
            ):
                if (type(reported), reported) != (type(value), value):
                    wrong.append((changed.id, name, repr(value), repr(reported)))
    return wrong, sure


@pytest.mark.parametrize("count", [30, pytest.param(1000, marks=pytest.mark.long)])
@pytest.mark.parametrize("connector", DATABASES)
async def test_every_value_of_every_column_type_is_reported_as_sql_reads_it_or_read_again(
    connector: Connector, count: int, stack: StackAddresses
) -> None:
    rng = random.Random(count)
    async with fresh_place(connector, stack) as place:
        await create_tables(place)
        await fill(place, TABLES, 1, count, rng)
        async with captured(place, stack, TABLES):
            for table in TABLES:
                total = (await place.fetch(f"SELECT count(*) FROM {place.schema}.{table}"))[0][0]
                await records(stack, f"{place.schema}.{place.schema}.{table}", total)  # the snapshot is over
            await fill(place, TABLES, 1_000_000, count, rng)
            for table in TABLES:
                names = tuple(COLUMNS[connector])
                collection = place.collection(
                    table=f"{place.schema}.{table}", text=("body",), metadata=names, tenant=None
                )
                legacy = await open_legacy("documents", collection, place.dsn)
                try:
                    wrong, sure = await compared(place, stack, table, legacy, collection)
                    assert wrong == []
                    assert {name for name, times in sure.items() if times < count // 2} == set()
                finally:
                    await legacy.close()
