"""The contract of `Bus`, for the in-memory bus and for the aiokafka bus on a real broker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
from confluent_kafka import Producer

from connectors.errors import Misconfigured, Refused, StoreUnavailable
from connectors.kafka import reader
from connectors.kafka.admin import apply, delete_topics
from connectors.kafka.bus import AiokafkaBus
from connectors.memory.bus import MemoryBus
from connectors.ports import Bus
from schemas.records import Outgoing, Received
from schemas.settings import Kafka
from stack.layout import StackAddresses
from topics.provisioning import Action, DesiredTopic, Widening

PARTITIONS = 4
MAX_RECORD_BYTES = 1024 * 1024


@dataclass
class Rig:
    """A bus, a topic of the test's own, and a way to read the topic."""

    bus: Bus
    topic: str
    bootstrap: str | None = None
    close: Callable[[], object] = field(default=lambda: None)

    async def records(self) -> list[Received]:
        if isinstance(self.bus, MemoryBus):
            return self.bus.records(self.topic)
        assert self.bootstrap is not None
        found = [record async for record in reader.read_topic(self.bootstrap, self.topic)]
        return sorted(found, key=lambda record: (record.partition, record.offset))


async def create_topic(bootstrap: str, max_message_bytes: int = MAX_RECORD_BYTES) -> str:
    name = f"test.bus.{uuid4().hex}"
    config = {"max.message.bytes": str(max_message_bytes)}
    topic = DesiredTopic(name, PARTITIONS, 1, config, Widening.FREE, "a test")
    await apply(bootstrap, [Action("create", topic, "test", PARTITIONS, config)])
    return name


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.stack)])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    if request.param == "memory":
        topic = "test.bus"
        yield Rig(MemoryBus({topic: PARTITIONS}, kafka=Kafka(max_record_bytes=MAX_RECORD_BYTES)), topic)
        return
    addresses: StackAddresses = request.getfixturevalue("stack")
    topic = await create_topic(addresses.kafka)
    bus = kafka_bus(addresses)
    yield Rig(bus, topic, addresses.kafka)
    await bus.close()
    await delete_topics(addresses.kafka, [topic])


def kafka_bus(addresses: StackAddresses) -> AiokafkaBus:
    return AiokafkaBus(Kafka(bootstrap=addresses.kafka, max_record_bytes=MAX_RECORD_BYTES), timeout_s=6.0)


async def test_key_value_and_headers_arrive_as_they_were(rig: Rig) -> None:
    headers = (("ce_id", b"1"), ("empty", b""), ("ce_id", b"again"))
    await rig.bus.publish(
        [
            Outgoing(rig.topic, "collection/ключ".encode(), b"\x00\xff", headers),
            Outgoing(rig.topic, b"collection/deleted", None),
            Outgoing(rig.topic, None, b"no key"),
        ]
    )
    found = {(record.key, record.value, record.headers) for record in await rig.records()}
    assert found == {
        ("collection/ключ".encode(), b"\x00\xff", headers),
        (b"collection/deleted", None, ()),
        (None, b"no key", ()),
    }


async def test_records_of_one_key_keep_their_order_over_many_calls(rig: Rig) -> None:
    keys = [f"docs/{number}".encode() for number in range(17)]
    sent = [Outgoing(rig.topic, keys[number % 17], str(number).encode()) for number in range(500)]
    for begin in range(0, 500, 100):
        await rig.bus.publish(sent[begin : begin + 100])
    records = await rig.records()
    for key in keys:
        of_key = [record for record in records if record.key == key]
        assert len({record.partition for record in of_key}) == 1
        assert [record.value for record in of_key] == [record.value for record in sent if record.key == key]


async def test_offsets_of_a_partition_count_up_from_zero(rig: Rig) -> None:
    await rig.bus.publish([Outgoing(rig.topic, str(number).encode(), b"") for number in range(100)])
    records = await rig.records()
    for partition in range(PARTITIONS):
        offsets = [record.offset for record in records if record.partition == partition]
        assert offsets == list(range(len(offsets)))


async def test_publishing_nothing_is_allowed(rig: Rig) -> None:
    await rig.bus.publish([])
    assert await rig.records() == []


async def test_callers_at_the_same_time_lose_and_double_nothing(rig: Rig) -> None:
    async def caller(name: int) -> None:
        for call in range(5):
            batch = [Outgoing(rig.topic, f"{name}".encode(), f"{name}/{call}/{n}".encode()) for n in range(20)]
            await rig.bus.publish(batch)

    await asyncio.gather(*(caller(name) for name in range(8)))
    records = await rig.records()
    expected = [f"{name}/{call}/{n}".encode() for name in range(8) for call in range(5) for n in range(20)]
    assert sorted(record.value or b"" for record in records) == sorted(expected)
    for name in range(8):
        mine = [record.value for record in records if record.key == str(name).encode()]
        assert mine == [value for value in expected if value.startswith(f"{name}/".encode())]


async def test_a_record_over_the_limit_is_refused_before_any_of_its_call_is_published(rig: Rig) -> None:
    small, large = Outgoing(rig.topic, b"a", b"small"), Outgoing(rig.topic, b"a", b"x" * MAX_RECORD_BYTES)
    with pytest.raises(Refused, match="takes"):
        await rig.bus.publish([small, large])
    assert await rig.records() == []
    await rig.bus.publish([small])
    assert [record.value for record in await rig.records()] == [b"small"]


async def test_a_record_just_below_the_limit_is_taken(rig: Rig) -> None:
    value = random.Random(1).randbytes(MAX_RECORD_BYTES - 200)
    await rig.bus.publish([Outgoing(rig.topic, b"a", value)])
    assert [record.value for record in await rig.records()] == [value]


async def test_a_call_larger_than_what_may_be_in_flight_is_published_whole(rig: Rig) -> None:
    values = [bytes([number]) * 900_000 for number in range(12)]
    await rig.bus.publish([Outgoing(rig.topic, b"a", value) for value in values])
    assert [record.value for record in await rig.records()] == values


async def test_a_record_without_key_and_value_is_refused(rig: Rig) -> None:
    with pytest.raises(Refused):
        await rig.bus.publish([Outgoing(rig.topic, None, None)])


async def test_a_topic_that_does_not_exist_is_named(rig: Rig) -> None:
    with pytest.raises(Misconfigured, match=r"no-such-topic.*topics apply"):
        await rig.bus.publish([Outgoing("no-such-topic", b"a", b"b")])
    await rig.bus.publish([Outgoing(rig.topic, b"a", b"b")])
    assert len(await rig.records()) == 1


@pytest.mark.stack
async def test_both_adapters_put_the_same_records_at_the_same_places(stack: StackAddresses) -> None:
    topic = await create_topic(stack.kafka)
    real, memory = kafka_bus(stack), MemoryBus({topic: PARTITIONS})
    seeded = random.Random(7)
    batch = [Outgoing(topic, seeded.randbytes(seeded.randint(1, 40)), seeded.randbytes(10)) for _ in range(300)]
    for bus in (real, memory):
        await bus.publish(batch)
    found = {(r.partition, r.offset, r.key, r.value) async for r in reader.read_topic(stack.kafka, topic)}
    assert found == {(r.partition, r.offset, r.key, r.value) for r in memory.records(topic)}
    await real.close()
    await delete_topics(stack.kafka, [topic])


@pytest.mark.stack
async def test_another_client_puts_a_key_into_the_same_partition(stack: StackAddresses) -> None:
    topic = await create_topic(stack.kafka)
    keys = [f"collection/{number}-ü".encode() for number in range(50)]
    other = Producer({"bootstrap.servers": stack.kafka, "partitioner": "murmur2_random"})
    for key in keys:
        other.produce(topic, key=key, value=b"other")
    assert other.flush(10) == 0
    bus = kafka_bus(stack)
    await bus.publish([Outgoing(topic, key, b"ours") for key in keys])
    await bus.close()
    partitions: dict[bytes, set[int]] = {}
    async for record in reader.read_topic(stack.kafka, topic):
        partitions.setdefault(record.key or b"", set()).add(record.partition)
    assert len(partitions) == len(keys)
    assert all(len(found) == 1 for found in partitions.values())
    await delete_topics(stack.kafka, [topic])


@pytest.mark.stack
async def test_after_a_refusal_of_the_broker_the_same_partition_can_be_written(stack: StackAddresses) -> None:
    topic = await create_topic(stack.kafka, max_message_bytes=1000)
    bus = kafka_bus(stack)
    await bus.publish([Outgoing(topic, b"a", b"before")])
    with pytest.raises(Refused, match=topic):
        await bus.publish([Outgoing(topic, b"a", b"x" * 2000)])
    await bus.publish([Outgoing(topic, b"a", b"after")])
    assert [r.value async for r in reader.read_topic(stack.kafka, topic)] == [b"before", b"after"]
    await bus.close()
    await delete_topics(stack.kafka, [topic])


async def test_without_a_broker_the_store_is_unavailable() -> None:
    bus = AiokafkaBus(Kafka(bootstrap="127.0.0.1:1"), timeout_s=2.0)
    with pytest.raises(StoreUnavailable):
        await bus.open()
    with pytest.raises(StoreUnavailable):
        await bus.publish([Outgoing("any", b"a", b"b")])
    await bus.close()


async def test_a_server_that_never_answers_makes_the_store_unavailable() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    bus = AiokafkaBus(Kafka(bootstrap=f"127.0.0.1:{port}"), timeout_s=1.5)
    with pytest.raises(StoreUnavailable):
        await bus.publish([Outgoing("any", b"a", b"b")])
    await bus.close()
    server.close()


def stands(pid: int) -> bool:
    """Say whether every thread of a process is stopped: on a busy machine one may still answer for a moment."""
    threads = Path(f"/proc/{pid}/task").glob("*/stat")
    return all(thread.read_text(encoding="ascii").rpartition(")")[2].split()[0] == "T" for thread in threads)


@contextlib.contextmanager
def stopped_broker(addresses: StackAddresses) -> Iterator[None]:
    """Freeze the broker: it accepts only what the kernel buffers, and answers nothing."""
    port = int(addresses.kafka.rpartition(":")[2])
    listening = [
        process.pid
        for process in psutil.process_iter()
        for connection in _connections(process)
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    ]
    assert len(listening) == 1
    os.kill(listening[0], signal.SIGSTOP)
    while not stands(listening[0]):
        time.sleep(0.01)
    try:
        yield
    finally:
        os.kill(listening[0], signal.SIGCONT)


def _connections(process: psutil.Process) -> list[psutil._ntuples.pconn]:
    try:
        return process.net_connections("tcp")
    except psutil.Error:
        return []


@pytest.mark.stack
async def test_a_broker_that_stops_answering_delivers_nothing_late_behind_a_retry(stack: StackAddresses) -> None:
    topic = await create_topic(stack.kafka)
    bus = AiokafkaBus(Kafka(bootstrap=stack.kafka), timeout_s=2.0)
    await bus.publish([Outgoing(topic, b"a", b"1")])
    with stopped_broker(stack):
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await bus.publish([Outgoing(topic, b"a", b"2"), Outgoing(topic, b"a", b"3")])
    again = AiokafkaBus(Kafka(bootstrap=stack.kafka))
    await bus.close()
    await again.publish([Outgoing(topic, b"a", b"4")])
    values = [record.value async for record in reader.read_topic(stack.kafka, topic)]
    # Records on the wire when the broker froze may be there once. Records that waited in the client never are.
    assert values in ([b"1", b"4"], [b"1", b"2", b"3", b"4"])
    await again.close()
    await delete_topics(stack.kafka, [topic])
    ours = asyncio.current_task()
    assert [task for task in asyncio.all_tasks() if task is not ours and not task.done()] == []
