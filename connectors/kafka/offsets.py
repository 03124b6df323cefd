"""Offsets: the ends of topics, how far groups have read them, and the age of unread records. Commits nothing.

`KafkaOffsets` serves any number of calls over its connections; the functions connect for a single call.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as Assigned
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    KafkaError,
    NoError,
    NotCoordinatorForGroupError,
    UnknownTopicOrPartitionError,
    for_code,
)

from connectors.errors import StoreUnavailable
from connectors.kafka.consumer import consumer as complete_consumer
from connectors.kafka.errors import mapped
from connectors.kafka.identity import TopicIdentity, topic_identities
from schemas.records import TopicPartition
from topics.catalogue import PARKED, parked_group_of

_CALL_S = 15.0
_ONCE_S = 30.0
_OLDEST_S = 3.0
_FETCH_BYTES = 64 * 1024
_KNOWN = 4096
_COORDINATOR_WAIT_S = 0.2
_NO_COORDINATOR_YET = (GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError)


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a group is in one partition; `committed` is None if it never committed."""

    topic: str
    partition: int
    committed: int | None
    end: int
    lag: int


class KafkaOffsets:
    """Offsets over one admin client and one consumer, connected at the first call; one event loop at a time.

    With a `collection`, a group's offsets are the offsets of this collection, which a role may have parked. Every call
    raises StoreUnavailable if the brokers do not answer within `timeout_s`; the next call connects again.
    """

    def __init__(self, bootstrap: str, *, collection: str = "", timeout_s: float = _CALL_S) -> None:
        self._bootstrap, self._collection, self._timeout_s = bootstrap, collection, timeout_s
        self._admin: AIOKafkaAdminClient | None = None
        self._consumer: AIOKafkaConsumer | None = None
        self._connecting = asyncio.Lock()
        self._reading = asyncio.Lock()
        self._oldest: dict[tuple[TopicPartition, int], float] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def bounds(self, topics: Iterable[str]) -> dict[TopicPartition, tuple[int, int]]:
        """Return the oldest retained offset and the next offset of each partition of the topics that exist."""
        wanted = sorted(set(topics))
        if not wanted:
            return {}
        async with self._clients() as (admin, consumer):
            described = await admin.describe_topics(wanted)
            places = [
                Assigned(topic["topic"], partition["partition"])
                for topic in described
                if for_code(topic["error_code"]) is NoError
                for partition in topic["partitions"]
            ]
            if not places:
                return {}
            for topic in {at.topic for at in places}:
                # Otherwise aiokafka learns about new topics one after the other, 0.1 s each.
                consumer._client.add_topic(topic)
            begins, ends = await consumer.beginning_offsets(places), await consumer.end_offsets(places)
            return {(at.topic, at.partition): (begins[at], ends[at]) for at in places}

    async def bounds_of(self, topics: Iterable[str]) -> dict[str, dict[int, tuple[int, int]]]:
        """Return the same as `bounds` by topic and partition. Raises Misconfigured for a topic that does not exist."""
        found: dict[str, dict[int, tuple[int, int]]] = {name: {} for name in topics}
        for (topic, partition), both in sorted((await self.bounds(found)).items()):
            found[topic][partition] = both
        for name, partitions in found.items():
            if not partitions:
                raise mapped(UnknownTopicOrPartitionError(), name)
        return found

    async def at_time(self, topic: str, time_ms: int) -> dict[int, int]:
        """Return the first offset of each partition with a record of that time or later; omit the others."""
        places = [Assigned(topic, number) for number in (await self.bounds_of([topic]))[topic]]
        async with self._clients() as (_, consumer):
            found = await consumer.offsets_for_times(dict.fromkeys(places, max(0, time_ms)))
        return {at.partition: one.offset for at, one in found.items() if one is not None and one.offset >= 0}

    async def committed(self, group: str) -> dict[TopicPartition, int]:
        """Return the committed offsets of a group; for a parked collection, the offsets at which it resumes."""
        async with self._clients() as (admin, _):
            committed = await group_offsets(admin, group)
            if self._collection:  # in this order: parked offsets are stored before the role's own offset moves on
                parked = await group_offsets(admin, parked_group_of(group, self._collection), PARKED)
                committed |= {place: min(at, committed.get(place, at)) for place, at in parked.items()}
            return committed

    async def lag(self, group: str, topics: Iterable[str]) -> list[Lag]:
        """Return how far a group is behind in each partition; one that it never read counts from the beginning."""
        bounds, committed = await self.bounds_of(topics), await self.committed(group)
        lags: list[Lag] = []
        for topic, found in bounds.items():
            for number, (begin, end) in found.items():
                at = committed.get((topic, number))
                lags.append(Lag(topic, number, at, end, max(0, end - max(begin, at or 0))))
        return lags

    async def identities(self, topics: Iterable[str]) -> dict[str, TopicIdentity]:
        """Return the identities of the topics that exist. Creates no topic."""
        async with self._clients() as (admin, _):
            return await topic_identities(admin, topics)

    async def oldest_s(self, places: Mapping[TopicPartition, int]) -> float | None:
        """Return when the oldest of the records at these offsets was written, in seconds since the epoch.

        Return None if none of them could be read in time.
        """
        unknown = {place: at for place, at in places.items() if (place, at) not in self._oldest}
        if unknown:
            if len(self._oldest) > _KNOWN:
                self._oldest.clear()
            async with self._reading, self._clients() as (_, consumer):
                self._oldest.update(await _times(consumer, unknown))
        times = [self._oldest[place, at] for place, at in places.items() if (place, at) in self._oldest]
        return min(times, default=None)

    async def close(self) -> None:
        """Close the connections."""
        admin, consumer, self._admin, self._consumer = self._admin, self._consumer, None, None
        if consumer is not None:
            await consumer.stop()
        if admin is not None:
            await admin.close()

    @asynccontextmanager
    async def _clients(self) -> AsyncIterator[tuple[Any, Any]]:
        """Yield both clients, connected; close them after an error."""
        try:
            async with asyncio.timeout(self._timeout_s):
                async with self._connecting:
                    await self._connect()
                yield self._admin, self._consumer
        except (KafkaError, OSError, TimeoutError) as error:
            await self.close()
            if isinstance(error, TimeoutError):
                raise StoreUnavailable(f"{self._bootstrap}: no answer within {self._timeout_s:g} s") from error
            raise mapped(error, self._bootstrap) from error

    async def _connect(self) -> None:
        if self._admin is not None:
            return
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap, client_id="crossfade-offsets")
        consumer = complete_consumer(
            self._bootstrap,
            "crossfade-offsets",
            fetch_max_wait_ms=200,
            # A broker returns the first batch whole, however large it is.
            max_partition_fetch_bytes=_FETCH_BYTES,
            fetch_max_bytes=_FETCH_BYTES,
        )
        try:
            await admin.start()
            await consumer.start()
            await asyncio.sleep(0)  # a consumer that is stopped before its own tasks ran raises CancelledError
        except BaseException:
            await consumer.stop()
            await admin.close()
            raise
        self._admin, self._consumer = admin, consumer


async def group_offsets(
    admin: AIOKafkaAdminClient, group: str, metadata: str | None = None
) -> dict[TopicPartition, int]:
    """Return a group's committed offsets over a connected client; wait for the group's coordinator.

    A group that never existed has none. With `metadata`, return only the offsets that were committed with it.
    """
    while True:
        try:
            commits = await admin.list_consumer_group_offsets(group)
            break
        except _NO_COORDINATOR_YET:  # the topic of the offsets is being created or loaded
            await asyncio.sleep(_COORDINATOR_WAIT_S)
    return {
        (at.topic, at.partition): found.offset
        for at, found in commits.items()
        if found.offset >= 0 and metadata in {None, found.metadata}
    }


async def end_offsets(bootstrap: str, topics: Iterable[str]) -> dict[str, dict[int, int]]:
    """Return the next offset of each partition of each topic. Raises as `KafkaOffsets.bounds_of` does."""
    async with KafkaOffsets(bootstrap, timeout_s=_ONCE_S) as offsets:
        bounds = await offsets.bounds_of(topics)
    return {topic: {number: end for number, (_, end) in found.items()} for topic, found in bounds.items()}


async def offsets_at(bootstrap: str, topic: str, time_ms: int) -> dict[int, int]:
    """See `KafkaOffsets.at_time`."""
    async with KafkaOffsets(bootstrap, timeout_s=_ONCE_S) as offsets:
        return await offsets.at_time(topic, time_ms)


async def group_lag(bootstrap: str, group: str, topics: Iterable[str]) -> list[Lag]:
    """See `KafkaOffsets.lag`."""
    async with KafkaOffsets(bootstrap, timeout_s=_ONCE_S) as offsets:
        return await offsets.lag(group, topics)


async def _times(
    consumer: AIOKafkaConsumer, wanted: Mapping[TopicPartition, int]
) -> dict[tuple[TopicPartition, int], float]:
    """Return when the records at these offsets were written, in seconds since the epoch; omit those read too late."""
    found: dict[tuple[TopicPartition, int], float] = {}
    places = {Assigned(*place): at for place, at in wanted.items()}
    consumer.assign(list(places))
    try:
        for place, at in places.items():
            consumer.seek(place, at)
        deadline = time.monotonic() + _OLDEST_S
        while len(found) < len(places) and time.monotonic() < deadline:
            for place, records in (await consumer.getmany(timeout_ms=200)).items():
                key = ((place.topic, place.partition), places[place])
                if records and key not in found:
                    found[key] = records[0].timestamp / 1000
                    consumer.pause(place)
    finally:
        # aiokafka's fetcher does not survive the end of a subscription; the next call replaces this one.
        consumer.pause(*consumer.assignment())
    return found
