"""Record batches as foreign producers may send them, and malformed ones.

They are built byte by byte and sent without the checks of a client.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
_CRC_AT, _ATTRIBUTES_AT = 17, 21
Headers = Sequence[tuple[str, bytes | None]]


def batch_of(records: Sequence[tuple[bytes | None, bytes | None, Headers]], codec: str = "none") -> bytes:
    """Return a batch of records, each given as (key, value, headers)."""
    builder = DefaultRecordBatchBuilder(2, CODECS[codec], 0, -1, -1, -1, 1 << 30)
    for offset, (key, value, headers) in enumerate(records):
        builder.append(offset, timestamp=1_700_000_000_000, key=key, value=value, headers=list(headers))
    return bytes(builder.build())


def with_checksum(batch: bytes) -> bytes:
    """Return a modified batch with its checksum corrected."""
    checksum: int = calc_crc32c(batch[_ATTRIBUTES_AT:])
    return batch[:_CRC_AT] + checksum.to_bytes(4, "big") + batch[_ATTRIBUTES_AT:]


async def send(bootstrap: str, topic: str, *batches: bytes, partition: int = 0) -> list[int]:
    """Send batches unchanged, one after the other. Return the error code of each, 0 if the broker accepted it."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    try:
        await producer.partitions_for(topic)
        node = producer.client.cluster.leader_for_partition(TopicPartition(topic, partition))
        codes = []
        for batch in batches:
            answer: Any = await producer.client.send(
                node, ProduceRequest(None, -1, 10_000, [(topic, [(partition, batch)])])
            )
            codes.append(answer.topics[0][1][0][1])
        return codes
    finally:
        await producer.stop()
