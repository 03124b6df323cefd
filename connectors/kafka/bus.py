"""The port `Bus` over aiokafka: confirmed, idempotent, bounded in bytes and in time. Nothing is read here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, KafkaTimeoutError
from aiokafka.partitioner import murmur2

from connectors.errors import CrossfadeError, Misconfigured, Refused, StoreUnavailable
from connectors.kafka.errors import mapped
from connectors.kafka.resets import survive_resets
from schemas.records import OVERHEAD_BYTES, Outgoing, size_of
from schemas.settings import Kafka
from topics.provisioning import largest_record, record_limit

# Below the smallest limit of a topic, so that a batch that a topic refuses for its size is always a single record.
_BATCH_BYTES = 256 * 1024
# A produce request carries one batch for each partition and must stay below the brokers' 100 MiB.
_IN_FLIGHT_RECORDS = 4
_REQUEST_TIMEOUT_MS = 10_000


@lru_cache(maxsize=65_536)
def _hash(key: bytes) -> int:
    """Return Kafka's hash of a key; a document's key is hashed once, not once for each topic on its way."""
    return int(murmur2(key)) & 0x7FFFFFFF


async def _by_partition(
    producer: AIOKafkaProducer, records: Sequence[Outgoing]
) -> dict[TopicPartition, list[Outgoing]]:
    """Split records by partition, as Kafka's own clients choose it, and keep their order."""
    counts: dict[str, int] = {}
    parts: dict[TopicPartition, list[Outgoing]] = {}
    for record in records:
        count = counts.get(record.topic)
        if count is None:
            count = counts[record.topic] = len(await producer.partitions_for(record.topic))
        # Any partition will do for a record without a key.
        number = _hash(record.key) % count if record.key is not None else 0
        parts.setdefault(TopicPartition(record.topic, number), []).append(record)
    return parts


def _fits(batch: Any, record: Outgoing) -> bool:
    added = batch.append(timestamp=None, key=record.key, value=record.value, headers=list(record.headers))
    return added is not None


class AiokafkaBus:
    """Publishes to Kafka: acks=all, idempotent producer, partition by murmur2 of the key.

    One bus serves concurrent callers. After a timeout, or a failure that leaves the producer's sequence in doubt, the
    producer is given up with everything that it still holds, so that nothing is delivered late, after a caller's retry.
    Every caller whose records it held gets StoreUnavailable and may publish again.
    """

    def __init__(self, kafka: Kafka, *, timeout_s: float = 30.0) -> None:
        """Take the addresses and limits; nothing is connected yet. Raises Misconfigured without `bootstrap`."""
        if kafka.bootstrap is None:
            raise Misconfigured("kafka.bootstrap is not set and there is no local stack")
        survive_resets()
        self._bootstrap = kafka.bootstrap
        self._kafka = kafka
        self._timeout_s = timeout_s
        self._producer: Any = None
        self._starting = asyncio.Lock()
        self._room = _ByteBudget(_IN_FLIGHT_RECORDS * largest_record(kafka))
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False

    async def open(self) -> None:
        """Connect; optional, since `publish` connects by itself. Raises StoreUnavailable when no broker answers."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._started()
        except TimeoutError as error:
            raise StoreUnavailable(f"{self._bootstrap}: no answer within {self._timeout_s:g} s") from error

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Publish records in the given order for each key; return when every record is acknowledged.

        Raises Refused before anything is sent when a record is too large for its topic, StoreUnavailable after
        `timeout_s`, Misconfigured for a topic that does not exist. After an error some of the records may have been
        published.
        """
        for record in records:
            self._check(record)
        try:
            async with asyncio.timeout(self._timeout_s):
                for group, size in self._groups(records):
                    await self._publish_group(group, size)
        except TimeoutError as error:
            self._give_up(self._producer)
            raise StoreUnavailable(f"{self._bootstrap}: not acknowledged within {self._timeout_s:g} s") from error

    async def close(self) -> None:
        """Close the connections; give up the records that are not acknowledged."""
        self._closed = True
        self._give_up(self._producer)
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=self._timeout_s)

    def _check(self, record: Outgoing) -> None:
        if record.key is None and record.value is None:
            raise Refused(f"{record.topic}: a record needs a key or a value")
        size, limit = size_of(record), record_limit(record.topic, self._kafka)
        if size > limit:
            raise Refused(f"{record.topic}: a record of {size} bytes, the topic takes {limit}")

    def _groups(self, records: Sequence[Outgoing]) -> Iterator[tuple[list[Outgoing], int]]:
        group: list[Outgoing] = []
        total = 0
        for record in records:
            size = size_of(record)
            if group and total + size > self._room.limit:
                yield group, total
                group, total = [], 0
            group.append(record)
            total += size
        if group:
            yield group, total

    async def _publish_group(self, group: Sequence[Outgoing], size: int) -> None:
        await self._room.take(size)
        try:
            producer = await self._started()
            try:
                parts = await _by_partition(producer, group)
                sending = [self._send(producer, at, records) for at, records in parts.items()]
                results = await asyncio.gather(*sending, return_exceptions=True)
            except (KafkaError, OSError) as error:
                self._give_up(producer)
                raise mapped(error, group[0].topic) from error
            self._raise_first(producer, parts, results)
        finally:
            self._room.give(size)

    async def _send(self, producer: AIOKafkaProducer, at: TopicPartition, records: Sequence[Outgoing]) -> None:
        """Send the records of one partition in as few batches as they fit in, and wait for all of them."""
        waiting: list[asyncio.Future[Any]] = []
        batch = producer.create_batch()
        for record in records:
            if not _fits(batch, record):
                waiting.append(await producer.send_batch(batch, at.topic, partition=at.partition))
                batch = producer.create_batch()
                _fits(batch, record)  # a batch takes its first record whatever its size
        waiting.append(await producer.send_batch(batch, at.topic, partition=at.partition))
        await asyncio.gather(*waiting)

    def _raise_first(
        self, producer: AIOKafkaProducer, parts: Iterable[TopicPartition], results: Sequence[BaseException | None]
    ) -> None:
        failures: list[CrossfadeError] = []
        for at, result in zip(parts, results, strict=True):
            if isinstance(result, Exception):
                failures.append(mapped(result, at.topic))
            elif result is not None:
                raise result
        if failures:
            # The brokers expect the sequence numbers of the failed batch: this producer could never continue.
            self._give_up(producer)
            raise next((failure for failure in failures if isinstance(failure, Refused)), failures[0])

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._closed:
                raise StoreUnavailable("the bus is closed")
            if self._producer is None:
                producer = AIOKafkaProducer(
                    bootstrap_servers=self._bootstrap,
                    client_id="crossfade",
                    acks="all",
                    enable_idempotence=True,
                    max_batch_size=_BATCH_BYTES,
                    max_request_size=largest_record(self._kafka) + OVERHEAD_BYTES,
                    # Not compressed: gzip, the only codec without another dependency, halves embedded documents, but
                    # takes five times the processor time and two thirds of the throughput.
                    # A call brings its whole batch, so waiting for more would only cost freshness.
                    linger_ms=0,
                    request_timeout_ms=min(_REQUEST_TIMEOUT_MS, int(self._timeout_s * 1000 / 3)),
                )
                try:
                    await producer.start()
                except (KafkaError, OSError) as error:
                    await producer.stop()
                    raise mapped(error, self._bootstrap) from error
                except BaseException:
                    self._leave(producer)
                    raise
                self._producer = producer
            return self._producer

    def _give_up(self, producer: Any) -> None:
        if producer is None or producer is not self._producer:
            return
        self._producer = None
        self._leave(producer)

    def _leave(self, producer: Any) -> None:
        task = asyncio.get_running_loop().create_task(_retire(producer))
        self._leaving.add(task)
        task.add_done_callback(self._left)

    def _left(self, task: asyncio.Task[None]) -> None:
        self._leaving.discard(task)
        if not task.cancelled():
            task.exception()  # the producer was given up: how it ended does not matter


async def _retire(producer: Any) -> None:
    """End a producer without delivering what it still holds; its callers get an error.

    The producer's own `stop` waits until everything is delivered, and an idempotent producer retries for ever. There is
    no public way to make it drop its records. Requests on the wire are awaited, so that none takes effect after this.
    """
    try:
        await producer._sender.close()
        producer._message_accumulator.fail_all(KafkaTimeoutError("the producer was given up"))
        await producer.stop()
    finally:
        await producer.client.close()


class _ByteBudget:
    """The bytes that may be in flight at once; a single taker may exceed the limit when it is alone."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._taken = 0
        self._waiting: list[asyncio.Future[None]] = []

    async def take(self, size: int) -> None:
        while self._taken and self._taken + size > self.limit:
            freed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(freed)
            await freed
        self._taken += size

    def give(self, size: int) -> None:
        self._taken -= size
        waiting, self._waiting = self._waiting, []
        for freed in waiting:
            if not freed.done():
                freed.set_result(None)
