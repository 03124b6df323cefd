"""Transactions on a real broker: all records or none, and only the publisher that opened last may publish."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from connectors.errors import StoreUnavailable, TransientError
from connectors.kafka.admin import existing_topics, provision
from connectors.kafka.reader import read_topic
from connectors.kafka.transactions import TransactionalBus
from schemas.records import Outgoing
from stack.layout import StackAddresses
from topics.provisioning import DesiredTopic, Widening, plan

pytestmark = pytest.mark.stack


class Bench:
    """A topic of its own, and publishers of one id."""

    def __init__(self, bootstrap: str, resources: AsyncExitStack) -> None:
        self.bootstrap, self._resources = bootstrap, resources
        self.topic = f"transactions-{uuid.uuid4().hex[:8]}"

    def publisher(self, **options: float) -> TransactionalBus:
        bus = TransactionalBus(self.bootstrap, self.topic, **options)
        self._resources.push_async_callback(bus.close)
        return bus

    def record(self, value: str, topic: str | None = None) -> Outgoing:
        return Outgoing(topic or self.topic, b"key", value.encode(), (("name", b"header"),))

    async def values(self) -> list[str]:
        return [(record.value or b"").decode() async for record in read_topic(self.bootstrap, self.topic)]


@pytest.fixture
async def bench(stack: StackAddresses) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as resources:
        found = Bench(stack.kafka, resources)
        wanted = [DesiredTopic(found.topic, 1, 1, {}, Widening.FREE, "a test")]
        await provision(stack.kafka, plan(wanted, await existing_topics(stack.kafka, [found.topic])))
        yield found


async def test_records_are_published_together_and_in_order(bench: Bench) -> None:
    bus = bench.publisher()
    await bus.take_over()
    await bus.publish([bench.record("a"), bench.record("b")])
    await bus.publish([bench.record("c")])
    assert await bench.values() == ["a", "b", "c"]


async def test_the_publisher_that_opened_last_fences_the_others(bench: Bench) -> None:
    first, second = bench.publisher(), bench.publisher()
    await first.take_over()
    await first.publish([bench.record("a")])
    await second.take_over()
    with pytest.raises(TransientError):
        await first.publish([bench.record("lost")])
    await second.publish([bench.record("b")])
    await first.take_over()
    await first.publish([bench.record("c")])
    assert await bench.values() == ["a", "b", "c"]


async def test_a_record_that_fails_takes_the_others_with_it(bench: Bench) -> None:
    bus = bench.publisher(timeout_s=3.0)
    await bus.take_over()
    with pytest.raises((StoreUnavailable, TransientError)):
        await bus.publish([bench.record("lost"), bench.record("nowhere", topic=f"{bench.topic}-missing")])
    await bus.take_over()
    await bus.publish([bench.record("a")])
    assert await bench.values() == ["a"]


async def test_a_publisher_that_was_never_opened_or_is_closed_publishes_nothing(bench: Bench) -> None:
    bus = bench.publisher()
    with pytest.raises(TransientError):
        await bus.publish([bench.record("lost")])
    await bus.take_over()
    await bus.close()
    with pytest.raises(TransientError):
        await bus.publish([bench.record("lost")])
    assert await bench.values() == []


async def test_without_a_broker_it_says_so() -> None:
    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(TransactionalBus("127.0.0.1:1", "nobody", timeout_s=2.0).take_over(), 30)
