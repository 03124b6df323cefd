"""Records of every kind that a broker accepts, sent through intake.

Each record, identified by partition and offset, is used, becomes a dead letter, or is aborted.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pytest
from confluent_kafka import Producer

from agents.intake import intake, refused_submission
from connectors.kafka import offsets, reader
from connectors.kafka.admin import delete_topics
from connectors.kafka.bus import AiokafkaBus
from migration.context import HandlerContext
from schemas.dead_letters import SUFFIX
from schemas.records import Outgoing
from schemas.settings import Kafka
from stack.layout import StackAddresses
from tests.contract.consuming import all_committed, consuming, letters_of, make_topic, role_name
from tests.contract.foreign_batches import CODECS, batch_of, send
from tests.unit.agents.parts import World
from topics.catalogue import LOG, WRITTEN

pytestmark = pytest.mark.stack
PARTITIONS = 3
LIMIT = 1024 * 1024
Place = tuple[int, int]
Record = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]


def event(chance: random.Random, **changes: Any) -> bytes:
    data = {"collection": "docs", "id": str(chance.randrange(500)), "text": "some words"}
    return orjson.dumps(data | changes)


def structured(chance: random.Random, **changes: Any) -> bytes:
    envelope = {"specversion": "1.0", "id": "e", "source": "s", "type": "crossfade.document.submitted.v1"}
    return orjson.dumps({**envelope, "data": orjson.loads(event(chance)), **changes})


def record(chance: random.Random) -> tuple[Record, str]:
    """Return a record and its expected outcome."""
    odd: list[tuple[str, bytes | None]] = chance.choice(
        [[], [("ce_id", b"e1")], [("twice", b"1"), ("twice", None)], [(f"h{n}", bytes(9)) for n in range(300)]]
    )
    mode: list[tuple[str, bytes | None]] = [("content-type", b"application/cloudevents+json; charset=utf-8")]
    used: list[Record] = [
        (b"docs/1", event(chance), odd),
        (None, event(chance), odd),
        (b"\xff\xfe", event(chance), odd),
        (bytes(chance.randrange(100_000)), event(chance), odd),
        (b"docs/2", None, odd),
        (b"any", structured(chance), [*odd, *mode]),
    ]
    refused: list[Record] = [
        (b"docs/1", b"{" + chance.randbytes(20), odd),
        (b"docs/1", chance.randbytes(chance.randrange(60_000)), odd),
        (b"docs/1", b"", odd),
        (None, None, odd),
        (b"\xff\xfe", None, odd),
        (b"k" * 60_000, None, odd),
        (b"docs/1", event(chance, collection="unknown"), odd),
        (b"docs/1", event(chance, more=1), odd),
        (b"docs/1", event(chance, text="x" * chance.choice([101, 500_000])), odd),
        (b"docs/1", event(chance, metadata={"year": "x"}), odd),
        (b"docs/1", event(chance), [("ce_type", b"another")]),
        (b"docs/1", event(chance), [("ce_id", bytes(2000))]),
        (b"any", structured(chance, specversion="2.0"), [*odd, *mode]),
        (b"any", structured(chance, data=None, data_base64="?"), [*odd, *mode]),
        (
            b"any",
            b'{"specversion":"1.0","id":"e","source":"s","type":"t","data":' + b"[" * 900 + b"]" * 900 + b"}",
            mode,
        ),
    ]
    return (chance.choice(used), "used") if chance.random() < 0.7 else (chance.choice(refused), "letter")


@dataclass
class Foreign:
    """Producers of every codec, and the expected outcome of each of their records, by partition and offset."""

    bootstrap: str
    topic: str
    chance: random.Random
    expected: dict[Place, str] = field(default_factory=dict)

    def producer(self, **options: Any) -> Producer:
        common = {"bootstrap.servers": self.bootstrap, "linger.ms": 5, "message.max.bytes": 2 * LIMIT}
        return Producer(common | options)

    def send(self, producer: Producer, *, aborted: bool) -> None:
        (key, value, headers), becomes = record(self.chance)

        def done(error: Any, message: Any) -> None:
            assert error is None, error
            self.expected[message.partition(), message.offset()] = "aborted" if aborted else becomes

        partition = self.chance.randrange(PARTITIONS)
        named: list[tuple[str, str | bytes | None]] = [*headers]
        producer.produce(self.topic, value, key, partition=partition, headers=named, on_delivery=done)
        producer.poll(0)

    def plain(self, count: int) -> None:
        producers = [self.producer(**{"compression.type": codec}) for codec in CODECS]
        for number in range(count):
            self.send(self.chance.choice(producers), aborted=False)
            if number % 1000 == 999:
                assert not any(one.flush(30) for one in producers)
        assert not any(one.flush(30) for one in producers)

    def transactions(self, count: int) -> None:
        codecs = [codec for codec in CODECS if codec != "none"]
        producers = [self.producer(**{"transactional.id": f"{self.topic}/{c}", "compression.type": c}) for c in codecs]
        for one in producers:
            one.init_transactions(30)
        while count > 0:
            producer, aborted = self.chance.choice(producers), self.chance.random() < 0.4
            many = self.chance.randrange(1, 40)
            count -= many
            producer.begin_transaction()
            for _ in range(many):
                self.send(producer, aborted=aborted)
            assert producer.flush(30) == 0
            producer.abort_transaction(30) if aborted else producer.commit_transaction(30)

    async def bombs(self) -> None:
        """Send batches that unpack to more than is accepted, and smaller ones with a record that no topic takes."""
        huge = b"a" * (2 * LIMIT)
        for codec in CODECS:
            if codec == "none":
                continue
            end = (await offsets.end_offsets(self.bootstrap, [self.topic]))[self.topic][0]
            some = batch_of([(b"docs/1", event(self.chance), ()), (b"docs/1", huge, ())], codec)
            # Snappy compresses only to a twentieth.
            many = 0 if codec == "snappy" else 40
            bomb = [batch_of([(b"docs/1", huge, ())] * many, codec)] if many else []
            assert set(await send(self.bootstrap, self.topic, *bomb, some)) == {0}
            self.expected |= {(0, end + number): "letter" for number in range(many + 2)}
            self.expected[0, end + many] = "used"


class Elsewhere:
    """A bus that publishes the output of intake to topics of the test's own."""

    def __init__(self, bus: AiokafkaBus, topic: str) -> None:
        self._bus, self._topics = bus, {LOG: f"{topic}.log", WRITTEN: f"{topic}.written"}

    async def publish(self, records: Sequence[Outgoing]) -> None:
        await self._bus.publish([one._replace(topic=self._topics[one.topic]) for one in records])


@pytest.fixture
async def topic(stack: StackAddresses) -> AsyncIterator[str]:
    name = f"test.fuzzed.{uuid4().hex}"
    every = [name, f"{name}.log", f"{name}.written"]
    for one in every:
        await make_topic(stack.kafka, one, PARTITIONS, LIMIT)
    yield name
    await delete_topics(stack.kafka, [one + suffix for one in every for suffix in ("", SUFFIX)])


@pytest.mark.parametrize("count", [2_000, pytest.param(100_000, marks=[pytest.mark.long, pytest.mark.timeout(1800)])])
async def test_each_record_is_used_or_a_dead_letter_or_aborted(
    stack: StackAddresses, topic: str, tmp_path: Path, count: int
) -> None:
    foreign = Foreign(stack.kafka, topic, random.Random(count))
    await foreign.bombs()
    foreign.plain(count // 2)
    foreign.transactions(count - count // 2)
    kafka = Kafka(bootstrap=stack.kafka, max_record_bytes=LIMIT)
    world = await World().prepared()
    bus = AiokafkaBus(kafka)
    ctx = HandlerContext(lambda: 0, 1, world.ctx.telemetry, 100, kafka)
    handler = partial(intake, collections=world.collections, bus=Elsewhere(bus, topic), ctx=ctx)
    role = role_name()
    async with consuming(kafka, topic, handler, tmp_path, role, lost=partial(answer, topic, ctx)) as runner:
        await all_committed(kafka, role, topic, limit_s=60 + count / 100)
        assert runner.health.ended_by is None
    await bus.close()

    found: Counter[tuple[Place, str]] = Counter()
    async for entry in reader.read_topic(stack.kafka, f"{topic}.log"):
        _, partition, offset = (entry.header("ce_id") or "").split("/")
        found[(int(partition), int(offset)), "used"] += 1
    for letter in await letters_of(kafka, topic):
        for at in range(letter.offset - max(1, letter.unread) + 1, letter.offset + 1):
            found[(letter.partition, at), "letter"] += 1
    expected = Counter({(place, becomes): 1 for place, becomes in foreign.expected.items() if becomes != "aborted"})
    assert len(foreign.expected) >= count
    assert found - expected == Counter()
    assert expected - found == Counter()
    assert "aborted" in foreign.expected.values()


def answer(topic: str, ctx: HandlerContext, message: Any, error: Exception) -> list[Outgoing]:
    """Answer a producer as intake does, on a topic of the test's own."""
    return [one._replace(topic=f"{topic}.written") for one in refused_submission(message, error, ctx)]
