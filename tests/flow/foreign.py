"""A producer and consumer based on another client library (librdkafka). It uses nothing of crossfade's codec."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from topics.catalogue import ANSWERED, ASKED, DECIDED, SUBMITTED

WAIT_S = 60.0
SUBMITTED_TYPE = "crossfade.document.submitted.v1"


@dataclass(frozen=True)
class Seen:
    """A record with a JSON value, as a consumer sees it."""

    key: str
    partition: int
    offset: int
    headers: dict[str, str]
    data: dict[str, Any]

    @property
    def trace_id(self) -> str:
        return self.headers["traceparent"].split("-")[1]


class Foreign:
    """Produces events, and reads only records that came after it was created.

    A stack that was used before does not slow it down.
    """

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._producer = Producer({"bootstrap.servers": bootstrap})
        self._consumer = self._new_consumer()
        self._begin: dict[tuple[str, int], int] = {}
        topics = self._consumer.list_topics(timeout=10).topics
        for name in filter(lambda name: name.startswith("crossfade."), topics):
            for number in topics[name].partitions:
                _, end = self._consumer.get_watermark_offsets(TopicPartition(name, number), timeout=10)
                self._begin[name, number] = end

    def close(self) -> None:
        self._consumer.close()

    def send(self, topic: str, key: str, data: object, event_type: str, **headers: str) -> str:
        """Publish one event in binary mode and return its id. `data` of None deletes the document."""
        event_id = uuid.uuid4().hex
        self.begin_send(topic, key, data, event_id, event_type, **headers)
        self.flush()
        return event_id

    def begin_send(self, topic: str, key: str, data: object, event_id: str, event_type: str, **headers: str) -> None:
        """Hand an event to the producer without waiting for the broker."""
        all_headers = {
            "ce_specversion": "1.0",
            "ce_id": event_id,
            "ce_source": "test/foreign",
            "ce_type": event_type,
            "content-type": "application/json",
            **headers,
        }
        value = None if data is None else json.dumps(data).encode()
        self._producer.produce(topic, value, key.encode(), headers=[(k, v.encode()) for k, v in all_headers.items()])

    def flush(self) -> None:
        assert self._producer.flush(10) == 0

    def submit(self, collection: str, document_id: str, **data: object) -> str:
        whole = {"collection": collection, "id": document_id, **data}
        return self.send(SUBMITTED, f"{collection}/{document_id}", whole, SUBMITTED_TYPE)

    def ask(self, question: Mapping[str, object], **headers: str) -> None:
        """Publish a question with its id as the key."""
        self.send(ASKED, str(question["id"]), dict(question), "crossfade.query.asked.v1", **headers)

    async def answer(self, query_id: str) -> Seen:
        """Wait for the answer to a question, and return it."""
        return await self.found(ANSWERED, lambda seen: bool(seen.data["query_id"] == query_id))

    async def decision(self, query_id: str) -> Seen:
        """Wait for the decision about a question, and return it."""
        return await self.found(DECIDED, lambda seen: bool(seen.data["query_id"] == query_id))

    async def found(self, topic: str, fits: Callable[[Seen], bool]) -> Seen:
        """Wait for the first record of a topic that fits, and return it."""
        return await asyncio.to_thread(self._read_until, topic, fits)

    def _read_until(self, topic: str, fits: Callable[[Seen], bool]) -> Seen:
        consumer = self._new_consumer()
        consumer.assign(self._beginnings(topic))
        ends = time.monotonic() + WAIT_S
        try:
            while time.monotonic() < ends:
                seen = _seen(consumer.poll(0.1))
                if seen is not None and fits(seen):
                    return seen
        finally:
            consumer.close()
        pytest.fail(f"nothing fitting on {topic} within {WAIT_S:.0f} s")

    async def everything(self, topic: str) -> list[Seen]:
        """Return the records that a topic holds now."""
        return await asyncio.to_thread(self._read_all, topic)

    def _read_all(self, topic: str) -> list[Seen]:
        consumer = self._new_consumer()
        found: list[Seen] = []
        try:
            places = self._beginnings(topic)
            ends = {place.partition: consumer.get_watermark_offsets(place, timeout=10)[1] for place in places}
            left = {place.partition for place in places if max(0, place.offset) < ends[place.partition]}
            consumer.assign(places)
            while left:
                message = consumer.poll(10)
                assert message is not None, f"{topic}: nothing more came of partitions {left}"
                partition, offset = message.partition(), message.offset()
                assert partition is not None
                assert offset is not None, message.error()
                if offset + 1 >= ends[partition]:
                    left.discard(partition)
                seen = _seen(message)
                if seen is not None:
                    found.append(seen)
        finally:
            consumer.close()
        return found

    def _beginnings(self, topic: str) -> list[TopicPartition]:
        numbers = self._consumer.list_topics(topic, timeout=10).topics[topic].partitions
        return [TopicPartition(topic, n, self._begin.get((topic, n), OFFSET_BEGINNING)) for n in numbers]

    def _new_consumer(self) -> Consumer:
        return Consumer(
            {"bootstrap.servers": self._bootstrap, "group.id": uuid.uuid4().hex, "enable.auto.commit": False}
        )


def _seen(message: Any) -> Seen | None:
    """Return a message as a record, or None for no message, an error, or a message without a value."""
    if message is None or message.error() or message.value() is None:
        return None
    headers = {name: (value or b"").decode() for name, value in message.headers() or []}
    key = (message.key() or b"").decode()
    data = json.loads(message.value())
    return Seen(key, message.partition(), message.offset(), headers, data if isinstance(data, dict) else {})
