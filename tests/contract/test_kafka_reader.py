"""The finder searches given offset ranges on a real broker, and counts the records that it did not reach."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import uuid4

import pytest

from connectors.errors import StoreUnavailable
from connectors.kafka.admin import apply, delete_topics
from connectors.kafka.bus import AiokafkaBus
from connectors.kafka.headers import partition_of
from connectors.kafka.reader import finder
from schemas.records import Outgoing
from schemas.settings import Kafka
from stack.layout import StackAddresses
from topics.provisioning import Action, DesiredTopic, Widening

pytestmark = pytest.mark.stack
PARTITIONS, COUNT = 2, 2000
KEY = b"docs/7"
MINE = partition_of(KEY, PARTITIONS)


@dataclass
class Rig:
    """A topic in which every hundredth record has the same key. `ends` has the end offset of each partition."""

    bootstrap: str
    topic: str
    ends: dict[int, int]


@pytest.fixture(scope="module")
async def rig(stack: StackAddresses) -> AsyncIterator[Rig]:
    name = f"test.finding.{uuid4().hex[:8]}"
    topic = DesiredTopic(name, PARTITIONS, 1, {}, Widening.FREE, "a test")
    await apply(stack.kafka, [Action("create", topic, "test", PARTITIONS, {})])
    keys = [KEY if number % 100 == 0 else f"docs/other-{number}".encode() for number in range(COUNT)]
    bus = AiokafkaBus(Kafka(bootstrap=stack.kafka))
    await bus.publish([Outgoing(name, key, str(number).encode()) for number, key in enumerate(keys)])
    await bus.close()
    ends = {number: sum(partition_of(key, PARTITIONS) == number for key in keys) for number in range(PARTITIONS)}
    yield Rig(stack.kafka, name, ends)
    await delete_topics(stack.kafka, [name])


async def test_every_record_of_a_key_is_found_and_nothing_else(rig: Rig) -> None:
    async with finder(rig.bootstrap) as search:
        whole = {(rig.topic, number): (0, end) for number, end in rig.ends.items()}
        found = await search.search(whole, lambda record: record.key == KEY, 30)
        assert [int(record.value or b"") for record in found.records] == list(range(0, COUNT, 100))
        assert {record.partition for record in found.records} == {MINE}
        assert (found.read, found.unread) == (COUNT, 0)


async def test_only_the_given_offsets_are_looked_at(rig: Rig) -> None:
    async with finder(rig.bootstrap) as search:
        piece = {(rig.topic, MINE): (10, 110)}
        found = await search.search(piece, lambda _: True, 30)
        assert [record.offset for record in found.records] == list(range(10, 110))
        assert found.read == 100
        nothing = await search.search({(rig.topic, MINE): (5, 5)}, lambda _: True, 30)
        assert (nothing.records, nothing.read, nothing.unread) == ((), 0, 0)
        single = await search.search({(rig.topic, MINE): (7, 8)}, lambda _: True, 30)
        assert [record.offset for record in single.records] == [7]


async def test_what_was_not_reached_in_time_is_counted(rig: Rig) -> None:
    async with finder(rig.bootstrap) as search:
        found = await search.search({(rig.topic, MINE): (0, rig.ends[MINE])}, lambda _: True, 0.0)
        assert (found.records, found.unread) == ((), rig.ends[MINE])


async def test_brokers_that_are_not_there_are_unavailable() -> None:
    with pytest.raises(StoreUnavailable):
        async with finder("127.0.0.1:1"):
            pytest.fail("connected to nobody")
