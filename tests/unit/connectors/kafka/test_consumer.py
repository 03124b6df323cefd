"""A fetched partition is delivered whole: each record, or its substitute, up to the last offset. No broker runs."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder

from connectors.kafka import reader
from connectors.kafka.batches import Fetched
from connectors.kafka.consumer import PASSED_OVER, POLL_BYTES, BoundedResult, CompleteRecords, Unread, plain
from connectors.kafka.consumer import read_everything as _patch
from connectors.kafka.headers import received
from tests.contract.foreign_batches import CODECS, batch_of, with_checksum

AT = TopicPartition("topic", 3)
_patch()


def at(offset: int, batch: bytes) -> bytes:
    """Return a batch as the broker keeps it at an offset."""
    return offset.to_bytes(8, "big") + batch[8:]


def batch(first: int, *values: bytes, codec: str = "none") -> bytes:
    return at(first, batch_of([(b"k", value, ()) for value in values], codec))


def read(data: bytes, begin: int = 0, aborted: Sequence[tuple[int, int]] = ()) -> list[Any]:
    return list(CompleteRecords(AT, Fetched(data), list(aborted), begin, None, None, True, 1))


def shown(records: Sequence[Any]) -> list[tuple[int, Any]]:
    return [(record.offset, "-" if record.value is PASSED_OVER else record.value) for record in records]


def legacy(magic: int, first: int, *values: bytes, codec: int = 0) -> bytes:
    builder = LegacyRecordBatchBuilder(magic, codec, 1 << 20)
    for offset, value in enumerate(values, first):
        builder.append(offset, timestamp=1, key=b"k", value=value, headers=[])
    return bytes(builder.build())


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_is_read_from_any_offset_of_a_batch(codec: str) -> None:
    data = batch(5, b"a", b"b", b"c", codec=codec) + batch(8, b"d")
    assert shown(read(data, 6)) == [(6, b"b"), (7, b"c"), (8, b"d")]


@pytest.mark.parametrize(("magic", "codec"), [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (1, 3)])
def test_batches_of_the_formats_before_version_2_are_read(magic: int, codec: int) -> None:
    data = legacy(magic, 0, b"a", b"b", codec=codec)
    # A broker sets the offset of a compressed batch to that of its last record.
    data = at(1, data) if codec else data
    assert [value for _, value in shown(read(data + batch(2, b"c")))] == [b"a", b"b", b"c"]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (batch(1, b"b", b"c")[:-1] + b"!", "checksum"),
        (at(1, with_checksum(batch(0, b"b", b"c")[:22] + bytes([7]) + batch(0, b"b", b"c")[23:])), "codec"),
        (at(1, with_checksum(batch(0, b"b", b"c", codec="gzip")[:-20] + bytes(20))), ""),
        (at(1, with_checksum(batch(0, b"b", b"c", codec="zstd")[:61] + bytes(27))), ""),
    ],
    ids=["checksum", "codec", "gzip", "zstd"],
)
def test_a_batch_that_cannot_be_read_is_handed_over_as_its_bytes_and_those_behind_it_are_read(
    broken: bytes, reason: str
) -> None:
    first, unread, last = read(batch(0, b"a") + broken + batch(3, b"d"))
    assert shown([first, last]) == [(0, b"a"), (3, b"d")]
    assert isinstance(unread.value, Unread)
    assert (unread.offset, unread.value.records, bytes(unread.value)) == (2, 2, broken)
    record = received(unread)
    assert reason in record.unread.lower()
    assert (record.topic, record.partition, record.records) == ("topic", 3, 2)


def test_a_record_that_is_broken_inside_does_not_hide_its_neighbours() -> None:
    whole = batch_of([(b"k", b"first", ()), (b"k", b"MIDDLE", ()), (b"k", b"last", ())])
    at_length = whole.index(b"MIDDLE") - 1
    broken = with_checksum(whole[:at_length] + bytes([0x7E]) + whole[at_length + 1 :])
    first, middle, last = read(broken)
    assert shown([first, last]) == [(0, b"first"), (2, b"last")]
    assert (middle.offset, middle.value.records) == (1, 1)
    assert b"MIDDLE" in middle.value


def test_a_batch_of_which_nothing_is_left_but_its_offsets_is_passed_over() -> None:
    """Compaction removes records from a batch, even the last one."""
    compacted = bytearray(batch_of([(b"k", b"a", ())]))
    compacted[23:27] = (4).to_bytes(4, "big")
    assert shown(read(with_checksum(bytes(compacted)) + batch(5, b"f"))) == [(0, b"a"), (4, "-"), (5, b"f")]


@pytest.mark.parametrize("seed", range(300))
def test_whatever_the_bytes_are_every_offset_is_accounted_for(seed: int) -> None:
    chance = random.Random(seed)
    data, offset = b"", 0
    for _ in range(6):
        values = [chance.randbytes(chance.randrange(200)) for _ in range(chance.randrange(1, 5))]
        one = bytearray(batch(offset, *values, codec=chance.choice(list(CODECS))))
        offset += len(values)
        if chance.random() < 0.7:  # the header up to its length and its last offset stay: a broker reads those
            for _ in range(chance.randrange(1, 6)):
                one[chance.choice([21, 22, *range(27, len(one))])] = chance.randrange(256)
            one = bytearray(with_checksum(bytes(one))) if chance.random() < 0.7 else one
        data += bytes(one)
    offsets = [record.offset for record in read(data)]
    assert offsets == sorted(set(offsets))
    assert offsets[-1] == offset - 1


def test_one_poll_ends_with_the_record_that_reaches_its_bytes() -> None:
    class Assigned:
        active = True
        paused = False
        position = 0

        def state_value(self, _: object) -> Assigned:
            return self

        def consumed_to(self, position: int) -> None:
            self.position = position

    data = batch(0, *[b"a" * (POLL_BYTES // 4)] * 10)
    records = CompleteRecords(AT, Fetched(data), [], 0, None, None, True, 1)
    result = BoundedResult(AT, assignment=Assigned(), partition_records=records, backoff=0.1)
    counts = []
    while result.has_more():
        counts.append(len(list(plain(result.getall()))))
    assert counts == [4, 4, 2]


async def test_what_is_read_again_has_no_record_for_offsets_with_nothing_to_handle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only the offset moves past a transaction's control record or the last offset of a compacted batch."""

    class Consumer:
        async def start(self) -> None: ...

        async def stop(self) -> None: ...

        def assign(self, places: Sequence[TopicPartition]) -> None: ...

        def seek(self, place: TopicPartition, offset: int) -> None: ...

        async def beginning_offsets(self, places: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
            return dict.fromkeys(places, 0)

        async def getmany(self, **_: int) -> Mapping[TopicPartition, Sequence[Any]]:
            compacted = bytearray(batch_of([(b"k", b"a", ())]))
            compacted[23:27] = (4).to_bytes(4, "big")
            return {AT: read(with_checksum(bytes(compacted)))}

        async def position(self, place: TopicPartition) -> int:
            return 5

    monkeypatch.setattr(reader, "complete_consumer", lambda *_, **__: Consumer())
    async with reader.read_again("kafka:9092", {(AT.topic, AT.partition): 0}) as chunks:
        chunk = await anext(chunks)
    assert [(record.offset, record.value) for record in chunk.records] == [(0, b"a")]
    assert chunk.following == {(AT.topic, AT.partition): 5}
