"""What Debezium delivers from both databases on the session's stack.

The connectors use the configuration of `connectors.debezium.configuration`.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import aiomysql
import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from connectors.debezium.configuration import mariadb_connector, postgres_connector
from connectors.errors import ConnectError
from connectors.kafka.connect import ConnectClient
from connectors.sql.postgres.slots import SlotPlace, slot_place
from stack.layout import StackAddresses
from tests.stack.capture_topics import capture_topics
from tests.stack.tools import mariadb_arguments

pytestmark = pytest.mark.stack

_BOUND_S = 40.0


@pytest.fixture
async def connect(stack: StackAddresses) -> AsyncIterator[ConnectClient]:
    async with ConnectClient(stack.connect) as client:
        yield client


@pytest.fixture
async def name(stack: StackAddresses) -> AsyncIterator[str]:
    """A name for the table, connector, slot and topics of one test. Connector and slot are removed at the end."""
    name = f"t{uuid.uuid4().hex[:12]}"
    yield name
    async with ConnectClient(stack.connect) as client:
        await client.delete_with_offsets(name)
    connection = await asyncpg.connect(stack.postgres)
    try:
        slots = "SELECT count(pg_drop_replication_slot(slot_name)) FROM pg_replication_slots WHERE slot_name = $1"
        await connection.fetchval(slots, name)
        await connection.execute(f"DROP PUBLICATION IF EXISTS {name}; DROP TABLE IF EXISTS {name}")
    finally:
        await connection.close()


async def provide(stack: StackAddresses, topics: tuple[str, ...]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.kafka)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 1, 1) for topic in topics])
    finally:
        await admin.close()


async def read(stack: StackAddresses, topic: str, count: int) -> list[tuple[Any, Any]]:
    """Read the first records of a topic as (key, value). Fail if they do not come."""
    consumer = AIOKafkaConsumer(bootstrap_servers=stack.kafka, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        records = [await asyncio.wait_for(consumer.getone(), _BOUND_S) for _ in range(count)]
    finally:
        await consumer.stop()
    return [(json.loads(r.key), json.loads(r.value) if r.value is not None else None) for r in records]


def summary(records: list[tuple[Any, Any]]) -> list[tuple[Any, ...]]:
    """Return (id, op, text before, text after) for each change, and (id, None) for a tombstone."""
    rows: list[tuple[Any, ...]] = []
    for key, value in records:
        if value is None:
            rows.append((key["id"], None))
        else:
            texts = ((value[side] or {}).get("body") for side in ("before", "after"))
            rows.append((key["id"], value["op"], *texts))
    return rows


CHANGES = [
    (1, "r", None, "first"),
    (2, "c", None, "second"),
    (2, "u", "second", "changed"),
    (2, "d", "changed", None),
    (2, None),
]


async def test_postgres_rows_and_changes_arrive_with_before_after_and_sequence(
    stack: StackAddresses, connect: ConnectClient, name: str
) -> None:
    table = f"public.{name}"
    database = await asyncpg.connect(stack.postgres)
    await database.execute(
        f"CREATE TABLE {name} (id bigint PRIMARY KEY, body text, price numeric(12,3), at timestamptz, "
        f"embedding vector(3), raw bytea); ALTER TABLE {name} REPLICA IDENTITY FULL"
    )
    row = f"INSERT INTO {name} VALUES ($1, $2, 12.5, '2026-01-02 03:04:05.678901+02', '[1,2.5,-3]', '\\x00ff10')"
    await database.execute(row, 1, "first")
    await provide(stack, capture_topics(name, [table]))
    await connect.put_config(name, postgres_connector(name, stack.postgres, name, [table], slot=name, publication=name))
    await connect.wait_running(name, _BOUND_S)
    await read(stack, f"{name}.{table}", 1)
    await database.execute(row, 2, "second")
    await database.execute(f"UPDATE {name} SET body = 'changed' WHERE id = 2")
    await database.execute(f"DELETE FROM {name} WHERE id = 2")
    await database.close()

    records = await read(stack, f"{name}.{table}", len(CHANGES))
    assert summary(records) == CHANGES
    values = [value for _, value in records if value is not None]
    row_columns = values[0]["after"]
    assert row_columns["price"] == "12.500"
    assert row_columns["at"] == "2026-01-02T01:04:05.678901Z"
    assert row_columns["embedding"] == [1.0, 2.5, -3.0]
    assert row_columns["raw"] == "AP8Q"
    sequences = [json.loads(value["source"]["sequence"]) for value in values]
    assert sequences[0][0] is None
    positions = [int(change) for _, change in sequences]
    # Snapshot rows have the position at which the stream begins.
    assert positions[0] <= positions[1]
    assert positions[1:] == sorted(set(positions[1:]))
    assert values[2]["before"]["embedding"] == [1.0, 2.5, -3.0]


async def test_postgres_values_that_did_not_change_arrive_whole_though_its_log_leaves_them_out(
    stack: StackAddresses, connect: ConnectClient, name: str
) -> None:
    table, key, text = f"public.{name}", "k" * 400, "t" * 4000
    database = await asyncpg.connect(stack.postgres)
    await database.execute(
        f"CREATE TABLE {name} (id text PRIMARY KEY, n integer, body text, raw bytea, digits numeric, doc json, "
        f"more jsonb, embedding vector(600)) WITH (toast_tuple_target = 128); ALTER TABLE {name} "
        "REPLICA IDENTITY FULL, ALTER id SET STORAGE EXTERNAL, ALTER body SET STORAGE EXTERNAL, "
        "ALTER raw SET STORAGE EXTERNAL, ALTER digits SET STORAGE EXTERNAL, ALTER doc SET STORAGE EXTERNAL, "
        "ALTER more SET STORAGE EXTERNAL"
    )
    await provide(stack, capture_topics(name, [table]))
    await connect.put_config(name, postgres_connector(name, stack.postgres, name, [table], slot=name, publication=name))
    await connect.wait_running(name, _BOUND_S)
    await slot_until_there(stack, name)
    await database.execute(
        f"INSERT INTO {name} VALUES ($1, 1, $2, $2::text::bytea, repeat('7', 900)::numeric, to_json($2), "
        "to_jsonb($2), (SELECT array_agg(i) FROM generate_series(1, 600) i)::vector)",
        key,
        text,
    )
    await database.execute(f"UPDATE {name} SET n = 2")
    await database.close()
    (_, inserted), (changed_key, changed) = await read(stack, f"{name}.{table}", 2)
    assert (changed["op"], changed_key) == ("u", {"id": key})
    assert changed["after"] == {**inserted["after"], "n": 2}
    assert (changed["after"]["body"], len(changed["after"]["embedding"])) == (text, 600)
    assert "unavailable" not in str(changed)


async def test_mariadb_rows_and_changes_arrive_with_before_after_and_binlog_position(
    stack: StackAddresses, connect: ConnectClient, name: str
) -> None:
    assert stack.mariadb is not None
    table = f"crossfade.{name}"
    database = await aiomysql.connect(**mariadb_arguments(stack.mariadb), autocommit=True)
    cursor = await database.cursor()
    await cursor.execute(
        f"CREATE TABLE {name} (id bigint PRIMARY KEY, body longtext, price decimal(12,3), big bigint unsigned, "
        "raw blob, crossfade_version bigint NULL INVISIBLE)"
    )
    row = f"INSERT INTO {name} VALUES (%s, %s, 12.5, 18446744073709551615, x'00ff10')"
    await cursor.execute(row, (1, "first"))
    await provide(stack, capture_topics(name, [table]))
    config = mariadb_connector(name, stack.mariadb, name, [table], bootstrap_servers=stack.kafka)
    await connect.put_config(name, config)
    await connect.wait_running(name, _BOUND_S)
    await read(stack, f"{name}.{table}", 1)
    await cursor.execute(row, (2, "second"))
    await cursor.execute(f"UPDATE {name} SET body = 'changed' WHERE id = 2")
    await cursor.execute(f"DELETE FROM {name} WHERE id = 2")

    records = await read(stack, f"{name}.{table}", len(CHANGES))
    assert summary(records) == CHANGES
    values = [value for _, value in records if value is not None]
    assert values[0]["after"] == {
        "id": 1,
        "body": "first",
        "price": "12.500",
        "big": 18446744073709551615,
        "raw": "AP8Q",
        "crossfade_version": None,
    }
    positions = [(source["file"], source["pos"], source["row"]) for source in (value["source"] for value in values)]
    assert positions == sorted(set(positions))
    await cursor.execute(f"DROP TABLE {name}")
    database.close()


async def test_a_slot_follows_a_busy_database_whose_captured_tables_are_quiet(
    stack: StackAddresses, connect: ConnectClient, name: str
) -> None:
    table = f"public.{name}"
    database = await asyncpg.connect(stack.postgres)
    await database.execute(f"CREATE TABLE {name} (id bigint PRIMARY KEY)")
    await provide(stack, capture_topics(name, [table]))
    config = postgres_connector(name, stack.postgres, name, [table], slot=name, publication=name, heartbeat_ms=500)
    await connect.put_config(name, config)
    await connect.wait_running(name, _BOUND_S)
    await slot_reaches(stack, name, (await slot_until_there(stack, name)).now)
    await database.execute(f"CREATE TABLE {name}_other AS SELECT repeat('x', 1000) FROM generate_series(1, 5000)")
    await database.execute(f"SELECT pg_logical_emit_message(true, 'application', 'its own'); DROP TABLE {name}_other")
    written = await database.fetchval("SELECT pg_current_wal_lsn()::text")
    await slot_reaches(stack, name, written)
    await database.execute(f"INSERT INTO {name} VALUES (1)")
    await database.close()
    assert summary(await read(stack, f"{name}.{table}", 1)) == [(1, "c", None, None)]


async def slot_until_there(stack: StackAddresses, slot: str) -> SlotPlace:
    async with asyncio.timeout(_BOUND_S):
        while True:
            place = await slot_place(stack.postgres, slot)
            if place is not None:
                return place
            await asyncio.sleep(0.1)


async def slot_reaches(stack: StackAddresses, slot: str, position: str) -> None:
    """Wait until the slot's reader has confirmed the server's log up to a position."""
    async with asyncio.timeout(_BOUND_S):
        while True:
            place = await slot_place(stack.postgres, slot)
            if place is not None and place.confirmed is not None and number(place.confirmed) >= number(position):
                return
            await asyncio.sleep(0.1)


def number(lsn: str) -> tuple[int, int]:
    high, _, low = lsn.partition("/")
    return int(high, 16), int(low, 16)


async def test_the_same_configuration_again_restarts_nothing(
    stack: StackAddresses, connect: ConnectClient, name: str
) -> None:
    table = f"public.{name}"
    database = await asyncpg.connect(stack.postgres)
    await database.execute(f"CREATE TABLE {name} (id bigint PRIMARY KEY)")
    await provide(stack, capture_topics(name, [table]))
    config = postgres_connector(name, stack.postgres, name, [table], slot=name, publication=name)
    await connect.put_config(name, config)
    await connect.wait_running(name, _BOUND_S)
    reader = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1 AND active"
    before = None
    while before is None:  # the connector reports RUNNING a moment before it reads the slot
        before = await database.fetchval(reader, name)
    await connect.put_config(name, config)
    await connect.wait_running(name, _BOUND_S)
    assert await database.fetchval(reader, name) == before
    await database.close()


async def test_a_configuration_that_cannot_work_is_refused_with_the_reason(
    stack: StackAddresses, connect: ConnectClient, name: str
) -> None:
    config = postgres_connector(name, stack.postgres, name, [f"public.{name}"], slot=name, publication=name)
    with pytest.raises(ConnectError, match="password authentication failed"):
        await connect.put_config(name, {**config, "database.password": "wrong"})
    assert (await connect.status(name)).state == "MISSING"


async def test_a_connector_whose_database_side_is_gone_says_why_it_failed(
    stack: StackAddresses, connect: ConnectClient, name: str
) -> None:
    await provide(stack, capture_topics(name, [f"public.{name}"]))
    config = postgres_connector(name, stack.postgres, name, [f"public.{name}"], slot=name, publication=name)
    # There is no table of that name, and the publication must not be created: the task cannot start.
    await connect.put_config(name, {**config, "publication.autocreate.mode": "disabled", "errors.max.retries": "0"})
    async with asyncio.timeout(_BOUND_S):
        while True:  # the task may be reported as running before it fails
            if (await connect.status(name)).failed:
                break
            await asyncio.sleep(0.05)
    with pytest.raises(ConnectError, match=r"failed: .*[Pp]ublication"):
        await connect.wait_running(name, _BOUND_S)
    failure = (await connect.status(name)).failure
    assert failure is not None
    assert "\n" not in failure


async def test_connect_that_is_not_there_is_a_message_and_not_a_traceback() -> None:
    async with ConnectClient("http://127.0.0.1:9") as client:
        with pytest.raises(ConnectError, match="does not answer"):
            await client.names()
