"""Every record that a broker accepts is used or kept as a dead letter, and its offset is committed.

No record ends a role.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import Producer

from agents.batch import Batch, Failure, Failures
from connectors.kafka import offsets, reader
from connectors.kafka.admin import delete_topics
from schemas.cloudevents import InvalidEvent
from schemas.dead_letters import SUFFIX
from schemas.settings import Kafka
from stack.layout import StackAddresses
from tests.contract.consuming import Desk, all_committed, consuming, letters_of, make_topic, role_name
from tests.contract.foreign_batches import CODECS, Headers, batch_of, send, with_checksum
from topics.provisioning import DEAD_LETTER_HEADER_BYTES

pytestmark = pytest.mark.stack
LIMIT = 4 * 1024 * 1024


@pytest.fixture
def kafka(stack: StackAddresses) -> Kafka:
    return Kafka(bootstrap=stack.kafka, max_record_bytes=LIMIT)


@pytest.fixture
async def topic(kafka: Kafka) -> AsyncIterator[str]:
    name = f"test.foreign.{uuid4().hex}"
    await make_topic(kafka.bootstrap or "", name, 1, LIMIT)
    yield name
    await delete_topics(kafka.bootstrap or "", [name, name + SUFFIX])


def producer(kafka: Kafka, **options: object) -> Producer:
    return Producer({"bootstrap.servers": kafka.bootstrap, "message.max.bytes": 64 * 1024 * 1024, **options})


async def test_records_of_every_codec_are_used(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    for codec in CODECS:
        foreign = producer(kafka, **{"compression.type": codec, "linger.ms": 50})
        for number in range(20):
            foreign.produce(topic, key=f"{codec}/{number}", value=b"{}" + b" " * 200)
        assert foreign.flush(20) == 0
    desk, role = Desk(), role_name()
    async with consuming(kafka, topic, desk, tmp_path, role):
        await all_committed(kafka, role, topic)
    assert [record.key for record in desk.taken] == [f"{codec}/{n}".encode() for codec in CODECS for n in range(20)]


async def test_aborted_transactions_are_never_used_and_their_offsets_are_committed(
    kafka: Kafka, topic: str, tmp_path: Path
) -> None:
    """The last offset is that of a marker, which no consumer sees: a group that waited for it would lag for ever."""
    foreign = producer(kafka, **{"transactional.id": topic})
    foreign.init_transactions(20)
    for number in range(6):
        foreign.begin_transaction()
        for part in range(3):
            foreign.produce(topic, key=f"{number}/{part}", value=b"{}")
        foreign.flush(20)
        foreign.abort_transaction(20) if number % 2 else foreign.commit_transaction(20)
    desk, role = Desk(), role_name()
    async with consuming(kafka, topic, desk, tmp_path, role):
        await all_committed(kafka, role, topic)
        foreign.begin_transaction()
        foreign.produce(topic, key="7/0", value=b"{}")
        foreign.abort_transaction(20)
        await all_committed(kafka, role, topic)
    committed = [f"{number}/{part}".encode() for number in (0, 2, 4) for part in range(3)]
    assert [record.key for record in desk.taken] == committed
    assert await letters_of(kafka, topic) == []
    assert [record.key async for record in reader.read_topic(kafka.bootstrap or "", topic)] == committed
    assert await read_again(kafka, topic) == committed


async def read_again(kafka: Kafka, topic: str) -> list[bytes | None]:
    """Return the keys that the lane of a parked collection reads, up to the end of the topic."""
    place, bootstrap = (topic, 0), kafka.bootstrap or ""
    end = (await offsets.end_offsets(bootstrap, [topic]))[topic][0]
    keys: list[bytes | None] = []
    async with reader.read_again(bootstrap, {place: 0}) as chunks:
        async for chunk in chunks:
            keys += [record.key for record in chunk.records]
            if chunk.following[place] >= end:
                break
    return keys


async def test_an_open_transaction_holds_nothing_up_that_is_before_it(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    plain, open_one = producer(kafka), producer(kafka, **{"transactional.id": topic})
    plain.produce(topic, key="before", value=b"{}")
    plain.flush(20)
    open_one.init_transactions(20)
    open_one.begin_transaction()
    open_one.produce(topic, key="open", value=b"{}")
    open_one.flush(20)
    plain.produce(topic, key="behind", value=b"{}")
    plain.flush(20)
    desk, role = Desk(), role_name()
    async with consuming(kafka, topic, desk, tmp_path, role):
        await all_committed(kafka, role, topic)
        assert [record.key for record in desk.taken] == [b"before"]
        open_one.commit_transaction(20)
        await all_committed(kafka, role, topic)
    assert [record.key for record in desk.taken] == [b"before", b"open", b"behind"]


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_a_bomb_becomes_a_dead_letter_and_the_records_behind_it_are_used(
    kafka: Kafka, topic: str, tmp_path: Path, codec: str
) -> None:
    bomb = batch_of([(b"bomb", b"a" * (70 * 1024 * 1024), ())], codec)
    assert await send(kafka.bootstrap or "", topic, bomb, batch_of([(b"behind", b"{}", ())])) == [0, 0]
    desk, role = Desk(), role_name()
    async with consuming(kafka, topic, desk, tmp_path, role):
        await all_committed(kafka, role, topic)
    (letter,) = await letters_of(kafka, topic)
    assert (letter.partition, letter.offset, letter.original.value) == (0, 0, with_offset(bomb, letter))
    assert "unpacks to more than" in letter.message
    assert [record.key for record in desk.taken] == [b"behind"]


def with_offset(batch: bytes, letter: object) -> bytes:
    """Return a batch as the broker stores it, with the partition leader's epoch."""
    return batch[:12] + b"\0\0\0\0" + batch[16:]


async def test_names_of_headers_need_not_be_text_and_keys_values_and_headers_may_be_absent(
    kafka: Kafka, topic: str, tmp_path: Path
) -> None:
    odd: list[tuple[bytes | None, bytes | None, Headers]] = [
        (b"a", b"{}", [("NAME", b"1"), ("twice", b"1"), ("twice", None)]),
        (None, b"{}", [("empty", None)]),
        (b"\xff\xfe", None, []),
        (None, None, []),
        (b"many", b"{}", [(f"h{number}", b"x") for number in range(20_000)]),
    ]
    batches = [
        with_checksum(batch_of(odd).replace(b"NAME", b"\xff\xfe\xfd\xfc")),
        batch_of([(b"behind", b"{}", [])], "zstd"),
    ]
    assert await send(kafka.bootstrap or "", topic, *batches) == [0, 0]
    desk, role = Desk(), role_name()
    async with consuming(kafka, topic, desk, tmp_path, role):
        await all_committed(kafka, role, topic)
    assert [record.key for record in desk.taken] == [b"a", None, b"\xff\xfe", None, b"many", b"behind"]
    assert desk.taken[0].headers == (("\\xff\\xfe\\xfd\\xfc", b"1"), ("twice", b"1"), ("twice", b""))
    assert len(desk.taken[4].headers) == 20_000


async def test_a_broker_refuses_what_no_consumer_could_read(kafka: Kafka, topic: str) -> None:
    """Unknown codecs, wrong checksums, and the formats 0 and 1 can occur only on a broker's disk."""
    good = batch_of([(b"k", b"{}", ())])
    unknown = with_checksum(good[:22] + bytes([7]) + good[23:])
    old = good[:16] + b"\1" + good[17:]
    for batch in (good[:-1] + b"!", unknown, old):
        (code,) = await send(kafka.bootstrap or "", topic, batch)
        assert code != 0


async def test_a_record_of_40_mib_that_gzip_makes_small_is_kept_cut(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    async def refuse(batch: Batch) -> Failures:
        return [Failure(message, InvalidEvent("text: too long")) for message in batch]

    text = b"lorem ipsum " * (40 * 1024 * 1024 // 12)
    huge = batch_of([(b"huge", text, [("ce_id", b"e1")])], "gzip")
    assert len(huge) < LIMIT
    assert await send(kafka.bootstrap or "", topic, huge, batch_of([(b"small", b"{", ())])) == [0, 0]
    role = role_name()
    async with consuming(kafka, topic, refuse, tmp_path, role) as runner:
        await all_committed(kafka, role, topic)
        assert runner.health.ended_by is None
    letter, small = await letters_of(kafka, topic)
    assert (letter.offset, letter.original.key, letter.original.headers) == (0, b"huge", (("ce_id", b"e1"),))
    assert letter.cut == {"value": {"bytes": len(text), "sha256": sha256(text).hexdigest()}}
    assert LIMIT // 2 < len(letter.original.value or b"") <= LIMIT + DEAD_LETTER_HEADER_BYTES
    assert (small.original.value, small.cut) == (b"{", {})
