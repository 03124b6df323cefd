"""Batches hold the waiting events of the current generation, in order. An event is done once it was handled."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agents.batches import acknowledge, batches, received
from agents.faust_transport import Held
from connectors.kafka.consumer import PASSED_OVER
from schemas.records import Received
from tests.unit.agents.streams import TOPIC, FakeMessage, FakeStream


async def first(stream: FakeStream, limit: int = 10) -> tuple[list[Any], list[Received]]:
    return await anext(batches(stream, limit, 10_000))


async def test_a_batch_holds_all_that_waits_up_to_the_limit_in_order() -> None:
    stream = FakeStream()
    stream.add(*[FakeMessage(offset) for offset in range(5)])
    taken = batches(stream, 3, 10_000)
    assert [record.offset for record in (await anext(taken))[1]] == [0, 1, 2]
    assert [record.offset for record in (await anext(taken))[1]] == [3, 4]


async def test_every_event_of_a_batch_is_tracked_once_so_that_its_offset_is_committed_when_acknowledged() -> None:
    stream = FakeStream()
    stream.add(FakeMessage(1), FakeMessage(2, tracked=True), FakeMessage(3))
    await first(stream)
    assert stream.app.tracked == [1, 3]
    assert stream.acknowledged == []


async def test_acknowledgement_goes_in_the_order_of_arrival() -> None:
    stream = FakeStream()
    stream.add(FakeMessage(4), FakeMessage(5), FakeMessage(6))
    events, _ = await first(stream)
    acknowledge(stream, events)
    assert stream.acknowledged == [4, 5, 6]


async def test_events_of_an_older_generation_are_left_out_untracked_and_unacknowledged() -> None:
    """After a rebalance they are delivered again, to the worker that has the partition now."""
    stream = FakeStream()
    stream.app.consumer_generation_id = 2
    stream.add(FakeMessage(1, generation_id=1), FakeMessage(2, generation_id=2), FakeMessage(3, generation_id=1))
    events, records = await first(stream)
    acknowledge(stream, events)
    assert ([record.offset for record in records], stream.app.tracked, stream.acknowledged) == ([2], [2], [2])


async def test_a_batch_of_an_older_generation_alone_is_no_batch() -> None:
    stream = FakeStream()
    stream.app.consumer_generation_id = 2
    stream.add(FakeMessage(1, generation_id=1), FakeMessage(2, generation_id=2))
    _, records = await first(stream, limit=1)
    assert [record.offset for record in records] == [2]


async def test_what_arrives_while_a_rebalance_goes_on_is_left_out() -> None:
    stream = FakeStream()
    stream.app.active = False
    stream.add(FakeMessage(1))
    taking = asyncio.create_task(first(stream))
    for _ in range(5):  # a few turns of the loop, until it waits for the next event
        await asyncio.sleep(0)
    assert stream.channel.empty()
    stream.app.active = True
    stream.add(FakeMessage(2))
    _, records = await taking
    assert ([record.offset for record in records], stream.app.tracked) == ([2], [2])


async def test_under_load_batches_begin_an_interval_apart_and_a_lone_event_never_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("agents.batches.asyncio", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr("agents.batches.time", SimpleNamespace(monotonic=lambda: 100.0))
    stream = FakeStream()
    taken = batches(stream, 10, 10_000, interval_s=0.5)
    for offsets, waited in (
        ((0,), []),
        ((1, 2), []),
        ((3,), [0.5]),
        ((4,), [0.5]),
        ((5, 6, 7), [0.5]),
        ((8,), [0.5] * 2),
    ):
        stream.add(*map(FakeMessage, offsets))
        assert [record.offset for record in (await anext(taken))[1]] == list(offsets)
        assert waits == waited


async def test_a_stream_that_stops_ends() -> None:
    stream = FakeStream(should_stop=True)
    assert [batch async for batch in batches(stream, 1, 10_000)] == []


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (None, ()),
        ((), ()),
        ([("a", b"1"), ("a", b"2"), ("b", None)], (("a", b"1"), ("a", b"2"), ("b", b""))),
        ({"a": b"1"}, (("a", b"1"),)),
    ],
)
def test_a_message_becomes_a_plain_record(headers: Any, expected: tuple[tuple[str, bytes], ...]) -> None:
    record = received(FakeMessage(7, headers=headers, timestamp=1_700_000_000.123))
    assert record == Received(TOPIC, 0, 7, b"k", b"{}", expected, 1_700_000_000_123)


def test_a_message_without_a_time_or_a_value_is_a_record_all_the_same() -> None:
    record = received(FakeMessage(7, value=None, timestamp=None))
    assert (record.value, record.timestamp_ms) == (None, 0)


async def test_a_batch_ends_with_the_record_that_reaches_its_bytes() -> None:
    stream = FakeStream()
    stream.add(*[FakeMessage(offset, value=b"x" * 40) for offset in range(7)])
    taken = batches(stream, 10, 100)
    assert [[record.offset for record in (await anext(taken))[1]] for _ in range(3)] == [[0, 1, 2], [3, 4, 5], [6]]


async def test_what_stands_for_offsets_only_is_acknowledged_and_not_handled() -> None:
    stream = FakeStream()
    stream.add(FakeMessage(1), FakeMessage(2, value=cast(Any, PASSED_OVER)), FakeMessage(3))
    events, records = await first(stream)
    acknowledge(stream, events)
    assert ([record.offset for record in records], stream.acknowledged) == ([1, 3], [1, 2, 3])


def test_a_buffer_counts_the_bytes_of_what_still_waits() -> None:
    held = Held()
    for size in (5, 7, 11):
        held.add(size)
    assert [held.keep(count) for count in (3, 2, 2, 0)] == [23, 18, 18, 0]
