"""The port `Bus` in memory, with a readable log: topics, partitions and offsets as in Kafka."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from connectors.errors import Misconfigured, Refused
from connectors.kafka.headers import partition_of
from schemas.records import Outgoing, Received, size_of
from schemas.settings import Kafka, Settings
from topics.provisioning import desired_topics, record_limit


def _now_ms() -> int:
    return int(time.time() * 1000)


class MemoryBus:
    """Topics as lists. `topics` maps each name to its number of partitions; others do not exist."""

    def __init__(
        self, topics: Mapping[str, int], *, kafka: Kafka | None = None, clock_ms: Callable[[], int] = _now_ms
    ) -> None:
        self._kafka = kafka or Kafka()
        self._clock_ms = clock_ms
        self._logs: dict[str, list[list[Received]]] = {
            name: [[] for _ in range(partitions)] for name, partitions in topics.items()
        }

    @classmethod
    def provisioned(cls, settings: Settings, *, clock_ms: Callable[[], int] = _now_ms) -> MemoryBus:
        """Return a bus with every topic that `crossfade topics apply` would create."""
        topics = {topic.name: topic.partitions for topic in desired_topics(settings)}
        return cls(topics, kafka=settings.kafka, clock_ms=clock_ms)

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Append the records. Raises Refused for one that is too large, Misconfigured for an unknown topic."""
        for record in records:
            self._check(record)
        for record in records:
            self.append(record)

    def append(self, record: Outgoing, *, timestamp_ms: int | None = None, partition: int | None = None) -> Received:
        """Append one record. Return it with its partition and offset. A producer may choose the partition itself."""
        logs = self._topic(record.topic)
        if partition is None:
            by_turns = sum(map(len, logs)) % len(logs)
            partition = by_turns if record.key is None else partition_of(record.key, len(logs))
        kept = Received(
            topic=record.topic,
            partition=partition,
            offset=len(logs[partition]),
            key=record.key,
            value=record.value,
            headers=record.headers,
            timestamp_ms=self._clock_ms() if timestamp_ms is None else timestamp_ms,
        )
        logs[partition].append(kept)
        return kept

    def records(self, topic: str) -> list[Received]:
        """Return all records of a topic, partition by partition, in the order of their offsets."""
        return [record for log in self._topic(topic) for record in log]

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Received]:
        """Return up to `limit` records of a partition, starting at an offset."""
        return self._topic(topic)[partition][offset : offset + limit]

    def end_offsets(self, topic: str) -> dict[int, int]:
        """Return the next offset of each partition."""
        return {partition: len(log) for partition, log in enumerate(self._topic(topic))}

    def _topic(self, name: str) -> list[list[Received]]:
        try:
            return self._logs[name]
        except KeyError:
            raise Misconfigured(f"{name}: the topic does not exist; `crossfade topics apply` creates it") from None

    def _check(self, record: Outgoing) -> None:
        self._topic(record.topic)
        if record.key is None and record.value is None:
            raise Refused(f"{record.topic}: a record needs a key or a value")
        size, limit = size_of(record), record_limit(record.topic, self._kafka)
        if size > limit:
            raise Refused(f"{record.topic}: a record of {size} bytes, the topic takes {limit}")
