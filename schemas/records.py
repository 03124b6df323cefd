"""Kafka records as plain values, so that handlers never see a client library. No I/O."""

from __future__ import annotations

from typing import NamedTuple

Headers = tuple[tuple[str, bytes], ...]
TopicPartition = tuple[str, int]
"""A topic and the number of one of its partitions."""


class Received(NamedTuple):
    """A record read from a topic; `timestamp_ms` is the broker's or the producer's, in milliseconds since the epoch.

    `unread` is the reason why the record could not be read, empty if it was read. In an unread record `value` holds the
    bytes that the broker keeps: of the record, or of the whole batch of `records` records that ends at `offset`.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp_ms: int = 0
    unread: str = ""
    records: int = 1

    @property
    def place(self) -> str:
        """Where it is in Kafka: `topic/partition/offset`."""
        return f"{self.topic}/{self.partition}/{self.offset}"

    def header(self, name: str) -> str | None:
        """Return the first header of that name as text, or None."""
        for key, value in self.headers:
            if key == name:
                return value.decode("utf-8", "replace")
        return None


class Outgoing(NamedTuple):
    """A record to publish; the partition follows from the key (murmur2, as Kafka's own clients do)."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


# An upper bound of the bytes that a record batch and a record add to key, value and headers.
OVERHEAD_BYTES = 128


def size_of(record: Outgoing) -> int:
    """Return the bytes that a record takes in a batch, rounded up."""
    return len(record.key or b"") + len(record.value or b"") + size_of_headers(record.headers) + OVERHEAD_BYTES


def size_of_headers(headers: Headers) -> int:
    """Return the bytes that headers take in a record, rounded up."""
    return sum([len(name.encode("utf-8", "replace")) + len(value) + 10 for name, value in headers])
