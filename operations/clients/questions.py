"""A client of the query topics, as an application would write it: publishes questions and waits for their answers."""

from __future__ import annotations

import asyncio
import time
import uuid
from types import TracebackType
from typing import Self

from aiokafka import TopicPartition

from connectors.addresses import brokers_of
from connectors.errors import Misconfigured
from connectors.kafka.admin import partition_counts
from connectors.kafka.bus import AiokafkaBus
from connectors.kafka.consumer import PASSED_OVER
from connectors.kafka.consumer import consumer as complete_consumer
from connectors.kafka.headers import received
from schemas.cloudevents import InvalidEvent, decode, encode
from schemas.queries import QueryAnswered, QueryAsked
from schemas.settings import Kafka
from topics.catalogue import ANSWERED, ASKED

SOURCE = "crossfade/ask"


class Asker:
    """Asks questions over Kafka; many may be in flight at once. Use it as an asynchronous context manager."""

    def __init__(self, kafka: Kafka, bus: AiokafkaBus) -> None:
        self._kafka = kafka
        self._bus = bus
        self._waiting: dict[str, asyncio.Future[QueryAnswered]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._consumer = complete_consumer(
            kafka.bootstrap, "crossfade-ask", auto_offset_reset="latest", fetch_max_wait_ms=100
        )

    async def __aenter__(self) -> Self:
        partitions = await self._partitions()
        await self._consumer.start()
        self._consumer.assign(partitions)
        await self._consumer.seek_to_end(*partitions)
        for partition in partitions:
            await self._consumer.position(partition)
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reader is not None:
            self._reader.cancel()
        await self._consumer.stop()

    async def ask(self, query: QueryAsked, timeout_s: float) -> QueryAnswered:
        """Publish a question and return its answer. Raises TimeoutError after `timeout_s`."""
        future: asyncio.Future[QueryAnswered] = asyncio.get_running_loop().create_future()
        self._waiting[query.id] = future
        record = encode(
            query,
            topic=ASKED,
            key=query.id,
            event_id=str(uuid.uuid4()),
            source=SOURCE,
            time_ms=time.time_ns() // 1_000_000,
        )
        try:
            await self._bus.publish([record])
            async with asyncio.timeout(timeout_s):
                return await future
        finally:
            self._waiting.pop(query.id, None)

    async def _partitions(self) -> list[TopicPartition]:
        counts = await partition_counts(brokers_of(self._kafka), [ANSWERED])
        if ANSWERED not in counts:
            raise Misconfigured(f"the topic {ANSWERED} is missing; run: crossfade topics apply")
        return [TopicPartition(ANSWERED, number) for number in range(counts[ANSWERED])]

    async def _read(self) -> None:
        async for record in self._consumer:
            if record.value is PASSED_OVER:
                continue
            try:
                answered, _ = decode(received(record), QueryAnswered)
            except InvalidEvent:
                continue
            future = self._waiting.get(answered.query_id)
            if future is not None and not future.done():
                future.set_result(answered)
