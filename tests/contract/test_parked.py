"""The offsets at which parked collections continue.

The broker keeps them. They hold the barrier of their collection, and records are read again from them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.structs import TopicPartition

from connectors.errors import RecordsExpired
from connectors.kafka.bus import AiokafkaBus
from connectors.kafka.cursors import KafkaCursors
from connectors.kafka.offsets import KafkaOffsets
from connectors.kafka.reader import read_again
from schemas.records import Outgoing
from schemas.settings import Kafka
from stack.layout import StackAddresses
from topics.catalogue import group_of

pytestmark = pytest.mark.stack


@pytest.fixture
async def topic(stack: StackAddresses) -> AsyncIterator[str]:
    name = f"test.parked.{uuid4().hex[:8]}"
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.kafka)
    await admin.start()
    await admin.create_topics([NewTopic(name, 1, 1)])
    bus = AiokafkaBus(Kafka(bootstrap=stack.kafka))
    await bus.open()
    await bus.publish([Outgoing(name, f"a/{n}".encode(), b"{}") for n in range(20)])
    yield name
    await bus.close()
    await admin.delete_topics([name])
    await admin.close()


async def test_what_is_parked_is_found_by_the_next_worker_until_it_is_not_parked_any_more(
    stack: StackAddresses, topic: str
) -> None:
    role, place = f"test{uuid4().hex[:8]}", (topic, 0)
    first, second = KafkaCursors(stack.kafka, role), KafkaCursors(stack.kafka, role)
    try:
        assert await first.load(["a", "b"]) == {}
        await first.park("a", {place: 3})
        await first.park("b", {place: 5})
        assert await second.load(["a", "b"]) == {"a": {place: 3}, "b": {place: 5}}
        await second.park("a", {place: 9})
        await first.unpark("b", {place: 7})
        assert await second.load(["a", "b"]) == {"a": {place: 9}}
    finally:
        await first.close()
        await second.close()


async def test_the_barrier_of_a_parked_collection_stands_where_it_goes_on(stack: StackAddresses, topic: str) -> None:
    role, place = f"test{uuid4().hex[:8]}", (topic, 0)
    cursors = KafkaCursors(stack.kafka, role)
    mine, others = (KafkaOffsets(stack.kafka, collection=name) for name in ("a", "b"))
    try:
        await cursors.park("a", {place: 4})
        assert await mine.committed(group_of(role)) == {place: 4}
        assert await others.committed(group_of(role)) == {}
        await cursors.unpark("a", {place: 8})
        assert await mine.committed(group_of(role)) == {}
    finally:
        for each in (cursors, mine, others):
            await each.close()


async def test_records_are_read_again_from_an_offset_in_bounded_chunks(stack: StackAddresses, topic: str) -> None:
    found: list[int] = []
    async with read_again(stack.kafka, {(topic, 0): 6}, limit=4) as chunks:
        async for chunk in chunks:
            assert len(chunk.records) <= 4
            found += [record.offset for record in chunk.records]
            assert chunk.following[topic, 0] == (found[-1] + 1 if found else 6)
            if len(found) == 14:
                break
    assert found == list(range(6, 20))


async def test_records_that_are_no_longer_kept_are_reported(stack: StackAddresses, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.kafka)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=10)})
    finally:
        await admin.close()
    with pytest.raises(RecordsExpired) as caught:
        async with read_again(stack.kafka, {(topic, 0): 6}):
            pass
    assert caught.value.kept == {(topic, 0): 10}
