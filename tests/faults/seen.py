"""What crossfade published on its topics: outcomes and resolved versions, read by librdkafka as any consumer would."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import defaultdict
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from topics.catalogue import RESOLVED, WRITTEN

READ_BOUND_S = 60.0


class Seen:
    """Begins at the ends of the topics, and continues each time where it last stopped."""

    def __init__(self, bootstrap: str) -> None:
        settings = {
            "bootstrap.servers": bootstrap,
            "group.id": uuid.uuid4().hex,
            "enable.auto.commit": False,
            "reconnect.backoff.max.ms": 500,
            "auto.offset.reset": "earliest",
        }
        self._consumer = Consumer(settings)
        # Used to query the ends: on the other consumer, each query would wait half a second behind fetches.
        self._asking = Consumer(settings)
        self._next: dict[tuple[str, int], int] = {}
        for topic in (WRITTEN, RESOLVED):
            for number in self._consumer.list_topics(topic, timeout=10).topics[topic].partitions:
                _, end = self._asking.get_watermark_offsets(TopicPartition(topic, number), timeout=10)
                self._next[topic, number] = end
        self._consumer.assign([TopicPartition(*at, offset) for at, offset in self._next.items()])
        # Outcomes by the event that caused them: (store or None, outcome, version, key).
        self.outcomes: dict[str, list[tuple[str | None, str, int | None, str]]] = defaultdict(list)
        self.dead_lettered = 0
        self.resolved: dict[str, int] = {}

    def close(self) -> None:
        self._consumer.close()
        self._asking.close()

    async def catch_up(self) -> bool:
        """Read to the present ends. Return False if the broker does not answer yet, or the ends are not reached."""
        try:
            return await asyncio.to_thread(self._catch_up)
        except KafkaException:
            return False

    def _catch_up(self) -> bool:
        behind = set()
        for (topic, number), offset in self._next.items():
            _, end = self._asking.get_watermark_offsets(TopicPartition(topic, number), timeout=5)
            if offset < end:
                behind.add((topic, number, end))
        deadline = time.monotonic() + READ_BOUND_S
        while behind and time.monotonic() < deadline:
            for message in self._consumer.consume(500, 0.2):
                if message.error() is None:
                    self._note(message)
            behind = {(topic, number, end) for topic, number, end in behind if self._next[topic, number] < end}
        return not behind

    def _note(self, message: Any) -> None:
        topic, key = message.topic(), (message.key() or b"").decode()
        self._next[topic, message.partition()] = message.offset() + 1
        data = json.loads(message.value())
        if topic == RESOLVED:
            self.resolved[key] = max(self.resolved.get(key, -1), data["version"])
            return
        self.dead_lettered += data["outcome"] == "dead_lettered"
        if data["cause"]:
            self.outcomes[data["cause"]].append((data["store"], data["outcome"], data["version"], key))
