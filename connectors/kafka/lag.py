"""How far the roles are behind, in records and in seconds, and when all that is under way has gone through them.

One client serves any number of looks. Nothing is committed here, and no role is waited for longer than it is told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    KafkaError,
    NoError,
    for_code,
)

from connectors.errors import StoreUnavailable
from connectors.kafka.consumer import consumer as complete_consumer
from connectors.kafka.errors import mapped
from connectors.kafka.identity import TopicIdentity, topic_identities
from connectors.kafka.tail import group_offsets
from topics.catalogue import EMBEDDED, LOG, PARKED, RESOLVED, SUBMITTED, group_of, parked_group_of

Place = tuple[str, int]
"""A topic and the number of a partition."""

# What was in the topics has passed when each of these stages has committed what was there when the one before it had.
# The resolver and the legacy writer append refresh entries to the log: the second round is for those.
_STAGES = (
    ("intake", "capture"),
    ("resolver",),
    ("legacy", "embedder"),
    ("resolver",),
    ("legacy", "embedder"),
    ("vector",),
)
_POLL_S = 0.2
_CALL_S = 15.0
_OLDEST_S = 3.0
_FETCH_BYTES = 64 * 1024
_KNOWN = 4096


@dataclass(frozen=True, slots=True)
class Reads:
    """The consumer group of a role, and the topics that it reads."""

    role: str
    group: str
    topics: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RoleLag:
    """How far a role is behind in one topic.

    `seconds` is the age of the oldest record that it has not committed, 0 where there is none, None where that record
    could not be read in time.
    """

    role: str
    topic: str
    messages: int
    seconds: float | None


class Offsets(Protocol):
    """What a barrier asks of the brokers."""

    async def bounds(self, topics: Iterable[str]) -> dict[Place, tuple[int, int]]:
        """Return the oldest kept and the next offset of each partition of those topics that exist."""
        ...

    async def committed(self, group: str) -> dict[Place, int]:
        """Return the committed offsets of a group."""
        ...


def pipeline(captured: Iterable[str]) -> tuple[Reads, ...]:
    """Return what the roles of documents read; `captured` are the topics of capture, one for each collection."""
    reads = {
        "intake": (SUBMITTED,),
        "capture": tuple(captured),
        "resolver": (LOG,),
        "legacy": (RESOLVED,),
        "embedder": (RESOLVED,),
        "vector": (EMBEDDED,),
    }
    return tuple(Reads(role, group_of(role), topics) for role, topics in reads.items())


async def passed(offsets: Offsets, reads: Sequence[Reads], limit_s: float) -> bool:
    """Return True when all that is in the topics now has gone through every role, False where that takes too long.

    What capture has not read from the database's log yet is in no topic: see `migration.capture.positions.captured`.
    """
    roles = {each.role: each for each in reads}
    try:
        async with asyncio.timeout(limit_s):
            for stage in _STAGES:
                waited = [roles[role] for role in stage if role in roles]
                ends = {each: await offsets.bounds(each.topics) for each in waited}
                for each in waited:
                    await _committed(offsets, each.group, ends[each])
    except TimeoutError:
        return False
    return True


async def _committed(offsets: Offsets, group: str, bounds: Mapping[Place, tuple[int, int]]) -> None:
    waited = {place: end for place, (begin, end) in bounds.items() if end > begin}
    while waited:
        committed = await offsets.committed(group)
        waited = {place: end for place, end in waited.items() if committed.get(place, 0) < end}
        if waited:
            await asyncio.sleep(_POLL_S)


class KafkaLag:
    """Looks at the groups of `reads` over one admin client and one reader, connected at the first look.

    With a `collection` it is how far they are with that one. Every call raises StoreUnavailable where the brokers do
    not answer; the next one connects anew.
    """

    def __init__(
        self,
        bootstrap: str,
        reads: Sequence[Reads],
        *,
        collection: str = "",
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._collection = collection
        self._bootstrap = bootstrap
        self._reads = reads
        self._now_s = now_s
        self._admin: AIOKafkaAdminClient | None = None
        self._reader: AIOKafkaConsumer | None = None
        self._connecting = asyncio.Lock()
        self._reading = asyncio.Lock()
        self._oldest: dict[tuple[Place, int], float] = {}

    async def lags(self, captured: Iterable[str] | None = None) -> list[RoleLag]:
        """Return how far each role is behind in each of its topics that exists; `captured` as in `passed`."""
        reads = self._chosen(captured)
        bounds = await self.bounds(topic for each in reads for topic in each.topics)
        found: list[RoleLag] = []
        for each in reads:
            committed = await self.committed(each.group)
            for topic in each.topics:
                behind = {
                    place: (max(begin, committed.get(place, 0)), end)
                    for place, (begin, end) in bounds.items()
                    if place[0] == topic
                }
                if behind:
                    waiting = {place: at for place, (at, end) in behind.items() if at < end}
                    messages = sum(end - at for at, end in behind.values() if at < end)
                    found.append(RoleLag(each.role, topic, messages, await self._age(waiting)))
        return found

    async def passed(self, limit_s: float, captured: Iterable[str] | None = None) -> bool:
        """Say whether all that is in the topics now went through every role within the limit: see `passed`.

        With `captured` these are capture's topics, and no others.
        """
        return await passed(self, self._chosen(captured), limit_s)

    def _chosen(self, captured: Iterable[str] | None) -> list[Reads]:
        if captured is None:
            return list(self._reads)
        topics = tuple(captured)
        return [Reads(one.role, one.group, topics) if one.role == "capture" else one for one in self._reads]

    async def bounds(self, topics: Iterable[str]) -> dict[Place, tuple[int, int]]:
        """See `Offsets.bounds`."""
        wanted = sorted(set(topics))
        if not wanted:
            return {}
        async with self._clients() as (admin, reader):
            described = await admin.describe_topics(wanted)
            places = [
                TopicPartition(topic["topic"], partition["partition"])
                for topic in described
                if for_code(topic["error_code"]) is NoError
                for partition in topic["partitions"]
            ]
            if not places:
                return {}
            for topic in {at.topic for at in places}:
                # Else aiokafka learns of topics that are new to it one after the other, 0.1 s each.
                reader._client.add_topic(topic)
            begins, ends = await reader.beginning_offsets(places), await reader.end_offsets(places)
            return {(at.topic, at.partition): (begins[at], ends[at]) for at in places}

    async def identities(self, topics: Iterable[str]) -> dict[str, TopicIdentity]:
        """Return what those of the topics that exist are beside their names. Makes none."""
        async with self._clients() as (admin, _):
            return await topic_identities(admin, topics)

    async def committed(self, group: str) -> dict[Place, int]:
        """See `Offsets.committed`. Of a collection that a role parked, where it goes on with it."""
        async with self._clients() as (admin, _):
            committed = await group_offsets(admin, group)
            if self._collection:  # in this order: what is parked is kept before the role's own offset moves on
                parked = await group_offsets(admin, parked_group_of(group, self._collection), PARKED)
                committed |= {place: min(at, committed.get(place, at)) for place, at in parked.items()}
            return committed

    async def close(self) -> None:
        """Close the connections."""
        admin, reader, self._admin, self._reader = self._admin, self._reader, None, None
        if reader is not None:
            await reader.stop()
        if admin is not None:
            await admin.close()

    async def _age(self, waiting: Mapping[Place, int]) -> float | None:
        """Return the age of the oldest of the records at these offsets, in seconds, 0 where there are none."""
        if not waiting:
            return 0.0
        unknown = {place: at for place, at in waiting.items() if (place, at) not in self._oldest}
        if unknown:
            if len(self._oldest) > _KNOWN:
                self._oldest.clear()
            async with self._reading, self._clients() as (_, reader):
                self._oldest.update(await _times(reader, unknown))
        times = [self._oldest[place, at] for place, at in waiting.items() if (place, at) in self._oldest]
        return max(0.0, self._now_s() - min(times)) if times else None

    @asynccontextmanager
    async def _clients(self) -> AsyncIterator[tuple[Any, Any]]:
        """Lend both clients, connected; after an error they are given up."""
        try:
            async with asyncio.timeout(_CALL_S):
                async with self._connecting:
                    await self._connect()
                yield self._admin, self._reader
        except (KafkaError, OSError, TimeoutError) as error:
            await self.close()
            if isinstance(error, TimeoutError):
                raise StoreUnavailable(f"{self._bootstrap}: no answer within {_CALL_S:g} s") from error
            raise mapped(error, self._bootstrap) from error

    async def _connect(self) -> None:
        if self._admin is not None:
            return
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap, client_id="crossfade-lag")
        reader = complete_consumer(
            self._bootstrap,
            "crossfade-lag",
            fetch_max_wait_ms=200,
            # A broker gives the first batch whole, however large it is.
            max_partition_fetch_bytes=_FETCH_BYTES,
            fetch_max_bytes=_FETCH_BYTES,
        )
        try:
            await admin.start()
            await reader.start()
            await asyncio.sleep(0)  # a consumer that is stopped before its own tasks ran raises CancelledError
        except BaseException:
            await reader.stop()
            await admin.close()
            raise
        self._admin, self._reader = admin, reader


async def _times(reader: AIOKafkaConsumer, wanted: Mapping[Place, int]) -> dict[tuple[Place, int], float]:
    """Return when the records at these offsets were written, in seconds since the epoch, those that come in time."""
    found: dict[tuple[Place, int], float] = {}
    places = {TopicPartition(*place): at for place, at in wanted.items()}
    reader.assign(list(places))
    try:
        for place, at in places.items():
            reader.seek(place, at)
        deadline = time.monotonic() + _OLDEST_S
        while len(found) < len(places) and time.monotonic() < deadline:
            for place, records in (await reader.getmany(timeout_ms=200)).items():
                key = ((place.topic, place.partition), places[place])
                if records and key not in found:
                    found[key] = records[0].timestamp / 1000
                    reader.pause(place)
    finally:
        # aiokafka's fetcher does not survive the end of a subscription; the next look replaces this one.
        reader.pause(*reader.assignment())
    return found
