"""Reads records outside of the agents: whole topics, partitions again from an offset, some records of given ranges.

Nothing is committed here. The ends of topics are in `connectors.kafka.offsets`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as Assigned
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from connectors.errors import RecordsExpired, StoreUnavailable
from connectors.kafka.admin import partition_counts
from connectors.kafka.consumer import consumer as complete_consumer
from connectors.kafka.consumer import plain
from connectors.kafka.errors import mapped
from connectors.kafka.headers import received
from connectors.kafka.offsets import end_offsets
from schemas.records import Received, TopicPartition

_TIMEOUT_S = 30.0
_POLL_MS = 500
_POLL_RECORDS = 500
_SEARCH_MS = 200


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

    `start` gives first offsets by partition and overrides `from_beginning` there. With `until_end`, reading stops at
    the end that the topic had when it began; otherwise it follows for ever. Raises Misconfigured for an unknown topic,
    and StoreUnavailable when the brokers do not answer within `timeout_s`.
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
    following: Mapping[TopicPartition, int]


@asynccontextmanager
async def read_again(
    bootstrap: str, starts: Mapping[TopicPartition, int], *, limit: int = _POLL_RECORDS, timeout_s: float = _TIMEOUT_S
) -> AsyncIterator[AsyncIterator[Chunk]]:
    """Read partitions, each from its offset, in chunks of up to `limit` records; follow them for ever.

    A chunk may be empty, if nothing arrives or if the offsets have no records to show. Raises RecordsExpired if an
    offset is no longer retained, and StoreUnavailable.
    """
    async with _consumer(bootstrap, timeout_s) as consumer:
        places = {Assigned(*place): offset for place, offset in starts.items()}
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


async def _chunks(consumer: AIOKafkaConsumer, places: list[Assigned], limit: int) -> AsyncIterator[Chunk]:
    while True:
        try:
            batches = await consumer.getmany(timeout_ms=_POLL_MS, max_records=limit)
            following = {(at.topic, at.partition): await consumer.position(at) for at in places}
        except KafkaError as error:
            raise mapped(error, places[0].topic) from error
        yield Chunk([received(record) for batch in batches.values() for record in plain(batch)], following)


async def record_at(bootstrap: str, topic: str, partition: int, offset: int) -> Received | None:
    """Return the record at an offset, None if it is no longer retained. Raises as `read_topic` does."""
    ends = (await end_offsets(bootstrap, [topic]))[topic]
    async for record in read_topic(bootstrap, topic, start={**ends, partition: offset}):
        return record if (record.partition, record.offset) == (partition, offset) else None
    return None


@dataclass(frozen=True, slots=True)
class Found:
    """The wanted records; `read` is how many were checked, `unread` how many were not reached in time."""

    records: tuple[Received, ...]
    read: int
    unread: int


class Finder:
    """A reader for many searches, one after the other."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer

    async def search(
        self, pieces: Mapping[TopicPartition, tuple[int, int]], wanted: Callable[[Any], bool], limit_s: float
    ) -> Found:
        """Return the wanted records in these ranges of offsets; each range excludes its end.

        `wanted` gets the client library's records: most of them are not worth a conversion. Raises StoreUnavailable.
        """
        left = {Assigned(*place): end for place, (begin, end) in pieces.items() if begin < end}
        begins = {Assigned(*place): begin for place, (begin, _) in pieces.items()}
        found: list[Received] = []
        read = 0
        if not left:
            return Found((), 0, 0)
        deadline = time.monotonic() + limit_s
        try:
            self._consumer.assign(list(left))
            for place in left:
                self._consumer.seek(place, begins[place])
            while left and time.monotonic() < deadline:
                for place, records in (await self._consumer.getmany(*left, timeout_ms=_SEARCH_MS)).items():
                    within = [record for record in plain(records) if record.offset < left[place]]
                    read += len(within)
                    found += [received(record) for record in within if wanted(record)]
                # By position, not by record: the last offset may be one that no reader sees.
                done = [place for place, end in left.items() if await self._consumer.position(place) >= end]
                for place in done:
                    del left[place]
            unread = sum([end - await self._consumer.position(place) for place, end in left.items()])
        except (KafkaError, OSError) as error:
            raise mapped(error, next(iter(pieces))[0]) from error
        finally:
            # aiokafka's fetcher does not survive the end of a subscription; the next search replaces this one.
            self._consumer.pause(*self._consumer.assignment())
        return Found(tuple(found), read, unread)


@asynccontextmanager
async def finder(bootstrap: str) -> AsyncIterator[Finder]:
    """Yield a connected finder. Raises StoreUnavailable if the brokers do not answer."""
    async with _consumer(bootstrap, _TIMEOUT_S, fetch_max_wait_ms=_SEARCH_MS) as consumer:
        yield Finder(consumer)


@asynccontextmanager
async def _consumer(bootstrap: str, timeout_s: float, **options: int) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = complete_consumer(bootstrap, "crossfade-reader", request_timeout_ms=int(timeout_s * 1000), **options)
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


async def _partitions(bootstrap: str, topics: Iterable[str], timeout_s: float) -> dict[str, list[Assigned]]:
    names = list(topics)
    counts = await partition_counts(bootstrap, names, timeout_s=timeout_s)
    for name in names:
        if name not in counts:
            raise mapped(UnknownTopicOrPartitionError(), name)
    return {name: [Assigned(name, number) for number in range(counts[name])] for name in names}


async def _positioned(
    consumer: AIOKafkaConsumer,
    partitions: list[Assigned],
    from_beginning: bool,
    start: Mapping[int, int],
    timeout_s: float,
) -> dict[Assigned, int]:
    consumer.assign(partitions)
    async with asyncio.timeout(timeout_s):
        begins = await consumer.beginning_offsets(partitions)
        ends: dict[Assigned, int] = await consumer.end_offsets(partitions)
    for at in partitions:
        first = begins[at] if from_beginning else ends[at]
        # If an offset is no longer retained, reading begins at the oldest retained one.
        consumer.seek(at, min(max(start.get(at.partition, first), begins[at]), ends[at]))
    return ends


async def _records(
    consumer: AIOKafkaConsumer, ends: Mapping[Assigned, int] | None, timeout_s: float
) -> AsyncIterator[Received]:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while True:
        if ends is not None:
            # Compared by position, not by record: the last offset may be one that no reader sees.
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
