"""What aiokafka's consumers hand over, made complete: nothing ends a consumer, and no offset is lost.

aiokafka raises where it cannot read a batch, and its consumer stays there for good; it passes over control records and
aborted transactions without a word, so that a group which commits what it handled never comes to a partition's end.
Here a batch that cannot be read is handed over as a record too (`Unread`, with its place and its bytes), and so is the
last offset of each run that there is nothing to handle of (`PASSED_OVER`). One poll of a partition is bounded in bytes.
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
# Of one partition in one poll, unpacked. It ends with the record that reaches this.
POLL_BYTES = 1024 * 1024
# What a broker gives of one partition at once, and in all. The first batch comes whole, however large it is.
PARTITION_FETCH_BYTES = 1024 * 1024
FETCH_BYTES = 16 * 1024 * 1024
PASSED_OVER = object()
"""The value of a record that stands for offsets with nothing to handle: control records, aborted transactions."""


class Unread(bytes):
    """The value of a record that could not be read: its bytes, or those of its whole batch, packed as they are.

    `reason` says why; `records` is how many it stands for, up to the offset of the record that carries it.
    """

    reason: str
    records: int

    @classmethod
    def of(cls, data: bytes, reason: str, records: int) -> Unread:
        """Return the bytes with what is known of them."""
        unread = cls(data)
        unread.reason, unread.records = reason, records
        return unread


class WrongChecksum(Exception):
    """A batch whose bytes are not those that were written."""

    def __init__(self) -> None:
        super().__init__("its checksum is wrong")


def plain(records: Iterable[Any]) -> Iterator[Any]:
    """Leave out what stands for offsets only."""
    return (record for record in records if record.value is not PASSED_OVER)


class CompleteRecords(fetcher.PartitionRecords):  # type: ignore[misc]
    """The records of one partition's part of a fetch, in order, with something for every run of offsets."""

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
            except Exception as error:  # whatever a reader raises: the batch is kept, and those behind it are read
                yield from self._salvaged(raw, extent, error)
            if self.next_fetch_offset <= extent.last:
                self.next_fetch_offset = extent.last + 1
                yield self._record(extent.last, extent.timestamp_ms, None, PASSED_OVER)

    def _takes(self, batch: Any) -> bool:
        """Say whether a batch has records to hand over; keep track of aborted transactions."""
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
            if record.offset >= self.next_fetch_offset:  # else of before the offset that was asked for
                self.next_fetch_offset = record.offset + 1
                yield self._consumer_record(self._tp, record)

    def _salvaged(self, raw: memoryview, extent: Extent, error: Exception) -> Iterator[Any]:
        """Hand over the records of a batch one by one; what cannot be found in it as one, up to its last offset."""
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
    """One partition's part of a fetch, handed over by pieces of bounded size."""

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
    """Return the bytes of key, value and headers of a client library's record."""
    headers = sum([len(name) + len(value or b"") for name, value in record.headers]) if record.headers else 0
    return int(max(0, record.serialized_key_size) + max(0, record.serialized_value_size) + headers)


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, UnpackedTooLarge | WrongChecksum) else f"{type(error).__name__}: {error}"


def read_everything() -> None:
    """Have every consumer of aiokafka in this process read so; twice is once."""
    survive_resets()
    bound_codecs()
    fetcher.MemoryRecords = Fetched
    fetcher.PartitionRecords = CompleteRecords
    fetcher.FetchResult = BoundedResult


def consumer(bootstrap: str | None, client_id: str, **options: Any) -> AIOKafkaConsumer:
    """Return a consumer without a group that reads committed records only, and everything of them; not started."""
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
