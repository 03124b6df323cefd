"""For every type that a key may have, a row has the same id by snapshot, by live capture, and by SQL."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from connectors.debezium.changes import decode_capture
from connectors.kafka.headers import received
from connectors.sql.databases import open_legacy
from schemas.settings import Collection, Connector
from stack.layout import StackAddresses
from tests.contract.key_types import KEY_TYPES, KeyType
from tests.contract.legacy_places import DATABASES, Place, fresh_place
from tests.stack.captured import BOUND_S, captured

pytestmark = pytest.mark.stack
DRAWN = 12


def rows(kind: KeyType, table: str, values: list[str], connector: Connector) -> str:
    conflict = "ON CONFLICT DO NOTHING" if connector == "postgres" else "ON DUPLICATE KEY UPDATE w = w"
    listed = ", ".join(f"({value}, 'w/1 %', 'body')" for value in values)
    return f"INSERT INTO {table} (k, w, body) VALUES {listed} {conflict}"


async def make(place: Place, kinds: list[KeyType]) -> dict[str, tuple[KeyType, list[str]]]:
    """Create a table for each key type, with half of its rows; return the values to insert later."""
    made: dict[str, tuple[KeyType, list[str]]] = {}
    done: set[str] = set()
    for number, kind in enumerate(kinds):
        table = f"key{number}"
        before = [each.replace("{s}", place.schema) for each in kind.before if each not in done]
        done.update(kind.before)
        await place.execute(
            *before,
            f"CREATE TABLE {place.schema}.{table} (k {kind.declared.replace('{s}', place.schema)} NOT NULL, "
            f"w varchar(20) NOT NULL, body text, crossfade_version bigint, PRIMARY KEY (w, k))",
        )
        if place.connector == "postgres":
            await place.execute(f"ALTER TABLE {place.schema}.{table} REPLICA IDENTITY FULL")
        assert kind.draw is not None
        chance = random.Random(kind.name)
        values = [*kind.edges, *(kind.draw(chance) for _ in range(DRAWN))]
        await place.execute(rows(kind, f"{place.schema}.{table}", values[::2], place.connector))
        made[table] = (kind, values[1::2])
    return made


async def ids_of(stack: StackAddresses, place: Place, table: str, source: Collection) -> tuple[set[str], set[str]]:
    """Return the ids of a table's rows, by SQL and by capture."""
    legacy = await open_legacy("documents", source, place.dsn)
    try:
        read = set(await legacy.bulk.ids(None, None))
        description = legacy.table.description
    finally:
        await legacy.close()
    consumer = AIOKafkaConsumer(bootstrap_servers=stack.kafka, auto_offset_reset="earliest")
    await consumer.start()
    reported: set[str] = set()
    try:
        consumer.assign([TopicPartition(f"{place.schema}.{place.schema}.{table}", 0)])
        with suppress(TimeoutError):
            async with asyncio.timeout(BOUND_S):
                for _ in range(len(read)):
                    changed = decode_capture(received(await consumer.getone()), "documents", source, description, 1)
                    assert changed is not None
                    reported.add(changed.id)
    finally:
        await consumer.stop()
    return read, reported


@pytest.mark.parametrize("rare", [False, pytest.param(True, marks=pytest.mark.long)])
@pytest.mark.parametrize("connector", DATABASES)
async def test_an_id_is_the_same_whichever_way_its_row_comes(
    stack: StackAddresses, connector: Connector, *, rare: bool
) -> None:
    kinds = [kind for kind in KEY_TYPES[connector] if kind.refused is None and kind.rare == rare]
    wrong: dict[str, tuple[list[str], list[str]]] = {}
    async with fresh_place(connector, stack) as place:
        made = await make(place, kinds)
        async with captured(place, stack, list(made)):
            for table, (kind, later) in made.items():
                await place.execute(rows(kind, f"{place.schema}.{table}", later, connector))
            for table, (kind, _) in made.items():
                source = place.collection(
                    table=f"{place.schema}.{table}", key=("w", "k"), text=("body",), metadata=(), tenant=None
                )
                read, reported = await ids_of(stack, place, table, source)
                if read != reported:
                    wrong[kind.name] = (sorted(read - reported), sorted(reported - read))
    assert wrong == {}
