"""Records of the client library as plain values, and the partition of a key. No connection is opened here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aiokafka.partitioner import murmur2

from connectors.kafka.consumer import Unread
from schemas.records import Headers, Received


def plain_headers(headers: Iterable[tuple[str, bytes | None]]) -> Headers:
    """Return headers as plain values; a header without a value gets an empty one."""
    return tuple((name, value or b"") for name, value in headers)


def received(record: Any) -> Received:
    """Return a client library's consumer record as a plain value."""
    read = Received(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=record.key,
        value=record.value,
        headers=plain_headers(record.headers),
        timestamp_ms=record.timestamp,
    )
    value = record.value
    return read._replace(unread=value.reason, records=value.records) if isinstance(value, Unread) else read


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition that Kafka's own clients choose for a key: murmur2, positive, modulo the count."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)
