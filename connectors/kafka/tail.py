"""Small readers for commands and tests: a topic's records, its ends, a group's lag. Nothing is committed here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    KafkaError,
    NotCoordinatorForGroupError,
)

from connectors.errors import Misconfigured, RecordsExpired, StoreUnavailable
from connectors.kafka.admin import admin_client, partition_counts
from connectors.kafka.consumer import consumer as complete_consumer
from connectors.kafka.consumer import plain
from connectors.kafka.errors import mapped
from connectors.kafka.headers import received
from schemas.records import Received

_TIMEOUT_S = 30.0
_POLL_MS = 500
_POLL_RECORDS = 500
_COORDINATOR_WAIT_S = 0.2
_NO_COORDINATOR_YET = (GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError)


@dataclass(frozen=True, slots=True)
class Lag:
    """Where a group stands in one partition; `committed` is None where it never committed."""

    topic: str
    partition: int
    committed: int | None
    end: int
    lag: int


async def read_topic(
    bootstrap: str,
    topic: str,
    *,
    from_beginning: bool = True,
    until_end: bool = True,
    start: Mapping[int, int] | None = None,
    timeout_s: float = _TIMEOUT_S,
) -> AsyncIterator[Received]:
    """Yield the records of a topic, each partition in the order of its offsets.

    `start` gives first offsets by partition and overrides `from_beginning` there. With `until_end` it stops at what was
    the end when it began, else it follows for ever. Raises Misconfigured for an unknown topic, StoreUnavailable when
    the brokers do not answer within `timeout_s`.
    """
    partitions = (await _partitions(bootstrap, [topic], timeout_s))[topic]
    async with _consumer(bootstrap, timeout_s) as consumer:
        try:
            ends = await _positioned(consumer, partitions, from_beginning, start or {}, timeout_s)
            async for record in _records(consumer, ends if until_end else None, timeout_s):
                yield record
        except (KafkaError, TimeoutError) as error:
            raise mapped(error, topic) from error


@dataclass(frozen=True, slots=True)
class Chunk:
    """Records that were read again, and the next offset of each partition after them."""

    records: list[Received]
    following: Mapping[tuple[str, int], int]


@asynccontextmanager
async def read_again(
    bootstrap: str, starts: Mapping[tuple[str, int], int], *, limit: int = _POLL_RECORDS, timeout_s: float = _TIMEOUT_S
) -> AsyncIterator[AsyncIterator[Chunk]]:
    """Read partitions, each from its offset, in chunks of up to `limit` records; it follows for ever.

    A chunk may be empty: where nothing comes, and where there is nothing to be shown at an offset. Raises
    RecordsExpired where an offset is no longer kept, StoreUnavailable.
    """
    async with _consumer(bootstrap, timeout_s) as consumer:
        places = {TopicPartition(*place): offset for place, offset in starts.items()}
        try:
            consumer.assign(list(places))
            async with asyncio.timeout(timeout_s):
                begins = await consumer.beginning_offsets(list(places))
        except (KafkaError, TimeoutError) as error:
            raise mapped(error, bootstrap) from error
        gone = {(at.topic, at.partition): begins[at] for at, offset in places.items() if offset < begins[at]}
        if gone:
            raise RecordsExpired(
                f"records of {', '.join(f'{t}/{p}' for t, p in sorted(gone))} are no longer kept", gone
            )
        for at, offset in places.items():
            consumer.seek(at, offset)
        yield _chunks(consumer, list(places), limit)


async def _chunks(consumer: AIOKafkaConsumer, places: list[TopicPartition], limit: int) -> AsyncIterator[Chunk]:
    while True:
        try:
            batches = await consumer.getmany(timeout_ms=_POLL_MS, max_records=limit)
            following = {(at.topic, at.partition): await consumer.position(at) for at in places}
        except KafkaError as error:
            raise mapped(error, places[0].topic) from error
        yield Chunk([received(record) for batch in batches.values() for record in plain(batch)], following)


async def end_offsets(
    bootstrap: str, topics: Iterable[str], *, timeout_s: float = _TIMEOUT_S
) -> dict[str, dict[int, int]]:
    """Return the next offset of each partition of each topic. Raises as `read_topic` does."""
    bounds = await _bounds(bootstrap, topics, timeout_s)
    return {topic: {number: end for number, (_, end) in found.items()} for topic, found in bounds.items()}


async def offsets_at(bootstrap: str, topic: str, time_ms: int, *, timeout_s: float = _TIMEOUT_S) -> dict[int, int]:
    """Return of each partition the first offset whose record is of that time or later; none where there is none."""
    places = (await _partitions(bootstrap, [topic], timeout_s))[topic]
    async with _consumer(bootstrap, timeout_s) as consumer:
        try:
            async with asyncio.timeout(timeout_s):
                found = await consumer.offsets_for_times(dict.fromkeys(places, max(0, time_ms)))
        except (KafkaError, TimeoutError) as error:
            raise mapped(error, bootstrap) from error
    return {at.partition: one.offset for at, one in found.items() if one is not None and one.offset >= 0}


async def record_at(bootstrap: str, topic: str, partition: int, offset: int) -> Received | None:
    """Return the record at a place, None where it is not kept any more. Raises as `read_topic` does."""
    ends = (await end_offsets(bootstrap, [topic]))[topic]
    async for record in read_topic(bootstrap, topic, start={**ends, partition: offset}):
        return record if (record.partition, record.offset) == (partition, offset) else None
    return None


async def group_lag(bootstrap: str, group: str, topics: Iterable[str], *, timeout_s: float = _TIMEOUT_S) -> list[Lag]:
    """Return how far a consumer group is behind in each partition; what it never read counts from the beginning."""
    bounds = await _bounds(bootstrap, topics, timeout_s)
    committed = await committed_offsets(bootstrap, group, timeout_s=timeout_s)
    lags: list[Lag] = []
    for topic, found in bounds.items():
        for number, (begin, end) in sorted(found.items()):
            at = committed.get((topic, number))
            lags.append(Lag(topic, number, at, end, max(0, end - max(begin, at or 0))))
    return lags


async def committed_offsets(
    bootstrap: str, group: str, *, metadata: str | None = None, timeout_s: float = _TIMEOUT_S
) -> dict[tuple[str, int], int]:
    """Return a group's committed offsets by topic and partition; a group that never was has none.

    With `metadata` only those that were committed with it.
    """
    async with admin_client(bootstrap, timeout_s=timeout_s) as admin:
        return await group_offsets(admin, group, metadata)


async def group_offsets(
    admin: AIOKafkaAdminClient, group: str, metadata: str | None = None
) -> dict[tuple[str, int], int]:
    """Return a group's committed offsets over a client that is connected; waits for the group's coordinator.

    With `metadata` only those that were committed with it.
    """
    while True:
        try:
            commits = await admin.list_consumer_group_offsets(group)
            break
        except _NO_COORDINATOR_YET:  # the topic of the offsets is being made or loaded
            await asyncio.sleep(_COORDINATOR_WAIT_S)
    return {
        (at.topic, at.partition): found.offset
        for at, found in commits.items()
        if found.offset >= 0 and metadata in {None, found.metadata}
    }


async def _bounds(bootstrap: str, topics: Iterable[str], timeout_s: float) -> dict[str, dict[int, tuple[int, int]]]:
    """Return the oldest kept and the next offset of each partition."""
    wanted = await _partitions(bootstrap, topics, timeout_s)
    every = [at for partitions in wanted.values() for at in partitions]
    async with _consumer(bootstrap, timeout_s) as consumer:
        try:
            async with asyncio.timeout(timeout_s):
                begins = await consumer.beginning_offsets(every)
                ends = await consumer.end_offsets(every)
        except (KafkaError, TimeoutError) as error:
            raise mapped(error, bootstrap) from error
    return {topic: {at.partition: (begins[at], ends[at]) for at in partitions} for topic, partitions in wanted.items()}


@asynccontextmanager
async def _consumer(bootstrap: str, timeout_s: float) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = complete_consumer(bootstrap, "crossfade-reader", request_timeout_ms=int(timeout_s * 1000))
    try:
        try:
            async with asyncio.timeout(timeout_s):
                await consumer.start()
        except (KafkaError, OSError) as error:
            raise mapped(error, bootstrap) from error
        await asyncio.sleep(0)  # a consumer that is stopped before its own tasks ran raises CancelledError
        yield consumer
    finally:
        await consumer.stop()


async def _partitions(bootstrap: str, topics: Iterable[str], timeout_s: float) -> dict[str, list[TopicPartition]]:
    names = list(topics)
    counts = await partition_counts(bootstrap, names, timeout_s=timeout_s)
    for name in names:
        if name not in counts:
            raise Misconfigured(f"{name}: the topic does not exist; `crossfade topics apply` creates it")
    return {name: [TopicPartition(name, number) for number in range(counts[name])] for name in names}


async def _positioned(
    consumer: AIOKafkaConsumer,
    partitions: list[TopicPartition],
    from_beginning: bool,
    start: Mapping[int, int],
    timeout_s: float,
) -> dict[TopicPartition, int]:
    consumer.assign(partitions)
    async with asyncio.timeout(timeout_s):
        begins = await consumer.beginning_offsets(partitions)
        ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
    for at in partitions:
        first = begins[at] if from_beginning else ends[at]
        # An offset that is no longer kept begins at the oldest that is.
        consumer.seek(at, min(max(start.get(at.partition, first), begins[at]), ends[at]))
    return ends


async def _records(
    consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int] | None, timeout_s: float
) -> AsyncIterator[Received]:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while True:
        if ends is not None:
            # Compared by position, not by record: the last offset may be one that no reader is shown.
            behind = [at for at, end in ends.items() if await consumer.position(at) < end]
            if not behind:
                return
            if loop.time() > deadline:
                raise StoreUnavailable(f"{behind[0].topic}: nothing read for {timeout_s:g} s")
        batches = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_POLL_RECORDS)
        for at, batch in batches.items():
            for record in plain(batch):
                if ends is None or record.offset < ends[at]:
                    yield received(record)
        if batches:
            deadline = loop.time() + timeout_s
