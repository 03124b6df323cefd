"""Makes the output of aiokafka's consumers complete: no record ends a consumer, and no offset is lost.

aiokafka raises when it cannot read a batch, and its consumer stays there for good. It silently passes over control
records and aborted transactions, so a group that commits what it handled never reaches the end of a partition. Here a
batch that cannot be read is delivered as a record, too (`Unread`, with its offset and its bytes). So is the last offset
of each run of offsets with nothing to handle (`PASSED_OVER`). One poll of a partition is bounded in bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.consumer import fetcher
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord
from aiokafka.structs import ConsumerRecord

from connectors.kafka.batches import Extent, Fetched, extent_of, opened, pieces_of
from connectors.kafka.compression import UnpackedTooLarge, bound_codecs
from connectors.kafka.resets import survive_resets

READ_COMMITTED = "read_committed"
# The unpacked bytes of one partition in one poll. The poll ends with the record that reaches this.
POLL_BYTES = 1024 * 1024
# What a broker returns in one fetch, of one partition and in all. The first batch comes whole, however large it is.
PARTITION_FETCH_BYTES = 1024 * 1024
FETCH_BYTES = 16 * 1024 * 1024
PASSED_OVER = object()
"""The value of a record that stands for offsets with nothing to handle: control records, aborted transactions."""


class Unread(bytes):
    """The value of a record that could not be read: its bytes, or the bytes of its whole batch, still packed.

    `reason` says why; `records` is how many records it stands for, up to the offset of the record that carries it.
    """

    reason: str
    records: int

    @classmethod
    def of(cls, data: bytes, reason: str, records: int) -> Unread:
        """Return the bytes with their reason and number of records."""
        unread = cls(data)
        unread.reason, unread.records = reason, records
        return unread


class WrongChecksum(Exception):
    """A batch whose bytes are not the ones that were written."""

    def __init__(self) -> None:
        super().__init__("its checksum is wrong")


def plain(records: Iterable[Any]) -> Iterator[Any]:
    """Leave out records that only stand for offsets."""
    return (record for record in records if record.value is not PASSED_OVER)


class CompleteRecords(fetcher.PartitionRecords):  # type: ignore[misc]
    """The records of one partition in a fetch, in order, with a record for every run of offsets."""

    next_fetch_offset: int

    def _unpack_records(self) -> Iterator[Any]:
        while self._records.has_next():
            raw = self._records.next_raw()
            extent = extent_of(raw)
            if extent.last < self.next_fetch_offset:
                continue
            try:
                batch = opened(raw)
                if self._takes(batch):
                    yield from self._of(batch, extent)
            except Exception as error:  # whatever a reader raises: keep the batch, read those after it
                yield from self._salvaged(raw, extent, error)
            if self.next_fetch_offset <= extent.last:
                self.next_fetch_offset = extent.last + 1
                yield self._record(extent.last, extent.timestamp_ms, None, PASSED_OVER)

    def _takes(self, batch: Any) -> bool:
        """Return whether a batch has records to deliver; keep track of aborted transactions."""
        if self._check_crcs and not batch.validate_crc():
            raise WrongChecksum
        if batch.producer_id is not None and self._isolation_level == fetcher.READ_COMMITTED:
            self._consume_aborted_up_to(batch.base_offset)
            if batch.is_control_batch:
                if ControlRecord.parse(next(batch).key) == ABORT_MARKER:
                    self._aborted_producers.discard(batch.producer_id)
                return False
            if batch.is_transactional and batch.producer_id in self._aborted_producers:
                return False
        return not batch.is_control_batch

    def _of(self, batch: Any, extent: Extent) -> Iterator[Any]:
        for record in batch:
            if record.offset > extent.last:
                raise ValueError(f"offset {record.offset} of a batch that ends at {extent.last}")
            if record.offset >= self.next_fetch_offset:  # else it is before the requested offset
                self.next_fetch_offset = record.offset + 1
                yield self._consumer_record(self._tp, record)

    def _salvaged(self, raw: memoryview, extent: Extent, error: Exception) -> Iterator[Any]:
        """Deliver the records of a batch one by one, and what cannot be split as one record at the last offset."""
        try:
            for piece in [] if isinstance(error, WrongChecksum | UnpackedTooLarge) else pieces_of(raw):
                if piece.offset >= self.next_fetch_offset:
                    self.next_fetch_offset = piece.offset + 1
                    value = Unread.of(piece.value or b"", piece.fault, 1) if piece.fault else piece.value
                    yield self._record(piece.offset, piece.timestamp_ms, piece.key, value, piece.headers)
        except Exception as worse:
            error = worse
        left = min(extent.records, extent.last + 1 - self.next_fetch_offset)
        if left > 0:
            self.next_fetch_offset = extent.last + 1
            unread = Unread.of(bytes(raw), _why(error), left)
            yield self._record(extent.last, extent.timestamp_ms, None, unread)

    def _record(
        self, offset: int, timestamp_ms: int, key: bytes | None, value: Any, headers: tuple[Any, ...] = ()
    ) -> Any:
        at = self._tp
        size = len(value) if isinstance(value, bytes) else -1
        sizes = (-1 if key is None else len(key), size)
        return ConsumerRecord(at.topic, at.partition, offset, timestamp_ms, 0, key, value, None, *sizes, headers)


class BoundedResult(fetcher.FetchResult):  # type: ignore[misc]
    """One partition's part of a fetch, delivered in pieces of bounded size."""

    _partition_records: Any

    def getall(self, max_records: int | None = None) -> list[Any]:
        """Return the next records, up to the one that reaches `POLL_BYTES`."""
        if not self.check_assignment(self._topic_partition) or not self.has_more():
            return []
        found: list[Any] = []
        size = 0
        for record in self._partition_records:
            found.append(record)
            size += size_of(record)
            if size >= POLL_BYTES or len(found) == max_records:
                self._update_position()
                break
        else:
            self._update_position()
            self._partition_records = None
        return found


def size_of(record: Any) -> int:
    """Return the size in bytes of the key, value and headers of a client library's record."""
    headers = sum([len(name) + len(value or b"") for name, value in record.headers]) if record.headers else 0
    return int(max(0, record.serialized_key_size) + max(0, record.serialized_value_size) + headers)


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, UnpackedTooLarge | WrongChecksum) else f"{type(error).__name__}: {error}"


def read_everything() -> None:
    """Make every aiokafka consumer in this process read this way; a second call changes nothing."""
    survive_resets()
    bound_codecs()
    fetcher.MemoryRecords = Fetched
    fetcher.PartitionRecords = CompleteRecords
    fetcher.FetchResult = BoundedResult


def consumer(bootstrap: str | None, client_id: str, **options: Any) -> AIOKafkaConsumer:
    """Return a consumer, not started and without a group, that reads only committed records, and all of them."""
    read_everything()
    chosen = {
        "auto_offset_reset": "earliest",
        "max_partition_fetch_bytes": PARTITION_FETCH_BYTES,
        "fetch_max_bytes": FETCH_BYTES,
        **options,
    }
    return AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        client_id=client_id,
        enable_auto_commit=False,
        isolation_level=READ_COMMITTED,
        **chosen,
    )
